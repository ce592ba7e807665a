package nhwc

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// square is a random n×n square of channels in a slice that ends with it.
func square(rng *rand.Rand, n, channels int, s Square) []float32 {
	return exact(rng, (n-1)*(s.Row+s.Column)+channels)
}

func drawSquare(t *rapid.T, n, channels int, name string) Square {
	column := channels + rapid.IntRange(0, 9).Draw(t, name+" gap")
	return Square{Row: n*column + rapid.IntRange(0, 9).Draw(t, name+" row gap"), Column: column}
}

// rounding bounds the error of a transform's products of two squares, of a×a and b×b
// vectors, in channel c: it grows with their norms.
func rounding(x []float32, a int, xAt Square, y []float32, b int, yAt Square, c int) float64 {
	norm := func(v []float32, n int, at Square) float64 {
		sum := 0.
		for i := range n {
			for j := range n {
				w := float64(v[i*at.Row+j*at.Column+c])
				sum += w * w
			}
		}
		return math.Sqrt(sum)
	}
	return 1e-6 + 1.5e-6*norm(x, a, xAt)*norm(y, b, yAt)
}

func TestWinogradEqualsTheDefinition(t *testing.T) {
	check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 3))
		n := 8 * rapid.IntRange(1, 4).Draw(t, "vectors")
		dAt, gAt, yAt := drawSquare(t, 6, n, "d"), drawSquare(t, 3, n, "g"), drawSquare(t, 4, n, "y")
		d, g := square(rng, 6, n, dAt), square(rng, 3, n, gAt)
		bias := exact(rng, n)
		relu := rapid.Bool().Draw(t, "relu")
		y := square(rng, 4, n, yAt)
		var residual []float32
		if rapid.Bool().Draw(t, "residual") {
			residual = square(rng, 4, n, yAt)
		}
		before := append([]float32(nil), y...)
		step := n + rapid.IntRange(0, 9).Draw(t, "gap")
		size := 35*step + n
		u, v := make([]float32, size), make([]float32, size)
		WinogradWeight(n, g, gAt, u, step)
		WinogradInput(n, d, dAt, v, step)
		for i := range v {
			v[i] *= u[i]
		}
		WinogradOutput(n, v, step, y, yAt, bias, residual, relu)
		inside := make([]bool, len(y))
		for i := range 4 {
			for j := range 4 {
				for c := range n {
					at := i*yAt.Row + j*yAt.Column + c
					inside[at] = true
					want := float64(bias[c])
					if residual != nil {
						want += float64(residual[at])
					}
					for a := range 3 {
						for b := range 3 {
							want += float64(g[a*gAt.Row+b*gAt.Column+c]) * float64(d[(i+a)*dAt.Row+(j+b)*dAt.Column+c])
						}
					}
					if relu {
						want = max(want, 0)
					}
					if math.Abs(float64(y[at])-want) > rounding(d, 6, dAt, g, 3, gAt, c) {
						t.Fatalf("output %d, %d of channel %d is %g, want %g", i, j, c, y[at], want)
					}
				}
			}
		}
		for i, v := range y {
			if !inside[i] && v != before[i] {
				t.Fatalf("value %d outside the output was written", i)
			}
		}
	})
}

func TestWinogradInputAtSeesZerosOutside(t *testing.T) {
	check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 6))
		n := 8 * rapid.IntRange(1, 6).Draw(t, "vectors")
		h, w := rapid.IntRange(1, 9).Draw(t, "h"), rapid.IntRange(1, 9).Draw(t, "w")
		top, left := rapid.IntRange(-8, 10).Draw(t, "top"), rapid.IntRange(-8, 10).Draw(t, "left")
		image := exact(rng, h*w*n)
		padded := make([]float32, 36*n)
		for i := range 6 {
			for j := range 6 {
				if y, x := top+i, left+j; y >= 0 && y < h && x >= 0 && x < w {
					copy(padded[(i*6+j)*n:][:n], image[(y*w+x)*n:])
				}
			}
		}
		step := n + rapid.IntRange(0, 9).Draw(t, "gap")
		got, want := exact(rng, 35*step+n), make([]float32, 35*step+n)
		copy(want, got)
		if !WinogradInputAt(n, image, h, w, top, left, got, step) {
			if Wide() && n%16 == 0 {
				t.Fatal("not done")
			}
			return
		}
		WinogradInput(n, padded, Square{6 * n, n}, want, step)
		for i, v := range got {
			if v != want[i] {
				t.Fatalf("value %d is %g, want %g", i, v, want[i])
			}
		}
	})
}

func TestWinogradGradientEqualsTheDefinition(t *testing.T) {
	check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 4))
		n := 8 * rapid.IntRange(1, 3).Draw(t, "vectors")
		dAt, gAt, eAt := drawSquare(t, 6, n, "d"), drawSquare(t, 3, n, "g"), drawSquare(t, 4, n, "e")
		d, e, g := square(rng, 6, n, dAt), square(rng, 4, n, eAt), square(rng, 3, n, gAt)
		step := n + rapid.IntRange(0, 9).Draw(t, "gap")
		size := 35*step + n
		s, v := make([]float32, size), make([]float32, size)
		WinogradSpread(n, e, eAt, s, step)
		WinogradInput(n, d, dAt, v, step)
		for i := range v {
			v[i] *= s[i]
		}
		before := append([]float32(nil), g...)
		WinogradGather(n, v, step, g, gAt)
		inside := make([]bool, len(g))
		for a := range 3 {
			for b := range 3 {
				for c := range n {
					want := 0.
					for i := range 4 {
						for j := range 4 {
							want += float64(e[i*eAt.Row+j*eAt.Column+c]) * float64(d[(i+a)*dAt.Row+(j+b)*dAt.Column+c])
						}
					}
					at := a*gAt.Row + b*gAt.Column + c
					inside[at] = true
					if math.Abs(float64(g[at])-want) > rounding(d, 6, dAt, e, 4, eAt, c) {
						t.Fatalf("gradient %d, %d of channel %d is %g, want %g", a, b, c, g[at], want)
					}
				}
			}
		}
		for i, v := range g {
			if !inside[i] && v != before[i] {
				t.Fatalf("value %d outside the gradient was written", i)
			}
		}
	})
}

func TestWinogradReLUKeepsNaN(t *testing.T) {
	each(t, func(t *testing.T) {
		m, y, bias := make([]float32, 36*8), make([]float32, 16*8), make([]float32, 8)
		m[3] = float32(math.NaN())
		for c := range bias {
			bias[c] = -1
		}
		WinogradOutput(8, m, 8, y, Square{32, 8}, bias, nil, true)
		for c := range 8 {
			if nan := math.IsNaN(float64(y[c])); nan != (c == 3) || !nan && y[c] != 0 {
				t.Errorf("channel %d is %g", c, y[c])
			}
		}
	})
}

func TestTransformsAllocateNothing(t *testing.T) {
	each(t, func(t *testing.T) {
		x, v := make([]float32, 36*8), make([]float32, 36*8)
		if n := testing.AllocsPerRun(10, func() { WinogradInput(8, x, Square{48, 8}, v, 8) }); n > 0 {
			t.Errorf("%g allocations", n)
		}
	})
}

func TestCorrelateEqualsTheDefinition(t *testing.T) {
	check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 5))
		n := rapid.IntRange(0, 40).Draw(t, "rows of sums")
		k := &Correlation{Pixel: rapid.IntRange(0, 30).Draw(t, "pixel"), Columns: rapid.IntRange(0, 12).Draw(t, "columns"),
			YPixel: Panel + rapid.IntRange(0, 20).Draw(t, "gap")}
		k.YRow = k.Columns*k.YPixel + rapid.IntRange(0, 20).Draw(t, "row gap")
		far := 0
		for range rapid.IntRange(0, 5).Draw(t, "rows") {
			k.Rows = append(k.Rows, rapid.IntRange(0, 99).Draw(t, "row"))
			far = max(far, k.Rows[len(k.Rows)-1])
		}
		k.Panels = rapid.IntRange(0, 5).Draw(t, "panels")
		panels := max(k.Panels, 1)
		k.YPanel = rapid.SampledFrom([]int{Panel, 1000, 3}).Draw(t, "panel of y")
		k.SumPanel = n*Panel + rapid.IntRange(0, 20).Draw(t, "gap of sums")
		x := exact(rng, max(far+(k.Columns-1)*k.Pixel+n, 0))
		y := exact(rng, max((panels-1)*k.YPanel+(len(k.Rows)-1)*k.YRow+(k.Columns-1)*k.YPixel+Panel, 0))
		size := (panels-1)*k.SumPanel + n*Panel
		sums := exact(rng, size+64)
		before := append([]float32(nil), sums...)
		var r Runner
		r.Correlate(k, n, x, y, sums[:size:size])
		for i, v := range sums {
			want := float64(before[i])
			if p, i := i/max(k.SumPanel, 1), i%max(k.SumPanel, 1); p < panels && i < n*Panel {
				for row, o := range k.Rows {
					for j := range k.Columns {
						want += float64(x[o+j*k.Pixel+i/Panel]) * float64(y[p*k.YPanel+row*k.YRow+j*k.YPixel+i%Panel])
					}
				}
			}
			if math.Abs(float64(v)-want) > 1e-4 {
				t.Fatalf("sum %d is %g, want %g", i, v, want)
			}
		}
	})
}

func TestCorrelateDepthwiseEqualsTheDefinition(t *testing.T) {
	check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 6))
		n := rapid.IntRange(0, 70).Draw(t, "channels")
		k := &Correlation{Pixel: rapid.IntRange(0, 80).Draw(t, "pixel"), Columns: rapid.IntRange(0, 12).Draw(t, "columns"),
			YPixel: n + rapid.IntRange(0, 20).Draw(t, "gap")}
		var taps []int
		far := 0
		for range rapid.IntRange(0, 12).Draw(t, "taps") {
			taps = append(taps, rapid.IntRange(0, 99).Draw(t, "tap"))
			far = max(far, taps[len(taps)-1])
		}
		x := exact(rng, max(far+(k.Columns-1)*k.Pixel+n, 0))
		y := exact(rng, max((k.Columns-1)*k.YPixel+n, 0))
		sums := exact(rng, n*len(taps)+64)
		before := append([]float32(nil), sums...)
		var r Runner
		r.CorrelateDepthwise(k, taps, n, x, y, sums[:n*len(taps):n*len(taps)])
		for i, v := range sums {
			want := float64(before[i])
			if i < n*len(taps) {
				for j := range k.Columns {
					want += float64(x[taps[i/n]+j*k.Pixel+i%n]) * float64(y[j*k.YPixel+i%n])
				}
			}
			if math.Abs(float64(v)-want) > 1e-4 {
				t.Fatalf("sum %d is %g, want %g", i, v, want)
			}
		}
	})
}

func BenchmarkWinogradTransforms(b *testing.B) {
	const n = 64
	x, v, bias := make([]float32, 36*n), make([]float32, 36*n), make([]float32, n)
	for name, f := range map[string]func(){
		"input":  func() { WinogradInput(n, x, Square{6 * n, n}, v, n) },
		"output": func() { WinogradOutput(n, v, n, x, Square{4 * n, n}, bias, nil, true) },
		"spread": func() { WinogradSpread(n, x, Square{4 * n, n}, v, n) },
		"weight": func() { WinogradWeight(n, x, Square{3 * n, n}, v, n) },
		"gather": func() { WinogradGather(n, v, n, x, Square{3 * n, n}) },
	} {
		b.Run(fmt.Sprint(name), func(b *testing.B) {
			for b.Loop() {
				f()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n*8, "ns/vector")
		})
	}
}

func BenchmarkCorrelate(b *testing.B) {
	var r Runner
	for _, c := range []int{16, 64} {
		b.Run(fmt.Sprint(c), func(b *testing.B) {
			k := &Correlation{Pixel: c, Columns: 32, YPixel: c, YRow: 32 * c}
			for i := range 4 {
				k.Rows = append(k.Rows, i*34*c)
			}
			x, y, sums := make([]float32, 6*34*c), make([]float32, 4*32*c), make([]float32, 3*c*Panel)
			for b.Loop() {
				r.Correlate(k, 3*c, x, y, sums)
			}
			b.ReportMetric(float64(2*3*c*Panel*128)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
