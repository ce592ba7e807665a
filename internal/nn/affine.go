package nn

import (
	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nhwc"
)

// Affine writes x, each channel times its scale plus its shift, to dst (resized; it may
// be x); nil means scales of 1, or shifts of 0.
func Affine(dst, x *conv.Map, scale, shift []float32, workers int) *conv.Map {
	dst = dst.Resize(x.N, x.H, x.W, x.C)
	scale, shift = orAll(scale, x.C, 1), orAll(shift, x.C, 0)
	spread(workers, x.N*x.H*x.W, x.C, func(from, to int) {
		nhwc.Affine(dst.Data[from*x.C:to*x.C], x.Data[from*x.C:to*x.C], nil, to-from, x.C, scale, shift, false)
	})
	return dst
}

// orAll is v, or n values of that if v is nil.
func orAll(v []float32, n int, of float32) []float32 {
	if v != nil {
		return v
	}
	return perChannel([]float32{of}, n)
}

// AffineBackward writes to dx (resized; it may be dy) the gradient of Affine's input x
// from that of its output, dy, or adds it to dx if add is set, and writes the gradients
// of scale and shift to scales and shifts, which may be nil. x is read for scales alone.
func AffineBackward(dx, dy, x *conv.Map, scale, scales, shifts []float32, add bool, workers int) *conv.Map {
	pixels, c := dy.N*dy.H*dy.W, dy.C
	if scales != nil || shifts != nil {
		in := dy
		if scales != nil {
			in = x
		}
		mean := make([]float32, c)
		sums := channelSums(nil, workers, pixels, c, 2, func(from, to int, s []float32) {
			nhwc.Products(dy.Data[from*c:to*c], in.Data[from*c:to*c], nil, to-from, c, mean, s[:c], s[c:])
		})
		if shifts != nil {
			narrow(shifts, sums[:c])
		}
		if scales != nil {
			narrow(scales, sums[c:])
		}
	}
	dx = dx.Resize(dy.N, dy.H, dy.W, c)
	scale = orAll(scale, c, 1)
	shift := make([]float32, c)
	spread(workers, pixels, c, func(from, to int) {
		var before []float32
		if add {
			before = dx.Data[from*c : to*c]
		}
		nhwc.Affine(dx.Data[from*c:to*c], dy.Data[from*c:to*c], before, to-from, c, scale, shift, false)
	})
	return dx
}
