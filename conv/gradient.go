package conv

import (
	"fmt"

	"github.com/lowrank-go/lowrank/internal/gemm"
	"github.com/lowrank-go/lowrank/internal/nhwc"
	"github.com/lowrank-go/lowrank/internal/parallel"
)

// Gradient computes the gradients of a loss in the layer's weights and biases
// from the layer's input x and the gradient dy in its output: sums over all
// pixels and images. They overwrite weight and bias, which are as long and in the
// same order as Weights and Bias; nil leaves one out. A result does not depend on
// workers. The error wraps ErrShape.
func (l *Layer) Gradient(weight, bias []float32, x, dy *Map, workers int) error {
	if err := l.fits(x, dy); err != nil {
		return err
	}
	if weight != nil && len(weight) != len(l.weight) || bias != nil && len(bias) != len(l.bias) {
		return fmt.Errorf("%w: gradients of %d weights and %d biases, the layer has %d and %d", ErrShape, len(weight), len(bias), len(l.weight), len(l.bias))
	}
	workers = l.workers(workers, dy.N*dy.H*dy.W)
	if bias != nil {
		l.biasGradient(bias, dy, workers)
	}
	if weight == nil {
		return nil
	}
	switch {
	case len(dy.Data) == 0:
		clear(weight)
	case l.winograd(dy.N, dy.H, dy.W):
		l.winogradGradient(weight, x, dy, workers)
	default:
		k := l.kernel
		if l.picks() {
			s := scratches.Get().(*scratch)
			defer scratches.Put(s)
			x = s.pick(&k, x, dy.H, dy.W, workers)
			k.Stride = [2]int{1, 1}
		}
		if k.Taps() == 1 && k.Groups == 1 && k.Stride == [2]int{1, 1} && k.Padding == [2]int{} && k.Extra == [2]int{} {
			l.pointGradient(weight, x, dy, workers)
			break
		}
		g := newGradient(l, &k, x, dy)
		defer g.release()
		g.run(weight, workers)
	}
	return nil
}

// pointGradient is the gradient of 1×1 weights: one matrix product.
func (l *Layer) pointGradient(weight []float32, x, dy *Map, workers int) {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.sums = grow(s.sums, x.C*dy.C)
	gemm.Float32(workers, true, false, x.C, dy.C, x.N*x.H*x.W, 1, x.Data, x.C, dy.Data, dy.C, 0, s.sums, dy.C)
	for p := range l.panels {
		t := p * nhwc.Panel
		for c := range x.C {
			row := weight[(p*x.C+c)*nhwc.Panel:][:nhwc.Panel]
			n := copy(row, s.sums[c*dy.C+t:(c+1)*dy.C])
			clear(row[n:])
		}
	}
}

// biasParts divides the pixels of a sum; it must not depend on workers.
const biasParts = 16

func (l *Layer) biasGradient(bias []float32, dy *Map, workers int) {
	clear(bias)
	outs := l.kernel.Out() / l.kernel.Groups
	channelSums(dy, workers, func(c int, sum float64) { bias[l.output(c/outs, c%outs)] = float32(sum) })
}

// channelSums calls put with the sum of each channel of dy over all pixels.
func channelSums(dy *Map, workers int, put func(c int, sum float64)) {
	pixels := dy.N * dy.H * dy.W
	parts := min(biasParts, max(pixels/256, 1))
	sums := make([]float64, parts*dy.C)
	parallel.For(min(workers, parts), parts, func(p int) {
		sum := sums[p*dy.C:][:dy.C]
		for i := p * pixels / parts; i < (p+1)*pixels/parts; i++ {
			for c, v := range dy.Data[i*dy.C:][:dy.C] {
				sum[c] += float64(v)
			}
		}
	})
	for c := range dy.C {
		total := 0.
		for p := range parts {
			total += sums[p*dy.C+c]
		}
		put(c, total)
	}
}

// addParts adds to the first part of sums the others.
func addParts(workers, parts, n int, sums []float32) {
	const size = 1 << 14
	parallel.For(workers, (n+size-1)/size, func(i int) {
		first := sums[i*size : min((i+1)*size, n)]
		for p := 1; p < parts; p++ {
			nhwc.Add(first, sums[p*n+i*size:])
		}
	})
}

// gradient is the weights' gradient by the definition: for each tap and each
// pair of channels a sum over pixels.
type gradient struct {
	l     *Layer
	k     *Kernel // the layer's, or one of stride 1 for pixels picked out
	x, dy *Map
	// rows and columns are the layer's axes.
	rows, columns axis
	// channels is how many inputs of a group a task takes at once, and blocks
	// how many such there are in a group.
	channels, blocks int
	// panels holds dy as [panel][pixel][16], where dy itself cannot be read a
	// panel at a time; it came from s.
	panels []float32
	s      *scratch
	slabs  []slab
}

// slab is rows [y0,y1) of the outputs of images [img0,img1).
type slab struct{ img0, img1, y0, y1 int }

// Sizes of the work on the weights' gradient. They change results and so must
// depend on shapes alone.
const (
	slabPixels     = 128     // outputs of a slab: enough to load and store sums for
	gradientTasks  = 16      // to divide among workers
	partialValues  = 1 << 22 // of sums that are added up at the end
	taskChannels   = 64      // inputs of a task
	crowdedOutputs = 256     // outputs whose pixels fall on the same places of a cache
)

func newGradient(l *Layer, k *Kernel, x, dy *Map) *gradient {
	rows, columns := k.axis(0, dy.H), k.axis(1, dy.W)
	g := &gradient{l: l, k: k, x: x, dy: dy, rows: rows, columns: columns, channels: k.Shape[1], blocks: 1}
	if g.channels > taskChannels+taskChannels/2 {
		g.blocks = (g.channels + taskChannels - 1) / taskChannels
		g.channels = ((g.channels+g.blocks-1)/g.blocks + 7) &^ 7
		g.blocks = (k.Shape[1] + g.channels - 1) / g.channels
	}
	if outs := k.Out() / k.Groups; !l.depthwise && (outs%nhwc.Panel != 0 || dy.C >= crowdedOutputs) {
		g.s = scratches.Get().(*scratch)
	}
	target := slabPixels
	if k.Shape[1] < nhwc.Panel {
		target = 4 * slabPixels // their inputs are few
	}
	size := dy.H * dy.W
	if images := target / size; images > 1 {
		for i := 0; i < dy.N; i += images {
			g.slabs = append(g.slabs, slab{i, min(i+images, dy.N), 0, dy.H})
		}
		return g
	}
	height := max((target+dy.W-1)/dy.W, 1)
	for i := range dy.N {
		for y := 0; y < dy.H; y += height {
			g.slabs = append(g.slabs, slab{i, i + 1, y, min(y+height, dy.H)})
		}
	}
	return g
}

func (g *gradient) release() {
	if g.s != nil {
		scratches.Put(g.s)
	}
}

// run divides the work into parts of the slabs and blocks of the channels.
func (g *gradient) run(weight []float32, workers int) {
	k := g.k
	if g.s != nil {
		g.pack(workers)
	}
	blocks := k.Groups * g.blocks
	if g.l.depthwise {
		blocks = 1
	}
	parts := min((gradientTasks+blocks-1)/blocks, len(g.slabs), max(partialValues/len(weight), 1))
	sums := weight
	if parts > 1 {
		s := scratches.Get().(*scratch)
		defer scratches.Put(s)
		s.sums = grow(s.sums, parts*len(weight))
		sums = s.sums
	}
	clear(sums)
	parallel.For(workers, parts*blocks, func(i int) {
		s := scratches.Get().(*scratch)
		defer scratches.Put(s)
		part, block := i/blocks, i%blocks
		into := sums[part*len(weight):][:len(weight)]
		for _, b := range g.slabs[part*len(g.slabs)/parts : (part+1)*len(g.slabs)/parts] {
			if g.l.depthwise {
				g.depthwise(s, into, b)
			} else {
				g.slab(s, into, b, block/g.blocks, block%g.blocks)
			}
		}
	})
	if parts > 1 {
		addParts(workers, parts, len(weight), sums)
		copy(weight, sums)
	}
}

// pack copies dy to panels.
func (g *gradient) pack(workers int) {
	k := &g.l.kernel
	outs, pixels := k.Out()/k.Groups, g.dy.N*g.dy.H*g.dy.W
	g.s.padded = grow(g.s.padded, k.Groups*g.l.panels*pixels*nhwc.Panel)
	g.panels = g.s.padded
	const size = 256
	parallel.For(workers, (pixels+size-1)/size, func(i int) {
		for p := i * size; p < min((i+1)*size, pixels); p++ {
			for j := range k.Groups * g.l.panels {
				group, t := j/g.l.panels, j%g.l.panels*nhwc.Panel
				row := g.panels[(j*pixels+p)*nhwc.Panel:][:nhwc.Panel]
				n := copy(row, g.dy.Data[p*g.dy.C+group*outs+t:][:min(outs-t, nhwc.Panel)])
				clear(row[n:])
			}
		}
	})
}

// slab adds the products of a slab for a block of the inputs of a group.
func (g *gradient) slab(s *scratch, sums []float32, b slab, group, block int) {
	k, x, dy := g.k, g.x, g.dy
	ins := k.Shape[1]
	c0 := block * g.channels
	c1 := min(c0+g.channels, ins)
	rows, columns := &g.rows, &g.columns
	// The inputs of the slab: in place where nothing is padded and the pixels are
	// not far apart.
	top, height := rows.span(b.y0, b.y1)
	left, width := columns.span(0, dy.W)
	in, c := x.Data, x.C
	from := (b.img0*x.H+top)*x.W*x.C + left*x.C + group*ins + c0
	image, row := x.H*x.W*x.C, x.W*x.C
	if rows.inside(x.H) && columns.inside(x.W) && g.blocks == 1 && x.C <= 2*taskChannels {
		in = in[from:]
	} else {
		c = c1 - c0
		row = width * c
		image = height * row
		s.padded = grow(s.padded, (b.img1-b.img0)*image)
		in = s.padded
		for i := range b.img1 - b.img0 {
			at := (b.img0 + i) * x.H * x.W * x.C
			cut(in[i*image:], width, x, x.Data[at:at+x.H*x.W*x.C], group*ins+c0, group*ins+c1, top, left, height, width)
		}
	}
	s.rows = s.rows[:0]
	for i := range b.img1 - b.img0 {
		for y := range b.y1 - b.y0 {
			s.rows = append(s.rows, i*image+y*k.Stride[0]*row)
		}
	}
	product := nhwc.Correlation{Pixel: k.Stride[1] * c, Rows: s.rows, Columns: dy.W, YPixel: dy.C, YRow: dy.W * dy.C}
	if g.panels != nil {
		product.YPixel, product.YRow = nhwc.Panel, dy.W*nhwc.Panel
	}
	// Taps side by side over whole groups are one run of rows of sums.
	n, step := c1-c0, 1
	if consecutive(columns.taps) && n == ins && c == ins {
		n, step = n*k.Shape[3], k.Shape[3]
	}
	first := (b.img0*dy.H + b.y0) * dy.W
	product.Panels, product.SumPanel = g.l.panels, k.Taps()*ins*nhwc.Panel
	var out []float32
	if g.panels != nil {
		product.YPanel = dy.N * dy.H * dy.W * nhwc.Panel
		out = g.panels[group*g.l.panels*product.YPanel+first*nhwc.Panel:]
	} else {
		product.YPanel = nhwc.Panel
		out = dy.Data[first*dy.C+group*k.Out()/k.Groups:]
	}
	for ky := range k.Shape[2] {
		for kx := 0; kx < k.Shape[3]; kx += step {
			at := ((group*g.l.panels*k.Taps()+ky*k.Shape[3]+kx)*ins + c0) * nhwc.Panel
			s.run.Correlate(&product, n, in[ky*k.Dilation[0]*row+kx*k.Dilation[1]*c:], out, sums[at:])
		}
	}
}

// depthwise adds the products of a slab for a depthwise kernel.
func (g *gradient) depthwise(s *scratch, sums []float32, b slab) {
	k, x, dy := g.k, g.x, g.dy
	p := pass{rows: g.rows, columns: g.columns}
	for img := b.img0; img < b.img1; img++ {
		in, width := s.input(&p, x, block{img: img, y0: b.y0, y1: b.y1, x1: dy.W})
		s.offsets = s.offsets[:0]
		for ky := range k.Shape[2] {
			for kx := range k.Shape[3] {
				s.offsets = append(s.offsets, (ky*k.Dilation[0]*width+kx*k.Dilation[1])*x.C)
			}
		}
		row := nhwc.Correlation{Pixel: k.Stride[1] * x.C, Columns: dy.W, YPixel: dy.C}
		for y := b.y0; y < b.y1; y++ {
			s.run.CorrelateDepthwise(&row, s.offsets, dy.C, in[(y-b.y0)*k.Stride[0]*width*x.C:], dy.Data[(img*dy.H+y)*dy.W*dy.C:], sums)
		}
	}
}

// winogradGradient is the weights' gradient by Winograd's method.
func (l *Layer) winogradGradient(weight []float32, x, dy *Map, workers int) {
	ins, outs := l.kernel.Shape[1], l.kernel.Out()
	tiles := dy.N * tilesOf(dy.H) * tilesOf(dy.W)
	n := ins * nhwc.Panel
	taps := nhwc.Square{Row: 3 * n, Column: n}
	if tiles*(ins+outs) <= ins*outs {
		// The transforms of all tiles are smaller than those of the gradient,
		// which is therefore computed a panel at a time.
		t := l.winogradTransforms(x, dy, 0, tiles, workers)
		defer t.release()
		parallel.For(workers, l.panels, func(p int) {
			s := scratches.Get().(*scratch)
			defer scratches.Put(s)
			step := n + line
			s.sums = grow(s.sums, nhwc.WinogradProducts*step)
			clear(s.sums)
			for j := range nhwc.WinogradProducts {
				t.product(s, j, p, 1, ins, s.sums[j*step:])
			}
			nhwc.WinogradGather(n, s.sums, step, weight[p*9*n:], taps)
		})
		return
	}
	// Blocks of tiles add up in order, in parts where there are few weights.
	step := transformed(ins, l.panels)
	size := nhwc.WinogradProducts * step
	blocks := (tiles + gradientWork - 1) / gradientWork
	parts, inner := min(blocks, gradientTasks, max(partialValues/size, 1)), 1
	if parts < gradientTasks/2 {
		parts, inner = 1, workers
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.sums = grow(s.sums, parts*size)
	sums := s.sums
	parallel.For(workers, parts, func(p int) {
		into := sums[p*size : (p+1)*size]
		clear(into)
		for b := p * blocks / parts; b < (p+1)*blocks/parts; b++ {
			t := l.winogradTransforms(x, dy, b*tiles/blocks, (b+1)*tiles/blocks, inner)
			parallel.For(inner, nhwc.WinogradProducts, func(j int) {
				s := scratches.Get().(*scratch)
				defer scratches.Put(s)
				t.product(s, j, 0, l.panels, ins, into[j*step:])
			})
			t.release()
		}
	})
	if parts > 1 {
		addParts(workers, parts, size, sums)
	}
	parallel.For(workers, l.panels, func(p int) {
		nhwc.WinogradGather(n, sums[p*n:], step, weight[p*9*n:], taps)
	})
}

// transforms holds the transforms of a block of tiles of the inputs, v, and of
// the outputs' gradient, e, as 36 matrices each with a row a tile.
type transforms struct {
	s              *scratch
	tiles          int
	v, e           []float32
	vPitch, ePitch int // of tiles
	vStep, eStep   int // of matrices
}

func (t *transforms) release() { scratches.Put(t.s) }

// winogradTransforms computes those of tiles [from,to).
func (l *Layer) winogradTransforms(x, dy *Map, from, to, workers int) *transforms {
	t := &transforms{s: scratches.Get().(*scratch), tiles: to - from, vPitch: pitch(x.C), ePitch: pitch(l.panels * nhwc.Panel)}
	t.vStep, t.eStep = t.tiles*t.vPitch+line, t.tiles*t.ePitch+line
	t.s.sums = grow(t.s.sums, nhwc.WinogradProducts*(t.vStep+t.eStep))
	t.v, t.e = t.s.sums[:nhwc.WinogradProducts*t.vStep], t.s.sums[nhwc.WinogradProducts*t.vStep:]
	pieces(workers, t.tiles, func(a, b int, s *scratch) {
		s.patches(x, dy.H, dy.W, from+a, from+b, l.kernel.Padding, t.v[a*t.vPitch:], t.vPitch, t.vStep)
		for i := a; i < b; i++ {
			img, y, left := tileAt(from+i, dy.H, dy.W)
			p, c, at := s.square(dy, img, y, left, nhwc.WinogradTile, nhwc.Panel)
			nhwc.WinogradSpread(c, p, at, t.e[i*t.ePitch:], t.eStep)
		}
	})
	return t
}

// product adds to the sums of some panels of matrix j, of which p is the first.
func (t *transforms) product(s *scratch, j, p, panels, ins int, sums []float32) {
	c := nhwc.Correlation{
		Pixel: t.vPitch, Rows: origin, Columns: t.tiles, YPixel: t.ePitch,
		Panels: panels, YPanel: nhwc.Panel, SumPanel: ins * nhwc.Panel,
	}
	s.run.Correlate(&c, ins, t.v[j*t.vStep:], t.e[j*t.eStep+p*nhwc.Panel:], sums)
}
