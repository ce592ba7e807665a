// Package cpd computes canonical polyadic decompositions (CP, PARAFAC, CANDECOMP),
//
//	X ≈ Σ_r λ_r · u_{1,r} ∘ u_{2,r} ∘ … ∘ u_{N,r}   (Hitchcock 1927; Carroll and Chang 1970; Harshman 1970)
//
// a [Kruskal] tensor: weights λ and a factor for each mode whose columns belong
// to the R components. It has R·ΣI_n numbers, fewer than any other format at
// the same rank, and its components are unique under mild conditions, which no
// Tucker decomposition's are. Tensors may have any order from 2 on.
//
// # Which function
//
//   - [ALS], alternating least squares, for most tensors. A sweep costs two products
//     of the tensor with R columns, whatever the order, by a dimension tree, and never
//     forms the Khatri-Rao product of more than half of the modes. Where the rank is
//     well below the dimensions, a small core is fitted first.
//   - [LM], Levenberg-Marquardt, where ALS crawls: collinear components and high
//     accuracy. Its iterations cost a few sweeps each, and it needs tens where ALS
//     needs thousands.
//   - [ALSSparse] for lists of entries, in time proportional to them; others are zero
//     or, for data with holes, unknown.
//
// [Settings] has starts, limits on sweeps, time and error, non-negative modes, weights
// for the entries of a dense tensor, and a ridge. The zero value is a good beginning.
//
// # Reading the result
//
// Result.Errors is the relative error after each sweep and never rises. [Score] and
// [Congruence] compare two decompositions, whatever the order, signs and scales of
// their components: run two seeds, and if they disagree the rank is too high or the
// fit has not ended. Tensors are read from files with model.ReadFile, and factors
// written with model/factors.PutKruskal.
//
// # Pitfalls
//
// A best approximation of rank R need not exist. ALS then finds components that grow
// without bound and cancel each other; Result.Intensity against the squared norm of
// X, and Result.Sensitivity, tell. Such factors cannot be rounded or fine-tuned: a
// lower rank, Settings.Ridge, non-negative modes or package stability help.
//
// A rank above what the tensor carries is no error: the surplus components are small
// or share what there is. Plateaus are common; several starts are the cure.
package cpd
