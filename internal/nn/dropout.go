package nn

import (
	"math"

	"github.com/lowrank-go/lowrank/conv"
)

// Dropout makes values zero at random during training and scales the others up by
// 1/(1 − Rate), so that expectations stay (Srivastava et al. 2014). What is dropped
// depends on a seed alone, so Backward needs no mask that Forward left.
type Dropout struct {
	// Rate is the share that is dropped, from 0 to below 1.
	Rate float64
}

// splitMix is the output function of SplitMix64 (Steele et al. 2014): numbers in a row
// give numbers that look random.
func splitMix(n uint64) uint64 {
	n *= 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

// Forward writes x without what is dropped to dst (resized; it may be x).
func (d Dropout) Forward(dst, x *conv.Map, seed uint64, workers int) *conv.Map {
	return d.Backward(dst, x, seed, false, workers)
}

// Backward writes the gradient of Forward's input from that of its output, dy, to dx
// (resized; it may be dy), or adds it to dx if add is set.
func (d Dropout) Backward(dx, dy *conv.Map, seed uint64, add bool, workers int) *conv.Map {
	dx = dx.Resize(dy.N, dy.H, dy.W, dy.C)
	key := splitMix(splitMix(seed + 1))
	scale := float32(1 / (1 - d.Rate))
	least := int64(d.Rate * (1 << 53))
	spread(workers, dy.N*dy.H*dy.W, dy.C, func(from, to int) {
		for i := from * dy.C; i < to*dy.C; i++ {
			// All bits of what stays, and none of what is dropped: without a branch, which
			// nothing could predict.
			mask := ^uint32((int64(splitMix(key+uint64(i))>>11) - least) >> 63)
			g := math.Float32frombits(math.Float32bits(dy.Data[i]*scale) & mask)
			if add {
				g += dx.Data[i]
			}
			dx.Data[i] = g
		}
	})
	return dx
}
