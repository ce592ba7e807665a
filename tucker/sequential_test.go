package tucker

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"gorgonia.org/tensor"
	"pgregory.net/rapid"
)

func sequential(t rapid.TB, x *tensor.Dense, set Settings) *Result {
	t.Helper()
	r, err := STHOSVD(bg, x, &set)
	if err != nil {
		t.Fatal(err)
	}
	mustOrthonormal(t, &r.Tucker)
	if e := relError(t, x, &r.Tucker); math.Abs(e-r.RelError) > 1e-10 {
		t.Fatalf("reported error %g, is %g", r.RelError, e)
	}
	return r
}

func TestSequentialErrorObeysTheBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := drawShape(t, 4, 8)
		x := decaying(rapid.Uint64().Draw(t, "seed"), shape...)
		var ranks []int
		for _, d := range shape {
			ranks = append(ranks, rapid.IntRange(1, d).Draw(t, "rank"))
		}
		set := Settings{Ranks: ranks, Tol: 1e-12}
		r := sequential(t, x, set)
		hosvd, hooi := both(t, x, set)
		if !slices.Equal(r.Ranks(), hosvd.Ranks()) {
			t.Fatalf("ranks %v, HOSVD's %v", r.Ranks(), hosvd.Ranks())
		}
		// At most √N times the best, of which HOOI's is no less.
		if best := hooi.RelError; r.RelError > math.Sqrt(float64(len(shape)))*best+1e-10 {
			t.Fatalf("error %g, HOOI's %g", r.RelError, best)
		}
	})
}

func TestSequentialKeepsTheBoundHoweverTiny(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := drawShape(t, 4, 8)
		x := decaying(rapid.Uint64().Draw(t, "seed"), shape...)
		bound := math.Pow(10, rapid.Float64Range(-13, -.05).Draw(t, "exponent"))
		var modes []int
		if len(shape) > 1 && rapid.Bool().Draw(t, "partial") {
			modes = []int{len(shape) - 1, 0}
		}
		r := sequential(t, x, Settings{RelError: bound, Modes: modes})
		if r.RelError > bound {
			t.Fatalf("error %g over the bound %g", r.RelError, bound)
		}
	})
}

func TestSequentialIsTheSVDOfAMatrix(t *testing.T) {
	x := random(5, 9, 7)
	r := sequential(t, x, Settings{Ranks: []int{3}})
	_, s := svd(t, x, 0)
	var cut, all float64
	for i, v := range s {
		all += v * v
		if i >= 3 {
			cut += v * v
		}
	}
	if want := math.Sqrt(cut / all); math.Abs(r.RelError-want) > 1e-12 {
		t.Errorf("error %g, the truncated SVD's is %g", r.RelError, want)
	}
}

func TestSequentialHandlesZeroAndBadInput(t *testing.T) {
	zero := tensor.New(tensor.WithShape(3, 4), tensor.Of(tensor.Float64))
	if r := sequential(t, zero, Settings{RelError: .1}); r.RelError != 0 || !slices.Equal(r.Ranks(), []int{1, 1}) {
		t.Errorf("a zero tensor: ranks %v, error %g", r.Ranks(), r.RelError)
	}
	if _, err := STHOSVD(bg, zero, nil); !errors.Is(err, ErrSettings) {
		t.Errorf("no settings: error %v", err)
	}
	ctx, cancel := context.WithCancel(bg)
	cancel()
	if _, err := STHOSVD(ctx, zero, &Settings{Ranks: []int{2}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error %v", err)
	}
}
