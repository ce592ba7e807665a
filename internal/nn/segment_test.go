package nn

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"pgregory.net/rapid"
)

// resized is Bilinear by the definition: an output is the sum over all inputs of
// the triangle around its centre, centres outside having moved to the border.
func resized(x *conv.Map, h, w int) []float64 {
	share := func(i, out, at, in int) float64 {
		centre := (float64(i)+.5)*float64(in)/float64(out) - .5
		centre = min(max(centre, 0), float64(in-1))
		return max(1-math.Abs(centre-float64(at)), 0)
	}
	y := make([]float64, x.N*h*w*x.C)
	for n := range x.N {
		for i := range h {
			for j := range w {
				for a := range x.H {
					for b := range x.W {
						s := share(i, h, a, x.H) * share(j, w, b, x.W)
						for c := range x.C {
							y[((n*h+i)*w+j)*x.C+c] += s * float64(x.Data[((n*x.H+a)*x.W+b)*x.C+c])
						}
					}
				}
			}
		}
	}
	return y
}

func TestBilinearAndItsGradientEqualTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 11))
		x := drawMap(t, rng)
		h, w := rapid.IntRange(1, 20).Draw(t, "to h"), rapid.IntRange(1, 20).Draw(t, "to w")
		y := Bilinear(nil, x, h, w, 2)
		if y.N != x.N || y.H != h || y.W != w || y.C != x.C {
			t.Fatalf("resized to %d×%d×%d×%d", y.N, y.H, y.W, y.C)
		}
		near(t, "output", y.Data, resized(x, h, w), 5e-6)
		// Resizing is linear: the gradient is its transpose.
		dy := normal(rng, x.N, h, w, x.C)
		dx := BilinearBackward(nil, dy, x.H, x.W, 2)
		for range 5 {
			i := rng.IntN(len(x.Data))
			unit := conv.NewMap(x.N, x.H, x.W, x.C)
			unit.Data[i] = 1
			want := 0.
			for k, v := range resized(unit, h, w) {
				want += v * float64(dy.Data[k])
			}
			if math.Abs(want-float64(dx.Data[i])) > 1e-4*(1+math.Abs(want)) {
				t.Fatalf("gradient %d is %g, want %g", i, dx.Data[i], want)
			}
		}
	})
}

func TestPixelsThatAreIgnoredDoNotCount(t *testing.T) {
	const ignore = 255
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 12))
		pixels, classes := rapid.IntRange(1, 300).Draw(t, "pixels"), rapid.IntRange(1, 9).Draw(t, "classes")
		smoothing := rapid.SampledFrom([]float64{0, .1}).Draw(t, "smoothing")
		some := rapid.SampledFrom([]float64{0, .3, 1}).Draw(t, "ignored")
		logits := normal(rng, pixels, 1, 1, classes).Data
		labels := make([]uint8, pixels)
		var kept []float32
		var known []int
		for i := range labels {
			labels[i] = ignore
			if rng.Float64() >= some {
				labels[i] = uint8(rng.IntN(classes))
				known = append(known, int(labels[i]))
				kept = append(kept, logits[i*classes:(i+1)*classes]...)
			}
		}
		grad := normal(rng, pixels, 1, 1, classes).Data // must be overwritten
		loss, counted := PixelCrossEntropy(grad, logits, labels, ignore, classes, smoothing, 2)
		if counted != len(known) {
			t.Fatalf("%d pixels counted, want %d", counted, len(known))
		}
		want, wanted := 0., make([]float32, len(kept))
		if len(known) > 0 {
			want = CrossEntropy(wanted, kept, known, classes, smoothing, 1)
		}
		if math.Abs(loss-want) > 1e-12*(1+want) {
			t.Fatalf("loss %g, want %g", loss, want)
		}
		for i, l := range labels {
			row := grad[i*classes : (i+1)*classes]
			if l == ignore {
				if !slices.Equal(row, make([]float32, classes)) {
					t.Fatalf("an ignored pixel has the gradient %v", row)
				}
				continue
			}
			if !slices.Equal(row, wanted[:classes]) {
				t.Fatalf("gradient %v of pixel %d, want %v", row, i, wanted[:classes])
			}
			wanted = wanted[classes:]
		}
	})
}

func TestSegmentationDoesNotDependOnWorkers(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 13))
	x, dy := normal(rng, 3, 29, 31, 21), normal(rng, 3, 97, 90, 21)
	labels := make([]uint8, 3*97*90)
	for i := range labels {
		labels[i] = uint8(rng.IntN(23))
		if labels[i] > 20 {
			labels[i] = 255
		}
	}
	var first [][]float32
	for _, workers := range []int{1, 2, 5} {
		y := Bilinear(nil, x, 97, 90, workers)
		dx := BilinearBackward(nil, dy, 29, 31, workers)
		g := make([]float32, len(dy.Data))
		loss, _ := PixelCrossEntropy(g, dy.Data, labels, 255, 21, .1, workers)
		classes := make([]uint8, len(labels))
		Predict(classes, dy.Data, 21, workers)
		for i, c := range classes {
			if row := dy.Data[i*21:][:21]; row[c] != slices.Max(row) {
				t.Fatalf("class %d of %v", c, row)
			}
		}
		all := [][]float32{y.Data, dx.Data, g, {float32(loss)}}
		if first == nil {
			first = all
		}
		for i := range all {
			if !slices.Equal(all[i], first[i]) {
				t.Errorf("result %d of %d workers differs", i, workers)
			}
		}
	}
}

func TestOfEqualLogitsTheLowestClassIsPredicted(t *testing.T) {
	got := make([]uint8, 3)
	Predict(got, []float32{1, 3, 3, 0, 0, 0, -2, -3, -1}, 3, 1)
	if !slices.Equal(got, []uint8{1, 0, 2}) {
		t.Errorf("classes %v", got)
	}
}

func BenchmarkBilinear(b *testing.B) {
	rng := rand.New(rand.NewPCG(14, 14))
	x, dy := normal(rng, 8, 28, 28, 21), normal(rng, 8, 224, 224, 21)
	var y, dx *conv.Map
	b.Run("forward", func(b *testing.B) {
		for b.Loop() {
			y = Bilinear(y, x, 224, 224, 1)
		}
	})
	b.Run("backward", func(b *testing.B) {
		for b.Loop() {
			dx = BilinearBackward(dx, dy, 28, 28, 1)
		}
	})
}
