package conv

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// naiveGradients is the gradients of Σ y·dy in the input and in the weights of a
// kernel, by the definition of y, in float64.
func naiveGradients(k *Kernel, x, dy *Map) (dx, dw []float64) {
	g := k.Normal()
	dx, dw = make([]float64, len(x.Data)), make([]float64, len(k.Weight))
	outs := k.Out() / g.Groups
	for n := range x.N {
		for oy := range dy.H {
			for ox := range dy.W {
				for t := range k.Out() {
					e := float64(dy.Data[((n*dy.H+oy)*dy.W+ox)*dy.C+t])
					for c := range k.Shape[1] {
						for ky := range k.Shape[2] {
							for kx := range k.Shape[3] {
								y := oy*g.Stride[0] - g.Padding[0] + ky*g.Dilation[0]
								xx := ox*g.Stride[1] - g.Padding[1] + kx*g.Dilation[1]
								if y < 0 || y >= x.H || xx < 0 || xx >= x.W {
									continue
								}
								at := ((n*x.H+y)*x.W+xx)*x.C + t/outs*k.Shape[1] + c
								w := ((t*k.Shape[1]+c)*k.Shape[2]+ky)*k.Shape[3] + kx
								dx[at] += e * float64(k.Weight[w])
								dw[w] += e * float64(x.Data[at])
							}
						}
					}
				}
			}
		}
	}
	return dx, dw
}

// checkGradients compares a layer's gradients with the definition's.
func checkGradients(t interface {
	Fatal(...any)
	Fatalf(string, ...any)
}, rng *rand.Rand, k *Kernel, x *Map, workers int, slack float64) {
	l, err := NewLayer(k)
	if err != nil {
		t.Fatal(err)
	}
	oh, ow := k.OutputSize(x.H, x.W)
	dy := NewMap(x.N, oh, ow, k.Out())
	copy(dy.Data, random(rng, len(dy.Data)))
	dx, dw := naiveGradients(k, x, dy)

	near := func(what string, got []float32, want []float64, depth int) {
		for i, v := range want {
			if !(math.Abs(float64(got[i])-v) <= slack*1e-6*(math.Sqrt(float64(depth))+4)) {
				t.Fatalf("%s %d is %g, want %g", what, i, got[i], v)
			}
		}
	}
	e := Epilogue{Residual: NewMap(x.N, x.H, x.W, x.C)}
	copy(e.Residual.Data, random(rng, len(x.Data)))
	plain, err := l.InputGradient(nil, dy, x.H, x.W, Epilogue{}, workers)
	if err != nil {
		t.Fatal(err)
	}
	near("input gradient", plain.Data, dx, k.Out()*k.Taps())
	for i, v := range e.Residual.Data {
		dx[i] += float64(v)
	}
	added, err := l.InputGradient(e.Residual, dy, x.H, x.W, e, workers)
	if err != nil {
		t.Fatal(err)
	}
	near("input gradient added up", added.Data, dx, k.Out()*k.Taps())

	weight, bias := random(rng, len(l.Weights())), random(rng, len(l.Bias()))
	if err := l.Gradient(weight, bias, x, dy, workers); err != nil {
		t.Fatal(err)
	}
	got := make([]float32, len(dw))
	if err := l.KernelOrder(got, weight); err != nil {
		t.Fatal(err)
	}
	near("weight gradient", got, dw, x.N*oh*ow)
	// Whatever belongs to no output stays zero.
	used := make([]bool, len(weight))
	l.each(func(at, _ int) { used[at] = true })
	for i, v := range weight {
		if !used[i] && v != 0 {
			t.Fatalf("gradient %d, of no weight, is %g", i, v)
		}
	}
	sums := make([]float64, len(bias))
	for i, v := range dy.Data {
		outs := k.Out() / l.kernel.Groups
		sums[l.output(i%dy.C/outs, i%dy.C%outs)] += float64(v)
	}
	near("bias gradient", bias, sums, x.N*oh*ow)
}

func TestGradientsEqualTheDefinitionForEveryGeometry(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 11))
		k := drawKernel(t, rng)
		x := NewMap(rapid.IntRange(1, 3).Draw(t, "n"), rapid.IntRange(1, 12).Draw(t, "h"), rapid.IntRange(1, 12).Draw(t, "w"), k.In())
		copy(x.Data, random(rng, len(x.Data)))
		if oh, ow := k.OutputSize(x.H, x.W); oh < 1 || ow < 1 {
			t.Skip("too small")
		}
		checkGradients(t, rng, k, x, rapid.IntRange(1, 3).Draw(t, "workers"), 4)
	})
}

func TestDepthwiseGradientsEqualTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 12))
		k := drawKernel(t, rng)
		k.Groups = rapid.IntRange(2, 70).Draw(t, "channels")
		k.Shape[0], k.Shape[1], k.Bias = k.Groups, 1, nil
		k.Weight = random(rng, k.Groups*k.Taps())
		x := NewMap(rapid.IntRange(1, 3).Draw(t, "n"), rapid.IntRange(1, 12).Draw(t, "h"), rapid.IntRange(1, 12).Draw(t, "w"), k.In())
		copy(x.Data, random(rng, len(x.Data)))
		if oh, ow := k.OutputSize(x.H, x.W); oh < 1 || ow < 1 {
			t.Skip("too small")
		}
		checkGradients(t, rng, k, x, rapid.IntRange(1, 3).Draw(t, "workers"), 4)
	})
}

// big lists kernels with enough channels for every way of computing: blocks of
// channels, packed gradients, Winograd's method with and without odd sizes.
var big = []struct {
	k       Kernel
	n, h, w int
}{
	{Kernel{Shape: [4]int{16, 16, 3, 3}, Geometry: Geometry{Padding: [2]int{1, 1}}}, 2, 16, 16},
	{Kernel{Shape: [4]int{24, 16, 3, 3}, Geometry: Geometry{Padding: [2]int{1, 1}}}, 1, 14, 17},
	{Kernel{Shape: [4]int{23, 37, 3, 3}, Geometry: Geometry{Padding: [2]int{1, 1}}}, 3, 9, 14},
	{Kernel{Shape: [4]int{17, 70, 3, 3}, Geometry: Geometry{Padding: [2]int{0, 2}}}, 2, 15, 13},
	{Kernel{Shape: [4]int{130, 150, 3, 3}, Geometry: Geometry{Padding: [2]int{1, 1}}}, 4, 7, 7},
	{Kernel{Shape: [4]int{260, 130, 3, 3}, Geometry: Geometry{Padding: [2]int{1, 1}, Stride: [2]int{2, 2}}}, 2, 14, 14},
	{Kernel{Shape: [4]int{150, 130, 1, 1}, Geometry: Geometry{Stride: [2]int{2, 2}}}, 2, 13, 14},
	{Kernel{Shape: [4]int{150, 130, 1, 1}}, 3, 9, 7},
	{Kernel{Shape: [4]int{64, 3, 7, 7}, Geometry: Geometry{Padding: [2]int{3, 3}, Stride: [2]int{2, 2}}}, 1, 32, 30},
	{Kernel{Shape: [4]int{300, 200, 1, 1}}, 5, 1, 1},
	{Kernel{Shape: [4]int{64, 100, 3, 3}, Geometry: Geometry{Padding: [2]int{2, 2}, Dilation: [2]int{2, 2}, Groups: 2}}, 1, 12, 12},
	{Kernel{Shape: [4]int{20, 40, 1, 5}, Geometry: Geometry{Padding: [2]int{0, 2}}}, 2, 6, 40},
	{Kernel{Shape: [4]int{23, 37, 3, 3}, Geometry: Geometry{Padding: [2]int{1, 2}, Extra: [2]int{1, -2}}}, 3, 9, 14},
	{Kernel{Shape: [4]int{16, 16, 3, 3}, Geometry: Geometry{Extra: [2]int{5, 2}}}, 2, 16, 16},
	{Kernel{Shape: [4]int{32, 24, 1, 1}, Geometry: Geometry{Extra: [2]int{1, 2}}}, 2, 13, 14},
	{Kernel{Shape: [4]int{32, 24, 1, 1}, Geometry: Geometry{Extra: [2]int{1, 0}, Stride: [2]int{2, 2}}}, 2, 14, 14},
	{Kernel{Shape: [4]int{32, 24, 2, 4}, Geometry: Geometry{Extra: [2]int{1, 1}, Padding: [2]int{0, 1}}}, 2, 13, 14},
	{Kernel{Shape: [4]int{24, 32, 1, 9}, Geometry: Geometry{Extra: [2]int{0, 1}, Padding: [2]int{0, 4}, Stride: [2]int{1, 4}}}, 2, 1, 50},
}

func TestBigLayersEqualTheDefinition(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 13))
	for _, c := range big {
		k := c.k
		k.Weight = random(rng, k.Shape[0]*k.Shape[1]*k.Taps())
		k.Bias = random(rng, k.Shape[0])
		x := NewMap(c.n, c.h, c.w, k.In())
		copy(x.Data, random(rng, len(x.Data)))
		l, err := NewLayer(&k)
		if err != nil {
			t.Fatal(err)
		}
		want := naive(&k, x)
		e := Epilogue{Residual: NewMap(want.N, want.H, want.W, want.C), ReLU: true}
		copy(e.Residual.Data, random(rng, len(want.Data)))
		plain, err := l.Forward(nil, x, Epilogue{}, 2)
		if err != nil {
			t.Fatal(err)
		}
		closeTo(t, plain, want, 10*int(math.Sqrt(float64(k.Shape[1]*k.Taps()))))
		for i := range want.Data {
			want.Data[i] = max(want.Data[i]+e.Residual.Data[i], 0)
		}
		full, err := l.Forward(nil, x, e, 1)
		if err != nil {
			t.Fatal(err)
		}
		closeTo(t, full, want, 10*int(math.Sqrt(float64(k.Shape[1]*k.Taps()))))
		checkGradients(t, rng, &k, x, 2, 10)
	}
}

// relativeError is the largest error of got in terms of the largest value.
func relativeError(got []float32, want []float64) float64 {
	var worst, scale float64
	for i, v := range want {
		worst, scale = max(worst, math.Abs(float64(got[i])-v)), max(scale, math.Abs(v))
	}
	return worst / scale
}

func TestWinogradErrorStaysWithinItsBound(t *testing.T) {
	rng := rand.New(rand.NewPCG(14, 14))
	for _, c := range []int{16, 64, 256, 512} {
		k := &Kernel{Shape: [4]int{16, c, 3, 3}, Weight: random(rng, 16*c*9), Geometry: Geometry{Padding: [2]int{1, 1}}}
		x := NewMap(1, 16, 16, c)
		copy(x.Data, random(rng, len(x.Data)))
		l, err := NewLayer(k)
		if err != nil {
			t.Fatal(err)
		}
		y, err := l.Forward(nil, x, Epilogue{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]float64, len(y.Data))
		plain := make([]float32, len(y.Data))
		for i := range plain { // the definition, in float32 and float64
			oy, ox, o := i/16/16, i/16%16, i%16
			for ky := range 3 {
				for kx := range 3 {
					if yy, xx := oy+ky-1, ox+kx-1; yy >= 0 && yy < 16 && xx >= 0 && xx < 16 {
						for s := range c {
							a, w := x.Data[(yy*16+xx)*c+s], k.Weight[(o*c+s)*9+ky*3+kx]
							plain[i] += a * w
							want[i] += float64(a) * float64(w)
						}
					}
				}
			}
		}
		ours, theirs := relativeError(y.Data, want), relativeError(plain, want)
		t.Logf("%d channels: error %.2g, the definition in float32 %.2g", c, ours, theirs)
		if ours > 4*theirs {
			t.Errorf("%d channels: error %g, the definition's in float32 is %g", c, ours, theirs)
		}
	}
}

func TestGradientsDoNotDependOnWorkers(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 15))
	for _, c := range big {
		k := c.k
		k.Weight = random(rng, k.Shape[0]*k.Shape[1]*k.Taps())
		l, err := NewLayer(&k)
		if err != nil {
			t.Fatal(err)
		}
		x := NewMap(c.n, c.h, c.w, k.In())
		copy(x.Data, random(rng, len(x.Data)))
		oh, ow := k.OutputSize(x.H, x.W)
		dy := NewMap(x.N, oh, ow, k.Out())
		copy(dy.Data, random(rng, len(dy.Data)))
		var first [][]float32
		for _, workers := range []int{1, 2, 3, 5} {
			y, err := l.Forward(nil, x, Epilogue{}, workers)
			if err != nil {
				t.Fatal(err)
			}
			dx, err := l.InputGradient(nil, dy, x.H, x.W, Epilogue{}, workers)
			if err != nil {
				t.Fatal(err)
			}
			dw, db := make([]float32, len(l.Weights())), make([]float32, len(l.Bias()))
			if err := l.Gradient(dw, db, x, dy, workers); err != nil {
				t.Fatal(err)
			}
			results := [][]float32{y.Data, dx.Data, dw, db}
			if first == nil {
				first = results
			}
			for i := range results {
				if !slices.Equal(results[i], first[i]) {
					t.Errorf("%v: result %d of %d workers differs", k.Shape, i, workers)
				}
			}
		}
	}
}

func TestUpdateMakesChangedWeightsCount(t *testing.T) {
	rng := rand.New(rand.NewPCG(16, 16))
	k := &Kernel{Shape: [4]int{16, 16, 3, 3}, Weight: random(rng, 16*16*9), Geometry: Geometry{Padding: [2]int{1, 1}}}
	l, err := NewLayer(k)
	if err != nil {
		t.Fatal(err)
	}
	x := NewMap(1, 16, 16, 16)
	copy(x.Data, random(rng, len(x.Data)))
	run := func() []*Map {
		y, err := l.Forward(nil, x, Epilogue{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		dx, err := l.InputGradient(nil, x, 16, 16, Epilogue{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		return []*Map{y, dx}
	}
	before := run()
	for i := range l.Weights() {
		l.Weights()[i] *= 2
	}
	l.Update()
	for i, m := range run() {
		for j, v := range m.Data {
			if v != 2*before[i].Data[j] {
				t.Fatalf("value %d of result %d is %g, was %g with half the weights", j, i, v, before[i].Data[j])
			}
		}
	}
}

func TestGradientErrorsNameWhatDoesNotFit(t *testing.T) {
	k := &Kernel{Shape: [4]int{4, 2, 3, 3}, Weight: make([]float32, 72)}
	l, err := NewLayer(k)
	if err != nil {
		t.Fatal(err)
	}
	x, dy := NewMap(1, 5, 5, 2), NewMap(1, 3, 3, 4)
	w := make([]float32, len(l.Weights()))
	for name, err := range map[string]error{
		"input channels":  l.Gradient(w, nil, NewMap(1, 5, 5, 3), dy, 1),
		"output size":     l.Gradient(w, nil, x, NewMap(1, 3, 2, 4), 1),
		"output channels": l.Gradient(w, nil, x, NewMap(1, 3, 3, 5), 1),
		"images":          l.Gradient(w, nil, x, NewMap(2, 3, 3, 4), 1),
		"weights":         l.Gradient(w[1:], nil, x, dy, 1),
		"biases":          l.Gradient(w, make([]float32, 4), x, dy, 1),
		"small":           l.Gradient(w, nil, NewMap(1, 2, 5, 2), dy, 1),
		"order":           l.KernelOrder(make([]float32, 71), w),
	} {
		if !errors.Is(err, ErrShape) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := l.InputGradient(nil, dy, 6, 5, Epilogue{}, 1); !errors.Is(err, ErrShape) {
		t.Errorf("input size: error %v", err)
	}
	if _, err := l.InputGradient(nil, dy, 5, 5, Epilogue{Residual: NewMap(1, 5, 5, 1)}, 1); !errors.Is(err, ErrShape) {
		t.Errorf("residual: error %v", err)
	}
}
