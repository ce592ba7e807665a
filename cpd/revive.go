package cpd

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/lowrank-go/lowrank/internal/tensorops"
)

// A start can die. Where the leading singular vectors of the modes are orthogonal to
// the tensor together, as for 0/1 data with equal counts, permutations and
// antisymmetric tensors, every MTTKRP is zero, and zero is a fixed point of alternating
// least squares. Such components are replaced by fibres of the residual, whose error is
// lower by exactly the fibres' squared norms.
const (
	// lifeless is the share of what is left of the tensor below which a component
	// counts as none.
	lifeless = 1e-6
	// revivals bounds how often the components of one start are replaced.
	revivals = 3
)

// dead lists the components of a start that ended with res which explain nothing,
// though something is left to explain. They are all of them where the start ended with
// a larger error than that of the tensor's largest entries alone, one for each
// component: that is a saddle, if not zero itself.
func (a *als) dead(res *Result) (d []int) {
	if a.set.Ridge > 0 || len(res.Errors) == 0 || res.Status != Converged && res.Status != SweepLimit {
		return nil
	}
	e := res.Errors[len(res.Errors)-1]
	e = math.Sqrt(max(e*e-a.lost*a.lost, 0)) / a.share // of a projection itself
	for r, w := range a.lengths() {
		if w <= lifeless*e {
			d = append(d, r)
		}
	}
	if explained := 1 - e*e; a.largest(explained) > explained+1e-9 {
		d = d[:0]
		for r := range a.rank {
			d = append(d, r)
		}
	}
	return d
}

// lengths are the norms of the components.
func (a *als) lengths() []float64 {
	l := make([]float64, a.rank)
	for r, w := range a.w {
		l[r] = math.Abs(w)
	}
	for _, u := range a.u {
		sums := make([]float64, a.rank)
		for i, v := range u {
			sums[i%a.rank] += v * v
		}
		for r, s := range sums {
			l[r] *= math.Sqrt(s)
		}
	}
	return l
}

// largest is the sum of the squares of the R largest entries that a decomposition of
// the signs asked for can have: an entry is a component. It is 0 where it is not above
// least.
func (a *als) largest(least float64) float64 {
	values, _ := a.x.residual(nil)
	positive := true
	for n := range a.shape {
		positive = positive && a.nonNegative(n)
	}
	top := 0.
	for i, v := range values {
		if positive {
			v = max(v, 0)
		}
		values[i] = v * v
		top = max(top, values[i])
	}
	if top*float64(a.rank) <= least {
		return 0
	}
	slices.SortFunc(values, func(a, b float64) int { return cmp.Compare(b, a) })
	var sum float64
	for _, v := range values[:min(a.rank, len(values))] {
		sum += v
	}
	return sum
}

// revive replaces components by the fibres of the most energy of what the others leave
// of the tensor, all along the same mode: rank-one tensors, orthogonal to each other.
// Components for which there is no fibre get random directions and no weight.
func (a *als) revive(dead []int) {
	for _, r := range dead {
		for n := range a.u {
			for i := r; i < len(a.u[n]); i += a.rank {
				a.u[n][i] = 0
			}
		}
		a.w[r] = 1
	}
	mode, fibres := a.fibres(a.weighted(), len(dead))
	rng := rand.New(rand.NewPCG(a.set.Seed, uint64(len(dead))))
	for i, r := range dead {
		for n, d := range a.shape {
			u := a.u[n][r:]
			switch {
			case i >= len(fibres):
				a.w[r] = 0
				for j := range d {
					u[j*a.rank] = math.Abs(rng.NormFloat64())
				}
			case n == mode:
				for j, v := range fibres[i].values {
					u[j*a.rank] = v
				}
			default:
				u[fibres[i].at[n]*a.rank] = 1
			}
		}
	}
	w := slices.Clone(a.w)
	for n := range a.u {
		a.normalise(n)
		for r, v := range a.w {
			w[r] *= v
		}
	}
	a.w = w
}

// fibre is a tensor's values along one mode, and the indices in the others.
type fibre struct {
	at     []int
	values []float64
	energy float64
}

// fibres are at most count fibres of the residual of factors, along the mode in which
// they have the most energy together. Along a mode that must not be negative, only
// what is positive counts.
func (a *als) fibres(u [][]float64, count int) (mode int, best []fibre) {
	values, locate := a.x.residual(u)
	type entry struct {
		at    int // entry
		place int // its fibre
	}
	entries := make([]entry, len(values))
	index := make([]int, len(a.shape))
	most := 0.
	for n := range a.shape {
		for i := range values {
			locate(i, index)
			place := 0
			for m, d := range a.shape {
				if m != n {
					place = place*d + index[m]
				}
			}
			entries[i] = entry{i, place}
		}
		slices.SortFunc(entries, func(a, b entry) int { return cmp.Or(cmp.Compare(a.place, b.place), cmp.Compare(a.at, b.at)) })
		var all []fibre
		for from := 0; from < len(entries); {
			upto := from
			var f fibre
			for ; upto < len(entries) && entries[upto].place == entries[from].place; upto++ {
				if v := values[entries[upto].at]; v > 0 || !a.nonNegative(n) {
					f.energy += v * v
				}
			}
			if f.energy > 0 {
				f.at = []int{from, upto} // until the best are known
				all = append(all, f)
			}
			from = upto
		}
		slices.SortStableFunc(all, func(a, b fibre) int { return cmp.Compare(b.energy, a.energy) })
		all = all[:min(count, len(all))]
		var sum float64
		for i, f := range all {
			sum += f.energy
			run := entries[f.at[0]:f.at[1]]
			all[i].values = make([]float64, a.shape[n])
			for _, e := range run {
				locate(e.at, index)
				if v := values[e.at]; v > 0 || !a.nonNegative(n) {
					all[i].values[index[n]] = v
				}
			}
			all[i].at = slices.Clone(index)
		}
		if sum > most*(1+1e-9) {
			mode, best, most = n, all, sum
		}
	}
	return mode, best
}

// residual is the values of X − X̂ and how to find their indices.
func (d *dense) residual(u [][]float64) (values []float64, locate func(i int, index []int)) {
	if u == nil {
		values = make([]float64, len(d.data))
	} else {
		values = tensorops.Kruskal(d.workers, d.shape, u, d.rank)
	}
	for i, v := range d.data {
		values[i] = v*d.scale - values[i]
	}
	return values, func(i int, index []int) {
		for n := len(d.shape) - 1; n >= 0; n-- {
			index[n] = i % d.shape[n]
			i /= d.shape[n]
		}
	}
}

// residual is that of the entries that are listed.
func (x *coordinates) residual(u [][]float64) ([]float64, func(i int, index []int)) {
	return listed(x.shape, &x.modes[0], u, x.rank)
}

// residual is that of the known entries, each times the root of its weight.
func (x *known) residual(u [][]float64) ([]float64, func(i int, index []int)) {
	values, locate := listed(x.shape, &x.modes[0], u, x.rank)
	if x.roots != nil {
		for i, w := range x.roots[0] {
			values[i] *= w
		}
	}
	return values, locate
}

// listed is the residual at the entries of an unfolding of the first mode.
func listed(shape []int, v *unfolding, u [][]float64, rank int) ([]float64, func(i int, index []int)) {
	values, rows := slices.Clone(v.values), make([]int, len(v.values))
	last := lastOther(shape, 0)
	others := make([]float64, rank)
	for i := range shape[0] {
		for e := v.start[i]; e < v.start[i+1]; e++ {
			rows[e] = i
			if u == nil {
				continue
			}
			row(others, shape, u, 0, last, v.prefix[e])
			for c, b := range u[last][v.last[e]*rank:][:rank] {
				values[e] -= others[c] * b * u[0][i*rank+c]
			}
		}
	}
	return values, func(i int, index []int) {
		index[0], index[last] = rows[i], v.last[i]
		prefix := v.prefix[i]
		for n := last - 1; n > 0; n-- {
			index[n] = prefix % shape[n]
			prefix /= shape[n]
		}
	}
}
