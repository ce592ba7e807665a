package conv

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// naive is the convolution by its definition, in float64.
func naive(k *Kernel, x *Map) *Map {
	g := k.Normal()
	oh, ow := k.OutputSize(x.H, x.W)
	out := NewMap(x.N, oh, ow, k.Out())
	outs := k.Out() / g.Groups
	for n := range x.N {
		for oy := range oh {
			for ox := range ow {
				for t := range k.Out() {
					var s float64
					for c := range k.Shape[1] {
						for ky := range k.Shape[2] {
							for kx := range k.Shape[3] {
								y := oy*g.Stride[0] - g.Padding[0] + ky*g.Dilation[0]
								xx := ox*g.Stride[1] - g.Padding[1] + kx*g.Dilation[1]
								if y < 0 || y >= x.H || xx < 0 || xx >= x.W {
									continue
								}
								in := t/outs*k.Shape[1] + c
								s += float64(x.Data[((n*x.H+y)*x.W+xx)*x.C+in]) *
									float64(k.Weight[((t*k.Shape[1]+c)*k.Shape[2]+ky)*k.Shape[3]+kx])
							}
						}
					}
					if k.Bias != nil {
						s += float64(k.Bias[t])
					}
					out.Data[((n*oh+oy)*ow+ox)*k.Out()+t] = float32(s)
				}
			}
		}
	}
	return out
}

func random(rng *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return v
}

// drawKernel draws a kernel of any geometry, with more channels where wide.
func drawKernel(t *rapid.T, rng *rand.Rand) *Kernel {
	g := Geometry{
		Stride:   [2]int{rapid.IntRange(1, 3).Draw(t, "sy"), rapid.IntRange(1, 3).Draw(t, "sx")},
		Padding:  [2]int{rapid.IntRange(0, 3).Draw(t, "py"), rapid.IntRange(0, 3).Draw(t, "px")},
		Dilation: [2]int{rapid.IntRange(1, 3).Draw(t, "dy"), rapid.IntRange(1, 3).Draw(t, "dx")},
		Groups:   rapid.IntRange(1, 4).Draw(t, "groups"),
	}
	if rapid.Bool().Draw(t, "asymmetric") {
		for a := range 2 {
			g.Extra[a] = rapid.IntRange(-g.Padding[a], 4).Draw(t, "extra")
		}
	}
	shape := [4]int{
		g.Groups * rapid.IntRange(1, 9).Draw(t, "outs"), rapid.IntRange(1, 9).Draw(t, "ins"),
		rapid.IntRange(1, 5).Draw(t, "kh"), rapid.IntRange(1, 5).Draw(t, "kw"),
	}
	var bias []float32
	if rapid.Bool().Draw(t, "bias") {
		bias = random(rng, shape[0])
	}
	k, err := NewKernel(shape, random(rng, shape[0]*shape[1]*shape[2]*shape[3]), bias, g)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func closeTo(t interface{ Fatalf(string, ...any) }, got, want *Map, depth int) {
	if got.N != want.N || got.H != want.H || got.W != want.W || got.C != want.C {
		t.Fatalf("got %d×%d×%d×%d, want %d×%d×%d×%d", got.N, got.H, got.W, got.C, want.N, want.H, want.W, want.C)
	}
	tol := 1e-6 * float64(depth+4)
	for i, v := range want.Data {
		if math.Abs(float64(got.Data[i])-float64(v)) > tol {
			t.Fatalf("value %d is %g, want %g", i, got.Data[i], v)
		}
	}
}

func TestLayerEqualsTheDefinitionForEveryGeometry(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		k := drawKernel(t, rng)
		x := NewMap(rapid.IntRange(1, 3).Draw(t, "n"), rapid.IntRange(1, 12).Draw(t, "h"), rapid.IntRange(1, 12).Draw(t, "w"), k.In())
		copy(x.Data, random(rng, len(x.Data)))
		l, err := NewLayer(k)
		if err != nil {
			t.Fatal(err)
		}
		oh, ow := k.OutputSize(x.H, x.W)
		var e Epilogue
		want := naive(k, x)
		if rapid.Bool().Draw(t, "residual") && len(want.Data) > 0 {
			e = Epilogue{Residual: NewMap(want.N, want.H, want.W, want.C), ReLU: true}
			copy(e.Residual.Data, random(rng, len(want.Data)))
			for i, v := range e.Residual.Data {
				want.Data[i] = max(want.Data[i]+v, 0)
			}
		}
		got, err := l.Forward(nil, x, e, rapid.IntRange(1, 3).Draw(t, "workers"))
		if oh == 0 || ow == 0 {
			if !errors.Is(err, ErrShape) {
				t.Fatalf("an input too small gave %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		closeTo(t, got, want, k.Shape[1]*k.Taps())
	})
}

func TestDepthwiseLayerEqualsTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))
		k := drawKernel(t, rng)
		k.Groups = rapid.IntRange(2, 70).Draw(t, "channels")
		k.Shape = [4]int{k.Groups, 1, k.Shape[2], k.Shape[3]}
		k.Weight = random(rng, k.Groups*k.Taps())
		if k.Bias != nil {
			k.Bias = random(rng, k.Groups)
		}
		x := NewMap(2, 13, 14, k.Groups)
		copy(x.Data, random(rng, len(x.Data)))
		l, err := NewLayer(k)
		if err != nil {
			t.Fatal(err)
		}
		want := naive(k, x)
		var e Epilogue
		if rapid.Bool().Draw(t, "residual") {
			e = Epilogue{Residual: NewMap(want.N, want.H, want.W, want.C), ReLU: true}
			copy(e.Residual.Data, random(rng, len(want.Data)))
			for i, v := range e.Residual.Data {
				want.Data[i] = max(want.Data[i]+v, 0)
			}
		}
		got, err := l.Forward(nil, x, e, 2)
		if err != nil {
			t.Fatal(err)
		}
		closeTo(t, got, want, k.Taps())
	})
}

func TestForwardDoesNotDependOnWorkers(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for _, side := range []int{5, 40} {
		k, err := NewKernel([4]int{33, 17, 3, 3}, random(rng, 33*17*9), random(rng, 33), Geometry{Padding: [2]int{1, 1}})
		if err != nil {
			t.Fatal(err)
		}
		l, err := NewLayer(k)
		if err != nil {
			t.Fatal(err)
		}
		x := NewMap(3, side, side, 17)
		copy(x.Data, random(rng, len(x.Data)))
		want, err := l.Forward(nil, x, Epilogue{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range []int{2, 3, 8} {
			got, err := l.Forward(nil, x, Epilogue{}, w)
			if err != nil {
				t.Fatal(err)
			}
			for i := range want.Data {
				if got.Data[i] != want.Data[i] {
					t.Fatalf("side %d: %d workers differ from one at value %d", side, w, i)
				}
			}
		}
	}
}

func TestEpilogueAddsBiasThenResidualThenClips(t *testing.T) {
	k, err := NewKernel([4]int{2, 1, 1, 1}, []float32{1, 1}, []float32{1, -4}, Geometry{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLayer(k)
	if err != nil {
		t.Fatal(err)
	}
	x := &Map{N: 1, H: 1, W: 2, C: 1, Data: []float32{2, float32(math.NaN())}}
	res := &Map{N: 1, H: 1, W: 2, C: 2, Data: []float32{-1, 1, 0, 0}}
	got, err := l.Forward(nil, x, Epilogue{Residual: res, ReLU: true}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if got.Data[0] != 2 || got.Data[1] != 0 {
		t.Errorf("got %v, want 2 and 0", got.Data[:2])
	}
	if got.Data[2] == got.Data[2] {
		t.Errorf("NaN became %v", got.Data[2])
	}
	if _, err := l.Forward(nil, x, Epilogue{Residual: x}, 1); !errors.Is(err, ErrShape) {
		t.Errorf("a residual of another shape gave %v", err)
	}
	if _, err := l.Forward(nil, res, Epilogue{}, 1); !errors.Is(err, ErrShape) {
		t.Errorf("a map of other channels gave %v", err)
	}
}

// drawChain draws a chain of a kind with random weights around kernel k.
func drawChain(t *rapid.T, rng *rand.Rand, k *Kernel) *Chain {
	g := k.Groups
	point := Geometry{Groups: g}
	stage := func(out, in int, spatial bool, geo Geometry) *Kernel {
		s := &Kernel{Shape: [4]int{out, in, 1, 1}, Geometry: geo}
		if spatial {
			s.Shape[2], s.Shape[3] = k.Shape[2], k.Shape[3]
		}
		s.Weight = random(rng, out*in*s.Taps())
		return s
	}
	r1, r2 := rapid.IntRange(1, 6).Draw(t, "r1"), rapid.IntRange(1, 6).Draw(t, "r2")
	c := &Chain{Groups: g}
	switch c.Kind = rapid.SampledFrom([]Kind{Dense, SVD, Tucker2, CP, TKDCPD}).Draw(t, "kind"); c.Kind {
	case Dense:
		return NewDense(k)
	case SVD:
		c.Rank = []int{r1}
		c.Stages = []*Kernel{stage(g*r1, k.Shape[1], true, k.Geometry), stage(k.Out(), r1, false, point)}
	case Tucker2:
		c.Rank = []int{r2, r1}
		c.Stages = []*Kernel{stage(g*r1, k.Shape[1], false, point), stage(g*r2, r1, true, k.Geometry), stage(k.Out(), r2, false, point)}
	case CP:
		c.Rank = []int{r1}
		deep := k.Geometry
		deep.Groups = g * r1
		c.Stages = []*Kernel{stage(g*r1, k.Shape[1], false, point), stage(g*r1, 1, true, deep), stage(k.Out(), r1, false, point)}
	case TKDCPD:
		r := rapid.IntRange(1, 6).Draw(t, "r")
		c.Rank = []int{r2, r1, r}
		deep := k.Geometry
		deep.Groups = g * r
		c.Stages = []*Kernel{stage(g*r1, k.Shape[1], false, point), stage(g*r, r1, false, point), stage(g*r, 1, true, deep), stage(g*r2, r, false, point), stage(k.Out(), r2, false, point)}
	}
	c.Last().Bias = k.Bias
	return c
}

func TestChainEqualsTheConvolutionWithItsKernel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 4))
		c := drawChain(t, rng, drawKernel(t, rng))
		dev, err := c.Verify(rapid.Uint64().Draw(t, "input"))
		if err != nil {
			t.Fatal(err)
		}
		if dev > 2e-5 {
			t.Fatalf("%s chain differs from its kernel by %g", c.Kind, dev)
		}
		k, err := c.Kernel()
		if err != nil {
			t.Fatal(err)
		}
		h, w := 9, 11
		oh, ow := k.OutputSize(h, w)
		if ch, cw := c.OutputSize(h, w); oh > 0 && ow > 0 && (ch != oh || cw != ow) {
			t.Fatalf("chain gives %d×%d, its kernel %d×%d", ch, cw, oh, ow)
		}
		shape, g := c.Shape()
		if shape != k.Shape || g != k.Geometry {
			t.Fatalf("Shape says %v %+v, Kernel has %v %+v", shape, g, k.Shape, k.Geometry)
		}
	})
}

func TestSeparableChainEqualsItsKernel(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	// 1×1, then kh×1 and 1×kw depthwise with the stride of each axis, then 1×1.
	c := &Chain{Kind: CP, Rank: []int{5}, Stages: []*Kernel{
		{Shape: [4]int{5, 4, 1, 1}, Weight: random(rng, 20)},
		{Shape: [4]int{5, 1, 3, 1}, Weight: random(rng, 15), Geometry: Geometry{Groups: 5, Stride: [2]int{2, 1}, Padding: [2]int{1, 0}, Dilation: [2]int{2, 1}}},
		{Shape: [4]int{5, 1, 1, 4}, Weight: random(rng, 20), Geometry: Geometry{Groups: 5, Stride: [2]int{1, 3}, Padding: [2]int{0, 2}}},
		{Shape: [4]int{7, 5, 1, 1}, Weight: random(rng, 35), Bias: random(rng, 7)},
	}}
	dev, err := c.Verify(1)
	if err != nil {
		t.Fatal(err)
	}
	if dev > 1e-5 {
		t.Errorf("the chain differs from its kernel by %g", dev)
	}
	shape, g := c.Shape()
	if shape != [4]int{7, 4, 3, 4} || g != (Geometry{Stride: [2]int{2, 3}, Padding: [2]int{1, 2}, Dilation: [2]int{2, 1}, Groups: 1}) {
		t.Errorf("the chain is a %v kernel with %+v", shape, g)
	}
}

func TestParamsAndMACsFollowTheTable(t *testing.T) {
	const T, S, P, R1, R2 = 12, 10, 9, 4, 5
	geo := Geometry{Stride: [2]int{2, 2}, Padding: [2]int{1, 1}}
	point := func(out, in int) *Kernel {
		return &Kernel{Shape: [4]int{out, in, 1, 1}, Weight: make([]float32, out*in)}
	}
	deep := geo
	deep.Groups = R1
	const hi, ho = 15 * 15, 8 * 8
	for _, c := range []struct {
		chain        *Chain
		params, macs int64
	}{
		{&Chain{Kind: SVD, Stages: []*Kernel{{Shape: [4]int{R1, S, 3, 3}, Weight: make([]float32, R1*S*P), Geometry: geo}, point(T, R1)}},
			R1 * (S*P + T), R1 * (S*P + T) * ho},
		{&Chain{Kind: Tucker2, Stages: []*Kernel{point(R1, S), {Shape: [4]int{R2, R1, 3, 3}, Weight: make([]float32, R2*R1*P), Geometry: geo}, point(T, R2)}},
			S*R1 + P*R1*R2 + R2*T, S*R1*hi + (P*R1*R2+R2*T)*ho},
		{&Chain{Kind: CP, Stages: []*Kernel{point(R1, S), {Shape: [4]int{R1, 1, 3, 3}, Weight: make([]float32, R1*P), Geometry: deep}, point(T, R1)}},
			R1 * (S + P + T), R1*S*hi + R1*(P+T)*ho},
	} {
		if p := c.chain.Params(); int64(p) != c.params {
			t.Errorf("%s: %d parameters, want %d", c.chain.Kind, p, c.params)
		}
		if m := c.chain.MACs(15, 15); m != c.macs {
			t.Errorf("%s: %d MACs, want %d", c.chain.Kind, m, c.macs)
		}
	}
}

func TestValidateNamesWhatDoesNotFit(t *testing.T) {
	point := func(out, in int) *Kernel {
		return &Kernel{Shape: [4]int{out, in, 1, 1}, Weight: make([]float32, out*in)}
	}
	strided := point(4, 4)
	strided.Stride = [2]int{2, 1}
	three := &Kernel{Shape: [4]int{4, 4, 3, 3}, Weight: make([]float32, 144)}
	biased := point(4, 4)
	biased.Bias = make([]float32, 4)
	for name, c := range map[string]*Chain{
		"no stages":            {},
		"channels":             {Stages: []*Kernel{point(3, 4), point(4, 4)}},
		"two spatial stages":   {Stages: []*Kernel{strided, three}},
		"bias before the last": {Stages: []*Kernel{biased, point(4, 4)}},
		"groups":               {Groups: 2, Stages: []*Kernel{point(4, 4)}},
		"weights":              {Stages: []*Kernel{{Shape: [4]int{2, 2, 1, 1}, Weight: make([]float32, 3)}}},
		"zero dimension":       {Stages: []*Kernel{{Shape: [4]int{2, 0, 1, 1}}}},
		"overflow":             {Stages: []*Kernel{{Shape: [4]int{math.MaxInt, 4, 1, 1}}}},
		"negative stride":      {Stages: []*Kernel{{Shape: [4]int{1, 1, 1, 1}, Weight: []float32{1}, Geometry: Geometry{Stride: [2]int{-1, 1}}}}},
		"outputs and groups":   {Stages: []*Kernel{{Shape: [4]int{3, 1, 1, 1}, Weight: make([]float32, 3), Geometry: Geometry{Groups: 2}}}},
	} {
		if err := c.Validate(); !errors.Is(err, ErrShape) {
			t.Errorf("%s: Validate gives %v", name, err)
		}
		if _, err := NewRunner(c); !errors.Is(err, ErrShape) {
			t.Errorf("%s: NewRunner gives %v", name, err)
		}
	}
}

func TestScaleOutputsFoldsAnAffineMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	k, err := NewKernel([4]int{3, 2, 3, 3}, random(rng, 54), random(rng, 3), Geometry{Padding: [2]int{1, 1}})
	if err != nil {
		t.Fatal(err)
	}
	scale, shift := []float64{2, -0.5, 0}, []float64{1, 2, 3}
	f, err := k.ScaleOutputs(scale, shift)
	if err != nil {
		t.Fatal(err)
	}
	x := NewMap(1, 6, 6, 2)
	copy(x.Data, random(rng, len(x.Data)))
	want := naive(k, x)
	for i := range want.Data {
		want.Data[i] = float32(float64(want.Data[i])*scale[i%3] + shift[i%3])
	}
	closeTo(t, naive(f, x), want, 18)
	if _, err := k.ScaleOutputs(scale[:2], shift); !errors.Is(err, ErrShape) {
		t.Errorf("too few scales gave %v", err)
	}
}

func TestRunnerOfALargeBatchEqualsItsImagesAlone(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	c := &Chain{Kind: CP, Rank: []int{24}, Groups: 1, Stages: []*Kernel{
		{Shape: [4]int{24, 16, 1, 1}, Weight: random(rng, 24*16)},
		{Shape: [4]int{24, 1, 3, 3}, Weight: random(rng, 24*9), Geometry: Geometry{Groups: 24, Padding: [2]int{1, 1}, Stride: [2]int{2, 2}}},
		{Shape: [4]int{32, 24, 1, 1}, Weight: random(rng, 32*24), Bias: random(rng, 32)},
	}}
	r, err := NewRunner(c)
	if err != nil {
		t.Fatal(err)
	}
	x := NewMap(11, 48, 48, 16) // 55296 values of an image's intermediate map: 2 images at a time
	copy(x.Data, random(rng, len(x.Data)))
	e := Epilogue{Residual: NewMap(11, 24, 24, 32), ReLU: true}
	copy(e.Residual.Data, random(rng, len(e.Residual.Data)))
	for _, workers := range []int{1, 3} {
		all, err := r.Forward(nil, x, e, workers)
		if err != nil {
			t.Fatal(err)
		}
		for i := range x.N {
			one, err := r.Forward(nil, x.images(i, 1), Epilogue{Residual: e.Residual.images(i, 1), ReLU: true}, workers)
			if err != nil {
				t.Fatal(err)
			}
			closeTo(t, all.images(i, 1), one, 100)
		}
	}
	if _, err := r.Forward(nil, x, Epilogue{Residual: NewMap(11, 24, 24, 31)}, 1); !errors.Is(err, ErrShape) {
		t.Errorf("residual: error %v", err)
	}
}

func TestWithGeometryEqualsTheKernelWithIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 9))
		c := drawChain(t, rng, drawKernel(t, rng))
		g := drawKernel(t, rng).Geometry
		g.Groups = max(c.Groups, 1)
		before, was := c.Shape()
		got, err := c.WithGeometry(g)
		if err != nil {
			t.Fatal(err)
		}
		for axis, taps := range before[2:] {
			if taps == 1 {
				g.Dilation[axis] = 1
			}
		}
		if shape, is := got.Shape(); shape != before || is != g {
			t.Errorf("%v with %+v, want %v with %+v", shape, is, before, g)
		}
		if _, is := c.Shape(); is != was {
			t.Error("the chain itself changed")
		}
		if dev, err := got.Verify(1); err != nil || dev > 1e-4 {
			t.Errorf("the chain differs from its kernel by %g (%v)", dev, err)
		}
	})
}
