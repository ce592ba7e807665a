package nn

import (
	"fmt"
	"math"

	"github.com/lowrank-go/lowrank/conv"
)

// LayerNorm normalises rows of values that lie one after another (Ba et al. 2016):
// y = Weight·(x − μ)/√(σ² + Eps) + Bias, with the mean μ and the variance σ² of the row.
type LayerNorm struct {
	// Width is the length of a row: C normalises the channels of each pixel (as in
	// ConvNeXt), H·W·C each map, in the order of NHWC.
	Width int
	// Weight and Bias have a value for each of a row; nil means 1, and 0.
	Weight, Bias []float32
	Eps          float64

	mean, inverse []float64 // of each row of the last Forward
}

// Validate reports weights that are not for the rows. The error wraps conv.ErrShape.
func (l *LayerNorm) Validate() error {
	if l.Width < 1 || l.Weight != nil && len(l.Weight) != l.Width || l.Bias != nil && len(l.Bias) != l.Width {
		return fmt.Errorf("%w: %d weights and %d biases for rows of %d", conv.ErrShape, len(l.Weight), len(l.Bias), l.Width)
	}
	return nil
}

// Forward normalises x, the values of which must be whole rows, into dst (resized; it may
// be x).
func (l *LayerNorm) Forward(dst, x *conv.Map, workers int) *conv.Map {
	dst = dst.Resize(x.N, x.H, x.W, x.C)
	rows, n := len(x.Data)/l.Width, l.Width
	if len(l.mean) != rows {
		l.mean, l.inverse = make([]float64, rows), make([]float64, rows)
	}
	weight, bias := orAll(l.Weight, n, 1), orAll(l.Bias, n, 0)
	spread(workers, rows, n, func(from, to int) {
		for r := from; r < to; r++ {
			in, out := x.Data[r*n:(r+1)*n], dst.Data[r*n:(r+1)*n]
			var mean, variance float64
			for _, v := range in {
				mean += float64(v)
			}
			mean /= float64(n)
			for _, v := range in {
				d := float64(v) - mean
				variance += d * d
			}
			inverse := 1 / math.Sqrt(variance/float64(n)+l.Eps)
			l.mean[r], l.inverse[r] = mean, inverse
			for i, v := range in {
				out[i] = float32((float64(v)-mean)*inverse)*weight[i] + bias[i]
			}
		}
	})
	return dst
}

// Backward computes, from the gradient dy of the output of the last Forward of x, the
// gradients of the weights and biases, which it writes to weights and biases unless they
// are nil, and that of x, which it writes to dx (resized; it may be dy), or adds to dx if
// add is set.
func (l *LayerNorm) Backward(dx, dy, x *conv.Map, weights, biases []float32, add bool, workers int) *conv.Map {
	dx = dx.Resize(x.N, x.H, x.W, x.C)
	rows, n := len(x.Data)/l.Width, l.Width
	if weights != nil || biases != nil {
		sums := channelSums(nil, workers, rows, n, 2, func(from, to int, s []float32) {
			gain, shift := s[:n], s[n:]
			for r := from; r < to; r++ {
				mean, inverse := l.mean[r], l.inverse[r]
				in := x.Data[r*n : (r+1)*n]
				for i, g := range dy.Data[r*n : (r+1)*n] {
					gain[i] += g * float32((float64(in[i])-mean)*inverse)
					shift[i] += g
				}
			}
		})
		narrow(weights, sums[:len(weights)])
		narrow(biases, sums[n:n+len(biases)])
	}
	weight := orAll(l.Weight, n, 1)
	spread(workers, rows, n, func(from, to int) {
		for r := from; r < to; r++ {
			mean, inverse := l.mean[r], l.inverse[r]
			in, grad, out := x.Data[r*n:(r+1)*n], dy.Data[r*n:(r+1)*n], dx.Data[r*n:(r+1)*n]
			var s, product float64
			for i, g := range grad {
				d := float64(g * weight[i])
				s += d
				product += d * (float64(in[i]) - mean)
			}
			s /= float64(n)
			slope := product * inverse * inverse / float64(n)
			for i, g := range grad {
				d := float32((float64(g*weight[i]) - s - slope*(float64(in[i])-mean)) * inverse)
				if add {
					d += out[i]
				}
				out[i] = d
			}
		}
	})
	return dx
}
