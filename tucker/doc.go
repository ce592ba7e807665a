// Package tucker computes Tucker decompositions of dense tensors: a core and an
// orthonormal factor for each mode that is compressed,
//
//	X ≈ G ×₁ U₁ ×₂ U₂ … ×_N U_N   (Tucker 1966; De Lathauwer et al. 2000)
//
// Use it where a tensor has modes with few independent directions. It always
// exists, is stable, and costs a Gram matrix and a symmetric eigen-problem a
// mode; the core grows with the product of the ranks, so for many modes and
// large ranks the canonical polyadic decomposition (package cpd) is smaller.
//
//   - [HOSVD] truncates the higher-order singular value decomposition: one
//     eigen-problem a mode, an error at most √N times the best.
//
//   - [STHOSVD] truncates one mode after another: cheaper, and as good a bound.
//
//   - [HOOI] starts from HOSVD and alternates over the modes (De Lathauwer, De Moor
//     and Vandewalle 2000b); its error never rises from sweep to sweep.
//
//   - [NonNegative] keeps core and factors from falling below zero, for data that are
//     amounts.
//
// Each is partial where Settings.Modes names some modes only: Tucker-2 over
// the channel modes of a convolution kernel is Modes {0, 1}. Ranks are given,
// found by variational Bayes, or chosen with the fewest parameters that keep a
// relative error or a share of the energy.
//
// Nothing larger than the tensor and I_n×I_n is ever formed.
package tucker
