package tucker

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

	"github.com/lowrank-go/lowrank/internal/tensorops"
	"github.com/lowrank-go/lowrank/vbmf"
)

// amounts is a Tucker tensor without negative entries, about half of which are zero.
func amounts(seed uint64, shape, ranks []int) *Tucker {
	rng := rand.New(rand.NewPCG(seed, 5))
	fill := func(n int) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[i] = max(rng.NormFloat64(), 0)
		}
		return v
	}
	d := &Tucker{Core: tensorops.Wrap(ranks, fill(tensorops.Product(ranks)))}
	for n, r := range ranks {
		d.Factors = append(d.Factors, mat.NewDense(shape[n], r, fill(shape[n]*r)))
	}
	return d
}

// positive runs NonNegative and checks what holds for every result.
func positive(t rapid.TB, x *tensor.Dense, set *Settings) *Result {
	t.Helper()
	r, err := NonNegative(bg, x, set)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, v := range values(t, r.Core) {
		if v < 0 {
			t.Fatalf("the core has the entry %g", v)
		}
	}
	for n, u := range r.Factors {
		if u != nil && mat.Min(u) < 0 {
			t.Fatalf("factor %d has the entry %g", n, mat.Min(u))
		}
	}
	for i := 1; i < len(r.Errors); i++ {
		if r.Errors[i] > r.Errors[i-1]+1e-11 {
			t.Fatalf("sweep %d raises the error from %.15g to %.15g", i, r.Errors[i-1], r.Errors[i])
		}
	}
	if e := relError(t, x, &r.Tucker); math.Abs(e-r.RelError) > 1e-10 {
		t.Fatalf("reported error %g, is %g", r.RelError, e)
	}
	if n := r.Norm(); math.Abs(n-full(t, &r.Tucker)) > 1e-9*(1+n) {
		t.Fatalf("norm %g, want %g", n, full(t, &r.Tucker))
	}
	return r
}

// full is the norm of the reconstruction.
func full(t rapid.TB, d *Tucker) float64 {
	y, err := d.Reconstruct()
	if err != nil {
		t.Fatal(err)
	}
	return tensorops.Norm(values(t, y))
}

func TestNonNegativeDataAreFitted(t *testing.T) {
	for seed := range uint64(3) {
		x, err := amounts(seed, []int{12, 11, 10}, []int{3, 2, 3}).Reconstruct()
		if err != nil {
			t.Fatal(err)
		}
		r := positive(t, x, &Settings{Ranks: []int{3, 2, 3}, MaxSweeps: 3000, Tol: 1e-9})
		if r.RelError > .02 {
			t.Errorf("seed %d: error %g after %d sweeps (%s)", seed, r.RelError, r.Sweeps, r.Status)
		}
	}
}

func TestNonNegativeHoldsForAnyTensor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := drawShape(t, rapid.IntRange(1, 4).Draw(t, "order"), 6)
		x := random(rapid.Uint64().Draw(t, "seed"), shape...)
		set := &Settings{Ranks: []int{rapid.IntRange(1, 4).Draw(t, "rank")}, MaxSweeps: 20}
		if len(shape) > 1 && rapid.Bool().Draw(t, "partial") {
			set.Modes = []int{0}
		}
		r := positive(t, x, set)
		set.Workers = 3
		again := positive(t, x, set)
		if !slices.Equal(r.Errors, again.Errors) {
			t.Fatal("the errors depend on the number of workers")
		}
	})
}

func TestNonNegativeOfNothingAndOfOneSign(t *testing.T) {
	zero := tensorops.Wrap([]int{3, 4}, make([]float64, 12))
	if r := positive(t, zero, &Settings{Ranks: []int{2}}); r.RelError != 0 {
		t.Errorf("error %g of a zero tensor", r.RelError)
	}
	negative := tensorops.Wrap([]int{2, 2}, []float64{-1, -2, -3, -4})
	if r := positive(t, negative, &Settings{Ranks: []int{1}}); math.Abs(r.RelError-1) > 1e-12 {
		t.Errorf("error %g of a negative tensor, want 1", r.RelError)
	}
}

func TestNonNegativeRejectsBounds(t *testing.T) {
	if _, err := NonNegative(bg, random(1, 3, 4), &Settings{RelError: .1}); !errors.Is(err, ErrSettings) {
		t.Errorf("error %v", err)
	}
}

func TestCancelledIterationsReturnTheBestSoFar(t *testing.T) {
	x := random(1, 6, 7, 8)
	for name, f := range map[string]func(context.Context, *tensor.Dense, *Settings) (*Result, error){"HOOI": HOOI, "NonNegative": NonNegative} {
		ctx, cancel := context.WithCancel(bg)
		r, err := f(ctx, x, &Settings{Ranks: []int{2}, Tol: 1e-300, Progress: func(sweep int, _ float64) {
			if sweep == 2 {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) || r == nil || r.Status != Cancelled || r.Sweeps != 2 {
			t.Errorf("%s: %+v, %v", name, r, err)
		} else if e := relError(t, x, &r.Tucker); math.Abs(e-r.RelError) > 1e-12 || e > r.Errors[0] {
			t.Errorf("%s: error %g, is %g, at the start %g", name, r.RelError, e, r.Errors[0])
		}
		if r, err := f(ctx, x, &Settings{Ranks: []int{2}}); !errors.Is(err, context.Canceled) || r != nil {
			t.Errorf("%s, cancelled before: %v, %v", name, r, err)
		}
	}
}

func TestEnergyIsABoundOnTheError(t *testing.T) {
	x := decaying(3, 9, 8, 7)
	for _, f := range []func(context.Context, *tensor.Dense, *Settings) (*Result, error){HOSVD, STHOSVD, HOOI} {
		want, err := f(bg, x, &Settings{RelError: math.Sqrt(1 - .97)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := f(bg, x, &Settings{Energy: .97})
		if err != nil || !slices.Equal(got.Ranks(), want.Ranks()) || got.RelError > math.Sqrt(.03) {
			t.Errorf("ranks %v, error %g, %v; want %v", got.Ranks(), got.RelError, err, want.Ranks())
		}
	}
}

func TestVBMFChoosesTheRanksOfTheUnfoldings(t *testing.T) {
	x, err := amounts(1, []int{30, 25, 20}, []int{3, 4, 2}).Reconstruct()
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(2, 2))
	v := values(t, x)
	norm := tensorops.Norm(v)
	for i := range v {
		v[i] += .05 * norm / math.Sqrt(float64(len(v))) * rng.NormFloat64()
	}
	r, err := HOOI(bg, x, &Settings{VBMF: true})
	if err != nil {
		t.Fatal(err)
	}
	for n, rank := range r.Ranks() {
		u, err := vbmf.Unfolding(x, n, nil)
		if err != nil || u.Rank != rank || rank != []int{3, 4, 2}[n] {
			t.Errorf("mode %d: rank %d, the unfolding's is %d, %v", n, rank, u.Rank, err)
		}
	}
	if _, err := HOOI(bg, random(1, 40, 40), &Settings{VBMF: true}); !errors.Is(err, ErrSettings) {
		t.Errorf("noise: error %v", err)
	}
	for _, set := range []*Settings{{}, {VBMF: true, Ranks: []int{2}}, {Energy: 1}, {Energy: -.1}, {Energy: .5, RelError: .5}, {Energy: math.NaN()}} {
		if _, err := HOOI(bg, x, set); !errors.Is(err, ErrSettings) {
			t.Errorf("%+v: error %v", set, err)
		}
	}
}

func TestInnerProductNormAndCloneAreThoseOfTheTensor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := drawShape(t, rapid.IntRange(1, 4).Draw(t, "order"), 6)
		seed := rapid.Uint64().Draw(t, "seed")
		rng := rand.New(rand.NewPCG(seed, 1))
		d := &Tucker{}
		var ranks []int
		for _, size := range shape {
			if rng.IntN(3) == 0 {
				d.Factors, ranks = append(d.Factors, nil), append(ranks, size)
				continue
			}
			r := 1 + rng.IntN(4)
			d.Factors, ranks = append(d.Factors, mat.NewDense(size, r, normal(rng, size*r))), append(ranks, r)
		}
		d.Core = tensorops.Wrap(ranks, normal(rng, tensorops.Product(ranks)))
		y, err := d.Reconstruct()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(d.Shape(), shape) || !slices.Equal(d.Ranks(), ranks) {
			t.Fatalf("shape %v, ranks %v; want %v, %v", d.Shape(), d.Ranks(), shape, ranks)
		}
		x := random(seed, shape...)
		want := tensorops.Dot(values(t, x), values(t, y))
		norm := tensorops.Norm(values(t, y))
		got, err := d.Inner(x)
		if err != nil || math.Abs(got-want) > 1e-9*(1+norm*tensorops.Norm(values(t, x))) {
			t.Fatalf("inner product %g, %v; want %g", got, err, want)
		}
		if math.Abs(d.Norm()-norm) > 1e-7*(1+norm) {
			t.Fatalf("norm %g, want %g", d.Norm(), norm)
		}
		c := d.Clone()
		values(t, d.Core)[0]++
		for _, u := range d.Factors {
			if u != nil {
				u.Set(0, 0, u.At(0, 0)+1)
			}
		}
		z, err := c.Reconstruct()
		if err != nil || !slices.Equal(values(t, z), values(t, y)) {
			t.Fatalf("the clone has changed with the original, %v", err)
		}
	})
	d := amounts(1, []int{3, 4}, []int{2, 2})
	if _, err := d.Inner(random(1, 4, 3)); !errors.Is(err, ErrSettings) {
		t.Errorf("other shape: error %v", err)
	}
	d.Factors[1] = nil
	d.Core = random(1, 2, 2, 2)
	if err := d.Validate(); !errors.Is(err, ErrSettings) {
		t.Errorf("two factors and a core of order 3: error %v", err)
	}
}
