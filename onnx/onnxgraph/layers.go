package onnxgraph

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/onnx"
)

// opImporter imports a node.
type opImporter func(c *nodeContext) ([]*value, error)

// operators are the operators that networks may be made of.
var operators map[string]opImporter

func init() {
	operators = map[string]opImporter{
		"Conv": opConv, "ConvTranspose": opConvTranspose, "Gemm": opGemm, "MatMul": opMatMul,
		"BatchNormalization": opBatchNorm, "InstanceNormalization": opInstanceNorm, "GroupNormalization": opGroupNorm,
		"LayerNormalization": opLayerNorm, "LRN": opLRN, "LpNormalization": opLpNorm, "PRelu": opPRelu,
		"MaxPool": opPool, "AveragePool": opPool, "GlobalAveragePool": opGlobal, "GlobalMaxPool": opGlobal,
		"Softmax": opSoftmax, "LogSoftmax": opSoftmax, "Dropout": opDropout, "Identity": opIdentity, "Cast": opCast,
		"Resize": opResize, "Upsample": opResize, "Pad": opPad,
		"Concat": opConcat, "Slice": opSlice, "Split": opSplit, "Gather": opGather, "Transpose": opTranspose, "Reshape": opReshape,
		"Flatten": opFlatten, "Squeeze": opSqueeze, "Unsqueeze": opUnsqueeze, "Expand": opExpand, "Tile": opTile,
		"DepthToSpace": opDepthToSpace, "SpaceToDepth": opSpaceToDepth,
		"Sum": opBinary, "Mean": opMean, "Clip": opClip,
	}
	for op := range reductions {
		operators[op] = opReduce
	}
	for op := range binaryOps {
		operators[op] = opBinary
	}
	for _, op := range []string{"Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Not", "And", "Or", "Where"} {
		operators[op] = opLogic
	}
	for op := range activations {
		operators[op] = opActivation
	}
}

// input is an input of the network's own.
func (c *nodeContext) input(i int) (*graph.Node, graph.Shape, error) {
	v, err := c.value(i)
	if err != nil {
		return nil, nil, err
	}
	if v.node == nil {
		// The constant does not depend on the input, but what it is combined with may.
		own := *v
		if err := c.materialise(&own, c.n.Input[i]); err != nil {
			return nil, nil, err
		}
		v = &own
	}
	return v.node, c.shapes[v.node], nil
}

// name is what the node is called in the network: by a tensor of its own that is called
// as PyTorch calls it, else as in the model.
func (c *nodeContext) name(tensors ...int) string {
	suffixes := []string{".weight", ".bias", ".running_mean", ".running_var"}
	for _, i := range tensors {
		if i >= len(c.n.Input) {
			continue
		}
		for _, suffix := range suffixes {
			if name, ok := strings.CutSuffix(c.n.Input[i], suffix); ok && name != "" {
				return c.unique(name)
			}
		}
	}
	name := c.n.GetName()
	if name == "" {
		name = strings.ToLower(c.n.GetOpType())
		if len(c.n.Output) > 0 {
			name += "_" + c.n.Output[0]
		}
	}
	if len(tensors) > 0 && strings.HasPrefix(name, "/") {
		if path := modulePath(name); path != "" {
			name = path
		}
	}
	return c.unique(name)
}

// modulePath is the PyTorch module of a node that its exporter called by the path of the
// modules around it: layer1.0.conv1 of /layer1/layer1.0/conv1/Conv.
func modulePath(name string) string {
	parts := strings.Split(strings.Trim(name, "/"), "/")
	path := ""
	for _, p := range parts[:len(parts)-1] {
		switch {
		case path == "" || strings.HasPrefix(p, path+"."):
			path = p
		default:
			// A part may repeat the last of the path: /layer1/layer1.0.
			if last := path[strings.LastIndex(path, ".")+1:]; strings.HasPrefix(p, last+".") {
				path = path[:len(path)-len(last)] + p
			} else {
				path += "." + p
			}
		}
	}
	return path
}

// put adds a node to the network.
func (c *nodeContext) put(name string, op graph.Op, in ...*graph.Node) ([]*value, error) {
	n, err := c.add(name, op, in...)
	if err != nil {
		return nil, err
	}
	return []*value{{node: n}}, nil
}

// unary is an operation of the first input.
func (c *nodeContext) unary(op graph.Op) ([]*value, error) {
	x, _, err := c.input(0)
	if err != nil {
		return nil, err
	}
	return c.put(c.name(), op, x)
}

// aside adds a node that the model has none for.
func (c *nodeContext) aside(op graph.Op, in ...*graph.Node) (*graph.Node, error) {
	base := "input"
	if len(in) > 0 {
		base = in[0].Name
	}
	return c.add(c.unique(base+"."+op.Kind()), op, in...)
}

// sized are positive numbers of an attribute, for rows and columns or columns alone.
func (c *nodeContext) sized(name string, rank int, otherwise int64, least int64) ([]int, error) {
	v := onnx.Attribute(c.n, name).GetInts()
	if v == nil {
		for range rank {
			v = append(v, otherwise)
		}
	}
	if len(v) != rank {
		return nil, fmt.Errorf("%w: %s %v for %d dimensions", onnx.ErrCorrupt, name, v, rank)
	}
	out := make([]int, rank)
	for i, x := range v {
		if x < least || x > 1<<24 {
			return nil, fmt.Errorf("%w: %s %v", onnx.ErrCorrupt, name, v)
		}
		out[i] = int(x)
	}
	return out, nil
}

// rows2 is a pair for rows and columns; a sequence has one row.
func rows2(v []int, row int) [2]int {
	if len(v) == 1 {
		return [2]int{row, v[0]}
	}
	return [2]int{v[0], v[1]}
}

// window is what convolutions and pooling have in common.
type window struct {
	kernel, stride, dilation, begin, end []int
}

// window reads a node's window for an input of shape x, of which the dimensions but the
// first are covered.
func (c *nodeContext) window(x graph.Shape, kernel []int, transposed bool) (*window, error) {
	rank := len(x) - 1
	if rank != 1 && rank != 2 {
		return nil, fmt.Errorf("%w: windows in %d dimensions", onnx.ErrUnsupported, rank)
	}
	w := &window{kernel: kernel}
	var err error
	if w.stride, err = c.sized("strides", rank, 1, 1); err != nil {
		return nil, err
	}
	if w.dilation, err = c.sized("dilations", rank, 1, 1); err != nil {
		return nil, err
	}
	pads, err := c.sized("pads", 2*rank, 0, -1<<24)
	if err != nil {
		return nil, err
	}
	w.begin, w.end = pads[:rank], pads[rank:]
	switch auto := c.text("auto_pad", "NOTSET"); auto {
	case "NOTSET", "":
	case "VALID":
		w.begin, w.end = make([]int, rank), make([]int, rank)
	case "SAME_UPPER", "SAME_LOWER":
		if transposed {
			return w, nil // it depends on the output
		}
		for a := range rank {
			n := x[1+a]
			out := (n + w.stride[a] - 1) / w.stride[a]
			total := max((out-1)*w.stride[a]+w.dilation[a]*(kernel[a]-1)+1-n, 0)
			w.begin[a], w.end[a] = total/2, total-total/2
			if auto == "SAME_LOWER" {
				w.begin[a], w.end[a] = w.end[a], w.begin[a]
			}
		}
	default:
		return nil, fmt.Errorf("%w: auto_pad %q", onnx.ErrUnsupported, auto)
	}
	return w, nil
}

// geometry is the window's as a convolution has it.
func (w *window) geometry(groups int) conv.Geometry {
	g := conv.Geometry{Stride: rows2(w.stride, 1), Padding: rows2(w.begin, 0), Dilation: rows2(w.dilation, 1), Groups: groups}
	end := rows2(w.end, 0)
	for a := range 2 {
		g.Extra[a] = end[a] - g.Padding[a]
	}
	return g
}

// weights are a constant input with a kernel's dimensions; of three the kernel has one
// row.
func (c *nodeContext) kernel(i int) ([4]int, []float32, error) {
	a, err := c.array(i)
	if err != nil {
		return [4]int{}, nil, err
	}
	d := a.dims
	switch len(d) {
	case 3:
		d = []int{d[0], d[1], 1, d[2]}
	case 4:
	default:
		return [4]int{}, nil, fmt.Errorf("%w: a kernel of %v", onnx.ErrUnsupported, a.dims)
	}
	w, err := c.floats(i)
	return [4]int(d), w, err
}

// optional are the values of a constant input that need not be there.
func (c *nodeContext) optional(i, n int) ([]float32, error) {
	if !c.has(i) {
		return nil, nil
	}
	v, err := c.floats(i)
	if err == nil && len(v) != n {
		err = fmt.Errorf("%w: input %d has %d values, want %d", onnx.ErrCorrupt, i, len(v), n)
	}
	return v, err
}

func opConv(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	shape, weight, err := c.kernel(1)
	if err != nil {
		return nil, err
	}
	bias, err := c.optional(2, shape[0])
	if err != nil {
		return nil, err
	}
	w, err := c.window(s, shape[2:][3-len(s):], false)
	if err != nil {
		return nil, err
	}
	groups := c.int("group", 1)
	if groups < 1 || groups > mostValues {
		return nil, fmt.Errorf("%w: %d groups", onnx.ErrCorrupt, groups)
	}
	g := w.geometry(int(groups))
	// Zeros that are put around the map beforehand are the convolution's.
	if p, ok := x.Op.(*graph.Pad); ok && (p.Mode == "" || p.Mode == "constant") && p.Value == 0 && p.Begin[0] == 0 && p.End[0] == 0 {
		begin, end := rows2(p.Begin[1:], 0), rows2(p.End[1:], 0)
		if min(begin[0], begin[1], end[0], end[1]) >= 0 {
			for a := range 2 {
				g.Padding[a] += begin[a]
				g.Extra[a] += end[a] - begin[a]
			}
			x = x.In[0]
		}
	}
	k, err := conv.NewKernel(shape, weight, bias, g)
	if err != nil {
		return nil, err
	}
	return c.put(c.name(1, 2), &graph.Conv{Chain: conv.NewDense(k)}, x)
}

func opConvTranspose(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	shape, weight, err := c.kernel(1)
	if err != nil {
		return nil, err
	}
	groups := c.int("group", 1)
	if groups < 1 || groups > mostValues {
		return nil, fmt.Errorf("%w: %d groups", onnx.ErrCorrupt, groups)
	}
	bias, err := c.optional(2, shape[1]*int(groups))
	if err != nil {
		return nil, err
	}
	w, err := c.window(s, shape[2:][3-len(s):], true)
	if err != nil {
		return nil, err
	}
	rank := len(s) - 1
	more, err := c.sized("output_padding", rank, 0, 0)
	if err != nil {
		return nil, err
	}
	auto := c.text("auto_pad", "NOTSET")
	same := auto == "SAME_UPPER" || auto == "SAME_LOWER"
	if onnx.Attribute(c.n, "output_shape") != nil || same {
		var out []int
		if onnx.Attribute(c.n, "output_shape") != nil {
			if out, err = c.sized("output_shape", rank, 0, 1); err != nil {
				return nil, err
			}
		}
		for a := range rank {
			size := 0
			if out != nil {
				size = out[a]
			} else {
				size = s[1+a] * w.stride[a]
			}
			total := w.stride[a]*(s[1+a]-1) + more[a] + w.dilation[a]*(w.kernel[a]-1) + 1 - size
			if total < 0 {
				more[a], total = more[a]-total, 0
			}
			w.begin[a], w.end[a] = total/2, total-total/2
			if auto == "SAME_LOWER" {
				w.begin[a], w.end[a] = w.end[a], w.begin[a]
			}
		}
	}
	op, err := graph.NewConvTranspose(shape, weight, bias, w.geometry(int(groups)), rows2(more, 0))
	if err != nil {
		return nil, err
	}
	return c.put(c.name(1, 2), op, x)
}

// linear adds a linear layer with weights M×K of K values to M. Of a flattened map it is
// a convolution as large as the map, which decompositions can see.
func (c *nodeContext) linear(x *graph.Node, m, k int, weight, bias []float32) ([]*value, error) {
	shape := [4]int{m, k, 1, 1}
	op := &graph.Conv{Linear: true}
	mapped := false
	if flattens(x.Op) {
		from := x.In[0]
		if s := c.shapes[from]; len(s) == 3 && s[0]*s[1]*s[2] == k && s[1]*s[2] > 1 {
			shape, x, op.Linear, mapped = [4]int{m, s[0], s[1], s[2]}, from, false, true
		}
	}
	kernel, err := conv.NewKernel(shape, weight, bias, conv.Geometry{})
	if err != nil {
		return nil, err
	}
	op.Chain = conv.NewDense(kernel)
	out, err := c.put(c.name(1, 2), op, x)
	if err != nil || !mapped {
		return out, err
	}
	n, err := c.aside(&graph.Flatten{}, out[0].node)
	return []*value{{node: n}}, err
}

// flattens tells whether an operation makes a vector of a tensor.
func flattens(op graph.Op) bool {
	switch op := op.(type) {
	case *graph.Flatten:
		return true
	case *graph.Reshape:
		return len(op.Size) == 1
	}
	return false
}

// turned is a matrix of rows×columns as one of columns×rows.
func turned(v []float32, rows, columns int) []float32 {
	out := make([]float32, len(v))
	for r := range rows {
		for k := range columns {
			out[k*rows+r] = v[r*columns+k]
		}
	}
	return out
}

func opGemm(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	a, err := c.array(1)
	if err != nil {
		return nil, err
	}
	if len(s) != 1 || len(a.dims) != 2 || c.int("transA", 0) != 0 {
		return nil, fmt.Errorf("%w: a product of %v, turned or not, and %v", onnx.ErrUnsupported, s, a.dims)
	}
	w, err := c.floats(1)
	if err != nil {
		return nil, err
	}
	m, k := a.dims[0], a.dims[1]
	if c.int("transB", 0) == 0 {
		w, m, k = turned(w, m, k), k, m
	}
	w = scaled(w, c.float("alpha", 1))
	var bias []float32
	if c.has(2) {
		b, err := c.array(2)
		if err != nil {
			return nil, err
		}
		dims, err := broadcast(b.dims, []int{1, m})
		if err != nil || len(dims) != 2 || dims[0] != 1 || dims[1] != m {
			return nil, fmt.Errorf("%w: %v added to vectors of %d", onnx.ErrUnsupported, b.dims, m)
		}
		if b, err = b.expand(dims); err != nil {
			return nil, err
		}
		if bias, err = b.numbers(); err != nil {
			return nil, err
		}
		bias = scaled(bias, c.float("beta", 1))
	}
	return c.linear(x, m, k, w, bias)
}

// scaled is v times f.
func scaled(v []float32, f float64) []float32 {
	if f == 1 {
		return v
	}
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = float32(float64(x) * f)
	}
	return out
}

func opMatMul(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	a, err := c.array(1)
	if err != nil {
		return nil, err
	}
	if len(a.dims) != 2 || len(s) < 1 || len(s) > 3 || s[len(s)-1] != a.dims[0] {
		return nil, fmt.Errorf("%w: the product of %v and %v", onnx.ErrUnsupported, s, a.dims)
	}
	w, err := c.floats(1)
	if err != nil {
		return nil, err
	}
	k, m := a.dims[0], a.dims[1]
	w = turned(w, k, m)
	if len(s) == 1 {
		return c.linear(x, m, k, w, nil)
	}
	// The last dimension as channels, and back.
	there, back := []int{1, 0}, []int{1, 0}
	if len(s) == 3 {
		there, back = []int{2, 0, 1}, []int{1, 2, 0}
	}
	kernel, err := conv.NewKernel([4]int{m, k, 1, 1}, w, nil, conv.Geometry{})
	if err != nil {
		return nil, err
	}
	if x, err = c.transposed(x, there); err != nil {
		return nil, err
	}
	if x, err = c.add(c.name(1), &graph.Conv{Chain: conv.NewDense(kernel)}, x); err != nil {
		return nil, err
	}
	x, err = c.transposed(x, back)
	return []*value{{node: x}}, err
}

func opBatchNorm(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	if c.int("training_mode", 0) != 0 || c.int("spatial", 1) == 0 {
		return nil, fmt.Errorf("%w: a batch norm in training, or of single pixels", onnx.ErrUnsupported)
	}
	if len(s) < 1 {
		return nil, fmt.Errorf("%w: a batch norm of numbers", onnx.ErrUnsupported)
	}
	m := &graph.BatchNorm{Eps: c.float("epsilon", 1e-5)}
	for i, dst := range []*[]float32{&m.Weight, &m.Bias, &m.Mean, &m.Var} {
		if _, err := c.array(i + 1); err != nil {
			return nil, err
		}
		if *dst, err = c.optional(i+1, s[0]); err != nil {
			return nil, err
		}
	}
	for i, v := range m.Var {
		if v < 0 {
			return nil, fmt.Errorf("%w: a variance of %g at channel %d", onnx.ErrCorrupt, v, i)
		}
	}
	return c.flattened(c.name(1, 2, 3, 4), m, x)
}

// flattened adds an operation on channels; a tensor of more than two dimensions beside
// them is a sequence for it.
func (c *nodeContext) flattened(name string, op graph.Op, x *graph.Node) ([]*value, error) {
	s := c.shapes[x]
	if len(s) <= 3 {
		return c.put(name, op, x)
	}
	x, err := c.aside(&graph.Reshape{Size: []int{s[0], -1}}, x)
	if err != nil {
		return nil, err
	}
	if x, err = c.add(name, op, x); err != nil {
		return nil, err
	}
	x, err = c.aside(&graph.Reshape{Size: slices.Clone(s)}, x)
	return []*value{{node: x}}, err
}

func opInstanceNorm(c *nodeContext) ([]*value, error) {
	return groupNorm(c, 0)
}

func opGroupNorm(c *nodeContext) ([]*value, error) {
	groups := c.int("num_groups", 0)
	if groups < 1 || groups > mostValues {
		return nil, fmt.Errorf("%w: %d groups", onnx.ErrCorrupt, groups)
	}
	return groupNorm(c, int(groups))
}

func groupNorm(c *nodeContext, groups int) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	if len(s) < 1 {
		return nil, fmt.Errorf("%w: the norm of numbers", onnx.ErrUnsupported)
	}
	n := s[0]
	each := 1
	if groups > 0 && c.opset < 21 {
		// Scales were a group's.
		if n%groups != 0 {
			return nil, fmt.Errorf("%w: %d channels in %d groups", onnx.ErrCorrupt, n, groups)
		}
		n, each = groups, n/groups
	}
	var v [2][]float32
	for i := range v {
		if _, err := c.array(i + 1); err != nil {
			return nil, err
		}
		w, err := c.optional(i+1, n)
		if err != nil {
			return nil, err
		}
		for _, x := range w {
			v[i] = append(v[i], slices.Repeat([]float32{x}, each)...)
		}
	}
	return c.flattened(c.name(1, 2), graph.NewGroupNorm(groups, c.float("epsilon", 1e-5), v[0], v[1]), x)
}

func opLayerNorm(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	d, err := axis(c.int("axis", -1), len(s)+1)
	if err != nil {
		return nil, err
	}
	if d == 0 {
		return nil, errBatch
	}
	var axes, size []int
	n := 1
	for a := d - 1; a < len(s); a++ {
		axes, size = append(axes, a), append(size, s[a])
		n *= s[a]
	}
	if _, err := c.array(1); err != nil {
		return nil, err
	}
	var v [2][]float32
	for i := range v {
		if v[i], err = c.optional(i+1, n); err != nil {
			return nil, err
		}
	}
	if v[1] == nil {
		v[1] = make([]float32, n)
	}
	return c.put(c.name(1, 2), graph.NewLayerNorm(axes, size, c.float("epsilon", 1e-5), v[0], v[1]), x)
}

func opLRN(c *nodeContext) ([]*value, error) {
	x, _, err := c.input(0)
	if err != nil {
		return nil, err
	}
	size := c.int("size", 0)
	if size < 1 || size > mostValues {
		return nil, fmt.Errorf("%w: a size of %d", onnx.ErrCorrupt, size)
	}
	op := &graph.LRN{Size: int(size), Alpha: c.float("alpha", 1e-4), Beta: c.float("beta", .75), Bias: c.float("bias", 1)}
	return c.flattened(c.name(), op, x)
}

func opLpNorm(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	d, err := c.elementAxis("axis", -1, s)
	if err != nil {
		return nil, err
	}
	op := graph.L2
	switch p := c.int("p", 2); p {
	case 1:
		op = graph.L1
	case 2:
	default:
		return nil, fmt.Errorf("%w: a norm of order %d", onnx.ErrUnsupported, p)
	}
	norm, err := c.aside(&graph.Reduce{Op: op, Axes: []int{d}}, x)
	if err != nil {
		return nil, err
	}
	return c.put(c.name(), &graph.Binary{Op: graph.Div}, x, norm)
}

func opPRelu(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	a, err := c.array(1)
	if err != nil {
		return nil, err
	}
	dims, err := c.aligned(a, len(s))
	if err != nil {
		return nil, err
	}
	w, err := c.floats(1)
	if err != nil {
		return nil, err
	}
	if len(a.dims) == 1 && c.opset < 7 {
		dims[0], dims[len(dims)-1] = len(w), 1 // they were the channels'
	}
	if len(w) == 1 || len(w) == s[0] && dims[0] == s[0] {
		return c.flattened(c.name(1), &graph.PReLU{Weight: w}, x)
	}
	// Slopes of pixels: max(x, 0) + slope·min(x, 0).
	slopes, err := c.constant(c.n.Input[1], a, dims)
	if err != nil {
		return nil, err
	}
	up, err := c.aside(&graph.Activation{Name: graph.ReLU}, x)
	if err != nil {
		return nil, err
	}
	down, err := c.aside(&graph.Activation{Name: graph.Clip, Alpha: -math.MaxFloat32}, x)
	if err != nil {
		return nil, err
	}
	if down, err = c.aside(&graph.Binary{Op: graph.Mul}, down, slopes); err != nil {
		return nil, err
	}
	return c.put(c.name(), &graph.Binary{Op: graph.Add}, up, down)
}

func opPool(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	rank := len(s) - 1
	if rank != 1 && rank != 2 {
		return nil, fmt.Errorf("%w: pooling of %v", onnx.ErrUnsupported, s)
	}
	kernel, err := c.sized("kernel_shape", rank, 0, 1)
	if err != nil {
		return nil, err
	}
	w, err := c.window(s, kernel, false)
	if err != nil {
		return nil, err
	}
	p := &graph.Pool{
		Average: c.n.GetOpType() == "AveragePool", Size: rows2(kernel, 1), Stride: rows2(w.stride, 1), Dilation: rows2(w.dilation, 1),
		Begin: rows2(w.begin, 0), End: rows2(w.end, 0), Ceil: c.int("ceil_mode", 0) != 0, CountPadding: c.int("count_include_pad", 0) != 0,
	}
	return c.put(c.name(), p, x)
}

func opGlobal(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	if len(s) < 2 {
		return nil, fmt.Errorf("%w: pooling of %v", onnx.ErrUnsupported, s)
	}
	average := c.n.GetOpType() == "GlobalAveragePool"
	if len(s) == 3 {
		return c.put(c.name(), &graph.Pool{Average: average, Adaptive: [2]int{1, 1}}, x)
	}
	op := &graph.Reduce{Op: graph.Largest}
	if average {
		op.Op = graph.Mean
	}
	for d := range s[1:] {
		op.Axes = append(op.Axes, d+1)
	}
	return c.put(c.name(), op, x)
}

func opSoftmax(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	op := &graph.Softmax{Log: c.n.GetOpType() == "LogSoftmax"}
	if c.opset >= 13 {
		d, err := c.elementAxis("axis", -1, s)
		if err != nil {
			return nil, err
		}
		op.Axes = []int{d}
		return c.put(c.name(), op, x)
	}
	// It was of all dimensions from one on.
	d, err := c.elementAxis("axis", 1, s)
	if err != nil {
		return nil, err
	}
	for ; d < len(s); d++ {
		op.Axes = append(op.Axes, d)
	}
	return c.put(c.name(), op, x)
}

func opDropout(c *nodeContext) ([]*value, error) {
	rate := c.float("ratio", .5)
	if c.has(1) {
		v, err := c.floats(1)
		if err != nil {
			return nil, err
		}
		if len(v) != 1 {
			return nil, fmt.Errorf("%w: %d rates", onnx.ErrCorrupt, len(v))
		}
		rate = float64(v[0])
	}
	if !(rate >= 0 && rate < 1) {
		rate = 0 // it is not trained with
	}
	return c.unary(&graph.Dropout{Rate: rate})
}

func opIdentity(c *nodeContext) ([]*value, error) {
	v, err := c.value(0)
	return []*value{v}, err
}

func opCast(c *nodeContext) ([]*value, error) {
	if to := onnx.Type(c.int("to", 0)); !to.IsFloat() && !(to == onnx.Bool && c.in[0].node != nil && c.truths[c.in[0].node]) {
		return nil, fmt.Errorf("%w: the network's values as %v", onnx.ErrUnsupported, to)
	}
	return opIdentity(c)
}

// activations are those of ONNX that graph has, with their constants.
var activations = map[string]func(c *nodeContext) *graph.Activation{
	"Relu":            named(graph.ReLU),
	"LeakyRelu":       func(c *nodeContext) *graph.Activation { return alpha(c, "leaky_relu", .01) },
	"ThresholdedRelu": func(c *nodeContext) *graph.Activation { return alpha(c, "thresholded_relu", 1) },
	"Elu":             func(c *nodeContext) *graph.Activation { return alpha(c, "elu", 1) },
	"Celu":            func(c *nodeContext) *graph.Activation { return alpha(c, "celu", 1) },
	"Swish":           func(c *nodeContext) *graph.Activation { return alpha(c, "silu", 1) },
	"Sigmoid":         named(graph.Sigmoid),
	"HardSigmoid": func(c *nodeContext) *graph.Activation {
		return &graph.Activation{Name: graph.HardSigmoid, Alpha: c.float("alpha", .2), Beta: c.float("beta", .5)}
	},
	"HardSwish":  named(graph.HardSwish),
	"Mish":       named("mish"),
	"Tanh":       named(graph.Tanh),
	"Softplus":   named("softplus"),
	"Softsign":   named("softsign"),
	"Exp":        named("exp"),
	"Log":        named("log"),
	"Sqrt":       named("sqrt"),
	"Reciprocal": named("reciprocal"),
	"Abs":        named("abs"),
	"Neg":        named("neg"),
	"Sign":       named("sign"),
	"Erf":        named("erf"),
	"Sin":        named("sin"),
	"Cos":        named("cos"),
	"Floor":      named("floor"),
	"Ceil":       named("ceil"),
	"Round":      named("round"),
	"Selu": func(c *nodeContext) *graph.Activation {
		a, g := c.float("alpha", 1.67326319217681884765625), c.float("gamma", 1.05070102214813232421875)
		if math.Abs(a-1.6732632) > 1e-6 || math.Abs(g-1.050701) > 1e-6 {
			return nil
		}
		return &graph.Activation{Name: "selu"}
	},
	"Gelu": func(c *nodeContext) *graph.Activation {
		if c.text("approximate", "none") == "tanh" {
			return &graph.Activation{Name: "gelu_tanh"}
		}
		return &graph.Activation{Name: "gelu"}
	},
}

func named(name string) func(*nodeContext) *graph.Activation {
	return func(*nodeContext) *graph.Activation { return &graph.Activation{Name: name} }
}

func alpha(c *nodeContext, name string, otherwise float64) *graph.Activation {
	return &graph.Activation{Name: name, Alpha: c.float("alpha", otherwise)}
}

func opActivation(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	op := activations[c.n.GetOpType()](c)
	if op != nil {
		return c.put(c.name(), op, x)
	}
	// SELU with constants of its own: γ·ELU(x; α).
	if x, err = c.aside(&graph.Activation{Name: "elu", Alpha: c.float("alpha", 1.6732632)}, x); err != nil {
		return nil, err
	}
	_ = s
	return c.put(c.name(), &graph.Scale{Value: c.float("gamma", 1.050701)}, x)
}

func opClip(c *nodeContext) ([]*value, error) {
	op := &graph.Activation{Name: graph.Clip, Alpha: -math.MaxFloat32, Beta: math.MaxFloat32}
	if c.opset < 11 {
		op.Alpha, op.Beta = c.float("min", op.Alpha), c.float("max", op.Beta)
	}
	for i, v := range []*float64{&op.Alpha, &op.Beta} {
		if !c.has(i+1) || c.opset < 11 {
			continue
		}
		f, err := c.floats(i + 1)
		if err != nil {
			return nil, err
		}
		if len(f) != 1 {
			return nil, fmt.Errorf("%w: %d bounds", onnx.ErrCorrupt, len(f))
		}
		*v = min(max(float64(f[0]), -math.MaxFloat32), math.MaxFloat32)
	}
	if op.Alpha == 0 && op.Beta == math.MaxFloat32 {
		op = &graph.Activation{Name: graph.ReLU}
	}
	return c.unary(op)
}
