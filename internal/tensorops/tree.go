package tensorops

import (
	"github.com/lowrank-go/lowrank/internal/gemm"
	"github.com/lowrank-go/lowrank/internal/hadamard"
	"github.com/lowrank-go/lowrank/internal/parallel"
)

// float is an element type.
type float interface{ float32 | float64 }

// Tree computes the MTTKRPs (matricised tensor times Khatri-Rao products) of all
// modes of a tensor in turn: a dimension tree of two levels (Phan, Tichavský and
// Cichocki, IEEE Trans. Signal Process. 61, 2013, section III). The modes are cut
// into two halves; one product with the tensor contracts a half, and what is left
// is small. Memory is kept from call to call, beside the tensor at most
// R·(the larger half's product) values and a little.
type Tree[T float] struct {
	workers, rank, split int
	shape                []int
	wide, narrow, m      []T
}

// NewTree returns a Tree for tensors of the shape and factors with rank columns.
func NewTree[T float](workers int, shape []int, rank int) *Tree[T] {
	return &Tree[T]{workers: workers, rank: rank, split: Split(shape), shape: shape}
}

// Each calls f with the MTTKRP of data in every mode in turn, I_n×R, row-major,
// valid until f returns and f's own. f may change its mode's factor; later MTTKRPs
// are then those with the new one. It stops at the first error.
func (t *Tree[T]) Each(data []T, factors [][]T, f func(n int, m []T) error) error {
	h, r := t.split, t.rank
	left, right := Product(t.shape[:h]), Product(t.shape[h:])
	// The Khatri-Rao product of the longer half is needed for the other, and the
	// partial MTTKRP of the longer half after that: both lie in wide.
	t.wide, t.narrow = grown(t.wide, max(left, right)*r), grown(t.narrow, min(left, right)*r)
	first, second := t.narrow, t.wide
	if left > right {
		first, second = second, first
	}
	kr := KhatriRao(t.workers, second, t.shape[h:], factors[h:], r)
	multiply(t.workers, false, left, r, right, data, right, kr, first)
	if err := t.half(0, h, first, factors, f); err != nil || h == len(t.shape) {
		return err
	}
	kr = KhatriRao(t.workers, first, t.shape[:h], factors[:h], r)
	multiply(t.workers, true, right, r, left, data, right, kr, second)
	return t.half(h, len(t.shape), second, factors, f)
}

func (t *Tree[T]) half(from, upto int, partial []T, factors [][]T, f func(n int, m []T) error) error {
	for n := from; n < upto; n++ {
		m := partial
		if upto-from > 1 {
			t.m = grown(t.m, t.shape[n]*t.rank)
			m = t.m
			t.finish(m, t.shape[from:upto], partial, factors[from:upto], n-from)
		}
		if err := f(n, m); err != nil {
			return err
		}
	}
	return nil
}

// finish contracts a partial MTTKRP over sizes (a half's modes) with the factors
// of all of them but n, and writes sizes[n]×R to m.
func (t *Tree[T]) finish(m []T, sizes []int, partial []T, factors [][]T, n int) {
	r := t.rank
	before := KhatriRao(1, nil, sizes[:n], factors[:n], r)
	after := KhatriRao(1, nil, sizes[n+1:], factors[n+1:], r)
	left, right, size := len(before)/r, len(after)/r, sizes[n]
	clear(m)
	if n == len(sizes)-1 { // nothing comes after
		ranges(t.workers, size, left*r, func(i0, i1 int) {
			for l := range left {
				hadamard.MultiplyAdd(i1-i0, r, m[i0*r:], r, partial[(l*size+i0)*r:], r, before[l*r:], 0)
			}
		})
		return
	}
	ranges(t.workers, size, left*right*r, func(i0, i1 int) {
		row := make([]T, r)
		for i := i0; i < i1; i++ {
			dst := m[i*r:][:r]
			for l := range left {
				rows := partial[(l*size+i)*right*r:][:right*r]
				if n == 0 { // nothing comes before
					hadamard.MultiplyAdd(right, r, dst, 0, rows, r, after, r)
					continue
				}
				clear(row)
				hadamard.MultiplyAdd(right, r, row, 0, rows, r, after, r)
				hadamard.MultiplyAdd(1, r, dst, 0, row, 0, before[l*r:], 0)
			}
		}
	})
}

// ranges calls f for parts of [0, n), several where each index is work elements.
func ranges(workers, n, work int, f func(i0, i1 int)) {
	const least = 1 << 15 // elements that pay for another goroutine
	parts := min(n, 4*parallel.Workers(workers), n*work/least)
	if workers == 1 || parts <= 1 {
		f(0, n)
		return
	}
	parallel.For(workers, parts, func(i int) { f(i*n/parts, (i+1)*n/parts) })
}

// multiply is C = A·B or, with trans, Aᵀ·B, for the m×k or k×m matrix a with rows
// lda apart, the k×n matrix b and the m×n matrix c.
func multiply[T float](workers int, trans bool, m, n, k int, a []T, lda int, b, c []T) {
	switch a := any(a).(type) {
	case []float32:
		gemm.Float32(workers, trans, false, m, n, k, 1, a, lda, any(b).([]float32), n, 0, any(c).([]float32), n)
	case []float64:
		gemm.Float64(workers, trans, false, m, n, k, 1, a, lda, any(b).([]float64), n, 0, any(c).([]float64), n)
	}
}

// grown is buf with n elements, whose values do not matter.
func grown[T float](buf []T, n int) []T {
	if cap(buf) < n {
		return make([]T, n)
	}
	return buf[:n]
}

// KhatriRao is the column-wise Kronecker product of factors of sizes[i]×r
// (row-major), the last index fastest: (product of sizes)×r. It is written to dst
// where that is long enough. Of no factors it is one row of ones; of one it is
// that factor itself, not a copy.
func KhatriRao[T float](workers int, dst []T, sizes []int, factors [][]T, r int) []T {
	switch len(factors) {
	case 0:
		out := make([]T, r)
		for i := range out {
			out[i] = 1
		}
		return out
	case 1:
		return factors[0][:sizes[0]*r]
	}
	last := len(factors) - 1
	before := KhatriRao(workers, nil, sizes[:last], factors[:last], r)
	rows, size := len(before)/r, sizes[last]
	out := grown(dst, rows*size*r)
	ranges(workers, rows, size*r, func(a0, a1 int) {
		for a := a0; a < a1; a++ {
			hadamard.Multiply(size, r, out[a*size*r:], r, before[a*r:], 0, factors[last], r)
		}
	})
	return out
}
