package nhwc

import "unsafe"

// Correlation describes sums over pixels of the products of two maps, which is
// what the gradient of a convolution's weights is:
//
//	sums[r][c] += Σ_row Σ_i x[Rows[row] + i·Pixel + r]·y[row·YRow + i·YPixel + c]
//
// for i in [0,Columns). All distances are in values.
type Correlation struct {
	Pixel   int   // distance of neighbouring pixels of x
	Rows    []int // where each row of x begins
	Columns int   // pixels in a row
	YPixel  int
	YRow    int
}

// correlation is what a kernel gets; the assembly knows its layout.
type correlation struct {
	x        unsafe.Pointer
	pixel    int
	rows     unsafe.Pointer
	rowCount int
	columns  int
	y        unsafe.Pointer
	yPixel   int
	yRow     int
	sum      unsafe.Pointer
	sumPitch int
}

// Correlate adds to n rows of 16 sums, which lie one after another, for r in
// [0,n) and c in [0,16). It panics where x, y or sums is too short.
func (r *Runner) Correlate(k *Correlation, n int, x, y, sums []float32) {
	if n == 0 || len(k.Rows) == 0 || k.Columns == 0 {
		return
	}
	far := farthest(k.Rows)
	_ = x[far+(k.Columns-1)*k.Pixel+n-1]
	_ = y[(len(k.Rows)-1)*k.YRow+(k.Columns-1)*k.YPixel+Panel-1]
	_ = sums[n*Panel-1]
	if kernels == inGo {
		for i := range n {
			sum := (*[Panel]float32)(sums[i*Panel:])
			for row, o := range k.Rows {
				for j := range k.Columns {
					v := x[o+j*k.Pixel+i]
					for c, w := range (*[Panel]float32)(y[row*k.YRow+j*k.YPixel:]) {
						sum[c] += v * w
					}
				}
			}
		}
		return
	}
	r.inBytes(k.Rows)
	t := &r.c
	*t = correlation{pixel: 4 * k.Pixel, rows: unsafe.Pointer(&r.bytes[0]), rowCount: len(k.Rows), columns: k.Columns,
		y: unsafe.Pointer(&y[0]), yPixel: 4 * k.YPixel, yRow: 4 * k.YRow, sumPitch: 4 * Panel}
	tiles := (n + tilePixels - 1) / tilePixels
	if kernels == inAVX512 {
		tiles = (n + wideSums - 1) / wideSums
	}
	for i := 0; tiles > 0; tiles-- {
		m := (n - i + tiles - 1) / tiles
		t.x, t.sum = unsafe.Pointer(&x[i]), unsafe.Pointer(&sums[i*Panel])
		runCorrelate(m, t)
		i += m
	}
	r.c = correlation{} // keep nothing alive
}

// depthwiseTaps is how many taps' sums fit in registers.
const depthwiseTaps = 5

// CorrelateDepthwise adds to the sums of a depthwise kernel, for each tap t and
// c in [0,channels):
//
//	sums[t·channels + c] += Σ_i x[taps[t] + i·Pixel + c]·y[i·YPixel + c]
//
// over one row of k.Columns pixels; k.Rows and k.YRow are not used. It panics
// where x, y or sums is too short.
func (r *Runner) CorrelateDepthwise(k *Correlation, taps []int, channels int, x, y, sums []float32) {
	if channels == 0 || len(taps) == 0 || k.Columns == 0 {
		return
	}
	far := farthest(taps)
	_ = x[far+(k.Columns-1)*k.Pixel+channels-1]
	_ = y[(k.Columns-1)*k.YPixel+channels-1]
	_ = sums[len(taps)*channels-1]
	whole := 0
	if kernels != inGo {
		whole = channels &^ (Panel - 1)
	}
	if whole > 0 {
		r.inBytes(taps)
		t := &r.c
		*t = correlation{pixel: 4 * k.Pixel, columns: k.Columns, yPixel: 4 * k.YPixel, sumPitch: 4 * channels}
		for c := 0; c < whole; c += Panel {
			t.x, t.y = unsafe.Pointer(&x[c]), unsafe.Pointer(&y[c])
			for i := 0; i < len(taps); i += depthwiseTaps {
				t.rows, t.sum = unsafe.Pointer(&r.bytes[i]), unsafe.Pointer(&sums[i*channels+c])
				runCorrelateDepthwise(min(depthwiseTaps, len(taps)-i), t)
			}
		}
		r.c = correlation{}
	}
	if whole == channels {
		return
	}
	for t, o := range taps {
		sum := sums[t*channels+whole : (t+1)*channels]
		for i := range k.Columns {
			in := x[o+i*k.Pixel+whole:][:len(sum)]
			out := y[i*k.YPixel+whole:][:len(sum)]
			for c, v := range in {
				sum[c] += v * out[c]
			}
		}
	}
}
