package stability

import (
	"context"
	"errors"
	"math"
	"testing"

	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/cpd"
)

// penalisedError is what Penalised minimises, from its definition.
func penalisedError(t *testing.T, x *tensor.Dense, k *cpd.Kruskal, weight float64, objective Objective) float64 {
	t.Helper()
	norm, e := norms(t, x, k)
	if objective == Intensity {
		return e*e + weight*k.Intensity()/(norm*norm)
	}
	order := float64(len(k.Factors))
	return e*e + weight*k.Sensitivity()/math.Pow(norm, 2*(order-1)/order)
}

// The penalised error falls to a point at which it has no gradient.
func TestPenalisedEndsWhereTheGradientIsZero(t *testing.T) {
	for _, shape := range [][]int{{6, 5}, {6, 5, 4}, {4, 3, 3, 2}} {
		for _, objective := range []Objective{Sensitivity, Intensity} {
			x := noisy(2, 3, .3, shape...)
			start := als(t, x, 4, cpd.Settings{MaxSweeps: 50})
			weight := 1e-3
			r, err := Penalised(bg, x, start, weight, &Settings{Objective: objective, Tol: 1e-15, MaxSweeps: 20000})
			if err != nil {
				t.Fatal(err)
			}
			last := penalisedError(t, x, start.Balanced(), weight, objective)
			for i, f := range r.Objectives {
				if f > last*(1+1e-10) {
					t.Fatalf("%v, %s: sweep %d raises %.14g to %.14g", shape, objective, i+1, last, f)
				}
				last = f
			}
			if f := penalisedError(t, x, &r.Kruskal, weight, objective); math.Abs(f-last) > 1e-9*f {
				t.Errorf("%v, %s: %.12g is reported as %.12g", shape, objective, f, last)
			}
			for n, u := range r.Factors {
				rows, cols := u.Dims()
				for i := range rows {
					for c := range cols {
						const h = 1e-4
						slope := 0.
						for _, side := range []float64{-1, 1} {
							k := r.Kruskal.Clone()
							k.Factors[n].Set(i, c, u.At(i, c)+side*h)
							slope += side * penalisedError(t, x, k, weight, objective) / (2 * h)
						}
						if math.Abs(slope) > 2e-5 {
							t.Fatalf("%v, %s: slope %g in factor %d", shape, objective, slope, n)
						}
					}
				}
			}
		}
	}
}

// At the multiplier of the correction the two have the same solution.
func TestPenalisedAgreesWithTheCorrection(t *testing.T) {
	x := noisy(3, 4, .3, 8, 7, 6)
	start := als(t, x, 6, cpd.Settings{MaxSweeps: 200})
	for _, objective := range []Objective{Sensitivity, Intensity} {
		set := &Settings{Objective: objective, Tol: 1e-14, MaxSweeps: 20000}
		bound := *set
		bound.Factor = 1.1
		want := correct(t, x, start, &bound)
		got, err := Penalised(bg, x, &want.Kruskal, want.Multiplier, set)
		if err != nil {
			t.Fatal(err)
		}
		a, b := got.After, want.After
		if math.Abs(a.RelError-b.RelError) > 1e-5*b.RelError || math.Abs(a.Sensitivity-b.Sensitivity) > 1e-4*b.Sensitivity || math.Abs(a.Intensity-b.Intensity) > 1e-4*b.Intensity {
			t.Errorf("%s: %+v with the multiplier %g, %+v with the bound", objective, a, want.Multiplier, b)
		}
	}
}

func TestBadPenaltiesAreErrors(t *testing.T) {
	x := noisy(1, 2, .1, 4, 3, 2)
	start := als(t, x, 2, cpd.Settings{})
	for _, weight := range []float64{0, -1, math.NaN(), math.Inf(1)} {
		if _, err := Penalised(bg, x, start, weight, nil); !errors.Is(err, ErrSettings) {
			t.Errorf("weight %g: error %v", weight, err)
		}
	}
	for _, set := range []*Settings{{Bound: .1}, {Factor: 1.1}, {Target: 1}, {Steps: 2}, {Objective: "beauty"}} {
		if _, err := Penalised(bg, x, start, 1, set); !errors.Is(err, ErrSettings) {
			t.Errorf("%+v: error %v", set, err)
		}
	}
	ctx, cancel := context.WithCancel(bg)
	cancel()
	if r, err := Penalised(ctx, x, start, 1, nil); !errors.Is(err, context.Canceled) || r == nil || r.Status != Cancelled {
		t.Errorf("cancelled: %+v, %v", r, err)
	}
}
