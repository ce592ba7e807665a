package linalg

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas"
	lapackgonum "gonum.org/v1/gonum/lapack/gonum"

	"github.com/lowrank-go/lowrank/internal/gemm"
)

// SingularValues writes the singular values of the m×n matrix a, falling, to s,
// min(m, n) of them. Rows of a are lda apart; it is not changed. With m the
// larger dimension it costs 2mn² + 2n³ operations.
//
// The matrix is reduced to triangular form where it is much longer than wide,
// then to bidiagonal form, whose singular values are found by dqds.
func SingularValues(workers, m, n int, a []float64, lda int, s []float64) error {
	if m == 0 || n == 0 {
		return nil
	}
	top := 0.0
	for i := range m {
		for j, v := range a[i*lda : i*lda+n] {
			if v-v != 0 {
				return fmt.Errorf("%w: element %d,%d is %g", ErrNotFinite, i, j, v)
			}
			top = max(top, math.Abs(v))
		}
	}
	scale := 1.0
	if top > 0 {
		_, exp := math.Frexp(top)
		scale = math.Ldexp(1, min(max(exp, -1021), 1022))
	}
	// A working copy, the longer side down, rows padded.
	var b bidiagonal
	if m >= n {
		b.ld = up8(n)
		b.a = make([]float64, up8(m)*b.ld)
		for i := range m {
			copy(b.a[i*b.ld:], a[i*lda:i*lda+n])
		}
	} else {
		b.ld = up8(m)
		b.a = make([]float64, up8(n)*b.ld)
		Transpose(workers, m, n, a, lda, b.a, b.ld)
		m, n = n, m
	}
	inverse := 1 / scale
	for i := range b.a {
		b.a[i] *= inverse
	}
	if 5*m > 8*n {
		f := householder{workers: workers, m: m, n: n, ld: up8(m)}
		f.factorise(b.a, b.ld)
		for i := range n {
			clear(b.a[i*b.ld : i*b.ld+i])
		}
		m = n
		clear(b.a[m*b.ld : up8(m)*b.ld])
	}
	b.workers, b.m, b.n = workers, m, n
	b.reduce()
	work := make([]float64, 4*n)
	if !(lapackgonum.Implementation{}).Dbdsqr(blas.Upper, n, 0, 0, 0, b.d, b.e, nil, 1, nil, 1, nil, 1, work) {
		return fmt.Errorf("linalg: the singular values of a %d×%d matrix did not converge", m, n)
	}
	for i, v := range b.d {
		s[i] = v * scale
	}
	return nil
}

// bidiagonal is an m×n matrix, m ≥ n, on its way to an upper bidiagonal one with
// diagonal d and e beside it. Rows are padded to ld, and their number to a
// multiple of eight, with zeros.
type bidiagonal struct {
	workers, m, n, ld int
	a, d, e           []float64
}

// reduce takes 4mn² − 4n³/3 operations, half of them in matrix-vector products.
// The vectors of the reflectors are not kept.
//
// Dongarra, Sorensen and Hammarling (1989), section 4.
func (b *bidiagonal) reduce() {
	const nb = panelColumns
	m, n, ld, lm := b.m, b.n, b.ld, up8(b.m)
	b.d, b.e = make([]float64, n), make([]float64, max(n-1, 0))
	// A − uᵀ·y − xᵀ·v is the matrix brought up to date; a vector a row.
	left, right := make([]float64, 2*nb*lm), make([]float64, 2*nb*ld)
	u, x := left[:nb*lm], left[nb*lm:]
	y, v := right[:nb*ld], right[nb*ld:]
	column := make([]float64, lm)
	var fu, fx [nb]float64
	for j0 := 0; j0 < n; j0 += nb {
		j1 := min(j0+nb, n)
		clear(left)
		clear(right)
		from := j0 // a multiple of eight
		for k := range j1 - j0 {
			i := j0 + k
			// Column i.
			for r := i; r < m; r++ {
				column[r] = b.a[r*ld+i]
			}
			clear(column[:i])
			gather(k, fu[:], y, ld, i)
			gather(k, fx[:], v, ld, i)
			allAxpys(k, lm-from, fu[:], u[from:], lm, column[from:])
			allAxpys(k, lm-from, fx[:], x[from:], lm, column[from:])
			uk, yk := u[k*lm:(k+1)*lm], y[k*ld:(k+1)*ld]
			copy(uk[i:], column[i:m])
			beta, tau := reflector(uk[i:m])
			b.d[i] = beta
			if i+1 == n {
				break
			}
			if tau != 0 {
				// y = tau·(Aᵀ·u − yᵀ·(u·u) − vᵀ·(x·u)).
				allAxpys(m-from, ld-from, uk[from:], b.a[from*ld+from:], ld, yk[from:])
				negatives(k, fu[:], lm-from, u[from:], lm, uk[from:])
				negatives(k, fx[:], lm-from, x[from:], lm, uk[from:])
				allAxpys(k, ld-from, fu[:], y[from:], ld, yk[from:])
				allAxpys(k, ld-from, fx[:], v[from:], ld, yk[from:])
				for c := i + 1; c < n; c++ {
					yk[c] *= tau
				}
			}
			clear(yk[:i+1])
			// Row i, behind the diagonal.
			row := b.a[i*ld : (i+1)*ld]
			gather(k+1, fu[:], u, lm, i)
			gather(k, fx[:], x, lm, i)
			allAxpys(k+1, ld-from, fu[:], y[from:], ld, row[from:])
			allAxpys(k, ld-from, fx[:], v[from:], ld, row[from:])
			vk, xk := v[k*ld:(k+1)*ld], x[k*lm:(k+1)*lm]
			copy(vk[i+1:], row[i+1:n])
			beta, tau = reflector(vk[i+1 : n])
			b.e[i] = beta
			if tau == 0 {
				continue
			}
			// x = tau·(A·v − uᵀ·(y·v) − xᵀ·(v·v)).
			allDots(lm-from, ld-from, b.a[from*ld+from:], ld, vk[from:], xk[from:])
			negatives(k+1, fu[:], ld-from, y[from:], ld, vk[from:])
			negatives(k, fx[:], ld-from, v[from:], ld, vk[from:])
			allAxpys(k+1, lm-from, fu[:], u[from:], lm, xk[from:])
			allAxpys(k, lm-from, fx[:], x[from:], lm, xk[from:])
			for c := i + 1; c < m; c++ {
				xk[c] *= tau
			}
			clear(xk[:i+1])
		}
		if j1 < n {
			gemm.Float64(b.workers, true, false, m-j1, n-j1, 2*nb, -1, left[j1:], lm, right[j1:], ld, 1, b.a[j1*ld+j1:], ld)
		}
	}
}

// gather fills factors with minus column i of the first k rows, then zeros.
func gather(k int, factors, rows []float64, ld, i int) {
	clear(factors)
	for r := range k {
		factors[r] = -rows[r*ld+i]
	}
}

// negatives fills factors with minus the products of the first k rows with x,
// then zeros.
func negatives(k int, factors []float64, n int, rows []float64, ld int, x []float64) {
	allDots(k, n, rows, ld, x, factors)
	for r := range factors {
		if r < k {
			factors[r] = -factors[r]
		} else {
			factors[r] = 0
		}
	}
}
