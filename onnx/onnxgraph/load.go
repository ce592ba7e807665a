package onnxgraph

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/onnxpb"
	"github.com/lowrank-go/lowrank/onnx"
)

// Options are what a caller knows of a model beyond its file.
type Options struct {
	// Input is the rows and columns of images, where the model leaves them open; zeros
	// mean 224×224.
	Input [2]int
}

// defaultInput is the size of images of models that leave it open.
const defaultInput = 224

// Load reads a model of one input and makes a network of it. Dimension 0 of the input and
// of what is computed from it is the batch. Batch norms stay nodes of their own where the
// model has them.
//
// Errors wrap onnx.ErrFormat, onnx.ErrCorrupt, onnx.ErrUnsupported or graph's, and name the node.
func Load(path string, opt Options) (*graph.Graph, error) {
	m, err := onnx.Open(path)
	if err != nil {
		return nil, err
	}
	g, err := Network(m, opt)
	if cerr := m.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if g.Arch == "" {
		g.Arch = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	return g, nil
}

// Network makes a network of a model; see Load.
func Network(m *onnx.Model, opt Options) (*graph.Graph, error) {
	im := &importer{
		m: m, scope: m.Scope(), opset: m.Opset(""),
		g:      &graph.Graph{Arch: m.Graph().GetName()},
		values: map[string]*value{}, uses: map[string]int{}, names: map[string]bool{},
		shapes: map[*graph.Node]graph.Shape{}, shared: map[*graph.Node]bool{}, truths: map[*graph.Node]bool{},
	}
	if im.opset < 1 {
		return nil, fmt.Errorf("%w: it names no version of ONNX's operators", onnx.ErrCorrupt)
	}
	if err := im.load(opt); err != nil {
		return nil, err
	}
	return im.g, nil
}

// importer makes a network of a model.
type importer struct {
	m     *onnx.Model
	scope *onnx.Scope
	opset int64
	g     *graph.Graph
	// values are those of the model's names that are known so far, uses how many nodes and
	// outputs read them.
	values map[string]*value
	uses   map[string]int
	names  map[string]bool // of g's nodes
	shapes map[*graph.Node]graph.Shape
	shared map[*graph.Node]bool // those that several nodes of the model read
	truths map[*graph.Node]bool // those that are true or false: 1 or 0
	// batch is the size of the batch that the model's shapes are computed with.
	batch int64
	// spent counts the values of constants that were computed, stored those of the file,
	// filled those of tensors that are one number in the file.
	spent, stored, filled int
	node                  *onnxpb.NodeProto // that is imported now
}

// anyBatch stands for the batch in shapes of models that leave it open. Arithmetic that
// keeps it whole, and no other, leaves it recognisable.
const anyBatch = 7919

// value is what a name of the model stands for: a node of the network, or a constant.
type value struct {
	node  *graph.Node
	array *array
}

// load imports the model's graph.
func (im *importer) load(opt Options) error {
	gp := im.m.Graph()
	nodes, err := im.order(gp)
	if err != nil {
		return err
	}
	if err := im.supported(nodes); err != nil {
		return err
	}
	im.described(&opt)
	if err := im.input(gp, nodes, opt); err != nil {
		return err
	}
	for _, n := range nodes {
		if err := im.run(n); err != nil {
			return fmt.Errorf("node %s: %w", titled(n), err)
		}
	}
	for _, out := range gp.Output {
		v, err := im.get(out.GetName())
		if err == nil {
			err = im.materialise(v, out.GetName())
		}
		if err != nil {
			return fmt.Errorf("output %q: %w", out.GetName(), err)
		}
		im.g.Outputs = append(im.g.Outputs, v.node)
	}
	im.prune()
	im.g.Head = im.head()
	return im.g.Validate()
}

// described takes what a model that Export made says of itself: how images become inputs,
// and, where the caller does not say it, how large they are.
func (im *importer) described(opt *Options) {
	for _, p := range im.m.Proto().GetMetadataProps() {
		switch p.GetKey() {
		case keyPreprocess:
			var pre dataset.Preprocess
			if json.Unmarshal([]byte(p.GetValue()), &pre) == nil {
				im.g.Preprocess = pre
			}
		case keyInput:
			var s graph.Shape
			if json.Unmarshal([]byte(p.GetValue()), &s) == nil && len(s) == 3 && opt.Input == [2]int{} {
				opt.Input = [2]int{s[1], s[2]}
			}
		}
	}
}

// standard tells whether a domain is ONNX's own.
func standard(domain string) bool { return domain == "" || domain == "ai.onnx" }

// titled is a node in errors.
func titled(n *onnxpb.NodeProto) string {
	if n.GetName() != "" {
		return fmt.Sprintf("%q (%s)", n.GetName(), n.GetOpType())
	}
	if len(n.Output) > 0 {
		return fmt.Sprintf("of output %q (%s)", n.Output[0], n.GetOpType())
	}
	return n.GetOpType()
}

// order lists the nodes that the outputs depend on, each behind those it reads.
func (im *importer) order(gp *onnxpb.GraphProto) ([]*onnxpb.NodeProto, error) {
	if len(gp.Output) == 0 {
		return nil, fmt.Errorf("%w: it has no output", onnx.ErrCorrupt)
	}
	at := make(map[*onnxpb.NodeProto]int, len(gp.Node))
	for i, n := range gp.Node {
		at[n] = i
	}
	wanted := map[*onnxpb.NodeProto]bool{}
	var todo []string
	for _, o := range gp.Output {
		todo = append(todo, o.GetName())
		im.uses[o.GetName()]++
	}
	for len(todo) > 0 {
		n := im.scope.Producer(todo[len(todo)-1])
		todo = todo[:len(todo)-1]
		if n == nil || wanted[n] {
			continue
		}
		wanted[n] = true
		for _, in := range n.Input {
			if in != "" {
				todo = append(todo, in)
				im.uses[in]++
			}
		}
	}
	// Of the nodes that are ready the first goes next.
	left := map[*onnxpb.NodeProto]int{}
	readers := map[*onnxpb.NodeProto][]*onnxpb.NodeProto{}
	var ready indexHeap
	for _, n := range gp.Node {
		if !wanted[n] {
			continue
		}
		for _, in := range n.Input {
			if p := im.scope.Producer(in); p != nil {
				left[n]++
				readers[p] = append(readers[p], n)
			}
		}
		if left[n] == 0 {
			ready.push(at[n])
		}
	}
	var order []*onnxpb.NodeProto
	for len(ready) > 0 {
		n := gp.Node[ready.pop()]
		order = append(order, n)
		for _, r := range readers[n] {
			if left[r]--; left[r] == 0 {
				ready.push(at[r])
			}
		}
	}
	if len(order) < len(wanted) {
		for _, n := range gp.Node {
			if wanted[n] && left[n] > 0 {
				return nil, fmt.Errorf("node %s: %w: it is, or depends on, a node that depends on itself", titled(n), onnx.ErrCorrupt)
			}
		}
	}
	return order, nil
}

// indexHeap is a heap of numbers, the least first.
type indexHeap []int

func (h *indexHeap) push(v int) {
	*h = append(*h, v)
	for i := len(*h) - 1; i > 0 && (*h)[i] < (*h)[(i-1)/2]; i = (i - 1) / 2 {
		(*h)[i], (*h)[(i-1)/2] = (*h)[(i-1)/2], (*h)[i]
	}
}

func (h *indexHeap) pop() int {
	v, last := (*h)[0], len(*h)-1
	(*h)[0] = (*h)[last]
	*h = (*h)[:last]
	for i := 0; ; {
		c := 2*i + 1
		if c >= last {
			return v
		}
		if c+1 < last && (*h)[c+1] < (*h)[c] {
			c++
		}
		if (*h)[i] <= (*h)[c] {
			return v
		}
		(*h)[i], (*h)[c] = (*h)[c], (*h)[i]
		i = c
	}
}

var errOperator = fmt.Errorf("%w: there is no operation for node", onnx.ErrUnsupported)

// supported reports all nodes that are of no known operator at once.
func (im *importer) supported(nodes []*onnxpb.NodeProto) error {
	var missing []string
	seen := map[string]bool{}
	for _, n := range nodes {
		op := n.GetOpType()
		if standard(n.GetDomain()) && (operators[op] != nil || folds[op] != nil || op == "Constant") {
			continue
		}
		if !standard(n.GetDomain()) {
			op = n.GetDomain() + "." + op
		}
		if !seen[op] {
			seen[op] = true
			missing = append(missing, titled(n))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	const most = 5
	more := ""
	if len(missing) > most {
		more = fmt.Sprintf(" and %d kinds more", len(missing)-most)
		missing = missing[:most]
	}
	return fmt.Errorf("%w: %s%s", errOperator, strings.Join(missing, ", "), more)
}

// input makes the network's input.
func (im *importer) input(gp *onnxpb.GraphProto, nodes []*onnxpb.NodeProto, opt Options) error {
	var in []*onnxpb.ValueInfoProto
	for _, i := range gp.Input {
		if im.scope.Initializer(i.GetName()) == nil && (im.uses[i.GetName()] > 0 || len(gp.Input) == 1) {
			in = append(in, i)
		}
	}
	if len(in) != 1 {
		return fmt.Errorf("%w: a model with %d inputs", onnx.ErrUnsupported, len(in))
	}
	name := in[0].GetName()
	fail := func(format string, args ...any) error {
		return fmt.Errorf("input %q: %w: %s", name, onnx.ErrUnsupported, fmt.Sprintf(format, args...))
	}
	t := in[0].GetType().GetTensorType()
	if e := onnx.Type(t.GetElemType()); !e.IsFloat() {
		return fail("its elements are %v", e)
	}
	if t.GetShape() == nil {
		return fail("it has no shape")
	}
	dims := t.GetShape().GetDim()
	if len(dims) < 1 {
		return fail("it is a number")
	}
	full := make([]int64, len(dims))
	for i, d := range dims {
		if v := d.GetDimValue(); v < 0 || v > mostValues {
			return fail("dimension %d is %d", i, v)
		} else {
			full[i] = v
		}
	}
	if im.batch = full[0]; im.batch == 0 {
		im.batch = anyBatch
	}
	size := opt.Input
	for a := range size {
		if size[a] < 0 || size[a] > 1<<16 {
			return fail("an image of %v", opt.Input)
		}
		if size[a] == 0 {
			size[a] = defaultInput
		}
	}
	// Models of TensorFlow have the channels last.
	const few, many = 4, 16
	last := len(full) == 4 && full[3] >= 1 && full[3] <= few && (full[1] == 0 || full[1] >= many) && (full[2] == 0 || full[2] >= many)
	channel := 1
	if last {
		channel = 3
	}
	spatial := 0
	for i := range full[1:] {
		if i++; i == channel && full[i] == 0 {
			return fail("how many channels it has is left open")
		}
		if i == channel {
			continue
		}
		if full[i] == 0 {
			full[i] = int64(size[min(spatial, 1)])
			if len(full) == 3 {
				full[i] = int64(size[1])
			}
		}
		spatial++
	}
	shape := make(graph.Shape, len(full)-1)
	n := 1
	for i, d := range full[1:] {
		if shape[i] = int(d); d > int64(mostValues/n) {
			return fail("a shape of %v", full)
		}
		n *= int(d)
	}
	image := shape
	switch {
	case last:
		image = graph.Shape{shape[2], shape[0], shape[1]}
	case len(shape) == 2:
		image = graph.Shape{shape[0], 1, shape[1]}
	case len(shape) != 3:
		image = graph.Shape{n, 1, 1}
	}
	im.g.Input = image
	node, err := im.add(im.unique(name), &graph.Input{Size: image})
	if err != nil {
		return err
	}
	switch {
	case last:
		node, err = im.add(im.unique(name+".nhwc"), &graph.Transpose{Order: []int{1, 2, 0}}, node)
	case len(shape) == 1:
		node, err = im.add(im.unique(name+".vector"), &graph.Flatten{}, node)
	case len(shape) != 3:
		node, err = im.add(im.unique(name+".shape"), &graph.Reshape{Size: shape}, node)
	}
	im.values[name], im.shared[node] = &value{node: node}, true
	return err
}

// get is what a name stands for.
func (im *importer) get(name string) (*value, error) {
	if v := im.values[name]; v != nil {
		return v, nil
	}
	if !im.scope.Defined(name) {
		return nil, fmt.Errorf("%w: nothing gives %q", onnx.ErrCorrupt, name)
	}
	t, err := im.scope.Constant(name)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, fmt.Errorf("%w: the value %q", onnx.ErrUnsupported, name)
	}
	a, err := im.read(t)
	if err != nil {
		return nil, err
	}
	v := &value{array: a}
	im.values[name] = v
	return v, nil
}

// run imports a node.
func (im *importer) run(n *onnxpb.NodeProto) error {
	im.node = n
	op := n.GetOpType()
	switch op {
	case "Constant", "ConstantOfShape":
		// Read where they are used, if the shape is one that can be found there.
		if t, err := im.scope.Constant(n.Output[0]); err != nil || t != nil {
			return err
		}
		if op == "Constant" {
			return fmt.Errorf("%w: a constant of this kind", onnx.ErrUnsupported)
		}
	}
	if a := onnx.Attribute(n, "axis"); a != nil && im.opset < 7 && pairs[op].ints != nil {
		return fmt.Errorf("%w: operands that are aligned as before version 7 of the operators", onnx.ErrUnsupported)
	}
	c := &nodeContext{importer: im, n: n, in: make([]*value, len(n.Input))}
	constant := len(n.Input) > 0
	for i, name := range n.Input {
		if name == "" {
			continue
		}
		v, err := im.get(name)
		if err != nil {
			return err
		}
		c.in[i] = v
		constant = constant && v.array != nil
	}
	if op == "Shape" || op == "Size" {
		constant = true
	}
	var out []*value
	var err error
	switch f, h := folds[op], operators[op]; {
	case constant && f != nil:
		var arrays []*array
		if arrays, err = f(c); err == nil {
			for _, a := range arrays {
				if err = im.spend(a); err != nil {
					return err
				}
				out = append(out, &value{array: a})
			}
		}
	case h != nil:
		out, err = h(c)
	default:
		err = fmt.Errorf("%w: its inputs are no constants", onnx.ErrUnsupported)
	}
	if err != nil {
		return err
	}
	for i, name := range n.Output {
		if name == "" {
			continue
		}
		if i >= len(out) {
			if im.uses[name] > 0 {
				return fmt.Errorf("%w: output %d, %q", onnx.ErrUnsupported, i, name)
			}
			continue
		}
		if im.values[name] != nil {
			return fmt.Errorf("%w: %q is the output of two nodes, or an input", onnx.ErrCorrupt, name)
		}
		if im.values[name] = out[i]; im.uses[name] != 1 {
			im.shared[out[i].node] = true
		}
	}
	return nil
}

// add adds a node to the network.
func (im *importer) add(name string, op graph.Op, in ...*graph.Node) (*graph.Node, error) {
	var s graph.Shape
	if i, ok := op.(*graph.Input); ok {
		s = i.Size
	} else {
		shapes := make([]graph.Shape, len(in))
		for i, n := range in {
			shapes[i] = im.shapes[n]
		}
		var err error
		if s, err = op.Shape(shapes); err != nil {
			return nil, err
		}
	}
	n := 1
	for _, d := range s {
		if d < 1 || n > mostValues/d {
			return nil, fmt.Errorf("%w: an output of %v", onnx.ErrUnsupported, s)
		}
		n *= d
	}
	node := im.g.Add(name, op, in...)
	im.shapes[node] = s
	return node, nil
}

// unique is a name for a node that no other has.
func (im *importer) unique(name string) string {
	// What adapters' layers are called by means something else.
	name = strings.ReplaceAll(name, ".adapter.", ".adapter_")
	if name == "" {
		name = "node"
	}
	for i, base := 2, name; im.names[name]; i++ {
		name = fmt.Sprintf("%s_%d", base, i)
	}
	im.names[name] = true
	return name
}

// materialise makes a constant a node of the network. That of a batch has it in dimension
// 0, which must be 1.
func (im *importer) materialise(v *value, name string) error {
	if v.node != nil {
		return nil
	}
	dims := v.array.dims
	if len(dims) == 0 || dims[0] != 1 {
		return fmt.Errorf("%w: a constant of shape %v in place of what depends on the input", onnx.ErrUnsupported, dims)
	}
	n, err := im.constant(name, v.array, dims[1:])
	v.node = n
	return err
}

// constant is a node for the values of a constant, as elements of shape dims.
func (im *importer) constant(name string, a *array, dims []int) (*graph.Node, error) {
	if a.batch {
		return nil, fmt.Errorf("%w: a value that depends on the size of the batch", onnx.ErrUnsupported)
	}
	values, err := a.numbers()
	if err != nil {
		return nil, err
	}
	return im.add(im.unique(name), &graph.Const{Size: slices.Clone(dims), Values: values})
}

// prune leaves out the nodes that no output depends on.
func (im *importer) prune() {
	wanted := map[*graph.Node]bool{}
	for _, n := range im.g.Outputs {
		wanted[n] = true
	}
	for i := len(im.g.Nodes) - 1; i >= 0; i-- {
		n := im.g.Nodes[i]
		if _, ok := n.Op.(*graph.Input); ok {
			wanted[n] = true
		}
		if wanted[n] {
			for _, in := range n.In {
				wanted[in] = true
			}
		}
	}
	im.g.Nodes = slices.DeleteFunc(im.g.Nodes, func(n *graph.Node) bool { return !wanted[n] })
}

// head is the layer that the first output, a vector of classes, comes from.
func (im *importer) head() *graph.Node {
	out := im.g.Outputs[0]
	classes := im.shapes[out]
	if len(classes) != 1 {
		return nil
	}
	for n := out; ; n = n.In[0] {
		switch op := n.Op.(type) {
		case *graph.Conv:
			if op.Chain.Out() == classes[0] {
				return n
			}
			return nil
		case *graph.Softmax, *graph.Flatten, *graph.Reshape, *graph.Identity, *graph.Dropout, *graph.Activation, *graph.Pool, *graph.Reduce, *graph.BatchNorm:
		default:
			return nil
		}
	}
}

// Operators lists the operators that networks may be made of, sorted; those that are for
// constants alone are not among them.
func Operators() []string { return slices.Sorted(maps.Keys(operators)) }
