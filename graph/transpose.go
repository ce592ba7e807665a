package graph

import (
	"fmt"
	"slices"
)

func init() { register(func() Op { return &Transpose{} }) }

// Transpose puts the dimensions in another order.
type Transpose struct {
	// Order lists, for each dimension of the output, the input's that it is.
	Order []int `json:"order"`
}

// Kind is "transpose".
func (*Transpose) Kind() string { return "transpose" }

// Shape is the input's sizes in Order.
func (t *Transpose) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	sorted := slices.Sorted(slices.Values(t.Order))
	for i, a := range sorted {
		if i != a {
			sorted = nil
			break
		}
	}
	if len(sorted) != len(x) {
		return nil, fmt.Errorf("%w: the dimensions of %v in the order %v", ErrShape, x, t.Order)
	}
	return pick(x, t.Order), nil
}

func (t *Transpose) kernel(mode) (kernel, error) {
	return copying{func(in, out Shape) view { return viewed(out, pick(in.Strides(), t.Order), 0) }}, nil
}
