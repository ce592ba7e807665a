package onnxgraph

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/onnx"
)

var errBatch = fmt.Errorf("%w: it mixes the batch, dimension 0, with others", onnx.ErrUnsupported)

// elementAxis is an attribute that names a dimension, without the batch.
func (c *nodeContext) elementAxis(name string, otherwise int64, s graph.Shape) (int, error) {
	d, err := axis(c.int(name, otherwise), len(s)+1)
	if err != nil {
		return 0, err
	}
	if d == 0 {
		return 0, errBatch
	}
	return d - 1, nil
}

// aligned is the dimensions of a constant as ONNX broadcasts it to elements of rank
// dimensions.
func (c *nodeContext) aligned(a *array, rank int) ([]int, error) {
	d := a.dims
	if len(d) > rank {
		if len(d) > rank+1 || d[0] != 1 {
			return nil, errBatch
		}
		d = d[1:]
	}
	out := make([]int, rank)
	for i := range out {
		out[i] = 1
		if k := i - rank + len(d); k >= 0 {
			out[i] = d[k]
		}
	}
	return out, nil
}

// transposed is a node with its dimensions in another order; two of which the second
// undoes the first are none.
func (c *nodeContext) transposed(x *graph.Node, order []int) (*graph.Node, error) {
	if t, ok := x.Op.(*graph.Transpose); ok {
		both := make([]int, len(order))
		for i, d := range order {
			both[i] = t.Order[d]
		}
		x, order = x.In[0], both
	}
	if slices.IsSorted(order) {
		return x, nil
	}
	return c.aside(&graph.Transpose{Order: order}, x)
}

func opTranspose(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	perm, err := c.perm(len(s) + 1)
	if err != nil {
		return nil, err
	}
	if perm[0] != 0 {
		return nil, errBatch
	}
	order := make([]int, len(s))
	for i, d := range perm[1:] {
		order[i] = d - 1
	}
	x, err = c.transposed(x, order)
	return []*value{{node: x}}, err
}

func opReshape(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	t, err := c.ints(1, "shape")
	if err != nil {
		return nil, err
	}
	if len(t) == 0 {
		return nil, errBatch
	}
	known := true
	rest := int64(1)
	for i, d := range t[1:] {
		if d == 0 && i < len(s) && c.int("allowzero", 0) == 0 {
			d = int64(s[i])
		}
		if d < 1 {
			known = known && d != -1
			d = 1
		}
		if rest > mostValues/d {
			return nil, fmt.Errorf("%w: %v into %v", onnx.ErrCorrupt, s, t)
		}
		rest *= d
	}
	switch {
	case t[0] == 0 && c.int("allowzero", 0) == 0, t[0] == c.batch:
	case t[0] == -1 && known && rest == int64(s.Len()):
	default:
		return nil, errBatch
	}
	size := make([]int, len(t)-1)
	for i, d := range t[1:] {
		if d < -1 || d > mostValues || isBatch(d) && c.batch == anyBatch {
			return nil, fmt.Errorf("%w: %v into %v", onnx.ErrUnsupported, s, t)
		}
		size[i] = int(d)
	}
	return c.reshape(x, size)
}

// reshape gives a node's elements other dimensions: -1 and 0 as graph.Reshape has them.
// Some ways to move values by a reshape, a transpose and a reshape are operations of their
// own.
func (c *nodeContext) reshape(x *graph.Node, size []int) ([]*value, error) {
	if len(size) == 1 {
		if len(c.shapes[x]) == 1 && (size[0] < 1 || size[0] == c.shapes[x][0]) {
			return []*value{{node: x}}, nil
		}
		n, err := c.add(c.name(), &graph.Flatten{}, x)
		if err == nil && size[0] > 0 && size[0] != c.shapes[n][0] {
			err = fmt.Errorf("%w: %v into %v", onnx.ErrCorrupt, c.shapes[x], size)
		}
		return []*value{{node: n}}, err
	}
	n, err := c.add(c.name(), &graph.Reshape{Size: size}, x)
	if err != nil {
		return nil, err
	}
	if op, from := c.moves(n); op != nil {
		delete(c.names, n.Name)
		c.g.Nodes = c.g.Nodes[:len(c.g.Nodes)-1]
		return c.put(c.unique(n.Name), op, from)
	}
	return []*value{{node: n}}, nil
}

// moves is the operation that a reshape, a transpose and a reshape, the last of which n
// is, are together, and what it is of; nil for none.
func (c *nodeContext) moves(n *graph.Node) (graph.Op, *graph.Node) {
	t, ok := n.In[0].Op.(*graph.Transpose)
	if !ok {
		return nil, nil
	}
	first := n.In[0].In[0]
	if _, ok := first.Op.(*graph.Reshape); !ok {
		return nil, nil
	}
	from := first.In[0]
	in, mid, out := c.shapes[from], c.shapes[first], c.shapes[n]
	if len(in) != 3 || len(out) != 3 {
		return nil, nil
	}
	switch {
	case slices.Equal(t.Order, []int{1, 0, 2, 3}) && in.Equal(out) && mid[0]*mid[1] == in[0] && mid[2] == in[1],
		slices.Equal(t.Order, []int{1, 0, 2}) && in.Equal(out) && mid[0]*mid[1] == in[0]:
		return &graph.Shuffle{Groups: mid[0]}, from
	case slices.Equal(t.Order, []int{0, 3, 1, 4, 2}) && mid[1] == mid[2] && mid[3] == in[1] && mid[4] == in[2] &&
		out.Equal(graph.Shape{mid[0], in[1] * mid[1], in[2] * mid[1]}):
		return &graph.DepthToSpace{Block: mid[1], Channels: true}, from
	}
	return nil, nil
}

func opFlatten(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	d := c.int("axis", 1)
	if d < 0 {
		d += int64(len(s)) + 1
	}
	// Further on it is one vector too where all before is 1.
	for _, n := range s[:min(max(d-1, 0), int64(len(s)))] {
		if n != 1 {
			return nil, errBatch
		}
	}
	if d < 1 || d > int64(len(s))+1 {
		return nil, errBatch
	}
	return c.reshape(x, []int{-1})
}

// resized gives a node's elements literal dimensions; those that it begins with stay
// whatever the input's are.
func (c *nodeContext) resized(x *graph.Node, dims []int) ([]*value, error) {
	size := slices.Clone(dims)
	for i, d := range c.shapes[x] {
		if i >= len(size) || size[i] != d {
			break
		}
		size[i] = 0
	}
	if len(dims) == 0 {
		return c.put(c.name(), &graph.Reshape{Size: []int{}}, x)
	}
	return c.reshape(x, size)
}

func opSqueeze(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	dims, left, err := c.squeezed(append([]int{2}, s...)) // the batch stays where nothing is said
	if err != nil || slices.Contains(left, 0) {
		return nil, errors.Join(errBatch, err)
	}
	return c.resized(x, dims[1:])
}

func opUnsqueeze(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	const batch = -1
	dims, err := c.unsqueezed(append([]int{batch}, s...))
	if err != nil {
		return nil, err
	}
	if dims[0] != batch {
		return nil, errBatch
	}
	return c.resized(x, dims[1:])
}

func opExpand(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	t, err := c.ints(1, "")
	if err != nil {
		return nil, err
	}
	full := append([]int64{c.batch}, make([]int64, len(s))...)
	for i, d := range s {
		full[i+1] = int64(d)
	}
	if len(t) > len(full) {
		return nil, errBatch
	}
	size := make([]int, len(s))
	for i, d := range t {
		k := len(full) - len(t) + i
		switch {
		case k == 0 && d != 1 && d != c.batch:
			return nil, errBatch
		case k == 0:
		case d < 1 || d > mostValues:
			return nil, fmt.Errorf("%w: expanded to %v", onnx.ErrCorrupt, t)
		default:
			size[k-1] = int(d)
		}
	}
	return c.put(c.name(), &graph.Expand{Size: size}, x)
}

func opTile(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	t, err := c.ints(1, "")
	if err != nil {
		return nil, err
	}
	if len(t) != len(s)+1 || t[0] != 1 {
		return nil, errBatch
	}
	for a, k := range t[1:] {
		if k < 1 || k > 1<<10 {
			return nil, fmt.Errorf("%w: repeated %v", onnx.ErrUnsupported, t)
		}
		if k == 1 {
			continue
		}
		if x, err = c.aside(&graph.Concat{Axis: a}, slices.Repeat([]*graph.Node{x}, int(k))...); err != nil {
			return nil, err
		}
	}
	return []*value{{node: x}}, nil
}

func opConcat(c *nodeContext) ([]*value, error) {
	var in []*graph.Node
	var s graph.Shape
	for i := range c.in {
		x, own, err := c.input(i)
		if err != nil {
			return nil, err
		}
		in, s = append(in, x), own
	}
	d, err := c.elementAxis("axis", 1, s)
	if err != nil {
		return nil, err
	}
	if len(in) == 1 {
		return []*value{{node: in[0]}}, nil
	}
	return c.put(c.name(), &graph.Concat{Axis: d}, in...)
}

func opSlice(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	cuts, err := c.cuts(len(s) + 1)
	if err != nil {
		return nil, err
	}
	op := &graph.Slice{}
	for _, k := range cuts {
		if k.Axis == 0 {
			if first, step, n := k.Places(int(c.batch)); first != 0 || step != 1 || n != int(c.batch) {
				return nil, errBatch
			}
			continue
		}
		k.Axis--
		if first, step, n := k.Places(s[k.Axis]); first == 0 && step == 1 && n == s[k.Axis] && k.End >= s[k.Axis] {
			continue
		}
		op.Cuts = append(op.Cuts, k)
	}
	if len(op.Cuts) == 0 {
		return []*value{{node: x}}, nil
	}
	return c.put(c.name(), op, x)
}

func opSplit(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	d, sizes, err := c.split(append([]int{int(c.batch)}, s...))
	if err != nil {
		return nil, err
	}
	if d == 0 {
		return nil, errBatch
	}
	var out []*value
	first := 0
	for i, n := range sizes {
		name := c.unique(c.n.Output[i])
		v, err := c.put(name, &graph.Slice{Cuts: []graph.Cut{{Axis: d - 1, Start: first, End: first + n}}}, x)
		if err != nil {
			return nil, err
		}
		out = append(out, v...)
		first += n
	}
	return out, nil
}

func opGather(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	at, err := c.array(1)
	if err != nil {
		return nil, err
	}
	places, err := at.integers()
	if err != nil {
		return nil, err
	}
	d, err := c.elementAxis("axis", 0, s)
	if err != nil {
		return nil, err
	}
	if len(places) == 0 {
		return nil, fmt.Errorf("%w: places of shape %v", onnx.ErrUnsupported, at.dims)
	}
	n := int64(s[d])
	own := slices.Clone(places)
	for i, p := range own {
		if p < -n || p >= n {
			return nil, fmt.Errorf("%w: place %d of %d", onnx.ErrCorrupt, p, n)
		}
		if p < 0 {
			own[i] += n
		}
	}
	// Runs of places with one step are a slice each.
	var parts []*graph.Node
	for len(own) > 0 {
		k, step := 1, int64(1)
		if len(own) > 1 && own[1] != own[0] {
			step = own[1] - own[0]
			for k = 2; k < len(own) && own[k]-own[k-1] == step; k++ {
			}
		}
		end := own[k-1] + 1
		if step < 0 {
			if end = own[k-1] - 1; end < 0 {
				end = -n - 1
			}
		}
		if len(parts) >= 1<<10 {
			return nil, fmt.Errorf("%w: %d places in no order", onnx.ErrUnsupported, len(places))
		}
		part, err := c.aside(&graph.Slice{Cuts: []graph.Cut{{Axis: d, Start: int(own[0]), End: int(end), Step: int(step)}}}, x)
		if err != nil {
			return nil, err
		}
		parts, own = append(parts, part), own[k:]
	}
	x = parts[0]
	if len(parts) > 1 {
		if x, err = c.aside(&graph.Concat{Axis: d}, parts...); err != nil {
			return nil, err
		}
	}
	if len(at.dims) == 1 {
		return []*value{{node: x}}, nil
	}
	return c.resized(x, slices.Concat(s[:d], at.dims, s[d+1:]))
}

func opDepthToSpace(c *nodeContext) ([]*value, error) {
	b := c.int("blocksize", 0)
	if b < 1 || b > 1<<10 {
		return nil, fmt.Errorf("%w: squares of %d", onnx.ErrCorrupt, b)
	}
	return c.unary(&graph.DepthToSpace{Block: int(b), Channels: c.text("mode", "DCR") == "CRD"})
}

func opSpaceToDepth(c *nodeContext) ([]*value, error) {
	b := c.int("blocksize", 0)
	if b < 1 || b > 1<<10 {
		return nil, fmt.Errorf("%w: squares of %d", onnx.ErrCorrupt, b)
	}
	return c.unary(&graph.SpaceToDepth{Block: int(b)})
}

func opPad(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	rank := len(s) + 1
	pads, err := c.ints(1, "pads")
	if err != nil {
		return nil, err
	}
	constant := c.float("value", 0)
	if c.has(2) {
		v, err := c.floats(2)
		if err != nil {
			return nil, err
		}
		if len(v) != 1 {
			return nil, fmt.Errorf("%w: %d constants", onnx.ErrCorrupt, len(v))
		}
		constant = float64(v[0])
	}
	axes := make([]int, 0, rank)
	if c.has(3) {
		given, err := c.ints(3, "")
		if err != nil {
			return nil, err
		}
		for _, a := range given {
			d, err := axis(a, rank)
			if err != nil {
				return nil, err
			}
			axes = append(axes, d)
		}
	} else {
		for d := range rank {
			axes = append(axes, d)
		}
	}
	if len(pads) != 2*len(axes) {
		return nil, fmt.Errorf("%w: pads %v for %d dimensions", onnx.ErrCorrupt, pads, len(axes))
	}
	op := &graph.Pad{Mode: c.text("mode", "constant"), Begin: make([]int, rank), End: make([]int, rank), Value: constant}
	for i, d := range axes {
		for k, dst := range [2][]int{op.Begin, op.End} {
			p := pads[i+k*len(axes)]
			if p < -mostValues || p > mostValues {
				return nil, fmt.Errorf("%w: pads %v", onnx.ErrCorrupt, pads)
			}
			dst[d] = int(p)
		}
	}
	if op.Begin[0] != 0 || op.End[0] != 0 {
		return nil, errBatch
	}
	op.Begin, op.End = op.Begin[1:], op.End[1:]
	switch op.Mode {
	case "constant":
	case "reflect":
		for i, n := range s {
			if op.Begin[i] >= n || op.End[i] >= n {
				return nil, fmt.Errorf("%w: %v reflected by %v and %v", onnx.ErrUnsupported, s, op.Begin, op.End)
			}
		}
		fallthrough
	case "edge", "wrap":
		op.Value = 0
	default:
		return nil, fmt.Errorf("%w: padding by %q", onnx.ErrUnsupported, op.Mode)
	}
	if slices.Max(op.Begin) == 0 && slices.Max(op.End) == 0 && slices.Min(op.Begin) == 0 && slices.Min(op.End) == 0 {
		return []*value{{node: x}}, nil
	}
	return c.put(c.name(), op, x)
}

func opResize(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	if len(s) != 2 && len(s) != 3 {
		return nil, fmt.Errorf("%w: %v resized", onnx.ErrUnsupported, s)
	}
	op := &graph.Resize{}
	switch mode := c.text("mode", "nearest"); mode {
	case "nearest", "cubic":
		op.Mode = mode
	case "linear", "bilinear":
	default:
		return nil, fmt.Errorf("%w: resizing by %q", onnx.ErrUnsupported, mode)
	}
	scalesAt, sizesAt := 1, 3
	if c.n.GetOpType() == "Upsample" || c.opset < 11 {
		op.Coordinates, op.Rounding = "asymmetric", "floor"
		sizesAt = math.MaxInt
	} else {
		scalesAt = 2
		op.Coordinates = c.text("coordinate_transformation_mode", "half_pixel")
		op.Rounding = c.text("nearest_mode", "round_prefer_floor")
		op.CubicA = c.float("cubic_coeff_a", -.75)
		op.ExcludeOutside = c.int("exclude_outside", 0) != 0
		if c.int("antialias", 0) != 0 || c.text("keep_aspect_ratio_policy", "stretch") != "stretch" {
			return nil, fmt.Errorf("%w: resizing with antialias, or to keep an aspect ratio", onnx.ErrUnsupported)
		}
	}
	if op.Mode != "nearest" {
		op.Rounding = ""
	}
	if op.Mode != "cubic" {
		op.CubicA, op.ExcludeOutside = 0, false
	}
	if op.Coordinates == "half_pixel" {
		op.Coordinates = ""
	}
	rank := len(s) + 1
	axes := make([]int, 0, rank)
	for _, a := range onnx.Attribute(c.n, "axes").GetInts() {
		d, err := axis(a, rank)
		if err != nil {
			return nil, err
		}
		axes = append(axes, d)
	}
	if len(axes) == 0 {
		for d := range rank {
			axes = append(axes, d)
		}
	}
	// Of the batch and the channels nothing changes.
	var scales []float32
	if c.has(scalesAt) {
		if scales, err = c.floats(scalesAt); err != nil {
			return nil, err
		}
	}
	if c.n.GetOpType() == "Upsample" && scales == nil {
		scales = onnx.Attribute(c.n, "scales").GetFloats()
	}
	full := make([]float64, rank)
	for d := range full {
		full[d] = 1
	}
	if len(scales) > 0 {
		if len(scales) != len(axes) {
			return nil, fmt.Errorf("%w: scales %v", onnx.ErrCorrupt, scales)
		}
		for i, d := range axes {
			if full[d] = float64(scales[i]); !(full[d] > 0) {
				return nil, fmt.Errorf("%w: scales %v", onnx.ErrCorrupt, scales)
			}
		}
		op.Scale = [2]float64{1, full[rank-1]}
		if len(s) == 3 {
			op.Scale[0] = full[2]
		}
		if full[0] != 1 || full[1] != 1 {
			return nil, fmt.Errorf("%w: scales %v of batch or channels", onnx.ErrUnsupported, scales)
		}
		return c.put(c.name(), op, x)
	}
	if !c.has(sizesAt) {
		return nil, fmt.Errorf("%w: neither scales nor sizes", onnx.ErrCorrupt)
	}
	sizes, err := c.ints(sizesAt, "")
	if err != nil {
		return nil, err
	}
	if len(sizes) != len(axes) {
		return nil, fmt.Errorf("%w: sizes %v", onnx.ErrCorrupt, sizes)
	}
	to := append([]int64{c.batch}, make([]int64, len(s))...)
	for i, d := range s {
		to[i+1] = int64(d)
	}
	for i, d := range axes {
		to[d] = sizes[i]
	}
	if to[0] != c.batch || to[1] != int64(s[0]) {
		return nil, fmt.Errorf("%w: sizes %v of batch or channels", onnx.ErrUnsupported, sizes)
	}
	for _, n := range to[2:] {
		if n < 1 || n > mostValues {
			return nil, fmt.Errorf("%w: sizes %v", onnx.ErrCorrupt, sizes)
		}
	}
	op.Size = [2]int{1, int(to[rank-1])}
	if len(s) == 3 {
		op.Size[0] = int(to[2])
	}
	return c.put(c.name(), op, x)
}

var reductions = map[string]graph.ReduceOp{
	"ReduceMean": graph.Mean, "ReduceSum": graph.Sum, "ReduceMax": graph.Largest, "ReduceMin": graph.Least,
	"ReduceL1": graph.L1, "ReduceL2": graph.L2, "ReduceSumSquare": graph.SumSquare,
}

func opReduce(c *nodeContext) ([]*value, error) {
	x, s, err := c.input(0)
	if err != nil {
		return nil, err
	}
	axes, err := c.axes(len(s) + 1)
	if err != nil {
		return nil, err
	}
	if slices.Contains(axes, 0) {
		return nil, errBatch
	}
	if len(axes) == 0 {
		return []*value{{node: x}}, nil
	}
	slices.Sort(axes)
	keep := c.int("keepdims", 1) != 0
	for i := range axes {
		axes[i]--
	}
	var op graph.Op = &graph.Reduce{Op: reductions[c.n.GetOpType()], Axes: axes}
	if r := op.(*graph.Reduce); len(s) == 3 && slices.Equal(axes, []int{1, 2}) {
		switch r.Op {
		case graph.Mean:
			op = graph.GlobalAverage()
		case graph.Largest:
			op = &graph.Pool{Adaptive: [2]int{1, 1}}
		}
	}
	if keep {
		return c.put(c.name(), op, x)
	}
	if x, err = c.aside(op, x); err != nil {
		return nil, err
	}
	dims := []int{}
	for i, d := range s {
		if !slices.Contains(axes, i) {
			dims = append(dims, d)
		}
	}
	return c.resized(x, dims)
}

var binaryOps = map[string]graph.BinaryOp{
	"Add": graph.Add, "Sub": graph.Sub, "Mul": graph.Mul, "Div": graph.Div, "Max": graph.Max, "Min": graph.Min, "Pow": graph.Pow,
}

func opBinary(c *nodeContext) ([]*value, error) {
	op, ok := binaryOps[c.n.GetOpType()]
	if !ok {
		op = graph.Add // Sum
	}
	v, err := c.value(0)
	if err != nil {
		return nil, err
	}
	for i := 1; i < len(c.in); i++ {
		w, err := c.value(i)
		if err != nil {
			return nil, err
		}
		if v.array != nil && w.array != nil {
			a, err := combine(pairs[binaries[op]], v.array, w.array)
			if err != nil {
				return nil, err
			}
			v = &value{array: a}
			continue
		}
		name := ""
		if i == len(c.in)-1 {
			name = c.name()
		} else {
			name = c.unique(fmt.Sprintf("%s.%d", c.n.GetName(), i))
		}
		n, err := c.combine(name, op, v, w)
		if err != nil {
			return nil, err
		}
		v = &value{node: n}
	}
	return []*value{v}, nil
}

func opMean(c *nodeContext) ([]*value, error) {
	v, err := opBinary(c)
	if err != nil {
		return nil, err
	}
	share := 1 / float64(len(c.in))
	if v[0].array != nil {
		a, err := combine(pairs["Mul"], v[0].array, &array{floats: []float32{float32(share)}})
		return []*value{{array: a}}, err
	}
	x, err := c.aside(&graph.Scale{Value: share}, v[0].node)
	return []*value{{node: x}}, err
}

// combine adds an operation of two values, of which one may be a constant.
func (c *nodeContext) combine(name string, op graph.BinaryOp, v, w *value) (*graph.Node, error) {
	if v.node != nil && w.node != nil {
		return c.combineNodes(name, op, v, w)
	}
	x, a, swapped := v, w.array, false
	if v.array != nil {
		x, a, swapped = w, v.array, true
	}
	s := c.shapes[x.node]
	if a.batch {
		return nil, fmt.Errorf("%w: a value that depends on the size of the batch", onnx.ErrUnsupported)
	}
	dims, err := c.aligned(a, len(s))
	if err != nil {
		return nil, err
	}
	values, err := a.numbers()
	if err != nil {
		return nil, err
	}
	if len(values) == 1 {
		if hard, from := hardOf(op, values[0], x.node); hard != nil && !swapped {
			return c.add(name, hard, from)
		}
		if simple := withNumber(op, float64(values[0]), swapped); simple != nil {
			return c.add(name, simple, x.node)
		}
	}
	if n := c.perChannel(op, x, dims, values, swapped); n != nil {
		return n, nil
	}
	k, err := c.constant(name+".constant", a, dims)
	if err != nil {
		return nil, err
	}
	if swapped {
		return c.add(name, &graph.Binary{Op: op}, k, x.node)
	}
	return c.add(name, &graph.Binary{Op: op}, x.node, k)
}

// hardOf is the activation that exporters without one write out, and what it is of: a hard
// sigmoid is min(max(x + 3, 0), 6)/6, and a hard swish x times that. nil is none.
func hardOf(op graph.BinaryOp, v float32, n *graph.Node) (*graph.Activation, *graph.Node) {
	if !(op == graph.Div && v == 6 || op == graph.Mul && math.Abs(float64(v)-1./6) < 1e-7) {
		return nil, nil
	}
	// clipped is x of min(max(x + 3, 0), 6).
	clipped := func(n *graph.Node) *graph.Node {
		a, ok := n.Op.(*graph.Activation)
		if !ok || a.Name != graph.Clip || a.Alpha != 0 || a.Beta != 6 {
			return nil
		}
		sum := n.In[0]
		if a, ok = sum.Op.(*graph.Activation); !ok || a.Name != "linear" || a.Alpha != 1 || a.Beta != 3 {
			return nil
		}
		return sum.In[0]
	}
	if x := clipped(n); x != nil {
		return &graph.Activation{Name: graph.HardSigmoid, Alpha: 1. / 6, Beta: .5}, x
	}
	if b, ok := n.Op.(*graph.Binary); ok && b.Op == graph.Mul {
		for i, x := range n.In {
			if clipped(n.In[1-i]) == x {
				return &graph.Activation{Name: graph.HardSwish}, x
			}
		}
	}
	return nil, nil
}

// withNumber is an operation with one number, or nil where there is none.
func withNumber(op graph.BinaryOp, v float64, swapped bool) graph.Op {
	line := func(a, b float64) graph.Op { return &graph.Activation{Name: "linear", Alpha: a, Beta: b} }
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	switch {
	case op == graph.Add:
		return line(1, v)
	case op == graph.Sub && swapped:
		return line(-1, v)
	case op == graph.Sub:
		return line(1, -v)
	case op == graph.Mul:
		return &graph.Scale{Value: v}
	case op == graph.Div && !swapped && v != 0:
		return line(1/v, 0)
	case op == graph.Pow && !swapped:
		return &graph.Activation{Name: "pow", Alpha: v}
	case op == graph.Max && v == 0:
		return &graph.Activation{Name: graph.ReLU}
	case op == graph.Max:
		return &graph.Activation{Name: graph.Clip, Alpha: v, Beta: math.MaxFloat32}
	case op == graph.Min:
		return &graph.Activation{Name: graph.Clip, Alpha: -math.MaxFloat32, Beta: v}
	}
	return nil
}

// perChannel puts a number for each channel into the layer before it, where nothing else
// reads that: a sum into a convolution's bias, sums and products into a batch norm. It is
// nil where that cannot be.
func (c *nodeContext) perChannel(op graph.BinaryOp, x *value, dims []int, values []float32, swapped bool) *graph.Node {
	s := c.shapes[x.node]
	if c.shared[x.node] || len(s) < 1 || len(s) > 3 || dims[0] != s[0] || len(values) != s[0] || swapped && op == graph.Sub {
		return nil
	}
	if op == graph.Sub {
		op, values = graph.Add, scaled(values, -1)
	}
	switch layer := x.node.Op.(type) {
	case *graph.Conv:
		if op != graph.Add || layer.Chain.Kind != conv.Dense {
			return nil
		}
		k := *layer.Chain.Last()
		bias := slices.Clone(values)
		for i, b := range k.Bias {
			bias[i] += b
		}
		k.Bias = bias
		x.node.Op = &graph.Conv{Chain: conv.NewDense(&k), Linear: layer.Linear}
	case *graph.BatchNorm:
		m := layer.Clone()
		switch op {
		case graph.Add:
			for i, v := range values {
				m.Bias[i] += v
			}
		case graph.Mul:
			for i, v := range values {
				m.Weight[i] *= v
				m.Bias[i] *= v
			}
		default:
			return nil
		}
		x.node.Op = m
	default:
		return nil
	}
	return x.node
}

// combineNodes adds an operation of two of the network's values. Some are parts of an
// activation.
func (c *nodeContext) combineNodes(name string, op graph.BinaryOp, v, w *value) (*graph.Node, error) {
	if op == graph.Mul {
		for _, p := range [2][2]*graph.Node{{v.node, w.node}, {w.node, v.node}} {
			a, ok := p[1].Op.(*graph.Activation)
			if !ok || p[1].In[0] != p[0] {
				continue
			}
			switch {
			case a.Name == graph.Sigmoid:
				return c.add(name, &graph.Activation{Name: graph.SiLU}, p[0])
			case a.Name == graph.HardSigmoid && math.Abs(a.Alpha-1./6) < 1e-6 && a.Beta == .5:
				return c.add(name, &graph.Activation{Name: graph.HardSwish}, p[0])
			}
		}
	}
	a, b := c.shapes[v.node], c.shapes[w.node]
	if len(a) != len(b) {
		return nil, fmt.Errorf("%w: %v and %v, with the batch before", onnx.ErrUnsupported, a, b)
	}
	return c.add(name, &graph.Binary{Op: op}, v.node, w.node)
}
