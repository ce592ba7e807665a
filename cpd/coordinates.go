package cpd

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/lowrank-go/lowrank/internal/parallel"
	"github.com/lowrank-go/lowrank/internal/tensorops"
)

// unfolding is a sparse unfolding by rows, its entries in the order of their
// indices in the other modes, the last fastest.
type unfolding struct {
	start  []int // of each row's entries, and their number
	values []float64
	// prefix numbers the entries' places in the other modes but the last, and last
	// has the index there. Entries with the same prefix are neighbours.
	prefix, last []int
}

// coordinates is a sparse tensor of unit norm whose other entries are zero.
type coordinates struct {
	workers, rank int
	shape         []int
	modes         []unfolding
	m             []float64
}

// unfoldings of a sparse tensor with other values, and the number of its entries that
// share their place with an earlier one.
func unfoldings(x *Sparse, values []float64) (all []unfolding, twice int) {
	for n := range x.Shape {
		csr, t := x.unfold(n, values)
		twice = t
		raw := csr.RawMatrix()
		u := unfolding{start: raw.Indptr, values: raw.Data, prefix: make([]int, len(raw.Ind)), last: make([]int, len(raw.Ind))}
		size := x.Shape[lastOther(x.Shape, n)]
		for i, c := range raw.Ind {
			u.prefix[i], u.last[i] = c/size, c%size
		}
		all = append(all, u)
	}
	return all, twice
}

func divide(all []unfolding, norm float64) {
	for _, u := range all {
		for i := range u.values {
			u.values[i] /= norm
		}
	}
}

// lastOther is the last mode but n.
func lastOther(shape []int, n int) int {
	if n == len(shape)-1 {
		return n - 1
	}
	return len(shape) - 1
}

func newCoordinates(workers int, x *Sparse, rank int) (*coordinates, float64, error) {
	c := &coordinates{workers: workers, rank: rank, shape: x.Shape}
	c.modes, _ = unfoldings(x, x.Values)
	// There, values of entries listed twice have been added up.
	norm := tensorops.Norm(c.modes[0].values)
	if math.IsInf(norm, 0) || math.IsNaN(norm) {
		return nil, 0, fmt.Errorf("cpd: %w: the norm overflows", tensorops.ErrTensor)
	}
	if norm > 0 {
		divide(c.modes, norm)
	}
	return c, norm, nil
}

// row writes the product of the rows of all factors but those of modes n and last at
// the place with the number prefix.
func row(out []float64, shape []int, u [][]float64, n, last, prefix int) {
	r := len(out)
	first := true
	for m := len(shape) - 1; m >= 0; m-- {
		if m == n || m == last {
			continue
		}
		f := u[m][prefix%shape[m]*r:][:len(out)]
		prefix /= shape[m]
		if first {
			copy(out, f)
			first = false
			continue
		}
		for c, v := range f {
			out[c] *= v
		}
	}
	if first {
		for c := range out {
			out[c] = 1
		}
	}
}

func (x *coordinates) each(u [][]float64, f func(n int, m []float64) error) error {
	for n := range x.shape {
		x.m = zeroed(x.m, x.shape[n]*x.rank)
		x.mttkrp(n, u)
		if err := f(n, x.m); err != nil {
			return err
		}
	}
	return nil
}

// ranges cuts the rows into parts of about as many entries. Rows do not depend on
// each other.
func (v *unfolding) ranges(workers int, f func(i0, i1 int)) {
	rows := len(v.start) - 1
	parts := min(4*parallel.Workers(workers), rows, 1+len(v.values)/4096)
	cut := make([]int, parts+1)
	at := 0
	for p := 1; p < parts; p++ {
		for at < rows && v.start[at] < p*len(v.values)/parts {
			at++
		}
		cut[p] = at
	}
	cut[parts] = rows
	parallel.For(workers, parts, func(p int) { f(cut[p], cut[p+1]) })
}

func (x *coordinates) mttkrp(n int, u [][]float64) {
	v, r, last := &x.modes[n], x.rank, lastOther(x.shape, n)
	ul := u[last]
	v.ranges(x.workers, func(i0, i1 int) {
		sum, others := make([]float64, r), make([]float64, r)
		for i := i0; i < i1; i++ {
			m := x.m[i*r:][:r]
			for e := v.start[i]; e < v.start[i+1]; {
				// Entries that differ in the last mode alone share the others' rows.
				clear(sum)
				prefix := v.prefix[e]
				for ; e < v.start[i+1] && v.prefix[e] == prefix; e++ {
					w, f := v.values[e], ul[v.last[e]*r:][:len(sum)]
					for c := range sum {
						sum[c] += w * f[c]
					}
				}
				row(others, x.shape, u, n, last, prefix)
				for c, s := range sum {
					m[c] += s * others[c]
				}
			}
		}
	})
}

// distance is √(‖X̂‖² + Σ (x−x̂)² − x̂²), the sum over the entries that are not zero.
func (x *coordinates) distance(u [][]float64) float64 {
	r, last := x.rank, lastOther(x.shape, 0)
	v := &x.modes[0]
	sums := make([]float64, x.shape[0])
	v.ranges(x.workers, func(i0, i1 int) {
		others := make([]float64, r)
		for i := i0; i < i1; i++ {
			prefix := -1
			for e := v.start[i]; e < v.start[i+1]; e++ {
				if v.prefix[e] != prefix {
					prefix = v.prefix[e]
					row(others, x.shape, u, 0, last, prefix)
					for c, a := range u[0][i*r:][:r] {
						others[c] *= a
					}
				}
				d := tensorops.Dot(others, u[last][v.last[e]*r:])
				sums[i] += v.values[e] * (v.values[e] - 2*d)
			}
		}
	})
	var sum float64
	for _, s := range sums {
		sum += s
	}
	return math.Sqrt(max(sum+squaredNorm(u, r), 0))
}

// squaredNorm is that of Σ_c Π_n u_n[i_n,c].
func squaredNorm(u [][]float64, r int) float64 {
	g := make([]float64, r*r)
	for i := range g {
		g[i] = 1
	}
	one := make([]float64, r*r)
	for _, f := range u {
		clear(one)
		for i := 0; i < len(f); i += r {
			for a, v := range f[i : i+r] {
				for b, w := range f[i : i+r] {
					one[a*r+b] += v * w
				}
			}
		}
		for i, v := range one {
			g[i] *= v
		}
	}
	var s float64
	for _, v := range g {
		s += v
	}
	return s
}

// gramSize is the size of a mode above which a sparse tensor's Gram matrix is not
// formed.
const gramSize = 4096

func (x *coordinates) gram(n int) []float64 { return gram(x.shape, x.modes, n) }

// gram is X_(n)·X_(n)ᵀ, nil for a mode that is too large.
func gram(shape []int, modes []unfolding, n int) []float64 {
	d := shape[n]
	if d > gramSize {
		return nil
	}
	v, size := &modes[n], shape[lastOther(shape, n)]
	type entry struct{ column, row, at int }
	entries := make([]entry, 0, len(v.values))
	for i := range d {
		for e := v.start[i]; e < v.start[i+1]; e++ {
			entries = append(entries, entry{v.prefix[e]*size + v.last[e], i, e})
		}
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.column, b.column), cmp.Compare(a.row, b.row))
	})
	g := make([]float64, d*d)
	for len(entries) > 0 {
		k := 1
		for k < len(entries) && entries[k].column == entries[0].column {
			k++
		}
		for _, a := range entries[:k] {
			for _, b := range entries[:k] {
				g[a.row*d+b.row] += v.values[a.at] * v.values[b.at]
			}
		}
		entries = entries[k:]
	}
	return g
}
