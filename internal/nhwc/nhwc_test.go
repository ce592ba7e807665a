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

func TestRunEqualsTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		n := rapid.IntRange(0, 20).Draw(t, "pixels")
		p := &Product{
			Pixel: rapid.IntRange(0, 40).Draw(t, "pixel"), Length: rapid.IntRange(1, 23).Draw(t, "length"),
			ReLU: rapid.Bool().Draw(t, "relu"),
		}
		far := 0
		for range rapid.IntRange(1, 9).Draw(t, "segments") {
			o := rapid.IntRange(0, 50).Draw(t, "offset")
			p.Offsets = append(p.Offsets, o)
			far = max(far, o)
		}
		width := rapid.IntRange(1, Panel).Draw(t, "width")
		p.OutPixel = width + rapid.IntRange(0, 20).Draw(t, "gap")
		x := exact(rng, max((n-1)*p.Pixel+far+p.Length, 0))
		w := exact(rng, len(p.Offsets)*p.Length*Panel)
		bias := exact(rng, Panel)
		size := max((n-1)*p.OutPixel+width, 0)
		out := make([]float32, size+64)
		for i := range out {
			out[i] = guard
		}
		var residual []float32
		if rapid.Bool().Draw(t, "residual") {
			residual = exact(rng, size)
		}
		var r Runner
		r.Run(p, n, x, w, bias, out[:size:size], residual, width)
		for i := range n {
			for c := range width {
				sum := float64(bias[c])
				for s, o := range p.Offsets {
					for l := range p.Length {
						sum += float64(x[i*p.Pixel+o+l]) * float64(w[(s*p.Length+l)*Panel+c])
					}
				}
				if residual != nil {
					sum += float64(residual[i*p.OutPixel+c])
				}
				if p.ReLU {
					sum = max(sum, 0)
				}
				at := i*p.OutPixel + c
				// The error of a sum of k products of unit variance.
				tol := 1e-6 * float64(len(p.Offsets)*p.Length+4)
				if math.Abs(float64(out[at])-sum) > tol {
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

func TestRunDepthwiseEqualsTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))
		n := rapid.IntRange(0, 9).Draw(t, "pixels")
		d := &Depthwise{
			Channels: rapid.IntRange(1, 70).Draw(t, "channels"), ReLU: rapid.Bool().Draw(t, "relu"),
			Pixel: rapid.IntRange(0, 90).Draw(t, "pixel"),
		}
		far := 0
		for range rapid.IntRange(0, 9).Draw(t, "taps") {
			o := rapid.IntRange(0, 300).Draw(t, "offset")
			if n == 1 && rapid.Bool().Draw(t, "outside") {
				d.Offsets = append(d.Offsets, Outside)
				continue
			}
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
					if o == Outside {
						continue
					}
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
	src, dst := exact(rand.New(rand.NewPCG(7, 7)), Panel*Panel), make([]float32, Panel*Panel)
	Transpose(dst, src)
	for i := range Panel {
		for j := range Panel {
			if dst[j*Panel+i] != src[i*Panel+j] {
				t.Fatalf("element %d, %d is %g, want %g", j, i, dst[j*Panel+i], src[i*Panel+j])
			}
		}
	}
}

func TestNaNSurvivesReLU(t *testing.T) {
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
}

func TestRunAllocatesNothing(t *testing.T) {
	r := new(Runner)
	p := &Product{Pixel: 16, Offsets: []int{0, 64}, Length: 16, OutPixel: 16}
	x, w, bias, out := make([]float32, 400), make([]float32, 32*Panel), make([]float32, Panel), make([]float32, 400)
	if n := testing.AllocsPerRun(10, func() { r.Run(p, 8, x, w, bias, out, nil, Panel) }); n > 0 {
		t.Errorf("%g allocations", n)
	}
}

func TestRunPanicsWhereAnOperandIsShort(t *testing.T) {
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
