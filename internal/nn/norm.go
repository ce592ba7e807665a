package nn

import (
	"math"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nhwc"
)

// BatchNorm normalises each channel over a batch and scales it (Ioffe and Szegedy
// 2015): y = Weight·(x − μ)/√(σ² + Eps) + Bias, with the mean μ and the variance
// σ² of the batch. All slices have a value for each channel.
type BatchNorm struct {
	Weight, Bias []float32
	// Mean and Var are what eval mode uses: after each Forward they move towards
	// the batch's, by the share Momentum (PyTorch's convention; the variance is
	// the unbiased one).
	Mean, Var     []float32
	Momentum, Eps float64

	// Of the last Forward, for Backward.
	mean, inverse []float32
	scale, shift  []float32
	sums          []float64
}

// reduce is channelSums of two kinds, valid until the next call.
func (b *BatchNorm) reduce(workers, pixels, channels int, f func(from, to int, sum, product []float32)) (sums, products []float64) {
	b.sums = channelSums(b.sums, workers, pixels, channels, 2, func(from, to int, s []float32) { f(from, to, s[:channels], s[channels:]) })
	return b.sums[:channels], b.sums[channels : 2*channels]
}

func (b *BatchNorm) grow(channels int) {
	if len(b.mean) != channels {
		v := make([]float32, 4*channels)
		b.mean, b.inverse, b.scale, b.shift = v[:channels], v[channels:2*channels], v[2*channels:3*channels], v[3*channels:]
	}
}

// Forward normalises x into dst (resized; it may be x), adds residual unless nil,
// and makes negative values zero if relu is set.
func (b *BatchNorm) Forward(dst, x, residual *conv.Map, relu bool, workers int) *conv.Map {
	dst = dst.Resize(x.N, x.H, x.W, x.C)
	pixels, c := x.N*x.H*x.W, x.C
	if pixels == 0 {
		return dst
	}
	b.grow(c)
	pivot := b.shift // until it is computed
	copy(pivot, x.Data)
	sums, squares := b.reduce(workers, pixels, c, func(from, to int, sum, square []float32) {
		nhwc.Moments(x.Data[from*c:to*c], to-from, c, pivot, sum, square)
	})
	n := float64(pixels)
	for i := range c {
		d := sums[i] / n
		mean, variance := float64(pivot[i])+d, max(squares[i]/n-d*d, 0)
		if squares[i] != squares[i] {
			variance = math.NaN()
		}
		inverse := 1 / math.Sqrt(variance+b.Eps)
		scale := float64(b.Weight[i]) * inverse
		b.mean[i], b.inverse[i] = float32(mean), float32(inverse)
		b.scale[i], b.shift[i] = float32(scale), float32(float64(b.Bias[i])-mean*scale)
		b.Mean[i] += float32(b.Momentum * (mean - float64(b.Mean[i])))
		if pixels > 1 {
			b.Var[i] += float32(b.Momentum * (variance*n/(n-1) - float64(b.Var[i])))
		}
	}
	var r []float32
	if residual != nil {
		r = residual.Data[:pixels*c]
	}
	spread(workers, pixels, c, func(from, to int) {
		var add []float32
		if r != nil {
			add = r[from*c : to*c]
		}
		nhwc.Affine(dst.Data[from*c:to*c], x.Data[from*c:to*c], add, to-from, c, b.scale, b.shift, relu)
	})
	return dst
}

// Backward computes, from the gradient dy of the output of the last Forward of x,
// the gradients of weight and bias, which it writes, and that of x, which it
// writes to dx (resized; it may be dy). If out is not nil it is the output of
// that Forward with relu, and dy is first made zero where out is not positive:
// it is then the gradient of the residual too.
func (b *BatchNorm) Backward(dx, dy, x, out *conv.Map, weight, bias []float32, workers int) *conv.Map {
	dx = dx.Resize(x.N, x.H, x.W, x.C)
	pixels, c := x.N*x.H*x.W, x.C
	if pixels == 0 {
		clear(weight)
		clear(bias)
		return dx
	}
	sums, products := b.reduce(workers, pixels, c, func(from, to int, sum, product []float32) {
		var mask []float32
		if out != nil {
			mask = out.Data[from*c : to*c]
		}
		nhwc.Products(dy.Data[from*c:to*c], x.Data[from*c:to*c], mask, to-from, c, b.mean, sum, product)
	})
	n := float64(pixels)
	// dx = a·dy + s·x + t, with a = Weight/√…
	shares := make([]float32, 2*c)
	s, t := shares[:c], shares[c:]
	for i := range c {
		inverse, a := float64(b.inverse[i]), float64(b.scale[i])
		gain := products[i] * inverse
		weight[i], bias[i] = float32(gain), float32(sums[i])
		slope := -a * inverse * gain / n
		s[i], t[i] = float32(slope), float32(-a*sums[i]/n-slope*float64(b.mean[i]))
	}
	spread(workers, pixels, c, func(from, to int) {
		nhwc.AffinePair(dx.Data[from*c:to*c], dy.Data[from*c:to*c], x.Data[from*c:to*c], to-from, c, b.scale, s, t)
	})
	return dx
}

// fixed sets scale and shift from the running statistics.
func (b *BatchNorm) fixed() {
	b.grow(len(b.Weight))
	for i := range b.Weight {
		inverse := 1 / math.Sqrt(float64(b.Var[i])+b.Eps)
		scale := float64(b.Weight[i]) * inverse
		b.mean[i], b.inverse[i] = b.Mean[i], float32(inverse)
		b.scale[i], b.shift[i] = float32(scale), float32(float64(b.Bias[i])-float64(b.Mean[i])*scale)
	}
}

// ForwardFixed is Forward with the running statistics in place of the batch's, as in
// eval mode; it leaves them as they are.
func (b *BatchNorm) ForwardFixed(dst, x, residual *conv.Map, relu bool, workers int) *conv.Map {
	dst = dst.Resize(x.N, x.H, x.W, x.C)
	b.fixed()
	spread(workers, x.N*x.H*x.W, x.C, func(from, to int) {
		var add []float32
		if residual != nil {
			add = residual.Data[from*x.C : to*x.C]
		}
		nhwc.Affine(dst.Data[from*x.C:to*x.C], x.Data[from*x.C:to*x.C], add, to-from, x.C, b.scale, b.shift, relu)
	})
	return dst
}

// BackwardFixed is Backward for ForwardFixed, whose x may have been overwritten if
// weight and bias, which are then not computed, are nil.
func (b *BatchNorm) BackwardFixed(dx, dy, x, out *conv.Map, weight, bias []float32, workers int) *conv.Map {
	dx = dx.Resize(dy.N, dy.H, dy.W, dy.C)
	pixels, c := dy.N*dy.H*dy.W, dy.C
	b.fixed()
	switch {
	case weight != nil:
		sums, products := b.reduce(workers, pixels, c, func(from, to int, sum, product []float32) {
			var mask []float32
			if out != nil {
				mask = out.Data[from*c : to*c]
			}
			nhwc.Products(dy.Data[from*c:to*c], x.Data[from*c:to*c], mask, to-from, c, b.mean, sum, product)
		})
		for i := range c {
			weight[i], bias[i] = float32(products[i]*float64(b.inverse[i])), float32(sums[i])
		}
	case out != nil:
		Mask(dy, out, workers)
	}
	clear(b.shift)
	spread(workers, pixels, c, func(from, to int) {
		nhwc.Affine(dx.Data[from*c:to*c], dy.Data[from*c:to*c], nil, to-from, c, b.scale, b.shift, false)
	})
	return dx
}

// Mask is the backward pass of ReLU: it makes dy zero where its output out is not
// positive.
func Mask(dy, out *conv.Map, workers int) {
	spread(workers, dy.N*dy.H*dy.W, dy.C, func(from, to int) {
		// The sums are not wanted, but the loop is there and as fast as memory.
		sums := make([]float32, 3*dy.C)
		o := out.Data[from*dy.C : to*dy.C]
		nhwc.Products(dy.Data[from*dy.C:to*dy.C], o, o, to-from, dy.C, sums[:dy.C], sums[dy.C:2*dy.C], sums[2*dy.C:])
	})
}
