package nn

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/parallel"
)

// Window says which inputs each output of a pooling layer sees. Pairs are (rows,
// columns).
type Window struct {
	// Size, Stride and Dilation are the window's taps, the distance of neighbouring
	// windows and that of neighbouring taps; a stride or a dilation of 0 means 1.
	Size, Stride, Dilation [2]int
	// Begin and End are how far windows may reach over the edges of the map: above and
	// on the left, and below and on the right. No input is there.
	Begin, End [2]int
	// Ceil adds the window that the end of the map cuts off, unless it would begin
	// behind the map (PyTorch's and ONNX's ceil_mode).
	Ceil bool
	// CountPadding makes an average divide by the taps within the map and the paddings
	// Begin and End, in place of those within the map alone. Taps that only Ceil allows
	// never count.
	CountPadding bool
	// Divisor, unless 0, is what an average divides by (PyTorch's divisor_override).
	Divisor int
	// Adaptive, unless 0, is the size of the output, and nothing above counts: window i
	// of n outputs covers inputs ⌊i·h/n⌋ to ⌈(i+1)·h/n⌉. 1×1 is global pooling.
	Adaptive [2]int
}

// Validate reports windows that are none. The error wraps conv.ErrShape.
func (w *Window) Validate() error {
	if w.Adaptive[0] > 0 && w.Adaptive[1] > 0 {
		return nil
	}
	for a := range 2 {
		if w.Adaptive[a] != 0 || w.Size[a] < 1 || w.Stride[a] < 0 || w.Dilation[a] < 0 || w.Begin[a] < 0 || w.End[a] < 0 {
			return fmt.Errorf("%w: a window of %v with stride %v, dilation %v and paddings %v and %v, or an adaptive one of %v",
				conv.ErrShape, w.Size, w.Stride, w.Dilation, w.Begin, w.End, w.Adaptive)
		}
	}
	return nil
}

// OutputSize is the size of the output for a map of h×wd: for each axis
// floor((n + begin + end − d(k−1) − 1)/s) + 1, or with Ceil the ceiling, less a window
// that would begin behind the map; at least 0.
func (w *Window) OutputSize(h, wd int) (oh, ow int) { return w.outputs(0, h), w.outputs(1, wd) }

func (w *Window) outputs(axis, n int) int {
	if w.Adaptive[axis] > 0 {
		return w.Adaptive[axis]
	}
	stride := max(w.Stride[axis], 1)
	span := n + w.Begin[axis] + w.End[axis] - max(w.Dilation[axis], 1)*(w.Size[axis]-1) - 1
	if !w.Ceil {
		if span < 0 {
			return 0
		}
		return span/stride + 1
	}
	if span += stride - 1; span < 0 {
		return 0
	}
	out := span/stride + 1
	if (out-1)*stride >= n+w.Begin[axis] {
		out--
	}
	return out
}

// span is what an output sees along an axis: the inputs origin + t·step for t in
// [first,last). count is what those count for in an average's divisor.
type span struct{ origin, first, last, count int }

// side is the spans of all outputs of an axis of n inputs.
type side struct {
	n, step int
	taps    int // of the largest window, outside ones too
	spans   []span
}

func (w *Window) side(axis, n int) side {
	if out := w.Adaptive[axis]; out > 0 {
		s := side{n: n, step: 1, spans: make([]span, out)}
		for i := range s.spans {
			from, to := i*n/out, ((i+1)*n+out-1)/out
			s.spans[i] = span{origin: from, last: to - from, count: to - from}
			s.taps = max(s.taps, to-from)
		}
		return s
	}
	s := side{n: n, step: max(w.Dilation[axis], 1), taps: w.Size[axis], spans: make([]span, w.outputs(axis, n))}
	for i := range s.spans {
		p := span{origin: i*max(w.Stride[axis], 1) - w.Begin[axis], last: s.taps}
		if p.origin < 0 {
			p.first = min((-p.origin+s.step-1)/s.step, s.taps)
		}
		within := func(end int) int { // taps before end
			return min(max((end-p.origin+s.step-1)/s.step, 0), s.taps)
		}
		p.last = max(within(n), p.first)
		p.count = p.last - p.first
		if w.CountPadding {
			p.count = within(n + w.End[axis])
		}
		s.spans[i] = p
	}
	return s
}

// channelBlock is how many channels at least a goroutine takes of few rows.
const channelBlock = 32

// spreadRows calls f for ranges of n rows of width pixels, and ranges of their c
// channels where there are few rows.
func spreadRows(workers, n, width, c int, f func(from, to, c0, c1 int)) {
	size := max(pieceValues/max(width*c, 1), 1)
	rows := (n + size - 1) / size
	blocks := 1
	if workers = parallel.Workers(workers); rows < workers && n*width*c > pieceValues/8 {
		blocks = min((workers+max(rows, 1)-1)/max(rows, 1), max(c/channelBlock, 1))
	}
	parallel.For(workers, rows*blocks, func(i int) {
		row, b := i/blocks, i%blocks
		// Whole vectors: multiples of 8 channels.
		at := func(b int) int {
			if b == blocks {
				return c
			}
			return b * c / blocks &^ 7
		}
		f(row*size, min((row+1)*size, n), at(b), at(b+1))
	})
}
