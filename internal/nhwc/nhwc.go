package nhwc

import "unsafe"

// Panel is the number of output channels of a panel of weights.
const Panel = 16

// A kernel set is one of these; best says which the processor runs best.
const (
	inGo = iota
	inAVX2
	inAVX512
)

// kernels is the set in use. Tests change it.
var kernels = best()

// Kernels names the set in use: portable, avx2 or avx512.
func Kernels() string { return [...]string{"portable", "avx2", "avx512"}[kernels] }

// Wide reports whether the set in use has vectors of 16 values.
func Wide() bool { return kernels == inAVX512 }

// tilePixels is the largest number of pixels of AVX2's tile.
const tilePixels = 6

// AVX-512's tile has at most 14 pixels, the halves of a long one at most 7 each, and
// two panels; the tile of a correlation has at most 28 rows of sums.
const (
	widePixels = 14
	halfPixels = 7
	widePanels = 2
	wideSums   = 28
)

// Tile is the largest number of pixels of a tile.
func Tile() int {
	if Wide() {
		return widePixels
	}
	return tilePixels
}

// Product describes a convolution for rows of output pixels:
//
//	out[y][i][c] = relu(bias[c] + Σ_s Σ_l x[y·Row + i·Pixel + Offsets[s] + l]·w[c/16][s·Length+l][c%16] + residual[y][i][c])
//
// All distances are in values.
type Product struct {
	// Pixel is the distance between the inputs of neighbouring pixels.
	Pixel int
	// Offsets are where the segments of a pixel's inputs start, and Length
	// how long each is.
	Offsets []int
	Length  int
	// OutPixel is the distance between pixels of the output, and of the
	// residual.
	OutPixel int
	// Rows is the number of rows, 0 meaning 1, and Row and OutRow are the distances
	// between the inputs of neighbouring rows and between their outputs.
	Rows, Row, OutRow int
	ReLU              bool
}

// tile is what a kernel gets: the product's fields as bytes and pointers. The
// assembly knows its layout.
type tile struct {
	x             unsafe.Pointer
	pixel         int
	offsets       unsafe.Pointer
	segments      int
	length        int
	weight        unsafe.Pointer
	bias          unsafe.Pointer
	out           unsafe.Pointer
	outPixel      int
	residual      unsafe.Pointer
	residualPixel int
	relu          int
	tiles         int
	_             uintptr // the kernel's own: where it is in the residual

	// AVX-512's alone. A tile of more than 7 pixels has two halves.
	panel         int // to the next panel of weights
	half, outHalf int // from the first half to the second
	step, outStep int // to the next tile
	mask          int // channels of the last panel
}

// Runner holds the state of products with the same offsets, so that nothing is
// allocated for each. It must not be used by two goroutines at a time.
type Runner struct {
	bytes   []int // offsets in bytes
	scratch [tilePixels * Panel]float32
	resid   [tilePixels * Panel]float32
	t       tile
	c       correlation
	d       depthwise
}

// farthest is the largest of offsets, none of which may be negative.
func farthest(offsets []int) int {
	far := 0
	for _, o := range offsets {
		if o < 0 {
			panic("nhwc: negative offset")
		}
		far = max(far, o)
	}
	return far
}

// inBytes sets bytes to offsets, which are in values.
func (r *Runner) inBytes(offsets []int) {
	r.bytes = r.bytes[:0]
	for _, o := range offsets {
		r.bytes = append(r.bytes, 4*o)
	}
}

// Run computes p for n pixels a row. x starts at the first pixel's first value
// (where an offset of 0 points) and holds every value that is read; w holds whole
// panels of len(Offsets)·Length×16, one after another, and bias 16 values for each.
// out and residual (nil for none) start at the first channel of the first pixel and
// hold width channels of every pixel; of the last panel that may be fewer than 16.
func (r *Runner) Run(p *Product, n int, x, w, bias, out, residual []float32, width int) {
	if n == 0 {
		return
	}
	rows := max(p.Rows, 1)
	if len(p.Offsets) == 0 || p.Length <= 0 || width < 1 || p.Row < 0 || p.Pixel < 0 || p.OutPixel < 0 || p.OutRow < 0 {
		panic("nhwc: bad product")
	}
	far := farthest(p.Offsets)
	panels := (width + Panel - 1) / Panel
	depth := len(p.Offsets) * p.Length * Panel
	// What the kernel will touch must be there: these index expressions panic
	// where it is not.
	_ = x[(rows-1)*p.Row+(n-1)*p.Pixel+far+p.Length-1]
	_ = w[panels*depth-1]
	_ = bias[panels*Panel-1]
	_ = out[(rows-1)*p.OutRow+(n-1)*p.OutPixel+width-1]
	if residual != nil {
		_ = residual[(rows-1)*p.OutRow+(n-1)*p.OutPixel+width-1]
	}
	if kernels == inAVX512 {
		r.wide(p, n, rows, x, w, bias, out, residual, width)
		return
	}
	for q := range panels {
		for y := range rows {
			var resid []float32
			at := y*p.OutRow + q*Panel
			if residual != nil {
				resid = residual[at:]
			}
			f := r.portable
			if kernels == inAVX2 {
				f = r.narrow
			}
			f(p, n, x[y*p.Row:], w[q*depth:], bias[q*Panel:], out[at:], resid, min(width-q*Panel, Panel))
		}
	}
}

// wide is Run with AVX-512.
func (r *Runner) wide(p *Product, n, rows int, x, w, bias, out, residual []float32, width int) {
	depth := len(p.Offsets) * p.Length * Panel
	r.inBytes(p.Offsets)
	t := &r.t
	*t = tile{pixel: 4 * p.Pixel, offsets: unsafe.Pointer(&r.bytes[0]), segments: len(p.Offsets), length: p.Length, outPixel: 4 * p.OutPixel, panel: 4 * depth}
	if p.ReLU {
		t.relu = 1
	}
	for c := 0; c < width; c += widePanels * Panel {
		t.weight, t.bias = unsafe.Pointer(&w[c/Panel*depth]), unsafe.Pointer(&bias[c])
		panels := min((width-c+Panel-1)/Panel, widePanels)
		t.mask = 1<<min(width-c-(panels-1)*Panel, Panel) - 1
		// run does some tiles of m pixels; the first begins at pixel i of row y.
		run := func(tiles, m, y, i int) {
			if tiles == 0 {
				return
			}
			at := y*p.OutRow + i*p.OutPixel + c
			t.tiles, t.x, t.out = tiles, unsafe.Pointer(&x[y*p.Row+i*p.Pixel]), unsafe.Pointer(&out[at])
			if residual != nil {
				t.residual = unsafe.Pointer(&residual[at])
			}
			tilesAVX512[m-1][panels-1](t)
		}
		y := 0
		if 2*n > halfPixels && n <= halfPixels {
			// Two short rows are the halves of a tile.
			t.half, t.outHalf = 4*p.Row, 4*p.OutRow
			t.step, t.outStep = 2*t.half, 2*t.outHalf
			run(rows/2, 2*n, 0, 0)
			y = rows &^ 1
		}
		// Tiles of nearly the same size leave no thin one at the end, where most
		// of the time would be spent waiting for sums.
		tiles := (n + widePixels - 1) / widePixels
		size, larger := n/tiles, n%tiles
		for ; y < rows; y++ {
			of := func(m int) int {
				t.half, t.outHalf = (m+1)/2*t.pixel, (m+1)/2*t.outPixel
				t.step, t.outStep = m*t.pixel, m*t.outPixel
				return m
			}
			run(larger, of(size+1), y, 0)
			run(tiles-larger, of(size), y, larger*(size+1))
		}
	}
	r.t = tile{} // keep nothing alive
}

// narrow is Run with AVX2, for one row of one panel.
func (r *Runner) narrow(p *Product, n int, x, w, bias, out, residual []float32, width int) {
	r.inBytes(p.Offsets)
	t := &r.t
	*t = tile{pixel: 4 * p.Pixel, offsets: unsafe.Pointer(&r.bytes[0]), segments: len(p.Offsets), length: p.Length,
		weight: unsafe.Pointer(&w[0]), bias: unsafe.Pointer(&bias[0])}
	if p.ReLU {
		t.relu = 1
	}
	if width == Panel {
		// Tiles of nearly the same size leave no thin one at the end, where most
		// of the time would be spent waiting for sums.
		tiles := (n + tilePixels - 1) / tilePixels
		size, larger := n/tiles, n%tiles
		run := func(tiles, size, i int) {
			if tiles == 0 {
				return
			}
			at := i * p.OutPixel
			t.tiles, t.x, t.out = tiles, unsafe.Pointer(&x[i*p.Pixel]), unsafe.Pointer(&out[at])
			if residual != nil {
				t.residual, t.residualPixel = unsafe.Pointer(&residual[at]), 4*p.OutPixel
			}
			tilesAVX2[size-1](t)
		}
		t.outPixel = 4 * p.OutPixel
		run(larger, size+1, 0)
		run(tiles-larger, size, larger*(size+1))
		r.t = tile{} // keep nothing alive
		return
	}
	// A narrow panel goes through a buffer, so that nothing beyond its channels
	// is read or written.
	t.tiles, t.outPixel = 1, 4*Panel
	for i := 0; i < n; {
		tiles := (n - i + tilePixels - 1) / tilePixels
		m := (n - i + tiles - 1) / tiles
		t.x, t.out = unsafe.Pointer(&x[i*p.Pixel]), unsafe.Pointer(&r.scratch[0])
		at := i * p.OutPixel
		if residual != nil {
			for j := range m {
				copy(r.resid[j*Panel:], residual[at+j*p.OutPixel:][:width])
			}
			t.residual, t.residualPixel = unsafe.Pointer(&r.resid[0]), 4*Panel
		}
		tilesAVX2[m-1](t)
		for j := range m {
			copy(out[at+j*p.OutPixel:][:width], r.scratch[j*Panel:])
		}
		i += m
	}
	r.t = tile{} // keep nothing alive
}

// portable is Run in Go, for one row of one panel.
func (r *Runner) portable(p *Product, n int, x, w, bias, out, residual []float32, width int) {
	for i := range n {
		acc := [Panel]float32(bias)
		panel := w
		for _, o := range p.Offsets {
			for _, v := range x[i*p.Pixel+o:][:p.Length] {
				row := (*[Panel]float32)(panel)
				for c := range acc {
					acc[c] += v * row[c]
				}
				panel = panel[Panel:]
			}
		}
		row := out[i*p.OutPixel:][:width]
		for c := range row {
			v := acc[c]
			if residual != nil {
				v += residual[i*p.OutPixel+c]
			}
			if p.ReLU && v < 0 {
				v = 0
			}
			row[c] = v
		}
	}
}

// Transpose writes the transpose of Panel×Panel values, which lie row after row,
// to dst, which must not overlap src.
func Transpose(dst, src []float32) {
	dst, src = dst[:Panel*Panel], src[:Panel*Panel]
	if kernels != inGo {
		runTranspose16(&dst[0], &src[0])
		return
	}
	for i := range Panel {
		for j, v := range src[i*Panel:][:Panel] {
			dst[j*Panel+i] = v
		}
	}
}

// Depthwise describes a depthwise convolution for a run of output pixels:
//
//	out[i][c] = relu(bias[c] + Σ_t x[i·Pixel + Offsets[t] + c]·w[t·Channels + c])
//
// for c in [0,Channels). Distances are in values.
type Depthwise struct {
	Pixel    int
	Offsets  []int
	Channels int
	OutPixel int
	ReLU     bool
}

// depthwise is what a kernel gets; its layout begins as tile's.
type depthwise struct {
	x           unsafe.Pointer
	pixel       int
	offsets     unsafe.Pointer
	taps        int
	channels    int
	weight      unsafe.Pointer
	bias        unsafe.Pointer
	out         unsafe.Pointer
	outPixel    int
	weightPitch int
	relu        int
	tiles       int
}

// depthwisePixels is the number of pixels of a tile.
const depthwisePixels = 4

// rowsOfThree reports whether the taps are rows of three neighbouring pixels.
func rowsOfThree(d *Depthwise) bool {
	for i, o := range d.Offsets {
		if o != d.Offsets[i/3*3]+i%3*d.Pixel {
			return false
		}
	}
	return len(d.Offsets)%3 == 0
}

// RunDepthwise computes n pixels of d; see Run.
func (r *Runner) RunDepthwise(d *Depthwise, n int, x, w, bias, out []float32) {
	if n == 0 || d.Channels == 0 {
		return
	}
	far := farthest(d.Offsets)
	_ = bias[d.Channels-1]
	_ = out[(n-1)*d.OutPixel+d.Channels-1]
	whole := 0 // channels the kernels do
	if len(d.Offsets) > 0 {
		_ = x[(n-1)*d.Pixel+far+d.Channels-1]
		_ = w[len(d.Offsets)*d.Channels-1]
	}
	if kernels != inGo && len(d.Offsets) > 0 {
		whole = d.Channels &^ 7
	}
	if whole > 0 {
		r.inBytes(d.Offsets)
		k := &r.d // field by field, as in apply
		k.pixel, k.offsets, k.taps, k.channels = 4*d.Pixel, unsafe.Pointer(&r.bytes[0]), len(d.Offsets), whole
		k.weight, k.weightPitch, k.bias = unsafe.Pointer(&w[0]), 4*d.Channels, unsafe.Pointer(&bias[0])
		k.outPixel, k.relu = 4*d.OutPixel, 0
		if d.ReLU {
			k.relu = 1
		}
		run := func(m, i int) {
			k.x, k.out = unsafe.Pointer(&x[i*d.Pixel]), unsafe.Pointer(&out[i*d.OutPixel])
			runDepthwise(m, k)
		}
		done := 0
		switch {
		case n < depthwisePixels:
		case rowsOfThree(d):
			k.tiles, done = n/depthwisePixels, n&^(depthwisePixels-1)
			for t := range len(d.Offsets) / 3 {
				r.bytes[t] = r.bytes[3*t]
			}
			k.taps /= 3
			k.x, k.out = unsafe.Pointer(&x[0]), unsafe.Pointer(&out[0])
			runDepthwiseRows(k)
			if done < n { // once more, what is left together with pixels that are done
				i := n - depthwisePixels
				k.tiles, k.x, k.out = 1, unsafe.Pointer(&x[i*d.Pixel]), unsafe.Pointer(&out[i*d.OutPixel])
				runDepthwiseRows(k)
				done = n
			}
		default:
			for ; done+depthwisePixels <= n; done += depthwisePixels {
				run(depthwisePixels, done)
			}
			if done < n {
				run(depthwisePixels, n-depthwisePixels)
				done = n
			}
		}
		for ; done < n; done++ {
			run(1, done)
		}
		*k = depthwise{} // keep nothing alive
	}
	if whole == d.Channels {
		return
	}
	for i := range n {
		row := out[i*d.OutPixel:][whole:d.Channels]
		copy(row, bias[whole:])
		for t, o := range d.Offsets {
			in := x[i*d.Pixel+o+whole:][:len(row)]
			wt := w[t*d.Channels+whole:][:len(row)]
			for c := range row {
				row[c] += in[c] * wt[c]
			}
		}
		if d.ReLU {
			for c, v := range row {
				if v < 0 {
					row[c] = 0
				}
			}
		}
	}
}
