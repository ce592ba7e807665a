package nn

import (
	"math"

	"github.com/lowrank-go/lowrank/internal/parallel"
)

// reduction is sums of values over some of the dimensions of strided arrays, or the most
// or the least of them. Every sum is in float64 and in one order, in parts that depend on
// shapes alone.
type reduction struct {
	// The dimensions but the last: those that stay, and those that are added up.
	kept, summed               []int
	keptStrides, summedStrides [][]int
	last                       int   // the last dimension
	inner                      bool  // it stays
	lastStrides                []int // of it
	result                     int   // the array of the sums among the strides
	combine                    combination
}

// combination is how a reduction makes one value of two.
type combination int

const (
	total combination = iota
	most
	least
)

// first is what any value combined with is that value.
func (c combination) first() float64 {
	switch c {
	case most:
		return math.Inf(-1)
	case least:
		return math.Inf(1)
	}
	return 0
}

func (c combination) of(a, b float64) float64 {
	switch c {
	case most:
		return max(a, b)
	case least:
		return min(a, b)
	}
	return a + b
}

// Sizes of the parts.
const (
	sumParts   = 16 // where few values stay, the others are divided into so many
	partBlocks = 32 // blocks of blockValues, at least, in a part
)

// newReduction is that over the dimensions of d of more than 1 along which result, the
// last of the strides, has none.
func newReduction(d []int, strides [][]int, result []int) *reduction {
	last := len(d) - 1
	r := &reduction{last: d[last], inner: result[last] != 0, result: len(strides) - 1}
	r.keptStrides, r.summedStrides = make([][]int, len(strides)), make([][]int, len(strides))
	for i, n := range d[:last] {
		dims, to := &r.summed, r.summedStrides
		if result[i] != 0 {
			dims, to = &r.kept, r.keptStrides
		}
		*dims = append(*dims, n)
		for k, s := range strides {
			to[k] = append(to[k], s[i])
		}
	}
	for _, s := range strides {
		r.lastStrides = append(r.lastStrides, s[last])
	}
	return r
}

// run calls values with a buffer to be filled with at most blockValues neighbouring
// values along the last dimension, the first of which is at the given places of the
// arrays, and put with the place of each sum.
func (r *reduction) run(workers int, values func(buf []float32, at []int), put func(at int, sum float64)) {
	blocks := (r.last + blockValues - 1) / blockValues
	groups, units, width := volume(r.kept), volume(r.summed), 1
	if r.inner {
		groups, width = groups*blocks, min(r.last, blockValues)
	} else {
		units *= blocks
	}
	if groups == 0 {
		return
	}
	parts := max(min(sumParts/groups, units/partBlocks), 1)
	var sums []float64
	if parts > 1 {
		sums = make([]float64, parts*groups*width)
	}
	size := max(pieceValues/max(units/parts*min(r.last, blockValues), 1), 1) // groups of a task
	tasks := (groups + size - 1) / size
	strides := len(r.lastStrides)
	parallel.For(workers, tasks*parts, func(i int) {
		task, part := i/parts, i%parts
		var buf [blockValues]float32
		var acc [blockValues]float64
		at := make([]int, strides)
		for group := task * size; group < min((task+1)*size, groups); group++ {
			place, first := group, 0
			if r.inner {
				place, first = group/blocks, group%blocks*blockValues
			}
			kept := newOdometer(r.kept, r.keptStrides, place)
			for i := range acc[:width] {
				acc[i] = r.combine.first()
			}
			from, to := part*units/parts, (part+1)*units/parts
			per := units / max(volume(r.summed), 1) // units of a place of the summed dimensions
			var summed *odometer
			if from < to {
				summed = newOdometer(r.summed, r.summedStrides, from/per)
			}
			for u := from; u < to; u++ {
				start := first
				if !r.inner {
					start = u % per * blockValues
				}
				for k := range at {
					at[k] = kept.at[k] + summed.at[k] + start*r.lastStrides[k]
				}
				b := buf[:min(blockValues, r.last-start)]
				values(b, at)
				switch {
				case r.combine != total:
					for i, v := range b {
						if !r.inner {
							i = 0
						}
						acc[i] = r.combine.of(acc[i], float64(v))
					}
				case r.inner:
					for i, v := range b {
						acc[i] += float64(v)
					}
				default:
					s := 0.
					for _, v := range b {
						s += float64(v)
					}
					acc[0] += s
				}
				if (u+1)%per == 0 {
					summed.next()
				}
			}
			if parts > 1 {
				copy(sums[(part*groups+group)*width:], acc[:width])
				continue
			}
			r.put(kept.at[r.result], first, acc[:], put)
		}
	})
	if parts == 1 {
		return
	}
	for group := range groups {
		own := sums[group*width:][:width]
		for p := 1; p < parts; p++ {
			for i := range own {
				own[i] = r.combine.of(own[i], sums[(p*groups+group)*width+i])
			}
		}
		place, first := group, 0
		if r.inner {
			place, first = group/blocks, group%blocks*blockValues
		}
		r.put(newOdometer(r.kept, r.keptStrides, place).at[r.result], first, own, put)
	}
}

// put hands out the sums of a group.
func (r *reduction) put(at, first int, sums []float64, put func(at int, sum float64)) {
	if !r.inner {
		put(at, sums[0])
		return
	}
	for i, v := range sums[:min(blockValues, r.last-first)] {
		put(at+(first+i)*r.lastStrides[r.result], v)
	}
}
