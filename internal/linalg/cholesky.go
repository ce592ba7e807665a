package linalg

import (
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas"
	lapackgonum "gonum.org/v1/gonum/lapack/gonum"

	"github.com/lowrank-go/lowrank/internal/gemm"
	"github.com/lowrank-go/lowrank/internal/parallel"
)

// ErrNotPositive is wrapped by errors about matrices that are not positive
// definite to working precision.
var ErrNotPositive = errors.New("linalg: not positive definite")

// panelRows is the height of the panels that Cholesky and the triangular solves
// work in, and bandRows that of the bands in which triangles are updated.
const (
	panelRows = 64
	bandRows  = 64
)

// Cholesky factorises the symmetric positive definite n×n matrix A = Uᵀ·U, U
// upper triangular, in place: U overwrites the upper triangle of a, whose rows
// are lda apart; the lower is not read, and is destroyed. It costs n³/3
// operations. Where a pivot is not positive, the error wraps ErrNotPositive.
//
// Golub and Van Loan, Matrix Computations, 4th ed., section 4.2.
func Cholesky(workers, n int, a []float64, lda int) error {
	for j0 := 0; j0 < n; j0 += panelRows {
		j1 := min(j0+panelRows, n)
		if err := choleskyBlock(j1-j0, a[j0*lda+j0:], lda); err != nil {
			return fmt.Errorf("%w, of %d from row %d on", err, n, j0)
		}
		if j1 < n {
			rows := a[j0*lda:]
			SolveUpper(workers, true, j1-j0, n-j1, rows[j0:], lda, rows[j1:], lda)
			update(workers, n-j1, j1-j0, rows[j1:], rows[j1:], lda, a[j1*lda+j1:], lda)
		}
	}
	return nil
}

// choleskyBlock is Cholesky for a block on the diagonal, eight rows at a time.
func choleskyBlock(n int, a []float64, lda int) error {
	var inverse [8]float64
	for s := 0; s < n; s += 8 {
		rows := min(8, n-s)
		subtract(1, rows, n-s, s, a[s:], a[s:], lda, a[s*lda+s:], lda)
		if i := cholesky8(rows, a[s*lda+s:], lda, &inverse); i >= 0 {
			return fmt.Errorf("%w: pivot %d is %g", ErrNotPositive, s+i, a[(s+i)*lda+s+i])
		}
		if rest := n - s - 8; rest > 0 {
			solve8(true, rest, a[s*lda+s:], lda, &inverse, a[s*lda+s+8:], lda)
		}
	}
	return nil
}

// cholesky8 factorises a diagonal block and writes the reciprocals of U's
// diagonal. It returns the index of the first bad pivot, or −1.
func cholesky8(n int, a []float64, lda int, inverse *[8]float64) int {
	for i := range n {
		row := a[i*lda : i*lda+n]
		pivot := math.Sqrt(row[i])
		if !(pivot > 0) || math.IsInf(pivot, 0) {
			return i
		}
		row[i] = pivot
		inverse[i] = 1 / pivot
		for c := i + 1; c < n; c++ {
			row[c] *= inverse[i]
		}
		for j := i + 1; j < n; j++ {
			f := row[j]
			below := a[j*lda : j*lda+n]
			for c := j; c < n; c++ {
				below[c] -= f * row[c]
			}
		}
	}
	return -1
}

// subtract is C −= Pᵀ·Q for a k×m matrix P and a k×n matrix Q.
func subtract(workers, m, n, k int, p, q []float64, ld int, c []float64, ldc int) {
	if k > 0 && m > 0 && n > 0 {
		gemm.Float64(workers, true, false, m, n, k, -1, p, ld, q, ld, 1, c, ldc)
	}
}

// update is C −= Pᵀ·Q on the upper triangle of the n×n matrix C, and on blocks
// around its diagonal, where P and Q are k×n and the result is symmetric.
func update(workers, n, k int, p, q []float64, ld int, c []float64, ldc int) {
	if float64(n)*float64(n)*float64(k) < 1<<18 {
		workers = 1
	}
	parallel.For(workers, (n+bandRows-1)/bandRows, func(i int) {
		r := i * bandRows
		subtract(1, min(bandRows, n-r), n-r, k, p[r:], q[r:], ld, c[r*ldc+r:], ldc)
	})
}

// solve8 solves with an 8×8 triangle for any number of columns.
func solve8(trans bool, n int, u []float64, ldu int, inverse *[8]float64, x []float64, ldx int) {
	whole := n - n%kern.columns
	if whole > 0 {
		kern.solve(trans, whole, u, ldu, inverse[:], x, ldx)
	}
	if whole == n {
		return
	}
	var tail [8 * 16]float64
	for i := range 8 {
		copy(tail[16*i:], x[i*ldx+whole:i*ldx+n])
	}
	kern.solve(trans, kern.columns, u, ldu, inverse[:], tail[:], 16)
	for i := range 8 {
		copy(x[i*ldx+whole:i*ldx+n], tail[16*i:])
	}
}

// SolveUpper solves U·Y = X, or Uᵀ·Y = X with trans, for an upper triangular
// n×n matrix U, whose lower triangle is not read, and the n×m matrix X, in place
// of which Y is written. Rows of U are ldu, of X ldx apart. It costs n²·m
// operations. A zero on the diagonal gives infinities or NaN.
func SolveUpper(workers int, trans bool, n, m int, u []float64, ldu int, x []float64, ldx int) {
	// Wide strips share what is packed of U; each is a goroutine's.
	width := 256
	if float64(n)*float64(n)*float64(m) < 1<<19 {
		workers = 1
	}
	if w := parallel.Workers(workers); w > 1 {
		width = min(width, max((m/w+63)/64*64, 64))
	}
	parallel.For(workers, (m+width-1)/width, func(i int) {
		c := i * width
		if trans {
			solveForward(n, min(width, m-c), u, ldu, x[c:], ldx)
		} else {
			solveBack(n, min(width, m-c), u, ldu, x[c:], ldx)
		}
	})
}

// SolveCholesky solves A·Y = X with the U of [Cholesky]; see [SolveUpper].
func SolveCholesky(workers, n, m int, u []float64, ldu int, x []float64, ldx int) {
	SolveUpper(workers, true, n, m, u, ldu, x, ldx)
	SolveUpper(workers, false, n, m, u, ldu, x, ldx)
}

// Cond estimates the condition number of A in the 1-norm, which is given, from the
// U of [Cholesky], in O(n²) operations; seldom it is too small by more than a
// factor of three.
//
// Higham, ACM Trans. Math. Softw. 14 (1988).
func Cond(n int, norm float64, u []float64, ldu int) float64 {
	if n == 0 {
		return 0
	}
	return 1 / (lapackgonum.Implementation{}).Dpocon(blas.Upper, n, u, ldu, norm, make([]float64, 3*n), make([]int, n))
}

func solveForward(n, m int, u []float64, ldu int, x []float64, ldx int) {
	for j0 := 0; j0 < n; j0 += panelRows {
		j1 := min(j0+panelRows, n)
		for s := j0; s < j1; s += 8 {
			rows := min(8, n-s)
			if s > j0 {
				gemm.Float64(1, true, false, rows, m, s-j0, -1, u[j0*ldu+s:], ldu, x[j0*ldx:], ldx, 1, x[s*ldx:], ldx)
			}
			solveBlock(true, rows, m, u[s*ldu+s:], ldu, x[s*ldx:], ldx)
		}
		if j1 < n {
			gemm.Float64(1, true, false, n-j1, m, j1-j0, -1, u[j0*ldu+j1:], ldu, x[j0*ldx:], ldx, 1, x[j1*ldx:], ldx)
		}
	}
}

func solveBack(n, m int, u []float64, ldu int, x []float64, ldx int) {
	for j0 := (n - 1) / panelRows * panelRows; j0 >= 0; j0 -= panelRows {
		j1 := min(j0+panelRows, n)
		for s := j0 + (j1-j0-1)/8*8; s >= j0; s -= 8 {
			rows := min(8, n-s)
			if end := s + rows; end < j1 {
				gemm.Float64(1, false, false, rows, m, j1-end, -1, u[s*ldu+end:], ldu, x[end*ldx:], ldx, 1, x[s*ldx:], ldx)
			}
			solveBlock(false, rows, m, u[s*ldu+s:], ldu, x[s*ldx:], ldx)
		}
		if j0 > 0 {
			gemm.Float64(1, false, false, j0, m, j1-j0, -1, u[j0:], ldu, x[j0*ldx:], ldx, 1, x, ldx)
		}
	}
}

// solveBlock solves with a diagonal block of at most eight rows; a smaller one is
// completed by an identity.
func solveBlock(trans bool, rows, m int, u []float64, ldu int, x []float64, ldx int) {
	inverse := [8]float64{1, 1, 1, 1, 1, 1, 1, 1}
	for i := range rows {
		inverse[i] = 1 / u[i*ldu+i]
	}
	if rows == 8 {
		solve8(trans, m, u, ldu, &inverse, x, ldx)
		return
	}
	var block [64]float64
	for i := range rows {
		copy(block[8*i+i:8*i+rows], u[i*ldu+i:i*ldu+rows])
	}
	var tail [8 * 16]float64
	for c := 0; c < m; c += kern.columns {
		n := min(kern.columns, m-c)
		for i := range rows {
			copy(tail[16*i:16*i+n], x[i*ldx+c:])
		}
		kern.solve(trans, kern.columns, block[:], 8, inverse[:], tail[:], 16)
		for i := range rows {
			copy(x[i*ldx+c:i*ldx+c+n], tail[16*i:])
		}
	}
}
