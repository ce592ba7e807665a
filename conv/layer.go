package conv

import (
	"fmt"
	"sync"

	"github.com/lowrank-go/lowrank/internal/nhwc"
	"github.com/lowrank-go/lowrank/internal/parallel"
)

// Map is a batch of N feature maps of H×W pixels and C channels, NHWC: the
// channels of a pixel are contiguous.
type Map struct {
	N, H, W, C int
	Data       []float32
}

// NewMap allocates a zero map.
func NewMap(n, h, w, c int) *Map {
	return &Map{N: n, H: h, W: w, C: c, Data: make([]float32, n*h*w*c)}
}

// Resize gives m the shape n×h×w×c, keeping its memory where that is large
// enough; the contents are then undefined. A nil m is allocated.
func (m *Map) Resize(n, h, w, c int) *Map {
	size := n * h * w * c
	if m == nil || cap(m.Data) < size {
		return NewMap(n, h, w, c)
	}
	m.N, m.H, m.W, m.C, m.Data = n, h, w, c, m.Data[:size]
	return m
}

// Epilogue is what is done to a layer's output while it is in cache, in this
// order: the bias is added, Residual is added where it is not nil (it must have
// the output's shape), and negative values become zero where ReLU is set. NaN
// stays NaN.
type Epilogue struct {
	Residual *Map
	ReLU     bool
}

// Layer is a kernel prepared for running: its weights are laid out as the inner
// loops want them. It is immutable, and safe for concurrent use.
type Layer struct {
	kernel Kernel // shape and geometry
	// weight is, for each group and panel of 16 outputs, the
	// (kh·kw·S/g)×16 matrix of the panel, outputs beyond T/g being zero; for a
	// depthwise kernel of one output a channel it is kh·kw×T.
	weight []float32
	// bias has a value for every output of every panel, or every channel.
	bias      []float32
	panels    int // in a group
	depthwise bool
}

// NewLayer prepares k. It copies the weights.
func NewLayer(k *Kernel) (*Layer, error) {
	if err := k.Validate(); err != nil {
		return nil, err
	}
	l := &Layer{kernel: Kernel{Shape: k.Shape, Geometry: k.Normal()}}
	groups := l.kernel.Groups
	outs, ins, taps := k.Shape[0]/groups, k.Shape[1], k.Taps()
	if l.depthwise = outs == 1 && ins == 1 && groups > 1; l.depthwise {
		l.weight = make([]float32, len(k.Weight))
		l.bias = make([]float32, groups)
		copy(l.bias, k.Bias)
		for t := range groups {
			for p := range taps {
				l.weight[p*groups+t] = k.Weight[t*taps+p]
			}
		}
		return l, nil
	}
	l.panels = (outs + nhwc.Panel - 1) / nhwc.Panel
	l.bias = make([]float32, groups*l.panels*nhwc.Panel)
	l.weight = make([]float32, len(l.bias)*ins*taps)
	for g := range groups {
		for t := range outs {
			panel := g*l.panels + t/nhwc.Panel
			src := k.Weight[(g*outs+t)*ins*taps:]
			dst := l.weight[panel*nhwc.Panel*ins*taps+t%nhwc.Panel:]
			for s := range ins {
				for p := range taps {
					dst[(p*ins+s)*nhwc.Panel] = src[s*taps+p]
				}
			}
			if k.Bias != nil {
				l.bias[panel*nhwc.Panel+t%nhwc.Panel] = k.Bias[g*outs+t]
			}
		}
	}
	return l, nil
}

// scratch is what one goroutine needs for a piece of work.
type scratch struct {
	run     nhwc.Runner
	padded  []float32
	offsets []int
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// Sizes of a piece of work. They depend on shapes alone, never on the number of
// workers.
const (
	pieceValues = 1 << 16 // input values of a piece, to stay in a core's cache
	fewPieces   = 8       // with fewer, the output channels are divided too
)

// workerMACs is the work, in multiply-accumulates, that pays for waking another
// goroutine: some tens of microseconds.
const workerMACs = 1 << 21

// Forward computes the convolution of x into dst (allocated when nil, resized
// to fit otherwise; it must not share memory with x) and returns dst. A result
// does not depend on workers; 0 means GOMAXPROCS. The error wraps ErrShape.
func (l *Layer) Forward(dst, x *Map, e Epilogue, workers int) (*Map, error) {
	k := &l.kernel
	if x.C != k.In() {
		return nil, fmt.Errorf("%w: the kernel takes %d channels, the map has %d", ErrShape, k.In(), x.C)
	}
	oh, ow := k.OutputSize(x.H, x.W)
	if oh < 1 || ow < 1 {
		return nil, fmt.Errorf("%w: a map of %d×%d is too small for a %d×%d kernel with padding %v and dilation %v",
			ErrShape, x.H, x.W, k.Shape[2], k.Shape[3], k.Padding, k.Dilation)
	}
	if r := e.Residual; r != nil && (r.N != x.N || r.H != oh || r.W != ow || r.C != k.Out()) {
		return nil, fmt.Errorf("%w: residual %d×%d×%d×%d, output %d×%d×%d×%d", ErrShape, r.N, r.H, r.W, r.C, x.N, oh, ow, k.Out())
	}
	dst = dst.Resize(x.N, oh, ow, k.Out())

	// A piece is some output rows of one image and some panels of outputs.
	rowValues := (x.W + 2*k.Padding[1]) * x.C * k.Stride[0]
	rows := min(max(pieceValues/rowValues, 4), oh)
	bands := (oh + rows - 1) / rows
	rows = (oh + bands - 1) / bands
	bands = (oh + rows - 1) / rows
	panels := k.Groups * l.panels
	parts := 1
	if n := x.N * bands; n < fewPieces && !l.depthwise {
		parts = min((fewPieces+n-1)/n, panels)
	}
	work := k.Shape[0] * k.Shape[1] * k.Taps() * x.N * oh * ow
	workers = min(parallel.Workers(workers), 1+work/workerMACs)
	parallel.For(workers, x.N*bands*parts, func(i int) {
		s := scratches.Get().(*scratch)
		defer scratches.Put(s)
		part, band, img := i%parts, i/parts%bands, i/parts/bands
		y0 := band * rows
		y1 := min(y0+rows, oh)
		first, last := part*panels/parts, (part+1)*panels/parts
		l.piece(s, dst, x, e, img, y0, y1, first, last)
	})
	return dst, nil
}

// piece computes rows [y0,y1) of an image, for panels [first,last).
func (l *Layer) piece(s *scratch, dst, x *Map, e Epilogue, img, y0, y1, first, last int) {
	k := &l.kernel
	in, width, top := s.input(k, x, img, y0, y1)
	// Offsets of the taps from a pixel's first input. Where the channels of a
	// row of taps are contiguous they are one segment.
	ins, segment := k.Shape[1], k.Shape[1]
	wide := k.Dilation[1] == 1 && k.Groups == 1
	s.offsets = s.offsets[:0]
	for ky := range k.Shape[2] {
		for kx := range k.Shape[3] {
			if wide && kx > 0 {
				continue
			}
			s.offsets = append(s.offsets, (ky*k.Dilation[0]*width+kx*k.Dilation[1])*x.C)
		}
	}
	if wide {
		segment *= k.Shape[3]
	}
	if l.depthwise {
		d := nhwc.Depthwise{Pixel: k.Stride[1] * x.C, Offsets: s.offsets, Channels: x.C, OutPixel: dst.C, ReLU: e.ReLU && e.Residual == nil}
		for y := y0; y < y1; y++ {
			at, n := (img*dst.H+y)*dst.W*dst.C, dst.W*dst.C
			out := dst.Data[at : at+n]
			s.run.RunDepthwise(&d, dst.W, in[(y*k.Stride[0]-top)*width*x.C:], l.weight, l.bias, out)
			if e.Residual != nil {
				addResidual(out, e.Residual.Data[at:at+n], e.ReLU)
			}
		}
		return
	}
	p := nhwc.Product{Pixel: k.Stride[1] * x.C, Offsets: s.offsets, Length: segment, OutPixel: dst.C, ReLU: e.ReLU}
	depth := ins * k.Taps() * nhwc.Panel
	outs := k.Out() / k.Groups
	for panel := first; panel < last; panel++ {
		g, t := panel/l.panels, panel%l.panels*nhwc.Panel
		channels := min(outs-t, nhwc.Panel)
		w, b := l.weight[panel*depth:(panel+1)*depth], l.bias[panel*nhwc.Panel:]
		for y := y0; y < y1; y++ {
			at := (img*dst.H+y)*dst.W*dst.C + g*outs + t
			var residual []float32
			if e.Residual != nil {
				residual = e.Residual.Data[at:]
			}
			s.run.Run(&p, dst.W, in[(y*k.Stride[0]-top)*width*x.C+g*ins:], w, b, dst.Data[at:], residual, channels)
		}
	}
}

func addResidual(out, residual []float32, relu bool) {
	for i, v := range residual {
		v += out[i]
		if relu && v < 0 {
			v = 0
		}
		out[i] = v
	}
}

// input is the part of an image that output rows [y0,y1) of k look at, padded
// with zeros: its values, its width in pixels, and the number, counted in
// padded rows, of its first row. Without padding it is the image itself.
func (s *scratch) input(k *Kernel, x *Map, img, y0, y1 int) (in []float32, width, top int) {
	image := x.Data[img*x.H*x.W*x.C : (img+1)*x.H*x.W*x.C]
	if k.Padding == [2]int{} {
		return image, x.W, 0
	}
	width = x.W + 2*k.Padding[1]
	top = y0 * k.Stride[0]
	rows := (y1-1-y0)*k.Stride[0] + k.Dilation[0]*(k.Shape[2]-1) + 1
	if n := rows * width * x.C; cap(s.padded) < n {
		s.padded = make([]float32, n)
	}
	s.padded = s.padded[:rows*width*x.C]
	side := k.Padding[1] * x.C
	for r := range rows {
		row := s.padded[r*width*x.C : (r+1)*width*x.C]
		y := top + r - k.Padding[0]
		if y < 0 || y >= x.H {
			clear(row)
			continue
		}
		clear(row[:side])
		copy(row[side:], image[y*x.W*x.C:(y+1)*x.W*x.C])
		clear(row[side+x.W*x.C:])
	}
	return s.padded, width, top
}

// Runner is a chain prepared for running. It keeps its intermediate maps from
// one call to the next, so it is not safe for concurrent use.
type Runner struct {
	layers []*Layer
	mid    []*Map
}

// NewRunner prepares every stage of c.
func NewRunner(c *Chain) (*Runner, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	r := &Runner{mid: make([]*Map, len(c.Stages)-1)}
	for _, s := range c.Stages {
		l, err := NewLayer(s)
		if err != nil {
			return nil, err
		}
		r.layers = append(r.layers, l)
	}
	return r, nil
}

// Forward runs the stages; e belongs to the last. See Layer.Forward.
func (r *Runner) Forward(dst, x *Map, e Epilogue, workers int) (*Map, error) {
	last := len(r.layers) - 1
	for i, l := range r.layers[:last] {
		var err error
		if r.mid[i], err = l.Forward(r.mid[i], x, Epilogue{}, workers); err != nil {
			return nil, fmt.Errorf("stage %d: %w", i, err)
		}
		x = r.mid[i]
	}
	return r.layers[last].Forward(dst, x, e, workers)
}

// Out is the number of output channels.
func (r *Runner) Out() int { return r.layers[len(r.layers)-1].kernel.Out() }
