package nn

import (
	"fmt"
	"math"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
)

// Reduce names a function that makes one value of all along some dimensions.
type Reduce string

// The reductions.
const (
	ReduceSum     Reduce = "sum"
	ReduceMean    Reduce = "mean"
	ReduceMax     Reduce = "max"
	ReduceMin     Reduce = "min"
	ReduceL1      Reduce = "l1"         // Σ|x|
	ReduceL2      Reduce = "l2"         // √Σx²
	ReduceSquares Reduce = "sum_square" // Σx²
)

// Validate reports a reduction that is none. The error wraps conv.ErrShape.
func (k Reduce) Validate() error {
	switch k {
	case ReduceSum, ReduceMean, ReduceMax, ReduceMin, ReduceL1, ReduceL2, ReduceSquares:
		return nil
	}
	return fmt.Errorf("%w: a reduction called %q", conv.ErrShape, k)
}

// kept is the strides of a reduction's result, which is contiguous, along dims: 0 along
// the axes. count is how many values make one.
func kept(dims, axes []int) (strides []int, count int) {
	own := slices.Clone(dims)
	count = 1
	for _, a := range axes {
		count *= dims[a]
		own[a] = 1
	}
	strides = contiguous(own)
	for _, a := range axes {
		strides[a] = 0
	}
	return strides, count
}

// Strided writes the reduction of a strided array x of dimensions dims over axes, no two
// of which are the same, to dst, which is contiguous and as large as the other
// dimensions.
func (k Reduce) Strided(dst []float32, dims []int, x []float32, strides, axes []int, workers int) {
	result, count := kept(dims, axes)
	d, s := collapse(dims, strides, result)
	stride := s[0][len(d)-1]
	r := newReduction(d, s, s[1])
	switch k {
	case ReduceMax:
		r.combine = most
	case ReduceMin:
		r.combine = least
	}
	r.run(workers, func(buf []float32, at []int) {
		var b [blockValues]float32
		in := line(&b, x, at[0], stride, len(buf))
		switch k {
		case ReduceL1:
			for i, v := range in {
				buf[i] = max(v, -v)
			}
		case ReduceL2, ReduceSquares:
			for i, v := range in {
				buf[i] = v * v
			}
		default:
			copy(buf, in)
		}
	}, func(at int, v float64) {
		switch k {
		case ReduceMean:
			v /= float64(count)
		case ReduceL2:
			v = math.Sqrt(v)
		}
		dst[at] = float32(v)
	})
}

// StridedBackward writes the gradient of Strided's x, with the strides of x, from that of
// its output y, dy, to dx, or adds it to dx if add is set. Equal largest or least values
// share the gradient. x and y are not read for sums and means.
func (k Reduce) StridedBackward(dx, dy []float32, dims []int, x []float32, strides []int, y []float32, axes []int, add bool, workers int) {
	result, count := kept(dims, axes)
	d, s := collapse(dims, strides, result)
	last := len(d) - 1
	sx, sy := s[0][last], s[1][last]
	g := dy
	scale := float32(1)
	switch k {
	case ReduceMean:
		scale = 1 / float32(count)
	case ReduceMax, ReduceMin:
		g = make([]float32, len(dy))
		newReduction(d, s, s[1]).run(workers, func(buf []float32, at []int) {
			var b, c [blockValues]float32
			in, out := line(&b, x, at[0], sx, len(buf)), line(&c, y, at[1], sy, len(buf))
			for i, v := range in {
				buf[i] = 0
				if v == out[i] {
					buf[i] = 1
				}
			}
		}, func(at int, ties float64) { g[at] = dy[at] / float32(ties) })
	}
	reads := k != ReduceSum && k != ReduceMean
	eachRow(d, s, workers, func(at []int, n int) {
		var bufG, bufX, bufY [blockValues]float32
		var in, out []float32
		if reads {
			in, out = line(&bufX, x, at[0], sx, n), line(&bufY, y, at[1], sy, n)
		}
		for i, v := range line(&bufG, g, at[1], sy, n) {
			switch k {
			case ReduceL1:
				v *= float32(sign(float64(in[i])))
			case ReduceL2:
				if in[i] != 0 {
					v *= in[i] / out[i]
				} else {
					v = 0
				}
			case ReduceSquares:
				v *= 2 * in[i]
			case ReduceMax, ReduceMin:
				if in[i] != out[i] {
					v = 0
				}
			default:
				v *= scale
			}
			if to := at[0] + i*sx; add {
				dx[to] += v
			} else {
				dx[to] = v
			}
		}
	})
}

// Forward writes the reduction of x over axes (0 to 3 for N, H, W, C) to dst (resized),
// which is 1 along them.
func (k Reduce) Forward(dst, x *conv.Map, axes []int, workers int) *conv.Map {
	dims := dimsOf(x)
	own := dims
	for _, a := range axes {
		own[a] = 1
	}
	dst = shaped(dst, own)
	k.Strided(dst.Data, dims[:], x.Data, contiguous(dims[:]), axes, workers)
	return dst
}

// Backward writes the gradient of Forward's input x, of dimensions dims, to dx (resized),
// or adds it to dx if add is set. x and the output y are not read for sums and means, and
// may then be nil.
func (k Reduce) Backward(dx, dy, x, y *conv.Map, dims [4]int, axes []int, add bool, workers int) *conv.Map {
	dx = shaped(dx, dims)
	if x == nil {
		x, y = dx, dy
	}
	k.StridedBackward(dx.Data, dy.Data, dims[:], x.Data, contiguous(dims[:]), y.Data, axes, add, workers)
	return dx
}
