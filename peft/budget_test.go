package peft

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
)

// linear is a layer with one rank, each unit of which costs the same.
func linear(cost int64, least int, singular ...float64) Layer {
	return Layer{Singular: [][]float64{singular}, Least: least, Cost: func(rank []int) int64 { return cost * int64(rank[0]) }}
}

// every calls f with all ranks within the budget, of layers with one rank.
func every(budget int64, layers []Layer, f func([][]int)) {
	ranks := make([][]int, len(layers))
	var try func(i int, rest int64)
	try = func(i int, rest int64) {
		if i == len(layers) {
			f(ranks)
			return
		}
		for r := layers[i].Least; r <= len(layers[i].Singular[0]) && layers[i].price([]int{r}) <= rest; r++ {
			ranks[i] = []int{r}
			try(i+1, rest-layers[i].price([]int{r}))
		}
	}
	try(0, budget)
}

func kept(layers []Layer, ranks [][]int) (energy float64, cost int64) {
	for i, l := range layers {
		for _, v := range l.Singular[0][:ranks[i][0]] {
			energy += v * v
		}
		cost += l.price(ranks[i])
	}
	return energy, cost
}

func TestAllocationAgainstAllRanks(t *testing.T) {
	rng := seeded(20)
	for trial := range 200 {
		var layers []Layer
		top := 0.0
		for range 3 {
			cost, singular := int64(1+rng.IntN(6)), make([]float64, rng.IntN(6))
			if trial%2 == 0 {
				cost = 2
			}
			for i := range singular {
				singular[i] = math.Abs(rng.NormFloat64())
				top = max(top, singular[i])
			}
			slices.Sort(singular)
			slices.Reverse(singular)
			layers = append(layers, linear(cost, rng.IntN(min(2, len(singular)+1)), singular...))
		}
		budget := int64(rng.IntN(30))
		best := -1.0
		every(budget, layers, func(r [][]int) {
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
	ranks, err := Allocate(6, []Layer{linear(6, 0, 3), linear(1, 0, 1)})
	if err != nil || !slices.EqualFunc(ranks, [][]int{{1}, {0}}, slices.Equal) {
		t.Errorf("ranks %v (%v)", ranks, err)
	}
}

// Whatever the kind, the shapes and what is counted, the total is within the budget and
// no further rank would be, in any layer that has something left to gain.
func TestNoBudgetIsExceededNorLeftUnused(t *testing.T) {
	rng := seeded(22)
	for trial := range 150 {
		var layers []Layer
		var specs []Spec
		for range 1 + rng.IntN(4) {
			s := Spec{Kind: []Kind{LoRA, LoRAView, Spatial, CP, CP4, Tucker2, Tucker4, TKDCPD}[rng.IntN(8)],
				Learned: rng.IntN(2) == 0, DoRA: rng.IntN(2) == 0}
			s.Groups = 1 + rng.IntN(2)
			k := 1 + rng.IntN(3)
			s.Shape = [4]int{s.Groups * (1 + rng.IntN(6)), 1 + rng.IntN(6), k, k}
			l, err := NewLayer(s, gaussian[float32](s.kernelLen(), rng))
			if err != nil {
				t.Fatal(err)
			}
			if trial%2 == 1 && kinds[s.Kind].stages != nil {
				l.Cost = func(rank []int) int64 { s.Rank = rank; return s.MACs(9, 9) }
			}
			l.Least = rng.IntN(2)
			layers, specs = append(layers, l), append(specs, s)
		}
		budget := int64(rng.IntN(3000))
		ranks, err := Allocate(budget, layers)
		total := int64(0)
		if err != nil {
			for _, l := range layers {
				total += l.price(slices.Repeat([]int{l.Least}, len(l.Singular)))
			}
			if !errors.Is(err, ErrSpec) || total <= budget {
				t.Errorf("trial %d: the least take %d of %d: %v", trial, total, budget, err)
			}
			continue
		}
		for i, l := range layers {
			total += l.price(ranks[i][:len(l.Singular)])
			if s := specs[i]; ranks[i][0] > 0 {
				if s.Rank = ranks[i]; s.Validate() != nil {
					t.Errorf("trial %d: %v", trial, s.Validate())
				}
			}
		}
		if total > budget {
			t.Errorf("trial %d: %v cost %d of %d", trial, ranks, total, budget)
		}
		for i, l := range layers {
			modes := ranks[i][:len(l.Singular)]
			for n, r := range modes {
				next := slices.Clone(modes)
				if next[n]++; modes[0] == 0 {
					next = slices.Repeat([]int{1}, len(modes))
				}
				if r < len(l.Singular[n]) && l.Singular[n][r] > 0 && total-l.price(modes)+l.price(next) <= budget {
					t.Errorf("trial %d: layer %d of %v could be %v", trial, i, ranks, next)
				}
			}
		}
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
		r := min(2, len(l.Singular[0]))
		s.Rank = []int{r}
		_, e, err := Extract(context.Background(), s, x, nil, Rule{})
		if err != nil {
			t.Fatal(err)
		}
		energy, cost := kept([]Layer{l}, [][]int{{r}})
		total, _ := kept([]Layer{l}, [][]int{{len(l.Singular[0])}})
		if d := math.Abs(1 - energy/total - e*e); d > 1e-5 || cost != int64(s.Params()) {
			t.Errorf("%s: the fit loses %g, the layer says %g; cost %d of %d", s.title(), e*e, 1-energy/total, cost, s.Params())
		}
	}
	if _, err := NewLayer(Spec{Kind: LoHa, Shape: [4]int{2, 2, 1, 1}}, make([]float32, 4)); !errors.Is(err, ErrSpec) {
		t.Errorf("error %v", err)
	}
	for _, bad := range []Layer{{}, linear(0, 0, 1), linear(1, 1), linear(1, 0, 1, 2), linear(1, 0, math.NaN())} {
		if _, err := Allocate(5, []Layer{bad}); !errors.Is(err, ErrSpec) {
			t.Errorf("%v: error %v", bad.Singular, err)
		}
	}
}
