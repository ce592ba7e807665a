package graph

import (
	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

func init() { register(func() Op { return &LayerNorm{} }) }

// LayerNorm normalises all values along some dimensions by themselves (Ba et al. 2016),
// and scales and shifts each of their places.
type LayerNorm struct {
	// Axes are the dimensions, in the order in which scales and shifts are for them: {0},
	// the channels of each pixel, as in ConvNeXt, or all.
	Axes []int   `json:"axes"`
	Eps  float64 `json:"eps"`
	scales
	shape []int // of the scales
}

// NewLayerNorm is one with a scale and a shift for each place along axes, in row-major
// order, or, where they are nil, without. size is the sizes of the axes.
func NewLayerNorm(axes, size []int, eps float64, weight, bias []float32) *LayerNorm {
	return &LayerNorm{Axes: axes, Eps: eps, scales: newScales(weight, bias), shape: size}
}

// Kind is "layernorm".
func (*LayerNorm) Kind() string { return "layernorm" }

// Shape is the input's.
func (l *LayerNorm) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	a := &arrangement{axes: l.Axes}
	if err := a.check(x); err != nil {
		return nil, err
	}
	_, width, _ := a.rows(x)
	return x, l.check(width, l.Eps)
}

func (l *LayerNorm) tensors() []tensor { return l.tensorsOf(l.shape) }

func (l *LayerNorm) with(get func(string) (*tensor, error)) (Op, error) {
	out := *l
	var err error
	out.shape, err = out.read(get)
	return &out, err
}

func (l *LayerNorm) kernel(mode) (kernel, error) {
	p := l.learned(l.tensors())
	f := &nn.LayerNorm{Eps: l.Eps, Weight: p.optional(0), Bias: p.optional(1)}
	return &layerNorm{p, arrangement{axes: l.Axes}, l, f}, nil
}

type layerNorm struct {
	*learned
	rows arrangement
	of   *LayerNorm
	f    *nn.LayerNorm
}

func (k *layerNorm) op() Op {
	return &LayerNorm{Axes: k.of.Axes, Eps: k.of.Eps, scales: k.scales(), shape: k.of.shape}
}
func (*layerNorm) needs(i int) bool { return i == 0 }

func (k *layerNorm) forward(c *call) error {
	k.rows.forward(c, func(dst, x *conv.Map) *conv.Map {
		k.f.Width = x.C
		return k.f.Forward(dst, x, c.workers)
	})
	return nil
}

func (k *layerNorm) backward(c *call) error {
	k.rows.backward(c, c.in[0], func(dx, dy, x *conv.Map, add bool) *conv.Map {
		return k.f.Backward(dx, dy, x, k.gradient(0), k.gradient(1), add, c.workers)
	})
	return nil
}
