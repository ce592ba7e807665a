package nn

import (
	"fmt"
	"math"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nhwc"
	"github.com/lowrank-go/lowrank/internal/parallel"
)

// GroupNorm normalises groups of channels of each map by themselves, over all pixels
// (Wu and He 2018): y = Weight·(x − μ)/√(σ² + Eps) + Bias, with the mean μ and the
// variance σ² of the group. One group is layer normalisation over H, W and C.
type GroupNorm struct {
	// Groups divides the channels. 0 makes each channel a group: instance normalisation
	// (Ulyanov et al. 2016).
	Groups int
	// Weight and Bias have a value for each channel; nil means 1, and 0.
	Weight, Bias []float32
	Eps          float64

	// Of the last Forward, for each map and channel.
	mean, inverse []float32
}

// Validate reports groups that are not for c channels. The error wraps conv.ErrShape.
func (g *GroupNorm) Validate(c int) error {
	if g.Groups < 0 || g.Groups > 0 && c%g.Groups != 0 {
		return fmt.Errorf("%w: %d channels in %d groups", conv.ErrShape, c, g.Groups)
	}
	if g.Weight != nil && len(g.Weight) != c || g.Bias != nil && len(g.Bias) != c {
		return fmt.Errorf("%w: %d weights and %d biases for %d channels", conv.ErrShape, len(g.Weight), len(g.Bias), c)
	}
	return nil
}

func (g *GroupNorm) groups(c int) int {
	if g.Groups == 0 {
		return c
	}
	return g.Groups
}

// Forward normalises x into dst (resized; it may be x).
func (g *GroupNorm) Forward(dst, x *conv.Map, workers int) *conv.Map {
	dst = dst.Resize(x.N, x.H, x.W, x.C)
	pixels, c := x.H*x.W, x.C
	if len(g.mean) != x.N*c {
		g.mean, g.inverse = make([]float32, x.N*c), make([]float32, x.N*c)
	}
	weight, bias := orAll(g.Weight, c, 1), orAll(g.Bias, c, 0)
	groups := g.groups(c)
	size := c / groups
	parallel.For(workers, x.N, func(n int) {
		in := x.Data[n*pixels*c : (n+1)*pixels*c]
		if len(in) == 0 {
			return
		}
		mean, inverse := g.mean[n*c:(n+1)*c], g.inverse[n*c:(n+1)*c]
		pivot := append([]float32(nil), in[:c]...)
		sums := channelSums(nil, workers, pixels, c, 2, func(from, to int, s []float32) {
			nhwc.Moments(in[from*c:to*c], to-from, c, pivot, s[:c], s[c:])
		})
		scale, shift := make([]float32, c), make([]float32, c)
		for first := 0; first < c; first += size {
			// The moments of the channels make those of the group.
			var mu, variance float64
			for i := first; i < first+size; i++ {
				mu += (float64(pivot[i]) + sums[i]/float64(pixels)) / float64(size)
			}
			for i := first; i < first+size; i++ {
				d := sums[i] / float64(pixels)
				off := float64(pivot[i]) + d - mu
				own := sums[c+i]/float64(pixels) - d*d
				if own < 0 { // NaN stays
					own = 0
				}
				variance += (own + off*off) / float64(size)
			}
			inv := 1 / math.Sqrt(variance+g.Eps)
			for i := first; i < first+size; i++ {
				mean[i], inverse[i] = float32(mu), float32(inv)
				s := float64(weight[i]) * inv
				scale[i], shift[i] = float32(s), float32(float64(bias[i])-mu*s)
			}
		}
		spread(workers, pixels, c, func(from, to int) {
			nhwc.Affine(dst.Data[(n*pixels+from)*c:(n*pixels+to)*c], in[from*c:to*c], nil, to-from, c, scale, shift, false)
		})
	})
	return dst
}

// Backward computes, from the gradient dy of the output of the last Forward of x, the
// gradients of the weights and biases, which it writes to weights and biases unless they
// are nil, and that of x, which it writes to dx (resized; it may be dy), or adds to dx if
// add is set.
func (g *GroupNorm) Backward(dx, dy, x *conv.Map, weights, biases []float32, add bool, workers int) *conv.Map {
	dx = dx.Resize(x.N, x.H, x.W, x.C)
	pixels, c := x.H*x.W, x.C
	weight := orAll(g.Weight, c, 1)
	size := c / g.groups(c)
	gains := make([]float64, 2*x.N*c) // of each map: weights, biases
	parallel.For(workers, x.N, func(n int) {
		in, grad := x.Data[n*pixels*c:(n+1)*pixels*c], dy.Data[n*pixels*c:(n+1)*pixels*c]
		mean, inverse := g.mean[n*c:(n+1)*c], g.inverse[n*c:(n+1)*c]
		sums := channelSums(nil, workers, pixels, c, 2, func(from, to int, s []float32) {
			nhwc.Products(grad[from*c:to*c], in[from*c:to*c], nil, to-from, c, mean, s[:c], s[c:])
		})
		// dx = a·dy + s·x + t, with a = weight/√…
		all := make([]float32, 3*c)
		a, s, t := all[:c], all[c:2*c], all[2*c:]
		for first := 0; first < c; first += size {
			mu, inv := float64(mean[first]), float64(inverse[first])
			var sum, product float64 // of weight·dy, and of that and the normalised x
			for i := first; i < first+size; i++ {
				gains[2*n*c+i], gains[(2*n+1)*c+i] = sums[c+i]*inv, sums[i]
				sum += float64(weight[i]) * sums[i]
				product += float64(weight[i]) * sums[c+i] * inv
			}
			values := float64(pixels * size)
			slope := -inv * inv * product / values
			for i := first; i < first+size; i++ {
				a[i] = float32(float64(weight[i]) * inv)
				s[i], t[i] = float32(slope), float32(-inv*sum/values-slope*mu)
			}
		}
		spread(workers, pixels, c, func(from, to int) {
			affinePair(dx.Data[(n*pixels+from)*c:(n*pixels+to)*c], grad[from*c:to*c], in[from*c:to*c], to-from, c, a, s, t, add)
		})
	})
	for k, out := range [][]float32{weights, biases} {
		for i := range out {
			total := 0.
			for n := range x.N {
				total += gains[(2*n+k)*c+i]
			}
			out[i] = float32(total)
		}
	}
	return dx
}

// affinePair writes a·x + b·y + t to dst, channel by channel, or adds it.
func affinePair(dst, x, y []float32, pixels, c int, a, b, t []float32, add bool) {
	if !add {
		nhwc.AffinePair(dst, x, y, pixels, c, a, b, t)
		return
	}
	rows := max(pieceValues/16/c, 1)
	buf := make([]float32, min(rows, pixels)*c)
	for i := 0; i < pixels; i += rows {
		n := min(rows, pixels-i)
		at, end := i*c, (i+n)*c
		nhwc.AffinePair(buf, x[at:end], y[at:end], n, c, a, b, t)
		sum(dst[at:end], dst[at:end], buf[:n*c])
	}
}
