package chains

import (
	"fmt"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/conv"
)

// checkFolds is checkParts and the factors' shapes; it returns the rank.
func checkFolds(k *conv.Kernel, kind conv.Kind, u, v []*mat.Dense) (rank int, err error) {
	if err := checkParts(k, len(u)); err != nil {
		return 0, err
	}
	if len(v) != len(u) {
		return 0, fmt.Errorf("%w: %d left and %d right factors", conv.ErrShape, len(u), len(v))
	}
	f, err := conv.NewFold(k, kind)
	if err != nil {
		return 0, err
	}
	_, rank = u[0].Dims()
	for g := range u {
		if err := checkFactor(u[g], f.Rows, rank, g, "left"); err != nil {
			return 0, err
		}
		if err := checkFactor(v[g], f.Cols, rank, g, "right"); err != nil {
			return 0, err
		}
	}
	return rank, nil
}

// FromMatrix is the chain of a kind that applies products U·Vᵀ in place of k, one for
// each group, all of the same rank R: of the matrix of NewFold, with U of Rows×R and V
// of Cols×R. Geometry and bias are k's.
//
//   - SVD: kh×kw S→R, 1×1 R→T (Zhang et al. 2016).
//   - SVDIn: 1×1 S→R, kh×kw R→T.
//   - Spatial: kh×1 S→R, 1×kw R→T, each with the stride, padding and dilation of its
//     axis (Jaderberg et al. 2014, scheme 2).
func FromMatrix(k *conv.Kernel, kind conv.Kind, u, v []*mat.Dense) (*conv.Chain, error) {
	rank, err := checkFolds(k, kind, u, v)
	if err != nil {
		return nil, err
	}
	groups, t := len(u), k.Shape[0]/len(u)
	var first, last stacked
	for g := range groups {
		switch kind {
		case conv.SVD:
			first.addTransposed(v[g])
			last.addMatrix(u[g])
		default:
			first.addTransposed(u[g])
			// V's rows are an output's taps one after another: R to the front.
			taps := v[g].RawMatrix().Rows / t
			for i := range t {
				for r := range rank {
					for p := range taps {
						last = append(last, float32(v[g].At(i*taps+p, r)))
					}
				}
			}
		}
	}
	all, point := k.Normal(), conv.Geometry{Groups: groups}.Normal()
	a := &conv.Kernel{Shape: [4]int{groups * rank, k.Shape[1], 1, 1}, Weight: first, Geometry: point}
	b := &conv.Kernel{Shape: [4]int{k.Out(), rank, 1, 1}, Weight: last, Bias: k.Bias, Geometry: point}
	spread(k.Shape, all, map[conv.Kind][2]*conv.Kernel{conv.SVD: {a, a}, conv.SVDIn: {b, b}, conv.Spatial: {a, b}}[kind])
	c := &conv.Chain{Kind: kind, Rank: []int{rank}, Groups: groups, Stages: []*conv.Kernel{a, b}}
	return c, c.Validate()
}

// spread gives each axis of a kernel of a shape and geometry to a stage.
func spread(shape [4]int, g conv.Geometry, stages [2]*conv.Kernel) {
	for axis, s := range stages {
		s.Shape[2+axis] = shape[2+axis]
		s.Stride[axis], s.Padding[axis], s.Extra[axis], s.Dilation[axis] = g.Stride[axis], g.Padding[axis], g.Extra[axis], g.Dilation[axis]
	}
}
