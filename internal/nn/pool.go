package nn

import (
	"sync"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nhwc"
	"github.com/lowrank-go/lowrank/internal/parallel"
)

// MaxPool is 3×3 max pooling with stride 2 and padding 1. NaN propagates, and of
// equal inputs the first, row by row, gets the gradient. It keeps from Forward
// what Backward needs.
type MaxPool struct {
	which []uint8 // for each output, its input's place in the 3×3 window
}

const (
	poolSide = 3
	poolPad  = 1
	poolStep = 2
)

// PoolSize is the size of MaxPool's output for inputs of size n.
func PoolSize(n int) int { return (n+2*poolPad-poolSide)/poolStep + 1 }

type window struct {
	run            nhwc.Runner
	offsets, place []int
}

var windows = sync.Pool{New: func() any { return new(window) }}

// Forward writes the maxima of x to dst (resized).
func (p *MaxPool) Forward(dst, x *conv.Map, workers int) *conv.Map {
	dst = dst.Resize(x.N, PoolSize(x.H), PoolSize(x.W), x.C)
	if len(p.which) < len(dst.Data) {
		p.which = make([]uint8, len(dst.Data))
	}
	spread(workers, x.N*dst.H, dst.W*x.C, func(from, to int) {
		w := windows.Get().(*window)
		defer windows.Put(w)
		for row := from; row < to; row++ {
			n, oy := row/dst.H, row%dst.H
			for ox := range dst.W {
				w.offsets, w.place = w.offsets[:0], w.place[:0]
				for ky := range poolSide {
					for kx := range poolSide {
						y, xx := poolStep*oy+ky-poolPad, poolStep*ox+kx-poolPad
						if y >= 0 && y < x.H && xx >= 0 && xx < x.W {
							w.offsets = append(w.offsets, (y*x.W+xx)*x.C)
							w.place = append(w.place, ky*poolSide+kx)
						}
					}
				}
				at := (row*dst.W + ox) * x.C
				which := p.which[at : at+x.C]
				w.run.Maxima(dst.Data[at:at+x.C], which, x.Data[n*x.H*x.W*x.C:(n+1)*x.H*x.W*x.C], w.offsets, x.C)
				if len(w.place) < poolSide*poolSide {
					for c, v := range which {
						which[c] = uint8(w.place[v])
					}
				}
			}
		}
	})
	return dst
}

// Backward writes the gradient of the input of the last Forward, h×w, to dx
// (resized).
func (p *MaxPool) Backward(dx, dy *conv.Map, h, w, workers int) *conv.Map {
	dx = dx.Resize(dy.N, h, w, dy.C)
	parallel.For(workers, dy.N, func(n int) {
		image := dx.Data[n*h*w*dy.C : (n+1)*h*w*dy.C]
		clear(image)
		var offsets [poolSide * poolSide]int
		for i := range offsets {
			offsets[i] = (i/poolSide*w + i%poolSide) * dy.C
		}
		for oy := range dy.H {
			for ox := range dy.W {
				at := ((n*dy.H+oy)*dy.W + ox) * dy.C
				base := ((poolStep*oy-poolPad)*w + poolStep*ox - poolPad) * dy.C
				which := p.which[at : at+dy.C]
				for c, g := range dy.Data[at : at+dy.C] {
					image[base+offsets[which[c]]+c] += g
				}
			}
		}
	})
	return dx
}

// AveragePool writes the mean over all pixels of each map of x to dst (resized).
func AveragePool(dst, x *conv.Map, workers int) *conv.Map {
	dst = dst.Resize(x.N, 1, 1, x.C)
	scale := 1 / float32(x.H*x.W)
	parallel.For(workers, x.N, func(n int) {
		out := dst.Data[n*x.C : (n+1)*x.C]
		clear(out)
		for i := range x.H * x.W {
			for c, v := range x.Data[(n*x.H*x.W+i)*x.C:][:x.C] {
				out[c] += v
			}
		}
		for c := range out {
			out[c] *= scale
		}
	})
	return dst
}

// AveragePoolBackward writes the gradient of AveragePool's input, h×w, to dx
// (resized).
func AveragePoolBackward(dx, dy *conv.Map, h, w, workers int) *conv.Map {
	dx = dx.Resize(dy.N, h, w, dy.C)
	scale := 1 / float32(h*w)
	parallel.For(workers, dy.N, func(n int) {
		image := dx.Data[n*h*w*dy.C : (n+1)*h*w*dy.C]
		if len(image) == 0 {
			return
		}
		for c, g := range dy.Data[n*dy.C : (n+1)*dy.C] {
			image[c] = g * scale
		}
		for done := dy.C; done < len(image); done *= 2 {
			copy(image[done:], image[:done])
		}
	})
	return dx
}
