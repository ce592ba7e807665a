package conv

import (
	"errors"
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
// the output's shape, and may be the output itself, which then adds up), and negative values become zero where ReLU is set. NaN
// stays NaN.
type Epilogue struct {
	Residual *Map
	ReLU     bool
}

// Layer is a kernel prepared for running: its weights are laid out as the inner
// loops want them. Forward, InputGradient and Gradient are safe for concurrent
// use; whoever changes the Weights must do so while none of them runs, and call
// Update afterwards.
//
// A 3×3 convolution of stride 1 with 16 channels or more runs by Winograd's
// F(4×4, 3×3), with a quarter of the multiplications. Its largest error stays
// within 4 times that of the definition evaluated in float32 (measured on normal
// inputs and weights: 1.2 to 1.8 times). An infinite or NaN input makes every
// output of the tiles that see it NaN, not only those that the definition says.
//
// Results are the same to the bit with AVX2 and with AVX-512, whose loops add in the
// same order, but for layers of 2¹⁷ weights a tap and more on fewer than 8 tiles of 4×4
// outputs, which go by the definition with AVX-512. Without either they differ by rounding.
type Layer struct {
	kernel Kernel // shape and geometry
	// weight is, for each group and panel of 16 outputs, the
	// (kh·kw·S/g)×16 matrix of the panel, outputs beyond T/g being zero; for a
	// depthwise kernel of one output a channel it is kh·kw×T.
	weight []float32
	// bias has a value for every output of every panel, or every channel.
	bias []float32
	// inputBias is added to every input gradient, a value for each input channel, or
	// nil: the bias of a transposed convolution.
	inputBias []float32
	panels    int // in a group
	depthwise bool
	derived   derived
}

// NewLayer prepares k. It copies the weights.
func NewLayer(k *Kernel) (*Layer, error) {
	if err := k.Validate(); err != nil {
		return nil, err
	}
	return newLayer(k), nil
}

// newLayer is NewLayer of a kernel that is valid, or whose Extra alone is not: then the
// layer looks at less than its input.
func newLayer(k *Kernel) *Layer {
	l := &Layer{kernel: Kernel{Shape: k.Shape, Geometry: k.Normal()}}
	groups := l.kernel.Groups
	outs, ins, taps := k.Shape[0]/groups, k.Shape[1], k.Taps()
	if l.depthwise = outs == 1 && ins == 1 && groups > 1; l.depthwise {
		l.weight = make([]float32, groups*taps)
		l.bias = make([]float32, groups)
	} else {
		l.panels = (outs + nhwc.Panel - 1) / nhwc.Panel
		l.bias = make([]float32, groups*l.panels*nhwc.Panel)
		l.weight = make([]float32, len(l.bias)*ins*taps)
	}
	l.each(func(at, kernel int) { l.weight[at] = k.Weight[kernel] })
	for g := range groups {
		for t := range outs {
			if k.Bias != nil {
				l.bias[l.output(g, t)] = k.Bias[g*outs+t]
			}
		}
	}
	return l
}

// output is where output t of group g stands among the padded outputs.
func (l *Layer) output(g, t int) int {
	if l.depthwise {
		return g
	}
	return g*l.panels*nhwc.Panel + t
}

// each calls f with the position of every weight in the layer's order and in the
// kernel's.
func (l *Layer) each(f func(at, kernel int)) {
	k := &l.kernel
	outs, ins, taps := k.Shape[0]/k.Groups, k.Shape[1], k.Taps()
	if l.depthwise {
		for t := range k.Groups {
			for p := range taps {
				f(p*k.Groups+t, t*taps+p)
			}
		}
		return
	}
	for g := range k.Groups {
		for t := range outs {
			panel := g*l.panels + t/nhwc.Panel
			for s := range ins {
				for p := range taps {
					f(((panel*taps+p)*ins+s)*nhwc.Panel+t%nhwc.Panel, ((g*outs+t)*ins+s)*taps+p)
				}
			}
		}
	}
}

// Weights is the layer's own memory of its weights, in the layer's own order and
// with zeros between them that must stay zero; KernelOrder translates. An
// optimiser that works value by value, with gradients in the same order, can
// change them in place and then call Update.
func (l *Layer) Weights() []float32 { return l.weight }

// Bias is the layer's own memory of its biases, one for each output in the order
// of the kernel, followed, within each group, by zeros that must stay zero. It is
// there, as zeros, even where the kernel had none.
func (l *Layer) Bias() []float32 { return l.bias }

// Update tells the layer that its weights were changed.
func (l *Layer) Update() { l.derived.drop() }

// KernelOrder copies values in the order of Weights, the weights or their
// gradient, to dst in the order of Kernel.Weight, T×S/g×kh×kw.
func (l *Layer) KernelOrder(dst, values []float32) error {
	n := l.kernel.Shape[0] * l.kernel.Shape[1] * l.kernel.Taps()
	if len(dst) != n || len(values) != len(l.weight) {
		return fmt.Errorf("%w: %d values of the layer's %d into %d of the kernel's %d", ErrShape, len(values), len(l.weight), len(dst), n)
	}
	l.each(func(at, kernel int) { dst[kernel] = values[at] })
	return nil
}

// Forward computes the convolution of x into dst (allocated when nil, resized
// to fit otherwise; it must not share memory with x) and returns dst. A result
// does not depend on workers; 0 means GOMAXPROCS. The error wraps ErrShape.
func (l *Layer) Forward(dst, x *Map, e Epilogue, workers int) (*Map, error) {
	k := &l.kernel
	if err := l.fits(x, nil); err != nil {
		return nil, err
	}
	oh, ow := k.OutputSize(x.H, x.W)
	if err := e.fits(x.N, oh, ow, k.Out()); err != nil {
		return nil, err
	}
	dst = dst.Resize(x.N, oh, ow, k.Out())
	workers = l.workers(workers, x.N*oh*ow)
	if l.winograd(x.N, oh, ow) {
		w := winograd{ins: k.Shape[1], outs: k.Out(), pad: k.Padding, weight: l.weight, bias: l.bias}
		if !w.once(dst) {
			w.transformed = l.derived.forwardWinograd(l, workers)
		}
		w.run(dst, x, e, workers)
		return dst, nil
	}
	p := pass{
		rows: k.axis(0, oh), columns: k.axis(1, ow), groups: k.Groups, ins: k.Shape[1], outs: k.Out() / k.Groups,
		depthwise: l.depthwise, weight: l.weight, bias: l.bias,
	}
	if l.picks() {
		s := scratches.Get().(*scratch)
		defer scratches.Put(s)
		x = s.pick(k, x, oh, ow, workers)
		p.rows.stride, p.columns.stride = 1, 1
	}
	p.run(dst, x, e, workers)
	return dst, nil
}

// InputGradient computes, from the gradient dy of a loss in the layer's output,
// that in its input, which was h×w, into dst (allocated when nil, resized
// otherwise; it must not share memory with dy), and returns dst: the transposed
// convolution of dy, to which e is applied (the bias has no part in it); e's
// Residual may be dst, which then adds up. A result does not depend on workers.
// The error wraps ErrShape.
func (l *Layer) InputGradient(dst, dy *Map, h, w int, e Epilogue, workers int) (*Map, error) {
	k := &l.kernel
	if err := l.fits(&Map{N: dy.N, H: h, W: w, C: k.In()}, dy); err != nil {
		return nil, err
	}
	if err := e.fits(dy.N, h, w, k.In()); err != nil {
		return nil, err
	}
	dst = dst.Resize(dy.N, h, w, k.In())
	workers = l.workers(workers, dy.N*dy.H*dy.W)
	d := l.derived.backward(l, workers)
	if l.winograd(dy.N, h, w) {
		w := winograd{ins: k.Out(), outs: k.In(), pad: [2]int{2 - k.Padding[0], 2 - k.Padding[1]}, weight: d.weight, bias: d.bias}
		if !w.once(dst) {
			w.transformed = l.derived.backwardWinograd(l, workers)
		}
		w.run(dst, dy, e, workers)
		return dst, nil
	}
	if l.picks() && l.inputBias == nil {
		s := scratches.Get().(*scratch)
		defer scratches.Put(s)
		s.picked = s.picked.Resize(dy.N, dy.H, dy.W, dst.C)
		p := pass{
			rows: point(dy.H), columns: point(dy.W), groups: k.Groups, ins: k.Out() / k.Groups, outs: k.Shape[1],
			weight: d.weight, bias: d.bias,
		}
		p.run(s.picked, dy, Epilogue{}, workers)
		scatter(k, dst, s.picked, e, workers)
		return dst, nil
	}
	weight := d.weight
	for fy := range k.Stride[0] {
		rows := k.phase(0, fy, h)
		for fx := range k.Stride[1] {
			p := pass{
				rows: rows, columns: k.phase(1, fx, w), groups: k.Groups, ins: k.Out() / k.Groups, outs: k.Shape[1],
				depthwise: l.depthwise, weight: weight, bias: d.bias, biased: l.inputBias != nil,
			}
			p.run(dst, dy, e, workers)
			weight = weight[p.size():]
		}
	}
	return dst, nil
}

// workerMACs is the work, in multiply-accumulates, that pays for waking another
// goroutine: some tens of microseconds. Those of depthwise layers wait for memory
// and take longer.
const (
	workerMACs    = 1 << 21
	depthwiseMACs = 1 << 18
)

// workers bounds the number of workers by the work there is.
func (l *Layer) workers(n, outputs int) int {
	k := &l.kernel
	pays := workerMACs
	if l.depthwise {
		pays = depthwiseMACs
	}
	return min(parallel.Workers(n), 1+k.Shape[0]*k.Shape[1]*k.Taps()*outputs/pays)
}

// fits reports an input, or a gradient of the output for it (nil for none), that
// does not belong to the layer.
func (l *Layer) fits(x, dy *Map) error {
	k := &l.kernel
	if x.C != k.In() {
		return fmt.Errorf("%w: the kernel takes %d channels, the map has %d", ErrShape, k.In(), x.C)
	}
	oh, ow := k.OutputSize(x.H, x.W)
	if oh < 1 || ow < 1 {
		return fmt.Errorf("%w: a map of %d×%d is too small for a %d×%d kernel with padding %v, %v more at the end, and dilation %v",
			ErrShape, x.H, x.W, k.Shape[2], k.Shape[3], k.Padding, k.Extra, k.Dilation)
	}
	if dy != nil && (dy.N != x.N || dy.H != oh || dy.W != ow || dy.C != k.Out()) {
		return fmt.Errorf("%w: gradient %d×%d×%d×%d, output %d×%d×%d×%d", ErrShape, dy.N, dy.H, dy.W, dy.C, x.N, oh, ow, k.Out())
	}
	return nil
}

func (e *Epilogue) fits(n, h, w, c int) error {
	if r := e.Residual; r != nil && (r.N != n || r.H != h || r.W != w || r.C != c) {
		return fmt.Errorf("%w: residual %d×%d×%d×%d, output %d×%d×%d×%d", ErrShape, r.N, r.H, r.W, r.C, n, h, w, c)
	}
	return nil
}

// Runner is a chain prepared for running. It keeps its intermediate maps from
// one call to the next, and is safe for concurrent use.
type Runner struct {
	layers []*Layer
	mu     sync.Mutex
	mids   [][]*Map // intermediate maps that are not in use
}

// NewRunner prepares every stage of c. Between the stages it fills channels up
// with zeros to multiples of 8.
func NewRunner(c *Chain) (*Runner, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	r := &Runner{}
	for _, s := range c.padded() {
		l, err := NewLayer(s)
		if err != nil {
			return nil, err
		}
		r.layers = append(r.layers, l)
	}
	return r, nil
}

// cachedValues is how many values of a chain's intermediate maps should stay in
// cache between its stages.
const cachedValues = 1 << 17

// Forward runs the stages; e belongs to the last. See Layer.Forward. A large
// batch goes through the chain a few images at a time.
func (r *Runner) Forward(dst, x *Map, e Epilogue, workers int) (*Map, error) {
	last := len(r.layers) - 1
	if last == 0 || x.N < 2 {
		return r.forward(dst, x, e, workers)
	}
	h, w, most := x.H, x.W, 1
	for _, l := range r.layers {
		h, w = l.kernel.OutputSize(h, w)
		most = max(most, h*w*l.kernel.Out())
	}
	size := max(cachedValues/most, 1)
	if h < 1 || w < 1 || size >= x.N {
		return r.forward(dst, x, e, workers)
	}
	if err := e.fits(x.N, h, w, r.Out()); err != nil {
		return nil, err
	}
	dst = dst.Resize(x.N, h, w, r.Out())
	outer, inner := parallel.Workers(workers), 1
	if parts := (x.N + size - 1) / size; parts < outer {
		outer, inner = 1, outer
	}
	errs := make([]error, (x.N+size-1)/size)
	parallel.For(outer, len(errs), func(p int) {
		i := p * size
		n := min(size, x.N-i)
		part := e
		if e.Residual != nil {
			part.Residual = e.Residual.images(i, n)
		}
		_, errs[p] = r.forward(dst.images(i, n), x.images(i, n), part, inner)
	})
	return dst, errors.Join(errs...)
}

// images is n images of m from the i-th on, in m's memory.
func (m *Map) images(i, n int) *Map {
	size := m.H * m.W * m.C
	return &Map{N: n, H: m.H, W: m.W, C: m.C, Data: m.Data[i*size : (i+n)*size : (i+n)*size]}
}

func (r *Runner) take() []*Map {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.mids); n > 0 {
		m := r.mids[n-1]
		r.mids = r.mids[:n-1]
		return m
	}
	return make([]*Map, len(r.layers)-1)
}

func (r *Runner) give(m []*Map) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mids = append(r.mids, m)
}

func (r *Runner) forward(dst, x *Map, e Epilogue, workers int) (*Map, error) {
	last := len(r.layers) - 1
	mid := r.take()
	defer r.give(mid)
	for i, l := range r.layers[:last] {
		var err error
		if mid[i], err = l.Forward(mid[i], x, Epilogue{}, workers); err != nil {
			return nil, fmt.Errorf("stage %d: %w", i, err)
		}
		x = mid[i]
	}
	return r.layers[last].Forward(dst, x, e, workers)
}

// Out is the number of output channels.
func (r *Runner) Out() int { return r.layers[len(r.layers)-1].kernel.Out() }
