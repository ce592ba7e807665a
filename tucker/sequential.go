package tucker

import (
	"context"
	"slices"

	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/internal/tensorops"
)

// STHOSVD is the sequentially truncated higher-order singular value decomposition
// (Vannieuwenhoven, Vandebril and Meerbergen, SIAM J. Sci. Comput. 34, 2012):
// HOSVD that truncates one mode after another and goes on with what is left. It
// costs less, since the tensor shrinks at once, its squared error is exactly the
// sum of the energies that the steps cut, and it is at most √N times the best
// too. With Settings.Ranks the modes that shrink most go first; with
// Settings.RelError, for which it keeps the bound but not the fewest parameters,
// the shortest, each with an equal share of what the bound still allows. Errors
// wrap ErrSettings or say what is wrong with x.
func STHOSVD(ctx context.Context, x *tensor.Dense, set *Settings) (*Result, error) {
	p, err := newPlan(x, set)
	if err != nil {
		return nil, err
	}
	if err := p.sequential(ctx); err != nil {
		return nil, err
	}
	return p.result(), nil
}

// sequential sets the factors and the core to those of the sequentially truncated HOSVD,
// and the ranks where none are given.
func (p *plan) sequential(ctx context.Context) error {
	order := make([]int, len(p.modes)) // indices of modes
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		if p.ranks == nil {
			return p.shape[p.modes[i]] - p.shape[p.modes[j]]
		}
		return p.ranks[i]*p.shape[p.modes[j]] - p.ranks[j]*p.shape[p.modes[i]]
	})
	choose := p.ranks == nil
	if choose {
		p.ranks = make([]int, len(p.modes))
	}
	p.factors = make([][]float64, len(p.shape))
	p.dims, p.core = slices.Clone(p.shape), p.data
	allowed := p.bound() * p.bound() * p.norm * p.norm
	for k, i := range order {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := p.modes[i]
		size, r := p.dims[n], p.ranks[i]
		if choose {
			r = size
		}
		u, _, err := p.leading(tensorops.Gram(p.set.Workers, p.dims, p.core, n), p.dims, p.core, n, r, -1)
		if err != nil {
			return err
		}
		dims, core := tensorops.MulMode(p.set.Workers, p.dims, p.core, n, true, u, r)
		if choose {
			// The energies of the core's slices have their digits where small
			// eigenvalues of the Gram matrix have none.
			energy := energies(dims, core, n)
			share := allowed / float64(len(order)-k)
			var cut float64
			for r > 1 && cut+energy[r-1] <= share {
				cut += energy[r-1]
				r--
			}
			allowed -= cut
			u = columns(u, size, r)
			dims, core = leadingSlices(dims, core, n, r)
		}
		p.factors[n], p.ranks[i], p.dims, p.core = u, r, dims, core
	}
	return nil
}

// energies is the squared norm of each slice of mode n.
func energies(dims []int, data []float64, n int) []float64 {
	right := tensorops.Product(dims[n+1:])
	e := make([]float64, dims[n])
	for i, v := range data {
		e[i/right%dims[n]] += v * v
	}
	return e
}

// columns is the first r columns of u, which has cols.
func columns(u []float64, cols, r int) []float64 {
	out := make([]float64, len(u)/cols*r)
	for i := range len(u) / cols {
		copy(out[i*r:(i+1)*r], u[i*cols:])
	}
	return out
}

// leadingSlices is the first r slices of mode n.
func leadingSlices(dims []int, data []float64, n, r int) ([]int, []float64) {
	left, right := tensorops.Product(dims[:n]), tensorops.Product(dims[n+1:])
	out := make([]float64, 0, left*r*right)
	for l := range left {
		out = append(out, data[l*dims[n]*right:][:r*right]...)
	}
	cut := slices.Clone(dims)
	cut[n] = r
	return cut, out
}
