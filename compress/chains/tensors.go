package chains

import (
	"fmt"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/internal/tensorops"
	"github.com/lowrank-go/lowrank/tkdcpd"
	"github.com/lowrank-go/lowrank/tucker"
)

// FromTucker is the chain that applies Tucker-2 decompositions in place of k,
// one for each group, all of the same ranks: of the (T/g)×(S/g)×P tensor that
// k.Group returns, with factors of (T/g)×R2 and (S/g)×R1, none for the taps,
// and a core of R2×R1×P (Kim et al. 2016, eq. 4–6). A nil factor means that its
// mode is left alone; its 1×1 stage is then left out. Geometry and bias are k's.
func FromTucker(k *conv.Kernel, parts []*tucker.Tucker) (*conv.Chain, error) {
	if err := checkParts(k, len(parts)); err != nil {
		return nil, err
	}
	var in, mid, out stacked
	var r1, r2 int
	for g, t := range parts {
		if len(t.Factors) != 3 || t.Factors[2] != nil {
			return nil, fmt.Errorf("%w: group %d: want a Tucker-2 decomposition over modes 0 and 1 of three", conv.ErrShape, g)
		}
		shape, core, err := tensorops.View(t.Core)
		if err != nil {
			return nil, fmt.Errorf("group %d: core: %w", g, err)
		}
		if g > 0 && (r2 != shape[0] || r1 != shape[1]) {
			return nil, fmt.Errorf("%w: group %d has ranks %v, group 0 has %v", conv.ErrShape, g, shape[:2], []int{r2, r1})
		}
		r2, r1 = shape[0], shape[1]
		mid.add(core)
		if u := t.Factors[1]; u != nil {
			if err := checkFactor(u, k.Shape[1], r1, g, "input"); err != nil {
				return nil, err
			}
			in.addTransposed(u)
		}
		if u := t.Factors[0]; u != nil {
			if err := checkFactor(u, k.Shape[0]/len(parts), r2, g, "output"); err != nil {
				return nil, err
			}
			out.addMatrix(u)
		}
	}
	groups := len(parts)
	c := &conv.Chain{Kind: conv.Tucker2, Rank: []int{r2, r1}, Groups: groups}
	pointwise := conv.Geometry{Groups: groups}.Normal()
	if in != nil {
		c.Stages = append(c.Stages, &conv.Kernel{Shape: [4]int{groups * r1, k.Shape[1], 1, 1}, Weight: in, Geometry: pointwise})
	}
	c.Stages = append(c.Stages, &conv.Kernel{Shape: [4]int{groups * r2, r1, k.Shape[2], k.Shape[3]}, Weight: mid, Geometry: k.Normal()})
	if out != nil {
		c.Stages = append(c.Stages, &conv.Kernel{Shape: [4]int{k.Out(), r2, 1, 1}, Weight: out, Geometry: pointwise})
	}
	c.Last().Bias = k.Bias
	return c, c.Validate()
}

// FromCP is the chain that applies CP decompositions in place of k, one for
// each group, all of the same rank R: of the (T/g)×(S/g)×P tensor that k.Group
// returns, with factors of (T/g)×R, (S/g)×R and P×R (Lebedev et al. 2015, with
// the two spatial modes taken as one). The weights are spread over the factors
// for the least sensitivity. Geometry and bias are k's.
func FromCP(k *conv.Kernel, parts []*cpd.Kruskal) (*conv.Chain, error) {
	tensors := make([]*tkdcpd.Tensor, len(parts))
	for g, p := range parts {
		if p == nil {
			return nil, fmt.Errorf("%w: group %d has no decomposition", conv.ErrShape, g)
		}
		tensors[g] = &tkdcpd.Tensor{Core: *p, Factors: make([]*mat.Dense, len(p.Factors))}
	}
	c, err := FromTKDCPD(k, tensors)
	if c != nil {
		c.Kind, c.Rank = conv.CP, c.Rank[2:]
	}
	return c, err
}

// FromTKDCPD is the chain that applies Tucker-2 decompositions with a CPD of the core
// in place of k, one for each group, all of the same ranks: of the (T/g)×(S/g)×P
// tensor that k.Group returns, with factors of (T/g)×R2 and (S/g)×R1, none for the
// taps, and a core of R2×R1×P of rank R (Phan et al. 2020, section 3.3). A nil factor
// means that its mode is left alone, and one that is cheaper multiplied with the
// core's is (tkdcpd.Tensor.Merged): its 1×1 stage is then left out. The scales are
// spread over the stages for the least sensitivity. Geometry and bias are k's.
func FromTKDCPD(k *conv.Kernel, parts []*tkdcpd.Tensor) (*conv.Chain, error) {
	if err := checkParts(k, len(parts)); err != nil {
		return nil, err
	}
	groups := len(parts)
	var dims []int // of the core
	var rank int
	var tap stacked
	// The outer and the inner 1×1 stages' weights, after and before the taps.
	var outer, inner [2]stacked
	for g, p := range parts {
		if err := p.Validate(); err != nil {
			return nil, fmt.Errorf("%w: group %d: %w", conv.ErrShape, g, err)
		}
		want := []int{k.Shape[0] / groups, k.Shape[1], k.Taps()}
		if got := p.Shape(); !slices.Equal(got, want) || p.Factors[2] != nil {
			return nil, fmt.Errorf("%w: group %d: a decomposition of shape %v; want %v with the taps left alone", conv.ErrShape, g, got, want)
		}
		if d, r := p.Core.Shape(), p.Core.Rank(); g == 0 {
			dims, rank = d, r
		} else if !slices.Equal(d, dims) || r != rank {
			return nil, fmt.Errorf("%w: group %d has a core of %v of rank %d, group 0 of %v of rank %d", conv.ErrShape, g, d, r, dims, rank)
		}
		p = p.Merged().Balanced()
		for m, add := range []func(*stacked, *mat.Dense){(*stacked).addMatrix, (*stacked).addTransposed} {
			add(&inner[m], p.Core.Factors[m])
			if u := p.Factors[m]; u != nil {
				add(&outer[m], u)
			}
		}
		tap.addTransposed(p.Core.Factors[2])
	}
	pointwise := conv.Geometry{Groups: groups}.Normal()
	depthwise := k.Normal()
	depthwise.Groups = groups * rank
	c := &conv.Chain{Kind: conv.TKDCPD, Rank: []int{dims[0], dims[1], rank}, Groups: groups}
	stage := func(out int, w stacked) {
		if w != nil {
			c.Stages = append(c.Stages, &conv.Kernel{Shape: [4]int{out, len(w) / out, 1, 1}, Weight: w, Geometry: pointwise})
		}
	}
	stage(groups*dims[1], outer[1])
	stage(groups*rank, inner[1])
	c.Stages = append(c.Stages, &conv.Kernel{Shape: [4]int{groups * rank, 1, k.Shape[2], k.Shape[3]}, Weight: tap, Geometry: depthwise})
	if outer[0] != nil {
		stage(groups*dims[0], inner[0])
		stage(k.Out(), outer[0])
	} else {
		stage(k.Out(), inner[0])
	}
	c.Last().Bias = k.Bias
	return c, c.Validate()
}

// FromSeparable is the chain that applies CP decompositions in place of k, one for each
// group, all of the same rank R: of the (T/g)×(S/g)×kh×kw tensor, with factors of
// (T/g)×R, (S/g)×R, kh×R and kw×R (Lebedev et al. 2015): 1×1 S→R, depthwise kh×1,
// depthwise 1×kw, 1×1 R→T. Each component's norm is spread evenly over its factors.
// Geometry and bias are k's.
func FromSeparable(k *conv.Kernel, parts []*cpd.Kruskal) (*conv.Chain, error) {
	if err := checkParts(k, len(parts)); err != nil {
		return nil, err
	}
	groups, rank := len(parts), 0
	var stages [4]stacked // in, rows, columns, out
	for g, p := range parts {
		if err := p.Validate(); err != nil {
			return nil, fmt.Errorf("%w: group %d: %w", conv.ErrShape, g, err)
		}
		if rank == 0 {
			rank = p.Rank()
		}
		p = p.Balanced()
		for m, rows := range []int{k.Shape[0] / groups, k.Shape[1], k.Shape[2], k.Shape[3]} {
			if len(p.Factors) != 4 {
				return nil, fmt.Errorf("%w: group %d: %d factors, want one a dimension of the kernel", conv.ErrShape, g, len(p.Factors))
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
	point, depth := conv.Geometry{Groups: groups}.Normal(), conv.Geometry{Groups: groups * rank}.Normal()
	c := &conv.Chain{Kind: conv.Separable, Rank: []int{rank}, Groups: groups, Stages: []*conv.Kernel{
		{Shape: [4]int{groups * rank, k.Shape[1], 1, 1}, Weight: stages[0], Geometry: point},
		{Shape: [4]int{groups * rank, 1, 1, 1}, Weight: stages[1], Geometry: depth},
		{Shape: [4]int{groups * rank, 1, 1, 1}, Weight: stages[2], Geometry: depth},
		{Shape: [4]int{k.Out(), rank, 1, 1}, Weight: stages[3], Bias: k.Bias, Geometry: point},
	}}
	spread(k.Shape, k.Normal(), [2]*conv.Kernel{c.Stages[1], c.Stages[2]})
	return c, c.Validate()
}
