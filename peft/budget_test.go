package peft

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/ranks"
)

// Whatever the kind, the shapes and what is counted, the total is within the budget and
// no further rank would be, in any layer that has something left to gain.
func TestNoBudgetIsExceededNorLeftUnused(t *testing.T) {
	rng := seeded(22)
	for trial := range 150 {
		var layers []ranks.Layer
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
		got, err := ranks.Allocate(budget, layers)
		total := int64(0)
		if err != nil {
			for _, l := range layers {
				total += l.Price(slices.Repeat([]int{l.Least}, len(l.Singular)))
			}
			if !errors.Is(err, ranks.ErrBudget) || total <= budget {
				t.Errorf("trial %d: the least take %d of %d: %v", trial, total, budget, err)
			}
			continue
		}
		for i, l := range layers {
			total += l.Price(got[i][:len(l.Singular)])
			if s := specs[i]; got[i][0] > 0 {
				if s.Rank = got[i]; s.Validate() != nil {
					t.Errorf("trial %d: %v", trial, s.Validate())
				}
			}
		}
		if total > budget {
			t.Errorf("trial %d: %v cost %d of %d", trial, got, total, budget)
		}
		for i, l := range layers {
			modes := got[i][:len(l.Singular)]
			for n, r := range modes {
				next := slices.Clone(modes)
				if next[n]++; modes[0] == 0 {
					next = slices.Repeat([]int{1}, len(modes))
				}
				if r < len(l.Singular[n]) && l.Singular[n][r] > 0 && total-l.Price(modes)+l.Price(next) <= budget {
					t.Errorf("trial %d: layer %d of %v could be %v", trial, i, got, next)
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
		energy, total, cost := 0., 0., l.Price([]int{r})
		for i, v := range l.Singular[0] {
			if total += v * v; i < r {
				energy += v * v
			}
		}
		if d := math.Abs(1 - energy/total - e*e); d > 1e-5 || cost != int64(s.Params()) {
			t.Errorf("%s: the fit loses %g, the layer says %g; cost %d of %d", s.title(), e*e, 1-energy/total, cost, s.Params())
		}
	}
	if _, err := NewLayer(Spec{Kind: LoHa, Shape: [4]int{2, 2, 1, 1}}, make([]float32, 4)); !errors.Is(err, ErrSpec) {
		t.Errorf("error %v", err)
	}
}
