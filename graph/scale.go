package graph

import (
	"fmt"
	"math"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

func init() { register(func() Op { return &Scale{} }) }

// Scale multiplies by a number.
type Scale struct {
	Value float64 `json:"value"`
	// Place is set where the sum of an adapter's module follows; see AddModule.
	Place Place `json:"place,omitempty"`
	// channels, where not nil, stand in place of Value, one for each channel.
	channels []float32
}

// Kind is "scale".
func (*Scale) Kind() string { return "scale" }

// Shape is the input's.
func (s *Scale) Shape(in []Shape) (Shape, error) {
	if math.IsNaN(s.Value) || math.IsInf(s.Value, 0) {
		return nil, fmt.Errorf("%w: a scale of %g", ErrShape, s.Value)
	}
	return one(in)
}

func (s *Scale) kernel(mode) (kernel, error) { return &scaling{value: s.Value, scale: s.channels}, nil }

type scaling struct {
	value float64
	scale []float32
}

func (k *scaling) inPlace() bool  { return true }
func (k *scaling) needs(int) bool { return false }

func (k *scaling) forward(c *call) error {
	c.out = k.run(c.out, c.in[0], nil, c.workers)
	return nil
}

func (k *scaling) run(dst, x, residual *conv.Map, workers int) *conv.Map {
	if len(k.scale) != x.C {
		k.scale = uniform(x.C, k.value)
	}
	return nn.Scale(dst, x, residual, k.scale, false, workers)
}

func (k *scaling) backward(c *call) error {
	if c.dx[0] != nil {
		var residual *conv.Map
		if c.add[0] {
			residual = c.dx[0]
		}
		c.dx[0] = k.run(c.dx[0], c.dy, residual, c.workers)
	}
	return nil
}
