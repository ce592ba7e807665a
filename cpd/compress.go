package cpd

import (
	"math"
	"slices"

	"github.com/lowrank-go/lowrank/internal/gemm"
	"github.com/lowrank-go/lowrank/internal/linalg"
	"github.com/lowrank-go/lowrank/internal/tensorops"
)

// Compression before a fit. It pays where the projection is this much smaller
// than the tensor; a mode is projected where that leaves at most three quarters
// of it.
const (
	oversampling = 1.5
	leastGain    = 4
	cheapStarts  = 4 // of a projection, where the caller leaves it to us
)

// compress sets core and basis where compression pays: a sequentially truncated
// HOSVD (Vannieuwenhoven, Vandebril and Meerbergen 2012) to oversampling·R.
func (a *als) compress() error {
	if a.set.Plain || a.set.Start != nil || a.set.Ridge > 0 || len(a.set.NonNegative) > 0 || a.norm == 0 {
		return nil
	}
	size := int(math.Ceil(oversampling * float64(a.rank)))
	shape := slices.Clone(a.shape)
	for n, d := range shape {
		if 4*size <= 3*d {
			shape[n] = size
		}
	}
	if tensorops.Product(shape)*leastGain > tensorops.Product(a.shape) {
		return nil
	}
	// Modes that shrink most go first, for that makes the others cheaper, and of
	// those the last, whose Gram matrix reads memory in order.
	var order []int
	for n := len(shape) - 1; n >= 0; n-- {
		if shape[n] < a.shape[n] {
			order = append(order, n)
		}
	}
	slices.SortStableFunc(order, func(n, m int) int {
		return shape[n]*a.shape[m] - shape[m]*a.shape[n]
	})
	x, ok := a.x.(*dense)
	if !ok {
		return nil
	}
	a.basis = make([][]float64, len(shape))
	now, data := slices.Clone(a.shape), x.data
	for _, n := range order {
		d, w := now[n], make([]float64, now[n])
		z, k, err := linalg.EigenTop(a.set.Workers, d, tensorops.Gram(a.set.Workers, now, data, n), d, w, func(w []float64) int {
			if w[a.rank] < 1e-14*w[0] {
				// Fewer directions than components: random starts, whose columns
				// are all but orthogonal in a large space, crowd in a small one.
				return 0
			}
			return shape[n]
		})
		if err != nil {
			return err
		}
		if k == 0 {
			continue
		}
		a.basis[n] = z[:d*k]
		now, data = tensorops.MulMode(a.set.Workers, now, data, n, true, a.basis[n], k)
	}
	if tensorops.Product(now)*leastGain > tensorops.Product(a.shape) {
		a.basis = nil
		return nil
	}
	norm := tensorops.Norm(data) * x.scale
	if a.many {
		a.set.Starts = cheapStarts
	}
	c := &als{set: a.set, shape: now, rank: a.rank, norm: norm, share: norm}
	c.x = newDense(a.set.Workers, now, data, norm/x.scale, a.rank)
	if lost := 1 - norm*norm; lost > 1e-8 {
		c.lost = math.Sqrt(lost)
	} else { // the difference has no digits left
		back, full := now, data
		for n, q := range a.basis {
			if q == nil {
				continue
			}
			back, full = tensorops.MulMode(a.set.Workers, back, full, n, false, q, a.shape[n])
		}
		for i, v := range x.data {
			full[i] -= v
		}
		c.lost = tensorops.Norm(full) * x.scale
	}
	a.core = c
	return nil
}

// expand sets factors, of unit columns, and weights to those of the core, in the
// tensor's own space.
func (a *als) expand() {
	c := a.core
	if a.u == nil {
		a.u, a.w = make([][]float64, len(a.shape)), make([]float64, a.rank)
	}
	w := slices.Clone(c.w)
	for n, q := range a.basis {
		if q == nil {
			a.u[n] = slices.Clone(c.u[n])
		} else {
			k := c.shape[n]
			a.u[n] = make([]float64, a.shape[n]*a.rank)
			gemm.Float64(a.set.Workers, false, false, a.shape[n], a.rank, k, 1, q, k, c.u[n], a.rank, 0, a.u[n], a.rank)
		}
		a.normalise(n)
		for r, v := range a.w {
			w[r] *= v
		}
	}
	for r, v := range w {
		a.w[r] = v * c.share
	}
}
