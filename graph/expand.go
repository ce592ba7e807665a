package graph

import "fmt"

func init() { register(func() Op { return &Expand{} }) }

// Expand repeats values along dimensions of 1.
type Expand struct {
	// Size is the shape of the output; 0 keeps the input's.
	Size []int `json:"size"`
}

// Kind is "expand".
func (*Expand) Kind() string { return "expand" }

// Shape is Size.
func (e *Expand) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	if len(x) != len(e.Size) {
		return nil, fmt.Errorf("%w: %v to %v", ErrShape, x, e.Size)
	}
	out := make(Shape, len(x))
	for i, d := range e.Size {
		if out[i] = d; d == 0 || d == 1 {
			out[i] = x[i]
		} else if x[i] != 1 && x[i] != d {
			return nil, fmt.Errorf("%w: %v to %v", ErrShape, x, e.Size)
		}
	}
	return out, nil
}

func (*Expand) kernel(mode) (kernel, error) {
	return copying{func(in, out Shape) view {
		strides := in.Strides()
		for i, d := range in {
			if d != out[i] {
				strides[i] = 0
			}
		}
		return viewed(out, strides, 0)
	}}, nil
}
