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

// mostWindow bounds sizes, strides, dilations and paddings, so that no product of two
// overflows.
const mostWindow = 1 << 15

// Validate reports windows that are none. The error wraps conv.ErrShape.
func (w *Window) Validate() error {
	adaptive := w.Adaptive != [2]int{}
	for a := range 2 {
		least := min(w.Stride[a], w.Dilation[a], w.Begin[a], w.End[a])
		most := max(w.Adaptive[a], w.Size[a], w.Stride[a], w.Dilation[a], w.Begin[a], w.End[a])
		if adaptive && w.Adaptive[a] < 1 || !adaptive && (w.Size[a] < 1 || least < 0) || most > mostWindow {
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

// span is what an output sees along an axis: n inputs from first on, step apart. count is
// what those count for in an average's divisor.
type span struct{ first, n, count int }

// side is the spans of all outputs of an axis.
type side struct {
	step  int
	most  int // inputs of an output
	spans []span
}

func (w *Window) side(axis, n int) side {
	s := side{step: 1, spans: make([]span, w.outputs(axis, n))}
	for i := range s.spans {
		p := &s.spans[i]
		if out := w.Adaptive[axis]; out > 0 {
			from, to := i*n/out, ((i+1)*n+out-1)/out
			*p = span{from, to - from, to - from}
		} else {
			s.step = max(w.Dilation[axis], 1)
			origin := i*max(w.Stride[axis], 1) - w.Begin[axis]
			before := func(end int) int { // taps before an input
				return min(max((end-origin+s.step-1)/s.step, 0), w.Size[axis])
			}
			outside, inside := before(0), before(n)
			*p = span{origin + outside*s.step, inside - outside, inside - outside}
			if w.CountPadding {
				p.count = before(n + w.End[axis])
			}
		}
		s.most = max(s.most, p.n)
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
