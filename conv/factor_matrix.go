package conv

import (
	"fmt"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/cpd"
)

// Fold is a way to see the weights of one group, (T/g)×(S/g)×kh×kw, as a matrix; a
// product of two thin matrices in its place is a chain of two stages.
type Fold struct {
	Rows, Cols int
	// at is where the weight of output t, input s and tap (y, x) is in the matrix,
	// row-major.
	at func(t, s, y, x int) int
	k  *Kernel
}

// NewFold is the matrix whose product is a chain of a kind: T×(S·kh·kw) for SVD,
// S×(T·kh·kw) for SVDIn, (S·kh)×(T·kw) for Spatial, T and S being those of one group.
func NewFold(k *Kernel, kind Kind) (*Fold, error) {
	if err := k.Validate(); err != nil {
		return nil, err
	}
	t, s, h, w := k.Shape[0]/max(k.Groups, 1), k.Shape[1], k.Shape[2], k.Shape[3]
	f := &Fold{k: k}
	switch kind {
	case SVD:
		f.Rows, f.Cols = t, s*h*w
		f.at = func(t, s, y, x int) int { return t*f.Cols + (s*h+y)*w + x }
	case SVDIn:
		f.Rows, f.Cols = s, t*h*w
		f.at = func(t, s, y, x int) int { return s*f.Cols + (t*h+y)*w + x }
	case Spatial:
		f.Rows, f.Cols = s*h, t*w
		f.at = func(t, s, y, x int) int { return (s*h+y)*f.Cols + t*w + x }
	default:
		return nil, fmt.Errorf("%w: chains of kind %q are no product of two matrices", ErrShape, kind)
	}
	return f, nil
}

// Group is the matrix of group g, newly allocated.
func (f *Fold) Group(g int) []float64 {
	out := make([]float64, f.Rows*f.Cols)
	t, s, h, w := f.k.Shape[0]/max(f.k.Groups, 1), f.k.Shape[1], f.k.Shape[2], f.k.Shape[3]
	weights := f.k.Weight[g*len(out):]
	for i := range t {
		for j := range s {
			for y := range h {
				for x := range w {
					out[f.at(i, j, y, x)] = float64(weights[((i*s+j)*h+y)*w+x])
				}
			}
		}
	}
	return out
}

// checkFolds is checkParts and the factors' shapes; it returns the rank.
func checkFolds(k *Kernel, kind Kind, u, v []*mat.Dense) (rank int, err error) {
	if err := checkParts(k, len(u)); err != nil {
		return 0, err
	}
	if len(v) != len(u) {
		return 0, fmt.Errorf("%w: %d left and %d right factors", ErrShape, len(u), len(v))
	}
	f, err := NewFold(k, kind)
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
func FromMatrix(k *Kernel, kind Kind, u, v []*mat.Dense) (*Chain, error) {
	rank, err := checkFolds(k, kind, u, v)
	if err != nil {
		return nil, err
	}
	groups, t := len(u), k.Shape[0]/len(u)
	var first, last stacked
	for g := range groups {
		switch kind {
		case SVD:
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
	all, point := k.Normal(), Geometry{Groups: groups}.Normal()
	a := &Kernel{Shape: [4]int{groups * rank, k.Shape[1], 1, 1}, Weight: first, Geometry: point}
	b := &Kernel{Shape: [4]int{k.Out(), rank, 1, 1}, Weight: last, Bias: k.Bias, Geometry: point}
	spread(k.Shape, all, map[Kind][2]*Kernel{SVD: {a, a}, SVDIn: {b, b}, Spatial: {a, b}}[kind])
	c := &Chain{Kind: kind, Rank: []int{rank}, Groups: groups, Stages: []*Kernel{a, b}}
	return c, c.Validate()
}

// spread gives each axis of a kernel of a shape and geometry to a stage.
func spread(shape [4]int, g Geometry, stages [2]*Kernel) {
	for axis, s := range stages {
		s.Shape[2+axis] = shape[2+axis]
		s.copyAxis(&g, axis)
	}
}

// FromSeparable is the chain that applies CP decompositions in place of k, one for each
// group, all of the same rank R: of the (T/g)×(S/g)×kh×kw tensor, with factors of
// (T/g)×R, (S/g)×R, kh×R and kw×R (Lebedev et al. 2015): 1×1 S→R, depthwise kh×1,
// depthwise 1×kw, 1×1 R→T. Each component's norm is spread evenly over its factors.
// Geometry and bias are k's.
func FromSeparable(k *Kernel, parts []*cpd.Kruskal) (*Chain, error) {
	if err := checkParts(k, len(parts)); err != nil {
		return nil, err
	}
	groups, rank := len(parts), 0
	var stages [4]stacked // in, rows, columns, out
	for g, p := range parts {
		if err := p.Validate(); err != nil {
			return nil, fmt.Errorf("%w: group %d: %w", ErrShape, g, err)
		}
		if rank == 0 {
			rank = p.Rank()
		}
		p = p.Balanced()
		for m, rows := range []int{k.Shape[0] / groups, k.Shape[1], k.Shape[2], k.Shape[3]} {
			if len(p.Factors) != 4 {
				return nil, fmt.Errorf("%w: group %d: %d factors, want one a dimension of the kernel", ErrShape, g, len(p.Factors))
			}
			if err := checkFactor(p.Factors[m], rows, rank, g, []string{"output", "input", "row", "column"}[m]); err != nil {
				return nil, err
			}
		}
		stages[0].addTransposed(p.Factors[1])
		stages[1].addTransposed(p.Factors[2])
		stages[2].addTransposed(p.Factors[3])
		stages[3].addMatrix(p.Factors[0])
	}
	point, depth := Geometry{Groups: groups}.Normal(), Geometry{Groups: groups * rank}.Normal()
	c := &Chain{Kind: Separable, Rank: []int{rank}, Groups: groups, Stages: []*Kernel{
		{Shape: [4]int{groups * rank, k.Shape[1], 1, 1}, Weight: stages[0], Geometry: point},
		{Shape: [4]int{groups * rank, 1, 1, 1}, Weight: stages[1], Geometry: depth},
		{Shape: [4]int{groups * rank, 1, 1, 1}, Weight: stages[2], Geometry: depth},
		{Shape: [4]int{k.Out(), rank, 1, 1}, Weight: stages[3], Bias: k.Bias, Geometry: point},
	}}
	spread(k.Shape, k.Normal(), [2]*Kernel{c.Stages[1], c.Stages[2]})
	return c, c.Validate()
}
