package onnxgraph

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/onnxpb"
)

// node adds what computes a graph's node.
func (e *exporter) node(n *graph.Node) error {
	in := make([]string, len(n.In))
	for i, x := range n.In {
		in[i] = e.value[x]
	}
	var err error
	e.value[n], err = e.operation(n, in)
	return err
}

// operation adds the nodes of an operation and returns the tensor that they give.
func (e *exporter) operation(n *graph.Node, in []string) (string, error) {
	// last is the node that gives the operation's output, under its own name.
	last := func(op string, in []string, attributes ...*onnxpb.AttributeProto) (string, error) {
		return e.put(op, n.Name, in, attributes...), nil
	}
	switch op := n.Op.(type) {
	case *graph.Input:
		e.graph.Input = append(e.graph.Input, info(n.Name, e.dims(n)))
		return n.Name, nil
	case *graph.Identity, *graph.Dropout:
		return in[0], nil
	case *graph.Conv:
		return e.chain(n.Name, in[0], op, len(e.shape[n.In[0]]))
	case *graph.BatchNorm:
		args := []string{in[0]}
		for _, t := range []struct {
			suffix string
			values []float32
		}{{"weight", op.Weight}, {"bias", op.Bias}, {"running_mean", op.Mean}, {"running_var", op.Var}} {
			name, err := e.floats(n.Name+"."+t.suffix, []int{len(t.values)}, t.values)
			if err != nil {
				return "", err
			}
			args = append(args, name)
		}
		return last("BatchNormalization", args, number("epsilon", op.Eps))
	case *graph.Activation:
		return e.activation(n, op, in[0])
	case *graph.Pool:
		return e.pool(n, op, in[0])
	case *graph.Binary:
		if name, ok := comparisons[op.Op]; ok {
			is := e.add(name, n.Name+".is", in)
			return last("Cast", []string{is}, integer("to", int(onnxpb.TensorProto_FLOAT)))
		}
		name, ok := binaries[op.Op]
		if !ok {
			return "", fmt.Errorf("%w: it has no counterpart in ONNX", graph.ErrUnsupported)
		}
		return last(name, in)
	case *graph.Const:
		name, err := e.floats(n.Name+".value", append([]int{1}, op.Size...), op.Values)
		return name, err
	case *graph.Flatten:
		return last("Flatten", in, integer("axis", 1))
	case *graph.Reshape:
		return last("Reshape", []string{in[0], e.ints(n.Name+".shape", append([]int{0}, op.Size...)...)})
	case *graph.Expand:
		size := append([]int{1}, op.Size...)
		for i, d := range size {
			size[i] = max(d, 1)
		}
		return last("Expand", []string{in[0], e.ints(n.Name+".shape", size...)})
	case *graph.Transpose:
		order := []int{0}
		for _, d := range op.Order {
			order = append(order, d+1)
		}
		return last("Transpose", in, integers("perm", order...))
	case *graph.Concat:
		return last("Concat", in, integer("axis", op.Axis+1))
	case *graph.Slice:
		var starts, ends, axes, steps []int
		for _, c := range op.Cuts {
			starts, ends, axes, steps = append(starts, c.Start), append(ends, c.End), append(axes, c.Axis+1), append(steps, stepOf(c.Step))
		}
		return last("Slice", e.slicing(n.Name, in[0], starts, ends, axes, steps))
	case *graph.Subsample:
		x := in[0]
		if op.Stride != [2]int{1, 1} {
			const far = math.MaxInt32
			x = e.add("Slice", n.Name+".pixels", e.slicing(n.Name, x, []int{0, 0}, []int{far, far}, []int{2, 3}, op.Stride[:]))
		}
		return last("Pad", []string{x, e.ints(n.Name+".pads", 0, op.Before, 0, 0, 0, op.After, 0, 0)})
	case *graph.Scale:
		return last("Mul", []string{in[0], e.scalar(n.Name+".value", op.Value)})
	case *graph.Resize:
		return e.resize(n, op, in)
	case *graph.Shuffle:
		s := e.shape[n]
		shape := e.add("Shape", n.Name+".shape", in)
		x := e.add("Reshape", n.Name+".groups", []string{in[0], e.ints(n.Name+".split", 0, op.Groups, s[0]/op.Groups, -1)})
		x = e.add("Transpose", n.Name+".transpose", []string{x}, integers("perm", 0, 2, 1, 3))
		return last("Reshape", []string{x, shape})
	case *graph.DepthToSpace:
		mode := "DCR"
		if op.Channels {
			mode = "CRD"
		}
		return last("DepthToSpace", in, integer("blocksize", op.Block), text("mode", mode))
	case *graph.SpaceToDepth:
		if !op.Channels {
			return last("SpaceToDepth", in, integer("blocksize", op.Block))
		}
		return e.unshuffle(n, op, in[0])
	}
	if s, ok, err := e.more(n, in); ok {
		return s, err
	}
	return "", fmt.Errorf("%w: it has no counterpart in ONNX", graph.ErrUnsupported)
}

var binaries = map[graph.BinaryOp]string{
	graph.Add: "Add", graph.Sub: "Sub", graph.Mul: "Mul", graph.Div: "Div", graph.Max: "Max", graph.Min: "Min", graph.Pow: "Pow",
}

// comparisons give booleans in ONNX.
var comparisons = map[graph.BinaryOp]string{graph.Equal: "Equal", graph.Less: "Less", graph.Greater: "Greater"}

func stepOf(s int) int {
	if s == 0 {
		return 1
	}
	return s
}

// slicing are the inputs of a Slice.
func (e *exporter) slicing(name, x string, starts, ends, axes, steps []int) []string {
	return []string{x, e.ints(name+".starts", starts...), e.ints(name+".ends", ends...), e.ints(name+".axes", axes...), e.ints(name+".steps", steps...)}
}

// chain adds the stages of a convolution on a tensor of so many dimensions, or of a linear
// layer.
func (e *exporter) chain(name, x string, op *graph.Conv, dims int) (string, error) {
	last := len(op.Chain.Stages) - 1
	for i, k := range op.Chain.Stages {
		stage, node := name, name
		if op.Chain.Kind != conv.Dense {
			stage = fmt.Sprintf("%s.%d", name, i)
			node = e.unique(stage)
		}
		shape := k.Shape[:]
		if op.Linear {
			shape = k.Shape[:2]
		} else if dims == 2 {
			shape = []int{k.Shape[0], k.Shape[1], k.Shape[3]}
		}
		w, err := e.floats(stage+".weight", shape, k.Weight)
		if err != nil {
			return "", err
		}
		in := []string{x, w}
		if k.Bias != nil {
			b, err := e.floats(stage+".bias", []int{len(k.Bias)}, k.Bias)
			if err != nil {
				return "", err
			}
			in = append(in, b)
		}
		// The last stage gives the tensor that the convolution gave.
		x = node
		if i == last {
			x = name
		}
		e.graph.Node = append(e.graph.Node, &onnxpb.NodeProto{
			OpType: proto.String(operator(op)), Name: &node, Input: in, Output: []string{x}, Attribute: convolution(op, k, dims),
		})
	}
	return x, nil
}

func operator(op *graph.Conv) string {
	if op.Linear {
		return "Gemm"
	}
	return "Conv"
}

// convolution are the attributes of a stage.
func convolution(op *graph.Conv, k *conv.Kernel, dims int) []*onnxpb.AttributeProto {
	if op.Linear {
		return []*onnxpb.AttributeProto{integer("transB", 1)}
	}
	g := k.Normal()
	first := 0 // axis
	if dims == 2 {
		first = 1
	}
	both := func(p [2]int) []int { return p[first:] }
	end := [2]int{g.Padding[0] + g.Extra[0], g.Padding[1] + g.Extra[1]}
	return []*onnxpb.AttributeProto{
		integers("dilations", both(g.Dilation)...), integer("group", g.Groups), integers("kernel_shape", both([2]int(k.Shape[2:]))...),
		integers("pads", append(append([]int(nil), both(g.Padding)...), both(end)...)...), integers("strides", both(g.Stride)...),
	}
}

// pool adds pooling.
func (e *exporter) pool(n *graph.Node, op *graph.Pool, x string) (string, error) {
	kind := "MaxPool"
	if op.Average {
		kind = "AveragePool"
	}
	in := e.shape[n.In[0]]
	if op.Adaptive == [2]int{1, 1} && len(in) == 3 {
		return e.put("Global"+kind, n.Name, []string{x}), nil
	}
	first := 0
	if len(in) == 2 {
		first = 1
	}
	w := *op
	if a := op.Adaptive; a != [2]int{} {
		h, wd, _ := in.Layout()
		for i, size := range [2]int{h, wd} {
			if size%a[i] != 0 {
				return "", fmt.Errorf("%w: adaptive pooling of %v to %d×%d, which ONNX has only where the one divides the other", graph.ErrUnsupported, in, a[0], a[1])
			}
			w.Size[i], w.Stride[i] = size/a[i], size/a[i]
		}
		w.Begin, w.End, w.Dilation, w.Ceil = [2]int{}, [2]int{}, [2]int{}, false
	}
	ones := func(p [2]int) []int {
		for i := range p {
			p[i] = max(p[i], 1)
		}
		return p[first:]
	}
	attributes := []*onnxpb.AttributeProto{
		integers("kernel_shape", w.Size[first:]...), integers("strides", ones(w.Stride)...),
		integers("pads", append(append([]int(nil), w.Begin[first:]...), w.End[first:]...)...),
		when(w.Ceil, integer("ceil_mode", 1)),
	}
	dilated := w.Dilation[0] > 1 || w.Dilation[1] > 1
	switch {
	case !op.Average:
		attributes = append(attributes, when(dilated, integers("dilations", ones(w.Dilation)...)))
	case dilated && e.opt.Opset < 19:
		return "", fmt.Errorf("%w: an average over dilated windows, before opset 19", graph.ErrUnsupported)
	default:
		attributes = append(attributes, when(w.CountPadding, integer("count_include_pad", 1)), when(dilated, integers("dilations", ones(w.Dilation)...)))
	}
	return e.put(kind, n.Name, []string{x}, attributes...), nil
}

// activation adds a function of one value, put together of others where ONNX, or the
// opset, lacks it.
func (e *exporter) activation(n *graph.Node, a *graph.Activation, x string) (string, error) {
	last := func(op string, in []string, attributes ...*onnxpb.AttributeProto) (string, error) {
		return e.put(op, n.Name, in, attributes...), nil
	}
	half := func(op, suffix string, in []string, attributes ...*onnxpb.AttributeProto) string {
		return e.add(op, n.Name+"."+suffix, in, attributes...)
	}
	if op, ok := plain[a.Name]; ok {
		return last(op, []string{x})
	}
	one := a.Alpha
	if one == 0 {
		one = 1
	}
	switch a.Name {
	case "clip":
		return last("Clip", []string{x, e.scalar(n.Name+".min", a.Alpha), e.scalar(n.Name+".max", a.Beta)})
	case "leaky_relu":
		return last("LeakyRelu", []string{x}, number("alpha", a.Alpha))
	case "thresholded_relu":
		return last("ThresholdedRelu", []string{x}, number("alpha", a.Alpha))
	case "elu":
		return last("Elu", []string{x}, number("alpha", a.Alpha))
	case "celu":
		return last("Celu", []string{x}, number("alpha", a.Alpha))
	case "selu":
		return last("Selu", []string{x}, number("alpha", 1.6732632423543772), number("gamma", 1.0507009873554805))
	case "hard_sigmoid":
		return last("HardSigmoid", []string{x}, number("alpha", a.Alpha), number("beta", a.Beta))
	case "hard_swish":
		if e.opt.Opset >= 14 {
			return last("HardSwish", []string{x})
		}
		return last("Mul", []string{x, half("HardSigmoid", "gate", []string{x}, number("alpha", 1./6), number("beta", .5))})
	case "silu":
		gate := x
		if one != 1 {
			gate = half("Mul", "slope", []string{x, e.scalar(n.Name+".alpha", one)})
		}
		return last("Mul", []string{x, half("Sigmoid", "gate", []string{gate})})
	case "log_sigmoid":
		return last("Log", []string{half("Sigmoid", "sigmoid", []string{x})})
	case "mish":
		return last("Mul", []string{x, half("Tanh", "gate", []string{half("Softplus", "softplus", []string{x})})})
	case "gelu":
		y := half("Erf", "erf", []string{half("Div", "scaled", []string{x, e.scalar(n.Name+".root", 1.4142135623730951)})})
		y = half("Add", "sum", []string{y, e.scalar(n.Name+".one", 1)})
		y = half("Mul", "product", []string{x, y})
		return last("Mul", []string{y, e.scalar(n.Name+".half", .5)})
	case "pow":
		return last("Pow", []string{x, e.scalar(n.Name+".exponent", a.Alpha)})
	case "softplus":
		if one == 1 {
			return last("Softplus", []string{x})
		}
	case "linear":
		y := half("Mul", "product", []string{x, e.scalar(n.Name+".slope", a.Alpha)})
		return last("Add", []string{y, e.scalar(n.Name+".shift", a.Beta)})
	}
	return "", fmt.Errorf("%w: %s has no counterpart in ONNX", graph.ErrUnsupported, a.Name)
}

// plain are the activations that are one operation without attributes.
var plain = map[string]string{
	"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softsign": "Softsign", "exp": "Exp", "log": "Log", "sqrt": "Sqrt",
	"reciprocal": "Reciprocal", "abs": "Abs", "neg": "Neg", "sign": "Sign", "erf": "Erf", "sin": "Sin", "cos": "Cos", "floor": "Floor",
	"ceil": "Ceil", "round": "Round",
}
