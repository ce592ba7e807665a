// Package gemm is the dense matrix product that everything above it stands on:
// C = alpha·op(A)·op(B) + beta·C in float32 and float64, row-major, on a bounded
// pool of workers. Use it for any product of more than a few hundred operations;
// it costs 2mnk floating-point operations, at about the speed of the machine's
// fused multiply-add units once m, n and k pass a few dozens, and it allocates
// nothing once its buffers exist.
//
// # Method
//
// The product is blocked for the caches and computed tile by tile with the
// partial sums in registers, after Goto and van de Geijn, "Anatomy of
// High-Performance Matrix Multiplication" (ACM TOMS 34, 2008), and Van Zee and
// van de Geijn, "BLIS" (ACM TOMS 41, 2015). Operands that are used often enough
// to pay for it are packed into panels; thin and small ones are read in place,
// since the tile kernels take any strides. On amd64 the kernels are generated
// assembly, chosen at start-up between AVX2 with FMA and AVX-512; elsewhere, and
// with the build tag noasm or purego, they are portable Go.
//
// # Results
//
// Each element of C is a sum over k in increasing order, interrupted at points
// that depend on m, n and k alone. So results do not depend, in any bit, on the
// number of workers, nor on strides. They differ in rounding between assembly
// and portable Go. NaN and infinities propagate as in the plain triple loop,
// with BLAS's two exceptions: beta == 0 overwrites C without reading it, and
// alpha == 0 does not read A and B.
package gemm

//go:generate go run ./_gen

// Float32 computes C = alpha·op(A)·op(B) + beta·C for row-major float32
// matrices. op(A) is m×k: A itself, or Aᵀ with transA, where A is then stored
// k×m. op(B) is k×n, stored n×k with transB. C is m×n. lda, ldb and ldc are the
// distances between rows of the stored matrices. C must not overlap A or B.
//
// beta == 0 overwrites C without reading it; alpha == 0 or k == 0 leaves
// beta·C. At most workers goroutines take part, GOMAXPROCS where workers is not
// positive, and fewer where they would not pay; the result is the same for any
// number.
//
// Slices too short for their shapes and strides panic.
func Float32(workers int, transA, transB bool, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
	multiply(&set32, workers, m, n, k, alpha, operand("A", m, k, a, lda, transA), operand("B", k, n, b, ldb, transB), beta, c, ldc)
}

// Float64 is Float32 for float64 matrices.
func Float64(workers int, transA, transB bool, m, n, k int, alpha float64, a []float64, lda int, b []float64, ldb int, beta float64, c []float64, ldc int) {
	multiply(&set64, workers, m, n, k, alpha, operand("A", m, k, a, lda, transA), operand("B", k, n, b, ldb, transB), beta, c, ldc)
}

// Kernel names the kernels in use: "avx512", "avx2" or "go".
func Kernel() string { return set64.kernel.name }
