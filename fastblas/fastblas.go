// Package fastblas lends lowrank's matrix product to gonum. Its Implementation is
// gonum's own BLAS with the products replaced by those of lowrank, which are
// several times as fast where the processor has AVX2 or AVX-512. A program that
// wants gonum's mat package, and the factorisations under it, to run on them says
// so, once, before it computes:
//
//	blas64.Use(fastblas.Implementation{})
//	blas32.Use(fastblas.Implementation{})
//
// Nothing changes in a program that does not: lowrank never registers anything by
// itself. Level 3 routines that are mostly products gain (QR, Cholesky, LU of
// some hundreds of rows and more); those bound by level 2, such as gonum's
// symmetric eigensolver and SVD, hardly do.
package fastblas

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"

	"github.com/lowrank-go/lowrank/internal/gemm"
)

// Implementation is gonum's BLAS with faster Dgemm, Sgemm, Dsyrk and Ssyrk. The
// zero value is ready for use by any number of goroutines. A product uses up to
// GOMAXPROCS goroutines; its result does not depend on their number.
type Implementation struct{ gonum.Implementation }

// transposed reports whether t transposes, and whether it is a legal value.
func transposed(t blas.Transpose) (trans, ok bool) {
	return t != blas.NoTrans, t == blas.NoTrans || t == blas.Trans || t == blas.ConjTrans
}

// fits reports whether a rows×cols matrix, stored as it is or transposed, with
// rows ld apart, fits in n elements, as gonum's routines check it.
func fits(rows, cols int, trans bool, ld, n int) bool {
	if trans {
		rows, cols = cols, rows
	}
	return rows > 0 && cols > 0 && ld >= cols && n >= (rows-1)*ld+cols
}

func productFits(tA, tB blas.Transpose, m, n, k, lenA, lda, lenB, ldb, lenC, ldc int) bool {
	ta, okA := transposed(tA)
	tb, okB := transposed(tB)
	return okA && okB && fits(m, k, ta, lda, lenA) && fits(k, n, tb, ldb, lenB) && fits(m, n, false, ldc, lenC)
}

// Dgemm computes C = alpha·op(A)·op(B) + beta·C, as in BLAS. Like gonum's, it
// panics on sizes that do not fit.
func (i Implementation) Dgemm(tA, tB blas.Transpose, m, n, k int, alpha float64, a []float64, lda int, b []float64, ldb int, beta float64, c []float64, ldc int) {
	if !productFits(tA, tB, m, n, k, len(a), lda, len(b), ldb, len(c), ldc) {
		// Empty products, and gonum's messages for bad arguments.
		i.Implementation.Dgemm(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
		return
	}
	gemm.Float64(0, tA != blas.NoTrans, tB != blas.NoTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
}

// Sgemm is Dgemm in float32.
func (i Implementation) Sgemm(tA, tB blas.Transpose, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
	if !productFits(tA, tB, m, n, k, len(a), lda, len(b), ldb, len(c), ldc) {
		i.Implementation.Sgemm(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
		return
	}
	gemm.Float32(0, tA != blas.NoTrans, tB != blas.NoTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
}

// band is the height of the blocks of rows in which one triangle is computed.
const band = 96

// syrk computes the triangle of an n×n product block row by block row: the
// square on the diagonal by diagonal, which touches one triangle only, the rest
// by product.
func syrk(ul blas.Uplo, n int, diagonal func(at, size int), product func(row, rows, col, cols int)) {
	for at := 0; at < n; at += band {
		size := min(band, n-at)
		diagonal(at, size)
		if ul == blas.Lower && at > 0 {
			product(at, size, 0, at)
		} else if ul == blas.Upper && at+size < n {
			product(at, size, at+size, n-at-size)
		}
	}
}

// Dsyrk computes one triangle of C = alpha·A·Aᵀ + beta·C, or of alpha·Aᵀ·A +
// beta·C, as in BLAS. Like gonum's, it panics on sizes that do not fit.
func (i Implementation) Dsyrk(ul blas.Uplo, tA blas.Transpose, n, k int, alpha float64, a []float64, lda int, beta float64, c []float64, ldc int) {
	trans, ok := transposed(tA)
	if n <= band || !ok || (ul != blas.Lower && ul != blas.Upper) || !fits(n, k, trans, lda, len(a)) || !fits(n, n, false, ldc, len(c)) {
		i.Implementation.Dsyrk(ul, tA, n, k, alpha, a, lda, beta, c, ldc)
		return
	}
	step := lda
	if trans {
		step = 1
	}
	syrk(ul, n, func(at, size int) {
		i.Implementation.Dsyrk(ul, tA, size, k, alpha, a[at*step:], lda, beta, c[at*ldc+at:], ldc)
	}, func(row, rows, col, cols int) {
		gemm.Float64(0, trans, !trans, rows, cols, k, alpha, a[row*step:], lda, a[col*step:], lda, beta, c[row*ldc+col:], ldc)
	})
}

// Ssyrk is Dsyrk in float32.
func (i Implementation) Ssyrk(ul blas.Uplo, tA blas.Transpose, n, k int, alpha float32, a []float32, lda int, beta float32, c []float32, ldc int) {
	trans, ok := transposed(tA)
	if n <= band || !ok || (ul != blas.Lower && ul != blas.Upper) || !fits(n, k, trans, lda, len(a)) || !fits(n, n, false, ldc, len(c)) {
		i.Implementation.Ssyrk(ul, tA, n, k, alpha, a, lda, beta, c, ldc)
		return
	}
	step := lda
	if trans {
		step = 1
	}
	syrk(ul, n, func(at, size int) {
		i.Implementation.Ssyrk(ul, tA, size, k, alpha, a[at*step:], lda, beta, c[at*ldc+at:], ldc)
	}, func(row, rows, col, cols int) {
		gemm.Float32(0, trans, !trans, rows, cols, k, alpha, a[row*step:], lda, a[col*step:], lda, beta, c[row*ldc+col:], ldc)
	})
}
