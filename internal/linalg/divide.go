package linalg

import (
	"context"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/lapack"
	lapackgonum "gonum.org/v1/gonum/lapack/gonum"

	"github.com/lowrank-go/lowrank/internal/gemm"
	"github.com/lowrank-go/lowrank/internal/parallel"
)

// epsilon is the unit roundoff.
const epsilon = 0x1p-53

// leafSize is the order of tridiagonal matrices that are not divided further.
const leafSize = 16

// divide is a symmetric tridiagonal matrix, diagonal d and off-diagonal e, whose
// eigenvectors become the rows of z. The matrix is torn in two by a change of
// rank one; the eigenvalues of the whole are the roots of a secular equation in
// those of the halves. It costs up to 4n³/3 operations, in matrix products, and
// less the more eigenvalues deflate.
//
// Cuppen, Numer. Math. 36 (1981); Gu and Eisenstat, SIAM J. Matrix Anal. Appl.
// 16 (1995); Rutter, LAPACK Working Note 69 (1994).
type divide struct {
	ctx        context.Context
	workers, n int
	d, e, z    []float64
	// Scratch: each part works in rows of its own.
	old, roots, fresh []float64
}

func (t *divide) solve(lo, hi int) error {
	if hi-lo <= leafSize {
		return t.leaf(lo, hi)
	}
	mid := (lo + hi) / 2
	rho := t.e[mid-1]
	t.d[mid-1] -= math.Abs(rho)
	t.d[mid] -= math.Abs(rho)
	workers := t.workers
	if hi-lo < 128 {
		workers = 1
	}
	var errs [2]error
	parallel.For(workers, 2, func(i int) {
		if i == 0 {
			errs[0] = t.solve(lo, mid)
		} else {
			errs[1] = t.solve(mid, hi)
		}
	})
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	if t.ctx.Err() != nil {
		return context.Cause(t.ctx)
	}
	return t.merge(lo, mid, hi, rho)
}

// leaf solves a small part by implicit QL iterations.
func (t *divide) leaf(lo, hi int) error {
	n := hi - lo
	var q, work [leafSize * leafSize]float64
	var e [leafSize]float64
	copy(e[:n-1], t.e[lo:])
	if !(lapackgonum.Implementation{}).Dsteqr(lapack.EVTridiag, n, t.d[lo:hi], e[:max(n-1, 0)], q[:n*n], n, work[:max(1, 2*n-2)]) {
		return fmt.Errorf("linalg: the eigenvalues of a tridiagonal %d×%d matrix did not converge", n, n)
	}
	for i := range n {
		row := t.z[(lo+i)*t.n:]
		for j := range n {
			row[lo+j] = q[j*n+i]
		}
	}
	return nil
}

// Kinds of eigenvectors of the halves: of the first, of both after a rotation,
// of the second.
const (
	first = iota
	both
	second
	kinds
)

// merge joins the parts [lo, mid) and [mid, hi): the eigenvalues of
// D + rho·u·uᵀ, where D are those of the parts.
func (t *divide) merge(lo, mid, hi int, rho float64) error {
	n, ld := hi-lo, t.n
	d := t.d[lo:hi]
	row := func(i int) []float64 { return t.z[(lo+i)*ld+lo : (lo+i)*ld+hi] }
	// u is the last row of the first part's eigenvectors beside the first row of
	// the second's, of norm 1.
	u := make([]float64, n)
	sign := math.Copysign(math.Sqrt2/2, rho)
	for i := range u {
		if i < mid-lo {
			u[i] = row(i)[mid-lo-1] * math.Sqrt2 / 2
		} else {
			u[i] = row(i)[mid-lo] * sign
		}
	}
	rho = 2 * math.Abs(rho)

	// The eigenvalues of both parts in increasing order.
	order := make([]int, 0, n)
	for i, j := 0, mid-lo; len(order) < n; {
		if j == n || i < mid-lo && d[i] <= d[j] {
			order = append(order, i)
			i++
		} else {
			order = append(order, j)
			j++
		}
	}

	// Deflation: where u has no part in an eigenvector of D, it stays one; of two
	// that belong to close eigenvalues, a rotation makes one such.
	kind := make([]int, n)
	for i := mid - lo; i < n; i++ {
		kind[i] = second
	}
	kept, deflated := make([]int, 0, n), make([]int, 0, n)
	tol := 8 * epsilon * max(largestOf(d), largestOf(u))
	last := -1
	for _, j := range order {
		if rho*math.Abs(u[j]) <= tol {
			deflated = append(deflated, j)
			continue
		}
		if last >= 0 {
			tau := math.Hypot(u[j], u[last])
			c, s := u[j]/tau, -u[last]/tau
			if gap := d[j] - d[last]; math.Abs(gap*c*s) <= tol {
				u[j], u[last] = tau, 0
				if kind[j] != kind[last] {
					kind[j] = both
				}
				rotate(row(last), row(j), c, s)
				d[last], d[j] = d[last]*c*c+d[j]*s*s, d[last]*s*s+d[j]*c*c
				deflated = append(deflated, last)
			} else {
				kept = append(kept, last)
			}
		}
		last = j
	}
	if last >= 0 {
		kept = append(kept, last)
	}

	// The kept vectors move out, by kinds, so that products skip the zeros of
	// their halves; the deflated ones follow.
	k := len(kept)
	old := t.old[lo*ld : lo*ld+n*n]
	var count [kinds]int
	for _, i := range kept {
		count[kind[i]]++
	}
	place := make([]int, k) // of the kept ones
	next := [kinds]int{0, count[first], count[first] + count[both]}
	for p, i := range kept {
		place[p] = next[kind[i]]
		next[kind[i]]++
		copy(old[place[p]*n:], row(i))
	}
	values := make([]float64, n)
	for p, i := range deflated {
		copy(old[(k+p)*n:], row(i))
		values[k+p] = d[i]
	}

	if k > 0 {
		poles, z := make([]float64, k), make([]float64, k)
		var square float64
		for p, i := range kept {
			poles[p], z[p] = d[i], u[i]
			square += u[i] * u[i]
		}
		norm := math.Sqrt(square)
		for p := range z {
			z[p] /= norm
		}
		s := secular{workers: t.workers, poles: poles, z: z, rho: rho * square, vectors: t.roots[lo*ld : lo*ld+k*k]}
		if err := s.solve(values[:k], place); err != nil {
			return err
		}
	}

	// The vectors of the whole, in t.fresh, then in order of eigenvalues in t.z.
	fresh := t.fresh[lo*ld : lo*ld+n*n]
	roots := t.roots[lo*ld:]
	half := mid - lo
	top, bottom := count[first]+count[both], count[both]+count[second]
	gemm.Float64(t.workers, false, false, k, half, top, 1, roots, max(k, 1), old, n, 0, fresh, n)
	if k > 0 {
		gemm.Float64(t.workers, false, false, k, n-half, bottom, 1, roots[count[first]:], k, old[count[first]*n+half:], n, 0, fresh[half:], n)
	}
	order = order[:0]
	for i := range n {
		order = append(order, i)
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case values[a] < values[b]:
			return -1
		case values[a] > values[b]:
			return 1
		}
		return 0
	})
	for i, p := range order {
		d[i] = values[p]
		if p < k {
			copy(row(i), fresh[p*n:(p+1)*n])
		} else {
			copy(row(i), old[p*n:(p+1)*n])
		}
	}
	return nil
}

func largestOf(v []float64) float64 {
	m := 0.0
	for _, x := range v {
		m = max(m, math.Abs(x))
	}
	return m
}

func rotate(x, y []float64, c, s float64) {
	for i, a := range x {
		b := y[i]
		x[i], y[i] = c*a+s*b, c*b-s*a
	}
}
