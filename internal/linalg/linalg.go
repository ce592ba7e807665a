// Package linalg holds the dense factorisations that the decompositions lean
// on, in float64 and row-major.
package linalg

import (
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
)

// ErrNotFinite is wrapped by errors about matrices with NaN or infinities.
var ErrNotFinite = errors.New("linalg: not finite")

// EigenSym computes the eigenvalues of the symmetric n×n matrix a, rising, into
// w and, where z is not nil, orthonormal eigenvectors into the columns of z. Of
// a, whose rows are lda apart, the lower triangle is read; it may be destroyed.
func EigenSym(_, n int, a []float64, lda int, w, z []float64, ldz int) error {
	if n == 0 {
		return nil
	}
	s := mat.NewSymDense(n, nil)
	for i := range n {
		for j := range i + 1 {
			v := a[i*lda+j]
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return fmt.Errorf("%w: element %d,%d is %g", ErrNotFinite, i, j, v)
			}
			s.SetSym(i, j, v)
		}
	}
	var e mat.EigenSym
	if !e.Factorize(s, z != nil) {
		return fmt.Errorf("linalg: the eigenvalues of a %d×%d matrix did not converge", n, n)
	}
	e.Values(w[:n])
	if z != nil {
		var v mat.Dense
		e.VectorsTo(&v)
		for i := range n {
			copy(z[i*ldz:i*ldz+n], v.RawRowView(i))
		}
	}
	return nil
}
