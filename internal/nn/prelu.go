package nn

import "github.com/lowrank-go/lowrank/conv"

// PReLU writes x, times its channel's slope where it is negative, to dst (resized; it
// may be x). There is a slope for each channel, or one for all (He et al. 2015).
func PReLU(dst, x *conv.Map, slope []float32, workers int) *conv.Map {
	dst = dst.Resize(x.N, x.H, x.W, x.C)
	slope = perChannel(slope, x.C)
	spread(workers, x.N*x.H*x.W, x.C, func(from, to int) {
		for i := from; i < to; i++ {
			out := dst.Data[i*x.C : (i+1)*x.C]
			for c, v := range x.Data[i*x.C : (i+1)*x.C] {
				out[c] = max(v, 0) + slope[c]*min(v, 0)
			}
		}
	})
	return dst
}

// perChannel is v, which has a value for each of c channels or one for all, with a value
// for each.
func perChannel(v []float32, c int) []float32 {
	if len(v) == c {
		return v
	}
	all := make([]float32, c)
	for i := range all {
		all[i] = v[0]
	}
	return all
}

// PReLUBackward writes to dx (resized; it may be dy) the gradient of PReLU's input x from
// that of its output, dy, or adds it to dx if add is set; a nil slopes is left out, and
// else gets the gradient of the slopes. It needs x even where Forward was in place.
func PReLUBackward(dx, dy, x *conv.Map, slope, slopes []float32, add bool, workers int) *conv.Map {
	pixels, c := x.N*x.H*x.W, x.C
	if slopes != nil {
		sums := channelSums(nil, workers, pixels, c, 1, func(from, to int, sums []float32) {
			for i := from; i < to; i++ {
				in := x.Data[i*c : (i+1)*c]
				for j, g := range dy.Data[i*c : (i+1)*c] {
					sums[j] += g * min(in[j], 0)
				}
			}
		})
		if len(slopes) == 1 {
			total := 0.
			for _, s := range sums {
				total += s
			}
			sums = []float64{total}
		}
		narrow(slopes, sums)
	}
	dx = dx.Resize(x.N, x.H, x.W, x.C)
	slope = perChannel(slope, c)
	spread(workers, pixels, c, func(from, to int) {
		for i := from; i < to; i++ {
			in, out := x.Data[i*c:(i+1)*c], dx.Data[i*c:(i+1)*c]
			for j, g := range dy.Data[i*c : (i+1)*c] {
				if !(in[j] > 0) {
					g *= slope[j]
				}
				if add {
					g += out[j]
				}
				out[j] = g
			}
		}
	})
	return dx
}
