package nn

import (
	"fmt"
	"math"

	"github.com/lowrank-go/lowrank/conv"
)

// Dropout makes values zero at random during training and scales the others up by
// 1/(1 − Rate), so that expectations stay (Srivastava et al. 2014). What is dropped
// depends on a seed and a step alone, so Backward needs no mask that Forward left.
type Dropout struct {
	// Rate is the share that is dropped, from 0 to below 1.
	Rate float64
	// Of is what is dropped as one.
	Of DropUnit
}

// DropUnit is what Dropout drops as one.
type DropUnit int

// Single values, whole channels of a map (Tompson et al. 2015), or whole maps, which
// leaves out the branch that they come from (stochastic depth, Huang et al. 2016).
const (
	DropValues DropUnit = iota
	DropChannels
	DropMaps
)

// Validate reports a rate that is none. The error wraps conv.ErrShape.
func (d Dropout) Validate() error {
	if !(d.Rate >= 0 && d.Rate < 1) || d.Of < DropValues || d.Of > DropMaps {
		return fmt.Errorf("%w: dropout of a share of %g (of unit %d); want from 0 to below 1", conv.ErrShape, d.Rate, d.Of)
	}
	return nil
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
func (d Dropout) Forward(dst, x *conv.Map, seed, step uint64, workers int) *conv.Map {
	return d.Backward(dst, x, seed, step, false, workers)
}

// Backward writes the gradient of Forward's input from that of its output, dy, to dx
// (resized; it may be dy), or adds it to dx if add is set.
func (d Dropout) Backward(dx, dy *conv.Map, seed, step uint64, add bool, workers int) *conv.Map {
	dx = dx.Resize(dy.N, dy.H, dy.W, dy.C)
	key := splitMix(splitMix(seed+1) + step)
	scale := float32(1 / (1 - d.Rate))
	least := int64(d.Rate * (1 << 53))
	// All bits of what stays, and none of what is dropped: without a branch, which
	// nothing could predict.
	kept := func(unit int) uint32 {
		return ^uint32((int64(splitMix(key+uint64(unit))>>11) - least) >> 63)
	}
	c, pixels := dy.C, dy.H*dy.W
	spread(workers, dy.N*pixels, c, func(from, to int) {
		masks := make([]uint32, c)
		for i := from; i < to; i++ {
			switch n := i / pixels; {
			case d.Of == DropValues:
				for j := range masks {
					masks[j] = kept(i*c + j)
				}
			case i > from && i%pixels != 0: // the map's, as before
			case d.Of == DropChannels:
				for j := range masks {
					masks[j] = kept(n*c + j)
				}
			default:
				all := kept(n)
				for j := range masks {
					masks[j] = all
				}
			}
			out := dx.Data[i*c : (i+1)*c]
			for j, g := range dy.Data[i*c : (i+1)*c] {
				g = math.Float32frombits(math.Float32bits(g*scale) & masks[j])
				if add {
					g += out[j]
				}
				out[j] = g
			}
		}
	})
	return dx
}
