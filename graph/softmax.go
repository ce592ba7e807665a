package graph

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

func init() { register(func() Op { return &Softmax{} }) }

// Softmax makes the values along dimensions shares of 1: eˣ over the sum of that.
type Softmax struct {
	// Axes are the dimensions; {0} is the channels.
	Axes []int `json:"axes"`
	// Log is set for the logarithm.
	Log bool `json:"log,omitempty"`
}

// Kind is "softmax".
func (*Softmax) Kind() string { return "softmax" }

func errAxes(axes []int, s Shape) error {
	return fmt.Errorf("%w: dimensions %v of %v", ErrShape, axes, s)
}

// Shape is the input's.
func (s *Softmax) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	return x, (&arrangement{axes: s.Axes}).check(x)
}

func (s *Softmax) kernel(mode) (kernel, error) {
	return &softmax{arrangement{axes: s.Axes}, s.Log}, nil
}

type softmax struct {
	arrangement
	log bool
}

func (*softmax) inPlace() bool    { return true }
func (*softmax) needs(i int) bool { return i < 0 }

func (k *softmax) forward(c *call) error {
	k.arrangement.forward(c, func(dst, x *conv.Map) *conv.Map {
		if k.log {
			return nn.LogSoftmax(dst, x, c.workers)
		}
		return nn.Softmax(dst, x, c.workers)
	})
	return nil
}

func (k *softmax) backward(c *call) error {
	if c.dx[0] == nil {
		return nil
	}
	k.arrangement.backward(c, c.out, func(dx, dy, y *conv.Map, add bool) *conv.Map {
		if k.log {
			return nn.LogSoftmaxBackward(dx, dy, y, add, c.workers)
		}
		return nn.SoftmaxBackward(dx, dy, y, add, c.workers)
	})
	return nil
}
