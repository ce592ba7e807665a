package graph

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
)

// Conv is a convolution, the chain of small ones in its place, or a linear layer.
type Conv struct {
	Chain *conv.Chain
	// Linear is set for a linear layer on a vector: its kernel is 1×1.
	Linear bool
}

// Kind is "conv" or "linear".
func (c *Conv) Kind() string {
	if c.Linear {
		return "linear"
	}
	return "conv"
}

// Shape is {T, H, W} of {S, H, W}, {T, L} of {S, L}, where the kernel has one row, and,
// of a linear layer, {T} of {S}.
func (c *Conv) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	if c.Linear != (len(x) == 1) || len(x) < 1 || len(x) > 3 {
		return nil, fmt.Errorf("%w: a %s on %v", ErrShape, c.Kind(), x)
	}
	if x[0] != c.Chain.In() {
		return nil, fmt.Errorf("%w: it takes %d channels, its input %v has %d", ErrShape, c.Chain.In(), x, x[0])
	}
	h, w, _ := x.Layout()
	if err := c.padded(h, w); err != nil {
		return nil, err
	}
	oh, ow := c.Chain.OutputSize(h, w)
	if oh < 1 || ow < 1 {
		return nil, fmt.Errorf("%w: its input %v is smaller than its kernel", ErrShape, x)
	}
	switch {
	case len(x) == 1:
		return Shape{c.Chain.Out()}, nil
	case len(x) == 2 && oh != 1:
		return nil, fmt.Errorf("%w: a kernel of several rows on %v", ErrShape, x)
	case len(x) == 2:
		return Shape{c.Chain.Out(), ow}, nil
	}
	return Shape{c.Chain.Out(), oh, ow}, nil
}

// padded reports stages whose input, which is copied with its padding, takes more than
// mostValues.
func (c *Conv) padded(h, w int) error {
	for _, s := range c.Chain.Stages {
		g := s.Normal()
		ph, pw := h+2*g.Padding[0]+g.Extra[0], w+2*g.Padding[1]+g.Extra[1]
		if err := (Shape{s.In(), ph, pw}).check(); err != nil {
			return fmt.Errorf("an input of %d×%d with a padding of %v and %v more at the end: %w", h, w, g.Padding, g.Extra, err)
		}
		if h, w = s.OutputSize(h, w); h < 1 || w < 1 {
			return nil // which the caller reports
		}
	}
	return nil
}

func (c *Conv) macs(in Shape) int64 {
	h, w, _ := in.Layout()
	return c.Chain.MACs(h, w)
}

func (c *Conv) kernel(mode) (kernel, error) {
	return nil, fmt.Errorf("%w: a convolution is a step of its own", ErrGraph)
}
