package onnxgraph

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/onnxpb"
	"github.com/lowrank-go/lowrank/onnx"
)

// ExportOptions are the choices of Export; the zero value is the usual ones.
type ExportOptions struct {
	// Opset is the version of ONNX's operators, from 13; 0 means 17, which PyTorch's
	// exporter writes too and every runtime of the last years reads.
	Opset int
	// Batch, unless 0, fixes the number of images; else it is left open.
	Batch int
	// FixedSize fixes the rows and columns of images; else they are left open where the
	// network runs on other sizes.
	FixedSize bool
	// Half writes weights as float16, which are converted when the model is loaded.
	Half bool
	// Version of this program, for the model's metadata.
	Version string
}

// Versions of ONNX.
const (
	usualOpset = 17
	leastOpset = 13
	irVersion  = 8 // of opset 15 to 18, and what checkers of 2022 know
)

// Layer is what a model's metadata says of a convolution that is a chain, under the key
// "lowrank.layers".
type Layer struct {
	Node   string    `json:"node"`
	Method conv.Kind `json:"method"`
	Rank   []int     `json:"rank"`
}

// Export is the network as an ONNX model, for opset 13 or later. The error wraps
// graph.ErrUnsupported and names the node where an operation has no counterpart.
func Export(g *graph.Graph, opt ExportOptions) (*onnxpb.ModelProto, error) {
	if opt.Opset == 0 {
		opt.Opset = usualOpset
	}
	if opt.Opset < leastOpset {
		return nil, fmt.Errorf("%w: opset %d; want %d or later", graph.ErrUnsupported, opt.Opset, leastOpset)
	}
	if err := g.Validate(); err != nil {
		return nil, err
	}
	e := &exporter{g: g, opt: opt, graph: &onnxpb.GraphProto{Name: proto.String(name(g))}, value: map[*graph.Node]string{}, shape: map[*graph.Node]graph.Shape{}, taken: map[string]bool{}}
	shapes, err := g.Shapes(g.Input)
	if err != nil {
		return nil, err
	}
	for i, n := range g.Nodes {
		e.shape[n] = shapes[i]
		e.taken[n.Name] = true
	}
	e.open = e.opens()
	for _, n := range g.Nodes {
		if err := e.node(n); err != nil {
			return nil, fmt.Errorf("%s %q: %w", n.Op.Kind(), n.Name, err)
		}
	}
	for _, n := range g.Outputs {
		// An output must be a tensor of its own, and not the input.
		out := e.value[n]
		if _, input := n.Op.(*graph.Input); input || e.listed(out) {
			out = e.add("Identity", n.Name+".output", []string{out})
		}
		e.graph.Output = append(e.graph.Output, info(out, e.dims(n)))
	}
	ir := int64(irVersion)
	if opt.Opset > 18 {
		ir = 9
	}
	if opt.Opset > 20 {
		ir = 10
	}
	m := &onnxpb.ModelProto{
		IrVersion: proto.Int64(ir), ProducerName: proto.String("lowrank"), ProducerVersion: proto.String(opt.Version),
		OpsetImport: []*onnxpb.OperatorSetIdProto{{Domain: proto.String(""), Version: proto.Int64(int64(opt.Opset))}},
		Graph:       e.graph,
	}
	if err := e.annotate(m); err != nil {
		return nil, err
	}
	return m, nil
}

// WriteFile writes the network as an ONNX model to a file, which is there completely or
// not at all.
func WriteFile(path string, g *graph.Graph, opt ExportOptions) error {
	p, err := Export(g, opt)
	if err != nil {
		return err
	}
	return onnx.New(p).WriteFile(path)
}

func name(g *graph.Graph) string {
	if g.Arch == "" {
		return "network"
	}
	return g.Arch
}

// exporter makes one model.
type exporter struct {
	g     *graph.Graph
	opt   ExportOptions
	graph *onnxpb.GraphProto
	value map[*graph.Node]string // the tensor that a node gives
	shape map[*graph.Node]graph.Shape
	taken map[string]bool // names of nodes and tensors
	open  bool            // rows and columns
}

// opens tells whether rows and columns of images are left open: whether the network runs
// on others, and nothing that has no size in ONNX but a number depends on them.
func (e *exporter) opens() bool {
	if e.opt.FixedSize || len(e.g.Input) != 3 {
		return false
	}
	for _, n := range e.g.Nodes {
		switch op := n.Op.(type) {
		case *graph.Pool:
			if op.Adaptive != [2]int{} && op.Adaptive != [2]int{1, 1} {
				return false
			}
		case *graph.Reshape, *graph.Expand, *graph.Const:
			return false
		}
	}
	other := graph.Shape{e.g.Input[0], 2 * e.g.Input[1], 3 * e.g.Input[2]}
	shapes, err := e.g.Shapes(other)
	if err != nil {
		return false
	}
	// Linear layers and the like give the same for every size; what is a map grows.
	for i, n := range e.g.Nodes {
		if c, ok := n.Op.(*graph.Conv); ok && c.Linear && !shapes[i].Equal(e.shape[n]) {
			return false
		}
	}
	return true
}

// dims are the sizes of a node's output, -1 or a name for those that are left open.
func (e *exporter) dims(n *graph.Node) []any {
	d := []any{"batch"}
	if e.opt.Batch > 0 {
		d[0] = e.opt.Batch
	}
	_, input := n.Op.(*graph.Input)
	s := e.shape[n]
	for i, v := range s {
		switch {
		case i > 0 && len(s) == 3 && e.open && input:
			d = append(d, [...]string{"height", "width"}[i-1])
		case i > 0 && len(s) == 3 && e.open:
			d = append(d, fmt.Sprintf("%s_%d", n.Name, i))
		default:
			d = append(d, v)
		}
	}
	return d
}

// info describes a tensor of floats.
func info(name string, dims []any) *onnxpb.ValueInfoProto {
	s := &onnxpb.TensorShapeProto{}
	for _, d := range dims {
		dim := &onnxpb.TensorShapeProto_Dimension{}
		switch d := d.(type) {
		case int:
			dim.Value = &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: int64(d)}
		case string:
			dim.Value = &onnxpb.TensorShapeProto_Dimension_DimParam{DimParam: d}
		}
		s.Dim = append(s.Dim, dim)
	}
	return &onnxpb.ValueInfoProto{Name: &name, Type: &onnxpb.TypeProto{Value: &onnxpb.TypeProto_TensorType{
		TensorType: &onnxpb.TypeProto_Tensor{ElemType: proto.Int32(int32(onnxpb.TensorProto_FLOAT)), Shape: s}}}}
}

// listed tells whether an output of the model is called so already.
func (e *exporter) listed(name string) bool {
	for _, o := range e.graph.Output {
		if o.GetName() == name {
			return true
		}
	}
	return false
}

// Keys of what models that lowrank wrote say of themselves.
const (
	keyInput      = "lowrank.input"      // the shape of images that costs are stated for
	keyPreprocess = "lowrank.preprocess" // how images become inputs
)

// annotate says in the model's metadata what lowrank made.
func (e *exporter) annotate(m *onnxpb.ModelProto) error {
	var layers []Layer
	for _, n := range e.g.Nodes {
		if c := n.Conv(); c != nil && c.Chain.Kind != conv.Dense {
			layers = append(layers, Layer{n.Name, c.Chain.Kind, c.Chain.Rank})
		}
	}
	for _, p := range []struct {
		key   string
		value any
		use   bool
	}{{"lowrank.layers", layers, layers != nil}, {keyInput, e.g.Input, true}, {keyPreprocess, e.g.Preprocess, true}} {
		if !p.use {
			continue
		}
		text, err := json.Marshal(p.value)
		if err != nil {
			return err
		}
		m.MetadataProps = append(m.MetadataProps, &onnxpb.StringStringEntryProto{Key: proto.String(p.key), Value: proto.String(string(text))})
	}
	return nil
}

// unique is name, or name with a number behind it where that is taken.
func (e *exporter) unique(name string) string {
	own := name
	for i := 1; e.taken[own]; i++ {
		own = fmt.Sprintf("%s.%d", name, i)
	}
	e.taken[own] = true
	return own
}

// add adds a node that gives a tensor of its own name.
func (e *exporter) add(op, name string, in []string, attributes ...*onnxpb.AttributeProto) string {
	name = e.unique(name)
	return e.put(op, name, in, attributes...)
}

// put is add under a name that is reserved.
func (e *exporter) put(op, name string, in []string, attributes ...*onnxpb.AttributeProto) string {
	var kept []*onnxpb.AttributeProto
	for _, a := range attributes {
		if a != nil {
			kept = append(kept, a)
		}
	}
	e.graph.Node = append(e.graph.Node, &onnxpb.NodeProto{OpType: &op, Name: &name, Input: in, Output: []string{name}, Attribute: kept})
	return name
}

// floats adds an initializer.
func (e *exporter) floats(name string, dims []int, values []float32) (string, error) {
	name = e.unique(name)
	kind := onnx.Type(onnxpb.TensorProto_FLOAT)
	if e.opt.Half {
		kind = onnx.Type(onnxpb.TensorProto_FLOAT16)
	}
	stored := name
	if e.opt.Half {
		stored = e.unique(name + ".half")
	}
	t, err := onnx.NewTensor(stored, dims, values, kind)
	if err != nil {
		return "", err
	}
	e.graph.Initializer = append(e.graph.Initializer, t)
	if e.opt.Half {
		e.put("Cast", name, []string{stored}, integer("to", int(onnxpb.TensorProto_FLOAT)))
	}
	return name, nil
}

// ints adds an initializer of int64.
func (e *exporter) ints(name string, values ...int) string {
	name = e.unique(name)
	t := &onnxpb.TensorProto{Name: &name, Dims: []int64{int64(len(values))}, DataType: proto.Int32(int32(onnxpb.TensorProto_INT64))}
	for _, v := range values {
		t.Int64Data = append(t.Int64Data, int64(v))
	}
	e.graph.Initializer = append(e.graph.Initializer, t)
	return name
}

// scalar adds an initializer of one number.
func (e *exporter) scalar(name string, v float64) string {
	name = e.unique(name)
	e.graph.Initializer = append(e.graph.Initializer, &onnxpb.TensorProto{Name: &name, DataType: proto.Int32(int32(onnxpb.TensorProto_FLOAT)), FloatData: []float32{float32(v)}})
	return name
}

func integer(name string, v int) *onnxpb.AttributeProto {
	return &onnxpb.AttributeProto{Name: &name, Type: onnxpb.AttributeProto_INT.Enum(), I: proto.Int64(int64(v))}
}

func integers(name string, values ...int) *onnxpb.AttributeProto {
	a := &onnxpb.AttributeProto{Name: &name, Type: onnxpb.AttributeProto_INTS.Enum()}
	for _, v := range values {
		a.Ints = append(a.Ints, int64(v))
	}
	return a
}

func number(name string, v float64) *onnxpb.AttributeProto {
	return &onnxpb.AttributeProto{Name: &name, Type: onnxpb.AttributeProto_FLOAT.Enum(), F: proto.Float32(float32(v))}
}

func text(name, v string) *onnxpb.AttributeProto {
	return &onnxpb.AttributeProto{Name: &name, Type: onnxpb.AttributeProto_STRING.Enum(), S: []byte(v)}
}

// when is an attribute where it is not the default.
func when(differs bool, a *onnxpb.AttributeProto) *onnxpb.AttributeProto {
	if differs {
		return a
	}
	return nil
}
