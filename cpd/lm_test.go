package cpd

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"
	"pgregory.net/rapid"
)

// collinear is a Kruskal tensor whose columns have pairwise cosines c in every
// mode.
func collinear(rng *rand.Rand, shape []int, rank int, c float64) *Kruskal {
	k := &Kruskal{}
	for _, d := range shape {
		var qr mat.QR
		qr.Factorize(mat.NewDense(d, rank+1, fill(rng, (rank+1)*d, false)))
		var q mat.Dense
		qr.QTo(&q)
		u := mat.NewDense(d, rank, nil)
		for j := range rank {
			for i := range d {
				u.Set(i, j, math.Sqrt(c)*q.At(i, rank)+math.Sqrt(1-c)*q.At(i, j))
			}
		}
		k.Factors = append(k.Factors, u)
	}
	return k
}

func TestLMFitsCollinearComponentsInFewIterations(t *testing.T) {
	for _, c := range []struct {
		congruence float64
		most       int
	}{{.5, 10}, {.9, 40}, {.95, 80}, {.99, 400}} {
		for seed := range uint64(3) {
			rng := rand.New(rand.NewPCG(seed, 21))
			k := collinear(rng, []int{50, 50, 50}, 5, c.congruence)
			r, err := LM(context.Background(), full(t, k), 5, &Settings{Init: InitRandom, Seed: seed, MaxSweeps: 1000, Tol: 1e-12})
			if err != nil {
				t.Fatal(err)
			}
			reached := slices.IndexFunc(r.Errors, func(e float64) bool { return e < 1e-6 }) + 1
			t.Logf("congruence %g: %d iterations to 1e-6, error %.2g after %d (%s)", c.congruence, reached, r.RelError, r.Sweeps, r.Status)
			if reached == 0 || reached > c.most {
				t.Errorf("congruence %g, seed %d: %d iterations to 1e-6, want at most %d; error %g", c.congruence, seed, reached, c.most, r.RelError)
			}
		}
	}
}

func TestLMErrorNeverRisesAndIsTheResidual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 22))
		shape := rapid.SliceOfN(rapid.IntRange(1, 6), 2, 4).Draw(t, "shape")
		rank := rapid.IntRange(1, 5).Draw(t, "rank")
		n := 1
		for _, d := range shape {
			n *= d
		}
		x := tensor.New(tensor.WithShape(shape...), tensor.WithBacking(fill(rng, n, false)))
		r, err := LM(context.Background(), x, rank, &Settings{MaxSweeps: 30, Init: InitRandom})
		if err != nil {
			t.Fatal(err)
		}
		for i := 1; i < len(r.Errors); i++ {
			if r.Errors[i] > r.Errors[i-1]+1e-14 {
				t.Fatalf("iteration %d raises the error from %g to %g", i, r.Errors[i-1], r.Errors[i])
			}
		}
		xhat, err := r.Reconstruct()
		if err != nil {
			t.Fatal(err)
		}
		var diff, norm float64
		for i, v := range x.Float64s() {
			d := v - xhat.Float64s()[i]
			diff += d * d
			norm += v * v
		}
		if e := math.Sqrt(diff / norm); math.Abs(e-r.RelError) > 1e-9 {
			t.Fatalf("error %g, residual %g", r.RelError, e)
		}
	})
}

func TestLMIsNoWorseThanALSFromItsResult(t *testing.T) {
	rng := rand.New(rand.NewPCG(23, 23))
	x := tensor.New(tensor.WithShape(7, 8, 9), tensor.WithBacking(fill(rng, 7*8*9, false)))
	als, err := ALS(context.Background(), x, 4, &Settings{MaxSweeps: 20})
	if err != nil {
		t.Fatal(err)
	}
	lm, err := LM(context.Background(), x, 4, &Settings{Start: &als.Kruskal, MaxSweeps: 1})
	if err != nil {
		t.Fatal(err)
	}
	if lm.RelError > als.RelError*(1+1e-12) {
		t.Errorf("error %g from a start with %g", lm.RelError, als.RelError)
	}
}

func TestLMReachesRoundingOnExactData(t *testing.T) {
	rng := rand.New(rand.NewPCG(24, 24))
	k := collinear(rng, []int{9, 10, 11, 4}, 3, .3)
	r, err := LM(context.Background(), full(t, k), 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.RelError > 1e-13 {
		t.Errorf("error %g after %d iterations (%s)", r.RelError, r.Sweeps, r.Status)
	}
	if s, err := Score(&r.Kruskal, k); err != nil || s < 1-1e-9 {
		t.Errorf("score %g, %v", s, err)
	}
}

func TestLMDoesNotDependOnWorkers(t *testing.T) {
	rng := rand.New(rand.NewPCG(25, 25))
	x := tensor.New(tensor.WithShape(30, 31, 32), tensor.WithBacking(fill(rng, 30*31*32, false)))
	var first *Result
	for _, workers := range []int{1, 2, 4} {
		r, err := LM(context.Background(), x, 6, &Settings{MaxSweeps: 5, Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = r
		}
		if !slices.Equal(r.Errors, first.Errors) || !slices.Equal(r.Weights, first.Weights) {
			t.Errorf("%d workers give another result", workers)
		}
	}
}

func TestLMHandlesZeroDataAndBadSettings(t *testing.T) {
	zero := tensor.New(tensor.WithShape(3, 4, 5), tensor.Of(tensor.Float64))
	r, err := LM(context.Background(), zero, 3, nil)
	if err != nil || r.RelError != 0 || r.Status != Exact {
		t.Errorf("a zero tensor: %+v, %v", r, err)
	}
	if _, err := LM(context.Background(), zero, 3, &Settings{Ridge: .1}); !errors.Is(err, ErrSettings) {
		t.Errorf("a ridge: error %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	x := tensor.New(tensor.WithShape(2, 2, 2), tensor.WithBacking([]float64{1, 2, 3, 4, 5, 6, 7, 9}))
	if _, err := LM(ctx, x, 2, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error %v", err)
	}
	// More components than the tensor has, and one of them zero at the start.
	k := &Kruskal{Factors: []*mat.Dense{mat.NewDense(2, 3, []float64{1, 0, 1, 0, 0, 1}), mat.NewDense(2, 3, []float64{1, 0, 2, 1, 0, 1}), mat.NewDense(2, 3, []float64{1, 0, 1, 1, 0, 3})}}
	r, err = LM(context.Background(), x, 3, &Settings{Start: k})
	if err != nil || !(r.RelError < 1e-6) {
		t.Errorf("rank 3 of a 2×2×2 tensor: %+v, %v", r, err)
	}
}
