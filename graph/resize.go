package graph

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"

	"github.com/lowrank-go/lowrank/internal/nn"
)

func init() { register(func() Op { return &Resize{} }) }

// Resize makes maps larger or smaller, bilinearly, as PyTorch's interpolate with
// align_corners=False.
type Resize struct {
	// Size is the rows and columns of the output; of two inputs it is the second's.
	Size [2]int `json:"size,omitempty"`
}

// Kind is "resize".
func (*Resize) Kind() string { return "resize" }

// Shape is {C, rows, columns}.
func (r *Resize) Shape(in []Shape) (Shape, error) {
	size := r.Size
	if len(in) == 2 && len(in[1]) == 3 {
		size = [2]int{in[1][1], in[1][2]}
		in = in[:1]
	}
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	if len(x) != 3 || size[0] < 1 || size[1] < 1 {
		return nil, fmt.Errorf("%w: %v resized to %v", ErrShape, x, size)
	}
	return Shape{x[0], size[0], size[1]}, nil
}

func (r *Resize) kernel(mode) (kernel, error) { return bilinear{}, nil }

type bilinear struct{}

func (bilinear) needs(int) bool { return false }

func (bilinear) forward(c *call) error {
	c.out = nn.Bilinear(c.out, c.in[0], c.shape[1], c.shape[2], c.workers)
	return nil
}

func (bilinear) backward(c *call) error {
	c.contribute(0, func(dst *conv.Map) *conv.Map {
		return nn.BilinearBackward(dst, c.dy, c.shapes[0][1], c.shapes[0][2], c.workers)
	})
	return nil
}
