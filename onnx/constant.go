package onnx

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/lowrank-go/lowrank/internal/onnxpb"
)

// Scope is a graph's names, as its nodes see them: its own and those of the graphs that
// it is in the body of.
type Scope struct {
	m      *Model
	parent *Scope
	graph  *onnxpb.GraphProto
	// Where several messages have one name, the first.
	inputs map[string]*onnxpb.ValueInfoProto
	tensor map[string]*onnxpb.TensorProto
	made   map[string]*onnxpb.NodeProto
}

// Scope is the main graph's. It is made anew by each call, from the graph as it is.
func (m *Model) Scope() *Scope { return m.scope(m.Graph(), nil) }

// Sub is the scope of a graph that is an attribute of a node of s's graph.
func (s *Scope) Sub(g *onnxpb.GraphProto) *Scope { return s.m.scope(g, s) }

func (m *Model) scope(g *onnxpb.GraphProto, parent *Scope) *Scope {
	s := &Scope{m: m, parent: parent, graph: g, inputs: map[string]*onnxpb.ValueInfoProto{}, tensor: map[string]*onnxpb.TensorProto{}, made: map[string]*onnxpb.NodeProto{}}
	for _, i := range g.GetInput() {
		first(s.inputs, i.GetName(), i)
	}
	for _, t := range g.GetInitializer() {
		first(s.tensor, t.GetName(), t)
	}
	for _, n := range g.GetNode() {
		for _, out := range n.Output {
			if out != "" {
				first(s.made, out, n)
			}
		}
	}
	return s
}

func first[T any](m map[string]T, name string, v T) {
	if _, there := m[name]; !there {
		m[name] = v
	}
}

// Graph is whose names these are.
func (s *Scope) Graph() *onnxpb.GraphProto { return s.graph }

// Producer is the node of this graph, not of an enclosing one, that gives name; nil if
// none does.
func (s *Scope) Producer(name string) *onnxpb.NodeProto { return s.made[name] }

// Input is the graph's own input of a name, nil if it has none.
func (s *Scope) Input(name string) *onnxpb.ValueInfoProto { return s.inputs[name] }

// Initializer is the graph's own initializer of a name, nil if it has none.
func (s *Scope) Initializer(name string) *onnxpb.TensorProto { return s.tensor[name] }

// Defined tells whether a name means something to the graph's nodes.
func (s *Scope) Defined(name string) bool { return s.owner(name) != nil }

// owner is the innermost scope that defines name.
func (s *Scope) owner(name string) *Scope {
	for ; s != nil; s = s.parent {
		if s.inputs[name] != nil || s.tensor[name] != nil || s.made[name] != nil {
			return s
		}
		for _, sp := range s.graph.GetSparseInitializer() {
			if sp.GetValues().GetName() == name {
				return s
			}
		}
	}
	return nil
}

// mostHops bounds chains of Identity and Cast, which in bad files are rings.
const mostHops = 100

// Constant is the value of a name that no input changes: an initializer, and what
// Constant, ConstantOfShape, Identity and Cast nodes make of those. An initializer that
// is also an input counts as constant, its default value being meant. The result is nil
// where the value is not constant in this sense; it is an error where it is, but cannot
// be read.
func (s *Scope) Constant(name string) (*Tensor, error) {
	t, err := s.constant(name, mostHops)
	if err != nil {
		return nil, fmt.Errorf("constant %q: %w", name, err)
	}
	return t, nil
}

func (s *Scope) constant(name string, hops int) (*Tensor, error) {
	s = s.owner(name)
	if s == nil || hops == 0 {
		return nil, nil
	}
	if p := s.tensor[name]; p != nil {
		return s.m.Tensor(p)
	}
	n := s.made[name]
	if n == nil || !standard(n.GetDomain()) || len(n.Output) == 0 || n.Output[0] != name {
		return nil, nil
	}
	var in *Tensor
	if len(n.Input) > 0 {
		switch n.GetOpType() {
		case "Identity", "Cast", "ConstantOfShape":
			var err error
			if in, err = s.constant(n.Input[0], hops-1); in == nil || err != nil {
				return nil, err
			}
		}
	}
	switch n.GetOpType() {
	case "Constant":
		return s.m.constantNode(n)
	case "Identity":
		return in, nil
	case "Cast":
		to := Type(Attribute(n, "to").GetI())
		// float64 is read through float32, which would round large integers.
		if in == nil || to.Size() == 0 || to == Bool || in.Type == Double && !to.IsFloat() {
			return nil, nil
		}
		if to == in.Type {
			return in, nil
		}
		return &Tensor{Name: name, Dims: in.Dims, Type: to, Filled: in.Filled, from: in}, nil
	case "ConstantOfShape":
		if in == nil {
			return nil, nil
		}
		return s.m.filled(n, in)
	}
	return nil, nil
}

// constantNode is the value of a Constant node.
func (m *Model) constantNode(n *onnxpb.NodeProto) (*Tensor, error) {
	for _, a := range n.Attribute {
		// The attribute says the type, also in files that leave it out.
		var p *onnxpb.TensorProto
		number := func(t Type, dims []int64) *onnxpb.TensorProto {
			kind := int32(t)
			return &onnxpb.TensorProto{Dims: dims, DataType: &kind}
		}
		switch a.GetName() {
		case "value":
			if p = a.T; p == nil {
				return nil, fmt.Errorf("%w: a Constant node without a tensor", ErrCorrupt)
			}
		case "value_float":
			p = number(Float, nil)
			p.FloatData = []float32{a.GetF()}
		case "value_floats":
			p = number(Float, []int64{int64(len(a.Floats))})
			p.FloatData = a.Floats
		case "value_int":
			p = number(Int64, nil)
			p.Int64Data = []int64{a.GetI()}
		case "value_ints":
			p = number(Int64, []int64{int64(len(a.Ints))})
			p.Int64Data = a.Ints
		default:
			continue
		}
		t, err := m.Tensor(p)
		if err == nil && len(n.Output) > 0 {
			t.Name = n.Output[0]
		}
		return t, err
	}
	return nil, nil // sparse values and strings
}

// mostFilled is the most bytes that a ConstantOfShape node's value may have, since no
// byte of the file stands behind them.
const mostFilled = 1 << 30

// filled is the value of a ConstantOfShape node.
func (m *Model) filled(n *onnxpb.NodeProto, shape *Tensor) (*Tensor, error) {
	dims, err := shape.Int64s()
	if err != nil {
		return nil, err
	}
	t := &Tensor{Name: n.Output[0], Type: Float, Filled: true}
	value := make([]byte, 4)
	if a := Attribute(n, "value"); a != nil {
		v, err := m.Tensor(a.T)
		if err != nil {
			return nil, err
		}
		if v.Len() != 1 {
			return nil, fmt.Errorf("%w: a ConstantOfShape of %d values", ErrCorrupt, v.Len())
		}
		if value, err = v.Bytes(); err != nil {
			return nil, err
		}
		t.Type = v.Type
	}
	count, err := length(dims, t.Type.Size())
	if err != nil {
		return nil, err
	}
	if count*int64(t.Type.Size()) > mostFilled {
		return nil, fmt.Errorf("%w: a ConstantOfShape of shape %v", ErrUnsupported, dims)
	}
	for _, d := range dims {
		t.Dims = append(t.Dims, int(d))
	}
	t.open = func() (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(repeated(bytes.Repeat(value, 1024)), count*int64(len(value)))), nil
	}
	return t, nil
}

// repeated gives its bytes again and again; reads of whole elements stay in step, since
// every read is of whole elements.
type repeated []byte

func (r repeated) Read(p []byte) (int, error) { return copy(p, r), nil }

// castFloat32s and castInt64s convert as ONNX's Cast does: to integers by cutting
// fractions off, to narrower types by rounding or by dropping high bits.
func (t *Tensor) castFloat32s() ([]float32, error) {
	if !t.Type.IsFloat() {
		return nil, fmt.Errorf("tensor %q: %w: elements are %v, want a floating-point type", t.Name, ErrUnsupported, t.Type)
	}
	var out []float32
	if t.from.Type.IsFloat() {
		v, err := t.from.Float32s()
		if err != nil {
			return nil, err
		}
		out = v
	} else {
		v, err := t.from.Int64s()
		if err != nil {
			return nil, err
		}
		out = make([]float32, len(v))
		for i, x := range v {
			out[i] = float32(x)
		}
	}
	if t.Type == Float16 || t.Type == BFloat16 {
		b, err := Encode(out, t.Type)
		if err != nil {
			return nil, err
		}
		for i := range out {
			h := binary.LittleEndian.Uint16(b[2*i:])
			if t.Type == Float16 {
				out[i] = fromHalf(h)
			} else {
				out[i] = math.Float32frombits(uint32(h) << 16)
			}
		}
	}
	return out, nil
}

func (t *Tensor) castInt64s() ([]int64, error) {
	if t.Type.IsFloat() {
		return nil, fmt.Errorf("tensor %q: %w: elements are %v, want integers", t.Name, ErrUnsupported, t.Type)
	}
	var out []int64
	if t.from.Type.IsFloat() {
		v, err := t.from.Float32s()
		if err != nil {
			return nil, err
		}
		out = make([]int64, len(v))
		for i, x := range v {
			out[i] = int64(x)
		}
	} else {
		var err error
		if out, err = t.from.Int64s(); err != nil {
			return nil, err
		}
	}
	shift := 64 - 8*t.Type.Size()
	signed := t.Type == Int8 || t.Type == Int16 || t.Type == Int32
	for i, v := range out {
		if signed {
			out[i] = v << shift >> shift
		} else {
			out[i] = int64(uint64(v) << shift >> shift)
		}
	}
	return out, nil
}

func (t *Tensor) castBytes() ([]byte, error) {
	if t.Type.IsFloat() {
		v, err := t.castFloat32s()
		if err != nil {
			return nil, err
		}
		return Encode(v, t.Type)
	}
	v, err := t.castInt64s()
	if err != nil {
		return nil, err
	}
	size := t.Type.Size()
	out := make([]byte, 0, len(v)*size)
	for _, x := range v {
		out = append(out, binary.LittleEndian.AppendUint64(nil, uint64(x))[:size]...)
	}
	return out, nil
}
