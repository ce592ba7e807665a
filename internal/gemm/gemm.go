// Package gemm is the dense matrix product.
package gemm

import "github.com/lowrank-go/lowrank/internal/parallel"

// Parallel runs f(i) for i in [0,n).
func Parallel(workers, n int, f func(i int)) { parallel.For(workers, n, f) }

func product[T float32 | float64](workers int, ta, tb bool, m, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int) {
	if n == 0 {
		return
	}
	parallel.For(workers, m, func(i int) {
		row := c[i*ldc : i*ldc+n]
		if beta == 0 {
			clear(row)
		} else {
			for j := range row {
				row[j] *= beta
			}
		}
		for p := range k {
			var av T
			if ta {
				av = a[p*lda+i]
			} else {
				av = a[i*lda+p]
			}
			av *= alpha
			if tb {
				for j := range row {
					row[j] += av * b[j*ldb+p]
				}
			} else {
				for j, v := range b[p*ldb : p*ldb+n] {
					row[j] += av * v
				}
			}
		}
	})
}

// Float32 computes C = alpha·op(A)·op(B) + beta·C.
func Float32(workers int, transA, transB bool, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
	product(workers, transA, transB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
}

// Float64 computes C = alpha·op(A)·op(B) + beta·C.
func Float64(workers int, transA, transB bool, m, n, k int, alpha float64, a []float64, lda int, b []float64, ldb int, beta float64, c []float64, ldc int) {
	product(workers, transA, transB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
}

// Gram64 computes C = alpha·A·Aᵀ + beta·C, or Aᵀ·A with trans.
func Gram64(workers int, trans bool, n, k int, alpha float64, a []float64, lda int, beta float64, c []float64, ldc int) {
	product(workers, trans, !trans, n, n, k, alpha, a, lda, a, lda, beta, c, ldc)
}
