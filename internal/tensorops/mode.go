package tensorops

import (
	"github.com/lowrank-go/lowrank/internal/gemm"
	"github.com/lowrank-go/lowrank/internal/parallel"
)

// around is how a row-major tensor looks from mode n: left·size·right.
func around(shape []int, n int) (left, size, right int) {
	return Product(shape[:n]), shape[n], Product(shape[n+1:])
}

// Unfold is the mode-n unfolding, I_n×(product of the others), the other modes
// in their order, the last fastest. Mode 0 is data itself; others are copied.
func Unfold(shape []int, data []float64, n int) []float64 {
	left, size, right := around(shape, n)
	if left == 1 {
		return data
	}
	out := make([]float64, len(data))
	for l := range left {
		for i := range size {
			copy(out[(i*left+l)*right:(i*left+l+1)*right], data[(l*size+i)*right:])
		}
	}
	return out
}

// Gram is X_(n)·X_(n)ᵀ, I_n×I_n, row-major. Beside it, at most one copy of the
// tensor is made.
func Gram(workers int, shape []int, data []float64, n int) []float64 {
	_, size, right := around(shape, n)
	g := make([]float64, size*size)
	if right == 1 {
		gemm.Gram64(workers, true, size, len(data)/size, 1, data, size, 0, g, size)
		return g
	}
	k := len(data) / size
	gemm.Gram64(workers, false, size, k, 1, Unfold(shape, data, n), k, 0, g, size)
	return g
}

// MulMode is the mode-n product with a matrix. With trans unset, m is r×I_n and
// the result has r in place of I_n; with trans set, m is I_n×r and its transpose
// is meant: what projects onto the columns of a factor.
func MulMode(workers int, shape []int, data []float64, n int, trans bool, m []float64, r int) ([]int, []float64) {
	left, size, right := around(shape, n)
	outShape := append([]int(nil), shape...)
	outShape[n] = r
	out := make([]float64, left*r*right)
	ldm := size
	if trans {
		ldm = r
	}
	if right == 1 {
		gemm.Float64(workers, false, !trans, left, r, size, 1, data, size, m, ldm, 0, out, r)
		return outShape, out
	}
	if left == 1 {
		gemm.Float64(workers, trans, false, r, right, size, 1, m, ldm, data, right, 0, out, right)
		return outShape, out
	}
	parallel.For(workers, left, func(l int) {
		gemm.Float64(1, trans, false, r, right, size, 1, m, ldm, data[l*size*right:], right, 0, out[l*r*right:], right)
	})
	return outShape, out
}
