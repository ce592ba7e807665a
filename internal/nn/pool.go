package nn

import (
	"math"
	"sync"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nhwc"
)

// residualPool is the pooling of residual networks for ImageNet.
var residualPool = Window{Size: [2]int{3, 3}, Stride: [2]int{2, 2}, Begin: [2]int{1, 1}, End: [2]int{1, 1}}

// PoolSize is the size of the output of a zero MaxPool for inputs of size n.
func PoolSize(n int) int { return residualPool.outputs(0, n) }

// MaxPool is max pooling. NaN propagates, and of equal inputs the first, row by row,
// gets the gradient. A window without any input gives −Inf. It keeps from Forward what
// Backward needs.
type MaxPool struct {
	// Window is by default that of residual networks: 3×3 with stride 2 and padding 1.
	Window Window
	// For each output, its input's place among those of the window, in rows as long as
	// the widest window's. Where those are more than 256 the places are in far.
	which []uint8
	far   []int32
}

// nearPlaces is how many places an entry of MaxPool.which tells apart.
const nearPlaces = 256

type window struct {
	run            nhwc.Runner
	offsets, place []int
}

var windows = sync.Pool{New: func() any { return new(window) }}

func (p *MaxPool) window() *Window {
	if p.Window.Size == [2]int{} && p.Window.Adaptive == [2]int{} {
		return &residualPool
	}
	return &p.Window
}

// OutputSize is the size of the output for a map of h×w.
func (p *MaxPool) OutputSize(h, w int) (oh, ow int) { return p.window().OutputSize(h, w) }

// Forward writes the maxima of x to dst (resized).
func (p *MaxPool) Forward(dst, x *conv.Map, workers int) *conv.Map {
	rows, cols := p.window().side(0, x.H), p.window().side(1, x.W)
	dst = dst.Resize(x.N, len(rows.spans), len(cols.spans), x.C)
	near := rows.most*cols.most <= nearPlaces
	if near && len(p.which) < len(dst.Data) {
		p.which = make([]uint8, len(dst.Data))
	} else if !near && len(p.far) < len(dst.Data) {
		p.far = make([]int32, len(dst.Data))
	}
	spreadRows(workers, x.N*dst.H, dst.W, x.C, func(from, to, c0, c1 int) {
		w := windows.Get().(*window)
		defer windows.Put(w)
		for row := from; row < to; row++ {
			n, y := row/dst.H, &rows.spans[row%dst.H]
			image := x.Data[n*x.H*x.W*x.C : (n+1)*x.H*x.W*x.C]
			for ox := range dst.W {
				z := &cols.spans[ox]
				w.offsets, w.place = w.offsets[:0], w.place[:0]
				for ky := range y.n {
					for kx := range z.n {
						w.offsets = append(w.offsets, ((y.first+ky*rows.step)*x.W+z.first+kx*cols.step)*x.C+c0)
						w.place = append(w.place, ky*cols.most+kx)
					}
				}
				at := (row*dst.W + ox) * x.C
				out := dst.Data[at+c0 : at+c1]
				switch {
				case len(w.offsets) == 0:
					for c := range out {
						out[c] = float32(math.Inf(-1))
					}
				case !near:
					w.maxima(out, p.far[at+c0:at+c1], image)
				default:
					which := p.which[at+c0 : at+c1]
					w.run.Maxima(out, which, image, w.offsets, len(out))
					if last := len(w.place) - 1; w.place[last] != last {
						for c, v := range which {
							which[c] = uint8(w.place[v])
						}
					}
				}
			}
		}
	})
	return dst
}

// maxima is nhwc's for any number of taps.
func (w *window) maxima(dst []float32, which []int32, x []float32) {
	for t, o := range w.offsets {
		for c, v := range x[o:][:len(dst)] {
			if best := dst[c]; t == 0 || best == best && !(v <= best) {
				dst[c], which[c] = v, int32(w.place[t])
			}
		}
	}
}

// Backward writes the gradient of the input of the last Forward, h×w, to dx
// (resized), or adds it to dx if add is set.
func (p *MaxPool) Backward(dx, dy *conv.Map, h, w int, add bool, workers int) *conv.Map {
	rows, cols := p.window().side(0, h), p.window().side(1, w)
	near := rows.most*cols.most <= nearPlaces
	dx = dx.Resize(dy.N, h, w, dy.C)
	offsets := make([]int, rows.most*cols.most)
	for i := range offsets {
		offsets[i] = (i/cols.most*rows.step*w + i%cols.most*cols.step) * dy.C
	}
	eachImage(dx, add, workers, func(n, c0, c1 int) {
		image := dx.Data[n*h*w*dy.C : (n+1)*h*w*dy.C]
		for oy := range dy.H {
			for ox := range dy.W {
				y, z := &rows.spans[oy], &cols.spans[ox]
				if y.n*z.n == 0 {
					continue
				}
				at := ((n*dy.H+oy)*dy.W + ox) * dy.C
				base := (y.first*w+z.first)*dy.C + c0
				g := dy.Data[at+c0 : at+c1]
				if near {
					which := p.which[at+c0 : at+c1]
					for c, g := range g {
						image[base+offsets[which[c]]+c] += g
					}
					continue
				}
				for c, g := range g {
					image[base+offsets[p.far[at+c0+c]]+c] += g
				}
			}
		}
	})
	return dx
}

// eachImage calls f for each image of dx and ranges of its channels, made zeros first
// unless add is set: f scatters gradients to them.
func eachImage(dx *conv.Map, add bool, workers int, f func(n, c0, c1 int)) {
	spreadRows(workers, dx.N, dx.H*dx.W, dx.C, func(from, to, c0, c1 int) {
		for n := from; n < to; n++ {
			if !add {
				image := dx.Data[n*dx.H*dx.W*dx.C:][:dx.H*dx.W*dx.C]
				if c1-c0 == dx.C {
					clear(image)
				} else {
					for i := c0; i < len(image); i += dx.C {
						clear(image[i : i+c1-c0])
					}
				}
			}
			f(n, c0, c1)
		}
	})
}

// share is the weight of each input of the average of a window.
func (w *Window) share(y, z *span) float32 {
	n := y.count * z.count
	if w.Divisor != 0 && w.Adaptive == [2]int{} {
		n = w.Divisor
	}
	return 1 / float32(n)
}

// Average writes the averages of the windows of x to dst (resized). A window without
// any input gives 0.
func (w *Window) Average(dst, x *conv.Map, workers int) *conv.Map {
	rows, cols := w.side(0, x.H), w.side(1, x.W)
	dst = dst.Resize(x.N, len(rows.spans), len(cols.spans), x.C)
	spreadRows(workers, x.N*dst.H, dst.W*rows.most, x.C, func(from, to, c0, c1 int) {
		for row := from; row < to; row++ {
			n, y := row/dst.H, &rows.spans[row%dst.H]
			for ox := range dst.W {
				z := &cols.spans[ox]
				at := (row*dst.W + ox) * x.C
				out := dst.Data[at+c0 : at+c1]
				clear(out)
				if y.n*z.n == 0 {
					continue
				}
				for ky := range y.n {
					line := x.Data[(n*x.H+y.first+ky*rows.step)*x.W*x.C:]
					for kx := range z.n {
						for c, v := range line[(z.first+kx*cols.step)*x.C+c0:][:len(out)] {
							out[c] += v
						}
					}
				}
				share := w.share(y, z)
				for c := range out {
					out[c] *= share
				}
			}
		}
	})
	return dst
}

// AverageBackward writes the gradient of Average's input, h×wd, to dx (resized), or
// adds it to dx if add is set.
func (w *Window) AverageBackward(dx, dy *conv.Map, h, wd int, add bool, workers int) *conv.Map {
	rows, cols := w.side(0, h), w.side(1, wd)
	dx = dx.Resize(dy.N, h, wd, dy.C)
	eachImage(dx, add, workers, func(n, c0, c1 int) {
		line := make([]float32, c1-c0)
		for oy := range dy.H {
			for ox := range dy.W {
				y, z := &rows.spans[oy], &cols.spans[ox]
				if y.n*z.n == 0 {
					continue
				}
				share := w.share(y, z)
				for c, g := range dy.Data[((n*dy.H+oy)*dy.W+ox)*dy.C+c0:][:len(line)] {
					line[c] = g * share
				}
				for ky := range y.n {
					row := dx.Data[(n*h+y.first+ky*rows.step)*wd*dy.C:]
					for kx := range z.n {
						out := row[(z.first+kx*cols.step)*dy.C+c0:][:len(line)]
						for c, g := range line {
							out[c] += g
						}
					}
				}
			}
		}
	})
	return dx
}

// global is pooling over all pixels of a map.
var global = Window{Adaptive: [2]int{1, 1}}

// AveragePool writes the mean over all pixels of each map of x to dst (resized).
func AveragePool(dst, x *conv.Map, workers int) *conv.Map { return global.Average(dst, x, workers) }

// AveragePoolBackward writes the gradient of AveragePool's input, h×w, to dx
// (resized), or adds it to dx if add is set.
func AveragePoolBackward(dx, dy *conv.Map, h, w int, add bool, workers int) *conv.Map {
	return global.AverageBackward(dx, dy, h, w, add, workers)
}
