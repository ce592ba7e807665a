package conv

import (
	"fmt"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/internal/tensorops"
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
// so that the three have equal column norms. Geometry and bias are k's.
func FromCP(k *Kernel, parts []*cpd.Kruskal) (*Chain, error) {
	if err := checkParts(k, len(parts)); err != nil {
		return nil, err
	}
	groups := len(parts)
	var in, mid, out stacked
	var rank int
	for g, p := range parts {
		if len(p.Factors) != 3 {
			return nil, fmt.Errorf("%w: group %d: want a CP decomposition of order 3, got %d", ErrShape, g, len(p.Factors))
		}
		f := p.Balanced().Factors
		_, r := f[0].Dims()
		if g > 0 && r != rank {
			return nil, fmt.Errorf("%w: group %d has rank %d, group 0 has %d", ErrShape, g, r, rank)
		}
		rank = r
		for m, rows := range []int{k.Shape[0] / groups, k.Shape[1], k.Taps()} {
			if err := checkFactor(f[m], rows, rank, g, []string{"output", "input", "tap"}[m]); err != nil {
				return nil, err
			}
		}
		out.addMatrix(f[0])
		in.addTransposed(f[1])
		mid.addTransposed(f[2])
	}
	pointwise := Geometry{Groups: groups}.Normal()
	depthwise := k.Normal()
	depthwise.Groups = groups * rank
	c := &Chain{Kind: CP, Rank: []int{rank}, Groups: groups, Stages: []*Kernel{
		{Shape: [4]int{groups * rank, k.Shape[1], 1, 1}, Weight: in, Geometry: pointwise},
		{Shape: [4]int{groups * rank, 1, k.Shape[2], k.Shape[3]}, Weight: mid, Geometry: depthwise},
		{Shape: [4]int{k.Out(), rank, 1, 1}, Weight: out, Bias: k.Bias, Geometry: pointwise},
	}}
	return c, c.Validate()
}

// FromSVD is the chain that applies a product U·Vᵀ in place of k, one for each
// group, all of the same rank R: of the (T/g)×(S/g·P) matrix of the group's
// weights, with U of (T/g)×R and V of (S/g·P)×R (Zhang et al. 2016). The first
// stage is kh×kw and has k's geometry, the second is 1×1.
func FromSVD(k *Kernel, u, v []*mat.Dense) (*Chain, error) {
	if err := checkParts(k, len(u)); err != nil {
		return nil, err
	}
	if len(v) != len(u) {
		return nil, fmt.Errorf("%w: %d left and %d right factors", ErrShape, len(u), len(v))
	}
	groups := len(u)
	_, rank := u[0].Dims()
	var in, out stacked
	for g := range groups {
		if err := checkFactor(u[g], k.Shape[0]/groups, rank, g, "left"); err != nil {
			return nil, err
		}
		if err := checkFactor(v[g], k.Shape[1]*k.Taps(), rank, g, "right"); err != nil {
			return nil, err
		}
		in.addTransposed(v[g])
		out.addMatrix(u[g])
	}
	c := &Chain{Kind: SVD, Rank: []int{rank}, Groups: groups, Stages: []*Kernel{
		{Shape: [4]int{groups * rank, k.Shape[1], k.Shape[2], k.Shape[3]}, Weight: in, Geometry: k.Normal()},
		{Shape: [4]int{k.Out(), rank, 1, 1}, Weight: out, Bias: k.Bias, Geometry: Geometry{Groups: groups}.Normal()},
	}}
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
