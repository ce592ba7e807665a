package resnet

import (
	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/parallel"
)

// padShortcut is option A: every stride-th pixel of x, with zero channels on both
// sides.
func padShortcut(dst, x *conv.Map, stride, channels, workers int) *conv.Map {
	dst = dst.Resize(x.N, (x.H+stride-1)/stride, (x.W+stride-1)/stride, channels)
	before := (channels - x.C) / 2
	parallel.For(workers, x.N, func(n int) {
		clear(dst.Data[n*dst.H*dst.W*channels : (n+1)*dst.H*dst.W*channels])
		for y := range dst.H {
			for xx := range dst.W {
				copy(dst.Data[((n*dst.H+y)*dst.W+xx)*channels+before:], x.Data[((n*x.H+y*stride)*x.W+xx*stride)*x.C:][:x.C])
			}
		}
	})
	return dst
}

// padShortcutBackward is the gradient, of the shape of x, of padShortcut's input,
// from that of its output.
func padShortcutBackward(dst, dy, x *conv.Map, stride, workers int) *conv.Map {
	dst = dst.Resize(x.N, x.H, x.W, x.C)
	before := (dy.C - x.C) / 2
	parallel.For(workers, x.N, func(n int) {
		clear(dst.Data[n*x.H*x.W*x.C : (n+1)*x.H*x.W*x.C])
		for y := range dy.H {
			for xx := range dy.W {
				copy(dst.Data[((n*x.H+y*stride)*x.W+xx*stride)*x.C:][:x.C], dy.Data[((n*dy.H+y)*dy.W+xx)*dy.C+before:])
			}
		}
	})
	return dst
}
