package nn

import (
	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nhwc"
)

// Scale writes x, each channel times its scale, to dst (resized; it may be x or
// residual), plus residual unless that is nil, with negative values made zero if relu is
// set.
func Scale(dst, x, residual *conv.Map, scale []float32, relu bool, workers int) *conv.Map {
	dst = dst.Resize(x.N, x.H, x.W, x.C)
	shift := make([]float32, x.C)
	spread(workers, x.N*x.H*x.W, x.C, func(from, to int) {
		var add []float32
		if residual != nil {
			add = residual.Data[from*x.C : to*x.C]
		}
		nhwc.Affine(dst.Data[from*x.C:to*x.C], x.Data[from*x.C:to*x.C], add, to-from, x.C, scale, shift, relu)
	})
	return dst
}

// Add adds x to dst, which has its shape.
func Add(dst, x *conv.Map, workers int) {
	spread(workers, x.N*x.H*x.W, x.C, func(from, to int) {
		d := dst.Data[from*x.C : to*x.C]
		sum(d, d, x.Data[from*x.C:to*x.C])
	})
}
