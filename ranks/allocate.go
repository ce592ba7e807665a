package ranks

import (
	"errors"
	"fmt"
	"slices"
)

// ErrBudget is wrapped by errors about budgets that no choice of ranks keeps.
var ErrBudget = errors.New("the budget cannot be kept")

// Layer is what Allocate knows of one kernel.
type Layer struct {
	// Singular are the singular values, falling, of each matricisation that the kind
	// ranks: of a ΔW, a gradient or W₀.
	Singular [][]float64
	// Tied adds a rank to those of the matricisations, last and as large as the largest:
	// that of the CP in TKDCPD.
	Tied bool
	// Cost is what the layer costs at given ranks, parameters or multiply-accumulates: at
	// least 1, and more for each rank that is higher. Without ranks it costs nothing.
	Cost func(rank []int) int64
	// Least is the rank that every matricisation has in any case.
	Least int
}

// Allocate spreads a budget over layers and returns the ranks of each: it raises them,
// from every layer's Least, by one at a time where the next singular value's square is
// largest for what it costs more, σ²/cost, as long as the budget lasts. Ranks are at most
// the number of singular values; a layer that starts without any gets the first of all its
// matricisations together, for the least of their squares.
//
// Of kinds with one rank, what is kept is the sum of the squares. Squares fall, so for
// equal costs no other ranks keep more; for unequal ones at most the square of one
// singular value more could be kept, of the first that did not fit (the bound of the
// greedy rule for knapsacks). Of Tucker's, the squares that are left out of all
// matricisations together bound the squared error (De Lathauwer et al. 2000), and it is
// this bound that the rule lowers. The budget is exceeded by no bit; where the least ranks
// alone do, which the error tells, it wraps ErrBudget, and ErrRule for values that are not
// falling.
func Allocate(budget int64, layers []Layer) ([][]int, error) {
	all := make([]climb, len(layers))
	least := int64(0)
	for i, l := range layers {
		if err := l.check(); err != nil {
			return nil, fmt.Errorf("%w: layer %d: %w", ErrRule, i, err)
		}
		all[i] = climb{Layer: l, rank: slices.Repeat([]int{l.Least}, len(l.Singular))}
		all[i].cost = all[i].Price(all[i].rank)
		least += all[i].cost
	}
	if least > budget {
		return nil, fmt.Errorf("%w: the least ranks of %d layers take %d, above a budget of %d", ErrBudget, len(layers), least, budget)
	}
	rest := budget - least
	for i := range all {
		all[i].look(rest)
	}
	for {
		best := -1
		for i, c := range all {
			if c.rate > 0 && (best < 0 || c.rate > all[best].rate) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		c := &all[best]
		if more := c.Price(c.next) - c.cost; more <= rest {
			rest -= more
			c.cost += more
			c.rank = c.next
		}
		c.look(rest)
	}
	ranks := make([][]int, len(layers))
	for i, c := range all {
		ranks[i] = c.all(c.rank)
	}
	return ranks, nil
}

func (l *Layer) check() error {
	if len(l.Singular) == 0 || l.Cost == nil {
		return fmt.Errorf("no singular values or no cost")
	}
	for _, values := range l.Singular {
		if l.Least < 0 || l.Least > len(values) {
			return fmt.Errorf("at least rank %d of %d", l.Least, len(values))
		}
		for j, v := range values {
			if !(v >= 0) || j > 0 && v > values[j-1] {
				return fmt.Errorf("singular value %d is %g; want them falling and not negative", j, v)
			}
		}
	}
	ones := slices.Repeat([]int{1}, len(l.Singular))
	if c := l.Cost(l.all(ones)); c < 1 {
		return fmt.Errorf("rank 1 costs %d; want at least 1", c)
	}
	return nil
}

// all are the ranks of the kind, of those of the matricisations.
func (l *Layer) all(of []int) []int {
	if l.Tied {
		return append(slices.Clone(of), slices.Max(of))
	}
	return of
}

// Price is what the layer costs at ranks of its matricisations, nothing where they are 0.
func (l *Layer) Price(rank []int) int64 {
	if rank[0] == 0 {
		return 0
	}
	return l.Cost(l.all(rank))
}

// climb is a layer on its way up.
type climb struct {
	Layer
	rank []int // of each matricisation
	cost int64
	// next are the ranks after the step that gains most for what it costs, rate; there is
	// none where that is 0.
	next []int
	rate float64
}

// look finds the next step that is within what is left.
func (c *climb) look(rest int64) {
	c.rate = 0
	try := func(next []int, gain float64) {
		if more := c.Price(next) - c.cost; more > 0 && more <= rest && gain/float64(more) > c.rate {
			c.next, c.rate = next, gain/float64(more)
		}
	}
	if c.rank[0] == 0 {
		next, gain := make([]int, len(c.rank)), -1.
		for n, values := range c.Singular {
			if len(values) == 0 {
				return
			}
			next[n] = 1
			if s := values[0] * values[0]; gain < 0 || s < gain {
				gain = s
			}
		}
		try(next, gain)
		return
	}
	for n, values := range c.Singular {
		if at := c.rank[n]; at < len(values) {
			next := slices.Clone(c.rank)
			next[n]++
			try(next, values[at]*values[at])
		}
	}
}
