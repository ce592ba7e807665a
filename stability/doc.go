// Package stability makes canonical polyadic decompositions usable: it measures how
// much the components of a fit cancel each other, and removes that at hardly any
// cost in accuracy.
//
// Where a tensor has no best approximation of some rank, and for convolution kernels
// that is the rule, alternating least squares lowers the error by components that
// grow and cancel. Such factors cannot be rounded, quantised or fine-tuned: a small
// change of a factor changes the tensor much. Two numbers tell (methods of
// [cpd.Kruskal]):
//
//   - the sensitivity, the expected squared error for each unit of variance of noise
//     on the factors' entries: what rounding to fixed steps and the noise of training
//     do;
//   - the intensity, the sum of the components' squared norms: what noise in
//     proportion to each entry, as the rounding of float16, does.
//
// [EPC] is the error-preserving correction (Phan, Tichavský and Cichocki 2019; Phan
// et al. 2020): of all decompositions of the same rank whose error is within a bound,
// one of the least sensitivity or intensity. A bound 1 to 5 % above the error of the
// fit often takes away nine tenths of the sensitivity; the bound of the fit itself
// leaves it little room. [Penalised] is the other way to the same solutions, and
// [Diagnose] tells how ill a decomposition is.
package stability
