package graph

import "fmt"

func init() {
	register(func() Op { return &Identity{} }, func() Op { return &Dropout{} }, func() Op { return &Flatten{} })
}

// Identity gives its input.
type Identity struct{}

// Kind is "identity".
func (*Identity) Kind() string { return "identity" }

// Shape is the input's.
func (*Identity) Shape(in []Shape) (Shape, error) { return one(in) }

func (*Identity) kernel(mode) (kernel, error) {
	return nil, fmt.Errorf("%w: an identity runs", ErrGraph)
}

// Dropout makes each value zero with probability Rate while the network is trained, and
// the others larger by 1/(1−Rate) (Srivastava et al. 2014); else it gives its input.
type Dropout struct {
	Rate float64 `json:"rate"`
}

// Kind is "dropout".
func (*Dropout) Kind() string { return "dropout" }

// Shape is the input's.
func (d *Dropout) Shape(in []Shape) (Shape, error) {
	if !(d.Rate >= 0 && d.Rate < 1) {
		return nil, fmt.Errorf("%w: a dropout of %g; want 0 to 1", ErrShape, d.Rate)
	}
	return one(in)
}

// Flatten makes a vector of a tensor, in the order of PyTorch and ONNX: of a map row by
// row and channel after channel.
type Flatten struct{}

// Kind is "flatten".
func (*Flatten) Kind() string { return "flatten" }

// Shape is {product of the dimensions}.
func (*Flatten) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	return Shape{x.Len()}, nil
}
