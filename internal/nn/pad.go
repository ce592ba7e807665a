package nn

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
)

// Pad is how a map gets more places before and behind its own, or fewer.
type Pad struct {
	// Mode is "constant" ("" means this), "reflect" (without the edge), "edge" or "wrap".
	Mode string
	// Begin and End are how many places come before and behind along N, H, W and C; of a
	// negative number so many of the map's own are left out. Modes other than "constant"
	// pad H and W alone.
	Begin, End [4]int
	// Value is the constant.
	Value float32
}

// mostPad bounds paddings, so that no sum overflows.
const mostPad = 1 << 24

// Validate reports a mode that is none or not for the axes, or paddings without end. The error wraps
// conv.ErrShape.
func (p *Pad) Validate() error {
	for a := range p.Begin {
		if min(p.Begin[a], p.End[a]) < -mostPad || max(p.Begin[a], p.End[a]) > mostPad {
			return fmt.Errorf("%w: paddings of %v and %v", conv.ErrShape, p.Begin, p.End)
		}
	}
	switch p.Mode {
	case "", "constant":
		return nil
	case "reflect", "edge", "wrap":
		if p.Begin[0]|p.End[0]|p.Begin[3]|p.End[3] != 0 {
			return fmt.Errorf("%w: to pad the batch or the channels by %q", conv.ErrShape, p.Mode)
		}
		return nil
	}
	return fmt.Errorf("%w: to pad by %q", conv.ErrShape, p.Mode)
}

// OutputSize is the dimensions of the output for a map of dimensions dims (N, H, W, C).
// The error, of an output that is empty, wraps conv.ErrShape.
func (p *Pad) OutputSize(dims [4]int) ([4]int, error) {
	out := dims
	for a := range out {
		if out[a] += p.Begin[a] + p.End[a]; out[a] < 1 || p.Begin[a] <= -dims[a] || p.End[a] <= -dims[a] {
			return dims, fmt.Errorf("%w: a map of %v padded by %v and %v is empty", conv.ErrShape, dims, p.Begin, p.End)
		}
	}
	return out, nil
}

func (p *Pad) constant() bool { return p.Mode == "" || p.Mode == "constant" }

// source is the input of output i of an axis of n inputs, for the modes other than
// constant.
func (p *Pad) source(axis, i, n int) int {
	i -= p.Begin[axis]
	switch p.Mode {
	case "edge":
		return min(max(i, 0), n-1)
	case "wrap":
		return (i%n + n) % n
	}
	if n == 1 {
		return 0
	}
	period := 2 * (n - 1)
	i = (i%period + period) % period
	return min(i, period-i)
}

func (p *Pad) taps(axis, n int) [][]tap {
	all := make([][]tap, n+p.Begin[axis]+p.End[axis])
	for i := range all {
		all[i] = []tap{{p.source(axis, i, n), 1}}
	}
	return all
}

// interior is what input and output of dimensions in and out share: its dimensions, and
// where it begins in both.
func (p *Pad) interior(in, out [4]int) (dims [4]int, from, to int) {
	is, os := contiguous(in[:]), contiguous(out[:])
	for a := range dims {
		first := max(-p.Begin[a], 0)
		dims[a] = max(min(in[a], in[a]+p.End[a])-first, 0)
		from += first * is[a]
		to += max(p.Begin[a], 0) * os[a]
	}
	return dims, from, to
}

// Forward writes the padded x to dst (resized). The output must not be empty.
func (p *Pad) Forward(dst, x *conv.Map, workers int) *conv.Map {
	if !p.constant() {
		return weigh(dst, x, p.taps(1, x.H), p.taps(2, x.W), false, workers)
	}
	in := dimsOf(x)
	out, err := p.OutputSize(in)
	if err != nil {
		panic(err)
	}
	dst = shaped(dst, out)
	spread(workers, len(dst.Data), 1, func(from, to int) {
		d := dst.Data[from:to]
		for i := range d {
			d[i] = p.Value
		}
	})
	dims, from, to := p.interior(in, out)
	move(dst.Data, to, contiguous(out[:]), x.Data, from, contiguous(in[:]), dims[:], false, workers)
	return dst
}

// Backward writes the gradient of Forward's input, of dimensions dims, to dx (resized), or
// adds it to dx if add is set.
func (p *Pad) Backward(dx, dy *conv.Map, dims [4]int, add bool, workers int) *conv.Map {
	if !p.constant() {
		rows, cols := transpose(p.taps(1, dims[1]), dims[1], true), transpose(p.taps(2, dims[2]), dims[2], true)
		return weigh(dx, dy, rows, cols, add, workers)
	}
	dx = shaped(dx, dims)
	if !add {
		spread(workers, len(dx.Data), 1, func(from, to int) { clear(dx.Data[from:to]) })
	}
	out := dimsOf(dy)
	inner, from, to := p.interior(dims, out)
	move(dx.Data, from, contiguous(dims[:]), dy.Data, to, contiguous(out[:]), inner[:], true, workers)
	return dx
}
