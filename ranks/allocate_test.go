package ranks

import (
	"errors"
	"math"
	"math/rand/v2"
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
		for r := layers[i].Least; r <= len(layers[i].Singular[0]) && layers[i].Price([]int{r}) <= rest; r++ {
			ranks[i] = []int{r}
			try(i+1, rest-layers[i].Price([]int{r}))
		}
	}
	try(0, budget)
}

func kept(layers []Layer, ranks [][]int) (energy float64, cost int64) {
	for i, l := range layers {
		for _, v := range l.Singular[0][:ranks[i][0]] {
			energy += v * v
		}
		cost += l.Price(ranks[i])
	}
	return energy, cost
}

func TestAllocationAgainstAllRanks(t *testing.T) {
	rng := rand.New(rand.NewPCG(20, 1))
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
			if !errors.Is(err, ErrBudget) {
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

func TestLayersThatMakeNoSenseAreErrors(t *testing.T) {
	for _, bad := range []Layer{{}, linear(0, 0, 1), linear(1, 1), linear(1, 0, 1, 2), linear(1, 0, math.NaN())} {
		if _, err := Allocate(5, []Layer{bad}); !errors.Is(err, ErrRule) {
			t.Errorf("%v: error %v", bad.Singular, err)
		}
	}
}
