package compress

import (
	"math"
	"math/rand/v2"
	"testing"
)

// brute tries everything.
func brute(layers [][]option, budgets []float64) (best float64) {
	best = math.Inf(1)
	var visit func(i int, damage float64, left []float64)
	visit = func(i int, damage float64, left []float64) {
		for _, v := range left {
			if v < 0 {
				return
			}
		}
		if i == len(layers) {
			best = min(best, damage)
			return
		}
		for _, o := range layers[i] {
			rest := make([]float64, len(left))
			for j := range rest {
				rest[j] = left[j] - o.costs[j]
			}
			visit(i+1, damage+o.damage, rest)
		}
	}
	visit(0, 0, budgets)
	return best
}

func TestTheKnapsackIsTheBestOfAllChoicesAndWithinItsBudgets(t *testing.T) {
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 1))
		metrics := 1 + int(seed%2)
		layers := make([][]option, 1+rng.IntN(6))
		least, most := make([]float64, metrics), make([]float64, metrics)
		for i := range layers {
			low, high := make([]float64, metrics), make([]float64, metrics)
			for c := range 1 + rng.IntN(6) {
				o := option{damage: math.Round(8 * rng.ExpFloat64())} // with ties
				for j := range metrics {
					v := math.Round(100 * rng.Float64())
					o.costs = append(o.costs, v)
					if c == 0 || v < low[j] {
						low[j] = v
					}
					high[j] = max(high[j], v)
				}
				layers[i] = append(layers[i], o)
			}
			for j := range metrics {
				least[j] += low[j]
				most[j] += high[j]
			}
		}
		budgets := make([]float64, metrics)
		for j := range budgets {
			budgets[j] = math.Floor(least[j] + (most[j]-least[j])*rng.Float64()*.8)
		}
		want := brute(layers, budgets)
		pick := knapsack(layers, budgets)
		if pick == nil {
			if !math.IsInf(want, 1) {
				t.Errorf("seed %d: nothing found, %g is possible", seed, want)
			}
			continue
		}
		var damage float64
		costs := make([]float64, metrics)
		for i, c := range pick {
			damage += layers[i][c].damage
			for j, v := range layers[i][c].costs {
				costs[j] += v
			}
		}
		for j := range costs {
			if costs[j] > budgets[j] {
				t.Errorf("seed %d: %g spent of %g", seed, costs[j], budgets[j])
			}
		}
		if damage != want {
			t.Errorf("seed %d: damage %g, the least is %g", seed, damage, want)
		}
	}
}

// Large instances are not searched to the end; they must fit all the same, and come near to
// the bound that prices give.
func TestALargeKnapsackFitsAndIsNearItsBound(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	layers := make([][]option, 60)
	var total float64
	for i := range layers {
		size, a := 1e4*(1+20*rng.Float64()), rng.ExpFloat64()
		total += size
		layers[i] = []option{{[]float64{size}, 0}}
		for c := 1; c < 60; c++ {
			share := float64(c) / 60
			layers[i] = append(layers[i], option{[]float64{math.Floor(size * share)}, a * math.Pow(1-share, 1.5+rng.Float64())})
		}
	}
	for _, share := range []float64{.1, .33, .5, .9} {
		k := &packing{budgets: []float64{share * total}, items: make([][]option, len(layers)), index: make([][]int, len(layers))}
		for i, o := range layers {
			k.prune(i, o)
		}
		k.price()
		bound := -k.prices[0] * k.budgets[0]
		for i, c := range k.pick(k.prices) {
			bound += priced(k.items[i][c], k.prices)
		}
		pick := knapsack(layers, k.budgets)
		var damage, cost float64
		for i, c := range pick {
			damage += layers[i][c].damage
			cost += layers[i][c].costs[0]
		}
		if cost > k.budgets[0] || !(damage <= bound*1.01) || damage < bound*(1-1e-9) {
			t.Errorf("share %g: cost %g of %g, damage %g, bound %g", share, cost, k.budgets[0], damage, bound)
		}
	}
}
