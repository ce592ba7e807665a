package nn

import (
	"math"

	"github.com/lowrank-go/lowrank/conv"
)

// Softmax writes eˣ over the sum of that over the channels of each pixel to dst (resized;
// it may be x).
func Softmax(dst, x *conv.Map, workers int) *conv.Map {
	return eachPixel(dst, x, workers, func(out, in []float32, row []float64) {
		sum := shiftedExp(row, in)
		for i, v := range row {
			row[i] = v / sum
		}
		narrow(out, row)
	})
}

// LogSoftmax writes the logarithm of Softmax to dst (resized; it may be x).
func LogSoftmax(dst, x *conv.Map, workers int) *conv.Map {
	return eachPixel(dst, x, workers, func(out, in []float32, row []float64) {
		logSoftmax(row, in, 1)
		narrow(out, row)
	})
}

// shiftedExp writes e^(x − max x) to dst and returns the sum.
func shiftedExp(dst []float64, x []float32) float64 {
	widen(dst, x)
	most, sum := math.Inf(-1), 0.
	for _, v := range dst {
		most = max(most, v)
	}
	for i, v := range dst {
		dst[i] = math.Exp(v - most)
		sum += dst[i]
	}
	return sum
}

// eachPixel calls f with the channels of each pixel of dst (resized) and x and a buffer as
// long.
func eachPixel(dst, x *conv.Map, workers int, f func(out, in []float32, row []float64)) *conv.Map {
	dst = dst.Resize(x.N, x.H, x.W, x.C)
	c := x.C
	spread(workers, x.N*x.H*x.W, 4*c, func(from, to int) {
		row := make([]float64, c)
		for i := from; i < to; i++ {
			f(dst.Data[i*c:(i+1)*c], x.Data[i*c:(i+1)*c], row)
		}
	})
	return dst
}

// SoftmaxBackward writes to dx (resized; it may be dy) the gradient of Softmax's input
// from its output y and the gradient dy of that, or adds it to dx if add is set.
func SoftmaxBackward(dx, dy, y *conv.Map, add bool, workers int) *conv.Map {
	dx = dx.Resize(y.N, y.H, y.W, y.C)
	c := y.C
	spread(workers, y.N*y.H*y.W, c, func(from, to int) {
		for i := from; i < to; i++ {
			p, g, out := y.Data[i*c:(i+1)*c], dy.Data[i*c:(i+1)*c], dx.Data[i*c:(i+1)*c]
			mean := 0.
			for j, v := range p {
				mean += float64(v) * float64(g[j])
			}
			for j, v := range p {
				d := v * float32(float64(g[j])-mean)
				if add {
					d += out[j]
				}
				out[j] = d
			}
		}
	})
	return dx
}

// LogSoftmaxBackward writes to dx (resized; it may be dy) the gradient of LogSoftmax's
// input from its output y and the gradient dy of that, or adds it to dx if add is set.
func LogSoftmaxBackward(dx, dy, y *conv.Map, add bool, workers int) *conv.Map {
	dx = dx.Resize(y.N, y.H, y.W, y.C)
	c := y.C
	spread(workers, y.N*y.H*y.W, 4*c, func(from, to int) {
		row := make([]float64, c)
		for i := from; i < to; i++ {
			g, out := dy.Data[i*c:(i+1)*c], dx.Data[i*c:(i+1)*c]
			widen(row, y.Data[i*c:(i+1)*c])
			sum := 0.
			for _, v := range g {
				sum += float64(v)
			}
			for j, v := range row {
				row[j] = math.Exp(v) * sum
			}
			for j, v := range g {
				d := v - float32(row[j])
				if add {
					d += out[j]
				}
				out[j] = d
			}
		}
	})
	return dx
}
