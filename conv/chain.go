package conv

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/lowrank-go/lowrank/internal/gemm"
)

// Kind names what a chain's stages are. Its text is what files hold.
type Kind string

// The kinds of chain; the package comment has their stages and costs.
const (
	Dense   Kind = "dense"
	SVD     Kind = "svd"
	Tucker2 Kind = "tucker2"
	CP      Kind = "cp"
	TKDCPD  Kind = "tkdcpd"
	// SVDIn is the SVD of the input channels against the rest, Spatial the one of
	// the two spatial axes against each other, Separable a CP with an axis a stage.
	SVDIn     Kind = "svd-in"
	Spatial   Kind = "spatial"
	Separable Kind = "cp-separable"
)

// Chain is a sequence of convolutions that stands where one convolution stood.
type Chain struct {
	Kind Kind
	// Rank lists the ranks of the factorisation of one group: none for Dense,
	// R for all others but R2, R1 (output mode, input mode) for Tucker2 and R2, R1, R
	// for TKDCPD.
	Rank []int
	// Groups is the number of groups of the convolution that the chain equals.
	Groups int
	Stages []*Kernel
}

// NewDense is the chain of one stage, k itself.
func NewDense(k *Kernel) *Chain {
	return &Chain{Kind: Dense, Groups: max(k.Groups, 1), Stages: []*Kernel{k}}
}

// Validate reports stages whose channels do not follow on each other, biases
// before the last stage, groups that the chain's own do not divide, and an
// axis along which more than one stage looks past a single pixel: everything
// that would make the chain differ from one convolution.
func (c *Chain) Validate() error {
	if len(c.Stages) == 0 {
		return fmt.Errorf("%w: a chain without stages", ErrShape)
	}
	groups := max(c.Groups, 1)
	for i, s := range c.Stages {
		if err := s.Validate(); err != nil {
			return fmt.Errorf("stage %d: %w", i, err)
		}
		if i > 0 && c.Stages[i-1].Out() != s.In() {
			return fmt.Errorf("%w: stage %d gives %d channels, stage %d takes %d", ErrShape, i-1, c.Stages[i-1].Out(), i, s.In())
		}
		if i < len(c.Stages)-1 && s.Bias != nil {
			return fmt.Errorf("%w: stage %d of %d has a bias; only the last may", ErrShape, i, len(c.Stages))
		}
		if max(s.Groups, 1)%groups != 0 {
			return fmt.Errorf("%w: stage %d has %d groups, not a multiple of the chain's %d", ErrShape, i, s.Groups, groups)
		}
	}
	for axis := range 2 {
		if _, err := c.spatial(axis); err != nil {
			return err
		}
	}
	ranks, known := map[Kind]int{Dense: 0, SVD: 1, Tucker2: 2, CP: 1, TKDCPD: 3, SVDIn: 1, Spatial: 1, Separable: 1}[c.Kind]
	if !known || len(c.Rank) != ranks || slices.ContainsFunc(c.Rank, func(r int) bool { return r < 1 }) {
		return fmt.Errorf("%w: a chain of kind %q with ranks %v", ErrShape, c.Kind, c.Rank)
	}
	return nil
}

// spatial is the one stage that is more than pointwise along axis, or 0.
func (c *Chain) spatial(axis int) (int, error) {
	at := -1
	for i, s := range c.Stages {
		g := s.Normal()
		if s.Shape[2+axis] == 1 && g.Stride[axis] == 1 && g.Padding[axis] == 0 && g.Extra[axis] == 0 {
			continue
		}
		if at >= 0 {
			return 0, fmt.Errorf("%w: stages %d and %d both stride, pad or reach along axis %d", ErrShape, at, i, axis)
		}
		at = i
	}
	return max(at, 0), nil
}

// In is the number of input channels.
func (c *Chain) In() int { return c.Stages[0].In() }

// Out is the number of output channels.
func (c *Chain) Out() int { return c.Last().Out() }

// Last is the last stage, the one that carries the bias.
func (c *Chain) Last() *Kernel { return c.Stages[len(c.Stages)-1] }

// Params is the number of weights and biases of all stages.
func (c *Chain) Params() int {
	n := 0
	for _, s := range c.Stages {
		n += s.Params()
	}
	return n
}

// OutputSize is the size of the output map for an input map of h×w.
func (c *Chain) OutputSize(h, w int) (int, int) {
	for _, s := range c.Stages {
		h, w = s.OutputSize(h, w)
	}
	return h, w
}

// MACs is the number of multiply-accumulates of all stages for one input map
// of h×w.
func (c *Chain) MACs(h, w int) int64 {
	var n int64
	for _, s := range c.Stages {
		n += s.MACs(h, w)
		h, w = s.OutputSize(h, w)
	}
	return n
}

// Shape is the shape and the geometry of the one convolution that a valid
// chain equals.
func (c *Chain) Shape() ([4]int, Geometry) {
	g := Geometry{Groups: max(c.Groups, 1)}
	shape := [4]int{c.Out(), c.In() / g.Groups}
	for axis := range 2 {
		i, _ := c.spatial(axis)
		s := c.Stages[i].Normal()
		shape[2+axis] = c.Stages[i].Shape[2+axis]
		g.copyAxis(&s, axis)
	}
	return shape, g
}

// WithGeometry is the chain of the same weights, shared, with another stride,
// padding and dilation of the one convolution that it equals: along each axis they
// are those of the one stage that looks past a pixel. The groups stay; along an axis
// of one tap a dilation means nothing and becomes 1.
func (c *Chain) WithGeometry(g Geometry) (*Chain, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	g = g.Normal()
	out := *c
	out.Stages = make([]*Kernel, len(c.Stages))
	for i, s := range c.Stages {
		own := *s
		own.Geometry = s.Normal()
		out.Stages[i] = &own
	}
	for axis := range 2 {
		i, err := c.spatial(axis)
		if err != nil {
			return nil, err
		}
		out.Stages[i].copyAxis(&g, axis)
		for _, s := range out.Stages {
			if s.Shape[2+axis] == 1 {
				s.Dilation[axis] = 1
			}
		}
	}
	return &out, out.Validate()
}

// Kernel is the one convolution that the chain equals, its weights multiplied
// out in float64 and rounded once.
func (c *Chain) Kernel() (*Kernel, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if len(c.Stages) == 1 {
		k := *c.Stages[0]
		k.Geometry = k.Normal()
		return &k, nil
	}
	shape, geometry := c.Shape()
	out := &Kernel{Shape: shape, Bias: c.Last().Bias, Geometry: geometry}
	groups := geometry.Groups
	perGroup := out.Shape[0] / groups * out.Shape[1] * out.Shape[2] * out.Shape[3]
	out.Weight = make([]float32, groups*perGroup)
	for g := range groups {
		for i, v := range c.composeGroup(g) {
			out.Weight[g*perGroup+i] = float32(v)
		}
	}
	return out, nil
}

// composeGroup multiplies out group g of the chain: the result is
// (T/g)×(S/g)×kh×kw. Along each axis at most one stage has more than one tap,
// so the tap of the composition is the sum of the stages' taps.
func (c *Chain) composeGroup(g int) []float64 {
	inputs := c.In() / max(c.Groups, 1)
	// acc is (channels so far)×inputs×h×w, starting as the identity.
	h, w := 1, 1
	acc := make([]float64, inputs*inputs)
	for i := range inputs {
		acc[i*inputs+i] = 1
	}
	for _, s := range c.Stages {
		sub := max(s.Groups, 1) / max(c.Groups, 1) // subgroups within this group
		outs, ins, kh, kw := s.Shape[0]/max(s.Groups, 1), s.Shape[1], s.Shape[2], s.Shape[3]
		nh, nw := h*kh, w*kw // one of each pair is 1
		next := make([]float64, outs*sub*inputs*nh*nw)
		tap := make([]float64, outs*ins)
		prod := make([]float64, outs*inputs*h*w)
		for q := range sub {
			base := (g*sub + q) * outs * ins * kh * kw
			for y := range kh {
				for x := range kw {
					for i := range tap {
						tap[i] = float64(s.Weight[base+(i*kh+y)*kw+x])
					}
					gemm.Float64(0, false, false, outs, inputs*h*w, ins, 1, tap, ins,
						acc[q*ins*inputs*h*w:], inputs*h*w, 0, prod, inputs*h*w)
					for o := range outs {
						for i := range inputs {
							for ay := range h {
								for ax := range w {
									next[(((q*outs+o)*inputs+i)*nh+y+ay)*nw+x+ax] = prod[((o*inputs+i)*h+ay)*w+ax]
								}
							}
						}
					}
				}
			}
		}
		acc, h, w = next, nh, nw
	}
	return acc
}

// Verify runs the chain and the single convolution of Kernel on the same
// random input and returns the largest difference of their outputs over the
// largest output: rounding, about 1e-6, unless the chain is wrong. The input
// has one map of at least 7 pixels a side, enough for three output pixels.
func (c *Chain) Verify(seed uint64) (float64, error) {
	k, err := c.Kernel()
	if err != nil {
		return 0, err
	}
	var size [2]int
	for a := range 2 {
		size[a] = max(7, k.Dilation[a]*(k.Shape[2+a]-1)+1+2*k.Stride[a]-2*k.Padding[a]-k.Extra[a])
	}
	rng := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	x := NewMap(1, size[0], size[1], k.In())
	for i := range x.Data {
		x.Data[i] = float32(rng.NormFloat64())
	}
	want, err := run(NewDense(k), x)
	if err != nil {
		return 0, err
	}
	got, err := run(c, x)
	if err != nil {
		return 0, err
	}
	var diff, top float64
	for i, v := range want.Data {
		diff = math.Max(diff, math.Abs(float64(v)-float64(got.Data[i])))
		top = math.Max(top, math.Abs(float64(v)))
	}
	if top == 0 {
		return diff, nil
	}
	return diff / top, nil
}

func run(c *Chain, x *Map) (*Map, error) {
	r, err := NewRunner(c)
	if err != nil {
		return nil, err
	}
	return r.Forward(nil, x, Epilogue{}, 0)
}
