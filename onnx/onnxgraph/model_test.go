package onnxgraph

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/onnxpb"
	"github.com/lowrank-go/lowrank/onnx"
	"github.com/lowrank-go/lowrank/zoo"
)

// builder makes models.
type builder struct{ p *onnxpb.ModelProto }

// newModel is a model with an input x; dimensions of 0 are left open.
func newModel(opset int64, dims ...int64) *builder {
	return &builder{&onnxpb.ModelProto{
		IrVersion:   proto.Int64(8),
		OpsetImport: []*onnxpb.OperatorSetIdProto{{Version: &opset}},
		Graph:       &onnxpb.GraphProto{Input: []*onnxpb.ValueInfoProto{typed("x", dims)}, Output: []*onnxpb.ValueInfoProto{typed("y", nil)}},
	}}
}

func typed(name string, dims []int64) *onnxpb.ValueInfoProto {
	kind := int32(onnx.Float)
	s := &onnxpb.TensorShapeProto{}
	for i, d := range dims {
		dim := &onnxpb.TensorShapeProto_Dimension{Value: &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: d}}
		if d == 0 {
			dim.Value = &onnxpb.TensorShapeProto_Dimension_DimParam{DimParam: fmt.Sprintf("d%d", i)}
		}
		s.Dim = append(s.Dim, dim)
	}
	return &onnxpb.ValueInfoProto{Name: &name, Type: &onnxpb.TypeProto{Value: &onnxpb.TypeProto_TensorType{TensorType: &onnxpb.TypeProto_Tensor{ElemType: &kind, Shape: s}}}}
}

// node adds a node: inputs and outputs are lists with commas, attributes pairs.
func (b *builder) node(op, in, out string, attributes ...any) *builder {
	name := "node_" + strings.Split(out, ",")[0]
	n := &onnxpb.NodeProto{OpType: &op, Name: &name, Output: strings.Split(out, ",")}
	if in != "" {
		n.Input = strings.Split(in, ",")
	}
	for i := 0; i < len(attributes); i += 2 {
		key := attributes[i].(string)
		a := &onnxpb.AttributeProto{Name: &key}
		switch v := attributes[i+1].(type) {
		case int:
			a.I, a.Type = proto.Int64(int64(v)), onnxpb.AttributeProto_INT.Enum()
		case []int64:
			a.Ints, a.Type = v, onnxpb.AttributeProto_INTS.Enum()
		case float32:
			a.F, a.Type = &v, onnxpb.AttributeProto_FLOAT.Enum()
		case string:
			a.S, a.Type = []byte(v), onnxpb.AttributeProto_STRING.Enum()
		case *onnxpb.TensorProto:
			a.T, a.Type = v, onnxpb.AttributeProto_TENSOR.Enum()
		case *onnxpb.GraphProto:
			a.G, a.Type = v, onnxpb.AttributeProto_GRAPH.Enum()
		}
		n.Attribute = append(n.Attribute, a)
	}
	b.p.Graph.Node = append(b.p.Graph.Node, n)
	return b
}

// ints is an initializer of integers.
func (b *builder) ints(name string, v ...int64) *builder {
	b.p.Graph.Initializer = append(b.p.Graph.Initializer, intTensor(name, v...))
	return b
}

func intTensor(name string, v ...int64) *onnxpb.TensorProto {
	kind := int32(onnx.Int64)
	return &onnxpb.TensorProto{Name: &name, DataType: &kind, Dims: []int64{int64(len(v))}, Int64Data: v}
}

// weights is an initializer of random numbers.
func (b *builder) weights(name string, dims ...int) *builder {
	b.p.Graph.Initializer = append(b.p.Graph.Initializer, normal(name, onnx.Float, dims...))
	return b
}

func normal(name string, kind onnx.Type, dims ...int) *onnxpb.TensorProto {
	n := 1
	for _, d := range dims {
		n *= d
	}
	seed := uint64(len(name))
	for _, c := range name {
		seed = seed*31 + uint64(c)
	}
	rng := rand.New(rand.NewPCG(seed, 9))
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rng.IntN(64)-32) / 16 // exact in float16
	}
	p, err := onnx.NewTensor(name, dims, v, kind)
	if err != nil {
		panic(err)
	}
	return p
}

// load makes the network of the model.
func (b *builder) load(t testing.TB, opt Options) *graph.Graph {
	t.Helper()
	g, err := Network(onnx.New(b.p), opt)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// kinds lists the operations of a network, without its input.
func kinds(g *graph.Graph) string {
	var s []string
	for _, n := range g.Nodes[1:] {
		s = append(s, n.Op.Kind())
	}
	return strings.Join(s, " ")
}

// outputOf runs a network on a random batch.
func outputOf(t testing.TB, g *graph.Graph, batch int) []graph.Tensor {
	t.Helper()
	x := random(append([]int{batch}, g.Input...), 1)
	out, err := run(g, x)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func same(t *testing.T, a, b *graph.Graph, tolerance float64) {
	t.Helper()
	x, y := outputOf(t, a, 3), outputOf(t, b, 3)
	for i := range y {
		if d := worst(x[i], &tensor{y[i].Shape, y[i].Data}); !(d <= tolerance) {
			t.Errorf("output %d differs by %g of the largest value", i, d)
		}
	}
}

func TestWhatIsOneOperationBecomesOne(t *testing.T) {
	c := func(b *builder) *builder { return b.weights("conv.weight", 4, 4, 3, 3).weights("conv.bias", 4) }
	for _, k := range []struct {
		name string
		b    *builder
		want string
		// plain is the same in other words, or nil.
		plain *builder
	}{
		{"zeros around a convolution's input",
			c(newModel(11, 0, 4, 6, 7)).ints("pads", 0, 0, 0, 1, 0, 0, 1, 2).node("Pad", "x,pads", "p").node("Conv", "p,conv.weight,conv.bias", "y", "strides", []int64{2, 2}), "conv",
			c(newModel(11, 0, 4, 6, 7)).node("Conv", "x,conv.weight,conv.bias", "y", "strides", []int64{2, 2}, "pads", []int64{0, 1, 1, 2})},
		{"zeros before version 11",
			c(newModel(9, 0, 4, 6, 7)).node("Pad", "x", "p", "pads", []int64{0, 0, 2, 1, 0, 0, 0, 1}).node("Conv", "p,conv.weight,conv.bias", "y"), "conv",
			c(newModel(9, 0, 4, 6, 7)).node("Conv", "x,conv.weight,conv.bias", "y", "pads", []int64{2, 1, 0, 1})},
		{"a bias behind a convolution",
			c(newModel(13, 0, 4, 6, 7)).weights("b", 1, 4, 1, 1).node("Conv", "x,conv.weight,conv.bias", "z").node("Add", "z,b", "y"), "conv",
			c(newModel(13, 0, 4, 6, 7)).weights("b", 1, 4, 1, 1).node("Conv", "x,conv.weight,conv.bias", "z").node("Identity", "z", "y0").node("Add", "z,b", "y1").node("Identity", "y1", "y")},
		{"a scale and a shift behind a batch norm",
			newModel(13, 0, 4, 6, 7).weights("g", 4).weights("h", 4).weights("m", 4).ints("axes", 1, 2).weights("s", 4, 1, 1).weights("a", 4, 1, 1).
				node("Mul", "m,m", "v").node("BatchNormalization", "x,g,h,m,v", "n").node("Mul", "n,s", "k").node("Add", "k,a", "y"), "batchnorm", nil},
		{"a linear layer on a flattened map",
			newModel(13, 0, 4, 3, 2).weights("fc.weight", 5, 24).weights("fc.bias", 5).node("Flatten", "x", "f").node("Gemm", "f,fc.weight,fc.bias", "y", "transB", 1), "conv flatten",
			newModel(13, 0, 4, 3, 2).weights("fc.weight", 5, 4, 3, 2).weights("fc.bias", 5).ints("shape", 0, -1).node("Conv", "x,fc.weight,fc.bias", "z").node("Reshape", "z,shape", "y")},
		{"a linear layer on a pooled map",
			newModel(13, 0, 4, 3, 2).weights("fc.weight", 4, 5).weights("fc.bias", 5).node("GlobalAveragePool", "x", "p").node("Flatten", "p", "f").node("MatMul", "f,fc.weight", "z").node("Add", "fc.bias,z", "y"), "pool flatten linear", nil},
		{"a shuffle of channels",
			newModel(13, 0, 6, 3, 2).ints("s", 0, 2, 3, 3, 2).ints("back", 0, 6, 3, 2).node("Reshape", "x,s", "a").node("Transpose", "a", "b", "perm", []int64{0, 2, 1, 3, 4}).node("Reshape", "b,back", "y"), "shuffle", nil},
		{"PyTorch's pixel shuffle",
			newModel(13, 0, 8, 3, 2).ints("s", -1, 2, 2, 2, 3, 2).ints("back", -1, 2, 6, 4).node("Reshape", "x,s", "a").node("Transpose", "a", "b", "perm", []int64{0, 1, 4, 2, 5, 3}).node("Reshape", "b,back", "y"), "depth_to_space",
			newModel(13, 0, 8, 3, 2).node("DepthToSpace", "x", "y", "blocksize", 2, "mode", "CRD")},
		{"SiLU in two nodes", newModel(13, 0, 3, 2, 2).node("Sigmoid", "x", "s").node("Mul", "s,x", "y"), "activation", nil},
		{"HardSwish in two nodes", newModel(13, 0, 3, 2, 2).node("HardSigmoid", "x", "s", "alpha", float32(1./6)).node("Mul", "x,s", "y"), "activation",
			newModel(14, 0, 3, 2, 2).node("HardSwish", "x", "y")},
		{"HardSwish in four nodes", hard().node("Mul", "x,b", "c").node("Div", "c,six", "y"), "activation", newModel(14, 0, 3, 2, 2).node("HardSwish", "x", "y")},
		{"HardSwish by a hard sigmoid in three", hard().node("Div", "b,six", "c").node("Mul", "c,x", "y"), "activation", newModel(14, 0, 3, 2, 2).node("HardSwish", "x", "y")},
		{"a hard sigmoid", hard().node("Div", "b,six", "y"), "activation", newModel(14, 0, 3, 2, 2).node("HardSigmoid", "x", "y", "alpha", float32(1./6))},
		{"a mean over rows and columns", newModel(13, 0, 3, 2, 2).node("ReduceMean", "x", "y", "axes", []int64{-1, -2}, "keepdims", 0), "pool flatten", nil},
		{"transposes that undo each other", newModel(13, 0, 3, 2, 5).node("Transpose", "x", "a", "perm", []int64{0, 2, 3, 1}).node("Relu", "x", "r").node("Transpose", "a", "b", "perm", []int64{0, 3, 1, 2}).node("Add", "b,r", "y"), "activation binary", nil},
	} {
		t.Run(k.name, func(t *testing.T) {
			g := k.b.load(t, Options{})
			if got := kinds(g); got != k.want {
				t.Errorf("it becomes %q, want %q\n%v", got, k.want, g)
			}
			if k.plain != nil {
				same(t, g, k.plain.load(t, Options{}), 1e-6)
			}
		})
	}
}

// hard begins a model with min(max(x + 3, 0), 6).
func hard() *builder {
	b := newModel(13, 0, 3, 2, 2)
	for name, v := range map[string]float32{"zero": 0, "three": 3, "six": 6} {
		p, err := onnx.NewTensor(name, nil, []float32{v}, onnx.Float)
		if err != nil {
			panic(err)
		}
		b.p.Graph.Initializer = append(b.p.Graph.Initializer, p)
	}
	return b.node("Add", "x,three", "a").node("Clip", "a,zero,six", "b")
}

// What another node reads too must stay as it is.
func TestNothingIsMergedIntoWhatOthersRead(t *testing.T) {
	b := newModel(13, 0, 4, 5, 5).weights("w", 4, 4, 1, 1).weights("b", 1, 4, 1, 1).
		node("Conv", "x,w", "z").node("Add", "z,b", "u").node("Sub", "u,z", "y")
	out := outputOf(t, b.load(t, Options{}), 2)[0]
	bias, err := onnx.New(&onnxpb.ModelProto{}).Tensor(b.p.Graph.Initializer[1])
	if err != nil {
		t.Fatal(err)
	}
	v, err := bias.Float32s()
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range out.Data {
		if want := v[i/25%4]; math.Abs(float64(got-want)) > 1e-5 {
			t.Fatalf("value %d is %g, want the bias, %g", i, got, want)
		}
	}
}

func TestShapesAreComputedWhereverTheyComeFrom(t *testing.T) {
	// x.view(x.size(0), -1, x.size(2)*x.size(3)) as PyTorch exports it.
	b := newModel(13, 0, 4, 0, 0).ints("one", 1).ints("minus", -1).
		node("Shape", "x", "s").node("Constant", "", "zero", "value", scalar(0)).node("Gather", "s,zero", "n").node("Unsqueeze", "n,axis", "n1").ints("axis", 0).
		node("Constant", "", "two", "value", scalar(2)).node("Gather", "s,two", "h").node("Constant", "", "three", "value", scalar(3)).node("Gather", "s,three", "w").
		node("Mul", "h,w", "hw").node("Unsqueeze", "hw,axis", "hw1").node("Concat", "n1,minus,hw1", "shape", "axis", 0).
		node("Cast", "shape", "f", "to", int(onnx.Float)).node("Cast", "f", "i", "to", int(onnx.Int64)).node("Reshape", "x,i", "y")
	g := b.load(t, Options{Input: [2]int{6, 10}})
	if got := outputOf(t, g, 3)[0].Shape; !slices.Equal(got, []int{3, 4, 60}) {
		t.Errorf("the output is %v, want 3×4×60\n%v", got, g)
	}
	if !g.Input.Equal(graph.Shape{4, 6, 10}) {
		t.Errorf("the input is %v, want the size that was asked for", g.Input)
	}
}

func scalar(v int64) *onnxpb.TensorProto {
	p := intTensor("", v)
	p.Dims = nil
	return p
}

func TestChannelsMayBeLast(t *testing.T) {
	last := newModel(13, 1, 16, 17, 3).weights("w", 4, 3, 3, 3).
		node("Transpose", "x", "a", "perm", []int64{0, 3, 1, 2}).node("Conv", "a,w", "z").node("Transpose", "z", "y", "perm", []int64{0, 2, 3, 1})
	first := newModel(13, 1, 3, 16, 17).weights("w", 4, 3, 3, 3).node("Conv", "x,w", "z").node("Transpose", "z", "y", "perm", []int64{0, 2, 3, 1})
	g, h := last.load(t, Options{}), first.load(t, Options{})
	if !g.Input.Equal(h.Input) || kinds(g) != kinds(h) {
		t.Errorf("it is %v, %q; want %v, %q", g.Input, kinds(g), h.Input, kinds(h))
	}
	same(t, g, h, 0)
}

func TestNodesNeedNotBeSortedNorWeightsBeInitializers(t *testing.T) {
	sorted := newModel(13, 0, 3, 6, 7).weights("w", 4, 3, 3, 3).node("Conv", "x,w", "a").node("Relu", "a", "b").node("Abs", "b", "y")
	g := sorted.load(t, Options{})
	shuffled := newModel(13, 0, 3, 6, 7).node("Abs", "b", "y").node("Relu", "a", "b").node("Conv", "x,w", "a").node("Constant", "", "w", "value", normal("w", onnx.Float, 4, 3, 3, 3))
	same(t, shuffled.load(t, Options{}), g, 0)
	half := newModel(13, 0, 3, 6, 7).node("Cast", "h", "w", "to", int(onnx.Float)).node("Conv", "x,w", "a").node("Relu", "a", "b").node("Abs", "b", "y")
	p := normal("w", onnx.Float16, 4, 3, 3, 3)
	p.Name = proto.String("h")
	half.p.Graph.Initializer = append(half.p.Graph.Initializer, p)
	same(t, half.load(t, Options{}), g, 0)
	// In a file of its own.
	dir := t.TempDir()
	raw := normal("w", onnx.Float, 4, 3, 3, 3)
	if err := os.WriteFile(filepath.Join(dir, "weights.bin"), append(make([]byte, 16), raw.RawData...), 0o666); err != nil {
		t.Fatal(err)
	}
	raw.DataLocation = onnxpb.TensorProto_EXTERNAL.Enum()
	raw.ExternalData = []*onnxpb.StringStringEntryProto{
		{Key: proto.String("location"), Value: proto.String("weights.bin")}, {Key: proto.String("offset"), Value: proto.String("16")},
		{Key: proto.String("length"), Value: proto.String(fmt.Sprint(len(raw.RawData)))},
	}
	raw.RawData = nil
	external := newModel(13, 0, 3, 6, 7).node("Conv", "x,w", "a").node("Relu", "a", "b").node("Abs", "b", "y")
	external.p.Graph.Initializer = append(external.p.Graph.Initializer, raw)
	content, err := proto.Marshal(external.p)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "m.onnx")
	if err := os.WriteFile(path, content, 0o666); err != nil {
		t.Fatal(err)
	}
	h, err := Load(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if h.Arch != "m" {
		t.Errorf("the network is called %q, want the file's name", h.Arch)
	}
	same(t, h, g, 0)
}

func TestLayersAreCalledAsInPyTorch(t *testing.T) {
	b := newModel(13, 0, 3, 8, 8).weights("layer1.0.conv1.weight", 4, 3, 3, 3).weights("onnx::Conv_7", 4, 4, 1, 1).weights("fc.weight", 5, 4).weights("fc.bias", 5).
		node("Conv", "x,layer1.0.conv1.weight", "a").node("Conv", "a,onnx::Conv_7", "b").node("Conv", "b,onnx::Conv_7", "c").node("GlobalAveragePool", "c", "d").node("Flatten", "d", "e").
		node("Gemm", "e,fc.weight,fc.bias", "f", "transB", 1).node("Softmax", "f", "y")
	b.p.Graph.Node[1].Name = proto.String("/layer2/layer2.0/downsample/downsample.0/Conv")
	b.p.Graph.Node[2].Name = proto.String("/layer2/layer2.0/downsample/downsample.0/Conv")
	g := b.load(t, Options{})
	var names []string
	for _, s := range g.Sites() {
		names = append(names, s.Name)
	}
	want := []string{"layer1.0.conv1", "layer2.0.downsample.0", "layer2.0.downsample.0_2", "fc"}
	if !slices.Equal(names, want) {
		t.Errorf("the layers are %q, want %q", names, want)
	}
	if g.Head == nil || g.Head.Name != "fc" || g.Classes() != 5 {
		t.Errorf("the head is %v of %d classes, want fc of 5", g.Head, g.Classes())
	}
}

func TestBadModelsAreOneErrorThatNamesTheNode(t *testing.T) {
	big := make([]int64, 9)
	for i := range big {
		big[i] = 1 << 40
	}
	deep := newModel(13, 1, 2, 3, 4).p.Graph
	for range 20 {
		deep = &onnxpb.GraphProto{Node: newModel(13, 1, 2).node("If", "c", "y", "then_branch", deep).p.Graph.Node, Output: deep.Output}
	}
	for name, k := range map[string]struct {
		b    *builder
		want error
		says string
	}{
		"a ring":                     {newModel(13, 1, 2, 3, 4).node("Add", "x,b", "a").node("Relu", "a", "b").node("Neg", "b", "y"), onnx.ErrCorrupt, "node_a"},
		"a node that reads itself":   {newModel(13, 1, 2, 3, 4).node("Add", "x,y", "y"), onnx.ErrCorrupt, "node_y"},
		"an input that is missing":   {newModel(13, 1, 2, 3, 4).node("Add", "x,nowhere", "y"), onnx.ErrCorrupt, "nowhere"},
		"no inputs":                  {newModel(13, 1, 2, 3, 4).node("Relu", "", "y"), onnx.ErrCorrupt, "node_y"},
		"operators that are unknown": {newModel(13, 1, 2, 3, 4).node("NonMaxSuppression", "x", "a").node("Einsum", "a", "y"), onnx.ErrUnsupported, "NonMaxSuppression"},
		"another domain": {func() *builder {
			b := newModel(13, 1, 2, 3, 4).node("Relu", "x", "y")
			b.p.Graph.Node[0].Domain = proto.String("acme")
			return b
		}(), onnx.ErrUnsupported, "node_y"},
		"a huge constant":                   {newModel(13, 1, 2, 3, 4).ints("s", big...).node("ConstantOfShape", "s", "c").node("Add", "x,c", "y"), onnx.ErrCorrupt, "node_c"},
		"a huge repetition":                 {newModel(13, 1, 2, 3, 4).ints("s", 1<<28).ints("v", 1).node("Expand", "v,s", "c").node("Cast", "c", "f", "to", 1).node("Add", "x,f", "y"), onnx.ErrUnsupported, "node_c"},
		"a huge range":                      {newModel(13, 1, 2, 3, 4).ints("a", 0).ints("b", 1<<60).ints("c", 1).node("Range", "a,b,c", "r").node("Reshape", "x,r", "y"), onnx.ErrUnsupported, "node_r"},
		"a huge output":                     {newModel(13, 1, 2, 3, 4).weights("s", 4).node("Tile", "x,t", "y").ints("t", 1, 1000, 1000, 1000), nil, "node_y"},
		"a huge input":                      {newModel(13, 1, 1<<20, 1<<20, 1<<20).node("Relu", "x", "y"), onnx.ErrUnsupported, `"x"`},
		"a reshape of the batch":            {newModel(13, 0, 2, 3, 4).ints("s", 6, -1).node("Reshape", "x,s", "y"), onnx.ErrUnsupported, "node_y"},
		"a kernel that does not fit":        {newModel(13, 0, 2, 3, 4).weights("w", 4, 3, 1, 1).node("Conv", "x,w", "y"), graph.ErrShape, "node_y"},
		"a kernel larger than a map":        {newModel(13, 0, 2, 3, 4).weights("w", 4, 2, 9, 9).node("Conv", "x,w", "y"), graph.ErrShape, "node_y"},
		"weights that are no kernel":        {newModel(13, 0, 2, 3, 4).weights("w", 4).node("Conv", "x,w", "y"), onnx.ErrUnsupported, "node_y"},
		"strides of 0":                      {newModel(13, 0, 2, 3, 4).weights("w", 4, 2, 1, 1).node("Conv", "x,w", "y", "strides", []int64{0, 0}), onnx.ErrCorrupt, "node_y"},
		"graphs in graphs":                  {&builder{&onnxpb.ModelProto{OpsetImport: newModel(13).p.OpsetImport, Graph: func() *onnxpb.GraphProto { deep.Input = newModel(13, 1, 2).p.Graph.Input; return deep }()}}, onnx.ErrUnsupported, "If"},
		"no version":                        {&builder{&onnxpb.ModelProto{Graph: newModel(13, 1, 2).node("Relu", "x", "y").p.Graph}}, onnx.ErrCorrupt, "version"},
		"an output that nothing gives":      {newModel(13, 1, 2), onnx.ErrCorrupt, `"y"`},
		"the size of the batch as a number": {newModel(13, 0, 2, 3, 4).node("Shape", "x", "s").ints("zero", 0).node("Gather", "s,zero", "n").node("Cast", "n", "f", "to", 1).node("Mul", "x,f", "y"), onnx.ErrUnsupported, "node_y"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Network(onnx.New(k.b.p), Options{})
			if err == nil {
				t.Fatal("no error")
			}
			if k.want != nil && !errors.Is(err, k.want) {
				t.Errorf("the error is %v; want one that wraps %v", err, k.want)
			}
			if !strings.Contains(err.Error(), k.says) {
				t.Errorf("the error is %v; want one that says %q", err, k.says)
			}
		})
	}
}

func TestExportedNetworksAreLoadedAsTheyWere(t *testing.T) {
	for _, arch := range []string{"resnet20", "resnet18", "squeezenet1_1", "mobilenet_v2", "shufflenet_v2_x0_5"} {
		t.Run(arch, func(t *testing.T) {
			g, err := zoo.New(arch, 10, zoo.NewOptions{Seed: 1, Input: [2]int{64, 64}})
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), arch+".onnx")
			if err := WriteFile(path, g, ExportOptions{}); err != nil {
				t.Fatal(err)
			}
			h, err := Load(path, Options{Input: [2]int{64, 64}})
			if err != nil {
				t.Fatal(err)
			}
			sites := func(g *graph.Graph) (s []string) {
				for _, site := range g.Sites() {
					s = append(s, fmt.Sprint(site.Name, site.Chain, site.H, site.W))
				}
				return s
			}
			if a, b := sites(g), sites(h); len(a) != len(b) {
				t.Errorf("%d layers, want %d", len(b), len(a))
			}
			for i, s := range g.Sites() {
				if o := h.Sites()[i]; o.Name != s.Name || o.Linear != s.Linear || o.H != s.H || o.W != s.W {
					t.Errorf("layer %d is %q on %d×%d, want %q on %d×%d", i, o.Name, o.H, o.W, s.Name, s.H, s.W)
				}
			}
			if h.Head == nil || h.Head.Name != g.Head.Name || h.Params() != g.Params() || h.MACs() != g.MACs() {
				t.Errorf("head, parameters and MACs are %v, %d, %d; want %v, %d, %d", h.Head, h.Params(), h.MACs(), g.Head, g.Params(), g.MACs())
			}
			same(t, h, g, 1e-5) // a norm's eps is a float32 in ONNX
		})
	}
}

// samples are models of all kinds of operators.
func samples() []*builder {
	return []*builder{
		newModel(13, 0, 3, 8, 8).weights("w", 4, 3, 3, 3).node("Conv", "x,w", "a", "pads", []int64{1, 1, 1, 1}).node("Relu", "a", "b").node("MaxPool", "b", "y", "kernel_shape", []int64{2, 2}, "ceil_mode", 1),
		newModel(11, 1, 3, 8, 8).ints("s", 0, -1).weights("w", 192, 4).node("Reshape", "x,s", "a").node("Gemm", "a,w", "b").node("Softmax", "b", "y"),
		newModel(10, 1, 4, 4, 4).node("Shape", "x", "s").ints("st", 2).ints("en", 4).node("Slice", "s,st,en", "h").ints("m", 2, 2).node("Mul", "h,m", "k").ints("o", 1, 4).node("Concat", "o,k", "z", "axis", 0).node("Reshape", "x,z", "y"),
		newModel(13, 1, 4, 4, 4).ints("sz", 1, 4, 8, 6).node("Resize", "x,,,sz", "a", "mode", "linear").node("Transpose", "a", "b", "perm", []int64{0, 2, 3, 1}).ints("sp", 2, 2).node("Split", "b,sp", "c,d", "axis", 3).node("Concat", "d,c", "e", "axis", -1).node("ReduceMean", "e", "y", "axes", []int64{1}),
		newModel(13, 1, 4, 4, 4).weights("w", 4, 2, 2, 2).node("ConvTranspose", "x,w", "a", "strides", []int64{2, 2}, "output_shape", []int64{8, 9}).node("LRN", "a", "b", "size", 3).weights("sl", 2, 1, 1).node("PRelu", "b,sl", "c").node("DepthToSpace", "x", "q", "blocksize", 2).node("Pad", "c,pd", "y").ints("pd", 0, 0, 1, 1, 0, 0, 1, 1),
		newModel(13, 2, 5).node("Less", "x,w", "c").weights("w", 1, 5).node("Where", "c,x,w", "d").node("Unsqueeze", "d,ax", "e").ints("ax", 1).node("Expand", "e,sh", "g").ints("sh", 1, 3, 5).node("Gather", "g,in", "y", "axis", 1).ints("in", 2, 0, 1),
		newModel(13, 1, 3, 4, 4).ints("z", 3).node("ConstantOfShape", "z", "c").node("BatchNormalization", "x,c,c,c,c", "a").node("InstanceNormalization", "a,c,c", "b").node("GlobalMaxPool", "b", "d").node("Squeeze", "d,ax", "y").ints("ax", 2, 3),
	}
}

func FuzzLoad(f *testing.F) {
	for _, b := range samples() {
		content, err := proto.Marshal(b.p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		m, err := onnx.Read(bytes.NewReader(content), int64(len(content)))
		if err != nil {
			return
		}
		tryModel(t, m)
	})
}

// Models that say anything of their operators are errors or networks that run.
func FuzzOperators(f *testing.F) {
	for i := range samples() {
		f.Add(uint8(i), []byte{1, 2, 3})
	}
	f.Fuzz(func(t *testing.T, which uint8, changes []byte) {
		all := samples()
		b := all[int(which)%len(all)]
		mangle(b.p.Graph, changes)
		tryModel(t, onnx.New(b.p))
	})
}

func TestMangledModelsAreErrorsOrRun(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	trials := 3000
	if testing.Short() {
		trials = 300
	}
	for i := range trials {
		changes := make([]byte, 4*rng.IntN(4))
		for k := range changes {
			changes[k] = byte(rng.Uint32())
		}
		all := samples()
		b := all[i%len(all)]
		mangle(b.p.Graph, changes)
		tryModel(t, onnx.New(b.p))
	}
}

// odd are numbers that attributes and shapes may have.
var odd = []int64{0, 1, 2, 3, 4, 5, 7, -1, -2, -3, 16, 1 << 20, 1 << 31, math.MaxInt64, math.MinInt64, anyBatch}

// mangle changes a graph: four bytes say what, where, and to what.
func mangle(g *onnxpb.GraphProto, changes []byte) {
	ops := slices.Concat(Operators(), []string{"Shape", "Range", "Constant", "ConstantOfShape", "If", "Size", "Mod"})
	for ; len(changes) >= 4; changes = changes[4:] {
		n := g.Node[int(changes[1])%len(g.Node)]
		value := odd[int(changes[3])%len(odd)]
		at := int(changes[2])
		switch changes[0] % 8 {
		case 0:
			n.OpType = &ops[at%len(ops)]
		case 1:
			if len(n.Attribute) > 0 {
				a := n.Attribute[at%len(n.Attribute)]
				if len(a.Ints) > 0 {
					a.Ints[at/2%len(a.Ints)] = value
				} else {
					a.I = &value
				}
			}
		case 2:
			if len(n.Input) > 0 {
				other := g.Node[int(changes[3])%len(g.Node)]
				n.Input[at%len(n.Input)] = other.Output[0]
			}
		case 3:
			if len(n.Input) > 0 {
				n.Input = n.Input[:at%len(n.Input)]
			}
		case 4:
			if len(g.Initializer) > 0 {
				p := g.Initializer[at%len(g.Initializer)]
				if len(p.Int64Data) > 0 {
					p.Int64Data[at/2%len(p.Int64Data)] = value
				} else if len(p.Dims) > 0 && value >= 0 && value < 8 {
					// Another shape with values of its own.
					dims := []int{}
					for _, d := range p.Dims {
						dims = append(dims, int(d))
					}
					dims[at/2%len(dims)] = int(value)
					g.Initializer[at%len(g.Initializer)] = normal(p.GetName(), onnx.Float, dims...)
				}
			}
		case 5:
			name := []string{"axis", "axes", "pads", "strides", "dilations", "kernel_shape", "group", "mode", "auto_pad", "perm", "to", "keepdims", "allowzero", "blocksize", "output_padding", "split"}[at%16]
			n.Attribute = append(n.Attribute, &onnxpb.AttributeProto{Name: &name, I: &value, Ints: slices.Repeat([]int64{value}, 1+int(changes[1])%4), S: []byte([]string{"SAME_UPPER", "reflect", "CRD", "cubic"}[at%4])})
		case 6:
			dims := g.Input[0].Type.GetTensorType().Shape.Dim
			if value >= 0 && value < 32 {
				dims[at%len(dims)].Value = &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: value}
			}
		case 7:
			if len(g.Initializer) > 0 {
				n.Input = append(n.Input, g.Initializer[at%len(g.Initializer)].GetName())
			}
		}
	}
}

// tryModel makes the network of a model and runs it, if it is small.
func tryModel(t *testing.T, m *onnx.Model) {
	t.Helper()
	g, err := Network(m, Options{Input: [2]int{16, 16}})
	if err != nil {
		if !errors.Is(err, onnx.ErrCorrupt) && !errors.Is(err, onnx.ErrUnsupported) && !errors.Is(err, graph.ErrShape) && !errors.Is(err, graph.ErrGraph) && !errors.Is(err, graph.ErrUnsupported) {
			t.Fatalf("an error that wraps none of the packages': %v", err)
		}
		return
	}
	shapes, err := g.Shapes(g.Input)
	if err != nil {
		t.Fatal(err)
	}
	total := int64(g.Params()) + g.MACs()
	for _, s := range shapes {
		total += int64(s.Len())
	}
	if total > 1<<20 || total < 0 {
		return
	}
	p, err := g.Compile()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Run(context.Background(), conv.NewMap(2, g.Input[1], g.Input[2], g.Input[0]), 1); err != nil {
		t.Fatal(err)
	}
}
