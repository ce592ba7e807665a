package graph

import (
	"fmt"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

func init() { register(func() Op { return &Concat{} }) }

// Concat puts its inputs one behind the other along a dimension.
type Concat struct {
	// Axis is the dimension: 0 is the channels.
	Axis int `json:"axis,omitempty"`
}

// Kind is "concat".
func (*Concat) Kind() string { return "concat" }

// Shape is that of the first input, with the sum of all sizes along Axis.
func (k *Concat) Shape(in []Shape) (Shape, error) {
	if len(in) == 0 {
		return nil, fmt.Errorf("%w: nothing to put together", ErrShape)
	}
	if k.Axis < 0 || k.Axis >= len(in[0]) {
		return nil, fmt.Errorf("%w: dimension %d of %v", ErrShape, k.Axis, in[0])
	}
	out := slices.Clone(in[0])
	for i, s := range in[1:] {
		if len(s) != len(out) {
			return nil, fmt.Errorf("%w: input %d is %v, the first %v", ErrShape, i+1, s, in[0])
		}
		for a, d := range s {
			if a != k.Axis && d != out[a] {
				return nil, fmt.Errorf("%w: input %d is %v, the first %v", ErrShape, i+1, s, in[0])
			}
		}
		if s[k.Axis] > mostValues-out[k.Axis] {
			return nil, fmt.Errorf("%w: more than %d values along dimension %d", ErrShape, mostValues, k.Axis)
		}
		out[k.Axis] += s[k.Axis]
	}
	return out, nil
}

func (k *Concat) kernel(mode) (kernel, error) { return concatenation{k.Axis}, nil }

// along is a batch of tensors of s, in the memory of m, as a map of which one dimension is
// theirs, and which one that is: 0 to 3 for N, H, W and C.
func along(m *conv.Map, s Shape, axis int) (*conv.Map, int) {
	if len(s) <= 3 {
		switch {
		case axis == 0:
			return m, 3
		case len(s) == 2:
			return m, 2
		}
		return m, axis
	}
	outer, inner := s[:axis].Len(), s[axis+1:].Len()
	return &conv.Map{N: m.N * outer, H: s[axis], W: 1, C: inner, Data: m.Data}, 1
}

type concatenation struct{ axis int }

func (concatenation) needs(int) bool { return false }

func (k concatenation) forward(c *call) error {
	c.out = c.shape.resize(c.out, c.in[0].N)
	dst, axis := along(c.out, c.shape, k.axis)
	xs := make([]*conv.Map, len(c.in))
	for i, x := range c.in {
		xs[i], _ = along(x, c.shapes[i], k.axis)
	}
	nn.Concat(dst, axis, c.workers, xs...)
	return nil
}

func (k concatenation) backward(c *call) error {
	dy, axis := along(c.dy, c.shape, k.axis)
	at := 0
	for i, s := range c.shapes {
		if c.dx[i] != nil {
			c.dx[i] = s.resize(c.dx[i], c.dy.N)
			dx, _ := along(c.dx[i], s, k.axis)
			if c.add[i] {
				nn.SliceAdd(dx, dy, axis, at, 1, c.workers)
			} else {
				nn.Slice(dx, dy, axis, at, 1, s[k.axis], c.workers)
			}
		}
		at += s[k.axis]
	}
	return nil
}
