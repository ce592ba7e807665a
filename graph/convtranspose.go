package graph

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
)

func init() { register(func() Op { return &ConvTranspose{} }) }

// ConvTranspose is a transposed convolution: the adjoint of a convolution, whose strides
// make maps larger.
type ConvTranspose struct {
	// Kernel is S×T/g×kh×kw for S input and T output channels, PyTorch's order: the kernel
	// of the convolution that it is the adjoint of.
	Kernel [4]int `json:"-"`
	// Weight has the kernel's values, Bias T of them, or is nil.
	Weight []float32 `json:"-"`
	Bias   []float32 `json:"-"`
	// Geometry is the convolution's. OutputPadding makes the output larger at the end.
	Geometry      conv.Geometry `json:"geometry"`
	OutputPadding [2]int        `json:"output_padding,omitzero"`
	// HasBias is set where a file has biases.
	HasBias bool `json:"bias,omitempty"`
}

// NewConvTranspose is one of a kernel of S×T/g×kh×kw; bias has T values, or is nil. The
// error wraps ErrShape.
func NewConvTranspose(kernel [4]int, weight, bias []float32, g conv.Geometry, outputPadding [2]int) (*ConvTranspose, error) {
	c := &ConvTranspose{Kernel: kernel, Weight: weight, Bias: bias, Geometry: g.Normal(), OutputPadding: outputPadding, HasBias: bias != nil}
	_, err := c.layer()
	return c, err
}

// Kind is "conv_transpose".
func (*ConvTranspose) Kind() string { return "conv_transpose" }

// layer is the convolution prepared for running.
func (t *ConvTranspose) layer() (*conv.Transposed, error) {
	k, err := conv.NewKernel(t.Kernel, t.Weight, nil, t.Geometry)
	if err != nil {
		return nil, err
	}
	if t.HasBias && t.Bias == nil {
		return nil, fmt.Errorf("%w: no biases", ErrShape)
	}
	return conv.NewTransposed(k, t.Bias, t.OutputPadding)
}

// size is one axis of the output, of n inputs.
func (t *ConvTranspose) size(axis, n int) int {
	g := t.Geometry.Normal()
	return (n-1)*g.Stride[axis] - 2*g.Padding[axis] - g.Extra[axis] + g.Dilation[axis]*(t.Kernel[2+axis]-1) + t.OutputPadding[axis] + 1
}

// Shape is {T, OH, OW} of {S, H, W}, and {T, OL} of {S, L} where the kernel has one row.
func (t *ConvTranspose) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	if len(x) != 2 && len(x) != 3 || x[0] != t.Kernel[0] || x[0] < 1 {
		return nil, fmt.Errorf("%w: a transposed kernel of %v for %v", ErrShape, t.Kernel, x)
	}
	g := t.Geometry
	for a := range 2 {
		for _, v := range []int{g.Stride[a], g.Padding[a], g.Dilation[a], g.Extra[a], t.OutputPadding[a], t.Kernel[2+a]} {
			if v > 1<<20 || v < -1<<20 {
				return nil, fmt.Errorf("%w: a transposed convolution with %s", ErrShape, describe(g))
			}
		}
	}
	h, w, _ := x.Layout()
	oh, ow := t.size(0, h), t.size(1, w)
	if oh < 1 || ow < 1 || len(x) == 2 && oh != 1 {
		return nil, fmt.Errorf("%w: a transposed convolution of %d×%d of %v", ErrShape, oh, ow, x)
	}
	channels := t.Kernel[1] * max(t.Geometry.Groups, 1)
	if len(x) == 2 {
		return Shape{channels, ow}, nil
	}
	return Shape{channels, oh, ow}, nil
}

// macs counts one for each weight and input pixel.
func (t *ConvTranspose) macs(in Shape) int64 {
	h, w, _ := in.Layout()
	return int64(len(t.Weight)) * int64(h) * int64(w)
}

func (t *ConvTranspose) tensors() []tensor {
	all := []tensor{{"weight", t.Kernel[:], t.Weight}}
	if t.HasBias {
		all = append(all, tensor{"bias", []int{len(t.Bias)}, t.Bias})
	}
	return all
}

func (t *ConvTranspose) trained() int { return len(t.tensors()) }

func (t *ConvTranspose) with(get func(string) (*tensor, error)) (Op, error) {
	w, err := get("weight")
	if err != nil {
		return nil, err
	}
	out := *t
	switch s := w.shape; len(s) {
	case 3: // along columns alone
		out.Kernel = [4]int{s[0], s[1], 1, s[2]}
	case 4:
		out.Kernel = [4]int(s)
	default:
		return nil, fmt.Errorf("%w: a transposed kernel of %v", ErrShape, s)
	}
	out.Weight = w.data
	if t.HasBias {
		b, err := get("bias")
		if err != nil {
			return nil, err
		}
		out.Bias = b.data
	}
	_, err = out.layer()
	return &out, err
}

func (t *ConvTranspose) kernel(m mode) (kernel, error) {
	layer, err := t.layer()
	if err != nil || !m.train {
		return &transposed{layer: layer}, err
	}
	kinds := []ParamKind{Weight, Bias}[:t.trained()]
	return &trainedTransposed{transposed{layer: layer}, newLearned(t.tensors(), kinds...), t, nil}, nil
}

type transposed struct{ layer *conv.Transposed }

func (k *transposed) forward(c *call) error {
	var err error
	c.out, err = k.layer.Forward(c.out, c.in[0], conv.Epilogue{}, c.workers)
	return err
}

// trainedTransposed keeps its parameters in PyTorch's order.
type trainedTransposed struct {
	transposed
	*learned
	of       *ConvTranspose
	gradient []float32 // of the weights in the layer's order
}

func (k *trainedTransposed) op() Op {
	out := *k.of
	out.Weight = k.snapshot(0)
	if out.HasBias {
		out.Bias = k.snapshot(1)
	}
	return &out
}

func (k *trainedTransposed) needs(i int) bool { return i == 0 && k.grads[0] != nil }

func (k *trainedTransposed) forward(c *call) error {
	if err := k.layer.SetWeights(k.value(0), k.optional(1)); err != nil {
		return err
	}
	return k.transposed.forward(c)
}

func (k *trainedTransposed) backward(c *call) error {
	weight, bias := k.grads[0], k.learned.gradient(1)
	if weight != nil && k.gradient == nil {
		k.gradient = make([]float32, len(k.layer.Weights()))
	}
	if weight != nil || bias != nil {
		var own []float32
		if weight != nil {
			own = k.gradient
		}
		if err := k.layer.Gradient(own, bias, c.in[0], c.dy, c.workers); err != nil {
			return err
		}
		if weight != nil {
			if err := k.layer.KernelOrder(weight, own); err != nil {
				return err
			}
		}
	}
	if c.dx[0] == nil {
		return nil
	}
	var e conv.Epilogue
	if c.add[0] {
		e.Residual = c.dx[0]
	}
	var err error
	c.dx[0], err = k.layer.InputGradient(c.dx[0], c.dy, e, c.workers)
	return err
}
