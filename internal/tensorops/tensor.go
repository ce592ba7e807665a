// Package tensorops is what the decompositions do to dense tensors: the passage
// from and to the public tensor type, unfoldings, Gram matrices, mode products
// and norms, all on plain row-major slices in float64.
//
// The public type, gorgonia's tensor.Dense, is never computed with: its sums,
// products and contractions give silently wrong results on some shapes and
// views. Here it becomes a shape and a slice, once.
package tensorops

import (
	"errors"
	"fmt"
	"math"

	"gorgonia.org/tensor"
)

// ErrTensor is wrapped by errors about tensors that cannot be decomposed.
var ErrTensor = errors.New("unsuitable tensor")

// View returns the shape and the values of t in row-major order, in float64.
// The values alias t where it is a contiguous row-major tensor of float64;
// otherwise they are a copy. Masked tensors, other element types, dimensions
// of 0, scalars and values that are NaN or infinite are errors.
func View(t *tensor.Dense) (shape []int, data []float64, err error) {
	if t == nil {
		return nil, nil, fmt.Errorf("%w: nil", ErrTensor)
	}
	shape = append([]int(nil), t.Shape()...)
	n := 1
	for _, d := range shape {
		if d < 1 {
			return nil, nil, fmt.Errorf("%w: shape %v has a dimension of %d", ErrTensor, shape, d)
		}
		n *= d
	}
	if len(shape) == 0 {
		return nil, nil, fmt.Errorf("%w: a scalar has no modes", ErrTensor)
	}
	if t.IsMasked() {
		return nil, nil, fmt.Errorf("%w: masked tensors are not supported", ErrTensor)
	}
	if t.RequiresIterator() || t.DataOrder().IsColMajor() {
		m, ok := t.Materialize().(*tensor.Dense)
		if !ok {
			return nil, nil, fmt.Errorf("%w: a view of shape %v cannot be copied", ErrTensor, shape)
		}
		t = m
	}
	if t.RequiresIterator() || t.DataOrder().IsColMajor() {
		return nil, nil, fmt.Errorf("%w: want row-major order, got %v", ErrTensor, t.DataOrder())
	}
	switch v := t.Data().(type) {
	case []float64:
		data = v
	case []float32:
		data = make([]float64, len(v))
		for i, x := range v {
			data[i] = float64(x)
		}
	default:
		return nil, nil, fmt.Errorf("%w: elements are %v, want float64 or float32", ErrTensor, t.Dtype())
	}
	if len(data) != n {
		return nil, nil, fmt.Errorf("%w: shape %v needs %d values, got %d", ErrTensor, shape, n, len(data))
	}
	for i, x := range data {
		if x-x != 0 { // NaN and infinities only
			return nil, nil, fmt.Errorf("%w: value %d is %g", ErrTensor, i, x)
		}
	}
	return shape, data, nil
}

// Wrap makes a tensor of a shape and values, which it aliases.
func Wrap(shape []int, data []float64) *tensor.Dense {
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(data))
}

// Norm is the Frobenius norm, safe against overflow and underflow.
func Norm(data []float64) float64 {
	var top float64
	for _, v := range data {
		top = max(top, math.Abs(v))
	}
	if top == 0 || math.IsInf(top, 0) || math.IsNaN(top) {
		return top
	}
	// Powers of two scale without rounding.
	_, exp := math.Frexp(top)
	scale := math.Ldexp(1, -exp)
	if top > 1e-140 && top < 1e140 {
		scale = 1
	}
	var s float64
	for _, v := range data {
		v *= scale
		s += v * v
	}
	return math.Sqrt(s) / scale
}

// Dot is the inner product.
func Dot(a, b []float64) float64 {
	var s float64
	for i, v := range a {
		s += v * b[i]
	}
	return s
}

// Product is the product of the sizes, 1 of none.
func Product(sizes []int) int {
	n := 1
	for _, d := range sizes {
		n *= d
	}
	return n
}
