package nn

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"pgregory.net/rapid"
)

// checkRows compares a function of the channels of each pixel with f, in float64, and its
// gradient with differences.
func checkRows(t *rapid.T, rng *rand.Rand, x *conv.Map, f func(x []float64) []float64, forward func() *conv.Map, backward func(dx, dy, y *conv.Map, add bool) *conv.Map) {
	y := forward()
	dy, before := normal(rng, x.N, x.H, x.W, x.C), normal(rng, x.N, x.H, x.W, x.C)
	add := rapid.Bool().Draw(t, "add")
	dx := backward(clone(before), dy, y, add)
	for p := range x.N * x.H * x.W {
		in := make([]float64, x.C)
		widen(in, x.Data[p*x.C:(p+1)*x.C])
		near(t, "output", y.Data[p*x.C:(p+1)*x.C], f(in), 1e-6)
		i := rng.IntN(x.C)
		const h = 1e-5
		in[i] += h
		up := f(in)
		in[i] -= 2 * h
		down := f(in)
		want := 0.
		if add {
			want = float64(before.Data[p*x.C+i])
		}
		for j := range up {
			want += (up[j] - down[j]) / (2 * h) * float64(dy.Data[p*x.C+j])
		}
		near(t, "gradient", dx.Data[p*x.C+i:p*x.C+i+1], []float64{want}, 1e-5)
	}
}

func softmaxOf(x []float64) []float64 {
	sum := 0.
	for _, v := range x {
		sum += math.Exp(v)
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = math.Exp(v) / sum
	}
	return y
}

func TestSoftmaxAndItsGradientEqualTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 101))
		x := drawMap(t, rng)
		workers := rapid.IntRange(1, 3).Draw(t, "workers")
		checkRows(t, rng, x, softmaxOf, func() *conv.Map { return Softmax(nil, x, workers) },
			func(dx, dy, y *conv.Map, add bool) *conv.Map { return SoftmaxBackward(dx, dy, y, add, workers) })
		checkRows(t, rng, x, func(x []float64) []float64 {
			y := softmaxOf(x)
			for i, v := range y {
				y[i] = math.Log(v)
			}
			return y
		}, func() *conv.Map { return LogSoftmax(nil, x, workers) },
			func(dx, dy, y *conv.Map, add bool) *conv.Map { return LogSoftmaxBackward(dx, dy, y, add, workers) })
	})
}

func TestSoftmaxOfLargeValuesIsFinite(t *testing.T) {
	x := &conv.Map{N: 1, H: 1, W: 1, C: 3, Data: []float32{3e38, -3e38, 3e38}}
	if y := Softmax(nil, x, 1).Data; y[0] != .5 || y[1] != 0 || y[2] != .5 {
		t.Errorf("Softmax gives %v", y)
	}
	if y := LogSoftmax(nil, x, 1).Data; math.Abs(float64(y[0])+math.Ln2) > 1e-6 {
		t.Errorf("LogSoftmax gives %v", y)
	}
	x.Data[1] = float32(math.NaN())
	if y := Softmax(nil, x, 1).Data; y[0] == y[0] {
		t.Errorf("Softmax of NaN gives %v", y)
	}
}

func TestLRNAndItsGradientEqualTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 102))
		x := drawMap(t, rng)
		l := &LRN{Size: rapid.IntRange(1, 6).Draw(t, "size"), Alpha: rapid.SampledFrom([]float64{1e-4, .5}).Draw(t, "alpha"),
			Beta: rapid.SampledFrom([]float64{.75, .6}).Draw(t, "beta"), Bias: rapid.SampledFrom([]float64{1, 2}).Draw(t, "bias")}
		workers := rapid.IntRange(1, 3).Draw(t, "workers")
		checkRows(t, rng, x, func(x []float64) []float64 {
			y := make([]float64, len(x))
			for c, v := range x {
				sum := 0.
				first := c - int(math.Floor(float64(l.Size-1)/2))
				for i := first; i < first+l.Size; i++ {
					if i >= 0 && i < len(x) {
						sum += x[i] * x[i]
					}
				}
				y[c] = v / math.Pow(l.Bias+l.Alpha/float64(l.Size)*sum, l.Beta)
			}
			return y
		}, func() *conv.Map { return l.Forward(nil, x, workers) },
			func(dx, dy, _ *conv.Map, add bool) *conv.Map { return l.Backward(dx, dy, x, add, workers) })
	})
	if err := (&LRN{}).Validate(); err == nil {
		t.Error("no error of a size of 0")
	}
}
