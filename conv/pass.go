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

// inner is those of the outputs [from,to) that look at none but n inputs: [a,b).
func (x *axis) inner(from, to, n int) (a, b int) {
	for a = from; a < to && a*x.stride+x.taps[0] < 0; a++ {
	}
	for b = to; b > a && (b-1)*x.stride+x.taps[len(x.taps)-1] >= n; b-- {
	}
	return a, b
}

// present is which of the taps, [a,b), output j looks at n inputs through.
func (x *axis) present(j, n int) (a, b int) {
	for a = 0; a < len(x.taps) && j*x.stride+x.taps[a] < 0; a++ {
	}
	for b = len(x.taps); b > a && j*x.stride+x.taps[b-1] >= n; b-- {
	}
	return a, b
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
	edge    []float32 // weights of the taps that are inside
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
		tile := nhwc.Tile()
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
// them in place and leaves out the taps that are outside: the pixels of a row that
// see the inside alone are one run, and so are, downwards, those of a column at
// a side, which all miss the same taps. The corners are done one by one.
func (p *pass) depthwisePiece(s *scratch, dst, x *Map, e Epilogue, b block) {
	d := depthwise{pass: p, s: s, x: x, image: x.Data[b.img*x.H*x.W*x.C : (b.img+1)*x.H*x.W*x.C], block: b}
	d.relu = e.ReLU && e.Residual == nil
	at := p.place(dst, b, b.y0)
	d.out, d.outPixel, d.outRow = dst.Data[at:], p.columns.step*dst.C, p.rows.step*dst.W*dst.C
	if e.Residual != nil {
		d.outPixel, d.outRow = x.C, (b.x1-b.x0)*x.C
		s.sums = grow(s.sums, (b.y1-b.y0)*d.outRow)
		d.out = s.sums
	}
	// Rows [top,bottom) and columns [from,to) see the inside alone.
	top, bottom := p.rows.inner(b.y0, b.y1, x.H)
	from, to := p.columns.inner(b.x0, b.x1, x.W)
	for y := b.y0; y < b.y1; y++ {
		inner := y >= top && y < bottom
		d.run(y, y+1, from, to)
		for j := b.x0; j < b.x1; j++ {
			if j == from {
				j = to
			}
			switch {
			case j == b.x1:
			case !inner:
				d.run(y, y+1, j, j+1)
			case y == top:
				d.run(top, bottom, j, j+1)
			}
		}
	}
	if e.Residual == nil {
		return
	}
	for y := range b.y1 - b.y0 {
		for i := range b.x1 - b.x0 {
			o := at + y*p.rows.step*dst.W*dst.C + i*p.columns.step*dst.C
			addResidual(dst.Data[o:o+x.C], s.sums[y*d.outRow+i*x.C:], e.Residual.Data[o:], e.ReLU)
		}
	}
}

// depthwise is a block of a depthwise pass.
type depthwise struct {
	*pass
	s                *scratch
	x                *Map
	image            []float32
	block            block
	out              []float32 // from the block's first pixel on
	outPixel, outRow int
	relu             bool
}

// run computes outputs [y0,y1) by [x0,x1), one row or one column, all of which
// see the same of the taps.
func (d *depthwise) run(y0, y1, x0, x1 int) {
	if y0 >= y1 || x0 >= x1 {
		return
	}
	c, s := d.x.C, d.s
	y, x := y0*d.rows.stride, x0*d.columns.stride
	top, bottom := d.rows.present(y0, d.x.H)
	left, right := d.columns.present(x0, d.x.W)
	taps := len(d.columns.taps)
	weight := d.weight[top*taps*c:]
	s.offsets = s.offsets[:0]
	base := 0
	if top < bottom && left < right {
		base = ((y+d.rows.taps[top])*d.x.W + x + d.columns.taps[left]) * c
		for _, ty := range d.rows.taps[top:bottom] {
			for _, tx := range d.columns.taps[left:right] {
				s.offsets = append(s.offsets, ((ty-d.rows.taps[top])*d.x.W+tx-d.columns.taps[left])*c)
			}
		}
		if right-left < taps {
			s.edge = grow(s.edge, (bottom-top)*(right-left)*c)
			weight = s.edge
			for i := range bottom - top {
				copy(weight[i*(right-left)*c:], d.weight[((top+i)*taps+left)*c:((top+i)*taps+right)*c])
			}
		}
	}
	k := nhwc.Depthwise{Pixel: d.columns.stride * c, Offsets: s.offsets, Channels: c, OutPixel: d.outPixel, ReLU: d.relu}
	n := x1 - x0
	if y1-y0 > 1 {
		n, k.Pixel, k.OutPixel = y1-y0, d.rows.stride*d.x.W*c, d.outRow
	}
	s.run.RunDepthwise(&k, n, d.image[base:], weight, d.bias, d.out[(y0-d.block.y0)*d.outRow+(x0-d.block.x0)*d.outPixel:])
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
