package conv

import (
	"errors"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// naiveTransposed scatters every input pixel times the kernel, in float64.
func naiveTransposed(k *Kernel, bias []float32, x *Map, oh, ow int) *Map {
	g := k.Normal()
	sums := make([]float64, x.N*oh*ow*k.In())
	for i := range sums {
		if bias != nil {
			sums[i] = float64(bias[i%k.In()])
		}
	}
	per := k.Out() / g.Groups
	for n := range x.N {
		for iy := range x.H {
			for ix := range x.W {
				for s := range k.Out() {
					for c := range k.Shape[1] {
						for ky := range k.Shape[2] {
							for kx := range k.Shape[3] {
								y, xx := iy*g.Stride[0]-g.Padding[0]+ky*g.Dilation[0], ix*g.Stride[1]-g.Padding[1]+kx*g.Dilation[1]
								if y < 0 || y >= oh || xx < 0 || xx >= ow {
									continue
								}
								sums[((n*oh+y)*ow+xx)*k.In()+s/per*k.Shape[1]+c] += float64(x.Data[((n*x.H+iy)*x.W+ix)*x.C+s]) *
									float64(k.Weight[((s*k.Shape[1]+c)*k.Shape[2]+ky)*k.Shape[3]+kx])
							}
						}
					}
				}
			}
		}
	}
	out := NewMap(x.N, oh, ow, k.In())
	for i, v := range sums {
		out.Data[i] = float32(v)
	}
	return out
}

func TestTransposedConvolutionEqualsTheDefinitionForEveryGeometry(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 21))
		k := drawKernel(t, rng)
		k.Bias = nil
		if rapid.Bool().Draw(t, "depthwise") {
			k.Groups = rapid.IntRange(2, 20).Draw(t, "channels")
			k.Shape = [4]int{k.Groups, 1, k.Shape[2], k.Shape[3]}
			k.Weight = random(rng, k.Groups*k.Taps())
		}
		var bias []float32
		if rapid.Bool().Draw(t, "biased") {
			bias = random(rng, k.In())
		}
		var output [2]int
		for a := range output {
			output[a] = rapid.IntRange(0, max(k.Stride[a], k.Dilation[a])-1).Draw(t, "output padding")
		}
		l, err := NewTransposed(k, bias, output)
		if err != nil {
			t.Fatal(err)
		}
		x := NewMap(rapid.IntRange(1, 3).Draw(t, "n"), rapid.IntRange(1, 9).Draw(t, "h"), rapid.IntRange(1, 9).Draw(t, "w"), k.Out())
		copy(x.Data, random(rng, len(x.Data)))
		workers := rapid.IntRange(1, 3).Draw(t, "workers")
		size := func(n, a int) int {
			return (n-1)*k.Stride[a] - 2*k.Padding[a] - k.Extra[a] + k.Dilation[a]*(k.Shape[2+a]-1) + output[a] + 1
		}
		oh, ow := size(x.H, 0), size(x.W, 1)
		if oh < 1 || ow < 1 {
			if _, err := l.Forward(nil, x, Epilogue{}, workers); !errors.Is(err, ErrShape) {
				t.Fatalf("an output of %d×%d gave %v", oh, ow, err)
			}
			return
		}
		want := naiveTransposed(k, bias, x, oh, ow)
		depth := k.Out() * k.Taps()
		y, err := l.Forward(nil, x, Epilogue{}, workers)
		if err != nil {
			t.Fatal(err)
		}
		closeTo(t, y, want, depth)
		e := Epilogue{Residual: NewMap(y.N, y.H, y.W, y.C), ReLU: true}
		copy(e.Residual.Data, random(rng, len(y.Data)))
		for i, v := range e.Residual.Data {
			want.Data[i] = max(want.Data[i]+v, 0)
		}
		full, err := l.Forward(nil, x, e, workers)
		if err != nil {
			t.Fatal(err)
		}
		closeTo(t, full, want, depth)

		// The output is linear in the input and in the weights: for any change the
		// gradient times it is the change of Σ y·dy.
		dy := NewMap(y.N, y.H, y.W, y.C)
		copy(dy.Data, random(rng, len(dy.Data)))
		dx, err := l.InputGradient(nil, dy, Epilogue{}, workers)
		if err != nil {
			t.Fatal(err)
		}
		layered, db := random(rng, len(l.Weights())), random(rng, len(l.Bias()))
		if err := l.Gradient(layered, db, x, dy, workers); err != nil {
			t.Fatal(err)
		}
		dw := make([]float32, len(k.Weight))
		if err := l.KernelOrder(dw, layered); err != nil {
			t.Fatal(err)
		}
		dot := func(a, b []float32) (s float64) {
			for i, v := range a {
				s += float64(v) * float64(b[i])
			}
			return s
		}
		noBias := naiveTransposed(k, nil, x, oh, ow)
		slack := 1e-4 * float64(1+len(y.Data))
		for what, pair := range map[string][2]float64{
			"input":   {dot(dx.Data, x.Data), dot(noBias.Data, dy.Data)},
			"weights": {dot(dw, k.Weight), dot(noBias.Data, dy.Data)},
		} {
			if d := pair[0] - pair[1]; d > slack || d < -slack {
				t.Fatalf("gradient of the %s: %g, want %g", what, pair[0], pair[1])
			}
		}
		other := *k
		other.Weight = random(rng, len(k.Weight))
		if d := dot(dw, other.Weight) - dot(naiveTransposed(&other, nil, x, oh, ow).Data, dy.Data); d > slack || d < -slack {
			t.Fatalf("gradient of the weights along another direction is off by %g", d)
		}
		sums := make([]float64, k.In())
		for i, v := range dy.Data {
			sums[i%k.In()] += float64(v)
		}
		for i, v := range sums {
			if d := float64(db[i]) - v; d > 1e-4 || d < -1e-4 {
				t.Fatalf("gradient of bias %d is %g, want %g", i, db[i], v)
			}
		}
	})
}

func TestTransposedWinogradAndChangedWeightsEqualTheDefinition(t *testing.T) {
	rng := rand.New(rand.NewPCG(22, 22))
	k := &Kernel{Shape: [4]int{32, 24, 3, 3}, Weight: random(rng, 32*24*9), Geometry: Geometry{Padding: [2]int{1, 1}}}
	bias := random(rng, 24)
	l, err := NewTransposed(k, bias, [2]int{})
	if err != nil {
		t.Fatal(err)
	}
	x := NewMap(2, 16, 18, 32)
	copy(x.Data, random(rng, len(x.Data)))
	for range 2 {
		y, err := l.Forward(nil, x, Epilogue{}, 2)
		if err != nil {
			t.Fatal(err)
		}
		closeTo(t, y, naiveTransposed(k, bias, x, 16, 18), 300)
		for i := range l.Bias() {
			l.Bias()[i] += 1
			bias[i] += 1
		}
		for i := range l.Weights() {
			l.Weights()[i] *= 2
		}
		for i := range k.Weight {
			k.Weight[i] *= 2
		}
		l.Update()
	}
}

func TestTransposedConvolutionsThatAreNoneAreErrors(t *testing.T) {
	k := &Kernel{Shape: [4]int{2, 3, 1, 1}, Weight: make([]float32, 6)}
	for name, f := range map[string]func() (*Transposed, error){
		"biases":         func() (*Transposed, error) { return NewTransposed(k, make([]float32, 2), [2]int{}) },
		"output padding": func() (*Transposed, error) { return NewTransposed(k, nil, [2]int{1, 0}) },
		"negative":       func() (*Transposed, error) { return NewTransposed(k, nil, [2]int{0, -1}) },
		"the kernel's biases": func() (*Transposed, error) {
			b := *k
			b.Bias = make([]float32, 2)
			return NewTransposed(&b, nil, [2]int{})
		},
		"the kernel": func() (*Transposed, error) { return NewTransposed(&Kernel{}, nil, [2]int{}) },
	} {
		if _, err := f(); !errors.Is(err, ErrShape) {
			t.Errorf("%s: %v", name, err)
		}
	}
	l, err := NewTransposed(k, nil, [2]int{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Forward(nil, NewMap(1, 2, 2, 3), Epilogue{}, 1); !errors.Is(err, ErrShape) {
		t.Errorf("channels: %v", err)
	}
	if err := l.Gradient(nil, make([]float32, 2), NewMap(1, 2, 2, 2), NewMap(1, 2, 2, 3), 1); !errors.Is(err, ErrShape) {
		t.Errorf("gradients: %v", err)
	}
}
