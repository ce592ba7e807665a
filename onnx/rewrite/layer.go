package rewrite

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/onnxpb"
	"github.com/lowrank-go/lowrank/onnx"
)

// layer is a node with constant weights that are a kernel or a matrix.
type layer struct {
	name   string
	node   *onnxpb.NodeProto
	scope  *onnx.Scope
	op     string
	weight *onnx.Tensor
	// shape is that of the kernel as package conv has it: T, S/g, rows, columns. A
	// matrix and a convolution along one axis have one row.
	shape  [4]int
	groups int
	axes   int // spatial, of the node: 2, 1, or 0 for a product of matrices
	geo    *geometry
	// transposed is set where the weights have inputs before outputs.
	transposed bool
	// in and out are the sizes of the maps, 0 where they are not known; of a product
	// of matrices 1 and the rows.
	in, out [2]int
}

// linear tells products of matrices.
func (l *layer) linear() bool { return l.axes == 0 }

// factored are the operators that may become chains.
var factored = map[string]bool{"Conv": true, "ConvTranspose": true, "Gemm": true, "MatMul": true}

// newLayer is the layer of a node of one of the factored operators, or the reason why it
// has to stay as it is, with the layer as far as it is known.
func newLayer(scope *onnx.Scope, n *onnxpb.NodeProto, s *shapes) (l *layer, reason string, err error) {
	l = &layer{name: n.GetName(), node: n, scope: scope, op: n.GetOpType(), groups: 1}
	if l.name == "" && len(n.Output) > 0 {
		l.name = n.Output[0]
	}
	if len(n.Input) < 2 || len(n.Output) != 1 {
		return nil, "", fmt.Errorf("%w: the %s node %q has %d inputs and %d outputs", onnx.ErrCorrupt, l.op, l.name, len(n.Input), len(n.Output))
	}
	w, err := scope.Constant(n.Input[1])
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", l.name, err)
	}
	if w == nil {
		return l, "its weights are not constant", nil
	}
	l.weight = w
	switch {
	case !w.Type.IsFloat():
		return l, fmt.Sprintf("its weights are %v", w.Type), nil
	case w.Filled:
		return l, "all weights are the same number", nil
	case w.Len() == 0:
		return l, "no weights", nil
	}
	if l.op == "Gemm" || l.op == "MatMul" {
		return l.matrix(s)
	}
	return l.convolution(s)
}

func (l *layer) matrix(s *shapes) (*layer, string, error) {
	d := l.weight.Dims
	if len(d) != 2 {
		return l, fmt.Sprintf("weights of %d dimensions", len(d)), nil
	}
	if l.op == "Gemm" && onnx.Attribute(l.node, "transA").GetI() != 0 {
		return l, "its input is transposed", nil
	}
	l.transposed = l.op == "MatMul" || onnx.Attribute(l.node, "transB").GetI() == 0
	if l.shape = [4]int{d[0], d[1], 1, 1}; l.transposed {
		l.shape = [4]int{d[1], d[0], 1, 1}
	}
	if l.op == "Gemm" { // its rows are the batch
		l.in, l.out = [2]int{1, 1}, [2]int{1, 1}
	}
	if s != nil {
		if x := s.dims[l.node.Input[0]]; len(x) >= 2 {
			if rows := product(x[:len(x)-1]); rows > 0 {
				l.in, l.out = [2]int{1, rows}, [2]int{1, rows}
			}
		}
	}
	return l, "", nil
}

func (l *layer) convolution(s *shapes) (*layer, string, error) {
	d := l.weight.Dims
	l.axes = len(d) - 2
	if l.axes < 1 {
		return nil, "", fmt.Errorf("%w: the %s node %q has weights of shape %v", onnx.ErrCorrupt, l.op, l.name, d)
	}
	if l.axes > 2 {
		return l, fmt.Sprintf("a convolution along %d axes", l.axes), nil
	}
	if a := onnx.Attribute(l.node, "kernel_shape"); a != nil {
		for i, k := range a.Ints {
			if len(a.Ints) != l.axes || int(k) != d[2+i] {
				return nil, "", fmt.Errorf("%w: the %s node %q has a kernel_shape of %v and weights of shape %v", onnx.ErrCorrupt, l.op, l.name, a.Ints, d)
			}
		}
	}
	l.geo = geometryOf(l.node, d, l.axes)
	if l.geo == nil {
		return nil, "", fmt.Errorf("%w: the %s node %q has attributes that contradict each other", onnx.ErrCorrupt, l.op, l.name)
	}
	l.groups = l.geo.groups
	if d[0]%l.groups != 0 {
		return nil, "", fmt.Errorf("%w: the %s node %q has weights of shape %v in %d groups", onnx.ErrCorrupt, l.op, l.name, d, l.groups)
	}
	l.shape = [4]int{d[0], d[1], 1, d[len(d)-1]}
	if l.op == "ConvTranspose" {
		l.transposed = true
		l.shape[0], l.shape[1] = d[1]*l.groups, d[0]/l.groups
	}
	if l.axes == 2 {
		l.shape[2] = d[2]
	}
	if s != nil {
		if x := s.dims[l.node.Input[0]]; len(x) == len(d) {
			l.in, l.out = [2]int{1, 0}, [2]int{1, 0}
			for i := range l.axes {
				a := 2 - l.axes + i
				if l.in[a] = max(x[2+i], 0); l.in[a] > 0 {
					l.out[a] = max(l.geo.output(i, l.in[a], l.op), 0)
				}
			}
		}
	}
	switch h, w := l.shape[2], l.shape[3]; {
	case l.op == "ConvTranspose" && l.groups > 1:
		return l, "a transposed convolution in groups", nil
	case l.op == "ConvTranspose" && onnx.Attribute(l.node, "output_shape") != nil:
		return l, "a transposed convolution that is told its output's shape", nil
	case l.axes == 1 && l.shape[1] == 1:
		return l, "a bank of filters on one channel, as of a Fourier transform", nil
	case l.axes == 2 && (h == 1) != (w == 1):
		return l, fmt.Sprintf("factored already: %d×%d", h, w), nil
	}
	return l, "", nil
}

// kernel reads the weights. The geometry is left out: chains of it keep each axis in one
// stage, and the nodes say the rest.
func (l *layer) kernel() (*conv.Kernel, error) {
	w, err := l.weights()
	if err != nil {
		return nil, err
	}
	return conv.NewKernel(l.shape, w, nil, conv.Geometry{Groups: l.groups})
}

// weights reads the weights, outputs before inputs.
func (l *layer) weights() ([]float32, error) {
	w, err := l.weight.Float32s()
	if err == nil && l.transposed {
		w = swap(w, l.shape[1], l.shape[0], l.shape[2]*l.shape[3])
	}
	return w, err
}

// swap exchanges the first two of three dimensions, a×b×c.
func swap(w []float32, a, b, c int) []float32 {
	out := make([]float32, len(w))
	for i := range a {
		for j := range b {
			copy(out[(j*a+i)*c:(j*a+i+1)*c], w[(i*b+j)*c:])
		}
	}
	return out
}

// owner is the stage of a chain that looks past a pixel along an axis, the first where
// none does.
func owner(c *conv.Chain, axis int) int {
	for i, s := range c.Stages {
		if s.Shape[2+axis] > 1 {
			return i
		}
	}
	return 0
}
