package nn

import (
	"fmt"
	"math"

	"github.com/lowrank-go/lowrank/conv"
)

// Resize is how a map is resized: along each axis, every output is a sum of inputs near
// its place. Names are ONNX's; coordinates are computed in float32, as there and in
// PyTorch. Inputs beyond the edges are those at the edges.
type Resize struct {
	// Mode is "nearest", "linear" or "cubic" (Keys 1981).
	Mode string
	// Coordinates says where output i of out is among in inputs, with s = out/in:
	//
	//	half_pixel            (i + ½)/s − ½; "" means this
	//	pytorch_half_pixel    the same, and 0 where out is 1
	//	half_pixel_symmetric  the same, from the middle of the input outwards
	//	align_corners         i·(in − 1)/(out − 1), and 0 where out is 1
	//	asymmetric            i/s
	Coordinates string
	// Rounding of "nearest" is "round_prefer_floor" ("" means this), "round_prefer_ceil",
	// "floor" or "ceil". PyTorch's mode nearest is asymmetric and floor; its nearest-exact
	// is half_pixel and round_prefer_ceil.
	Rounding string
	// Scale, unless 0, is s for (rows, columns) in place of the ratio of the sizes, of
	// which rounding may make something else.
	Scale [2]float64
	// CubicA is the constant of "cubic"; 0 means −¾, PyTorch's and ONNX's.
	CubicA float64
	// ExcludeOutside makes the inputs of "cubic" beyond the edges count nothing.
	ExcludeOutside bool
}

// Validate reports names that are none. The error wraps conv.ErrShape.
func (r *Resize) Validate() error {
	switch r.Mode {
	case "nearest", "linear", "cubic":
	default:
		return fmt.Errorf("%w: to resize by %q", conv.ErrShape, r.Mode)
	}
	switch r.Coordinates {
	case "", "half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric":
	default:
		return fmt.Errorf("%w: to resize with coordinates %q", conv.ErrShape, r.Coordinates)
	}
	switch r.Rounding {
	case "", "round_prefer_floor", "round_prefer_ceil", "floor", "ceil":
	default:
		return fmt.Errorf("%w: to resize with rounding %q", conv.ErrShape, r.Rounding)
	}
	if !(r.Scale[0] >= 0 && r.Scale[1] >= 0) || r.CubicA-r.CubicA != 0 {
		return fmt.Errorf("%w: to resize by scales %v, cubic with %g", conv.ErrShape, r.Scale, r.CubicA)
	}
	return nil
}

// tap is a share of an input.
type tap struct {
	at    int
	share float32
}

// place is where output i lies among the inputs of an axis.
func (r *Resize) place(axis, i, in, out int) float32 {
	step := float32(in) / float32(out)
	scale := float32(r.Scale[axis])
	over := func(v float32) float32 { // v/s
		if scale > 0 {
			return v / scale
		}
		return step * v
	}
	switch r.Coordinates {
	case "asymmetric":
		return over(float32(i))
	case "align_corners":
		if out == 1 {
			return 0
		}
		return float32(i) * (float32(in-1) / float32(out-1))
	case "pytorch_half_pixel":
		if out == 1 {
			return 0
		}
	case "half_pixel_symmetric":
		// As if the size were not rounded.
		exact := float32(out)
		if scale > 0 {
			exact = scale * float32(in)
		}
		return float32(in)/2*(1-float32(out)/exact) + over(float32(i)+.5) - .5
	}
	return over(float32(i)+.5) - .5
}

// taps lists the inputs of each output of an axis.
func (r *Resize) taps(axis, in, out int) [][]tap {
	all := make([][]tap, out)
	for i := range all {
		// Farther outside everything is the same.
		at := min(max(r.place(axis, i, in, out), -4), float32(in+4))
		switch r.Mode {
		case "nearest":
			all[i] = []tap{{min(max(r.round(at), 0), in-1), 1}}
		case "linear":
			at = max(at, 0)
			low := min(int(at), in-1)
			high := min(at-float32(low), 1)
			all[i] = []tap{{low, 1 - high}, {min(low+1, in-1), high}}
		default:
			all[i] = r.cubic(at, in)
		}
	}
	return all
}

func (r *Resize) round(at float32) int {
	switch r.Rounding {
	case "floor":
		return int(math.Floor(float64(at)))
	case "ceil":
		return int(math.Ceil(float64(at)))
	case "round_prefer_ceil":
		return int(math.Floor(float64(at + .5)))
	}
	return int(math.Ceil(float64(at - .5)))
}

// cubic lists the four inputs around a place.
func (r *Resize) cubic(at float32, in int) []tap {
	a := float32(r.CubicA)
	if a == 0 {
		a = -.75
	}
	first := math.Floor(float64(at))
	d := at - float32(first)
	// The kernel at distances below 1, and from 1 to 2.
	near := func(x float32) float32 { return ((a+2)*x-(a+3))*x*x + 1 }
	far := func(x float32) float32 { return ((a*x-5*a)*x+8*a)*x - 4*a }
	shares := [4]float32{far(d + 1), near(d), near(1 - d), far(2 - d)}
	var total float32
	var taps []tap
	for t, s := range shares {
		i := int(first) + t - 1
		if r.ExcludeOutside && (i < 0 || i >= in) {
			continue
		}
		total += s
		taps = append(taps, tap{min(max(i, 0), in-1), s})
	}
	if r.ExcludeOutside {
		for t := range taps {
			taps[t].share /= total
		}
	}
	return taps
}

// transpose lists, for each of n inputs, the outputs that see it. Those of one output are
// one where merge is set.
func transpose(taps [][]tap, n int, merge bool) [][]tap {
	all := make([][]tap, n)
	for i, of := range taps {
		for _, t := range of {
			to := &all[t.at]
			if last := len(*to) - 1; merge && last >= 0 && (*to)[last].at == i {
				(*to)[last].share += t.share
				continue
			}
			*to = append(*to, tap{i, t.share})
		}
	}
	return all
}

// Forward writes x, resized to h×w, to dst (resized).
func (r *Resize) Forward(dst, x *conv.Map, h, w, workers int) *conv.Map {
	return weigh(dst, x, r.taps(0, x.H, h), r.taps(1, x.W, w), false, workers)
}

// Backward writes the gradient of Forward's input, h×w, to dx (resized), or adds it to dx
// if add is set.
func (r *Resize) Backward(dx, dy *conv.Map, h, w int, add bool, workers int) *conv.Map {
	return weigh(dx, dy, transpose(r.taps(0, h, dy.H), h, true), transpose(r.taps(1, w, dy.W), w, false), add, workers)
}

// weigh writes, or adds to dst, the sums of the rows and columns of x. Each is computed by
// one goroutine in one order.
func weigh(dst, x *conv.Map, rows, cols [][]tap, add bool, workers int) *conv.Map {
	h, w, c := len(rows), len(cols), x.C
	dst = dst.Resize(x.N, h, w, c)
	most := 1
	for _, t := range rows {
		most = max(most, len(t))
	}
	spread(workers, x.N*h, (w+most*x.W)*c, func(from, to int) {
		buf := make([]float32, x.W*c+c)
		pixel := buf[x.W*c:]
		for row := from; row < to; row++ {
			image := x.Data[row/h*x.H*x.W*c:]
			line := image[:x.W*c]
			if t := rows[row%h]; len(t) == 1 && t[0].share == 1 {
				line = image[t[0].at*x.W*c:][:x.W*c]
			} else {
				line = buf[:x.W*c]
				mix(line, image, t, x.W*c)
			}
			for ox, t := range cols {
				out := dst.Data[(row*w+ox)*c:][:c]
				if !add {
					mix(out, line, t, c)
					continue
				}
				mix(pixel, line, t, c)
				for i, v := range pixel {
					out[i] += v
				}
			}
		}
	})
	return dst
}

// mix writes a sum of pieces of x as long as dst, pitch apart.
func mix(dst, x []float32, taps []tap, pitch int) {
	switch {
	case len(taps) == 0:
		clear(dst)
		return
	case len(taps) == 1 && taps[0].share == 1:
		copy(dst, x[taps[0].at*pitch:])
		return
	case len(taps) == 1:
		a := x[taps[0].at*pitch:][:len(dst)]
		for i, v := range a {
			dst[i] = taps[0].share * v
		}
		return
	}
	a, b := x[taps[0].at*pitch:][:len(dst)], x[taps[1].at*pitch:][:len(dst)]
	p, q := taps[0].share, taps[1].share
	for i := range dst {
		dst[i] = p*a[i] + q*b[i]
	}
	for _, t := range taps[2:] {
		for i, v := range x[t.at*pitch:][:len(dst)] {
			dst[i] += t.share * v
		}
	}
}

// bilinear is PyTorch's interpolate with mode bilinear and align_corners=False; like that
// it does not widen its weights where it reduces.
var bilinear = Resize{Mode: "linear"}

// Bilinear resizes x to h×w, into dst (resized), both seen as covering the same side.
func Bilinear(dst, x *conv.Map, h, w, workers int) *conv.Map {
	return bilinear.Forward(dst, x, h, w, workers)
}

// BilinearBackward writes the gradient of Bilinear's input, h×w, to dx (resized), from
// that of its output.
func BilinearBackward(dx, dy *conv.Map, h, w, workers int) *conv.Map {
	return bilinear.Backward(dx, dy, h, w, false, workers)
}
