package nn

import (
	"fmt"
	"math"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nhwc"
)

// ActivationKind names a function of one value.
type ActivationKind string

// The activations, with a = Alpha and b = Beta.
const (
	ReLU            ActivationKind = "relu"             // max(x, 0)
	Clip            ActivationKind = "clip"             // min(max(x, a), b): ReLU6 with 0 and 6
	LeakyReLU       ActivationKind = "leaky_relu"       // x, or a·x below 0
	ThresholdedReLU ActivationKind = "thresholded_relu" // x, or 0 up to a
	ELU             ActivationKind = "elu"              // x, or a·(eˣ − 1) below 0 (Clevert et al. 2016)
	SELU            ActivationKind = "selu"             // ELU with the constants of Klambauer et al. 2017
	CELU            ActivationKind = "celu"             // x, or a·(e^(x/a) − 1) below 0 (Barron 2017)
	Sigmoid         ActivationKind = "sigmoid"          // 1/(1 + e⁻ˣ)
	LogSigmoid      ActivationKind = "log_sigmoid"      // −ln(1 + e⁻ˣ)
	HardSigmoid     ActivationKind = "hard_sigmoid"     // min(max(a·x + b, 0), 1)
	HardSwish       ActivationKind = "hard_swish"       // x·min(max(x + 3, 0), 6)/6 (Howard et al. 2019)
	SiLU            ActivationKind = "silu"             // x·sigmoid(a·x), an a of 0 meaning 1: swish
	Mish            ActivationKind = "mish"             // x·tanh(ln(1 + eˣ)) (Misra 2020)
	GELU            ActivationKind = "gelu"             // x·½(1 + erf(x/√2)) (Hendrycks and Gimpel 2016)
	GELUTanh        ActivationKind = "gelu_tanh"        // x·½(1 + tanh(√(2/π)·(x + 0.044715·x³)))
	Tanh            ActivationKind = "tanh"
	Softplus        ActivationKind = "softplus" // ln(1 + e^(a·x))/a, an a of 0 meaning 1
	Softsign        ActivationKind = "softsign" // x/(1 + |x|)
	Exp             ActivationKind = "exp"
	Log             ActivationKind = "log"
	Sqrt            ActivationKind = "sqrt"
	Reciprocal      ActivationKind = "reciprocal"
	Pow             ActivationKind = "pow" // xᵃ
	Abs             ActivationKind = "abs"
	Neg             ActivationKind = "neg"
	Sign            ActivationKind = "sign"
	Erf             ActivationKind = "erf"
	Sin             ActivationKind = "sin"
	Cos             ActivationKind = "cos"
	Floor           ActivationKind = "floor"
	Ceil            ActivationKind = "ceil"
	Round           ActivationKind = "round"  // to the nearest, of two to the even one
	Linear          ActivationKind = "linear" // a·x + b
)

// Activation is a function that is applied to every value by itself. Alpha and Beta are
// its constants, which ActivationKind explains; they have no defaults.
type Activation struct {
	Kind        ActivationKind
	Alpha, Beta float64
}

// needs is what a derivative is computed from.
type needs uint8

const (
	nothing needs = 0
	input   needs = 1 << (iota - 1)
	output
)

// activation is one row of the table of kinds: the function and its derivative in the
// input x, of which y is the image. Where the function has a corner the derivative is
// PyTorch's.
type activation struct {
	needs needs
	f     func(a *Activation, x float64) float64
	df    func(a *Activation, x, y float64) float64
}

const (
	seluAlpha = 1.6732632423543772848170429916717
	seluScale = 1.0507009873554804934193349852946
	geluRoot  = 2 / (math.SqrtPi * math.Sqrt2) // √(2/π)
	geluCube  = 0.044715
)

// positive is 1 where x > 0, else slope.
func positive(x, slope float64) float64 {
	if x > 0 {
		return 1
	}
	return slope
}

func one(v float64) float64 {
	if v == 0 {
		return 1
	}
	return v
}

// inside is slope where low < x < high, else 0. NaN is inside.
func inside(x, low, high, slope float64) float64 {
	if x <= low || x >= high {
		return 0
	}
	return slope
}

func zero(*Activation, float64, float64) float64 { return 0 }

var activations = map[ActivationKind]activation{
	ReLU: {output, func(_ *Activation, x float64) float64 { return max(x, 0) },
		func(_ *Activation, _, y float64) float64 { return positive(y, 0) }},
	Clip: {output, func(a *Activation, x float64) float64 { return min(max(x, a.Alpha), a.Beta) },
		func(a *Activation, _, y float64) float64 { return inside(y, a.Alpha, a.Beta, 1) }},
	LeakyReLU: {input, func(a *Activation, x float64) float64 { return x * positive(x, a.Alpha) },
		func(a *Activation, x, _ float64) float64 { return positive(x, a.Alpha) }},
	ThresholdedReLU: {input, func(a *Activation, x float64) float64 {
		if x <= a.Alpha {
			return 0
		}
		return x
	}, func(a *Activation, x, _ float64) float64 { return positive(x-a.Alpha, 0) }},
	ELU: {input, func(a *Activation, x float64) float64 {
		if x > 0 {
			return x
		}
		return a.Alpha * expm1(x)
	}, func(a *Activation, x, _ float64) float64 {
		if x > 0 {
			return 1
		}
		return a.Alpha * math.Exp(x)
	}},
	SELU: {output, func(_ *Activation, x float64) float64 {
		if x > 0 {
			return seluScale * x
		}
		return seluScale * seluAlpha * expm1(x)
	}, func(_ *Activation, _, y float64) float64 {
		if y > 0 {
			return seluScale
		}
		return y + seluScale*seluAlpha
	}},
	CELU: {input, func(a *Activation, x float64) float64 {
		return max(x, 0) + min(a.Alpha*expm1(x/a.Alpha), 0)
	}, func(a *Activation, x, _ float64) float64 {
		if x > 0 {
			return 1
		}
		return math.Exp(x / a.Alpha)
	}},
	Sigmoid: {output, func(_ *Activation, x float64) float64 { return sigmoid(x) },
		func(_ *Activation, _, y float64) float64 { return y * (1 - y) }},
	LogSigmoid: {input, func(_ *Activation, x float64) float64 { return -softplus(-x) },
		func(_ *Activation, x, _ float64) float64 { return sigmoid(-x) }},
	HardSigmoid: {output, func(a *Activation, x float64) float64 { return min(max(a.Alpha*x+a.Beta, 0), 1) },
		func(a *Activation, _, y float64) float64 { return inside(y, 0, 1, a.Alpha) }},
	HardSwish: {input, func(_ *Activation, x float64) float64 { return x * min(max(x+3, 0), 6) / 6 },
		func(_ *Activation, x, _ float64) float64 {
			switch {
			case x <= -3:
				return 0
			case x >= 3:
				return 1
			}
			return x/3 + .5
		}},
	SiLU: {input, func(a *Activation, x float64) float64 {
		if x < -tooLow {
			return 0 // not −∞·0
		}
		return x * sigmoid(one(a.Alpha)*x)
	}, func(a *Activation, x, _ float64) float64 {
		if x < -tooLow {
			return 0
		}
		b := one(a.Alpha)
		s := sigmoid(b * x)
		return s * (1 + min(b*x*(1-s), math.MaxFloat32))
	}},
	Mish: {input, func(_ *Activation, x float64) float64 {
		return x * mishGate(x)
	}, func(_ *Activation, x, _ float64) float64 {
		// With u = tanh(ln(1 + eˣ)): u' = (1 − u²)·sigmoid(x).
		u := mishGate(x)
		return u + x*(1-u*u)*sigmoid(x)
	}},
	GELU: {input, func(_ *Activation, x float64) float64 {
		return x * .5 * erfc(-x/math.Sqrt2)
	}, func(_ *Activation, x, _ float64) float64 {
		return .5*erfc(-x/math.Sqrt2) + x*geluRoot/2*math.Exp(-x*x/2)
	}},
	GELUTanh: {input, func(_ *Activation, x float64) float64 {
		// ½(1 + tanh z) = sigmoid(2z), without cancellation.
		return x * sigmoid(2*geluRoot*x*(1+geluCube*x*x))
	}, func(_ *Activation, x, _ float64) float64 {
		s := sigmoid(2 * geluRoot * x * (1 + geluCube*x*x))
		return s + x*s*(1-s)*2*geluRoot*(1+3*geluCube*x*x)
	}},
	Tanh: {output, func(_ *Activation, x float64) float64 { return tanh(x) },
		func(_ *Activation, _, y float64) float64 { return 1 - y*y }},
	Softplus: {input, func(a *Activation, x float64) float64 { return softplus(one(a.Alpha)*x) / one(a.Alpha) },
		func(a *Activation, x, _ float64) float64 { return sigmoid(one(a.Alpha) * x) }},
	Softsign: {input, func(_ *Activation, x float64) float64 { return x / (1 + math.Abs(x)) },
		func(_ *Activation, x, _ float64) float64 { d := 1 + math.Abs(x); return 1 / (d * d) }},
	Exp: {output, func(_ *Activation, x float64) float64 { return math.Exp(x) },
		func(_ *Activation, _, y float64) float64 { return y }},
	Log: {input, func(_ *Activation, x float64) float64 { return math.Log(x) },
		func(_ *Activation, x, _ float64) float64 { return 1 / x }},
	Sqrt: {output, func(_ *Activation, x float64) float64 { return math.Sqrt(x) },
		func(_ *Activation, _, y float64) float64 { return .5 / y }},
	Reciprocal: {output, func(_ *Activation, x float64) float64 { return 1 / x },
		func(_ *Activation, _, y float64) float64 { return -y * y }},
	Pow: {input, func(a *Activation, x float64) float64 { return pow(x, a.Alpha) },
		func(a *Activation, x, _ float64) float64 {
			if a.Alpha == 0 {
				return 0
			}
			return a.Alpha * pow(x, a.Alpha-1)
		}},
	Abs: {input, func(_ *Activation, x float64) float64 { return math.Abs(x) },
		func(_ *Activation, x, _ float64) float64 { return sign(x) }},
	Neg: {nothing, func(_ *Activation, x float64) float64 { return -x },
		func(*Activation, float64, float64) float64 { return -1 }},
	Sign: {nothing, func(_ *Activation, x float64) float64 { return sign(x) }, zero},
	Erf: {input, func(_ *Activation, x float64) float64 { return erf(x) },
		func(_ *Activation, x, _ float64) float64 { return 2 / math.SqrtPi * math.Exp(-x*x) }},
	Sin: {input, func(_ *Activation, x float64) float64 { return math.Sin(x) },
		func(_ *Activation, x, _ float64) float64 { return math.Cos(x) }},
	Cos: {input, func(_ *Activation, x float64) float64 { return math.Cos(x) },
		func(_ *Activation, x, _ float64) float64 { return -math.Sin(x) }},
	Floor: {nothing, func(_ *Activation, x float64) float64 { return math.Floor(x) }, zero},
	Ceil:  {nothing, func(_ *Activation, x float64) float64 { return math.Ceil(x) }, zero},
	Round: {nothing, func(_ *Activation, x float64) float64 { return math.RoundToEven(x) }, zero},
	Linear: {nothing, func(a *Activation, x float64) float64 { return a.Alpha*x + a.Beta },
		func(a *Activation, _, _ float64) float64 { return a.Alpha }},
}

// tooLow is so far from 0 that float32 has no number below the sigmoid of −tooLow.
const tooLow = 1000

func softplus(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

// mishGate is tanh(ln(1 + eˣ)) = (e²ˣ + 2eˣ)/(e²ˣ + 2eˣ + 2).
func mishGate(x float64) float64 {
	if x > 20 {
		return 1
	}
	if x < -tooLow {
		return 0
	}
	e := math.Exp(x)
	n := e * (e + 2)
	return n / (n + 2)
}

func sign(x float64) float64 {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return x // 0 or NaN
}

func pow(x, a float64) float64 {
	switch a {
	case 1:
		return x
	case 2:
		return x * x
	case 3:
		return x * x * x
	case .5:
		return math.Sqrt(x)
	case -1:
		return 1 / x
	}
	return math.Pow(x, a)
}

// Validate reports a kind that is none, or constants that are not for it. The error
// wraps conv.ErrShape.
func (a Activation) Validate() error {
	if _, ok := activations[a.Kind]; !ok {
		return fmt.Errorf("%w: an activation of kind %q", conv.ErrShape, a.Kind)
	}
	if a.Alpha != a.Alpha || a.Beta != a.Beta || a.Kind == CELU && a.Alpha == 0 {
		return fmt.Errorf("%w: %s with constants %g and %g", conv.ErrShape, a.Kind, a.Alpha, a.Beta)
	}
	return nil
}

// NeedsInput tells whether Backward reads the input of Forward. Where it does not,
// Forward may overwrite its input during training.
func (a Activation) NeedsInput() bool { return activations[a.Kind].needs&input != 0 }

// NeedsOutput tells whether Backward reads the output of Forward.
func (a Activation) NeedsOutput() bool { return activations[a.Kind].needs&output != 0 }

// Forward writes the function of every value of x to dst (resized; it may be x). NaN
// stays NaN.
func (a Activation) Forward(dst, x *conv.Map, workers int) *conv.Map {
	dst = dst.Resize(x.N, x.H, x.W, x.C)
	row := activations[a.Kind]
	spread(workers, len(x.Data), 1, func(from, to int) {
		a.forward(&row, dst.Data[from:to], x.Data[from:to])
	})
	return dst
}

func (a *Activation) forward(row *activation, dst, x []float32) {
	dst = dst[:len(x)]
	switch a.Kind {
	case ReLU:
		relu(dst, x)
	case Clip:
		low, high := float32(a.Alpha), float32(a.Beta)
		for i, v := range x {
			dst[i] = min(max(v, low), high)
		}
	case HardSigmoid:
		for i, v := range x {
			dst[i] = float32(min(max(a.Alpha*float64(v)+a.Beta, 0), 1))
		}
	case LeakyReLU:
		slope := float32(a.Alpha)
		for i, v := range x {
			dst[i] = max(v, 0) + slope*min(v, 0)
		}
	case HardSwish:
		for i, v := range x {
			dst[i] = v * (min(max(v+3, 0), 6) * (1. / 6))
		}
	default:
		eachBlock(len(x), func(from, to int, in, _ []float64) {
			widen(in, x[from:to])
			for i, v := range in {
				in[i] = row.f(a, v)
			}
			narrow(dst[from:to], in)
		})
	}
}

// blockValues is how many values are converted to float64 at once. Conversions and
// functions in one loop would wait for each other: amd64's conversion leaves half of a
// register as it was, and so depends on whoever wrote that.
const blockValues = 256

// eachBlock calls f for blocks of n values, with two buffers as long as the block.
func eachBlock(n int, f func(from, to int, a, b []float64)) {
	var a, b [blockValues]float64
	for from := 0; from < n; from += blockValues {
		size := min(blockValues, n-from)
		f(from, from+size, a[:size], b[:size])
	}
}

func widen(dst []float64, x []float32) {
	for i, v := range x {
		dst[i] = float64(v)
	}
}

func narrow(dst []float32, x []float64) {
	for i, v := range x {
		dst[i] = float32(v)
	}
}

// relu is ReLU by the loop of whole vectors.
func relu(dst, x []float32) {
	const c = len(units)
	n := len(x) / c
	nhwc.Affine(dst, x, nil, n, c, units[:], zeros[:], true)
	for i := n * c; i < len(x); i++ {
		dst[i] = max(x[i], 0)
	}
}

var units, zeros = func() (u, z [64]float32) {
	for i := range u {
		u[i] = 1
	}
	return
}()

// Backward writes to dx (resized; it may be dy) the gradient of the input of Forward
// from that of its output, dy, or adds it to dx if add is set. x is the input of that
// Forward and y its output; those that NeedsInput and NeedsOutput do not ask for are not
// read, and may be nil.
func (a Activation) Backward(dx, dy, x, y *conv.Map, add bool, workers int) *conv.Map {
	dx = dx.Resize(dy.N, dy.H, dy.W, dy.C)
	row := activations[a.Kind]
	spread(workers, len(dy.Data), 1, func(from, to int) {
		in, out := dy.Data[from:to], dy.Data[from:to] // whatever, of the same length
		if row.needs&input != 0 {
			in = x.Data[from:to]
		}
		if row.needs&output != 0 {
			out = y.Data[from:to]
		}
		a.backward(&row, dx.Data[from:to], dy.Data[from:to], in, out, add)
	})
	return dx
}

func (a *Activation) backward(row *activation, dx, dy, x, y []float32, add bool) {
	dx, x, y = dx[:len(dy)], x[:len(dy)], y[:len(dy)]
	switch {
	case a.Kind == ReLU && add:
		for i, g := range dy {
			dx[i] += masked(g, y[i])
		}
	case a.Kind == ReLU:
		for i, g := range dy {
			dx[i] = masked(g, y[i])
		}
	case a.Kind == Clip && !add:
		low, high := float32(a.Alpha), float32(a.Beta)
		for i, g := range dy {
			dx[i] = masked(masked(g, y[i]-low), high-y[i])
		}
	default:
		eachBlock(len(dy), func(from, to int, in, out []float64) {
			widen(in, x[from:to])
			widen(out, y[from:to])
			for i, v := range in {
				in[i] = row.df(a, v, out[i])
			}
			dx := dx[from:to]
			if add {
				for i, g := range dy[from:to] {
					dx[i] += g * float32(in[i])
				}
				return
			}
			for i, g := range dy[from:to] {
				dx[i] = g * float32(in[i])
			}
		})
	}
}

// masked is g where y > 0, else 0, without a branch that nothing predicts.
func masked(g, y float32) float32 {
	b := math.Float32bits(y)
	return math.Float32frombits(math.Float32bits(g) &^ uint32(int32(b|(b-1))>>31))
}
