package cpd

import (
	"slices"

	"github.com/lowrank-go/lowrank/internal/linalg"
)

func (a *als) nonNegative(n int) bool { return slices.Contains(a.set.NonNegative, n) }

// hierarchical improves factor n, whose scale is in the weights.
func (a *als) hierarchical(n int, g, m []float64) {
	u := a.u[n]
	for i := range u {
		u[i] *= a.w[i%a.rank]
	}
	linalg.NonNegative(u, g, m, a.rank)
}
