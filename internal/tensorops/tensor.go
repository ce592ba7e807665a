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
	"slices"

	"gorgonia.org/tensor"
)

// ErrTensor is wrapped by errors about tensors that cannot be decomposed.
var ErrTensor = errors.New("unsuitable tensor")

// View returns the shape and the values of t in row-major order, in float64.
// The values alias t where it is a contiguous row-major tensor of float64;
// otherwise they are a copy. Masked tensors, other element types, dimensions
// of 0, scalars and values that are NaN or infinite are errors.
func View(t *tensor.Dense) (shape []int, data []float64, err error) {
	shape, data, err = ViewAny(t)
	if err != nil {
		return nil, nil, err
	}
	if i := notFinite(data); i >= 0 {
		return nil, nil, fmt.Errorf("%w: value %d is %g", ErrTensor, i, data[i])
	}
	return shape, data, nil
}

// ViewAny is View for values of which some may be NaN or infinite.
func ViewAny(t *tensor.Dense) (shape []int, data []float64, err error) {
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
	if len(t.Strides()) != len(shape) {
		return nil, nil, fmt.Errorf("%w: shape %v with strides %v", ErrTensor, shape, t.Strides())
	}
	switch v := t.Data().(type) {
	case []float64:
		if rowMajor(shape, t.Strides()) && len(v) == n {
			data = v
		} else {
			data, err = gather(shape, t.Strides(), v)
		}
	case []float32:
		data, err = gather(shape, t.Strides(), v)
	default:
		err = fmt.Errorf("%w: elements are %v, want float64 or float32", ErrTensor, t.Dtype())
	}
	if err != nil {
		return nil, nil, err
	}
	return shape, data, nil
}

// notFinite is the index of the first value that is NaN or infinite, or −1.
func notFinite(data []float64) int {
	// x−x is 0 for all others. Several sums do not wait for each other.
	var s0, s1, s2, s3 float64
	v := data
	for ; len(v) >= 4; v = v[4:] {
		s0 += v[0] - v[0]
		s1 += v[1] - v[1]
		s2 += v[2] - v[2]
		s3 += v[3] - v[3]
	}
	if s := s0 + s1 + s2 + s3; s == 0 && len(v) == 0 {
		return -1
	}
	return slices.IndexFunc(data, func(x float64) bool { return x-x != 0 })
}

// rowMajor reports whether strides are those of a contiguous row-major tensor.
// Dimensions of 1 may have any.
func rowMajor(shape, strides []int) bool {
	want := 1
	for d := len(shape) - 1; d >= 0; d-- {
		if shape[d] > 1 && strides[d] != want {
			return false
		}
		want *= shape[d]
	}
	return true
}

// gather copies the values at the strides into row-major order. The tensor
// package's own copy of a view is not used: it goes wrong on views of views.
func gather[T float32 | float64](shape, strides []int, v []T) ([]float64, error) {
	last := 0
	for d, s := range strides {
		if s < 0 {
			return nil, fmt.Errorf("%w: strides %v", ErrTensor, strides)
		}
		last += (shape[d] - 1) * s
	}
	if last >= len(v) {
		return nil, fmt.Errorf("%w: shape %v with strides %v needs %d values, got %d", ErrTensor, shape, strides, last+1, len(v))
	}
	out := make([]float64, Product(shape))
	index := make([]int, len(shape))
	at := 0
	for i := range out {
		out[i] = float64(v[at])
		for d := len(shape) - 1; d >= 0; d-- {
			index[d]++
			at += strides[d]
			if index[d] < shape[d] {
				break
			}
			at -= index[d] * strides[d]
			index[d] = 0
		}
	}
	return out, nil
}

// Wrap makes a tensor of a shape and values, which it aliases.
func Wrap(shape []int, data []float64) *tensor.Dense {
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(data))
}

// Norm is the Frobenius norm, safe against overflow and underflow.
func Norm(data []float64) float64 {
	if s := squares(data, 1); s > 1e-250 && s < 1e250 {
		return math.Sqrt(s)
	}
	var top float64
	for _, v := range data {
		top = max(top, math.Abs(v))
	}
	if top == 0 || math.IsInf(top, 0) || math.IsNaN(top) {
		return top
	}
	// Powers of two scale without rounding; 2⁻¹⁰²¹ is the least whose reciprocal is
	// finite.
	_, exp := math.Frexp(top)
	scale := math.Ldexp(1, min(-exp, 1021))
	return math.Sqrt(squares(data, scale)) / scale
}

// squares is the sum of the squares of data·scale.
func squares(data []float64, scale float64) float64 {
	var s0, s1, s2, s3 float64
	v := data
	for ; len(v) >= 4; v = v[4:] {
		a, b, c, d := v[0]*scale, v[1]*scale, v[2]*scale, v[3]*scale
		s0 += a * a
		s1 += b * b
		s2 += c * c
		s3 += d * d
	}
	for _, a := range v {
		a *= scale
		s0 += a * a
	}
	return s0 + s1 + (s2 + s3)
}

// Unit returns values and a factor that gives them unit norm, for data of the norm,
// above 0: data itself, or a copy where sums of its squares might overflow or vanish.
func Unit(data []float64, norm float64) (v []float64, scale float64) {
	if norm >= 1e-100 && norm <= 1e100 {
		return data, 1 / norm
	}
	v = make([]float64, len(data))
	for i, x := range data {
		v[i] = x / norm
	}
	return v, 1
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
