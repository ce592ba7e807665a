package onnxgraph

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/onnxpb"
)

// more is operation for the operators that fewer networks have; ok is false for others.
func (e *exporter) more(n *graph.Node, in []string) (out string, ok bool, err error) {
	last := func(op string, in []string, attributes ...*onnxpb.AttributeProto) (string, bool, error) {
		return e.put(op, n.Name, in, attributes...), true, nil
	}
	rank := len(e.shape[n])
	switch op := n.Op.(type) {
	case *graph.ConvTranspose:
		out, err = e.transposed(n, op, in[0])
		return out, true, err
	case *graph.PReLU:
		dims := []int{len(op.Weight)}
		for range rank - 1 {
			dims = append(dims, 1)
		}
		slope, err := e.floats(n.Name+".weight", dims, op.Weight)
		if err != nil {
			return "", true, err
		}
		return last("PRelu", []string{in[0], slope})
	case *graph.LRN:
		return last("LRN", in, integer("size", op.Size), number("alpha", op.Alpha), number("beta", op.Beta), number("bias", op.Bias))
	case *graph.Pad:
		mode := op.Mode
		if mode == "" {
			mode = "constant"
		}
		if mode == "wrap" && e.opt.Opset < 19 {
			return "", true, fmt.Errorf("%w: padding by wrapping, before opset 19", graph.ErrUnsupported)
		}
		pads := append(append([]int{0}, op.Begin...), append([]int{0}, op.End...)...)
		args := []string{in[0], e.ints(n.Name+".pads", pads...)}
		if op.Value != 0 {
			args = append(args, e.scalar(n.Name+".value", op.Value))
		}
		return last("Pad", args, text("mode", mode))
	case *graph.Softmax:
		kind := "Softmax"
		if op.Log {
			kind = "LogSoftmax"
		}
		if len(op.Axes) == 1 {
			return last(kind, in, integer("axis", op.Axes[0]+1))
		}
		return e.flatSoftmax(n, op, kind, in[0])
	case *graph.GroupNorm:
		out, err = e.groupNorm(n, op, in[0])
		return out, true, err
	case *graph.LayerNorm:
		out, err = e.layerNorm(n, op, in[0])
		return out, true, err
	case *graph.Reduce:
		name, known := reducers[op.Op]
		if !known {
			return "", true, fmt.Errorf("%w: reduction by %s has no counterpart in ONNX", graph.ErrUnsupported, op.Op)
		}
		axes := make([]int, len(op.Axes))
		for i, a := range op.Axes {
			axes[i] = a + 1
		}
		// From opset 13, of sums, and 18, of the others, axes are an input.
		if op.Op == graph.Sum || e.opt.Opset >= 18 {
			return last(name, []string{in[0], e.ints(n.Name+".axes", axes...)})
		}
		return last(name, in, integers("axes", axes...))
	}
	return "", false, nil
}

var reducers = map[graph.ReduceOp]string{
	graph.Mean: "ReduceMean", graph.Sum: "ReduceSum", graph.Largest: "ReduceMax", graph.Least: "ReduceMin",
	graph.L1: "ReduceL1", graph.L2: "ReduceL2", graph.SumSquare: "ReduceSumSquare",
}

// flatSoftmax is a softmax over the last dimensions together.
func (e *exporter) flatSoftmax(n *graph.Node, op *graph.Softmax, kind, x string) (string, bool, error) {
	rank := len(e.shape[n])
	axes := slices.Sorted(slices.Values(op.Axes))
	for i, a := range axes {
		if a != rank-len(axes)+i {
			return "", true, fmt.Errorf("%w: a softmax over dimensions %v, which are not the last", graph.ErrUnsupported, op.Axes)
		}
	}
	shape := e.add("Shape", n.Name+".shape", []string{x})
	size := []int{0}
	for range rank - len(axes) {
		size = append(size, 0)
	}
	y := e.add("Reshape", n.Name+".flat", []string{x, e.ints(n.Name+".size", append(size, -1)...)})
	y = e.add(kind, n.Name+".softmax", []string{y}, integer("axis", -1))
	return e.put("Reshape", n.Name, []string{y, shape}), true, nil
}

// transposed adds a transposed convolution.
func (e *exporter) transposed(n *graph.Node, op *graph.ConvTranspose, x string) (string, error) {
	first := 0
	shape := op.Kernel[:]
	if len(e.shape[n]) == 2 {
		first = 1
		shape = []int{op.Kernel[0], op.Kernel[1], op.Kernel[3]}
	}
	w, err := e.floats(n.Name+".weight", shape, op.Weight)
	if err != nil {
		return "", err
	}
	in := []string{x, w}
	if op.Bias != nil {
		b, err := e.floats(n.Name+".bias", []int{len(op.Bias)}, op.Bias)
		if err != nil {
			return "", err
		}
		in = append(in, b)
	}
	g := op.Geometry.Normal()
	end := [2]int{g.Padding[0] + g.Extra[0], g.Padding[1] + g.Extra[1]}
	return e.put("ConvTranspose", n.Name, in,
		integers("dilations", g.Dilation[first:]...), integer("group", g.Groups), integers("kernel_shape", op.Kernel[2+first:]...),
		integers("pads", append(append([]int(nil), g.Padding[first:]...), end[first:]...)...), integers("strides", g.Stride[first:]...),
		when(op.OutputPadding != [2]int{}, integers("output_padding", op.OutputPadding[first:]...))), nil
}

// affine adds a scale and a shift for each channel behind x, and gives the node's output.
func (e *exporter) affine(n *graph.Node, x string, weight, bias []float32, dims []int) (string, error) {
	w, err := e.floats(n.Name+".weight", dims, weight)
	if err != nil {
		return "", err
	}
	b, err := e.floats(n.Name+".bias", dims, bias)
	if err != nil {
		return "", err
	}
	return e.put("Add", n.Name, []string{e.add("Mul", n.Name+".scaled", []string{x, w}), b}), nil
}

// groupNorm adds group normalisation: instance normalisation of groups as channels, then a
// scale and a shift of the channels, as all opsets can have it.
func (e *exporter) groupNorm(n *graph.Node, op *graph.GroupNorm, x string) (string, error) {
	channels := e.shape[n][0]
	groups := op.Groups
	if groups == 0 {
		groups = channels
	}
	ones, zeros := make([]float32, groups), make([]float32, groups)
	for i := range ones {
		ones[i] = 1
	}
	s, err := e.floats(n.Name+".ones", []int{groups}, ones)
	if err != nil {
		return "", err
	}
	z, err := e.floats(n.Name+".zeros", []int{groups}, zeros)
	if err != nil {
		return "", err
	}
	shape := e.add("Shape", n.Name+".shape", []string{x})
	y := e.add("Reshape", n.Name+".groups", []string{x, e.ints(n.Name+".size", 0, groups, -1)})
	y = e.add("InstanceNormalization", n.Name+".normed", []string{y, s, z}, number("epsilon", op.Eps))
	y = e.add("Reshape", n.Name+".back", []string{y, shape})
	dims := []int{channels}
	for range len(e.shape[n]) - 1 {
		dims = append(dims, 1)
	}
	if op.Weight == nil {
		return e.put("Identity", n.Name, []string{y}), nil
	}
	return e.affine(n, y, op.Weight, op.Bias, dims)
}

// layerNorm adds layer normalisation, put together of means: as all opsets can have it.
func (e *exporter) layerNorm(n *graph.Node, op *graph.LayerNorm, x string) (string, error) {
	axes := make([]int, len(op.Axes))
	dims := make([]int, len(e.shape[n]))
	for i := range dims {
		dims[i] = 1
	}
	for i, a := range op.Axes {
		axes[i], dims[a] = a+1, e.shape[n][a]
	}
	if !slices.IsSorted(op.Axes) {
		return "", fmt.Errorf("%w: layer normalisation over dimensions %v, which are not in order", graph.ErrUnsupported, op.Axes)
	}
	mean := func(name, x string) string {
		if e.opt.Opset >= 18 {
			return e.add("ReduceMean", name, []string{x, e.ints(name+".axes", axes...)})
		}
		return e.add("ReduceMean", name, []string{x}, integers("axes", axes...))
	}
	y := e.add("Sub", n.Name+".centred", []string{x, mean(n.Name+".mean", x)})
	v := mean(n.Name+".variance", e.add("Mul", n.Name+".square", []string{y, y}))
	v = e.add("Sqrt", n.Name+".deviation", []string{e.add("Add", n.Name+".stable", []string{v, e.scalar(n.Name+".eps", op.Eps)})})
	y = e.add("Div", n.Name+".normed", []string{y, v})
	if op.Weight == nil {
		return e.put("Identity", n.Name, []string{y}), nil
	}
	return e.affine(n, y, op.Weight, op.Bias, dims)
}

// unshuffle is PyTorch's PixelUnshuffle.
func (e *exporter) unshuffle(n *graph.Node, op *graph.SpaceToDepth, x string) (string, error) {
	in := e.shape[n.In[0]]
	b := op.Block
	y := e.add("Reshape", n.Name+".squares", []string{x, e.ints(n.Name+".split", 0, in[0], in[1]/b, b, in[2]/b, b)})
	y = e.add("Transpose", n.Name+".transpose", []string{y}, integers("perm", 0, 1, 3, 5, 2, 4))
	return e.put("Reshape", n.Name, []string{y, e.ints(n.Name+".size", 0, in[0]*b*b, in[1]/b, in[2]/b)}), nil
}

// resize adds resizing: to the size of a second input, to a size, or by a ratio.
func (e *exporter) resize(n *graph.Node, op *graph.Resize, in []string) (string, error) {
	mode, coordinates := op.Mode, op.Coordinates
	if mode == "" {
		mode = "linear"
	}
	if coordinates == "" {
		coordinates = "half_pixel"
	}
	if coordinates == "half_pixel_symmetric" && e.opt.Opset < 19 {
		return "", fmt.Errorf("%w: coordinates %s, before opset 19", graph.ErrUnsupported, coordinates)
	}
	attributes := []*onnxpb.AttributeProto{text("mode", mode), text("coordinate_transformation_mode", coordinates)}
	if mode == "nearest" {
		rounding := op.Rounding
		if rounding == "" {
			rounding = "round_prefer_floor"
		}
		attributes = append(attributes, text("nearest_mode", rounding))
	}
	if mode == "cubic" {
		attributes = append(attributes, when(op.CubicA != 0, number("cubic_coeff_a", op.CubicA)), when(op.ExcludeOutside, integer("exclude_outside", 1)))
	}
	if len(in) == 1 && op.Size == [2]int{} {
		// ONNX too rounds the size down.
		scales := e.unique(n.Name + ".scales")
		e.graph.Initializer = append(e.graph.Initializer, &onnxpb.TensorProto{Name: &scales, Dims: []int64{4},
			DataType: proto.Int32(int32(onnxpb.TensorProto_FLOAT)), FloatData: []float32{1, 1, float32(op.Scale[0]), float32(op.Scale[1])}})
		return e.put("Resize", n.Name, []string{in[0], "", scales}, attributes...), nil
	}
	shape := e.add("Shape", n.Name+".shape", in[:1])
	channels := e.add("Slice", n.Name+".channels", e.slicing(n.Name, shape, []int{0}, []int{2}, []int{0}, []int{1}))
	var size string
	if len(in) == 2 {
		like := e.add("Shape", n.Name+".like", in[1:])
		size = e.add("Slice", n.Name+".size", e.slicing(n.Name+".like", like, []int{2}, []int{4}, []int{0}, []int{1}))
	} else {
		size = e.ints(n.Name+".size", op.Size[:]...)
	}
	sizes := e.add("Concat", n.Name+".sizes", []string{channels, size}, integer("axis", 0))
	return e.put("Resize", n.Name, []string{in[0], "", "", sizes}, attributes...), nil
}
