package gemm

import (
	"github.com/lowrank-go/lowrank/internal/parallel"
)

// Gram32 computes the n×n matrix C = alpha·A·Aᵀ + beta·C of an n×k matrix A, or
// C = alpha·Aᵀ·A + beta·C of a k×n matrix A with trans: BLAS's syrk, but with
// both triangles of C written. The result is exactly symmetric. If beta is not
// 0, C is taken for symmetric and only its lower triangle is read. It costs
// about n²k operations for n of some hundreds and more, and up to twice that
// for smaller n. Everything else is as in Float32.
func Gram32(workers int, trans bool, n, k int, alpha float32, a []float32, lda int, beta float32, c []float32, ldc int) {
	gram(&set32, workers, n, k, alpha, operand("A", n, k, a, lda, trans), beta, c, ldc)
}

// Gram64 is Gram32 for float64 matrices.
func Gram64(workers int, trans bool, n, k int, alpha float64, a []float64, lda int, beta float64, c []float64, ldc int) {
	gram(&set64, workers, n, k, alpha, operand("A", n, k, a, lda, trans), beta, c, ldc)
}

// gram computes C = alpha·A·Aᵀ + beta·C for an n×k operand A.
func gram[T float](s *set[T], workers, n, k int, alpha T, a view[T], beta T, c []T, ldc int) {
	height := bandHeight(n, s.kernel.mr)
	if height >= n || k == 0 || alpha == 0 || depthSlices(n, n, k) > 1 {
		multiply(s, workers, n, n, k, alpha, a, a.t(), beta, c, ldc)
		if n > 1 && beta != 0 {
			s.kernel.mirror(0, n, c, ldc)
		}
		return
	}
	check("C", n, n, len(c), ldc)
	j := s.job()
	j.m, j.n, j.k, j.alpha, j.a, j.b, j.beta, j.c, j.ldc = n, n, k, alpha, a, a.t(), beta, c, ldc
	j.rows = height
	if partsFor(workers, float64(n)*float64(n)*float64(k)) == 1 {
		workers = 1
	}
	parallel.For(workers, ceil(n, height), j.band)
	s.release(j)
}

// bandHeight is the height of the bands of rows in which the lower triangle is
// computed: low, to waste little over the diagonal, but high enough that packing
// the other operand for each band pays.
func bandHeight(n, mr int) int {
	return ceil(min(max(n/8, 48), 240), mr) * mr
}

// doBand computes rows of the lower triangle up to the diagonal block's end and
// copies them to the upper. The longest bands come first.
func (j *job[T]) doBand(i int) {
	i = ceil(j.n, j.rows) - 1 - i
	r := i * j.rows
	m := min(j.rows, j.n-r)
	j.set.block(m, r+m, j.k, j.alpha, j.a.at(r, 0), j.b, j.beta, j.c[r*j.ldc:], j.ldc)
	j.set.kernel.mirror(r, r+m, j.c, j.ldc)
}

// mirror copies the part of the lower triangle in rows from to upto to the upper
// triangle: four rows at a time, which become four columns, over pieces of rows
// whose columns' lines stay in the cache for the next four.
func (kr *kernel[T]) mirror(from, upto int, c []T, ldc int) {
	const piece = 64
	for q0 := 0; q0 < upto; q0 += piece {
		i := from
		for ; i+4 <= upto; i += 4 {
			if k := min(piece, i-q0); k > 0 {
				kr.transpose(k, c[i*ldc+q0:], ldc, c[q0*ldc+i:], ldc)
			}
			if i >= q0 && i < q0+piece { // the rows' own triangle
				for a := 1; a < 4; a++ {
					for b := range a {
						c[(i+b)*ldc+i+a] = c[(i+a)*ldc+i+b]
					}
				}
			}
		}
		for ; i < upto; i++ {
			for q := q0; q < min(q0+piece, i); q++ {
				c[q*ldc+i] = c[i*ldc+q]
			}
		}
	}
}
