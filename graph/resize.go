package graph

import (
	"fmt"
	"math"

	"github.com/lowrank-go/lowrank/internal/nn"
)

func init() { register(func() Op { return &Resize{} }) }

// Resize makes maps larger or smaller. By default it is PyTorch's interpolate with mode
// bilinear and align_corners=False.
type Resize struct {
	// Size is the rows and columns of the output; of two inputs it is the second's.
	Size [2]int `json:"size,omitempty"`
	// Scale, of one input and where Size is 0, is the ratio of the sizes of the output and
	// the input, which then are rounded down.
	Scale [2]float64 `json:"scale,omitzero"`
	// Mode is "linear" ("" means this), "nearest" or "cubic".
	Mode string `json:"mode,omitempty"`
	// Coordinates is where outputs are among the inputs: "half_pixel" ("" means this),
	// "pytorch_half_pixel", "half_pixel_symmetric", "align_corners" or "asymmetric", as
	// ONNX has them.
	Coordinates string `json:"coordinates,omitempty"`
	// Rounding, of "nearest", is "round_prefer_floor" ("" means this),
	// "round_prefer_ceil", "floor" or "ceil". PyTorch's nearest is asymmetric and floor.
	Rounding string `json:"rounding,omitempty"`
	// CubicA is the constant of "cubic"; 0 means −¾.
	CubicA float64 `json:"cubic_a,omitempty"`
	// ExcludeOutside makes what "cubic" reads beyond the edges count nothing.
	ExcludeOutside bool `json:"exclude_outside,omitempty"`
}

// Kind is "resize".
func (*Resize) Kind() string { return "resize" }

func (r *Resize) function() *nn.Resize {
	f := &nn.Resize{Mode: r.Mode, Coordinates: r.Coordinates, Rounding: r.Rounding, Scale: r.Scale, CubicA: r.CubicA, ExcludeOutside: r.ExcludeOutside}
	if f.Mode == "" {
		f.Mode = "linear"
	}
	return f
}

// Shape is {C, rows, columns}, or, of {C, L}, {C, columns}.
func (r *Resize) Shape(in []Shape) (Shape, error) {
	if err := r.function().Validate(); err != nil {
		return nil, err
	}
	size := r.Size
	scaled := r.Scale != [2]float64{}
	if len(in) == 2 && len(in[1]) == 3 && !scaled {
		size = [2]int{in[1][1], in[1][2]}
		in = in[:1]
	}
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	if len(x) != 2 && len(x) != 3 {
		return nil, fmt.Errorf("%w: %v resized", ErrShape, x)
	}
	h, w, c := x.Layout()
	if scaled && r.Size == [2]int{} {
		for a, n := range [2]int{h, w} {
			// A scale of ⅓ of 6 is 2, though not in floating point.
			v := math.Floor(float64(n)*r.Scale[a] + 1e-4)
			if !(v >= 1 && v <= mostValues) {
				return nil, fmt.Errorf("%w: %v resized by %v", ErrShape, x, r.Scale)
			}
			size[a] = int(v)
		}
	}
	if size[0] < 1 || size[1] < 1 || len(x) == 2 && size[0] != 1 {
		return nil, fmt.Errorf("%w: %v resized to %v", ErrShape, x, size)
	}
	if len(x) == 2 {
		return Shape{c, size[1]}, nil
	}
	return Shape{c, size[0], size[1]}, nil
}

func (r *Resize) kernel(mode) (kernel, error) { return resizing{r.function()}, nil }

type resizing struct{ f *nn.Resize }

func (resizing) needs(int) bool { return false }

func (k resizing) forward(c *call) error {
	h, w, _ := c.shape.Layout()
	c.out = k.f.Forward(c.out, c.in[0], h, w, c.workers)
	return nil
}

func (k resizing) backward(c *call) error {
	if c.dx[0] != nil {
		h, w, _ := c.shapes[0].Layout()
		c.dx[0] = k.f.Backward(c.dx[0], c.dy, h, w, c.add[0], c.workers)
	}
	if len(c.dx) > 1 && c.dx[1] != nil && !c.add[1] {
		// Of the second input only the size is read.
		c.dx[1] = c.shapes[1].resize(c.dx[1], c.dy.N)
		clear(c.dx[1].Data)
	}
	return nil
}
