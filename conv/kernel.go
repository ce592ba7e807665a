package conv

import (
	"errors"
	"fmt"
	"math"

	"gorgonia.org/tensor"
)

// ErrShape is wrapped by every error about sizes that do not fit together.
var ErrShape = errors.New("conv: shapes do not fit")

// Geometry is everything about a 2-D convolution but its weights. Pairs are
// (rows, columns). The zero value is an ordinary convolution: a stride, a
// dilation or a number of groups of 0 means 1.
type Geometry struct {
	Stride   [2]int `json:"stride"`
	Padding  [2]int `json:"padding"` // zeros added on both sides
	Dilation [2]int `json:"dilation"`
	Groups   int    `json:"groups"`
	// Extra is how many zeros more than Padding are added at the end of each axis:
	// below and on the right. It may be negative down to −Padding. TensorFlow's and
	// ONNX's "same" paddings of an odd total are Padding and an Extra of ±1.
	Extra [2]int `json:"extra,omitzero"`
}

// Normal returns g with every 0 that means 1 replaced by 1.
func (g Geometry) Normal() Geometry {
	for a := range 2 {
		g.Stride[a] = max(g.Stride[a], 1)
		g.Dilation[a] = max(g.Dilation[a], 1)
	}
	g.Groups = max(g.Groups, 1)
	return g
}

// copyAxis gives g the stride, the paddings and the dilation of o along an axis.
func (g *Geometry) copyAxis(o *Geometry, axis int) {
	g.Stride[axis], g.Padding[axis], g.Extra[axis], g.Dilation[axis] = o.Stride[axis], o.Padding[axis], o.Extra[axis], o.Dilation[axis]
}

// mostGeometry bounds strides, paddings and dilations, so that sizes do not overflow.
const mostGeometry = 1 << 24

func (g Geometry) validate() error {
	for a := range 2 {
		if g.Stride[a] < 0 || g.Padding[a] < 0 || g.Dilation[a] < 0 {
			return fmt.Errorf("%w: negative stride %v, padding %v or dilation %v", ErrShape, g.Stride, g.Padding, g.Dilation)
		}
		if max(g.Stride[a], g.Padding[a], g.Dilation[a], g.Extra[a]) > mostGeometry {
			return fmt.Errorf("%w: stride %v, padding %v, %v more at the end, or dilation %v above %d", ErrShape, g.Stride, g.Padding, g.Extra, g.Dilation, mostGeometry)
		}
		if g.Extra[a] < -g.Padding[a] {
			return fmt.Errorf("%w: a padding of %v with %v more at the end is negative there", ErrShape, g.Padding, g.Extra)
		}
	}
	if g.Groups < 0 {
		return fmt.Errorf("%w: %d groups", ErrShape, g.Groups)
	}
	return nil
}

// Kernel is the weight of a 2-D convolution with its bias and geometry.
type Kernel struct {
	// Shape is T, S/g, kh, kw: output channels, input channels of one group,
	// rows and columns.
	Shape [4]int
	// Weight holds the product of Shape values in row-major (PyTorch's) order.
	Weight []float32
	// Bias holds T values, or is nil for none.
	Bias []float32
	Geometry
}

// NewKernel checks that weight and bias have the lengths that shape asks for
// and that the geometry fits, and returns the kernel, which aliases both.
func NewKernel(shape [4]int, weight, bias []float32, g Geometry) (*Kernel, error) {
	k := &Kernel{Shape: shape, Weight: weight, Bias: bias, Geometry: g}
	if err := k.Validate(); err != nil {
		return nil, err
	}
	k.Geometry = g.Normal()
	return k, nil
}

// Validate reports sizes that do not fit together.
func (k *Kernel) Validate() error {
	n := 1
	for _, d := range k.Shape {
		if d < 1 {
			return fmt.Errorf("%w: kernel shape %v has a dimension below 1", ErrShape, k.Shape)
		}
		if n > math.MaxInt/d {
			return fmt.Errorf("%w: kernel shape %v is too large", ErrShape, k.Shape)
		}
		n *= d
	}
	if err := k.Geometry.validate(); err != nil {
		return err
	}
	if len(k.Weight) != n {
		return fmt.Errorf("%w: kernel shape %v needs %d weights, got %d", ErrShape, k.Shape, n, len(k.Weight))
	}
	if k.Bias != nil && len(k.Bias) != k.Shape[0] {
		return fmt.Errorf("%w: kernel with %d outputs needs as many biases, got %d", ErrShape, k.Shape[0], len(k.Bias))
	}
	if g := max(k.Groups, 1); k.Shape[0]%g != 0 {
		return fmt.Errorf("%w: %d outputs do not divide into %d groups", ErrShape, k.Shape[0], g)
	}
	return nil
}

// Out is the number of output channels T.
func (k *Kernel) Out() int { return k.Shape[0] }

// In is the number of input channels S, over all groups.
func (k *Kernel) In() int { return k.Shape[1] * max(k.Groups, 1) }

// Taps is P = kh·kw.
func (k *Kernel) Taps() int { return k.Shape[2] * k.Shape[3] }

// Pointwise reports whether the kernel is 1×1.
func (k *Kernel) Pointwise() bool { return k.Taps() == 1 }

// Depthwise reports whether every group has a single input channel.
func (k *Kernel) Depthwise() bool { return k.Shape[1] == 1 && k.Groups > 1 }

// Params is the number of weights and biases.
func (k *Kernel) Params() int { return len(k.Weight) + len(k.Bias) }

// OutputSize is the size of the output map for an input map of h×w,
// floor((h + 2p + e − d(kh−1) − 1)/s) + 1 for each axis, e being Extra; 0 where
// the kernel does not fit into the padded input.
func (k *Kernel) OutputSize(h, w int) (oh, ow int) {
	g := k.Normal()
	size := func(n, axis int) int {
		span := n + 2*g.Padding[axis] + g.Extra[axis] - g.Dilation[axis]*(k.Shape[2+axis]-1) - 1
		if span < 0 {
			return 0
		}
		return span/g.Stride[axis] + 1
	}
	return size(h, 0), size(w, 1)
}

// MACs is the number of multiply-accumulates for one input map of h×w,
// T·(S/g)·kh·kw·H·W with H×W the output size. Taps that fall on the padding
// count, as in every published table; biases do not.
func (k *Kernel) MACs(h, w int) int64 {
	oh, ow := k.OutputSize(h, w)
	return int64(len(k.Weight)) * int64(oh) * int64(ow)
}

// Group returns the weights of group g as an order-3 tensor (T/g)×(S/g)×P in
// float64, newly allocated: what the decompositions work on.
func (k *Kernel) Group(g int) *tensor.Dense {
	groups := max(k.Groups, 1)
	n := len(k.Weight) / groups
	data := make([]float64, n)
	for i, v := range k.Weight[g*n : (g+1)*n] {
		data[i] = float64(v)
	}
	return tensor.New(tensor.WithShape(k.Shape[0]/groups, k.Shape[1], k.Taps()), tensor.WithBacking(data))
}

// Norm is the Frobenius norm of the weights, accumulated in float64.
func (k *Kernel) Norm() float64 {
	var s float64
	for _, v := range k.Weight {
		s += float64(v) * float64(v)
	}
	return math.Sqrt(s)
}

// RelError is ‖k − o‖/‖k‖ over the weights. Where k is zero it is 0 if o is
// zero too and +Inf if not. The shapes must be equal.
func (k *Kernel) RelError(o *Kernel) (float64, error) {
	if k.Shape != o.Shape {
		return 0, fmt.Errorf("%w: kernels %v and %v", ErrShape, k.Shape, o.Shape)
	}
	var d float64
	for i, v := range k.Weight {
		e := float64(v) - float64(o.Weight[i])
		d += e * e
	}
	if d == 0 {
		return 0, nil
	}
	return math.Sqrt(d) / k.Norm(), nil
}

// ScaleOutputs multiplies the weights and the bias of output channel t by
// scale[t] and then adds shift[t] to its bias: what folding a batch norm into
// the convolution before it does. It returns a new kernel; both slices have T
// values.
func (k *Kernel) ScaleOutputs(scale, shift []float64) (*Kernel, error) {
	if len(scale) != k.Out() || len(shift) != k.Out() {
		return nil, fmt.Errorf("%w: %d scales and %d shifts for %d outputs", ErrShape, len(scale), len(shift), k.Out())
	}
	out := *k
	out.Weight = make([]float32, len(k.Weight))
	out.Bias = make([]float32, k.Out())
	row := len(k.Weight) / k.Out()
	for t := range k.Out() {
		for i, v := range k.Weight[t*row : (t+1)*row] {
			out.Weight[t*row+i] = float32(float64(v) * scale[t])
		}
		b := shift[t]
		if k.Bias != nil {
			b += float64(k.Bias[t]) * scale[t]
		}
		out.Bias[t] = float32(b)
	}
	return &out, nil
}
