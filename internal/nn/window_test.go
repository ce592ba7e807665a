package nn

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"pgregory.net/rapid"
)

func drawWindow(t *rapid.T) Window {
	var w Window
	if rapid.IntRange(0, 3).Draw(t, "adaptive") == 0 {
		w.Adaptive = [2]int{rapid.IntRange(1, 11).Draw(t, "ah"), rapid.IntRange(1, 11).Draw(t, "aw")}
		return w
	}
	for a := range 2 {
		w.Size[a] = rapid.IntRange(1, 5).Draw(t, "size")
		w.Stride[a] = rapid.IntRange(0, 4).Draw(t, "stride")
		w.Dilation[a] = rapid.IntRange(0, 3).Draw(t, "dilation")
		w.Begin[a] = rapid.IntRange(0, 3).Draw(t, "begin")
		w.End[a] = rapid.IntRange(0, 3).Draw(t, "end")
	}
	w.Ceil = rapid.Bool().Draw(t, "ceil")
	w.CountPadding = rapid.Bool().Draw(t, "count padding")
	w.Divisor = rapid.SampledFrom([]int{0, 0, 5}).Draw(t, "divisor")
	return w
}

// windowInputs lists what output i sees along an axis of n inputs, and what that counts
// for in a divisor, by the definition.
func windowInputs(w Window, a, i, n int) (at []int, count int) {
	if out := w.Adaptive[a]; out > 0 {
		for j := range n {
			if float64(j) > float64(i*n)/float64(out)-1 && float64(j) < float64((i+1)*n)/float64(out) {
				at = append(at, j)
			}
		}
		return at, len(at)
	}
	for t := range w.Size[a] {
		j := i*max(w.Stride[a], 1) - w.Begin[a] + t*max(w.Dilation[a], 1)
		if j >= 0 && j < n {
			at = append(at, j)
			count++
		} else if w.CountPadding && j < n+w.End[a] {
			count++
		}
	}
	return at, count
}

// windowSize is PyTorch's rule: with ceil mode the last window must begin within the map
// or the padding before it.
func windowSize(w Window, a, n int) int {
	if w.Adaptive[a] > 0 {
		return w.Adaptive[a]
	}
	size := float64(n+w.Begin[a]+w.End[a]-max(w.Dilation[a], 1)*(w.Size[a]-1)-1)/float64(max(w.Stride[a], 1)) + 1
	if !w.Ceil {
		return max(int(math.Floor(size)), 0)
	}
	out := int(math.Ceil(size))
	if (out-1)*max(w.Stride[a], 1) >= n+w.Begin[a] {
		out--
	}
	return max(out, 0)
}

func TestPoolingEqualsTheDefinitionForEveryWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 21))
		x := drawMap(t, rng)
		w := drawWindow(t)
		if err := w.Validate(); err != nil {
			t.Fatal(err)
		}
		workers := rapid.IntRange(1, 5).Draw(t, "workers")
		oh, ow := windowSize(w, 0, x.H), windowSize(w, 1, x.W)
		p := MaxPool{Window: w}
		most, mean := p.Forward(nil, x, workers), w.Average(nil, x, workers)
		for _, y := range []*conv.Map{most, mean} {
			if y.N != x.N || y.H != oh || y.W != ow || y.C != x.C {
				t.Fatalf("%d×%d, want %d×%d", y.H, y.W, oh, ow)
			}
		}
		if h, wd := p.OutputSize(x.H, x.W); h != oh || wd != ow {
			t.Fatalf("OutputSize is %d×%d, want %d×%d", h, wd, oh, ow)
		}
		dy := normal(rng, x.N, oh, ow, x.C)
		add := rapid.Bool().Draw(t, "add")
		before := normal(rng, x.N, x.H, x.W, x.C)
		wantMost, wantMean := make([]float64, len(most.Data)), make([]float64, len(mean.Data))
		dMost, dMean := make([]float64, len(x.Data)), make([]float64, len(x.Data))
		for i := range dMost {
			if add {
				dMost[i], dMean[i] = float64(before.Data[i]), float64(before.Data[i])
			}
		}
		for i := range most.Data {
			c, ox, oy, n := i%x.C, i/x.C%ow, i/x.C/ow%oh, i/x.C/ow/oh
			rows, tall := windowInputs(w, 0, oy, x.H)
			cols, wide := windowInputs(w, 1, ox, x.W)
			share := 1 / float64(tall*wide)
			if w.Divisor > 0 && w.Adaptive == [2]int{} {
				share = 1 / float64(w.Divisor)
			}
			best := -1
			wantMost[i] = math.Inf(-1)
			for _, y := range rows {
				for _, xx := range cols {
					at := ((n*x.H+y)*x.W+xx)*x.C + c
					wantMean[i] += float64(x.Data[at]) * share
					dMean[at] += float64(dy.Data[i]) * share
					if best < 0 || x.Data[at] > x.Data[best] {
						best = at
						wantMost[i] = float64(x.Data[at])
					}
				}
			}
			if best >= 0 {
				dMost[best] += float64(dy.Data[i])
			}
		}
		for i, v := range wantMost {
			if float64(most.Data[i]) != v {
				t.Fatalf("maximum %d is %g, want %g", i, most.Data[i], v)
			}
		}
		near(t, "average", mean.Data, wantMean, 1e-5)
		into := func() *conv.Map {
			return &conv.Map{N: x.N, H: x.H, W: x.W, C: x.C, Data: slices.Clone(before.Data)}
		}
		near(t, "gradient of the maximum", p.Backward(into(), dy, x.H, x.W, add, workers).Data, dMost, 1e-5)
		near(t, "gradient of the average", w.AverageBackward(into(), dy, x.H, x.W, add, workers).Data, dMean, 1e-5)
	})
}

func TestMaxPoolOfLargeWindowsEqualsThatOfTheSameInputs(t *testing.T) {
	x := normal(rand.New(rand.NewPCG(22, 22)), 2, 20, 21, 9)
	x.Data[777] = float32(math.NaN())
	large := MaxPool{Window: Window{Size: [2]int{20, 21}}}
	y := large.Forward(nil, x, 2)
	dx := large.Backward(nil, y, 20, 21, false, 2)
	for i, v := range y.Data {
		n, c := i/9, i%9
		best := n*20*21*9 + c
		for p := range 20 * 21 {
			at := (n*20*21+p)*9 + c
			if v := x.Data[at]; v > x.Data[best] || v != v {
				best = at
			}
		}
		if want := x.Data[best]; v != want && (v == v || want == want) {
			t.Errorf("maximum %d is %g, want %g", i, v, want)
		}
		if g := dx.Data[best]; g != v && (g == g || v == v) {
			t.Errorf("gradient %d is %g, want %g", best, g, v)
		}
	}
}

func TestWindowsThatAreNoneAreErrors(t *testing.T) {
	for _, w := range []Window{{}, {Size: [2]int{1, 0}}, {Size: [2]int{1, 1}, Stride: [2]int{-1, 1}}, {Size: [2]int{1, 1}, End: [2]int{0, -1}}, {Adaptive: [2]int{1, 0}}, {Size: [2]int{1 << 20, 1}, Begin: [2]int{1 << 20, 0}}} {
		if err := w.Validate(); !errors.Is(err, conv.ErrShape) {
			t.Errorf("%+v: %v", w, err)
		}
	}
}
