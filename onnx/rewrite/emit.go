package rewrite

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/onnxpb"
	"github.com/lowrank-go/lowrank/onnx"
)

// fresh is a name that nothing in the model has, name itself where that is free.
func (w *rewriter) fresh(name string) string {
	try := name
	for i := 1; w.taken[try]; i++ {
		try = fmt.Sprintf("%s_%d", name, i)
	}
	w.taken[try] = true
	return try
}

// emit is the nodes of a chain in a layer's place, whose weights it adds to the graph.
// how tells chains of one kernel apart.
func (w *rewriter) emit(l *layer, c *conv.Chain, how string) ([]*onnxpb.NodeProto, error) {
	weights, err := w.weights(l, c, how)
	if err != nil {
		return nil, err
	}
	w.replaced[l.node.Input[1]] = true
	last := len(c.Stages) - 1
	var nodes []*onnxpb.NodeProto
	from := l.node.Input[0]
	for i, s := range c.Stages {
		n := &onnxpb.NodeProto{Domain: l.node.Domain}
		op := l.stageOp(c, i)
		n.OpType = &op
		dot := "."
		if strings.Contains(l.name, "/") {
			dot = "/"
		}
		name := w.fresh(fmt.Sprintf("%s%s%d", l.name, dot, i))
		n.Name = &name
		n.Input = []string{from, weights[i]}
		if from = w.fresh(name + "_output_0"); i == last {
			delete(w.taken, from)
			from = l.node.Output[0]
			n.Input = append(n.Input, l.node.Input[2:]...)
			n.DocString, n.MetadataProps, n.DeviceConfigurations = l.node.DocString, l.node.MetadataProps, l.node.DeviceConfigurations
			n.ProtoReflect().SetUnknown(l.node.ProtoReflect().GetUnknown())
		}
		n.Output = []string{from}
		switch {
		case !l.linear():
			n.Attribute = l.attributes(c, i, s)
		case op == "Gemm":
			n.Attribute = l.node.Attribute
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// stageOp is the operator of a stage.
func (l *layer) stageOp(c *conv.Chain, i int) string {
	switch {
	case l.op == "ConvTranspose" && owner(c, 0) != i && owner(c, 1) != i:
		return "Conv"
	case l.op == "Gemm" && i < len(c.Stages)-1:
		return "MatMul" // a Gemm without a third input needs opset 11
	}
	return l.op
}

// attributes of a stage: of each axis what the node says in the stage that has it, and
// nothing in the others.
func (l *layer) attributes(c *conv.Chain, i int, s *conv.Kernel) []*onnxpb.AttributeProto {
	var out []*onnxpb.AttributeProto
	ints := func(name string, v []int64) {
		out = append(out, &onnxpb.AttributeProto{Name: &name, Type: onnxpb.AttributeProto_INTS.Enum(), Ints: v})
	}
	first := 2 - l.axes // the axis of package conv that is the node's first
	var kernel []int64
	owns := make([]bool, l.axes)
	any := false
	for a := range l.axes {
		kernel = append(kernel, int64(s.Shape[2+first+a]))
		owns[a] = owner(c, first+a) == i
		any = any || owns[a]
	}
	// per is the attribute of the node, with otherwise for axes of other stages.
	per := func(name string, otherwise int64) {
		a := onnx.Attribute(l.node, name)
		if a == nil || len(a.Ints) == 0 {
			return
		}
		v := slices.Clone(a.Ints)
		for i := range v {
			if !owns[i%l.axes] {
				v[i] = otherwise
			}
		}
		ints(name, v)
	}
	if any {
		if a := onnx.Attribute(l.node, "auto_pad"); a != nil {
			out = append(out, proto.CloneOf(a))
		}
		per("dilations", 1)
	}
	if s.Groups > 1 {
		out = append(out, &onnxpb.AttributeProto{Name: proto.String("group"), Type: onnxpb.AttributeProto_INT.Enum(), I: proto.Int64(int64(s.Groups))})
	}
	ints("kernel_shape", kernel)
	if any {
		per("output_padding", 0)
		per("pads", 0)
		per("strides", 1)
	}
	return out
}

// weights adds the stages' weights to the graph's initializers, in the place of the
// layer's, and returns their names; nodes that share weights share those of the chain.
func (w *rewriter) weights(l *layer, c *conv.Chain, how string) ([]string, error) {
	name := l.node.Input[1]
	key := fmt.Sprintf("%p %q %s %v %d %s %v", l.scope.Graph(), name, l.op, l.transposed, l.groups, how, w.opt.Multiple)
	if names, there := w.stored[key]; there {
		return names, nil
	}
	g := l.scope.Graph()
	at := len(g.Initializer)
	for i, t := range g.Initializer {
		if t.GetName() == name {
			at = i
		}
	}
	var names []string
	for i, s := range c.Stages {
		stage := fmt.Sprintf("%s.%d", name, i)
		if base, ok := strings.CutSuffix(name, ".weight"); ok && base != "" {
			stage = fmt.Sprintf("%s.%d.weight", base, i)
		}
		stage = w.fresh(stage)
		values, dims := s.Weight, s.Shape[:]
		op := l.stageOp(c, i)
		switch {
		case l.linear():
			dims = s.Shape[:2]
			if op == "MatMul" || l.transposed {
				values, dims = swap(values, dims[0], dims[1], 1), []int{dims[1], dims[0]}
			}
		case op == "ConvTranspose" && s.Groups <= 1:
			values, dims = swap(values, dims[0], dims[1], s.Taps()), []int{dims[1], dims[0], dims[2], dims[3]}
		}
		if l.axes == 1 {
			dims = []int{dims[0], dims[1], dims[3]}
		}
		t, err := onnx.NewTensor(stage, dims, values, l.weight.Type)
		if err != nil {
			return nil, err
		}
		g.Initializer = slices.Insert(g.Initializer, at+i, t)
		// Before IR version 4 an initializer has to be an input too.
		if w.m.Proto().GetIrVersion() < 4 {
			g.Input = append(g.Input, input(t))
		}
		names = append(names, stage)
	}
	w.stored[key] = names
	return names, nil
}

// input is the input that a tensor is the default of.
func input(t *onnxpb.TensorProto) *onnxpb.ValueInfoProto {
	shape := &onnxpb.TensorShapeProto{}
	for _, d := range t.Dims {
		shape.Dim = append(shape.Dim, &onnxpb.TensorShapeProto_Dimension{Value: &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: d}})
	}
	return &onnxpb.ValueInfoProto{Name: t.Name, Type: &onnxpb.TypeProto{Value: &onnxpb.TypeProto_TensorType{TensorType: &onnxpb.TypeProto_Tensor{ElemType: t.DataType, Shape: shape}}}}
}

// sweep removes the weights that chains stand for and that nothing else uses, with the
// nodes that made them.
func (w *rewriter) sweep() {
	candidates := w.replaced
	inputs := defaults(w.m)
	for len(candidates) > 0 {
		used := map[string]bool{}
		w.graphs(w.m.Graph(), func(g *onnxpb.GraphProto) {
			for _, n := range g.Node {
				for _, name := range n.Input {
					used[name] = true
				}
			}
			for _, o := range g.Output {
				used[o.GetName()] = true
			}
		})
		for _, t := range w.m.Proto().TrainingInfo {
			for _, b := range slices.Concat(t.InitializationBinding, t.UpdateBinding) {
				used[b.GetKey()], used[b.GetValue()] = true, true
			}
		}
		gone := func(name string) bool { return candidates[name] && !used[name] }
		next := map[string]bool{}
		w.graphs(w.m.Graph(), func(g *onnxpb.GraphProto) {
			values := func(v *onnxpb.ValueInfoProto) bool { return gone(v.GetName()) }
			g.Initializer = slices.DeleteFunc(g.Initializer, func(t *onnxpb.TensorProto) bool { return gone(t.GetName()) })
			if g == w.m.Graph() {
				g.Input = slices.DeleteFunc(g.Input, func(v *onnxpb.ValueInfoProto) bool { return inputs[v.GetName()] && values(v) })
			}
			g.ValueInfo = slices.DeleteFunc(g.ValueInfo, values)
			g.QuantizationAnnotation = slices.DeleteFunc(g.QuantizationAnnotation, func(a *onnxpb.TensorAnnotation) bool { return gone(a.GetTensorName()) })
			g.Node = slices.DeleteFunc(g.Node, func(n *onnxpb.NodeProto) bool {
				if len(n.Output) == 0 || slices.ContainsFunc(n.Output, func(o string) bool { return !gone(o) }) {
					return false
				}
				for _, name := range n.Input {
					next[name] = true
				}
				return true
			})
		})
		candidates = next
	}
}

// defaults are the graph's inputs that initializers give values to.
func defaults(m *onnx.Model) map[string]bool {
	given := map[string]bool{}
	for _, t := range m.Graph().Initializer {
		given[t.GetName()] = true
	}
	for _, t := range m.Graph().SparseInitializer {
		given[t.GetValues().GetName()] = true
	}
	out := map[string]bool{}
	for _, i := range m.Graph().Input {
		if given[i.GetName()] {
			out[i.GetName()] = true
		}
	}
	return out
}

// Clean drops the graph's inputs that are initializers too, as files before IR version 4
// have them: runtimes cannot take such initializers for constants, since a caller may give
// other values. It returns how many there were. raise allows to raise an IR version below
// 4 to 4, the first in which an initializer need not be an input; without it such a model
// with such inputs is an error.
func Clean(m *onnx.Model, raise bool) (int, error) {
	drop := defaults(m)
	p := m.Proto()
	if len(drop) == 0 {
		return 0, nil
	}
	if p.GetIrVersion() < 4 {
		if !raise {
			return 0, fmt.Errorf("%w: initializers have to be inputs in IR version %d; raise it to 4", onnx.ErrUnsupported, p.GetIrVersion())
		}
		p.IrVersion = proto.Int64(4)
	}
	p.Graph.Input = slices.DeleteFunc(p.Graph.Input, func(v *onnxpb.ValueInfoProto) bool { return drop[v.GetName()] })
	return len(drop), nil
}
