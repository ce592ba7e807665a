package nn

import (
	"slices"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nhwc"
)

// Permute copies a strided array of dimensions dims to dst, which is contiguous: value
// (i, j, …) of the array is x[offset + i·strides[0] + j·strides[1] + …]. Strides may be
// negative, and 0 where values are repeated. So it transposes, reverses, slices with
// steps and expands.
func Permute(dst []float32, dims []int, x []float32, offset int, strides []int, workers int) {
	move(dst, 0, contiguous(dims), x, offset, strides, dims, false, workers)
}

// PermuteBackward writes the gradient of Permute's x, the whole of which dx is, from that
// of dst, dy, or adds it to dx if add is set. What was repeated gets the sum; apart from
// strides of 0 no two values of the array may be one.
func PermuteBackward(dx []float32, dims []int, dy []float32, offset int, strides []int, add bool, workers int) {
	if volume(dims) == 0 {
		if !add {
			clear(dx)
		}
		return
	}
	repeats := false
	for i, s := range strides {
		repeats = repeats || s == 0 && dims[i] > 1
	}
	if !add {
		spread(workers, len(dx), 1, func(from, to int) { clear(dx[from:to]) })
	}
	if !repeats {
		move(dx, offset, strides, dy, 0, contiguous(dims), dims, true, workers)
		return
	}
	d, s := collapse(dims, contiguous(dims), strides)
	stride := s[0][len(d)-1]
	newReduction(d, s, s[1]).run(workers, func(buf []float32, at []int) {
		var b [blockValues]float32
		copy(buf, line(&b, dy, at[0], stride, len(buf)))
	}, func(at int, v float64) { dx[offset+at] += float32(v) })
}

// tile is the side of a square that is transposed while it is in cache.
const tile = nhwc.Panel

// move copies strided values of src to dst, no two of which are one, or adds them.
func move(dst []float32, to int, ds []int, src []float32, from int, ss []int, dims []int, add bool, workers int) {
	if volume(dims) == 0 {
		return
	}
	// Walk along dst.
	order := make([]int, len(dims))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return abs(ds[j]) - abs(ds[i]) })
	pick := func(v []int) []int {
		out := make([]int, len(v))
		for i, o := range order {
			out[i] = v[o]
		}
		return out
	}
	d, s := collapse(pick(dims), pick(ds), pick(ss))
	last := len(d) - 1
	// Where neighbours in dst are far from each other in src, and those of another
	// dimension are not, that one is last but one.
	near := last
	for i, n := range s[1] {
		if n != 0 && abs(n) < abs(s[1][near]) {
			near = i
		}
	}
	dLast, sLast := s[0][last], s[1][last]
	if near == last {
		eachRow(d, s, workers, func(at []int, n int) {
			in, out := from+at[1], to+at[0]
			switch {
			case dLast == 1 && sLast == 1 && add:
				sum(dst[out:out+n], dst[out:out+n], src[in:in+n])
			case dLast == 1 && sLast == 1:
				copy(dst[out:out+n], src[in:in+n])
			default:
				run(dst, out, dLast, src, in, sLast, n, add)
			}
		})
		return
	}
	rest := func(v []int) []int { return slices.Delete(slices.Clone(v[:last]), near, near+1) }
	outerDims, strides := rest(d), [][]int{rest(s[0]), rest(s[1])}
	m, dNear, sNear := d[near], s[0][near], s[1][near]
	// Tiles are square, and longer where the other side is short.
	tall, wide := min(m, tile), min(d[last], tile)
	tall, wide = min(m, tile*tile/wide), min(d[last], tile*tile/tall)
	tiles := (m + tall - 1) / tall
	spread(workers, volume(outerDims)*tiles, tall*d[last], func(a, b int) {
		o := newOdometer(outerDims, strides, a/tiles)
		var in, out [tile * tile]float32
		for i := a; i < b; i++ {
			first := i % tiles * tall
			height := min(tall, m-first)
			for k := 0; k < d[last]; k += wide {
				width := min(wide, d[last]-k)
				at, of := to+o.at[0]+first*dNear+k*dLast, from+o.at[1]+first*sNear+k*sLast
				switch {
				case height == tile && width == tile && dLast == 1 && sNear == 1 && !add:
					for j := range tile {
						*(*[tile]float32)(in[j*tile:]) = *(*[tile]float32)(src[of+j*sLast:])
					}
					nhwc.Transpose(out[:], in[:])
					for j := range tile {
						*(*[tile]float32)(dst[at+j*dNear:]) = *(*[tile]float32)(out[j*tile:])
					}
				case height > width:
					for j := range width {
						run(dst, at+j*dLast, dNear, src, of+j*sLast, sNear, height, add)
					}
				default:
					for j := range height {
						run(dst, at+j*dNear, dLast, src, of+j*sNear, sLast, width, add)
					}
				}
			}
			if i%tiles == tiles-1 {
				o.next()
			}
		}
	})
}

// run copies or adds n values.
func run(dst []float32, out, dStep int, src []float32, in, sStep, n int, add bool) {
	switch {
	case dStep == 1 && !add:
		for i := range dst[out : out+n] {
			dst[out+i] = src[in]
			in += sStep
		}
	case !add:
		for range n {
			dst[out] = src[in]
			out += dStep
			in += sStep
		}
	default:
		for range n {
			dst[out] += src[in]
			out += dStep
			in += sStep
		}
	}
}

func abs(n int) int { return max(n, -n) }

// shaped is m resized to dims.
func shaped(m *conv.Map, dims [4]int) *conv.Map {
	return m.Resize(dims[0], dims[1], dims[2], dims[3])
}

func dimsOf(m *conv.Map) [4]int { return [4]int{m.N, m.H, m.W, m.C} }

// Concat writes the maps xs, one behind the other along an axis (0 to 3 for N, H, W, C),
// to dst (resized). The other dimensions must be the same.
func Concat(dst *conv.Map, axis int, workers int, xs ...*conv.Map) *conv.Map {
	dims := dimsOf(xs[0])
	dims[axis] = 0
	for _, x := range xs {
		dims[axis] += dimsOf(x)[axis]
	}
	dst = shaped(dst, dims)
	strides := contiguous(dims[:])
	at := 0
	for _, x := range xs {
		own := dimsOf(x)
		move(dst.Data, at*strides[axis], strides, x.Data, 0, contiguous(own[:]), own[:], false, workers)
		at += own[axis]
	}
	return dst
}

// Slice writes size places of x along an axis (0 to 3 for N, H, W, C) to dst (resized):
// start, start + step, …. A step may be negative. The backward pass of Concat is a Slice
// for each of its inputs.
func Slice(dst, x *conv.Map, axis, start, step, size, workers int) *conv.Map {
	dims := dimsOf(x)
	strides := contiguous(dims[:])
	dims[axis] = size
	dst = shaped(dst, dims)
	offset := start * strides[axis]
	strides[axis] *= step
	Permute(dst.Data, dims[:], x.Data, offset, strides, workers)
	return dst
}

// SliceAdd adds what Slice would write to dst, which has that shape.
func SliceAdd(dst, x *conv.Map, axis, start, step, workers int) {
	full, dims := dimsOf(x), dimsOf(dst)
	strides := contiguous(full[:])
	offset := start * strides[axis]
	strides[axis] *= step
	move(dst.Data, 0, contiguous(dims[:]), x.Data, offset, strides, dims[:], true, workers)
}

// SliceBackward writes the gradient of Slice's input, which had full places along the
// axis, to dx (resized), or adds it to dx if add is set.
func SliceBackward(dx, dy *conv.Map, axis, start, step, full int, add bool, workers int) *conv.Map {
	dims := dimsOf(dy)
	whole := dims
	whole[axis] = full
	dx = shaped(dx, whole)
	strides := contiguous(whole[:])
	offset := start * strides[axis]
	strides[axis] *= step
	PermuteBackward(dx.Data, dims[:], dy.Data, offset, strides, add, workers)
	return dx
}
