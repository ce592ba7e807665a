// Package cpd computes canonical polyadic decompositions (CP, PARAFAC, CANDECOMP)
// of dense tensors,
//
//	X ≈ Σ_r λ_r · u_{1,r} ∘ u_{2,r} ∘ … ∘ u_{N,r}   (Hitchcock 1927; Carroll and Chang 1970; Harshman 1970)
//
// a [Kruskal] tensor: weights λ and a factor for each mode whose columns belong
// to the R components. It has R·ΣI_n numbers, fewer than any other format at
// the same rank, and its components are unique under mild conditions, which no
// Tucker decomposition's are.
//
// [ALS] fits it by alternating least squares. A sweep costs two products of
// the tensor with R columns, whatever the order, by a dimension tree, and never
// forms the Khatri-Rao product of more than half of the modes. Most sweeps are
// those of a small core, where the rank is well below the dimensions. [LM] fits it by
// the Levenberg-Marquardt method, for the cases in which ALS crawls: collinear
// components and high accuracy. Its iterations cost a few sweeps each, and it
// needs tens where ALS needs thousands.
//
// [Score] and [Congruence] compare two decompositions, whatever the order, signs
// and scales of their components.
//
// Beware: a best approximation of rank R need not exist. ALS then finds
// components that grow without bound and cancel each other; Result.Intensity
// against the squared norm of X, and Result.Sensitivity, tell. Such factors
// cannot be rounded or fine-tuned.
package cpd
