package nhwc

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

const guard = float32(-12345.5)

// exact returns n normal values in a slice that ends with its array, so that
// reading past it is caught by a bounds check or lands on another object.
func exact(rng *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return v[:n:n]
}

// each runs f with every set of kernels that the processor has.
func each(t *testing.T, f func(t *testing.T)) {
	defer func(set int) { kernels = set }(kernels)
	for kernels = inGo; kernels <= best(); kernels++ {
		t.Run(Kernels(), f)
	}
}

// check is rapid.Check with every set of kernels.
func check(t *testing.T, f func(t *rapid.T)) {
	each(t, func(t *testing.T) { rapid.Check(t, f) })
}

// drawProduct draws a product, its pixels in a row, its width, its operands and
// the size of its outputs.
func drawProduct(t *rapid.T) (p *Product, n, width int, x, w, bias, residual []float32, size int) {
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	n = rapid.IntRange(0, 33).Draw(t, "pixels")
	p = &Product{
		Pixel: rapid.IntRange(0, 40).Draw(t, "pixel"), Length: rapid.IntRange(1, 23).Draw(t, "length"),
		Rows: rapid.IntRange(0, 5).Draw(t, "rows"), Row: rapid.IntRange(0, 90).Draw(t, "row"),
		ReLU: rapid.Bool().Draw(t, "relu"),
	}
	rows := max(p.Rows, 1)
	far := 0
	for range rapid.IntRange(1, 9).Draw(t, "segments") {
		o := rapid.IntRange(0, 50).Draw(t, "offset")
		p.Offsets = append(p.Offsets, o)
		far = max(far, o)
	}
	width = rapid.IntRange(1, 5*Panel).Draw(t, "width")
	panels := (width + Panel - 1) / Panel
	p.OutPixel = width + rapid.IntRange(0, 20).Draw(t, "gap")
	p.OutRow = n*p.OutPixel + rapid.IntRange(0, 40).Draw(t, "row gap")
	x = exact(rng, max((rows-1)*p.Row+(n-1)*p.Pixel+far+p.Length, 0))
	w = exact(rng, panels*len(p.Offsets)*p.Length*Panel)
	bias = exact(rng, panels*Panel)
	size = max((rows-1)*p.OutRow+(n-1)*p.OutPixel+width, 0)
	if rapid.Bool().Draw(t, "residual") {
		residual = exact(rng, size)
	}
	return p, n, width, x, w, bias, residual, size
}

func TestRunEqualsTheDefinition(t *testing.T) {
	check(t, func(t *rapid.T) {
		p, n, width, x, w, bias, residual, size := drawProduct(t)
		out := make([]float32, size+64)
		for i := range out {
			out[i] = guard
		}
		var r Runner
		r.Run(p, n, x, w, bias, out[:size:size], residual, width)
		depth := len(p.Offsets) * p.Length * Panel
		for y := range max(p.Rows, 1) {
			for i := range n {
				for c := range width {
					sum := float64(bias[c])
					for s, o := range p.Offsets {
						for l := range p.Length {
							sum += float64(x[y*p.Row+i*p.Pixel+o+l]) * float64(w[c/Panel*depth+(s*p.Length+l)*Panel+c%Panel])
						}
					}
					at := y*p.OutRow + i*p.OutPixel + c
					if residual != nil {
						sum += float64(residual[at])
					}
					if p.ReLU {
						sum = max(sum, 0)
					}
					// The error of a sum of k products of unit variance.
					tol := 1e-6 * float64(len(p.Offsets)*p.Length+4)
					if math.Abs(float64(out[at])-sum) > tol {
						t.Fatalf("row %d pixel %d channel %d is %g, want %g", y, i, c, out[at], sum)
					}
					out[at] = guard
				}
			}
		}
		for i, v := range out {
			if v != guard {
				t.Fatalf("value %d outside the output was written", i)
			}
		}
	})
}

// Every sum is in the same order in both instruction sets, so that what was computed
// on one processor can be had on another.
func TestWidthsAgreeToTheBit(t *testing.T) {
	if best() < inAVX512 {
		t.Skip("the processor has no AVX-512")
	}
	defer func(set int) { kernels = set }(kernels)
	// both runs f, which returns what it computed, with both sets.
	both := func(t *rapid.T, f func() []float32) {
		kernels = inAVX2
		want := f()
		kernels = inAVX512
		for i, v := range f() {
			if math.Float32bits(v) != math.Float32bits(want[i]) {
				t.Fatalf("value %d is %v with AVX-512 and %v with AVX2", i, v, want[i])
			}
		}
	}
	t.Run("products", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			p, n, width, x, w, bias, residual, size := drawProduct(t)
			both(t, func() []float32 {
				var r Runner
				out := make([]float32, size)
				r.Run(p, n, x, w, bias, out, residual, width)
				return out
			})
		})
	})
	t.Run("correlations", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 3))
			n := rapid.IntRange(1, 70).Draw(t, "rows of sums")
			k := &Correlation{Pixel: rapid.IntRange(0, 80).Draw(t, "pixel"), Rows: []int{5, 0, 40}, Columns: rapid.IntRange(1, 9).Draw(t, "columns"), YPixel: 90, YRow: 900,
				Panels: rapid.IntRange(1, 5).Draw(t, "panels"), YPanel: Panel, SumPanel: n * Panel}
			x, y, start := exact(rng, 40+8*80+70), exact(rng, 2*900+9*90), exact(rng, k.Panels*n*Panel)
			both(t, func() []float32 {
				var r Runner
				sums := append([]float32(nil), start...)
				r.Correlate(k, n, x, y, sums)
				return sums
			})
		})
	})
	t.Run("depthwise", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 4))
			c, n := rapid.IntRange(1, 70).Draw(t, "channels"), rapid.IntRange(1, 9).Draw(t, "pixels")
			d := &Depthwise{Channels: c, Pixel: c, OutPixel: c, Offsets: []int{0, c, 2 * c, 300, 300 + c, 300 + 2*c}}
			x, w, bias := exact(rng, 8*c+300+3*c), exact(rng, 6*c), exact(rng, c)
			both(t, func() []float32 {
				var r Runner
				out := make([]float32, n*c)
				r.RunDepthwise(d, n, x, w, bias, out)
				return out
			})
		})
	})
	t.Run("transforms", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 5))
			n := 8 * rapid.IntRange(1, 9).Draw(t, "eights")
			x, bias := exact(rng, 36*n), exact(rng, n)
			both(t, func() []float32 {
				v, y, u := make([]float32, 36*n), make([]float32, 16*n), make([]float32, 36*n)
				WinogradInput(n, x, Square{6 * n, n}, v, n)
				WinogradWeight(n, x, Square{3 * n, n}, u, n)
				WinogradOutput(n, v, n, y, Square{4 * n, n}, bias, nil, true)
				e, g := make([]float32, 36*n), make([]float32, 9*n)
				WinogradSpread(n, y, Square{4 * n, n}, e, n)
				WinogradGather(n, e, n, g, Square{3 * n, n})
				return append(append(append(v, y...), e...), append(u, g...)...)
			})
		})
	})
}

func TestRunDepthwiseEqualsTheDefinition(t *testing.T) {
	check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))
		n := rapid.IntRange(0, 9).Draw(t, "pixels")
		d := &Depthwise{
			Channels: rapid.IntRange(1, 70).Draw(t, "channels"), ReLU: rapid.Bool().Draw(t, "relu"),
			Pixel: rapid.IntRange(0, 90).Draw(t, "pixel"),
		}
		far := 0
		for range rapid.IntRange(0, 9).Draw(t, "taps") {
			o := rapid.IntRange(0, 300).Draw(t, "offset")
			d.Offsets = append(d.Offsets, o)
			far = max(far, o)
		}
		if rapid.Bool().Draw(t, "rows of three") {
			d.Offsets = nil
			for range rapid.IntRange(1, 4).Draw(t, "rows") {
				o := rapid.IntRange(0, 300).Draw(t, "offset")
				d.Offsets = append(d.Offsets, o, o+d.Pixel, o+2*d.Pixel)
				far = max(far, o+2*d.Pixel)
			}
		}
		d.OutPixel = d.Channels + rapid.IntRange(0, 20).Draw(t, "gap")
		x := exact(rng, max((n-1)*d.Pixel+far+d.Channels, 0))
		w := exact(rng, len(d.Offsets)*d.Channels)
		bias := exact(rng, d.Channels)
		size := max((n-1)*d.OutPixel+d.Channels, 0)
		out := make([]float32, size+64)
		for i := range out {
			out[i] = guard
		}
		var r Runner
		r.RunDepthwise(d, n, x, w, bias, out[:size:size])
		for i := range n {
			for c := range d.Channels {
				sum := float64(bias[c])
				for s, o := range d.Offsets {
					sum += float64(x[i*d.Pixel+o+c]) * float64(w[s*d.Channels+c])
				}
				if d.ReLU {
					sum = max(sum, 0)
				}
				at := i*d.OutPixel + c
				if math.Abs(float64(out[at])-sum) > 1e-5 {
					t.Fatalf("pixel %d channel %d is %g, want %g", i, c, out[at], sum)
				}
				out[at] = guard
			}
		}
		for i, v := range out {
			if v != guard {
				t.Fatalf("value %d outside the output was written", i)
			}
		}
	})
}

func TestTransposeSwapsRowsAndColumns(t *testing.T) {
	each(t, func(t *testing.T) {
		src, dst := exact(rand.New(rand.NewPCG(7, 7)), Panel*Panel), make([]float32, Panel*Panel)
		Transpose(dst, src)
		for i := range Panel {
			for j := range Panel {
				if dst[j*Panel+i] != src[i*Panel+j] {
					t.Fatalf("element %d, %d is %g, want %g", j, i, dst[j*Panel+i], src[i*Panel+j])
				}
			}
		}
	})
}

func TestNaNSurvivesReLU(t *testing.T) {
	each(t, func(t *testing.T) {
		var r Runner
		nan := float32(math.NaN())
		out := make([]float32, 2*Panel)
		p := &Product{Pixel: 1, Offsets: []int{0}, Length: 1, OutPixel: Panel, ReLU: true}
		w := make([]float32, Panel)
		for i := range w {
			w[i] = -1
		}
		r.Run(p, 2, []float32{nan, 1}, w, make([]float32, Panel), out, nil, Panel)
		if out[0] == out[0] || out[Panel] != 0 {
			t.Errorf("ReLU of NaN and −1 is %g and %g", out[0], out[Panel])
		}
		d := &Depthwise{Pixel: 9, Offsets: []int{0}, Channels: 9, OutPixel: 9, ReLU: true}
		x := make([]float32, 9)
		for i := range x {
			x[i] = nan
		}
		r.RunDepthwise(d, 1, x, w[:9], make([]float32, 9), out)
		for c := range 9 {
			if out[c] == out[c] {
				t.Errorf("depthwise ReLU of NaN is %g at channel %d", out[c], c)
			}
		}
	})
}

func TestRunAllocatesNothing(t *testing.T) {
	each(t, func(t *testing.T) {
		r := new(Runner)
		p := &Product{Pixel: 16, Offsets: []int{0, 64}, Length: 16, OutPixel: 16}
		x, w, bias, out := make([]float32, 400), make([]float32, 32*Panel), make([]float32, Panel), make([]float32, 400)
		if n := testing.AllocsPerRun(10, func() { r.Run(p, 8, x, w, bias, out, nil, Panel) }); n > 0 {
			t.Errorf("%g allocations", n)
		}
	})
}

func TestRunPanicsWhereAnOperandIsShort(t *testing.T) {
	each(t, func(t *testing.T) {
		p := &Product{Pixel: 4, Offsets: []int{0, 8}, Length: 4, OutPixel: 16}
		x, w, bias, out := make([]float32, 20), make([]float32, 8*Panel), make([]float32, Panel), make([]float32, 48)
		for name, f := range map[string]func(r *Runner){
			"input":    func(r *Runner) { r.Run(p, 3, x[:19:19], w, bias, out, nil, Panel) },
			"weight":   func(r *Runner) { r.Run(p, 3, x, w[:127:127], bias, out, nil, Panel) },
			"bias":     func(r *Runner) { r.Run(p, 3, x, w, bias[:15:15], out, nil, Panel) },
			"output":   func(r *Runner) { r.Run(p, 3, x, w, bias, out[:47:47], nil, Panel) },
			"residual": func(r *Runner) { r.Run(p, 3, x, w, bias, out, out[:47:47], Panel) },
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("a short %s went unnoticed", name)
					}
				}()
				f(new(Runner))
			}()
		}
	})
}

func BenchmarkTile(b *testing.B) {
	r := new(Runner)
	const c, n = 64, 56
	p := &Product{Pixel: c, Offsets: []int{0, 60 * c, 120 * c}, Length: 3 * c, OutPixel: c}
	x, w, bias, out := make([]float32, 200*c), make([]float32, 9*c*Panel), make([]float32, Panel), make([]float32, n*c)
	for b.Loop() {
		r.Run(p, n, x, w, bias, out, nil, Panel)
	}
	b.ReportMetric(2*9*c*Panel*n*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}

func BenchmarkDepthwise(b *testing.B) {
	r := new(Runner)
	const c, n = 64, 56
	d := &Depthwise{Pixel: c, Channels: c, OutPixel: c}
	for i := range 9 {
		d.Offsets = append(d.Offsets, (i/3*60+i%3)*c)
	}
	x, w, bias, out := make([]float32, 200*c), make([]float32, 9*c), make([]float32, c), make([]float32, n*c)
	for b.Loop() {
		r.RunDepthwise(d, n, x, w, bias, out)
	}
	b.ReportMetric(2*9*c*n*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}
