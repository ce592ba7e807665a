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

// Gram is X_(n)·X_(n)ᵀ, I_n×I_n, row-major. Of the unfolding no more than a few
// hundred columns are copied at a time.
func Gram(workers int, shape []int, data []float64, n int) []float64 {
	left, size, right := around(shape, n)
	g := make([]float64, size*size)
	switch {
	case right == 1:
		gemm.Gram64(workers, true, size, left, 1, data, size, 0, g, size)
		return g
	case left == 1:
		gemm.Gram64(workers, false, size, right, 1, data, right, 0, g, size)
		return g
	}
	const columns = 1024
	step := min(left, max(columns/right, 1))
	if step == 1 { // the slices are wide as they are
		for l := range left {
			gemm.Gram64(workers, false, size, right, 1, data[l*size*right:], right, float64(min(l, 1)), g, size)
		}
		return g
	}
	buf := make([]float64, size*step*right)
	for l0 := 0; l0 < left; l0 += step {
		count := min(step, left-l0)
		part := data[l0*size*right : (l0+count)*size*right]
		for l := range count {
			for i := range size {
				copy(buf[(i*count+l)*right:][:right], part[(l*size+i)*right:])
			}
		}
		gemm.Gram64(workers, false, size, count*right, 1, buf, count*right, float64(min(l0, 1)), g, size)
	}
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
