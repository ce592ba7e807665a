package cpd

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"
)

// positive is a Kruskal tensor of non-negative factors, a third of whose entries
// are zero.
func positive(rng *rand.Rand, rank int, shape ...int) *Kruskal {
	k := &Kruskal{}
	for _, d := range shape {
		u := mat.NewDense(d, rank, nil)
		for i := range d {
			for r := range rank {
				if rng.IntN(3) > 0 {
					u.Set(i, r, rng.Float64())
				}
			}
		}
		for r := range rank {
			u.Set(r%d, r, 1)
		}
		k.Factors = append(k.Factors, u)
	}
	return k
}

func TestNonNegativeDataIsFittedByNonNegativeFactors(t *testing.T) {
	for seed := range uint64(4) {
		k := positive(rand.New(rand.NewPCG(seed, 51)), 3, 15, 12, 9)
		r := fit(t, full(t, k), 3, &Settings{NonNegative: []int{0, 1, 2}, Starts: 3, Seed: seed, MaxSweeps: 3000, Tol: 1e-10})
		if r.RelError > 1e-3 {
			t.Errorf("seed %d: error %g after %d sweeps (%s)", seed, r.RelError, r.Sweeps, r.Status)
		}
		if s, err := Score(&r.Kruskal, k); err != nil || s < .99 {
			t.Errorf("seed %d: score %g, %v", seed, s, err)
		}
	}
}

func TestNonNegativeModesStaySoAndTheErrorFalls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 52))
		x := full(t, random(rng.Uint64(), 4, 6, 5, 4)) // of both signs
		modes := rapid.SampledFrom([][]int{{0}, {2}, {0, 2}, {0, 1, 2}}).Draw(t, "modes")
		r, err := ALS(context.Background(), x, rapid.IntRange(1, 6).Draw(t, "rank"), &Settings{NonNegative: modes, MaxSweeps: 40})
		if err != nil {
			t.Fatal(err)
		}
		for i := 1; i < len(r.Errors); i++ {
			if r.Errors[i] > r.Errors[i-1]+1e-12 {
				t.Fatalf("sweep %d raises the error from %g to %g", i, r.Errors[i-1], r.Errors[i])
			}
		}
		for _, n := range modes {
			for _, v := range r.Factors[n].RawMatrix().Data {
				if v < 0 {
					t.Fatalf("factor %d has an entry %g", n, v)
				}
			}
		}
		for _, w := range r.Weights {
			if w < 0 || math.IsNaN(w) {
				t.Fatalf("weights %v", r.Weights)
			}
		}
	})
}

func TestNonNegativeModesMustExist(t *testing.T) {
	x := full(t, random(1, 2, 3, 3, 3))
	for _, modes := range [][]int{{3}, {-1}} {
		if _, err := ALS(context.Background(), x, 2, &Settings{NonNegative: modes}); !errors.Is(err, ErrSettings) {
			t.Errorf("modes %v: error %v", modes, err)
		}
	}
	if _, err := LM(context.Background(), x, 2, &Settings{NonNegative: []int{0}}); !errors.Is(err, ErrSettings) {
		t.Errorf("LM: error %v", err)
	}
}
