package nhwc

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawRows draws the number of pixels and channels of maps.
func drawRows(t *rapid.T) (rng *rand.Rand, pixels, channels int) {
	return rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 8)), rapid.IntRange(0, 9).Draw(t, "pixels"), rapid.IntRange(0, 75).Draw(t, "channels")
}

// guarded is a copy of n values of v followed by guards, and a check that they
// are still there.
func guarded(t *rapid.T, v []float32) ([]float32, func(name string)) {
	all := make([]float32, len(v)+32)
	copy(all, v)
	for i := len(v); i < len(all); i++ {
		all[i] = guard
	}
	return all[:len(v):len(v)], func(name string) {
		for _, x := range all[len(v):] {
			if x != guard {
				t.Fatalf("%s was written beyond its end", name)
			}
		}
	}
}

func same(t *rapid.T, name string, got []float32, want []float64) {
	for i, w := range want {
		if !(math.Abs(float64(got[i])-w) <= 1e-5*(1+math.Abs(w))) {
			t.Fatalf("%s %d is %g, want %g", name, i, got[i], w)
		}
	}
}

func widen(v []float32) []float64 {
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = float64(x)
	}
	return w
}

func TestMomentsEqualTheDefinition(t *testing.T) {
	check(t, func(t *rapid.T) {
		rng, pixels, channels := drawRows(t)
		x, pivot := exact(rng, pixels*channels), exact(rng, channels)
		sum, checkSum := guarded(t, exact(rng, channels))
		square, checkSquare := guarded(t, exact(rng, channels))
		wantSum, wantSquare := widen(sum), widen(square)
		for i, v := range x {
			d := float64(v) - float64(pivot[i%channels])
			wantSum[i%channels] += d
			wantSquare[i%channels] += d * d
		}
		Moments(x, pixels, channels, pivot, sum, square)
		same(t, "sum", sum, wantSum)
		same(t, "square", square, wantSquare)
		checkSum("sum")
		checkSquare("square")
	})
}

func TestProductsEqualTheDefinition(t *testing.T) {
	check(t, func(t *rapid.T) {
		rng, pixels, channels := drawRows(t)
		x, mean := exact(rng, pixels*channels), exact(rng, channels)
		g, checkG := guarded(t, exact(rng, pixels*channels))
		sum, checkSum := guarded(t, exact(rng, channels))
		product, checkProduct := guarded(t, exact(rng, channels))
		wantG, wantSum, wantProduct := widen(g), widen(sum), widen(product)
		var out []float32
		if rapid.Bool().Draw(t, "masked") {
			out = exact(rng, pixels*channels)
			for i := range out {
				switch rng.IntN(8) {
				case 0:
					out[i] = 0
				case 1:
					out[i] = float32(math.NaN())
				}
				if out[i] <= 0 {
					wantG[i] = 0
				}
			}
		}
		for i, v := range wantG {
			wantSum[i%channels] += v
			wantProduct[i%channels] += v * (float64(x[i]) - float64(mean[i%channels]))
		}
		Products(g, x, out, pixels, channels, mean, sum, product)
		same(t, "gradient", g, wantG)
		same(t, "sum", sum, wantSum)
		same(t, "product", product, wantProduct)
		checkG("gradient")
		checkSum("sum")
		checkProduct("product")
	})
}

func TestAffineEqualsTheDefinition(t *testing.T) {
	check(t, func(t *rapid.T) {
		rng, pixels, channels := drawRows(t)
		n := pixels * channels
		x, a, b, c := exact(rng, n), exact(rng, channels), exact(rng, channels), exact(rng, channels)
		relu := rapid.Bool().Draw(t, "relu")
		var residual []float32
		if rapid.Bool().Draw(t, "residual") {
			residual = exact(rng, n)
		}
		want, pair := make([]float64, n), make([]float64, n)
		y := exact(rng, n)
		for i, v := range x {
			want[i] = float64(v)*float64(a[i%channels]) + float64(b[i%channels])
			if residual != nil {
				want[i] += float64(residual[i])
			}
			if relu {
				want[i] = max(want[i], 0)
			}
			pair[i] = float64(v)*float64(a[i%channels]) + float64(y[i])*float64(b[i%channels]) + float64(c[i%channels])
		}
		dst, check := guarded(t, make([]float32, n))
		Affine(dst, x, residual, pixels, channels, a, b, relu)
		same(t, "affine", dst, want)
		check("affine")
		AffinePair(dst, x, y, pixels, channels, a, b, c)
		same(t, "pair", dst, pair)
		check("pair")
		AffinePair(y, x, y, pixels, channels, a, b, c)
		if !slices.Equal(y, dst) {
			t.Fatal("in place the result is another")
		}
	})
}

func TestAddEqualsTheDefinition(t *testing.T) {
	check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 9))
		n := rapid.IntRange(0, 90).Draw(t, "values")
		x := exact(rng, n)
		dst, unharmed := guarded(t, exact(rng, n))
		want := make([]float32, n)
		for i := range want {
			want[i] = dst[i] + x[i]
		}
		Add(dst, x)
		unharmed("dst")
		for i, v := range dst {
			if v != want[i] {
				t.Fatalf("value %d is %g, want %g", i, v, want[i])
			}
		}
	})
}

func TestStepsEqualTheDefinition(t *testing.T) {
	check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 9))
		n := rapid.IntRange(0, 50).Draw(t, "weights")
		g := exact(rng, n)
		w, checkW := guarded(t, exact(rng, n))
		v, checkV := guarded(t, exact(rng, n))
		s, checkS := guarded(t, exact(rng, n))
		for i := range s {
			s[i] *= s[i]
		}
		adam := rapid.Bool().Draw(t, "adam")
		wantW, wantV, wantS := widen(w), widen(v), widen(s)
		for i := range g {
			d := float64(g[i]) + .25*wantW[i]
			if adam {
				wantV[i] = .875*wantV[i] + .125*d
				wantS[i] = .75*wantS[i] + .25*d*d
				wantW[i] = .5*wantW[i] - .125*wantV[i]/(math.Sqrt(wantS[i])+.0625)
				continue
			}
			wantV[i] = .875*wantV[i] + .5*d
			wantW[i] -= .125*d + .75*wantV[i]
		}
		if adam {
			Adam(w, v, s, g, &AdamShares{.25, .875, .125, .75, .25, .125, .0625, .5})
		} else {
			SGD(w, v, g, .25, .875, .5, .125, .75)
		}
		same(t, "weight", w, wantW)
		same(t, "velocity", v, wantV)
		same(t, "square", s, wantS)
		checkW("weight")
		checkV("velocity")
		checkS("square")
	})
}

func TestMaximaNameTheFirstLargest(t *testing.T) {
	check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 10))
		channels := rapid.IntRange(0, 40).Draw(t, "channels")
		offsets := rapid.SliceOfN(rapid.IntRange(0, 60), 1, 9).Draw(t, "offsets")
		x := exact(rng, slices.Max(offsets)+channels)
		for i := range x {
			x[i] = float32(math.Round(2 * float64(x[i]))) // many equals
			if rng.IntN(30) == 0 {
				x[i] = float32(math.NaN())
			}
		}
		dst, check := guarded(t, make([]float32, channels))
		which := make([]uint8, channels+8)
		for i := range which {
			which[i] = 99
		}
		var r Runner
		r.Maxima(dst, which[:channels:channels], x, offsets, channels)
		check("maximum")
		for c := range channels {
			best := 0
			for i, o := range offsets {
				b, v := x[offsets[best]+c], x[o+c]
				if v > b || v != v && b == b {
					best = i
				}
			}
			if want := x[offsets[best]+c]; int(which[c]) != best || dst[c] != want && want == want {
				t.Fatalf("channel %d: maximum %g of tap %d, want %g of %d", c, dst[c], which[c], want, best)
			}
		}
		for _, v := range which[channels:] {
			if v != 99 {
				t.Fatal("the taps were written beyond their end")
			}
		}
	})
}
