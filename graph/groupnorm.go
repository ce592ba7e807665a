package graph

import (
	"fmt"
	"math"

	"github.com/lowrank-go/lowrank/internal/nn"
)

func init() { register(func() Op { return &GroupNorm{} }) }

// scales are the scales and shifts of a norm that does not keep statistics. Both may be
// nil, for 1 and 0.
type scales struct {
	Weight []float32 `json:"-"`
	Bias   []float32 `json:"-"`
	// Affine is set where a file has both.
	Affine bool `json:"affine,omitempty"`
}

func newScales(weight, bias []float32) scales { return scales{weight, bias, weight != nil} }

// tensorsOf lists them, of a shape.
func (a *scales) tensorsOf(shape []int) []tensor {
	if !a.Affine {
		return nil
	}
	return []tensor{{"weight", shape, a.Weight}, {"bias", shape, a.Bias}}
}

func (a *scales) trained() int {
	if !a.Affine {
		return 0
	}
	return 2
}

// read takes them from a file and tells the shape.
func (a *scales) read(get func(string) (*tensor, error)) ([]int, error) {
	if !a.Affine {
		return nil, nil
	}
	w, err := get("weight")
	if err != nil {
		return nil, err
	}
	b, err := get("bias")
	if err != nil {
		return nil, err
	}
	a.Weight, a.Bias = w.data, b.data
	return w.shape, nil
}

// check reports scales or shifts that are not n.
func (a *scales) check(n int, eps float64) error {
	if a.Affine && (len(a.Weight) != n || len(a.Bias) != n) {
		return fmt.Errorf("%w: %d scales and %d shifts, want %d", ErrShape, len(a.Weight), len(a.Bias), n)
	}
	if !(eps >= 0) || math.IsInf(eps, 0) {
		return fmt.Errorf("%w: an eps of %g", ErrShape, eps)
	}
	return nil
}

func (a *scales) learned(tensors []tensor) *learned {
	if !a.Affine {
		return newLearned(nil)
	}
	return newLearned(tensors, Gain, Shift)
}

// scales are those of a learner, as they are now.
func (l *learned) scales() scales {
	if len(l.params) == 0 {
		return scales{}
	}
	return newScales(l.snapshot(0), l.snapshot(1))
}

// GroupNorm normalises groups of channels of each map by itself, over all pixels (Wu and
// He 2018), and scales and shifts each channel.
type GroupNorm struct {
	// Groups divides the channels; 0 makes each a group of its own, instance
	// normalisation (Ulyanov et al. 2016).
	Groups int     `json:"groups,omitempty"`
	Eps    float64 `json:"eps"`
	scales
}

// NewGroupNorm is one with a scale and a shift for each channel, or, where they are nil,
// without.
func NewGroupNorm(groups int, eps float64, weight, bias []float32) *GroupNorm {
	return &GroupNorm{groups, eps, newScales(weight, bias)}
}

// Kind is "groupnorm".
func (*GroupNorm) Kind() string { return "groupnorm" }

func (g *GroupNorm) function(weight, bias []float32) *nn.GroupNorm {
	return &nn.GroupNorm{Groups: g.Groups, Eps: g.Eps, Weight: weight, Bias: bias}
}

// Shape is the input's.
func (g *GroupNorm) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	if len(x) < 1 || len(x) > 3 {
		return nil, fmt.Errorf("%w: channels of %v", ErrShape, x)
	}
	if err := g.check(x[0], g.Eps); err != nil {
		return nil, err
	}
	return x, g.function(g.Weight, g.Bias).Validate(x[0])
}

func (g *GroupNorm) tensors() []tensor { return g.tensorsOf([]int{len(g.Weight)}) }

func (g *GroupNorm) with(get func(string) (*tensor, error)) (Op, error) {
	out := *g
	_, err := out.read(get)
	return &out, err
}

func (g *GroupNorm) kernel(mode) (kernel, error) {
	l := g.learned(g.tensors())
	return &groupNorm{l, g, g.function(l.optional(0), l.optional(1))}, nil
}

type groupNorm struct {
	*learned
	of *GroupNorm
	f  *nn.GroupNorm
}

func (k *groupNorm) op() Op         { return &GroupNorm{k.of.Groups, k.of.Eps, k.scales()} }
func (*groupNorm) needs(i int) bool { return i == 0 }

func (k *groupNorm) forward(c *call) error {
	c.out = k.f.Forward(c.out, c.in[0], c.workers)
	return nil
}

func (k *groupNorm) backward(c *call) error {
	dx, add := c.dx[0], c.add[0]
	if dx == nil {
		dx, add = c.scratch.maps[0], false
	}
	dx = k.f.Backward(dx, c.dy, c.in[0], k.gradient(0), k.gradient(1), add, c.workers)
	if c.dx[0] == nil {
		c.scratch.maps[0] = dx
	} else {
		c.dx[0] = dx
	}
	return nil
}
