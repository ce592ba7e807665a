package tkdcpd

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"gorgonia.org/tensor"
	"pgregory.net/rapid"

	"github.com/lowrank-go/lowrank/cpd"
)

func TestAnyBudgetIsKept(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		shape := []int{rapid.IntRange(1, 12).Draw(rt, "I"), rapid.IntRange(1, 12).Draw(rt, "J"), rapid.IntRange(1, 9).Draw(rt, "K")}
		x := kernel(rapid.Uint64().Draw(rt, "seed"), rapid.IntRange(1, 6).Draw(rt, "rank"), .5, shape...)
		fuse := rapid.SampledFrom([]Fuse{Apart, Cheaper, All}).Draw(rt, "fuse")
		budget := rapid.IntRange(1, shape[0]*shape[1]*shape[2]).Draw(rt, "budget")
		r, err := Decompose(bg, x, &Settings{Params: budget, Fuse: fuse, Fit: cpd.Settings{MaxSweeps: 40}})
		if errors.Is(err, ErrRank) {
			if least := shape[0] + shape[1] + shape[2]; budget >= least {
				rt.Fatalf("%v: %v, though a component has %d values", shape, err, least)
			}
			return
		}
		if err != nil {
			rt.Fatal(err)
		}
		if got := Params(shape, r.Core.Shape(), r.Core.Rank(), fuse); got > budget {
			rt.Fatalf("%v: %d parameters in a budget of %d", shape, got, budget)
		}
		if got := r.Merged().Params(); fuse == Cheaper && got > budget {
			rt.Fatalf("%v: merged to %d parameters in a budget of %d", shape, got, budget)
		}
	})
}

// The Tucker part is tried for what it gains over a CPD of as many parameters.
func TestABudgetBuysNoLessThanACPD(t *testing.T) {
	for seed := range uint64(4) {
		shape := []int{40, 30, 9}
		x := kernel(seed, 20, .4, shape...)
		budget := 3000 - 500*int(seed)
		r, err := Decompose(bg, x, &Settings{Params: budget, Fuse: Cheaper, Plain: true})
		if err != nil {
			t.Fatal(err)
		}
		c, err := cpd.ALS(bg, x, budget/(40+30+9), nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.RelError > c.RelError*1.01 {
			t.Errorf("%d parameters: error %g with ranks %v and %d, %g of a CPD", budget, r.RelError, r.Core.Shape(), r.Core.Rank(), c.RelError)
		}
	}
}

func TestRanksUnderNoiseAreFound(t *testing.T) {
	x := kernel(5, 5, .3, 48, 40, 9)
	ranks, rank, err := Choose(bg, &Settings{VBMF: true}, x)
	if err != nil || !slices.Equal(ranks, []int{5, 5}) || rank != 5 {
		t.Errorf("VBMF: ranks %v and %d, %v; want 5 everywhere", ranks, rank, err)
	}
	// The noise has .3/√1.09 of the norm.
	ranks, rank, err = Choose(bg, &Settings{RelError: .3}, x)
	if err != nil || rank != 5 || slices.Max(ranks) > 48 {
		t.Errorf("by error: ranks %v and %d, %v; want 5", ranks, rank, err)
	}
	if _, _, err = Choose(bg, &Settings{VBMF: true}, kernel(5, 1, 1e6, 48, 40, 9)); !errors.Is(err, ErrRank) {
		t.Errorf("noise: error %v", err)
	}
}

// The fewest parameters within a bound, against all ranks there are.
func TestAChoiceIsNearTheBestOfAll(t *testing.T) {
	for seed := range uint64(2) {
		shape := []int{5, 4, 4}
		x := kernel(seed, 3, .2, shape...)
		const bound = .3
		least := math.MaxInt
		for i := 1; i <= 5; i++ {
			for j := 1; j <= 4; j++ {
				for rank := 1; rank <= 8; rank++ {
					r, err := Decompose(bg, x, &Settings{Ranks: []int{i, j}, Rank: rank, Plain: true, Fit: cpd.Settings{Starts: 5, MaxSweeps: 100}})
					if err != nil {
						t.Fatal(err)
					}
					if r.RelError <= bound {
						least = min(least, Params(shape, r.Core.Shape(), rank, Cheaper))
					}
				}
			}
		}
		r := decompose(t, x, &Settings{RelError: bound, Fuse: Cheaper})
		if got := r.Merged().Params(); got < least || got > least*5/4 {
			t.Errorf("%d parameters, the least of all ranks is %d", got, least)
		}
		if r.Correction.Raised || r.RelError > bound*(1+1e-7) {
			t.Errorf("error %g, bound %g", r.RelError, bound)
		}
	}
}

func TestOneChoiceServesAllTensors(t *testing.T) {
	x := []*tensor.Dense{kernel(1, 2, .1, 12, 10, 9), kernel(2, 5, .1, 12, 10, 9)}
	for _, set := range []*Settings{{RelError: .2, Fuse: Cheaper}, {VBMF: true}, {Params: 200}, {Ranks: []int{4}, RelError: .5}} {
		ranks, rank, err := Choose(bg, set, x...)
		if err != nil {
			t.Fatal(err)
		}
		for i := range x {
			r := decompose(t, x[i], &Settings{Ranks: ranks, Rank: rank, RelError: set.RelError, Fuse: set.Fuse})
			if set.RelError > 0 && (r.Correction.Raised || r.RelError > set.RelError*(1+1e-7)) {
				t.Errorf("%+v: error %g of tensor %d", set, r.RelError, i)
			}
			if got := Params([]int{12, 10, 9}, r.Core.Shape(), rank, set.Fuse); set.Params > 0 && got > set.Params {
				t.Errorf("%d parameters in a budget of %d", got, set.Params)
			}
		}
	}
	if _, _, err := Choose(bg, &Settings{VBMF: true}, x[0], kernel(1, 2, .1, 3, 4, 5)); !errors.Is(err, ErrSettings) {
		t.Errorf("tensors of two shapes: error %v", err)
	}
	if _, _, err := Choose(bg, &Settings{VBMF: true}); !errors.Is(err, ErrSettings) {
		t.Errorf("no tensor: error %v", err)
	}
	if _, _, err := Choose(bg, &Settings{RelError: .01, Params: 40}, x...); !errors.Is(err, ErrRank) {
		t.Errorf("too small a budget: error %v", err)
	}
}

func TestFactorsAndBoundsHoldTogether(t *testing.T) {
	x := kernel(2, 4, .3, 16, 14, 9)
	set := Settings{Ranks: []int{8, 8}, Rank: 12, Plain: true}
	plain := decompose(t, x, &set)
	if plain.Correction != nil || plain.RelError < .1 {
		t.Errorf("plain: %+v", plain)
	}
	set.Plain, set.RelError, set.EPC.Factor = false, .9, 1.05
	r := decompose(t, x, &set)
	if e := 1.05 * r.Correction.Before.RelError; r.Correction.After.RelError > e*(1+1e-9) {
		t.Errorf("error of the core %g, want at most %g", r.Correction.After.RelError, e)
	}
	set.RelError = plain.RelError * 1.001
	if r := decompose(t, x, &set); r.RelError > set.RelError*(1+1e-9) {
		t.Errorf("error %g, bound %g", r.RelError, set.RelError)
	}
}

func TestCancellationKeepsTheBestSoFar(t *testing.T) {
	x := kernel(2, 4, .3, 16, 14, 9)
	ctx, cancel := context.WithCancel(bg)
	r, err := Decompose(ctx, x, &Settings{Ranks: []int{8, 8}, Rank: 12, Fit: cpd.Settings{Progress: func(_, sweep int, _ float64) {
		if sweep == 3 {
			cancel()
		}
	}}})
	if !errors.Is(err, context.Canceled) || r == nil || r.Correction != nil || !(r.RelError < 1) {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestChoicesDoNotDependOnWorkers(t *testing.T) {
	x := kernel(3, 12, .5, 40, 30, 9)
	var first *Result
	for _, workers := range []int{1, 2, 3} {
		r := decompose(t, x, &Settings{Params: 2500, Fuse: Cheaper, Workers: workers, Fit: cpd.Settings{MaxSweeps: 30}})
		if first == nil {
			first = r
		}
		if r.RelError != first.RelError || r.Core.Rank() != first.Core.Rank() {
			t.Errorf("%d workers: error %g at rank %d, %g at %d with one", workers, r.RelError, r.Core.Rank(), first.RelError, first.Core.Rank())
		}
	}
}
