package graph

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/parallel"
)

func init() { register(func() Op { return &Subsample{} }) }

// Subsample takes every Stride-th pixel, beginning with the first, and puts channels of
// zeros before and behind: the shortcut of He et al. (2015), option A.
type Subsample struct {
	Stride [2]int `json:"stride"`
	Before int    `json:"before,omitempty"`
	After  int    `json:"after,omitempty"`
}

// Kind is "subsample".
func (*Subsample) Kind() string { return "subsample" }

// Shape is {C+Before+After, ⌈H/Stride⌉, ⌈W/Stride⌉}.
func (s *Subsample) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	if len(x) != 3 || s.Stride[0] < 1 || s.Stride[1] < 1 || s.Before < 0 || s.After < 0 || s.Before > mostValues || s.After > mostValues {
		return nil, fmt.Errorf("%w: every %v-th pixel of %v with %d and %d channels more", ErrShape, s.Stride, x, s.Before, s.After)
	}
	return Shape{x[0] + s.Before + s.After, (x[1] + s.Stride[0] - 1) / s.Stride[0], (x[2] + s.Stride[1] - 1) / s.Stride[1]}, nil
}

func (s *Subsample) kernel(mode) (kernel, error) { return s, nil }

func (*Subsample) needs(int) bool { return false }

// pixels calls f with the places of the pixels of image n that are taken, in the input
// and in the output.
func (s *Subsample) pixels(x, y *conv.Map, n int, f func(from, to int)) {
	for h := range y.H {
		for w := range y.W {
			f(((n*x.H+h*s.Stride[0])*x.W+w*s.Stride[1])*x.C, ((n*y.H+h)*y.W+w)*y.C+s.Before)
		}
	}
}

func (s *Subsample) forward(c *call) error {
	x := c.in[0]
	y := c.shape.resize(c.out, x.N)
	c.out = y
	parallel.For(c.workers, x.N, func(n int) {
		size := y.H * y.W * y.C
		if s.Before+s.After > 0 {
			clear(y.Data[n*size : (n+1)*size])
		}
		s.pixels(x, y, n, func(from, to int) { copy(y.Data[to:to+x.C], x.Data[from:from+x.C]) })
	})
	return nil
}

func (s *Subsample) backward(c *call) error {
	if c.dx[0] == nil {
		return nil
	}
	dy := c.dy
	dx := c.shapes[0].resize(c.dx[0], dy.N)
	c.dx[0] = dx
	parallel.For(c.workers, dy.N, func(n int) {
		size := dx.H * dx.W * dx.C
		if !c.add[0] {
			clear(dx.Data[n*size : (n+1)*size])
		}
		s.pixels(dx, dy, n, func(from, to int) {
			for i, v := range dy.Data[to : to+dx.C] {
				dx.Data[from+i] += v
			}
		})
	})
	return nil
}
