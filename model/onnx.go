package model

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/lowrank-go/lowrank/internal/onnxpb"
	"github.com/lowrank-go/lowrank/onnx"
)

// onnxTypes are ONNX's element types.
var onnxTypes = map[onnx.Type]DType{
	onnx.Float: F32, onnx.Uint8: U8, onnx.Int8: I8, onnx.Uint16: U16, onnx.Int16: I16, onnx.Int32: I32, onnx.Int64: I64,
	onnx.Bool: Bool, onnx.Float16: F16, onnx.Double: F64, onnx.Uint32: U32, onnx.Uint64: U64, onnx.BFloat16: BF16,
}

// isONNX tells whether content may be an ONNX model, which has no mark of its own: a
// message whose first field is the IR version, 1 to 127, followed by another of its fields.
func isONNX(head []byte) bool {
	return len(head) > 2 && head[0] == 1<<3 && head[1]-1 < 127 && head[2]&7 <= 2 && head[2]>>3 >= 2 && head[2]>>3 <= 25
}

// ReadONNX reads the weights of an ONNX model, its graph's initializers, under their names.
// Where an exporter left numbers for names ("onnx::Conv_158"), the weight and the bias of a
// convolution or a linear layer are called by their node, layer1.0.conv1.weight for
// /layer1/layer1.0/conv1/Conv. What the graph computes is not read, and neither are
// constants that are nodes (package onnx reads both).
//
// Errors wrap ErrFormat, ErrCorrupt, or ErrUnsupported for weights that lie in other files
// and sparse ones.
func ReadONNX(r io.ReaderAt, size int64) (*StateDict, error) {
	m, err := onnx.Read(r, size)
	if err != nil {
		return nil, onnxError(err)
	}
	if len(m.Graph().SparseInitializer) > 0 {
		return nil, fmt.Errorf("%w: sparse weights", ErrUnsupported)
	}
	sd := NewStateDict()
	for _, p := range m.Graph().Initializer {
		t, err := m.Tensor(p)
		if err != nil {
			return nil, onnxError(err)
		}
		if _, twice := sd.Get(t.Name); twice {
			return nil, fmt.Errorf("%w: two tensors called %q", ErrCorrupt, t.Name)
		}
		raw, err := t.Bytes()
		if err != nil {
			return nil, onnxError(err)
		}
		data, err := decode(onnxTypes[t.Type], raw, false)
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		own := &Tensor{Shape: t.Dims, Data: data}
		if d := onnxTypes[t.Type]; d == F16 || d == BF16 {
			own.Stored = d
		}
		sd.Set(t.Name, own)
	}
	if sd.Len() == 0 {
		return nil, fmt.Errorf("%w: an ONNX model without weights", ErrFormat)
	}
	names := map[string]string{} // by the node that uses it
	for _, n := range m.Graph().Node {
		onnxNode(n, names)
	}
	return renamed(sd, names), nil
}

// onnxError is an error of package onnx that wraps this package's sentinel too.
func onnxError(err error) error {
	for _, s := range []struct{ theirs, ours error }{
		{onnx.ErrFormat, ErrFormat}, {onnx.ErrCorrupt, ErrCorrupt}, {onnx.ErrUnsupported, ErrUnsupported},
	} {
		if errors.Is(err, s.theirs) {
			return &both{err, s.ours}
		}
	}
	return err
}

// both is an error that is another one too, which its text does not say.
type both struct {
	error
	too error
}

func (b *both) Unwrap() []error { return []error{b.error, b.too} }

// onnxNode notes what a layer's weight and bias should be called.
func onnxNode(n *onnxpb.NodeProto, names map[string]string) {
	op := n.GetOpType()
	if op != "Conv" && op != "ConvTranspose" && op != "Gemm" {
		return
	}
	module := onnxModule(n.GetName(), op)
	for i, part := range []string{".weight", ".bias"} {
		if module != "" && i+1 < len(n.Input) && strings.HasPrefix(n.Input[i+1], "onnx::") {
			names[n.Input[i+1]] = module + part
		}
	}
}

// onnxModule is the module that PyTorch's exporter named a node after: layer1.0.conv1 of
// /layer1/layer1.0/conv1/Conv, "" for other names.
func onnxModule(node, op string) string {
	parts := strings.Split(node, "/")
	if len(parts) < 3 || parts[0] != "" || parts[len(parts)-1] != op {
		return ""
	}
	// A part within a list is called by the list too: downsample, downsample.0.
	within, last := "", parts[1]
	for _, p := range parts[2 : len(parts)-1] {
		if !strings.HasPrefix(p, last+".") {
			within += last + "."
		}
		last = p
	}
	return within + last
}

// renamed is sd with other names, where those are free and have one use.
func renamed(sd *StateDict, names map[string]string) *StateDict {
	uses := map[string]int{}
	for _, name := range sd.Names() {
		uses[name]++
		if to, ok := names[name]; ok {
			uses[to]++
		}
	}
	out := NewStateDict()
	for _, name := range sd.Names() {
		t, _ := sd.Get(name)
		if to, ok := names[name]; ok && uses[to] == 1 {
			name = to
		}
		out.Set(name, t)
	}
	return out
}
