package conv

import (
	"fmt"
	"slices"

	"gonum.org/v1/gonum/mat"

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
func FromTucker(k *Kernel, parts []*tucker.Tucker) (*Chain, error) {
	if err := checkParts(k, len(parts)); err != nil {
		return nil, err
	}
	var in, mid, out stacked
	var r1, r2 int
	for g, t := range parts {
		if len(t.Factors) != 3 || t.Factors[2] != nil {
			return nil, fmt.Errorf("%w: group %d: want a Tucker-2 decomposition over modes 0 and 1 of three", ErrShape, g)
		}
		shape, core, err := tensorops.View(t.Core)
		if err != nil {
			return nil, fmt.Errorf("group %d: core: %w", g, err)
		}
		if g > 0 && (r2 != shape[0] || r1 != shape[1]) {
			return nil, fmt.Errorf("%w: group %d has ranks %v, group 0 has %v", ErrShape, g, shape[:2], []int{r2, r1})
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
	c := &Chain{Kind: Tucker2, Rank: []int{r2, r1}, Groups: groups}
	pointwise := Geometry{Groups: groups}.Normal()
	if in != nil {
		c.Stages = append(c.Stages, &Kernel{Shape: [4]int{groups * r1, k.Shape[1], 1, 1}, Weight: in, Geometry: pointwise})
	}
	c.Stages = append(c.Stages, &Kernel{Shape: [4]int{groups * r2, r1, k.Shape[2], k.Shape[3]}, Weight: mid, Geometry: k.Normal()})
	if out != nil {
		c.Stages = append(c.Stages, &Kernel{Shape: [4]int{k.Out(), r2, 1, 1}, Weight: out, Geometry: pointwise})
	}
	c.Last().Bias = k.Bias
	return c, c.Validate()
}

// FromCP is the chain that applies CP decompositions in place of k, one for
// each group, all of the same rank R: of the (T/g)×(S/g)×P tensor that k.Group
// returns, with factors of (T/g)×R, (S/g)×R and P×R (Lebedev et al. 2015, with
// the two spatial modes taken as one). The weights are spread over the factors
// for the least sensitivity. Geometry and bias are k's.
func FromCP(k *Kernel, parts []*cpd.Kruskal) (*Chain, error) {
	tensors := make([]*tkdcpd.Tensor, len(parts))
	for g, p := range parts {
		if p == nil {
			return nil, fmt.Errorf("%w: group %d has no decomposition", ErrShape, g)
		}
		tensors[g] = &tkdcpd.Tensor{Core: *p, Factors: make([]*mat.Dense, len(p.Factors))}
	}
	c, err := FromTKDCPD(k, tensors)
	if c != nil {
		c.Kind, c.Rank = CP, c.Rank[2:]
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
func FromTKDCPD(k *Kernel, parts []*tkdcpd.Tensor) (*Chain, error) {
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
			return nil, fmt.Errorf("%w: group %d: %w", ErrShape, g, err)
		}
		want := []int{k.Shape[0] / groups, k.Shape[1], k.Taps()}
		if got := p.Shape(); !slices.Equal(got, want) || p.Factors[2] != nil {
			return nil, fmt.Errorf("%w: group %d: a decomposition of shape %v; want %v with the taps left alone", ErrShape, g, got, want)
		}
		if d, r := p.Core.Shape(), p.Core.Rank(); g == 0 {
			dims, rank = d, r
		} else if !slices.Equal(d, dims) || r != rank {
			return nil, fmt.Errorf("%w: group %d has a core of %v of rank %d, group 0 of %v of rank %d", ErrShape, g, d, r, dims, rank)
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
	pointwise := Geometry{Groups: groups}.Normal()
	depthwise := k.Normal()
	depthwise.Groups = groups * rank
	c := &Chain{Kind: TKDCPD, Rank: []int{dims[0], dims[1], rank}, Groups: groups}
	stage := func(out int, w stacked) {
		if w != nil {
			c.Stages = append(c.Stages, &Kernel{Shape: [4]int{out, len(w) / out, 1, 1}, Weight: w, Geometry: pointwise})
		}
	}
	stage(groups*dims[1], outer[1])
	stage(groups*rank, inner[1])
	c.Stages = append(c.Stages, &Kernel{Shape: [4]int{groups * rank, 1, k.Shape[2], k.Shape[3]}, Weight: tap, Geometry: depthwise})
	if outer[0] != nil {
		stage(groups*dims[0], inner[0])
		stage(k.Out(), outer[0])
	} else {
		stage(k.Out(), inner[0])
	}
	c.Last().Bias = k.Bias
	return c, c.Validate()
}

func checkParts(k *Kernel, n int) error {
	if err := k.Validate(); err != nil {
		return err
	}
	if n != max(k.Groups, 1) {
		return fmt.Errorf("%w: %d decompositions for a kernel of %d groups", ErrShape, n, max(k.Groups, 1))
	}
	return nil
}

func checkFactor(m *mat.Dense, rows, rank, group int, what string) error {
	if r, c := m.Dims(); r != rows || c != rank {
		return fmt.Errorf("%w: group %d: %s factor is %d×%d, want %d×%d", ErrShape, group, what, r, c, rows, rank)
	}
	return nil
}

// stacked gathers the weights of a stage group after group, rounding them.
type stacked []float32

func (s *stacked) add(v []float64) {
	for _, x := range v {
		*s = append(*s, float32(x))
	}
}

func (s *stacked) addMatrix(m *mat.Dense) {
	r, _ := m.Dims()
	for i := range r {
		s.add(m.RawRowView(i))
	}
}

func (s *stacked) addTransposed(m *mat.Dense) {
	r, c := m.Dims()
	for j := range c {
		for i := range r {
			*s = append(*s, float32(m.At(i, j)))
		}
	}
}
