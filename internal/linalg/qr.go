package linalg

import "github.com/lowrank-go/lowrank/internal/gemm"

// QR factorises the m×n matrix A = Q·R, m ≥ n, Q with orthonormal columns and R
// upper triangular. Rows of a are lda apart; it is destroyed. Q, m×n, is written
// to q and R, with zeros below the diagonal, to r, where they are not nil. Q is
// orthonormal whatever the rank of A. It costs 2mn² − 2n³/3 operations, and as
// much again for Q. It panics if m < n.
//
// Elements whose squares are below about 1e-280 count as zeros.
//
// Schreiber and Van Loan, SIAM J. Sci. Stat. Comput. 10 (1989).
func QR(workers, m, n int, a []float64, lda int, q []float64, ldq int, r []float64, ldr int) {
	if m < n {
		panic("linalg: QR of a matrix with fewer rows than columns")
	}
	if n == 0 {
		return
	}
	f := householder{workers: workers, m: m, n: n, ld: up8(m)}
	f.factorise(a, lda)
	if r != nil {
		for i := range n {
			clear(r[i*ldr : i*ldr+i])
			copy(r[i*ldr+i:i*ldr+n], a[i*lda+i:])
		}
	}
	if q != nil {
		f.thin(q, ldq)
	}
}

// householder is the orthogonal factor of an m×n matrix as n reflectors.
type householder struct {
	workers, m, n, ld int
	v                 []float64 // a reflector's vector a row, rows ld apart
	t                 []float64 // triangles of panelColumns rows, one a panel
}

// panel is the number of the panel's columns, which begin at j0, its vectors from
// element j0 on, and its triangle, rows panelColumns apart.
func (h *householder) panel(j0 int) (k int, v, t []float64) {
	const nb = panelColumns
	return min(nb, h.n-j0), h.v[j0*h.ld+j0:], h.t[j0*nb:]
}

// factorise leaves R in the upper triangle of a.
func (h *householder) factorise(a []float64, lda int) {
	const nb = panelColumns
	m, n, ld := h.m, h.n, h.ld
	// Rows beyond n, for kernels that take four at a time, stay zero.
	h.v = make([]float64, (n+4)*ld)
	h.t = make([]float64, (n+nb-1)/nb*nb*nb)
	var s, f [nb]float64
	column := make([]float64, nb*ld)
	w := make([]float64, nb*n)
	for j0 := 0; j0 < n; j0 += nb {
		k, v, t := h.panel(j0)
		length := ld - j0
		// The panel's columns as rows.
		Transpose(1, m-j0, k, a[j0*lda+j0:], lda, column, ld)
		for j := range k {
			i := j0 + j // of the diagonal element
			x := column[j*ld : j*ld+length]
			clear(x[m-j0:])
			// The reflectors so far: x −= vᵀ·Tᵀ·(v·x).
			allDots(j, length, v, ld, x, s[:])
			for p := range j {
				var sum float64
				for q := range p + 1 {
					sum += t[q*nb+p] * s[q]
				}
				f[p] = -sum
			}
			clear(f[j:])
			allAxpys(j, length, f[:], v, ld, x)
			for p := j0; p < i; p++ {
				a[p*lda+i] = x[p-j0]
			}
			y := v[j*ld : j*ld+length]
			copy(y[i-j0:], x[i-j0:])
			beta, tau := reflector(y[i-j0 : m-j0])
			a[i*lda+i] = beta
			// T's new column is −tau·T·(v·y).
			allDots(j, length, v, ld, y, s[:])
			for p := range j {
				var sum float64
				for q := p; q < j; q++ {
					sum += t[p*nb+q] * s[q]
				}
				t[p*nb+j] = -tau * sum
			}
			t[j*nb+j] = tau
		}
		h.apply(true, j0, n-j0-k, a[j0+k:], lda, w)
	}
}

// apply multiplies the matrix c, m rows and cols columns, with the product of a
// panel's reflectors, or its transpose with trans. w is scratch.
func (h *householder) apply(trans bool, j0, cols int, c []float64, ldc int, w []float64) {
	if cols == 0 {
		return
	}
	const nb = panelColumns
	k, v, t := h.panel(j0)
	rows := h.m - j0
	tw := make([]float64, nb*cols)
	gemm.Float64(h.workers, false, false, k, cols, rows, 1, v, h.ld, c[j0*ldc:], ldc, 0, w, cols)
	gemm.Float64(h.workers, trans, false, k, cols, k, 1, t, nb, w, cols, 0, tw, cols)
	gemm.Float64(h.workers, true, false, rows, cols, k, -1, v, h.ld, tw, cols, 1, c[j0*ldc:], ldc)
}

// thin writes the first n columns of the orthogonal factor.
func (h *householder) thin(q []float64, ldq int) {
	const nb = panelColumns
	for i := range h.m {
		clear(q[i*ldq : i*ldq+h.n])
		if i < h.n {
			q[i*ldq+i] = 1
		}
	}
	w := make([]float64, nb*h.n)
	for j0 := (h.n - 1) / nb * nb; j0 >= 0; j0 -= nb {
		// Columns before the panel are still those of the identity.
		h.apply(false, j0, h.n-j0, q[j0:], ldq, w)
	}
}
