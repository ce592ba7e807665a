package nhwc

import "unsafe"

// Panel is the number of output channels of a panel of weights.
const Panel = 16

// TilePixels is the largest number of pixels of a tile.
const TilePixels = 6

// Product describes one panel of a convolution for a run of output pixels:
//
//	out[i][c] = relu(bias[c] + Σ_s Σ_l x[i·Pixel + Offsets[s] + l]·w[(s·Length+l)·16 + c] + residual[i][c])
//
// for c in [0,16). All distances are in values.
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
	ReLU     bool
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
}

// Runner holds the state of products with the same offsets, so that nothing is
// allocated for each. It must not be used by two goroutines at a time.
type Runner struct {
	bytes   []int // offsets in bytes
	zeros   []float32
	scratch [TilePixels * Panel]float32
	resid   [TilePixels * Panel]float32
	t       tile
	c       correlation
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

// Run computes n pixels of p. x starts at the first pixel's first value (where
// an offset of 0 points) and holds every value that is read; w is a whole panel
// of len(Offsets)·Length×16; bias has 16 values. out and residual (nil for
// none) start at the panel's first channel of the first pixel and hold width
// channels of it, 16 or, for the last panel, fewer.
func (r *Runner) Run(p *Product, n int, x, w, bias, out, residual []float32, width int) {
	if n == 0 {
		return
	}
	if len(p.Offsets) == 0 || p.Length <= 0 || width < 1 || width > Panel {
		panic("nhwc: bad product")
	}
	far := farthest(p.Offsets)
	// What the kernel will touch must be there: these index expressions panic
	// where it is not.
	_ = x[(n-1)*p.Pixel+far+p.Length-1]
	_ = w[len(p.Offsets)*p.Length*Panel-1]
	_ = bias[Panel-1]
	_ = out[(n-1)*p.OutPixel+width-1]
	if residual != nil {
		_ = residual[(n-1)*p.OutPixel+width-1]
	}
	if !accelerated {
		r.portable(p, n, x, w, bias, out, residual, width)
		return
	}
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
		tiles := (n + TilePixels - 1) / TilePixels
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
			runTile(size, t)
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
		tiles := (n - i + TilePixels - 1) / TilePixels
		m := (n - i + tiles - 1) / tiles
		t.x, t.out = unsafe.Pointer(&x[i*p.Pixel]), unsafe.Pointer(&r.scratch[0])
		at := i * p.OutPixel
		if residual != nil {
			for j := range m {
				copy(r.resid[j*Panel:], residual[at+j*p.OutPixel:][:width])
			}
			t.residual, t.residualPixel = unsafe.Pointer(&r.resid[0]), 4*Panel
		}
		runTile(m, t)
		for j := range m {
			copy(out[at+j*p.OutPixel:][:width], r.scratch[j*Panel:])
		}
		i += m
	}
	r.t = tile{} // keep nothing alive
}

// portable is Run in Go.
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
	if accelerated {
		runTranspose16(&dst[0], &src[0])
		return
	}
	for i := range Panel {
		for j, v := range src[i*Panel:][:Panel] {
			dst[j*Panel+i] = v
		}
	}
}

// Outside is the offset of a tap that sees no input.
const Outside = -1

// Depthwise describes a depthwise convolution for a run of output pixels:
//
//	out[i][c] = relu(bias[c] + Σ_t x[i·Pixel + Offsets[t] + c]·w[t·Channels + c])
//
// for c in [0,Channels). Distances are in values. A tap of one pixel may be
// Outside, which reads zeros; x must then not lie on a stack, which may move.
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
	far, outside := 0, false
	for _, o := range d.Offsets {
		if o == Outside && n == 1 {
			outside = true
			continue
		}
		if o < 0 {
			panic("nhwc: negative offset")
		}
		far = max(far, o)
	}
	_ = bias[d.Channels-1]
	_ = out[(n-1)*d.OutPixel+d.Channels-1]
	whole := 0 // channels the kernels do
	if len(d.Offsets) > 0 {
		_ = x[(n-1)*d.Pixel+far+d.Channels-1]
		_ = w[len(d.Offsets)*d.Channels-1]
	}
	if accelerated && len(d.Offsets) > 0 {
		whole = d.Channels &^ 7
	}
	if whole > 0 {
		if outside && len(r.zeros) < whole {
			r.zeros = make([]float32, whole)
		}
		r.inBytes(d.Offsets)
		for i, o := range d.Offsets {
			if o == Outside {
				// The kernel adds offsets to x's address: this one leads to the
				// zeros, wherever they are.
				r.bytes[i] = int(uintptr(unsafe.Pointer(&r.zeros[0])) - uintptr(unsafe.Pointer(&x[0])))
			}
		}
		k := depthwise{pixel: 4 * d.Pixel, offsets: unsafe.Pointer(&r.bytes[0]), taps: len(d.Offsets), channels: whole,
			weight: unsafe.Pointer(&w[0]), bias: unsafe.Pointer(&bias[0]), outPixel: 4 * d.OutPixel, weightPitch: 4 * d.Channels}
		if d.ReLU {
			k.relu = 1
		}
		run := func(m, i int) {
			k.x, k.out = unsafe.Pointer(&x[i*d.Pixel]), unsafe.Pointer(&out[i*d.OutPixel])
			runDepthwise(m, &k)
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
			runDepthwiseRows(&k)
			if done < n { // once more, what is left together with pixels that are done
				i := n - depthwisePixels
				k.tiles, k.x, k.out = 1, unsafe.Pointer(&x[i*d.Pixel]), unsafe.Pointer(&out[i*d.OutPixel])
				runDepthwiseRows(&k)
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
	}
	if whole == d.Channels {
		return
	}
	for i := range n {
		row := out[i*d.OutPixel:][whole:d.Channels]
		copy(row, bias[whole:])
		for t, o := range d.Offsets {
			if o == Outside {
				continue
			}
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
