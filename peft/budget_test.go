package peft

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
)

// every calls f with all ranks within the budget.
func every(budget int64, layers []Layer, f func([]int)) {
	ranks := make([]int, len(layers))
	var try func(i int, rest int64)
	try = func(i int, rest int64) {
		if i == len(layers) {
			f(ranks)
			return
		}
		for r := layers[i].Least; r <= len(layers[i].Singular) && int64(r)*layers[i].Cost <= rest; r++ {
			ranks[i] = r
			try(i+1, rest-int64(r)*layers[i].Cost)
		}
	}
	try(0, budget)
}

func kept(layers []Layer, ranks []int) (energy float64, cost int64) {
	for i, l := range layers {
		for _, v := range l.Singular[:ranks[i]] {
			energy += v * v
		}
		cost += int64(ranks[i]) * l.Cost
	}
	return energy, cost
}

func TestAllocationAgainstAllRanks(t *testing.T) {
	rng := seeded(20)
	for trial := range 200 {
		var layers []Layer
		top := 0.0
		for range 3 {
			l := Layer{Cost: int64(1 + rng.IntN(6)), Singular: make([]float64, rng.IntN(6))}
			if trial%2 == 0 {
				l.Cost = 2
			}
			for i := range l.Singular {
				l.Singular[i] = math.Abs(rng.NormFloat64())
				top = max(top, l.Singular[i])
			}
			slices.Sort(l.Singular)
			slices.Reverse(l.Singular)
			l.Least = rng.IntN(min(2, len(l.Singular)+1))
			layers = append(layers, l)
		}
		budget := int64(rng.IntN(30))
		best := -1.0
		every(budget, layers, func(r []int) {
			e, _ := kept(layers, r)
			best = max(best, e)
		})
		ranks, err := Allocate(budget, layers)
		if best < 0 {
			if !errors.Is(err, ErrSpec) {
				t.Errorf("trial %d: ranks %v, error %v; nothing fits", trial, ranks, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		e, cost := kept(layers, ranks)
		slack := 1e-12
		if trial%2 == 1 {
			slack = top * top
		}
		if cost > budget || e < best-slack {
			t.Errorf("trial %d: %v keep %g for %d, the best %g for %d", trial, ranks, e, cost, best, budget)
		}
	}
}

// A square root of what is kept, in place of it, would take the cheap layer first.
func TestAllocationCountsSquares(t *testing.T) {
	ranks, err := Allocate(6, []Layer{{Singular: []float64{3}, Cost: 6}, {Singular: []float64{1}, Cost: 1}})
	if err != nil || !slices.Equal(ranks, []int{1, 0}) {
		t.Errorf("ranks %v (%v)", ranks, err)
	}
}

func TestLayersOfKernels(t *testing.T) {
	rng := seeded(21)
	for _, s := range cases() {
		if s.Kind != LoRA && s.Kind != LoRAView && s.Kind != Spatial {
			continue
		}
		x := gaussian[float32](s.kernelLen(), rng)
		l, err := NewLayer(s, x)
		if err != nil {
			t.Fatal(err)
		}
		// What Allocate takes for the kept energy is what the fit keeps.
		r := min(2, len(l.Singular))
		s.Rank = []int{r}
		_, e, err := Extract(context.Background(), s, x, nil, Rule{})
		if err != nil {
			t.Fatal(err)
		}
		energy, cost := kept([]Layer{l}, []int{r})
		total, _ := kept([]Layer{l}, []int{len(l.Singular)})
		if d := math.Abs(1 - energy/total - e*e); d > 1e-5 || cost != int64(s.Params()) {
			t.Errorf("%s: the fit loses %g, the layer says %g; cost %d of %d", s.title(), e*e, 1-energy/total, cost, s.Params())
		}
	}
	if _, err := NewLayer(Spec{Kind: CP, Shape: [4]int{2, 2, 1, 1}}, make([]float32, 4)); !errors.Is(err, ErrSpec) {
		t.Errorf("error %v", err)
	}
	for _, bad := range []Layer{{Cost: 0}, {Cost: 1, Least: 1}, {Cost: 1, Singular: []float64{1, 2}}, {Cost: 1, Singular: []float64{math.NaN()}}} {
		if _, err := Allocate(5, []Layer{bad}); !errors.Is(err, ErrSpec) {
			t.Errorf("%+v: error %v", bad, err)
		}
	}
}
