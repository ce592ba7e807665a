package linalg

import (
	"context"
	"math"

	"github.com/lowrank-go/lowrank/internal/gemm"
)

// symmetric is a symmetric matrix on its way through the eigen-solver. Rows are
// padded with zeros to ld, a multiple of eight; of a, the upper triangle and the
// 8×8 blocks on the diagonal count.
//
// After tridiagonalise, row i holds from element i+1 on the vector v of the
// reflector H_i = I − tau_i·v·vᵀ, with a one in front, and A = Q·T·Qᵀ with
// Q = H_0·H_1⋯H_{n−2}.
type symmetric struct {
	ctx            context.Context
	workers, n, ld int
	a              []float64
	scale          float64 // A times scale is the matrix that was given
	d, e, tau      []float64
}

// panelColumns is the number of columns that are reduced before the rest of the
// matrix is brought up to date by a matrix product.
const panelColumns = 32

// tridiagonalise reduces the matrix to tridiagonal form, diagonal d and
// off-diagonal e, by 4n³/3 operations, half of them in matrix-vector products.
//
// Dongarra, Sorensen and Hammarling, "Block reduction of matrices to condensed
// forms", J. Comput. Appl. Math. 27 (1989), section 3.
func (s *symmetric) tridiagonalise() error {
	const nb = panelColumns
	n, ld := s.n, s.ld
	// Rows 0 to nb−1 of p are v, rows nb to 2nb−1 are w, such that
	// A − v·wᵀ − w·vᵀ is the matrix brought up to date; q has them the other way
	// round.
	p, q := make([]float64, 2*nb*ld), make([]float64, 2*nb*ld)
	v, w := p[:nb*ld], p[nb*ld:]
	var cv, cw [nb]float64
	var sums [8]float64
	for j0 := 0; j0 < n; j0 += nb {
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		j1 := min(j0+nb, n)
		clear(p)
		for k := range j1 - j0 {
			i := j0 + k
			row := s.a[i*ld : (i+1)*ld]
			from := down8(i)
			for r := range k {
				cv[r], cw[r] = -v[r*ld+i], -w[r*ld+i]
			}
			allAxpys(k, ld-from, cw[:], v[from:], ld, row[from:])
			allAxpys(k, ld-from, cv[:], w[from:], ld, row[from:])
			s.d[i] = row[i]
			if i == n-1 {
				break
			}
			s.e[i], s.tau[i] = reflector(row[i+1 : n])
			vk, wk := v[k*ld:(k+1)*ld], w[k*ld:(k+1)*ld]
			copy(vk[i+1:], row[i+1:n])
			if s.tau[i] == 0 {
				continue
			}
			// w = tau·(A·v − v·(wᵀv) − w·(vᵀv)), less its half along v.
			from = down8(i + 1)
			for r := from; r < ld; r += kern.lanes {
				kern.symv(ld-r, s.a[r*ld+r:], ld, vk[r:], wk[r:], sums[:])
				for l, sum := range sums[:kern.lanes] {
					wk[r+l] += sum
				}
			}
			allDots(k, ld-from, w[from:], ld, vk[from:], cw[:])
			allDots(k, ld-from, v[from:], ld, vk[from:], cv[:])
			for r := range k {
				cv[r], cw[r] = -cv[r], -cw[r]
			}
			clear(cv[k:])
			clear(cw[k:])
			allAxpys(k, ld-from, cw[:], v[from:], ld, wk[from:])
			allAxpys(k, ld-from, cv[:], w[from:], ld, wk[from:])
			clear(wk[:i+1])
			var inner float64
			for c := i + 1; c < n; c++ {
				wk[c] *= s.tau[i]
				inner += wk[c] * vk[c]
			}
			inner *= -s.tau[i] / 2
			for c := i + 1; c < n; c++ {
				wk[c] += inner * vk[c]
			}
		}
		if j1 < n {
			copy(q, w)
			copy(q[nb*ld:], v)
			update(s.workers, ld-j1, 2*nb, p[j1:], q[j1:], ld, s.a[j1*ld+j1:], ld)
		}
	}
	return nil
}

// reflector makes of x the vector v, its first element 1, of a Householder
// reflector I − tau·v·vᵀ that takes x to (beta, 0, …, 0). Elements so small that
// their squares lose digits count as zeros behind the first; x is expected to be
// scaled.
func reflector(x []float64) (beta, tau float64) {
	var square float64
	for _, v := range x[1:] {
		square += v * v
	}
	alpha := x[0]
	x[0] = 1
	if square < 1e-280 {
		clear(x[1:])
		return alpha, 0
	}
	beta = -math.Copysign(math.Sqrt(alpha*alpha+square), alpha)
	scale := 1 / (alpha - beta)
	for i := range x[1:] {
		x[1+i] *= scale
	}
	return beta, (beta - alpha) / beta
}

// blockColumns is the number of reflectors that are applied at once.
const blockColumns = 64

// back applies Q to r vectors, the rows of z: z becomes z·Qᵀ.
func (s *symmetric) back(r int, z []float64, ldz int) {
	const nb = blockColumns
	n, ld := s.n, s.ld
	v, tv := make([]float64, nb*ld), make([]float64, nb*ld)
	t, g := make([]float64, nb*nb), make([]float64, nb*nb)
	w := make([]float64, r*nb)
	for j0 := (n - 2) / nb * nb; j0 >= 0; j0 -= nb {
		k := min(nb, n-1-j0)
		length := n - j0 - 1
		for i := range k {
			clear(v[i*ld : i*ld+i])
			copy(v[i*ld+i:i*ld+length], s.a[(j0+i)*ld+j0+i+1:])
		}
		triangle(s.workers, k, length, v, ld, s.tau[j0:], t, g)
		gemm.Float64(s.workers, true, false, k, length, k, 1, t, nb, v, ld, 0, tv, ld)
		x := z[j0+1:]
		gemm.Float64(s.workers, false, true, r, k, length, 1, x, ldz, v, ld, 0, w, nb)
		gemm.Float64(s.workers, false, false, r, length, k, -1, w, nb, tv, ld, 1, x, ldz)
	}
}

// triangle computes the upper triangular T, k×k, for which the product of the
// reflectors with the vectors v, k rows, is I − vᵀ·T·v. Rows of t are
// blockColumns apart; what lies below its diagonal is zero. g is scratch.
//
// Schreiber and Van Loan, SIAM J. Sci. Stat. Comput. 10 (1989).
func triangle(workers, k, length int, v []float64, ld int, tau, t, g []float64) {
	const nb = blockColumns
	gemm.Gram64(workers, false, k, length, 1, v, ld, 0, g, nb)
	clear(t)
	for j := range k {
		t[j*nb+j] = tau[j]
		for i := range j {
			var sum float64
			for p := i; p < j; p++ {
				sum += t[i*nb+p] * g[p*nb+j]
			}
			t[i*nb+j] = -tau[j] * sum
		}
	}
}
