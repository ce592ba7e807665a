package peft

import (
	"strings"

	"github.com/lowrank-go/lowrank/internal/gemm"
)

// Float is the precision that a ΔW is computed in.
type Float interface{ float32 | float64 }

// contraction is the sum of the products of two arrays over the labels that the
// result lacks: out[l_out] = Σ a[l_a]·b[l_b], each label naming an axis and its
// size. Every label of an operand must be the result's or the other operand's.
// It is one matrix product for each value of the labels that all three share, of
// arrays that are permuted where their order asks for it.
type contraction[T Float] struct {
	batch, m, n, k int
	a, b, out      layout[T]
}

// layout is how an array becomes a batch of matrices: as it stands, each matrix
// transposed or not, or permuted into buf first.
type layout[T Float] struct {
	trans bool
	shape []int // of the array, or of the matrices for a result; nil for no permutation
	perm  []int
	size  int
	buf   []T // made when it is needed
}

// newContraction prepares la·lb → lout; sizes has every label's size.
func newContraction[T Float](la, lb, lout string, sizes map[byte]int) *contraction[T] {
	pick := func(from string, keep func(l string) bool) string {
		var s strings.Builder
		for _, l := range strings.Split(from, "") {
			if keep(l) {
				s.WriteString(l)
			}
		}
		return s.String()
	}
	batch := pick(lout, func(l string) bool { return strings.Contains(la, l) && strings.Contains(lb, l) })
	rows := pick(lout, func(l string) bool { return !strings.Contains(lb, l) })
	cols := pick(lout, func(l string) bool { return !strings.Contains(la, l) })
	inner := pick(la, func(l string) bool { return !strings.Contains(lout, l) })
	return &contraction[T]{
		batch: size(batch, sizes), m: size(rows, sizes), n: size(cols, sizes), k: size(inner, sizes),
		a:   newLayout[T](la, batch, rows, inner, sizes),
		b:   newLayout[T](lb, batch, inner, cols, sizes),
		out: newResult[T](lout, batch+rows+cols, sizes),
	}
}

// size is the number of elements of an array with the labels.
func size(labels string, sizes map[byte]int) int {
	n := 1
	for i := range len(labels) {
		n *= sizes[labels[i]]
	}
	return n
}

func newLayout[T Float](labels, batch, rows, cols string, sizes map[byte]int) layout[T] {
	switch labels {
	case batch + rows + cols:
		return layout[T]{}
	case batch + cols + rows:
		return layout[T]{trans: true}
	}
	return newPermutation[T](labels, batch+rows+cols, sizes)
}

// newResult is the way back: the product has the labels from, the result to.
func newResult[T Float](to, from string, sizes map[byte]int) layout[T] {
	if to == from {
		return layout[T]{}
	}
	return newPermutation[T](from, to, sizes)
}

func newPermutation[T Float](from, to string, sizes map[byte]int) layout[T] {
	l := layout[T]{size: size(from, sizes)}
	for i := range len(from) {
		l.shape = append(l.shape, sizes[from[i]])
		l.perm = append(l.perm, strings.IndexByte(from, to[i]))
	}
	return l
}

// matrices is the array in the order that the product reads.
func (l *layout[T]) matrices(v []T) []T {
	if l.perm == nil {
		return v
	}
	permute(l.buffer(), v, l.shape, l.perm)
	return l.buf
}

func (l *layout[T]) buffer() []T {
	if l.buf == nil {
		l.buf = make([]T, l.size)
	}
	return l.buf
}

// run overwrites out.
func (c *contraction[T]) run(out, a, b []T) {
	a, b = c.a.matrices(a), c.b.matrices(b)
	dst := out
	if c.out.perm != nil {
		dst = c.out.buffer()
	}
	if c.k == 1 {
		outer(c.batch, c.m, c.n, a, b, dst)
	} else {
		c.multiply(dst, a, b)
	}
	if c.out.perm != nil {
		permute(out, dst, c.out.shape, c.out.perm)
	}
}

// multiply is a matrix product for each batch.
func (c *contraction[T]) multiply(dst, a, b []T) {
	lda, ldb := c.k, c.n
	if c.a.trans {
		lda = c.m
	}
	if c.b.trans {
		ldb = c.k
	}
	for i := range c.batch {
		product(c.a.trans, c.b.trans, c.m, c.n, c.k, a[i*c.m*c.k:], lda, b[i*c.k*c.n:], ldb, dst[i*c.m*c.n:], c.n)
	}
}

// outer is batch outer products of m and n values: calls of a matrix product would
// cost more than they do.
func outer[T Float](batch, m, n int, a, b, dst []T) {
	for i := range batch {
		for j, x := range a[i*m : (i+1)*m] {
			row := dst[(i*m+j)*n:][:n]
			for l, y := range b[i*n : (i+1)*n] {
				row[l] = x * y
			}
		}
	}
}

// macs is the number of multiply-accumulates of run.
func (c *contraction[T]) macs() int64 {
	return int64(c.batch) * int64(c.m) * int64(c.n) * int64(c.k)
}

func product[T Float](transA, transB bool, m, n, k int, a []T, lda int, b []T, ldb int, c []T, ldc int) {
	switch c := any(c).(type) {
	case []float32:
		gemm.Float32(0, transA, transB, m, n, k, 1, any(a).([]float32), lda, any(b).([]float32), ldb, 0, c, ldc)
	case []float64:
		gemm.Float64(0, transA, transB, m, n, k, 1, any(a).([]float64), lda, any(b).([]float64), ldb, 0, c, ldc)
	}
}

// permute writes the array src of the given shape into dst with axis perm[i] as
// its i-th axis.
func permute[T Float](dst, src []T, shape, perm []int) {
	stride := make([]int, len(shape))
	for i, n := len(shape)-1, 1; i >= 0; i-- {
		stride[i] = n
		n *= shape[i]
	}
	last := perm[len(perm)-1]
	count, step := shape[last], stride[last]
	index := make([]int, len(perm)-1)
	from := 0
	for at := 0; at < len(dst); at += count {
		for i := range count {
			dst[at+i] = src[from+i*step]
		}
		for i := len(index) - 1; i >= 0; i-- {
			from += stride[perm[i]]
			if index[i]++; index[i] < shape[perm[i]] {
				break
			}
			from -= index[i] * stride[perm[i]]
			index[i] = 0
		}
	}
}
