package nhwc

import "unsafe"

// Correlation describes sums over pixels of the products of two maps, which is
// what the gradient of a convolution's weights is:
//
//	sums[p][r][c] += Σ_row Σ_i x[Rows[row] + i·Pixel + r]·y[p·YPanel + row·YRow + i·YPixel + c]
//
// for i in [0,Columns), c in [0,16) and panels p. All distances are in values.
type Correlation struct {
	Pixel   int   // distance of neighbouring pixels of x
	Rows    []int // where each row of x begins
	Columns int   // pixels in a row
	YPixel  int
	YRow    int
	// Panels is the number of panels, 0 meaning 1, and YPanel and SumPanel are the
	// distances of neighbours in y and in sums.
	Panels, YPanel, SumPanel int
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

	// Of pairs of panels alone.
	yPanel, sumPanel int
}

// Correlate adds to n rows of 16 sums, which lie one after another, for r in
// [0,n), of every panel. It panics where x, y or sums is too short.
func (r *Runner) Correlate(k *Correlation, n int, x, y, sums []float32) {
	if n == 0 || len(k.Rows) == 0 || k.Columns == 0 {
		return
	}
	panels := max(k.Panels, 1)
	if k.YPanel < 0 || k.SumPanel < 0 {
		panic("nhwc: negative distance")
	}
	far := farthest(k.Rows)
	_ = x[far+(k.Columns-1)*k.Pixel+n-1]
	_ = y[(panels-1)*k.YPanel+(len(k.Rows)-1)*k.YRow+(k.Columns-1)*k.YPixel+Panel-1]
	_ = sums[(panels-1)*k.SumPanel+n*Panel-1]
	if kernels == inGo {
		for p := range panels {
			k.portable(n, x, y[p*k.YPanel:], sums[p*k.SumPanel:])
		}
		return
	}
	r.inBytes(k.Rows)
	t := &r.c
	t.pixel, t.rows, t.rowCount, t.columns = 4*k.Pixel, unsafe.Pointer(&r.bytes[0]), len(k.Rows), k.Columns
	t.yPixel, t.yRow, t.sumPitch = 4*k.YPixel, 4*k.YRow, 4*Panel
	t.yPanel, t.sumPanel = 4*k.YPanel, 4*k.SumPanel
	// some calls run for parts of the n rows, at most most each and as equal as can be.
	some := func(p, most int, run func(m int, c *correlation)) {
		t.y = unsafe.Pointer(&y[p*k.YPanel])
		tiles := (n + most - 1) / most
		for i := 0; tiles > 0; tiles-- {
			m := (n - i + tiles - 1) / tiles
			t.x, t.sum = unsafe.Pointer(&x[i]), unsafe.Pointer(&sums[p*k.SumPanel+i*Panel])
			run(m, t)
			i += m
		}
	}
	p := 0
	if Wide() {
		for ; p+2 <= panels; p += 2 {
			some(p, widePixels, runCorrelatePair)
		}
	}
	most := tilePixels
	if Wide() {
		most = wideSums
	}
	for ; p < panels; p++ {
		some(p, most, runCorrelate)
	}
	r.c = correlation{} // keep nothing alive
}

func runCorrelatePair(m int, c *correlation) { correlatePairsAVX512[m-1](c) }

// portable is Correlate in Go, for one panel.
func (k *Correlation) portable(n int, x, y, sums []float32) {
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
