package conv

import "fmt"

// Transposed is a transposed convolution prepared for running: the adjoint of a
// convolution, also called deconvolution. Its output is the input gradient of that
// convolution's layer, and the gradients of one are passes of the other. It is safe for
// concurrent use as Layer is.
type Transposed struct {
	layer  *Layer
	bias   []float32
	output [2]int // padding of the output
}

// NewTransposed prepares the adjoint of k, which must have no bias. The weights of k are
// those of the transposed convolution in PyTorch's order, S×T/g×kh×kw for S input and T
// output channels: an output of k is an input here. bias has T values, or is nil for
// none. outputPadding makes the output larger at the end of each axis, by less than the
// stride or the dilation; Padding and Extra make it smaller. The error wraps ErrShape.
func NewTransposed(k *Kernel, bias []float32, outputPadding [2]int) (*Transposed, error) {
	if err := k.Validate(); err != nil {
		return nil, err
	}
	if k.Bias != nil || bias != nil && len(bias) != k.In() {
		return nil, fmt.Errorf("%w: a transposed convolution to %d channels with %d biases, and %d of the convolution's own", ErrShape, k.In(), len(bias), len(k.Bias))
	}
	g := k.Normal()
	for a, p := range outputPadding {
		if p < 0 || p >= max(g.Stride[a], g.Dilation[a]) {
			return nil, fmt.Errorf("%w: an output padding of %v with stride %v and dilation %v", ErrShape, outputPadding, g.Stride, g.Dilation)
		}
	}
	adjoint := *k
	for a, p := range outputPadding {
		adjoint.Extra[a] -= p // the convolution does not look there
	}
	t := &Transposed{layer: newLayer(&adjoint), bias: make([]float32, k.In()), output: outputPadding}
	copy(t.bias, bias)
	t.layer.inputBias = t.bias
	return t, nil
}

// In is the number of input channels S.
func (t *Transposed) In() int { return t.layer.kernel.Out() }

// Out is the number of output channels T.
func (t *Transposed) Out() int { return t.layer.kernel.In() }

// OutputSize is the size of the output map for an input map of h×w,
// (h − 1)·s − 2p − e + d(kh−1) + o + 1 for each axis, with the output padding o, and at
// least 0.
func (t *Transposed) OutputSize(h, w int) (oh, ow int) {
	k := &t.layer.kernel
	size := func(n, a int) int { // o is in Extra
		return max((n-1)*k.Stride[a]-2*k.Padding[a]-k.Extra[a]+k.Dilation[a]*(k.Shape[2+a]-1)+1, 0)
	}
	return size(h, 0), size(w, 1)
}

// MACs is the number of multiply-accumulates for one input map of h×w: one for every
// weight and input pixel.
func (t *Transposed) MACs(h, w int) int64 {
	k := &t.layer.kernel
	return int64(k.Shape[0]*k.Shape[1]*k.Taps()) * int64(h) * int64(w)
}

// Weights, KernelOrder and Update are the layer's; see Layer.Weights. Update must be
// called for a changed Bias too.
func (t *Transposed) Weights() []float32 { return t.layer.weight }

// KernelOrder copies values in the order of Weights to dst in that of the kernel.
func (t *Transposed) KernelOrder(dst, values []float32) error {
	return t.layer.KernelOrder(dst, values)
}

// SetWeights gives the layer weights in the order of the kernel, and biases where there
// are any. The error wraps ErrShape.
func (t *Transposed) SetWeights(weights, bias []float32) error {
	if k := &t.layer.kernel; len(weights) != k.Shape[0]*k.Shape[1]*k.Taps() || bias != nil && len(bias) != len(t.bias) {
		return fmt.Errorf("%w: %d weights and %d biases for a transposed kernel of %v", ErrShape, len(weights), len(bias), k.Shape)
	}
	t.layer.each(func(at, kernel int) { t.layer.weight[at] = weights[kernel] })
	copy(t.bias, bias)
	t.Update()
	return nil
}

// Update tells that the weights or biases were changed.
func (t *Transposed) Update() { t.layer.Update() }

// Bias is the memory of the biases, one for each output channel; there, as zeros, even
// where there were none.
func (t *Transposed) Bias() []float32 { return t.bias }

// Forward computes the transposed convolution of x into dst; see Layer.Forward.
func (t *Transposed) Forward(dst, x *Map, e Epilogue, workers int) (*Map, error) {
	if x.C != t.In() {
		return nil, fmt.Errorf("%w: the transposed kernel takes %d channels, the map has %d", ErrShape, t.In(), x.C)
	}
	h, w := t.OutputSize(x.H, x.W)
	if h < 1 || w < 1 || x.H < 1 || x.W < 1 {
		return nil, fmt.Errorf("%w: a map of %d×%d gives a transposed convolution of %d×%d", ErrShape, x.H, x.W, h, w)
	}
	return t.layer.InputGradient(dst, x, h, w, e, workers)
}

// InputGradient computes, from the gradient dy of the output, that of the input into
// dst, to which e is applied; see Layer.InputGradient.
func (t *Transposed) InputGradient(dst, dy *Map, e Epilogue, workers int) (*Map, error) {
	return t.layer.Forward(dst, dy, e, workers)
}

// Gradient computes the gradients of the weights and biases from the input x and the
// gradient dy of the output. They overwrite weight and bias, in the order of Weights and
// Bias; nil leaves one out. The error wraps ErrShape.
func (t *Transposed) Gradient(weight, bias []float32, x, dy *Map, workers int) error {
	if err := t.layer.fits(dy, x); err != nil {
		return err
	}
	if bias != nil {
		if len(bias) != len(t.bias) {
			return fmt.Errorf("%w: gradients of %d biases, there are %d", ErrShape, len(bias), len(t.bias))
		}
		channelSums(dy, workers, func(c int, sum float64) { bias[c] = float32(sum) })
	}
	return t.layer.Gradient(weight, nil, dy, x, workers)
}
