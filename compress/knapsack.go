package compress

import (
	"cmp"
	"math"
	"slices"
)

// option is one way to treat a layer: what it costs in each budget's metric, and the damage.
type option struct {
	costs  []float64
	damage float64
}

// nodes bounds the search for the exact optimum of knapsack.
const nodes = 400_000

// knapsack picks an option for each layer so that the sum of damages is least and no sum of
// costs is above its budget (the multiple-choice knapsack problem). A Lagrangian bound is
// found by bisection on the budgets' prices, what it leaves of the budgets is spent
// greedily, and branch and bound then goes on to the optimum, or for so many nodes. It
// returns nil where it finds no choice within the budgets.
func knapsack(layers [][]option, budgets []float64) []int {
	k := &packing{budgets: budgets, items: make([][]option, len(layers)), index: make([][]int, len(layers))}
	for i, options := range layers {
		k.prune(i, options)
	}
	k.price()
	k.search()
	if k.best == nil {
		return nil
	}
	out := make([]int, len(layers))
	for i, c := range k.best {
		out[i] = k.index[i][c]
	}
	return out
}

type packing struct {
	budgets []float64
	items   [][]option // that no other of the same layer beats in everything
	index   [][]int    // their places among the layer's
	prices  []float64
	best    []int
	damage  float64 // of best
}

// prune keeps the options of a layer that no other beats or equals in everything.
func (k *packing) prune(i int, options []option) {
	for c, o := range options {
		beaten := slices.ContainsFunc(options[:c], func(p option) bool { return beats(p, o) }) ||
			slices.ContainsFunc(options[c+1:], func(p option) bool { return beats(p, o) && !beats(o, p) })
		if !beaten {
			k.items[i] = append(k.items[i], o)
			k.index[i] = append(k.index[i], c)
		}
	}
}

func beats(a, b option) bool {
	for j, v := range a.costs {
		if v > b.costs[j] {
			return false
		}
	}
	return a.damage <= b.damage
}

// priced is an option's damage and the price of its costs.
func priced(o option, prices []float64) float64 {
	v := o.damage
	for j, p := range prices {
		v += p * o.costs[j]
	}
	return v
}

// pick takes in each layer what is best at the prices.
func (k *packing) pick(prices []float64) []int {
	out := make([]int, len(k.items))
	for i, options := range k.items {
		for c, o := range options {
			if priced(o, prices) < priced(options[out[i]], prices) {
				out[i] = c
			}
		}
	}
	return out
}

func (k *packing) cost(pick []int, j int) (sum float64) {
	for i, c := range pick {
		sum += k.items[i][c].costs[j]
	}
	return sum
}

func (k *packing) fits(pick []int) bool {
	for j, b := range k.budgets {
		if k.cost(pick, j) > b {
			return false
		}
	}
	return true
}

// offer takes a choice that fits and is better than the best so far.
func (k *packing) offer(pick []int) {
	if !k.fits(pick) {
		return
	}
	var damage float64
	for i, c := range pick {
		damage += k.items[i][c].damage
	}
	if k.best == nil || damage < k.damage {
		k.best, k.damage = slices.Clone(pick), damage
	}
}

// price bisects the price of each budget in turn to the least that keeps it, and fills up
// what the choices at these prices leave.
func (k *packing) price() {
	k.prices = make([]float64, len(k.budgets))
	rounds := 1
	if len(k.budgets) > 1 {
		rounds = 8 // one price changes what another must be
	}
	for range rounds {
		for j, b := range k.budgets {
			at := func(p float64) []int {
				k.prices[j] = p
				pick := k.pick(k.prices)
				k.fill(pick)
				return k.pick(k.prices)
			}
			if k.cost(at(0), j) <= b {
				continue
			}
			low, high := 0.0, 1e-12
			for k.cost(at(high), j) > b && high < 1e12 {
				low, high = high, high*4
			}
			for range 60 {
				mid := (low + high) / 2
				if k.cost(at(mid), j) > b {
					low = mid
				} else {
					high = mid
				}
			}
			k.prices[j] = high
		}
	}
	k.fill(k.pick(k.prices))
	// The cheapest of all, by the shares of the budgets.
	cheapest := make([]float64, len(k.budgets))
	for j, b := range k.budgets {
		cheapest[j] = 1e15 / max(b, 1e-300)
	}
	k.fill(k.pick(cheapest))
}

// fill spends what a choice leaves of the budgets on the changes that lower the damage
// most for their cost, and offers the result.
func (k *packing) fill(pick []int) {
	if !k.fits(pick) {
		return
	}
	left := make([]float64, len(k.budgets))
	for j, b := range k.budgets {
		left[j] = b - k.cost(pick, j)
	}
	for {
		layer, to, gain := -1, 0, 0.0
		for i, options := range k.items {
			now := options[pick[i]]
			for c, o := range options {
				if !(o.damage < now.damage) {
					continue
				}
				var share float64
				ok := true
				for j := range left {
					more := o.costs[j] - now.costs[j]
					ok = ok && more <= left[j]
					share = max(share, more/max(left[j], 1e-300))
				}
				if g := (now.damage - o.damage) / max(share, 1e-9); ok && g > gain {
					layer, to, gain = i, c, g
				}
			}
		}
		if layer < 0 {
			break
		}
		for j := range left {
			left[j] -= k.items[layer][to].costs[j] - k.items[layer][pick[layer]].costs[j]
		}
		pick[layer] = to
	}
	k.offer(pick)
}

// search is depth-first branch and bound: what the layers that are left must cost at least
// in damage is bounded by their best at the prices.
func (k *packing) search() {
	n := len(k.items)
	order := make([]int, n)
	spread := make([]float64, n)
	for i, options := range k.items {
		order[i] = i
		least, most := math.Inf(1), math.Inf(-1)
		for _, o := range options {
			least, most = min(least, o.damage), max(most, o.damage)
		}
		spread[i] = most - least
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(spread[b], spread[a]) })
	sorted := make([][]int, n)
	bound := make([]float64, n+1)
	least := make([][]float64, n+1)
	least[n] = make([]float64, len(k.budgets))
	for at := n - 1; at >= 0; at-- {
		i := order[at]
		for c := range k.items[i] {
			sorted[i] = append(sorted[i], c)
		}
		slices.SortStableFunc(sorted[i], func(a, b int) int {
			return cmp.Compare(priced(k.items[i][a], k.prices), priced(k.items[i][b], k.prices))
		})
		bound[at] = bound[at+1] + priced(k.items[i][sorted[i][0]], k.prices)
		least[at] = slices.Clone(least[at+1])
		for j := range k.budgets {
			low := math.Inf(1)
			for _, o := range k.items[i] {
				low = min(low, o.costs[j])
			}
			least[at][j] += low
		}
	}
	pick, left, visited := make([]int, n), slices.Clone(k.budgets), 0
	var visit func(at int, damage float64)
	visit = func(at int, damage float64) {
		if visited++; visited > nodes {
			return
		}
		if at == n {
			k.offer(pick)
			return
		}
		i := order[at]
		for _, c := range sorted[i] {
			o := k.items[i][c]
			low, fits := damage+o.damage+bound[at+1], true
			for j, p := range k.prices {
				rest := left[j] - o.costs[j]
				fits = fits && rest >= least[at+1][j]*(1-1e-12)
				low -= p * rest
			}
			if !fits || k.best != nil && low >= k.damage*(1-1e-12) {
				continue
			}
			for j, v := range o.costs {
				left[j] -= v
			}
			pick[i] = c
			visit(at+1, damage+o.damage)
			for j, v := range o.costs {
				left[j] += v
			}
		}
	}
	visit(0, 0)
}
