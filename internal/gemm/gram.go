package gemm

import (
	"math"

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
	if n < 8*s.kernel.mr || k == 0 || alpha == 0 || depthSlices(n, n, k) > 1 {
		multiply(s, workers, n, n, k, alpha, a, a.t(), beta, c, ldc)
		if n > 1 && beta != 0 {
			s.kernel.mirror(0, n, c, ldc)
		}
		return
	}
	check("C", n, n, len(c), ldc)
	parts := min(partsFor(workers, float64(n)*float64(n)*float64(k)), n/(8*s.kernel.mr))
	if parts <= 1 {
		s.triangle(0, n, k, alpha, a, beta, c, ldc)
		return
	}
	j := s.job()
	j.m, j.n, j.k, j.alpha, j.a, j.beta, j.c, j.ldc = n, n, k, alpha, a, beta, c, ldc
	j.rows = parts
	parallel.For(workers, parts, j.band)
	s.release(j)
}

// doBand computes a band of rows of the lower triangle. All are of about the same
// area; the longest rows come first.
func (j *job[T]) doBand(i int) {
	mr := j.set.kernel.mr
	cut := func(i int) int {
		if i == j.rows {
			return j.n
		}
		return int(float64(j.n)*math.Sqrt(float64(i)/float64(j.rows))) / mr * mr
	}
	i = j.rows - 1 - i
	j.set.triangle(cut(i), cut(i+1), j.k, j.alpha, j.a, j.beta, j.c, j.ldc)
}

// triangle computes rows from to upto of C = alpha·A·Aᵀ + beta·C up to the diagonal
// and copies them to the upper triangle. Of a row, elements behind the diagonal, but
// before column upto, may be spoilt in between.
func (s *set[T]) triangle(from, upto, k int, alpha T, a view[T], beta T, c []T, ldc int) {
	kr := s.kernel
	kc := depth(k, kr.kc)
	mc, nc := min(upto-from, kr.mc), min(upto, kr.nc)
	w := s.workspace()
	w.a = grow(w.a, ceil(mc, kr.mr)*kr.mr*kc)
	w.b = grow(w.b, ceil(nc, kr.nr)*kr.nr*kc)
	for j := 0; j < upto; j += nc {
		nj := min(nc, upto-j)
		betaP := beta
		for p := 0; p < k; p += kc {
			kp := min(kc, k-p)
			pack(kr, w.b, kr.nr, a.at(j, p), nj, kp)
			for i := from; i < upto; i += mc {
				mi := min(mc, upto-i)
				if i+mi <= j {
					continue
				}
				pack(kr, w.a, kr.mr, a.at(i, p), mi, kp)
				for q := 0; q < nj; q += kr.nr {
					b := w.b[q*kp:]
					// Tiles above the diagonal are left out.
					for r := max(0, (j+q-i)/kr.mr*kr.mr); r < mi; r += kr.mr {
						kr.tile(min(kr.mr, mi-r), min(kr.nr, nj-q), kp, w.a[r*kp:], 1, kr.mr, b, kr.nr, c[(i+r)*ldc+j+q:], ldc, alpha, betaP)
					}
				}
			}
			betaP = 1
		}
	}
	s.workspaces.Put(w)
	kr.mirror(from, upto, c, ldc)
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
