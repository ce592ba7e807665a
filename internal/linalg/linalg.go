// Package linalg holds the dense factorisations that the decompositions lean
// on, in float64 and row-major: Cholesky and triangular solves, QR, the
// symmetric eigen-problem, singular values. They are blocked, so that most of
// their work is in matrix products (package gemm), and what is left is in
// vectorised kernels; results do not depend on the number of workers.
//
// Matrices are slices with the distance between rows beside them. Slices too
// short for their shapes panic. Accuracy is LAPACK's: residuals and the loss of
// orthogonality are a small multiple of n·2⁻⁵³ times the norm.
package linalg

import "errors"

// ErrNotFinite is wrapped by errors about matrices with NaN or infinities.
var ErrNotFinite = errors.New("linalg: not finite")
