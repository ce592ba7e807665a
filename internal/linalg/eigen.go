package linalg

import (
	"context"
	"fmt"
	"math"
	"slices"

	lapackgonum "gonum.org/v1/gonum/lapack/gonum"
)

// EigenSym computes the eigenvalues of the symmetric n×n matrix a, rising, into
// w and, where z is not nil, orthonormal eigenvectors into the columns of z. Of
// a, whose rows are lda apart, the lower triangle is read. It costs about
// 4n³ operations with vectors and 4n³/3 without.
//
// The matrix is reduced to tridiagonal form, which is solved by divide and
// conquer, or by QR iterations where only eigenvalues are wanted.
func EigenSym(workers, n int, a []float64, lda int, w, z []float64, ldz int) error {
	return EigenSymContext(context.Background(), workers, n, a, lda, w, z, ldz)
}

// EigenSymContext is EigenSym that ends with the context's error soon after that is
// done, every few thousandths of its work.
func EigenSymContext(ctx context.Context, workers, n int, a []float64, lda int, w, z []float64, ldz int) error {
	s, err := newSymmetric(ctx, workers, n, a, lda)
	if err != nil || n == 0 {
		return err
	}
	if z == nil {
		return s.values(w)
	}
	rows, err := s.vectors(w)
	if err != nil {
		return err
	}
	s.back(n, rows, n)
	Transpose(workers, n, n, rows, n, z, ldz)
	return nil
}

// EigenTop is EigenSym for the eigenvectors of the largest eigenvalues alone: as
// many as count asks for, which is given all eigenvalues, falling; fewer than 0
// count as none, more than n as n. They are the columns of the result, n×r, in
// falling order of eigenvalues, and w is falling too. Of the work, 2n³ operations
// are only done for r of the n vectors.
func EigenTop(workers, n int, a []float64, lda int, w []float64, count func(w []float64) int) (z []float64, r int, err error) {
	return EigenTopContext(context.Background(), workers, n, a, lda, w, count)
}

// EigenTopContext is to EigenTop what EigenSymContext is to EigenSym.
func EigenTopContext(ctx context.Context, workers, n int, a []float64, lda int, w []float64, count func(w []float64) int) (z []float64, r int, err error) {
	s, err := newSymmetric(ctx, workers, n, a, lda)
	if err != nil || n == 0 {
		return nil, 0, err
	}
	rows, err := s.vectors(w)
	if err != nil {
		return nil, 0, err
	}
	slices.Reverse(w[:n])
	r = min(max(count(w[:n]), 0), n)
	if r == 0 {
		return nil, 0, nil
	}
	top := make([]float64, r*n)
	for i := range r {
		copy(top[i*n:(i+1)*n], rows[(n-1-i)*n:])
	}
	s.back(r, top, n)
	z = make([]float64, n*r)
	Transpose(workers, r, n, top, n, z, r)
	return z, r, nil
}

// newSymmetric copies the lower triangle of a, scaled by a power of two so that
// its largest element is between 1/2 and 1.
func newSymmetric(ctx context.Context, workers, n int, a []float64, lda int) (*symmetric, error) {
	s := &symmetric{ctx: ctx, workers: workers, n: n, ld: up8(n), scale: 1}
	top := 0.0
	for i := range n {
		for j, v := range a[i*lda : i*lda+i+1] {
			if v-v != 0 {
				return nil, fmt.Errorf("%w: element %d,%d is %g", ErrNotFinite, i, j, v)
			}
			top = max(top, math.Abs(v))
		}
	}
	if top > 0 {
		_, exp := math.Frexp(top)
		// The scale itself and its reciprocal must be finite.
		s.scale = math.Ldexp(1, min(max(exp, -1021), 1022))
	}
	inverse := 1 / s.scale
	s.a = make([]float64, s.ld*s.ld)
	for i := range n {
		row := a[i*lda : i*lda+i+1]
		for j, v := range row {
			s.a[j*s.ld+i] = v * inverse
		}
		for j := down8(i); j < i; j++ {
			s.a[i*s.ld+j] = row[j] * inverse
		}
	}
	s.d, s.e, s.tau = make([]float64, n), make([]float64, max(n-1, 0)), make([]float64, max(n-1, 0))
	if n > 0 {
		if err := s.tridiagonalise(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// values writes the eigenvalues, rising, to w.
func (s *symmetric) values(w []float64) error {
	if !(lapackgonum.Implementation{}).Dsterf(s.n, s.d, s.e) {
		return fmt.Errorf("linalg: the eigenvalues of a %d×%d matrix did not converge", s.n, s.n)
	}
	for i, v := range s.d {
		w[i] = v * s.scale
	}
	return nil
}

// vectors writes the eigenvalues, rising, to w and returns the eigenvectors of
// the tridiagonal matrix, n rows.
func (s *symmetric) vectors(w []float64) ([]float64, error) {
	n := s.n
	// Deflation goes by absolute size: the largest element shall be about 1.
	_, exp := math.Frexp(max(largestOf(s.d), largestOf(s.e)))
	for i := range s.d {
		s.d[i] = math.Ldexp(s.d[i], -exp)
	}
	for i := range s.e {
		s.e[i] = math.Ldexp(s.e[i], -exp)
	}
	t := divide{ctx: s.ctx, workers: s.workers, n: n, d: s.d, e: s.e, z: make([]float64, n*n)}
	if n > leafSize {
		t.old, t.roots, t.fresh = make([]float64, n*n), make([]float64, n*n), make([]float64, n*n)
	}
	if err := t.solve(0, n); err != nil {
		return nil, err
	}
	for i, v := range s.d {
		w[i] = math.Ldexp(v, exp) * s.scale
	}
	return t.z, nil
}
