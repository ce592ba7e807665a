package graph

import (
	"fmt"
	"math"

	"github.com/lowrank-go/lowrank/internal/nn"
)

func init() { register(func() Op { return &Pad{} }) }

// Pad puts places before and behind those of dimensions, or takes some away.
type Pad struct {
	// Mode is "constant" ("" means this), "reflect" (without the edge), "edge" or "wrap";
	// all but the first are for rows and columns alone.
	Mode string `json:"mode,omitempty"`
	// Begin and End are how many places come before and behind along each dimension; of a
	// negative number so many of the tensor's own are left out.
	Begin []int `json:"begin"`
	End   []int `json:"end"`
	// Value is the constant.
	Value float64 `json:"value,omitempty"`
}

// Kind is "pad".
func (*Pad) Kind() string { return "pad" }

func (p *Pad) function() *nn.Pad {
	f := &nn.Pad{Mode: p.Mode, Value: float32(p.Value)}
	for i := range p.Begin {
		_, at := along(nil, p.Begin, i)
		f.Begin[at], f.End[at] = p.Begin[i], p.End[i]
	}
	return f
}

// Shape is the input's sizes with those of the paddings.
func (p *Pad) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	if len(x) < 1 || len(x) > 3 || len(p.Begin) != len(x) || len(p.End) != len(x) || math.IsNaN(p.Value) {
		return nil, fmt.Errorf("%w: %v padded by %v and %v with %g", ErrShape, x, p.Begin, p.End, p.Value)
	}
	out := make(Shape, len(x))
	for i, d := range x {
		b, e := p.Begin[i], p.End[i]
		if b > mostValues || e > mostValues || b <= -d || e <= -d || d+b+e < 1 {
			return nil, fmt.Errorf("%w: %v padded by %v and %v", ErrShape, x, p.Begin, p.End)
		}
		out[i] = d + b + e
	}
	return out, p.function().Validate()
}

func (p *Pad) kernel(mode) (kernel, error) { return padding{p.function()}, nil }

type padding struct{ f *nn.Pad }

func (padding) needs(int) bool { return false }

func (k padding) forward(c *call) error {
	c.out = k.f.Forward(c.out, c.in[0], c.workers)
	return nil
}

func (k padding) backward(c *call) error {
	if c.dx[0] != nil {
		h, w, ch := c.shapes[0].Layout()
		c.dx[0] = k.f.Backward(c.dx[0], c.dy, [4]int{c.dy.N, h, w, ch}, c.add[0], c.workers)
	}
	return nil
}
