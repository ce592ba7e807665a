package rewrite

import (
	"slices"

	"github.com/lowrank-go/lowrank/internal/onnxpb"
	"github.com/lowrank-go/lowrank/onnx"
)

// unknown is a dimension that nothing tells.
const unknown = -1

// shapes are what is known of the main graph's tensors: dimensions, unknown ones among
// them. They serve costs alone, and nothing depends on their being right. A batch of
// any size counts as one.
type shapes struct {
	scope *onnx.Scope
	// dims are non-nil where something is known: a scalar's are empty.
	dims map[string][]int
	// values are lists of whole numbers that follow from shapes.
	values map[string][]int64
}

// infer walks the nodes once, in order, with the commonest operators' rules; where
// these end it takes what the file says. size stands for dimensions of inputs that the
// model leaves open.
func infer(m *onnx.Model, scope *onnx.Scope, size int) *shapes {
	s := &shapes{scope: scope, dims: map[string][]int{}, values: map[string][]int64{}}
	g := m.Graph()
	for _, i := range g.Input {
		if dims := declared(i); len(dims) > 0 {
			for a, d := range dims {
				if d == unknown && a == 0 {
					dims[a] = 1
				} else if d == unknown {
					dims[a] = size
				}
			}
			s.dims[i.GetName()] = dims
		}
	}
	for _, t := range g.Initializer {
		dims := make([]int, len(t.Dims))
		for i, d := range t.Dims {
			dims[i] = int(d)
		}
		s.dims[t.GetName()] = dims
	}
	said := map[string][]int{}
	for _, v := range slices.Concat(g.ValueInfo, g.Output) {
		if dims := declared(v); dims != nil {
			said[v.GetName()] = dims
		}
	}
	for _, n := range g.Node {
		if len(n.Output) == 0 {
			continue
		}
		if n.GetOpType() == "Split" {
			s.split(n)
			continue
		}
		if v := s.value(n); v != nil && len(v) <= mostValues {
			s.values[n.Output[0]] = v
		}
		dims := s.node(n)
		other := said[n.Output[0]]
		if dims == nil {
			dims = slices.Clone(other)
			if len(dims) > 0 && dims[0] == unknown {
				dims[0] = 1
			}
		} else if len(other) == len(dims) {
			for i, d := range dims {
				if d == unknown {
					dims[i] = other[i]
				}
			}
		}
		if dims != nil {
			s.dims[n.Output[0]] = dims
		}
	}
	return s
}

// declared are the dimensions that a value's type tells, nil where it tells none.
func declared(v *onnxpb.ValueInfoProto) []int {
	shape := v.GetType().GetTensorType().GetShape()
	if shape == nil {
		return nil
	}
	dims := make([]int, len(shape.Dim))
	for i, d := range shape.Dim {
		if dims[i] = int(d.GetDimValue()); dims[i] <= 0 {
			dims[i] = unknown
		}
	}
	return dims
}

// mostValues is how long a list of numbers may be that tells a shape.
const mostValues = 64

// value is what a node computes of shapes, nil where it computes something else.
func (s *shapes) value(n *onnxpb.NodeProto) []int64 {
	var in []int64
	if len(n.Input) > 0 && n.GetOpType() != "Shape" {
		if in = s.ints(n.Input[0]); in == nil {
			return nil
		}
	}
	switch n.GetOpType() {
	case "Shape":
		var out []int64
		for _, d := range s.in(n, 0) {
			if d == unknown {
				return nil
			}
			out = append(out, int64(d))
		}
		return out
	case "Identity", "Cast", "Squeeze", "Unsqueeze":
		return in
	case "Concat":
		out := slices.Clone(in)
		for _, name := range n.Input[1:] {
			v := s.ints(name)
			if v == nil {
				return nil
			}
			out = append(out, v...)
		}
		return out
	case "Gather":
		if len(n.Input) < 2 {
			return nil
		}
		var out []int64
		for _, i := range s.ints(n.Input[1]) {
			if i = axis(i, len(in)); i < 0 {
				return nil
			}
			out = append(out, in[i])
		}
		return out
	case "Slice":
		starts, ends := s.list(n, "starts", 1), s.list(n, "ends", 2)
		if len(starts) != 1 || len(ends) != 1 || len(n.Input) > 4 {
			return nil
		}
		from, to := bound(starts[0], int64(len(in))), bound(ends[0], int64(len(in)))
		return slices.Clone(in[from:max(from, to)])
	case "Mul", "Div", "Add", "Sub":
		if len(n.Input) < 2 {
			return nil
		}
		by := s.ints(n.Input[1])
		if len(by) == 0 || len(by) != len(in) && len(by) != 1 {
			return nil
		}
		out := slices.Clone(in)
		for i := range out {
			switch b := by[i%len(by)]; {
			case n.GetOpType() == "Mul":
				out[i] *= b
			case n.GetOpType() == "Add":
				out[i] += b
			case n.GetOpType() == "Sub":
				out[i] -= b
			case b == 0:
				return nil
			default:
				out[i] /= b
			}
		}
		return out
	}
	return nil
}

// bound is where an end of a slice lies in a dimension.
func bound(v, dim int64) int64 {
	if v < 0 {
		v += dim
	}
	return max(0, min(v, dim))
}

// ints are the values of a constant of whole numbers of moderate length, nil for others.
func (s *shapes) ints(name string) []int64 {
	if v := s.values[name]; v != nil {
		return v
	}
	t, err := s.scope.Constant(name)
	if err != nil || t == nil || t.Len() > mostValues || t.Type.IsFloat() {
		return nil
	}
	v, err := t.Int64s()
	if err != nil {
		return nil
	}
	return v
}

func (s *shapes) floats(name string) []float32 {
	t, err := s.scope.Constant(name)
	if err != nil || t == nil || t.Len() > mostValues || !t.Type.IsFloat() {
		return nil
	}
	v, err := t.Float32s()
	if err != nil {
		return nil
	}
	return v
}

// in is the shape of an input, nil where it is missing or not known.
func (s *shapes) in(n *onnxpb.NodeProto, i int) []int {
	if i >= len(n.Input) {
		return nil
	}
	return s.dims[n.Input[i]]
}

// list is an attribute or, in later versions, an input of whole numbers.
func (s *shapes) list(n *onnxpb.NodeProto, name string, input int) []int64 {
	if a := onnx.Attribute(n, name); a != nil {
		return a.Ints
	}
	if input < len(n.Input) {
		return s.ints(n.Input[input])
	}
	return nil
}

// node is the shape of a node's first output.
func (s *shapes) node(n *onnxpb.NodeProto) []int {
	x := s.in(n, 0)
	switch n.GetOpType() {
	case "Constant", "ConstantOfShape":
		if t, err := s.scope.Constant(n.Output[0]); err == nil && t != nil {
			return append([]int{}, t.Dims...)
		}
		return nil
	}
	if n.GetOpType() == "Add" && len(n.Input) == 2 {
		// Where one branch is too hard to follow, the sum is of the other's shape.
		y := s.in(n, 1)
		if x == nil && len(y) > 2 {
			x = y
		} else if y == nil && len(x) > 2 {
			return slices.Clone(x)
		}
	}
	if x == nil {
		return nil
	}
	x = slices.Clone(x)
	attribute := func(name string, otherwise int64) int64 {
		if a := onnx.Attribute(n, name); a != nil {
			return a.GetI()
		}
		return otherwise
	}
	switch n.GetOpType() {
	case "Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Exp", "Log", "Sqrt", "Clip", "BatchNormalization",
		"Dropout", "Identity", "Cast", "LRN", "Softmax", "LogSoftmax", "Elu", "Selu", "Softplus", "Softsign", "Neg", "Abs", "Erf", "Gelu", "Mish",
		"Floor", "Ceil", "Round", "Reciprocal", "InstanceNormalization", "GroupNormalization", "LayerNormalization", "Sin", "Cos", "Not":
		return x
	case "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "PRelu", "Equal", "Where":
		for i := 1; i < len(n.Input); i++ {
			y := s.in(n, i)
			if s.in(n, 0) == nil {
				y = x // as above
			}
			if x = broadcast(x, y); x == nil {
				return nil
			}
		}
		return x
	case "Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool":
		return s.window(n, x)
	case "GlobalAveragePool", "GlobalMaxPool":
		for i := 2; i < len(x); i++ {
			x[i] = 1
		}
		return x
	case "ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin":
		axes := s.list(n, "axes", 1)
		if axes == nil || attribute("keepdims", 1) == 0 {
			return nil
		}
		for _, a := range axes {
			if a = axis(a, len(x)); a < 0 {
				return nil
			}
			x[a] = 1
		}
		return x
	case "Concat":
		a := axis(attribute("axis", 1), len(x))
		if a < 0 {
			return nil
		}
		for i := 1; i < len(n.Input); i++ {
			y := s.in(n, i)
			if len(y) != len(x) || y[a] == unknown || x[a] == unknown {
				return nil
			}
			x[a] += y[a]
		}
		return x
	case "Flatten":
		a := axis(attribute("axis", 1), len(x)+1)
		if a < 0 {
			return nil
		}
		return []int{product(x[:a]), product(x[a:])}
	case "Gemm":
		w := s.in(n, 1)
		if len(x) != 2 || len(w) != 2 {
			return nil
		}
		return []int{x[attribute("transA", 0)&1], w[1-attribute("transB", 0)&1]}
	case "MatMul":
		w := s.in(n, 1)
		if len(x) < 2 || len(w) < 2 || len(w) > len(x) {
			return nil
		}
		x[len(x)-1] = w[len(w)-1]
		return x
	case "Transpose":
		a := onnx.Attribute(n, "perm")
		out := slices.Clone(x)
		if a == nil {
			slices.Reverse(out)
			return out
		}
		if len(a.Ints) != len(x) {
			return nil
		}
		for i, p := range a.Ints {
			if p < 0 || p >= int64(len(x)) {
				return nil
			}
			out[i] = x[p]
		}
		return out
	case "Reshape":
		return reshape(x, s.list(n, "shape", 1))
	case "Squeeze", "Unsqueeze":
		axes := s.list(n, "axes", 1)
		return squeeze(x, axes, n.GetOpType() == "Squeeze")
	case "Pad":
		pads := s.list(n, "pads", 1)
		if len(pads) != 2*len(x) {
			return nil
		}
		for i := range x {
			if x[i] != unknown {
				x[i] += int(pads[i] + pads[i+len(x)])
			}
		}
		return x
	case "Resize", "Upsample":
		return s.resize(n, x)
	case "DepthToSpace", "SpaceToDepth":
		b := int(attribute("blocksize", 0))
		if len(x) != 4 || b < 1 || x[1] == unknown || x[2] == unknown || x[3] == unknown {
			return nil
		}
		if n.GetOpType() == "DepthToSpace" {
			return []int{x[0], x[1] / b / b, x[2] * b, x[3] * b}
		}
		return []int{x[0], x[1] * b * b, x[2] / b, x[3] / b}
	case "Slice":
		return s.slice(n, x)
	}
	return nil
}

func axis(a int64, rank int) int64 {
	if a < 0 {
		a += int64(rank)
	}
	if a < 0 || a >= int64(rank) {
		return -1
	}
	return a
}

func product(dims []int) int {
	n := 1
	for _, d := range dims {
		if d == unknown {
			return unknown
		}
		n *= d
	}
	return n
}

func broadcast(a, b []int) []int {
	if a == nil || b == nil {
		return nil
	}
	if len(a) < len(b) {
		a, b = b, a
	}
	out := slices.Clone(a)
	for i, d := range b {
		if at := len(a) - len(b) + i; out[at] == 1 {
			out[at] = d
		} else if out[at] == unknown && d != 1 {
			out[at] = d
		}
	}
	return out
}

func reshape(x []int, shape []int64) []int {
	if shape == nil {
		return nil
	}
	out, rest := make([]int, len(shape)), -1
	for i, d := range shape {
		switch {
		case d == 0 && i < len(x):
			out[i] = x[i]
		case d < 0:
			rest, out[i] = i, 1
		default:
			out[i] = int(d)
		}
	}
	if rest >= 0 {
		all, known := product(x), product(out)
		if all == unknown || known < 1 || all%known != 0 {
			out[rest] = unknown
		} else {
			out[rest] = all / known
		}
	}
	return out
}

func squeeze(x []int, axes []int64, out bool) []int {
	rank := len(x)
	if !out {
		rank += len(axes)
	}
	chosen := map[int]bool{}
	for _, a := range axes {
		if a = axis(a, rank); a < 0 {
			return nil
		}
		chosen[int(a)] = true
	}
	if out && len(axes) == 0 {
		for i, d := range x {
			chosen[i] = d == 1
		}
	}
	dims := []int{}
	at := 0
	for i := range rank {
		switch {
		case chosen[i] && out:
			at++
		case chosen[i]:
			dims = append(dims, 1)
		case at >= len(x):
			return nil
		default:
			dims = append(dims, x[at])
			at++
		}
	}
	return dims
}

// split gives the shapes of a Split node's outputs.
func (s *shapes) split(n *onnxpb.NodeProto) {
	x := s.in(n, 0)
	a := axis(onnx.Attribute(n, "axis").GetI(), len(x))
	if x == nil || a < 0 || x[a] == unknown {
		return
	}
	parts := s.list(n, "split", 1)
	list := s.ints(n.Input[0])
	if len(x) != 1 || len(list) != x[0] {
		list = nil
	}
	for i, out := range n.Output {
		dims := slices.Clone(x)
		if parts == nil {
			dims[a] = x[a] / len(n.Output)
		} else if i < len(parts) {
			dims[a] = int(parts[i])
		}
		s.dims[out] = dims
		if k := max(dims[a], 0); k <= len(list) {
			s.values[out], list = list[:k], list[k:]
		}
	}
}

func (s *shapes) resize(n *onnxpb.NodeProto, x []int) []int {
	var scales []float32
	if a := onnx.Attribute(n, "scales"); a != nil {
		scales = a.Floats
	} else if len(n.Input) == 2 { // of opsets up to 10
		scales = s.floats(n.Input[1])
	} else if len(n.Input) > 2 {
		scales = s.floats(n.Input[2])
	}
	if len(n.Input) > 3 && n.Input[3] != "" {
		sizes := s.ints(n.Input[3])
		if len(sizes) != len(x) {
			return nil
		}
		for i := range x {
			x[i] = int(sizes[i])
		}
		return x
	}
	if len(scales) != len(x) {
		return nil
	}
	for i := range x {
		if x[i] != unknown {
			x[i] = int(float32(x[i]) * scales[i])
		}
	}
	return x
}

func (s *shapes) slice(n *onnxpb.NodeProto, x []int) []int {
	starts, ends := s.list(n, "starts", 1), s.list(n, "ends", 2)
	axes, steps := s.list(n, "axes", 3), []int64(nil)
	if len(n.Input) > 4 {
		steps = s.ints(n.Input[4])
	}
	if starts == nil || len(starts) != len(ends) {
		return nil
	}
	for i := range starts {
		a := int64(i)
		if axes != nil {
			if i >= len(axes) {
				return nil
			}
			a = axes[i]
		}
		if a = axis(a, len(x)); a < 0 || x[a] == unknown || i < len(steps) && steps[i] < 1 {
			return nil
		}
		d, step := int64(x[a]), int64(1)
		if i < len(steps) {
			step = steps[i]
		}
		x[a] = int(max(bound(ends[i], d)-bound(starts[i], d)+step-1, 0) / step)
	}
	return x
}

// window is the shape after a convolution or a pooling.
func (s *shapes) window(n *onnxpb.NodeProto, x []int) []int {
	op := n.GetOpType()
	var w []int
	if op == "Conv" || op == "ConvTranspose" {
		if w = s.in(n, 1); len(w) != len(x) || len(x) < 3 {
			return nil
		}
		if w[0] == unknown {
			return nil
		}
	}
	g := geometryOf(n, w, len(x)-2)
	if g == nil {
		return nil
	}
	switch op {
	case "Conv":
		x[1] = w[0]
	case "ConvTranspose":
		x[1] = w[1] * g.groups
	}
	for i := range g.kernel {
		if x[2+i] != unknown {
			x[2+i] = g.output(i, x[2+i], op)
		}
	}
	return x
}

// geometry is what a convolution's or a pooling's attributes say.
type geometry struct {
	kernel, stride, dilation, begin, end, extra []int
	groups                                      int
	auto                                        string
	ceil                                        bool
}

// geometryOf reads a node's attributes, nil where they contradict each other. w is the
// shape of the weights, nil for poolings.
func geometryOf(n *onnxpb.NodeProto, w []int, axes int) *geometry {
	list := func(name string, otherwise int) []int {
		out := make([]int, axes)
		a := onnx.Attribute(n, name)
		for i := range out {
			out[i] = otherwise
			if a != nil && len(a.Ints) > i {
				out[i] = int(a.Ints[i])
			}
		}
		return out
	}
	g := &geometry{kernel: list("kernel_shape", 1), stride: list("strides", 1), dilation: list("dilations", 1), extra: list("output_padding", 0),
		begin: make([]int, axes), end: make([]int, axes), groups: 1, auto: string(onnx.Attribute(n, "auto_pad").GetS()),
		ceil: onnx.Attribute(n, "ceil_mode").GetI() != 0}
	if w != nil {
		copy(g.kernel, w[2:])
	}
	if a := onnx.Attribute(n, "pads"); a != nil && len(a.Ints) == 2*axes {
		for i := range axes {
			g.begin[i], g.end[i] = int(a.Ints[i]), int(a.Ints[axes+i])
		}
	} else if a != nil {
		return nil
	}
	if a := onnx.Attribute(n, "group"); a != nil {
		g.groups = int(a.GetI())
	}
	for i := range axes {
		if g.kernel[i] < 1 || g.stride[i] < 1 || g.dilation[i] < 1 {
			return nil
		}
	}
	if g.groups < 1 {
		return nil
	}
	return g
}

// output is the size of an axis after the node.
func (g *geometry) output(axis, size int, op string) int {
	span, stride := g.dilation[axis]*(g.kernel[axis]-1)+1, g.stride[axis]
	same := g.auto == "SAME_UPPER" || g.auto == "SAME_LOWER"
	if op == "ConvTranspose" {
		if same {
			return size * stride
		}
		return stride*(size-1) + g.extra[axis] + span - g.begin[axis] - g.end[axis]
	}
	if same {
		return (size + stride - 1) / stride
	}
	n := size + g.begin[axis] + g.end[axis] - span
	if n < 0 {
		return 0
	}
	if g.ceil {
		n += stride - 1
	}
	return n/stride + 1
}
