package tucker

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gorgonia.org/tensor"
	"pgregory.net/rapid"

	"github.com/lowrank-go/lowrank/internal/tensorops"
)

// cyclic is the tensor of ones at (i, i+1, i+2), indices modulo n: the leading singular
// vectors of its modes are orthogonal to it together.
func cyclic(n int) *tensor.Dense {
	v := make([]float64, n*n*n)
	for i := range n {
		v[(i*n+(i+1)%n)*n+(i+2)%n] = 1
	}
	return tensorops.Wrap([]int{n, n, n}, v)
}

func TestHOOILeavesAStartThatIsOrthogonalToTheTensor(t *testing.T) {
	for _, c := range []struct {
		ranks []int
		want  float64
	}{{[]int{1}, math.Sqrt(2. / 3)}, {[]int{2, 1, 1}, math.Sqrt(2. / 3)}, {[]int{2}, math.Sqrt(1. / 3)}} {
		r, err := HOOI(t.Context(), cyclic(3), &Settings{Ranks: c.ranks})
		if err != nil || math.Abs(r.RelError-c.want) > 1e-9 {
			t.Errorf("ranks %v: %v, %v; want an error of %g", c.ranks, r, err, c.want)
		}
	}
	r, err := NonNegative(t.Context(), cyclic(3), &Settings{Ranks: []int{2}})
	if err != nil || math.Abs(r.RelError-math.Sqrt(1./3)) > 1e-6 {
		t.Errorf("non-negative: %v, %v", r, err)
	}
}

// Zero is not an answer, and no start from the HOSVD is an excuse for less than the
// sequentially truncated one gives.
func TestTuckerIsNoWorseThanSTHOSVDOnSparseTensors(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		shape := rapid.SliceOfN(rapid.IntRange(1, 6), 2, 4).Draw(rt, "shape")
		v := make([]float64, tensorops.Product(shape))
		share := rapid.IntRange(1, 40).Draw(rt, "percent")
		for i := range v {
			if rng.IntN(100) < share {
				v[i] = float64(1 - 2*rng.IntN(2))
			}
		}
		norm := tensorops.Norm(v)
		if norm == 0 {
			return
		}
		ranks := make([]int, len(shape))
		for n := range ranks {
			ranks[n] = rapid.IntRange(1, 4).Draw(rt, "rank")
		}
		x := tensorops.Wrap(shape, v)
		set := &Settings{Ranks: ranks}
		st, err := STHOSVD(context.Background(), x, set)
		if err != nil {
			rt.Fatal(err)
		}
		r, err := HOOI(context.Background(), x, set)
		if err != nil {
			rt.Fatal(err)
		}
		if r.RelError > st.RelError+1e-9 || r.RelError > 1-1e-9 {
			rt.Fatalf("HOOI's error %g, STHOSVD's %g", r.RelError, st.RelError)
		}
		many, err := HOOI(context.Background(), x, &Settings{Ranks: ranks, Starts: 4})
		if err != nil || many.RelError > r.RelError {
			rt.Fatalf("four starts %g, one %g, %v", many.RelError, r.RelError, err)
		}
		nn, err := NonNegative(context.Background(), x, &Settings{Ranks: ranks})
		if err != nil {
			rt.Fatal(err)
		}
		best := max(slices.Max(v), 0) / norm
		if nn.RelError*nn.RelError > 1-best*best+1e-6 {
			rt.Fatalf("non-negative: squared error %g, of the largest entry alone %g", nn.RelError*nn.RelError, 1-best*best)
		}
		for _, u := range append([][]float64{values(rt, nn.Core)}, func() (all [][]float64) {
			for _, f := range nn.Factors {
				all = append(all, f.RawMatrix().Data)
			}
			return all
		}()...) {
			if slices.Min(u) < 0 {
				rt.Fatal("a negative entry")
			}
		}
	})
}

func TestStartsAndSeedAct(t *testing.T) {
	x := random(3, 7, 6, 5)
	one := func(set Settings) *Result {
		set.Ranks = []int{2}
		r, err := HOOI(t.Context(), x, &set)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	a, b, again := one(Settings{Init: InitRandom, Seed: 1}), one(Settings{Init: InitRandom, Seed: 2}), one(Settings{Init: InitRandom, Seed: 1, Workers: 1})
	if a.Errors[0] == b.Errors[0] {
		t.Error("two seeds, one start")
	}
	mustEqual(t, "the same seed", again, a)
	least := math.Inf(1)
	for n := range 8 {
		least = min(least, one(Settings{Starts: n + 1}).RelError)
		if r := one(Settings{Starts: n + 1}); r.RelError > least || r.Start > n {
			t.Errorf("%d starts: error %g from start %d, fewer had %g", n+1, r.RelError, r.Start, least)
		}
	}
	if _, err := HOOI(t.Context(), x, &Settings{RelError: .5, Starts: 2}); err == nil {
		t.Error("starts with a bound on the error")
	}
}

func TestSeveralBoundsAtOnceAreOneAfterAnother(t *testing.T) {
	x := decaying(5, 12, 11, 4)
	bounds := []float64{.5, .1, .3, .01}
	all, err := HOSVDs(t.Context(), x, &Settings{Modes: []int{0, 1}}, bounds...)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range bounds {
		one, err := HOSVD(t.Context(), x, &Settings{Modes: []int{0, 1}, RelError: b})
		if err != nil {
			t.Fatal(err)
		}
		mustEqual(t, "a bound", all[i], one)
	}
}
