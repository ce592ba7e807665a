package nn

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
)

// activationCases are the functions by the formulas of the standard library.
var activationCases = []struct {
	a Activation
	f func(x float64) float64
}{
	{Activation{Kind: ReLU}, func(x float64) float64 { return math.Max(x, 0) }},
	{Activation{Kind: Clip, Beta: 6}, func(x float64) float64 { return math.Min(math.Max(x, 0), 6) }},
	{Activation{Kind: Clip, Alpha: -1, Beta: math.Inf(1)}, func(x float64) float64 { return math.Max(x, -1) }},
	{Activation{Kind: LeakyReLU, Alpha: .1}, func(x float64) float64 {
		if x < 0 {
			return .1 * x
		}
		return x
	}},
	{Activation{Kind: LeakyReLU, Alpha: -.5}, func(x float64) float64 {
		if x < 0 {
			return -.5 * x
		}
		return x
	}},
	{Activation{Kind: ThresholdedReLU, Alpha: .7}, func(x float64) float64 {
		if x > .7 {
			return x
		}
		return 0
	}},
	{Activation{Kind: ELU, Alpha: 1.5}, func(x float64) float64 {
		if x < 0 {
			return 1.5 * math.Expm1(x)
		}
		return x
	}},
	{Activation{Kind: SELU}, func(x float64) float64 {
		if x < 0 {
			return 1.0507009873554805 * 1.6732632423543772 * math.Expm1(x)
		}
		return 1.0507009873554805 * x
	}},
	{Activation{Kind: CELU, Alpha: 2}, func(x float64) float64 {
		return math.Max(x, 0) + math.Min(0, 2*math.Expm1(x/2))
	}},
	{Activation{Kind: Sigmoid}, logistic},
	{Activation{Kind: LogSigmoid}, func(x float64) float64 { return math.Log(logistic(x)) }},
	{Activation{Kind: HardSigmoid, Alpha: .2, Beta: .5}, func(x float64) float64 { return math.Max(0, math.Min(1, .2*x+.5)) }},
	{Activation{Kind: HardSwish}, func(x float64) float64 { return x * math.Max(0, math.Min(1, x/6+.5)) }},
	{Activation{Kind: SiLU}, func(x float64) float64 { return x * logistic(x) }},
	{Activation{Kind: SiLU, Alpha: 1.702}, func(x float64) float64 { return x * logistic(1.702*x) }},
	{Activation{Kind: Mish}, func(x float64) float64 { return x * math.Tanh(math.Log1p(math.Exp(x))) }},
	{Activation{Kind: GELU}, func(x float64) float64 { return x * .5 * math.Erfc(-x/math.Sqrt2) }},
	{Activation{Kind: GELUTanh}, func(x float64) float64 {
		return x / (1 + math.Exp(-2*math.Sqrt(2/math.Pi)*(x+.044715*x*x*x)))
	}},
	{Activation{Kind: Tanh}, math.Tanh},
	{Activation{Kind: Softplus}, func(x float64) float64 { return math.Log1p(math.Exp(x)) }},
	{Activation{Kind: Softplus, Alpha: 2}, func(x float64) float64 { return math.Log1p(math.Exp(2*x)) / 2 }},
	{Activation{Kind: Softsign}, func(x float64) float64 { return x / (1 + math.Abs(x)) }},
	{Activation{Kind: Exp}, math.Exp},
	{Activation{Kind: Log}, math.Log},
	{Activation{Kind: Sqrt}, math.Sqrt},
	{Activation{Kind: Reciprocal}, func(x float64) float64 { return 1 / x }},
	{Activation{Kind: Pow, Alpha: 2}, func(x float64) float64 { return x * x }},
	{Activation{Kind: Pow, Alpha: -1.5}, func(x float64) float64 { return math.Pow(x, -1.5) }},
	{Activation{Kind: Pow}, func(x float64) float64 { return 1 }},
	{Activation{Kind: Abs}, math.Abs},
	{Activation{Kind: Neg}, func(x float64) float64 { return -x }},
	{Activation{Kind: Sign}, func(x float64) float64 { return math.Copysign(1, x) }},
	{Activation{Kind: Erf}, math.Erf},
	{Activation{Kind: Sin}, math.Sin},
	{Activation{Kind: Cos}, math.Cos},
	{Activation{Kind: Floor}, math.Floor},
	{Activation{Kind: Ceil}, math.Ceil},
	{Activation{Kind: Round}, math.RoundToEven},
	{Activation{Kind: Linear, Alpha: 3, Beta: -.5}, func(x float64) float64 { return 3*x - .5 }},
}

func logistic(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

func TestActivationsAndTheirGradientsEqualTheDefinition(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 31))
	x := normal(rng, 2, 5, 7, 9)
	for i, v := range x.Data { // away from the pole at 0
		x.Data[i] = 3*v + float32(math.Copysign(.05, float64(v)))
	}
	dy, before := normal(rng, 2, 5, 7, 9), normal(rng, 2, 5, 7, 9)
	covered := map[ActivationKind]bool{}
	for _, c := range activationCases {
		covered[c.a.Kind] = true
		if err := c.a.Validate(); err != nil {
			t.Errorf("%+v: %v", c.a, err)
		}
		want, grad := make([]float64, len(x.Data)), make([]float64, len(x.Data))
		for i, v := range x.Data {
			v := float64(v)
			want[i] = c.f(v)
			const h = 1e-5
			grad[i] = (c.f(v+h) - c.f(v-h)) / (2 * h) * float64(dy.Data[i])
		}
		y := c.a.Forward(nil, x, 2)
		same := &conv.Map{N: x.N, H: x.H, W: x.W, C: x.C, Data: slices.Clone(x.Data)}
		if c.a.Forward(same, same, 1); !slices.EqualFunc(same.Data, y.Data, func(a, b float32) bool { return a == b || a != a && b != b }) {
			t.Errorf("%+v: in place the output is another", c.a)
		}
		in, out := x, y
		if !c.a.NeedsInput() {
			in = nil
		}
		if !c.a.NeedsOutput() {
			out = nil
		}
		into := &conv.Map{N: x.N, H: x.H, W: x.W, C: x.C, Data: slices.Clone(before.Data)}
		added := c.a.Backward(into, dy, in, out, true, 2)
		dx := c.a.Backward(&conv.Map{N: x.N, H: x.H, W: x.W, C: x.C, Data: slices.Clone(dy.Data)}, dy, in, out, false, 2)
		for i, w := range want {
			if w != w {
				if y.Data[i] == y.Data[i] {
					t.Errorf("%+v of %g is %g, want NaN", c.a, x.Data[i], y.Data[i])
				}
				continue
			}
			if !(math.Abs(float64(y.Data[i])-w) <= 2e-7*math.Abs(w)+1e-9) {
				t.Errorf("%+v of %g is %g, want %g", c.a, x.Data[i], y.Data[i], w)
			}
			if c.a.Kind == Clip && added.Data[i] != before.Data[i]+dx.Data[i] {
				t.Errorf("%+v: the gradient that is written is not that added", c.a)
			}
			if g := grad[i]; math.Abs(float64(dx.Data[i])-g) > 2e-5*(math.Abs(g)+1) {
				t.Errorf("the gradient of %+v at %g is %g, want %g", c.a, x.Data[i], dx.Data[i], g)
			}
			if got, want := added.Data[i], before.Data[i]+dx.Data[i]; math.Abs(float64(got-want)) > 1e-5*(1+math.Abs(float64(want))) {
				t.Errorf("the gradient of %+v at %g adds up to %g, want %g", c.a, x.Data[i], got, want)
			}
		}
	}
	for kind := range activations {
		if !covered[kind] {
			t.Errorf("%s is not tested", kind)
		}
	}
}

func TestActivationsOfExtremeValuesAreTheirLimits(t *testing.T) {
	huge := float32(math.MaxFloat32)
	inf := float32(math.Inf(1))
	for _, c := range []struct {
		a         Activation
		high, low float32
	}{
		{Activation{Kind: Sigmoid}, 1, 0},
		{Activation{Kind: SiLU}, huge, 0},
		{Activation{Kind: Mish}, huge, 0},
		{Activation{Kind: GELU}, huge, 0},
		{Activation{Kind: GELUTanh}, huge, 0},
		{Activation{Kind: Tanh}, 1, -1},
		{Activation{Kind: Softplus}, huge, 0},
		{Activation{Kind: ELU, Alpha: 1}, huge, -1},
		{Activation{Kind: Exp}, inf, 0},
		{Activation{Kind: Erf}, 1, -1},
		{Activation{Kind: HardSwish}, inf, 0}, // huge·6 in float32
	} {
		x := &conv.Map{N: 1, H: 1, W: 1, C: 3, Data: []float32{huge, -huge, float32(math.NaN())}}
		y := c.a.Forward(nil, x, 1)
		if c.a.Kind == HardSwish {
			c.high = huge
		}
		if y.Data[0] != c.high || y.Data[1] != c.low || y.Data[2] == y.Data[2] {
			t.Errorf("%+v gives %v, want %g, %g and NaN", c.a, y.Data, c.high, c.low)
		}
		one := &conv.Map{N: 1, H: 1, W: 1, C: 3, Data: []float32{1, 1, 1}}
		for i, v := range c.a.Backward(nil, one, x, y, false, 1).Data[:2] {
			if v != v {
				t.Errorf("the gradient of %+v at %g is NaN", c.a, x.Data[i])
			}
		}
	}
}

func TestActivationsThatAreNoneAreErrors(t *testing.T) {
	for _, a := range []Activation{{}, {Kind: "relu7"}, {Kind: CELU}, {Kind: Clip, Alpha: math.NaN()}} {
		if err := a.Validate(); !errors.Is(err, conv.ErrShape) {
			t.Errorf("%+v: %v", a, err)
		}
	}
}

func BenchmarkActivation(b *testing.B) {
	x := normal(rand.New(rand.NewPCG(1, 1)), 1, 56, 56, 64)
	y := conv.NewMap(1, 56, 56, 64)
	for _, k := range []ActivationKind{ReLU, Clip, HardSwish, SiLU, GELU, Mish, Tanh} {
		a := Activation{Kind: k, Beta: 6}
		b.Run(string(k), func(b *testing.B) {
			b.SetBytes(int64(4 * len(x.Data)))
			for b.Loop() {
				a.Forward(y, x, 1)
			}
		})
		b.Run(string(k)+" backward", func(b *testing.B) {
			b.SetBytes(int64(4 * len(x.Data)))
			for b.Loop() {
				a.Backward(y, x, x, x, false, 1)
			}
		})
	}
}
