package tkdcpd

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/cpd"
)

// draw is a random tensor with factors of orthonormal columns in the first modes.
func draw(seed uint64, rank, outer int, shape, dims []int) *Tensor {
	rng := rand.New(rand.NewPCG(seed, 5))
	normal := func(rows, cols int) *mat.Dense {
		m := mat.NewDense(rows, cols, nil)
		m.Apply(func(int, int, float64) float64 { return rng.NormFloat64() }, m)
		return m
	}
	t := &Tensor{Factors: make([]*mat.Dense, len(shape))}
	for n, size := range shape {
		rows := size
		if n < outer {
			rows = dims[n]
			var qr mat.QR
			qr.Factorize(normal(size, rows))
			var q mat.Dense
			qr.QTo(&q)
			t.Factors[n] = mat.DenseCopyOf(q.Slice(0, size, 0, rows))
		}
		t.Core.Factors = append(t.Core.Factors, normal(rows, rank))
	}
	for range rank {
		t.Core.Weights = append(t.Core.Weights, rng.NormFloat64())
	}
	return t
}

func values(t *testing.T, x *Tensor) []float64 {
	t.Helper()
	y, err := x.Reconstruct()
	if err != nil {
		t.Fatal(err)
	}
	return y.Data().([]float64)
}

func distance(a, b []float64) float64 {
	var s float64
	for i, v := range a {
		s += (v - b[i]) * (v - b[i])
	}
	return math.Sqrt(s)
}

// Noise on all entries raises the squared error by its variance times the sensitivity;
// with the weights in the first factor, for noise does not know of them.
func TestPerturbationCostsWhatSensitivityPredicts(t *testing.T) {
	const trials, sigma = 2000, 1e-4
	for outer := range 4 {
		x := draw(uint64(outer), 3, outer, []int{6, 5, 4}, []int{3, 2, 3})
		for r, w := range x.Core.Weights {
			for i := range x.Core.Shape()[0] {
				x.Core.Factors[0].Set(i, r, x.Core.Factors[0].At(i, r)*w)
			}
		}
		weighted := draw(uint64(outer), 3, outer, []int{6, 5, 4}, []int{3, 2, 3})
		x.Core.Weights = nil
		if a, b := x.Sensitivity(), weighted.Sensitivity(); math.Abs(a-b) > 1e-9*a {
			t.Errorf("%d factors: sensitivity %g, %g with the weights apart", outer, a, b)
		}
		for _, x := range []*Tensor{x, x.Balanced(), x.Merged()} {
			rng := rand.New(rand.NewPCG(1, 2))
			base := values(t, x)
			var mean float64
			for range trials {
				y := &Tensor{Core: *x.Core.Clone()}
				noisy := func(m *mat.Dense) *mat.Dense {
					m = mat.DenseCopyOf(m)
					m.Apply(func(_, _ int, v float64) float64 { return v + sigma*rng.NormFloat64() }, m)
					return m
				}
				for n, u := range x.Factors {
					y.Core.Factors[n] = noisy(y.Core.Factors[n])
					if u != nil {
						u = noisy(u)
					}
					y.Factors = append(y.Factors, u)
				}
				d := distance(values(t, y), base)
				mean += d * d / trials
			}
			if got := mean / (sigma * sigma); math.Abs(got-x.Sensitivity()) > .07*x.Sensitivity() {
				t.Errorf("%d factors: the squared error grows by %g a unit of variance, the sensitivity is %g", outer, got, x.Sensitivity())
			}
		}
	}
}

// No other split of the scales over components and factors is less sensitive.
func TestBalancedIsTheLeastSensitive(t *testing.T) {
	for outer := range 4 {
		x := draw(7, 3, outer, []int{6, 5, 4}, []int{3, 2, 3})
		b := x.Balanced()
		if d := distance(values(t, x), values(t, b)); d > 1e-12 {
			t.Errorf("%d factors: balancing moves the tensor by %g", outer, d)
		}
		least := b.Sensitivity()
		if least > x.Sensitivity() {
			t.Errorf("%d factors: sensitivity %g, before balancing %g", outer, least, x.Sensitivity())
		}
		if outer == 0 && math.Abs(least-x.Core.LeastSensitivity()) > 1e-9*least {
			t.Errorf("sensitivity %g, that of a Kruskal tensor is %g", least, x.Core.LeastSensitivity())
		}
		rng := rand.New(rand.NewPCG(3, 3))
		for range 200 {
			y := &Tensor{Core: *b.Core.Clone()}
			core := 1.
			for _, u := range b.Factors {
				if u != nil {
					s := math.Exp(.2 * rng.NormFloat64())
					core /= s
					var v mat.Dense
					v.Scale(s, u)
					u = &v
				}
				y.Factors = append(y.Factors, u)
			}
			for r := range 3 {
				s := [3]float64{math.Exp(.2 * rng.NormFloat64()), math.Exp(.2 * rng.NormFloat64())}
				s[2] = core / (s[0] * s[1])
				for n, a := range y.Core.Factors {
					for i := range y.Core.Shape()[n] {
						a.Set(i, r, a.At(i, r)*s[n])
					}
				}
			}
			if d := distance(values(t, b), values(t, y)); d > 1e-9 {
				t.Fatalf("the scales do not cancel: %g", d)
			}
			if s := y.Sensitivity(); s < least*(1-1e-12) {
				t.Fatalf("%d factors: sensitivity %g, balanced %g", outer, s, least)
			}
		}
	}
	zero := draw(7, 2, 2, []int{4, 4, 4}, []int{2, 2, 4})
	for _, a := range zero.Core.Factors {
		a.Zero()
	}
	if s := zero.Balanced().Sensitivity(); s != 0 {
		t.Errorf("a zero tensor has sensitivity %g", s)
	}
}

func TestMergingTakesTheCheaperForm(t *testing.T) {
	for _, c := range []struct {
		rank   int
		merged []bool
	}{{1, []bool{true, true}}, {3, []bool{true, true}}, {7, []bool{false, true}}, {60, []bool{false, false}}} {
		x := draw(8, c.rank, 2, []int{20, 10, 5}, []int{4, 6, 5})
		m := x.Merged()
		for n, want := range c.merged {
			if got := m.Factors[n] == nil; got != want {
				t.Errorf("rank %d: mode %d merged %v, want %v", c.rank, n, got, want)
			}
		}
		if got, want := m.Params(), Params(x.Shape(), x.Core.Shape(), c.rank, Cheaper); got != want || got > x.Params() || got > c.rank*35 {
			t.Errorf("rank %d: %d parameters, want %d, the least of %d and %d", c.rank, got, want, x.Params(), c.rank*35)
		}
		if d := distance(values(t, x), values(t, m)); d > 1e-10 {
			t.Errorf("rank %d: merging moves the tensor by %g", c.rank, d)
		}
	}
}

func TestTensorsThatDoNotFitTogetherAreErrors(t *testing.T) {
	good := draw(1, 2, 2, []int{4, 5, 3}, []int{2, 3, 3})
	for name, c := range map[string]struct {
		t    *Tensor
		want error
	}{
		"nil":         {nil, ErrSettings},
		"no core":     {&Tensor{Factors: good.Factors}, cpd.ErrSettings},
		"few factors": {&Tensor{Core: good.Core, Factors: good.Factors[:2]}, ErrSettings},
		"columns":     {&Tensor{Core: good.Core, Factors: []*mat.Dense{good.Factors[1], nil, nil}}, ErrSettings},
	} {
		if _, err := c.t.Reconstruct(); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
