package nn

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
)

// reference is one case of testdata/reference.json, which reference.py writes: an
// operator of PyTorch with its output and gradients.
type reference struct {
	Op       string
	X, Shape [4]int
	Y, Dx    []float32
	Params   [][]float32 // gradients
	Args     struct {
		Size, Stride, Dilation, Adaptive, Padding, Extra, Output [2]int
		Pad, Divisor, Groups, Width, Block                       int
		Ceil, Count                                              bool
		Mode, Coordinates, Rounding, Kind                        string
		Scale                                                    [2]float64
		Alpha, Beta, Factor, Value                               float64
		Begin, End, Kernel                                       [4]int
	}
}

// formula is the values of reference.py.
func formula(dims [4]int, step int) *conv.Map {
	m := conv.NewMap(dims[0], dims[1], dims[2], dims[3])
	for i := range m.Data {
		m.Data[i] = float32(float64((i*step+13)%1009-504) / 252)
	}
	return m
}

func formulaOf(n int) []float32 { return formula([4]int{1, 1, 1, n}, 104729).Data }

// run computes the output and the gradients of the input and the parameters.
func (r *reference) run(t *testing.T) (y, dx *conv.Map, params [][]float32) {
	a := &r.Args
	x, dy := formula(r.X, 7919), formula(r.Shape, 611953)
	grad := func(n int) []float32 {
		params = append(params, make([]float32, n))
		return params[len(params)-1]
	}
	window := Window{Size: a.Size, Stride: a.Stride, Dilation: a.Dilation, Begin: [2]int{a.Pad, a.Pad}, End: [2]int{a.Pad, a.Pad},
		Ceil: a.Ceil, CountPadding: a.Count, Divisor: a.Divisor, Adaptive: a.Adaptive}
	if a.Divisor != 0 {
		window.CountPadding = true
	}
	c := x.C
	switch r.Op {
	case "max":
		p := MaxPool{Window: window}
		return p.Forward(nil, x, 2), p.Backward(nil, dy, x.H, x.W, false, 2), nil
	case "average":
		return window.Average(nil, x, 2), window.AverageBackward(nil, dy, x.H, x.W, false, 2), nil
	case "resize":
		s := Resize{Mode: a.Mode, Coordinates: a.Coordinates, Rounding: a.Rounding, Scale: a.Scale}
		return s.Forward(nil, x, a.Size[0], a.Size[1], 2), s.Backward(nil, dy, x.H, x.W, false, 2), nil
	case "activation":
		f := Activation{Kind: ActivationKind(a.Kind), Alpha: a.Alpha, Beta: a.Beta}
		scale := Activation{Kind: Linear, Alpha: a.Factor}
		x = scale.Forward(nil, x, 1)
		y = f.Forward(nil, x, 2)
		return y, scale.Backward(nil, f.Backward(nil, dy, x, y, false, 2), nil, nil, false, 1), nil
	case "prelu":
		slope := formulaOf(len(r.Params[0]))
		y = PReLU(nil, x, slope, 2)
		dx = PReLUBackward(nil, dy, x, slope, grad(len(slope)), false, 2)
	case "group_norm":
		g := &GroupNorm{Groups: a.Groups, Weight: formulaOf(c), Bias: formulaOf(c), Eps: 1e-3}
		y = g.Forward(nil, x, 2)
		dx = g.Backward(nil, dy, x, grad(c), grad(c), false, 2)
	case "layer_norm":
		l := &LayerNorm{Width: a.Width, Weight: formulaOf(a.Width), Bias: formulaOf(a.Width), Eps: 1e-3}
		y = l.Forward(nil, x, 2)
		dx = l.Backward(nil, dy, x, grad(a.Width), grad(a.Width), false, 2)
	case "lrn":
		l := &LRN{Size: 5, Alpha: .5, Beta: .75, Bias: 2}
		return l.Forward(nil, x, 2), l.Backward(nil, dy, x, false, 2), nil
	case "softmax":
		y = Softmax(nil, x, 2)
		dx = SoftmaxBackward(nil, dy, y, false, 2)
	case "log_softmax":
		y = LogSoftmax(nil, x, 2)
		dx = LogSoftmaxBackward(nil, dy, y, false, 2)
	case "pad":
		p := Pad{Mode: a.Mode, Begin: a.Begin, End: a.End, Value: float32(a.Value)}
		return p.Forward(nil, x, 2), p.Backward(nil, dy, r.X, false, 2), nil
	case "depth_to_space":
		return DepthToSpace(nil, x, a.Block, true, false, 2), SpaceToDepth(nil, dy, a.Block, true, false, 2), nil
	case "space_to_depth":
		return SpaceToDepth(nil, x, a.Block, true, false, 2), DepthToSpace(nil, dy, a.Block, true, false, 2), nil
	case "channel_shuffle":
		return ChannelShuffle(nil, x, a.Groups, false, 2), ChannelShuffle(nil, dy, c/a.Groups, false, 2), nil
	case "conv", "conv_transpose":
		n := a.Kernel[0] * a.Kernel[1] * a.Kernel[2] * a.Kernel[3]
		k := &conv.Kernel{Shape: a.Kernel, Weight: formulaOf(n),
			Geometry: conv.Geometry{Stride: a.Stride, Padding: a.Padding, Extra: a.Extra, Dilation: a.Dilation, Groups: a.Groups}}
		bias := formulaOf(len(r.Params[1]))
		check := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		var err error
		if r.Op == "conv" {
			k.Bias = bias
			l, err := conv.NewLayer(k)
			check(err)
			y, err = l.Forward(nil, x, conv.Epilogue{}, 2)
			check(err)
			dx, err = l.InputGradient(nil, dy, x.H, x.W, conv.Epilogue{}, 2)
			check(err)
			dw, db := make([]float32, len(l.Weights())), make([]float32, len(l.Bias()))
			check(l.Gradient(dw, db, x, dy, 2))
			check(l.KernelOrder(grad(n), dw))
			own := grad(len(bias))
			per := len(bias) / a.Groups // each group's are followed by zeros
			for i := range own {
				own[i] = db[i/per*(len(db)/a.Groups)+i%per]
			}
			return y, dx, params
		}
		l, err := conv.NewTransposed(k, bias, a.Output)
		check(err)
		y, err = l.Forward(nil, x, conv.Epilogue{}, 2)
		check(err)
		dx, err = l.InputGradient(nil, dy, conv.Epilogue{}, 2)
		check(err)
		dw := make([]float32, len(l.Weights()))
		own := grad(n)
		check(l.Gradient(dw, grad(len(bias)), x, dy, 2))
		check(l.KernelOrder(own, dw))
	default:
		t.Fatalf("no operator is called %q", r.Op)
	}
	return y, dx, params
}

func TestOperatorsEqualPyTorchs(t *testing.T) {
	text, err := os.ReadFile("testdata/reference.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []reference
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for i := range cases {
		r := &cases[i]
		t.Run(r.Op, func(t *testing.T) {
			y, dx, params := r.run(t)
			if dimsOf(y) != r.Shape || dimsOf(dx) != r.X || len(params) != len(r.Params) {
				t.Fatalf("%+v: output %v, want %v; gradients of %d parameters, want %d", r.Args, dimsOf(y), r.Shape, len(params), len(r.Params))
			}
			same := func(what string, got, want []float32) {
				if len(got) != len(want) {
					t.Fatalf("%+v: %d values of %s, want %d", r.Args, len(got), what, len(want))
				}
				for i, w := range want {
					if d := math.Abs(float64(got[i] - w)); !(d <= 2e-5*(1+math.Abs(float64(w)))) {
						t.Fatalf("%+v: %s %d is %g, PyTorch's %g", r.Args, what, i, got[i], w)
					}
				}
			}
			same("output", y.Data, r.Y)
			same("gradient", dx.Data, r.Dx)
			for i, p := range params {
				same("gradient of a parameter", p, r.Params[i])
			}
		})
	}
}
