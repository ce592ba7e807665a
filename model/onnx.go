package model

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// The numbers of the fields of ONNX's messages that are read (onnx.proto, IR version 10).
const (
	onnxModelGraph = 7

	onnxGraphNode        = 1
	onnxGraphInitializer = 5
	onnxGraphSparse      = 15

	onnxNodeInput  = 1
	onnxNodeName   = 3
	onnxNodeOpType = 4

	onnxTensorDims     = 1
	onnxTensorType     = 2
	onnxTensorFloats   = 4
	onnxTensorInt32s   = 5
	onnxTensorInt64s   = 7
	onnxTensorName     = 8
	onnxTensorRaw      = 9
	onnxTensorDoubles  = 10
	onnxTensorUint64s  = 11
	onnxTensorLocation = 14
)

// onnxTypes are ONNX's element types.
var onnxTypes = map[uint64]DType{
	1: F32, 2: U8, 3: I8, 4: U16, 5: I16, 6: I32, 7: I64, 9: Bool, 10: F16, 11: F64, 12: U32, 13: U64, 16: BF16,
}

// mostONNX is the largest protocol buffer.
const mostONNX = 1<<31 - 1

// isONNX tells whether content may be an ONNX model, which has no mark of its own: a
// message whose first field is the IR version, 1 to 127, followed by another of its fields.
func isONNX(head []byte) bool {
	return len(head) > 2 && head[0] == 1<<3 && head[1]-1 < 127 && head[2]&7 <= 2 && head[2]>>3 >= 2 && head[2]>>3 <= 25
}

// ReadONNX reads the weights of an ONNX model, its graph's initializers, under their names.
// Where an exporter left numbers for names ("onnx::Conv_158"), the weight and the bias of a
// convolution or a linear layer are called by their node, layer1.0.conv1.weight for
// /layer1/layer1.0/conv1/Conv. What the graph computes is not read.
//
// Errors wrap ErrFormat, ErrCorrupt, or ErrUnsupported for weights that lie in other files
// and sparse ones.
func ReadONNX(r io.ReaderAt, size int64) (*StateDict, error) {
	if size > mostONNX {
		return nil, fmt.Errorf("%w: a file of %d bytes; a protocol buffer has at most %d", ErrFormat, size, mostONNX)
	}
	content := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, size), content); err != nil {
		return nil, err
	}
	sd := NewStateDict()
	names := map[string]string{} // by the node that uses it
	graphs := 0
	err := onnxFields(content, "the model", func(f onnxField) error {
		if f.num != onnxModelGraph || f.kind != protowire.BytesType {
			return nil
		}
		graphs++
		return onnxGraph(f.bytes, sd, names)
	})
	switch {
	case err != nil:
		return nil, err
	case graphs == 0:
		return nil, fmt.Errorf("%w: no graph: not an ONNX model", ErrFormat)
	case sd.Len() == 0:
		return nil, fmt.Errorf("%w: an ONNX model without weights", ErrFormat)
	}
	return renamed(sd, names), nil
}

// onnxField is a field of a message: bytes, or a number of one of the other kinds.
type onnxField struct {
	num    protowire.Number
	kind   protowire.Type
	bytes  []byte
	number uint64
}

// onnxFields calls f with each field of a message.
func onnxFields(message []byte, what string, f func(onnxField) error) error {
	for at := 0; at < len(message); {
		var v onnxField
		num, kind, n := protowire.ConsumeTag(message[at:])
		if n >= 0 {
			at += n
			v.num, v.kind = num, kind
			rest := message[at:]
			switch kind {
			case protowire.VarintType:
				v.number, n = protowire.ConsumeVarint(rest)
			case protowire.Fixed32Type:
				var x uint32
				x, n = protowire.ConsumeFixed32(rest)
				v.number = uint64(x)
			case protowire.Fixed64Type:
				v.number, n = protowire.ConsumeFixed64(rest)
			case protowire.BytesType:
				v.bytes, n = protowire.ConsumeBytes(rest)
			default:
				n = protowire.ConsumeFieldValue(num, kind, rest)
			}
		}
		if n < 0 {
			return fmt.Errorf("%w: byte %d of %s of %d: %w", ErrCorrupt, at, what, len(message), protowire.ParseError(n))
		}
		at += n
		if err := f(v); err != nil {
			return err
		}
	}
	return nil
}

// onnxGraph adds a graph's initializers to sd, and what its nodes call them to names.
func onnxGraph(message []byte, sd *StateDict, names map[string]string) error {
	return onnxFields(message, "the graph", func(f onnxField) error {
		switch {
		case f.kind != protowire.BytesType:
		case f.num == onnxGraphSparse:
			return fmt.Errorf("%w: sparse weights", ErrUnsupported)
		case f.num == onnxGraphNode:
			return onnxNode(f.bytes, names)
		case f.num == onnxGraphInitializer:
			name, t, err := onnxTensor(f.bytes)
			if err != nil {
				return fmt.Errorf("tensor %q: %w", name, err)
			}
			if _, twice := sd.Get(name); twice {
				return fmt.Errorf("%w: two tensors called %q", ErrCorrupt, name)
			}
			sd.Set(name, t)
		}
		return nil
	})
}

// onnxNode notes what a layer's weight and bias should be called.
func onnxNode(message []byte, names map[string]string) error {
	var inputs []string
	var name, op string
	err := onnxFields(message, "a node", func(f onnxField) error {
		switch f.num {
		case onnxNodeInput:
			inputs = append(inputs, string(f.bytes))
		case onnxNodeName:
			name = string(f.bytes)
		case onnxNodeOpType:
			op = string(f.bytes)
		}
		return nil
	})
	if err != nil || op != "Conv" && op != "ConvTranspose" && op != "Gemm" {
		return err
	}
	module := onnxModule(name, op)
	for i, part := range []string{".weight", ".bias"} {
		if module != "" && i+1 < len(inputs) && strings.HasPrefix(inputs[i+1], "onnx::") {
			names[inputs[i+1]] = module + part
		}
	}
	return nil
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

// onnxTensor reads a tensor and its name, which it also gives with an error.
func onnxTensor(message []byte) (name string, t *Tensor, err error) {
	t = &Tensor{}
	var kind uint64
	// Elements are in one of these, little-endian.
	var raw []byte
	var ints []uint64
	external := false
	err = onnxFields(message, "a tensor", func(f onnxField) error {
		var err error
		switch f.num {
		case onnxTensorDims:
			var dims []uint64
			if dims, err = onnxInts(nil, f); err != nil {
				return err
			}
			for _, d := range dims {
				if d > mostONNX {
					return fmt.Errorf("%w: a dimension of %d", ErrCorrupt, int64(d))
				}
				t.Shape = append(t.Shape, int(d))
			}
		case onnxTensorType:
			kind = f.number
		case onnxTensorName:
			name = string(f.bytes)
		case onnxTensorLocation:
			external = f.number != 0
		case onnxTensorRaw:
			raw = append(raw, f.bytes...)
		case onnxTensorFloats, onnxTensorDoubles:
			switch f.kind {
			case protowire.BytesType:
				raw = append(raw, f.bytes...)
			case protowire.Fixed32Type:
				raw = binary.LittleEndian.AppendUint32(raw, uint32(f.number))
			case protowire.Fixed64Type:
				raw = binary.LittleEndian.AppendUint64(raw, f.number)
			}
		case onnxTensorInt32s, onnxTensorInt64s, onnxTensorUint64s:
			ints, err = onnxInts(ints, f)
		}
		return err
	})
	if err != nil {
		return name, nil, err
	}
	d, ok := onnxTypes[kind]
	switch {
	case external:
		return name, nil, fmt.Errorf("%w: its values lie in another file; save the model in one", ErrUnsupported)
	case !ok:
		return name, nil, fmt.Errorf("%w: ONNX's element type %d", ErrUnsupported, kind)
	case len(raw) > 0 && len(ints) > 0:
		return name, nil, fmt.Errorf("%w: values in two places", ErrCorrupt)
	}
	width := d.size()
	for _, v := range ints {
		raw = append(raw, binary.LittleEndian.AppendUint64(nil, v)[:width]...)
	}
	n, ok := elements(t.Shape, mostONNX)
	if !ok || int64(n)*int64(width) != int64(len(raw)) {
		return name, nil, fmt.Errorf("%w: shape %v of %s does not have the %d bytes that are there", ErrCorrupt, t.Shape, d, len(raw))
	}
	t, err = newTensor(d, t.Shape, raw, false)
	return name, t, err
}

// onnxInts appends a repeated field of integers, packed or not.
func onnxInts(to []uint64, f onnxField) ([]uint64, error) {
	if f.kind == protowire.VarintType {
		return append(to, f.number), nil
	}
	for b := f.bytes; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return to, fmt.Errorf("%w: packed integers: %w", ErrCorrupt, protowire.ParseError(n))
		}
		to, b = append(to, v), b[n:]
	}
	return to, nil
}
