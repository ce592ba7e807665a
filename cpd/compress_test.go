package cpd

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"
)

// noisy is a tensor of components with normal factors, plus normal noise of the
// given share of its norm.
func noisy(tb testing.TB, rng *rand.Rand, shape []int, rank int, noise float64) *tensor.Dense {
	k := &Kruskal{}
	for _, d := range shape {
		k.Factors = append(k.Factors, mat.NewDense(d, rank, fill(rng, d*rank, false)))
	}
	x, err := k.Reconstruct()
	if err != nil {
		tb.Fatal(err)
	}
	v := x.Float64s()
	e := fill(rng, len(v), false)
	var a, b float64
	for i := range v {
		a += v[i] * v[i]
		b += e[i] * e[i]
	}
	for i := range v {
		v[i] += noise * math.Sqrt(a/b) * e[i]
	}
	return x
}

func TestCompressionChangesTheRoadButNotTheResult(t *testing.T) {
	for _, c := range []struct {
		shape []int
		rank  int
		noise float64
	}{
		{[]int{40, 40, 9}, 5, .1}, {[]int{60, 30}, 4, .5}, {[]int{20, 21, 22, 5}, 3, .3}, {[]int{50, 50, 3}, 2, 0}, {[]int{30, 31, 32}, 4, 1e-7},
	} {
		x := noisy(t, rand.New(rand.NewPCG(31, uint64(c.rank))), c.shape, c.rank, c.noise)
		with, err := ALS(context.Background(), x, c.rank, &Settings{Tol: 1e-11, MaxSweeps: 2000})
		if err != nil {
			t.Fatal(err)
		}
		without, err := ALS(context.Background(), x, c.rank, &Settings{Tol: 1e-11, MaxSweeps: 2000, Plain: true})
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(with.RelError-without.RelError) > 1e-6*without.RelError+1e-12 {
			t.Errorf("%v: error %g compressed first, %g without", c.shape, with.RelError, without.RelError)
		}
		// Of a matrix any rotation will do.
		if s, err := Score(&with.Kruskal, &without.Kruskal); err != nil || s < .999 && len(c.shape) > 2 {
			t.Errorf("%v: score of one against the other %g, %v", c.shape, s, err)
		}
		for i := 1; i < len(with.Errors); i++ {
			if with.Errors[i] > with.Errors[i-1]+1e-12 {
				t.Errorf("%v: sweep %d raises the error from %.16g to %.16g", c.shape, i, with.Errors[i-1], with.Errors[i])
			}
		}
		if last := with.Errors[len(with.Errors)-1]; math.Abs(last-with.RelError) > 1e-9 {
			t.Errorf("%v: the last error is %g, that of the result %g", c.shape, last, with.RelError)
		}
	}
}

func TestCompressedFitDoesNotDependOnWorkersAndKeepsItsLimits(t *testing.T) {
	x := noisy(t, rand.New(rand.NewPCG(32, 0)), []int{40, 41, 9}, 5, .3)
	var first *Result
	for _, workers := range []int{1, 2, 4} {
		r, err := ALS(context.Background(), x, 5, &Settings{MaxSweeps: 12, Tol: 1e-15, Workers: workers, Starts: 2})
		if err != nil {
			t.Fatal(err)
		}
		if r.Sweeps != 12 || len(r.Errors) != 12 || r.Status != SweepLimit {
			t.Errorf("%d sweeps, %d errors, %s; want 12", r.Sweeps, len(r.Errors), r.Status)
		}
		if first == nil {
			first = r
		}
		if !slices.Equal(r.Errors, first.Errors) {
			t.Errorf("%d workers give another result", workers)
		}
	}
	one, err := ALS(context.Background(), x, 5, &Settings{MaxSweeps: 1})
	if err != nil || one.Sweeps != 1 {
		t.Errorf("one sweep: %+v, %v", one, err)
	}
}

func BenchmarkALS(b *testing.B) {
	for _, c := range []struct {
		shape []int
		rank  int
	}{{[]int{256, 256, 9}, 32}, {[]int{512, 512, 9}, 32}, {[]int{512, 512, 9}, 128}, {[]int{100, 100, 100}, 20}, {[]int{300, 300, 300}, 20}} {
		x := noisy(b, rand.New(rand.NewPCG(33, 0)), c.shape, c.rank, .3)
		for _, plain := range []bool{false, true} {
			b.Run(fmt.Sprintf("%v/%d/plain=%v", c.shape, c.rank, plain), func(b *testing.B) {
				var r *Result
				for b.Loop() {
					var err error
					if r, err = ALS(context.Background(), x, c.rank, &Settings{MaxSweeps: 50, Tol: 1e-6, Workers: 1, Plain: plain}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(r.RelError, "error")
				b.ReportMetric(float64(r.Sweeps), "sweeps")
			})
		}
	}
}
