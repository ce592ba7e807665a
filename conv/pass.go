package conv

import (
	"sync"

	"github.com/lowrank-go/lowrank/internal/nhwc"
	"github.com/lowrank-go/lowrank/internal/parallel"
)

// axis is one dimension of a pass. Its output j looks at inputs j·stride + t for
// t in taps, which ascend and may lie outside the input, and goes to
// start + j·step.
type axis struct {
	taps        []int
	stride      int
	n           int // outputs
	start, step int
}

// axis is dimension a of the forward pass to n outputs.
func (k *Kernel) axis(a, n int) axis {
	x := axis{stride: k.Stride[a], n: n, step: 1}
	for t := range k.Shape[2+a] {
		x.taps = append(x.taps, t*k.Dilation[a]-k.Padding[a])
	}
	return x
}

// phase is dimension a of the part of the backward pass that fills inputs f,
// f+stride, … of n: input i is seen by output o through tap t where
// o·stride + t·dilation − padding = i. With i = f + j·stride that is
// o = j + (f + padding − t·dilation)/stride, for the taps that divide.
func (k *Kernel) phase(a, f, n int) axis {
	s := k.Stride[a]
	x := axis{stride: 1, n: max(n-f+s-1, 0) / s, start: f, step: s}
	for _, t := range k.phaseTaps(a, f) {
		x.taps = append(x.taps, (f+k.Padding[a]-t*k.Dilation[a])/s)
	}
	return x
}

// phaseTaps lists the taps of a phase, from the last to the first, so that the
// outputs they look at ascend.
func (k *Kernel) phaseTaps(a, f int) []int {
	var taps []int
	for t := k.Shape[2+a] - 1; t >= 0; t-- {
		if (f+k.Padding[a]-t*k.Dilation[a])%k.Stride[a] == 0 {
			taps = append(taps, t)
		}
	}
	return taps
}

// span is the first input that outputs [from,to) look at, and the number of
// inputs from there to the last.
func (x *axis) span(from, to int) (first, n int) {
	first = from*x.stride + x.taps[0]
	return first, (to-1)*x.stride + x.taps[len(x.taps)-1] - first + 1
}

// inside reports whether the outputs look at none but n inputs.
func (x *axis) inside(n int) bool {
	first, span := x.span(0, x.n)
	return first >= 0 && first+span <= n
}

// pass is a convolution as the inner loops run it: forwards, or a phase of the
// backward one.
type pass struct {
	rows, columns axis
	groups        int
	ins, outs     int // of a group
	depthwise     bool
	weight        []float32 // (kh·kw·ins)×16 for each panel of a group; or kh·kw×C
	bias          []float32 // for each output of each panel; or each channel
	biased        bool      // some bias of a pass that looks at nothing may not be 0
}

func (p *pass) taps() int   { return len(p.rows.taps) * len(p.columns.taps) }
func (p *pass) panels() int { return (p.outs + nhwc.Panel - 1) / nhwc.Panel }

// size is the number of weights.
func (p *pass) size() int {
	if p.depthwise {
		return p.taps() * p.groups
	}
	return p.taps() * p.ins * p.groups * p.panels() * nhwc.Panel
}

// flat reports whether the pass does the same to every pixel by itself.
func (p *pass) flat() bool {
	point := func(x *axis) bool {
		return len(x.taps) == 1 && x.taps[0] == 0 && x.stride == 1 && x.step == 1
	}
	return point(&p.rows) && point(&p.columns)
}

// scratch is what one goroutine needs for a piece of work.
type scratch struct {
	run     nhwc.Runner
	padded  []float32
	picked  *Map
	sums    []float32
	zeros   []float32 // are never written
	offsets []int
	rows    []int
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// grow is s with at least n values, which are undefined.
func grow(s []float32, n int) []float32 {
	if cap(s) < n {
		return make([]float32, n)
	}
	return s[:n]
}

// Sizes of a piece of work.
const (
	pieceValues = 1 << 16 // input values of a piece, to stay in a core's cache
	fewPieces   = 8       // with fewer, the output channels are divided too
)

// run computes the pass of x into its places in dst. Every output is one sum in
// one order, so the pieces may depend on anything.
func (p *pass) run(dst, x *Map, e Epilogue, workers int) {
	if p.rows.n <= 0 || p.columns.n <= 0 || x.N == 0 {
		return
	}
	if p.taps() == 0 {
		p.blank(dst, e)
		return
	}
	if p.flat() && !p.depthwise && x.N*x.H > 1 && x.H == p.rows.n && x.W == p.columns.n {
		// Pixels that know nothing of each other make one long row, which divides
		// into full tiles.
		d, r := *dst, Map{}
		d.N, d.H, d.W = 1, 1, dst.N*dst.H*dst.W
		in := *x
		in.N, in.H, in.W = d.N, d.H, d.W
		if e.Residual != nil {
			r = *e.Residual
			r.N, r.H, r.W = d.N, d.H, d.W
			e.Residual = &r
		}
		q := *p
		q.rows.n, q.columns.n = 1, d.W
		q.run(&d, &in, e, workers)
		return
	}
	// A piece is some output rows of one image, or some pixels of its only row,
	// and some panels of outputs.
	oh, ow := p.rows.n, p.columns.n
	rows, pixels := oh, ow
	if oh == 1 {
		tile, _ := nhwc.Tile()
		size := max(pieceValues/(x.C*p.columns.stride), 16*tile)
		pixels = (size + tile - 1) / tile * tile
	} else {
		_, width := p.columns.span(0, ow)
		rows = min(max(pieceValues/(width*x.C*p.rows.stride), 4), oh)
		bands := (oh + rows - 1) / rows
		rows = (oh + bands - 1) / bands
	}
	bands, runs := (oh+rows-1)/rows, (ow+pixels-1)/pixels
	panels := p.groups * p.panels()
	parts := 1
	if n := x.N * bands * runs; n < fewPieces && !p.depthwise && workers > 1 {
		parts = min((fewPieces+n-1)/n, panels)
	}
	parallel.For(workers, x.N*bands*runs*parts, func(i int) {
		s := scratches.Get().(*scratch)
		defer scratches.Put(s)
		part, i := i%parts, i/parts
		run, i := i%runs, i/runs
		band, img := i%bands, i/bands
		b := block{img: img, y0: band * rows, y1: min((band+1)*rows, oh), x0: run * pixels, x1: min((run+1)*pixels, ow)}
		p.piece(s, dst, x, e, b, part*panels/parts, (part+1)*panels/parts)
	})
}

// block is rows [y0,y1) and columns [x0,x1) of the outputs of an image.
type block struct{ img, y0, y1, x0, x1 int }

// piece computes a block, for panels [first,last).
func (p *pass) piece(s *scratch, dst, x *Map, e Epilogue, b block, first, last int) {
	if p.depthwise {
		p.depthwisePiece(s, dst, x, e, b)
		return
	}
	in, width := s.input(p, x, b)
	// Offsets of the taps from a pixel's first input. Where the channels of a
	// row of taps are contiguous they are one segment.
	wide := p.groups == 1 && consecutive(p.columns.taps)
	s.offsets = s.offsets[:0]
	for _, ty := range p.rows.taps {
		for i, tx := range p.columns.taps {
			if wide && i > 0 {
				break
			}
			s.offsets = append(s.offsets, ((ty-p.rows.taps[0])*width+tx-p.columns.taps[0])*x.C)
		}
	}
	segment := p.ins
	if wide {
		segment *= len(p.columns.taps)
	}
	outPixel := p.columns.step * dst.C
	product := nhwc.Product{
		Pixel: p.columns.stride * x.C, Offsets: s.offsets, Length: segment, OutPixel: outPixel,
		Rows: b.y1 - b.y0, Row: p.rows.stride * width * x.C, OutRow: p.rows.step * dst.W * dst.C, ReLU: e.ReLU,
	}
	depth := p.ins * p.taps() * nhwc.Panel
	panels := p.panels()
	for panel := first; panel < last; {
		g, t := panel/panels, panel%panels*nhwc.Panel
		end := min(last, (g+1)*panels)
		channels := min(p.outs-t, (end-panel)*nhwc.Panel)
		at := p.place(dst, b, b.y0) + g*p.outs + t
		var residual []float32
		if e.Residual != nil {
			residual = e.Residual.Data[at:]
		}
		s.run.Run(&product, b.x1-b.x0, in[g*p.ins:], p.weight[panel*depth:end*depth], p.bias[panel*nhwc.Panel:], dst.Data[at:], residual, channels)
		panel = end
	}
}

// place is where the output of row y of a block begins.
func (p *pass) place(dst *Map, b block, y int) int {
	return ((b.img*dst.H+p.rows.start+y*p.rows.step)*dst.W + p.columns.start + b.x0*p.columns.step) * dst.C
}

// depthwisePiece computes a block of a depthwise pass. There is so little to
// compute that copying the inputs to pad them would cost as much, so it reads
// them in place: rows of taps that are outside are left out, and pixels at the
// sides, whose taps are partly outside, are done one by one.
func (p *pass) depthwisePiece(s *scratch, dst, x *Map, e Epilogue, b block) {
	c := x.C
	outPixel := p.columns.step * dst.C
	d := nhwc.Depthwise{Pixel: p.columns.stride * c, Channels: c, OutPixel: outPixel, ReLU: e.ReLU && e.Residual == nil}
	if e.Residual != nil {
		d.OutPixel = c
		s.sums = grow(s.sums, (b.x1-b.x0)*c)
	}
	image := x.Data[b.img*x.H*x.W*c : (b.img+1)*x.H*x.W*c]
	// Columns [from,to) see the inside alone.
	taps := p.columns.taps
	from, to := b.x0, b.x0
	for j := b.x0; j < b.x1; j++ {
		if first, n := p.columns.span(j, j+1); first < 0 {
			from, to = j+1, j+1
		} else if first+n <= x.W {
			to = j + 1
		}
	}
	for y := b.y0; y < b.y1; y++ {
		at := p.place(dst, b, y)
		out := dst.Data[at:]
		if e.Residual != nil {
			out = s.sums
		}
		// The rows of taps that are inside.
		top, bottom := 0, len(p.rows.taps)
		for top < bottom && y*p.rows.stride+p.rows.taps[top] < 0 {
			top++
		}
		for top < bottom && y*p.rows.stride+p.rows.taps[bottom-1] >= x.H {
			bottom--
		}
		weight := p.weight[top*len(taps)*c:]
		// run computes n pixels from j on, whose inputs are counted from column
		// left.
		run := func(j, n, left int) {
			if n <= 0 {
				return
			}
			s.offsets = s.offsets[:0]
			row := y*p.rows.stride + p.rows.taps[min(top, len(p.rows.taps)-1)]
			for _, ty := range p.rows.taps[top:bottom] {
				for _, tx := range taps {
					o := ((ty-p.rows.taps[top])*x.W + tx) * c
					if at := j*p.columns.stride + tx; n == 1 && (at < 0 || at >= x.W) {
						o = nhwc.Outside
					} else {
						o += (j*p.columns.stride - left) * c
					}
					s.offsets = append(s.offsets, o)
				}
			}
			d.Offsets = s.offsets
			base := 0
			if len(s.offsets) > 0 {
				base = (row*x.W + left) * c
			}
			s.run.RunDepthwise(&d, n, image[base:], weight, p.bias, out[(j-b.x0)*d.OutPixel:])
		}
		for j := b.x0; j < from; j++ {
			run(j, 1, 0)
		}
		first, _ := p.columns.span(from, from+1)
		run(from, to-from, max(first, 0))
		for j := to; j < b.x1; j++ {
			run(j, 1, 0)
		}
		if e.Residual == nil {
			continue
		}
		for i := range b.x1 - b.x0 {
			o := at + i*outPixel
			addResidual(dst.Data[o:o+c], s.sums[i*c:], e.Residual.Data[o:], e.ReLU)
		}
	}
}

func consecutive(taps []int) bool {
	for i, t := range taps {
		if t != taps[0]+i {
			return false
		}
	}
	return true
}

func addResidual(dst, sums, residual []float32, relu bool) {
	for i := range dst {
		v := sums[i] + residual[i]
		if relu && v < 0 {
			v = 0
		}
		dst[i] = v
	}
}

// blank fills the outputs of a pass that looks at nothing.
func (p *pass) blank(dst *Map, e Epilogue) {
	var bias []float32 // in the order of the channels
	for g := 0; p.biased && g < p.groups; g++ {
		step := p.panels() * nhwc.Panel
		if p.depthwise {
			step = p.outs
		}
		bias = append(bias, p.bias[g*step:][:p.outs]...)
	}
	for img := range dst.N {
		for y := range p.rows.n {
			for x := range p.columns.n {
				at := ((img*dst.H+p.rows.start+y*p.rows.step)*dst.W + p.columns.start + x*p.columns.step) * dst.C
				out := dst.Data[at : at+dst.C]
				switch {
				case p.biased:
					for i, v := range bias {
						if e.Residual != nil {
							v += e.Residual.Data[at+i]
						}
						if e.ReLU && v < 0 {
							v = 0
						}
						out[i] = v
					}
				case e.Residual == nil:
					clear(out)
				case e.ReLU:
					for i, v := range e.Residual.Data[at : at+dst.C] {
						if v < 0 {
							v = 0
						}
						out[i] = v
					}
				default:
					copy(out, e.Residual.Data[at:])
				}
			}
		}
	}
}

// input is the part of an image that a block looks at, zeros where that is
// outside: from its first value on, and its width in pixels. Where nothing is
// outside it is the image itself.
func (s *scratch) input(p *pass, x *Map, b block) (in []float32, width int) {
	top, rows := p.rows.span(b.y0, b.y1)
	left, columns := p.columns.span(b.x0, b.x1)
	image := x.Data[b.img*x.H*x.W*x.C : (b.img+1)*x.H*x.W*x.C]
	if top >= 0 && top+rows <= x.H && left >= 0 && left+columns <= x.W {
		return image[(top*x.W+left)*x.C:], x.W
	}
	s.padded = grow(s.padded, rows*columns*x.C)
	cut(s.padded, columns, x, image, 0, x.C, top, left, rows, columns)
	return s.padded, columns
}

// cut copies rows×columns pixels of an image of x from (top, left) on, and of
// them channels [c0,c1), to dst, whose rows are width pixels apart. Pixels
// outside the image are zeros.
func cut(dst []float32, width int, x *Map, image []float32, c0, c1, top, left, rows, columns int) {
	n := c1 - c0
	from, to := min(max(-left, 0), columns), max(min(x.W-left, columns), 0)
	for r := range rows {
		row := dst[r*width*n:][:columns*n]
		y := top + r
		if y < 0 || y >= x.H || from >= to {
			clear(row)
			continue
		}
		clear(row[:from*n])
		clear(row[to*n:])
		src := image[(y*x.W+left+from)*x.C:]
		if n == x.C {
			copy(row[from*n:to*n], src)
			continue
		}
		for i := range to - from {
			copy(row[(from+i)*n:(from+i+1)*n], src[i*x.C+c0:])
		}
	}
}
