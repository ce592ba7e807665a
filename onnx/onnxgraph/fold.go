package onnxgraph

import (
	"fmt"
	"math"
	"slices"

	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/onnxpb"
	"github.com/lowrank-go/lowrank/onnx"
)

// Bounds of constants: mostValues of the values of one, mostGrown of those of one that is
// larger than what it is computed from, and mostComputed of those of all that are computed,
// beyond what the file has: no byte of it need stand behind them.
const (
	mostValues   = 1 << 28
	mostGrown    = 1 << 22
	mostComputed = 1 << 26
)

// array is a constant: integers (booleans too) or floating-point numbers, of which a
// tensor's are read where they are needed.
type array struct {
	dims    []int
	integer bool
	ints    []int64
	floats  []float32
	tensor  *onnx.Tensor
	// batch is set where a value may follow from the size of the batch.
	batch bool
}

func (a *array) len() int {
	n := 1
	for _, d := range a.dims {
		n *= d
	}
	return n
}

// read is a tensor as an array. Large ones are left in the file.
func (im *importer) read(t *onnx.Tensor) (*array, error) {
	a := &array{dims: t.Dims, integer: !t.Type.IsFloat(), tensor: t}
	n := 1
	for _, d := range t.Dims {
		if d > 0 && n > mostValues/d {
			return nil, fmt.Errorf("%w: a tensor of shape %v", onnx.ErrUnsupported, t.Dims)
		}
		n *= max(d, 1)
	}
	if !t.Filled {
		im.stored += n
	} else if im.filled += n; im.filled > mostValues {
		return nil, fmt.Errorf("%w: %d values that are all the same", onnx.ErrUnsupported, im.filled)
	}
	if a.integer {
		if n > mostGrown && t.Filled {
			return nil, fmt.Errorf("%w: %d integers", onnx.ErrUnsupported, n)
		}
		var err error
		if a.ints, err = t.Int64s(); err != nil {
			return nil, err
		}
		a.tensor = nil
	}
	return a, nil
}

// spend counts the values of a computed constant.
func (im *importer) spend(a *array) error {
	if im.spent += a.len(); im.spent > mostComputed+4*im.stored {
		return fmt.Errorf("%w: constants of %d values to compute", onnx.ErrUnsupported, im.spent)
	}
	return nil
}

// numbers are the values in floating point.
func (a *array) numbers() ([]float32, error) {
	if a.tensor != nil {
		v, err := a.tensor.Float32s()
		if err != nil {
			return nil, err
		}
		a.floats, a.tensor = v, nil
	}
	if !a.integer {
		return a.floats, nil
	}
	out := make([]float32, len(a.ints))
	for i, v := range a.ints {
		out[i] = float32(v)
	}
	return out, nil
}

// integers are the values, which must be integers.
func (a *array) integers() ([]int64, error) {
	if !a.integer {
		return nil, fmt.Errorf("%w: numbers where integers belong", onnx.ErrCorrupt)
	}
	return a.ints, nil
}

// whole is an array of integers.
func whole(dims []int, v ...int64) *array { return &array{dims: dims, integer: true, ints: v} }

// vector is an array of integers of one dimension.
func vector(v ...int64) *array { return whole([]int{len(v)}, v...) }

// volume is the number of values of a shape, if they are few enough.
func volume(dims []int) (int, error) {
	n := 1
	for _, d := range dims {
		if d < 0 || d > 0 && n > mostValues/d {
			return 0, fmt.Errorf("%w: a constant of shape %v", onnx.ErrUnsupported, dims)
		}
		n *= d
	}
	return n, nil
}

// pick makes an array of dims whose value at places at is value source(at) of a.
func (a *array) pick(dims []int, source func(at []int) int) (*array, error) {
	n, err := volume(dims)
	if err != nil {
		return nil, err
	}
	if n > mostGrown && n > a.len() {
		return nil, fmt.Errorf("%w: a constant of %v made of %v", onnx.ErrUnsupported, dims, a.dims)
	}
	out := &array{dims: dims, integer: a.integer}
	at := make([]int, len(dims))
	next := func() {
		for d := len(at) - 1; d >= 0; d-- {
			if at[d]++; at[d] < dims[d] {
				return
			}
			at[d] = 0
		}
	}
	if a.integer {
		out.ints = make([]int64, n)
		for i := range out.ints {
			out.ints[i] = a.ints[source(at)]
			// What is picked is the batch, or has nothing to do with it.
			out.batch = out.batch || a.batch && isBatch(out.ints[i])
			next()
		}
		return out, nil
	}
	v, err := a.numbers()
	if err != nil {
		return nil, err
	}
	out.floats, out.batch = make([]float32, n), a.batch
	for i := range out.floats {
		out.floats[i] = v[source(at)]
		next()
	}
	return out, nil
}

func isBatch(v int64) bool { return v%anyBatch == 0 && v != 0 }

// offset is where the value at places of dims is.
func offset(dims, at []int) int {
	n := 0
	for d, v := range at {
		n = n*dims[d] + v
	}
	return n
}

// broadcast is the shape that shapes have together.
func broadcast(shapes ...[]int) ([]int, error) {
	rank := 0
	for _, s := range shapes {
		rank = max(rank, len(s))
	}
	out := make([]int, rank)
	for i := range out {
		out[i] = 1
		for _, s := range shapes {
			k := i - rank + len(s)
			if k < 0 || s[k] == 1 {
				continue
			}
			if out[i] != 1 && out[i] != s[k] {
				return nil, fmt.Errorf("%w: shapes %v do not broadcast", onnx.ErrCorrupt, shapes)
			}
			out[i] = s[k]
		}
	}
	return out, nil
}

// expand is the array with the values repeated to dims.
func (a *array) expand(dims []int) (*array, error) {
	if slices.Equal(a.dims, dims) {
		return a, nil
	}
	from := make([]int, len(a.dims))
	return a.pick(dims, func(at []int) int {
		copy(from, at[len(dims)-len(from):])
		for d, n := range a.dims {
			if n == 1 {
				from[d] = 0
			}
		}
		return offset(a.dims, from)
	})
}

// fold computes a node of constants.
type fold func(c *nodeContext) ([]*array, error)

// folds are the operators that are computed of constants.
var folds map[string]fold

func init() {
	folds = map[string]fold{
		"Shape": foldShape, "Size": foldSize, "Gather": foldGather, "Concat": foldConcat, "Cast": foldCast, "Slice": foldSlice,
		"Unsqueeze": foldUnsqueeze, "Squeeze": foldSqueeze, "Reshape": foldReshape, "Flatten": foldFlatten, "Transpose": foldTranspose,
		"ConstantOfShape": foldConstantOfShape, "Range": foldRange, "Where": foldWhere, "Identity": foldIdentity, "Expand": foldExpand,
		"Tile": foldTile, "Split": foldSplit, "Not": foldNot, "ReduceProd": foldReduce, "ReduceSum": foldReduce, "ReduceMax": foldReduce, "ReduceMin": foldReduce,
		"Dropout": foldIdentity,
	}
	for op := range pairs {
		folds[op] = foldPair
	}
	for op := range singles {
		folds[op] = foldSingle
	}
}

func one(a *array, err error) ([]*array, error) { return []*array{a}, err }

func foldIdentity(c *nodeContext) ([]*array, error) {
	a, err := c.array(0)
	return one(a, err)
}

// dims are the dimensions of an input, the batch among them.
func (c *nodeContext) dims(i int) ([]int, error) {
	v, err := c.value(i)
	if err != nil {
		return nil, err
	}
	if v.array != nil {
		return v.array.dims, nil
	}
	return append([]int{int(c.batch)}, c.shapes[v.node]...), nil
}

func foldShape(c *nodeContext) ([]*array, error) {
	dims, err := c.dims(0)
	if err != nil {
		return nil, err
	}
	start, end := c.int("start", 0), c.int("end", int64(len(dims)))
	clamp := func(v int64) int64 {
		if v < 0 {
			v += int64(len(dims))
		}
		return min(max(v, 0), int64(len(dims)))
	}
	start, end = clamp(start), clamp(end)
	v := []int64{}
	for i := start; i < end; i++ {
		v = append(v, int64(dims[i]))
	}
	a := vector(v...)
	a.batch = c.batch == anyBatch && c.in[0].node != nil && start == 0 && end > 0
	return one(a, nil)
}

func foldSize(c *nodeContext) ([]*array, error) {
	dims, err := c.dims(0)
	if err != nil {
		return nil, err
	}
	n := int64(1)
	for _, d := range dims {
		n *= int64(d)
	}
	a := whole(nil, n)
	a.batch = c.batch == anyBatch && c.in[0].node != nil
	return one(a, nil)
}

// axis is a dimension of rank that may be counted from the end.
func axis(v int64, rank int) (int, error) {
	if v < -int64(rank) || v >= int64(rank) {
		return 0, fmt.Errorf("%w: dimension %d of %d", onnx.ErrCorrupt, v, rank)
	}
	if v < 0 {
		v += int64(rank)
	}
	return int(v), nil
}

func foldGather(c *nodeContext) ([]*array, error) {
	a, err := c.array(0)
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
	d, err := axis(c.int("axis", 0), len(a.dims))
	if err != nil {
		return nil, err
	}
	n := a.dims[d]
	for _, p := range places {
		if p < int64(-n) || p >= int64(n) {
			return nil, fmt.Errorf("%w: place %d of %d", onnx.ErrCorrupt, p, n)
		}
	}
	dims := slices.Concat(a.dims[:d], at.dims, a.dims[d+1:])
	k := len(at.dims)
	from := make([]int, len(a.dims))
	return one(a.pick(dims, func(j []int) int {
		copy(from, j[:d])
		copy(from[d+1:], j[d+k:])
		if from[d] = int(places[offset(at.dims, j[d:d+k])]); from[d] < 0 {
			from[d] += n
		}
		return offset(a.dims, from)
	}))
}

func foldConcat(c *nodeContext) ([]*array, error) {
	var in []*array
	integer, batch := true, false
	for i := range c.in {
		a, err := c.array(i)
		if err != nil {
			return nil, err
		}
		in = append(in, a)
		integer, batch = integer && a.integer, batch || a.batch
	}
	d, err := axis(c.int("axis", 1), len(in[0].dims))
	if err != nil {
		return nil, err
	}
	dims := slices.Clone(in[0].dims)
	dims[d] = 0
	for _, a := range in {
		for i := range dims {
			if len(a.dims) != len(dims) || i != d && a.dims[i] != dims[i] {
				return nil, fmt.Errorf("%w: %v beside %v", onnx.ErrCorrupt, a.dims, in[0].dims)
			}
		}
		dims[d] += a.dims[d]
	}
	n, err := volume(dims)
	if err != nil {
		return nil, err
	}
	out := &array{dims: dims, integer: integer, batch: batch}
	outer, _ := volume(dims[:d])
	inner, _ := volume(dims[d+1:])
	if integer {
		out.ints = make([]int64, 0, n)
	} else {
		out.floats = make([]float32, 0, n)
	}
	for o := range outer {
		for _, a := range in {
			k := a.dims[d] * inner
			if integer {
				out.ints = append(out.ints, a.ints[o*k:(o+1)*k]...)
				continue
			}
			v, err := a.numbers()
			if err != nil {
				return nil, err
			}
			out.floats = append(out.floats, v[o*k:(o+1)*k]...)
		}
	}
	return one(out, nil)
}

func foldCast(c *nodeContext) ([]*array, error) {
	a, err := c.array(0)
	if err != nil {
		return nil, err
	}
	to := onnx.Type(c.int("to", 0))
	if to.Size() == 0 {
		return nil, fmt.Errorf("%w: %v", onnx.ErrUnsupported, to)
	}
	if to.IsFloat() == !a.integer && to != onnx.Bool {
		return one(a, nil)
	}
	out := &array{dims: a.dims, integer: !to.IsFloat(), batch: a.batch}
	v, err := a.numbers()
	if err != nil {
		return nil, err
	}
	switch {
	case to.IsFloat():
		out.floats = v
	case a.integer:
		out.ints = slices.Clone(a.ints)
	default:
		out.ints = make([]int64, len(v))
		for i, x := range v {
			out.ints[i] = int64(x)
		}
	}
	if to == onnx.Bool {
		for i, x := range v {
			out.ints[i] = truth(x != 0)
		}
	}
	return one(out, nil)
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func foldSlice(c *nodeContext) ([]*array, error) {
	a, err := c.array(0)
	if err != nil {
		return nil, err
	}
	cuts, err := c.cuts(len(a.dims))
	if err != nil {
		return nil, err
	}
	dims := slices.Clone(a.dims)
	first, step := make([]int, len(dims)), make([]int, len(dims))
	for d := range step {
		step[d] = 1
	}
	for _, k := range cuts {
		first[k.Axis], step[k.Axis], dims[k.Axis] = k.Places(a.dims[k.Axis])
	}
	from := make([]int, len(dims))
	return one(a.pick(dims, func(at []int) int {
		for d := range at {
			from[d] = first[d] + step[d]*at[d]
		}
		return offset(a.dims, from)
	}))
}

// reshaped is the array with other dimensions.
func (a *array) reshaped(dims []int) *array {
	out := *a
	out.dims = dims
	return &out
}

func foldUnsqueeze(c *nodeContext) ([]*array, error) {
	a, err := c.array(0)
	if err != nil {
		return nil, err
	}
	dims, err := c.unsqueezed(a.dims)
	return one(a.reshaped(dims), err)
}

func foldSqueeze(c *nodeContext) ([]*array, error) {
	a, err := c.array(0)
	if err != nil {
		return nil, err
	}
	dims, _, err := c.squeezed(a.dims)
	return one(a.reshaped(dims), err)
}

func foldReshape(c *nodeContext) ([]*array, error) {
	a, err := c.array(0)
	if err != nil {
		return nil, err
	}
	t, err := c.ints(1, "shape")
	if err != nil {
		return nil, err
	}
	dims := make([]int, len(t))
	free, n := -1, 1
	for i, d := range t {
		switch {
		case d == 0 && c.int("allowzero", 0) == 0 && i < len(a.dims):
			d = int64(a.dims[i])
		case d == -1 && free < 0:
			free = i
			continue
		}
		if d < 0 || d > mostValues || d > 0 && n > mostValues/int(d) {
			return nil, fmt.Errorf("%w: %v into %v", onnx.ErrCorrupt, a.dims, t)
		}
		dims[i] = int(d)
		n *= int(d)
	}
	if free >= 0 && n > 0 {
		dims[free] = a.len() / n
		n *= dims[free]
	}
	if n != a.len() {
		return nil, fmt.Errorf("%w: %v into %v", onnx.ErrCorrupt, a.dims, t)
	}
	return one(a.reshaped(dims), nil)
}

func foldFlatten(c *nodeContext) ([]*array, error) {
	a, err := c.array(0)
	if err != nil {
		return nil, err
	}
	d := c.int("axis", 1)
	if d < 0 {
		d += int64(len(a.dims))
	}
	if d < 0 || d > int64(len(a.dims)) {
		return nil, fmt.Errorf("%w: dimension %d of %d", onnx.ErrCorrupt, d, len(a.dims))
	}
	n, _ := volume(a.dims[:d])
	m, _ := volume(a.dims[d:])
	return one(a.reshaped([]int{n, m}), nil)
}

func foldTranspose(c *nodeContext) ([]*array, error) {
	a, err := c.array(0)
	if err != nil {
		return nil, err
	}
	perm, err := c.perm(len(a.dims))
	if err != nil {
		return nil, err
	}
	dims := make([]int, len(perm))
	for i, p := range perm {
		dims[i] = a.dims[p]
	}
	from := make([]int, len(perm))
	return one(a.pick(dims, func(at []int) int {
		for k, v := range at {
			from[perm[k]] = v
		}
		return offset(a.dims, from)
	}))
}

func foldConstantOfShape(c *nodeContext) ([]*array, error) {
	t, err := c.ints(0, "")
	if err != nil {
		return nil, err
	}
	dims := make([]int, len(t))
	for i, d := range t {
		if d < 0 || d > mostValues {
			return nil, fmt.Errorf("%w: a shape of %v", onnx.ErrCorrupt, t)
		}
		dims[i] = int(d)
	}
	v := &array{floats: []float32{0}}
	if p := onnx.Attribute(c.n, "value").GetT(); p != nil {
		t, err := c.m.Tensor(p)
		if err != nil {
			return nil, err
		}
		if t.Len() != 1 {
			return nil, fmt.Errorf("%w: a value of %d", onnx.ErrCorrupt, t.Len())
		}
		if v, err = c.read(t); err != nil {
			return nil, err
		}
	}
	out, err := v.pick(dims, func([]int) int { return 0 })
	if err == nil && c.in[0].array.batch {
		out.batch = true
	}
	return one(out, err)
}

func foldRange(c *nodeContext) ([]*array, error) {
	var v [3]float64
	integer, batch := true, false
	for i := range v {
		a, err := c.array(i)
		if err != nil {
			return nil, err
		}
		f, err := a.numbers()
		if err != nil {
			return nil, err
		}
		if len(f) != 1 {
			return nil, fmt.Errorf("%w: a range from, to or by %d values", onnx.ErrCorrupt, len(f))
		}
		integer, batch = integer && a.integer, batch || a.batch
		if v[i] = float64(f[0]); a.integer {
			v[i] = float64(a.ints[0])
		}
	}
	n := math.Ceil((v[1] - v[0]) / v[2])
	if !(n <= mostGrown) {
		return nil, fmt.Errorf("%w: a range of %g values", onnx.ErrUnsupported, n)
	}
	out := &array{dims: []int{max(int(n), 0)}, integer: integer, batch: batch}
	for i := range out.dims[0] {
		x := v[0] + float64(i)*v[2]
		if integer {
			out.ints = append(out.ints, int64(x))
		} else {
			out.floats = append(out.floats, float32(x))
		}
	}
	return one(out, nil)
}

func foldWhere(c *nodeContext) ([]*array, error) {
	var in [3]*array
	for i := range in {
		var err error
		if in[i], err = c.array(i); err != nil {
			return nil, err
		}
	}
	dims, err := broadcast(in[0].dims, in[1].dims, in[2].dims)
	if err != nil {
		return nil, err
	}
	for i := range in {
		if in[i], err = in[i].expand(dims); err != nil {
			return nil, err
		}
	}
	cond, err := in[0].integers()
	if err != nil {
		return nil, err
	}
	out := &array{dims: dims, integer: in[1].integer, batch: in[1].batch || in[2].batch}
	if in[1].integer != in[2].integer {
		return nil, fmt.Errorf("%w: integers beside numbers", onnx.ErrCorrupt)
	}
	if out.integer {
		for i, t := range cond {
			out.ints = append(out.ints, in[2-truth(t != 0)].ints[i])
		}
		return one(out, nil)
	}
	x, err := in[1].numbers()
	if err != nil {
		return nil, err
	}
	y, err := in[2].numbers()
	if err != nil {
		return nil, err
	}
	for i, t := range cond {
		v := y[i]
		if t != 0 {
			v = x[i]
		}
		out.floats = append(out.floats, v)
	}
	return one(out, nil)
}

func foldExpand(c *nodeContext) ([]*array, error) {
	a, err := c.array(0)
	if err != nil {
		return nil, err
	}
	t, err := c.ints(1, "")
	if err != nil {
		return nil, err
	}
	shape := make([]int, len(t))
	for i, d := range t {
		if d < 0 || d > mostValues {
			return nil, fmt.Errorf("%w: a shape of %v", onnx.ErrCorrupt, t)
		}
		shape[i] = int(d)
	}
	dims, err := broadcast(a.dims, shape)
	if err != nil {
		return nil, err
	}
	return one(a.expand(dims))
}

func foldTile(c *nodeContext) ([]*array, error) {
	a, err := c.array(0)
	if err != nil {
		return nil, err
	}
	t, err := c.ints(1, "")
	if err != nil {
		return nil, err
	}
	if len(t) != len(a.dims) {
		return nil, fmt.Errorf("%w: %v repeated %v", onnx.ErrCorrupt, a.dims, t)
	}
	dims := make([]int, len(t))
	for i, k := range t {
		if k < 0 || k > mostValues || k*int64(a.dims[i]) > mostValues {
			return nil, fmt.Errorf("%w: %v repeated %v", onnx.ErrUnsupported, a.dims, t)
		}
		dims[i] = int(k) * a.dims[i]
	}
	from := make([]int, len(dims))
	return one(a.pick(dims, func(at []int) int {
		for d := range at {
			from[d] = at[d] % a.dims[d]
		}
		return offset(a.dims, from)
	}))
}

func foldSplit(c *nodeContext) ([]*array, error) {
	a, err := c.array(0)
	if err != nil {
		return nil, err
	}
	d, sizes, err := c.split(a.dims)
	if err != nil {
		return nil, err
	}
	var out []*array
	first := 0
	for _, n := range sizes {
		dims := slices.Clone(a.dims)
		dims[d] = n
		from := make([]int, len(dims))
		part, err := a.pick(dims, func(at []int) int {
			copy(from, at)
			from[d] += first
			return offset(a.dims, from)
		})
		if err != nil {
			return nil, err
		}
		out = append(out, part)
		first += n
	}
	return out, nil
}

func foldNot(c *nodeContext) ([]*array, error) {
	a, err := c.array(0)
	if err != nil {
		return nil, err
	}
	v, err := a.integers()
	if err != nil {
		return nil, err
	}
	out := &array{dims: a.dims, integer: true, batch: a.batch}
	for _, x := range v {
		out.ints = append(out.ints, truth(x == 0))
	}
	return one(out, nil)
}

// foldReduce is a reduction of all values.
func foldReduce(c *nodeContext) ([]*array, error) {
	a, err := c.array(0)
	if err != nil {
		return nil, err
	}
	axes, err := c.axes(len(a.dims))
	if err != nil {
		return nil, err
	}
	if len(axes) < len(a.dims) {
		return nil, fmt.Errorf("%w: constants reduced along some dimensions", onnx.ErrUnsupported)
	}
	var dims []int
	if c.int("keepdims", 1) != 0 {
		for range a.dims {
			dims = append(dims, 1)
		}
	}
	if a.integer {
		return one(&array{dims: dims, integer: true, ints: []int64{reduce(c.n.GetOpType(), a.ints)}, batch: a.batch}, nil)
	}
	v, err := a.numbers()
	return one(&array{dims: dims, floats: []float32{reduce(c.n.GetOpType(), v)}, batch: a.batch}, err)
}

func reduce[T int64 | float32](op string, v []T) T {
	if len(v) == 0 {
		return truthOf[T](op == "ReduceProd")
	}
	out := v[0]
	for _, x := range v[1:] {
		switch op {
		case "ReduceProd":
			out *= x
		case "ReduceSum":
			out += x
		case "ReduceMax":
			out = max(out, x)
		default:
			out = min(out, x)
		}
	}
	return out
}

func truthOf[T int64 | float32](b bool) T {
	if b {
		return 1
	}
	return 0
}

// pair is an operator of two numbers, of integers and in floating point; nil where there
// is none.
type pair struct {
	ints    func(a, b int64) int64
	floats  func(a, b float64) float64
	compare bool // the result is a truth value
}

var pairs = map[string]pair{
	"Add": {ints: func(a, b int64) int64 { return a + b }, floats: func(a, b float64) float64 { return a + b }},
	"Sub": {ints: func(a, b int64) int64 { return a - b }, floats: func(a, b float64) float64 { return a - b }},
	"Mul": {ints: func(a, b int64) int64 { return a * b }, floats: func(a, b float64) float64 { return a * b }},
	"Div": {ints: func(a, b int64) int64 {
		if b == 0 || a == math.MinInt64 {
			return 0
		}
		return a / b
	}, floats: func(a, b float64) float64 { return a / b }},
	"Mod": {ints: func(a, b int64) int64 {
		if b == 0 || a == math.MinInt64 {
			return 0
		}
		return ((a % b) + b) % b
	}},
	"Pow":            {ints: func(a, b int64) int64 { return int64(math.Pow(float64(a), float64(b))) }, floats: math.Pow},
	"Max":            {ints: func(a, b int64) int64 { return max(a, b) }, floats: math.Max},
	"Min":            {ints: func(a, b int64) int64 { return min(a, b) }, floats: math.Min},
	"Equal":          {compare: true, ints: func(a, b int64) int64 { return truth(a == b) }, floats: func(a, b float64) float64 { return float64(truth(a == b)) }},
	"Less":           {compare: true, ints: func(a, b int64) int64 { return truth(a < b) }, floats: func(a, b float64) float64 { return float64(truth(a < b)) }},
	"Greater":        {compare: true, ints: func(a, b int64) int64 { return truth(a > b) }, floats: func(a, b float64) float64 { return float64(truth(a > b)) }},
	"LessOrEqual":    {compare: true, ints: func(a, b int64) int64 { return truth(a <= b) }, floats: func(a, b float64) float64 { return float64(truth(a <= b)) }},
	"GreaterOrEqual": {compare: true, ints: func(a, b int64) int64 { return truth(a >= b) }, floats: func(a, b float64) float64 { return float64(truth(a >= b)) }},
	"And":            {compare: true, ints: func(a, b int64) int64 { return a & b }},
	"Or":             {compare: true, ints: func(a, b int64) int64 { return a | b }},
}

func foldPair(c *nodeContext) ([]*array, error) {
	out, err := c.array(0)
	if err != nil {
		return nil, err
	}
	for i := 1; i < len(c.in); i++ {
		b, err := c.array(i)
		if err != nil {
			return nil, err
		}
		if out, err = combine(pairs[c.n.GetOpType()], out, b); err != nil {
			return nil, err
		}
	}
	return one(out, nil)
}

func combine(f pair, a, b *array) (*array, error) {
	dims, err := broadcast(a.dims, b.dims)
	if err != nil {
		return nil, err
	}
	batch := a.batch || b.batch
	if a, err = a.expand(dims); err != nil {
		return nil, err
	}
	if b, err = b.expand(dims); err != nil {
		return nil, err
	}
	out := &array{dims: dims, integer: a.integer && b.integer || f.compare, batch: batch}
	if a.integer && b.integer {
		out.ints = make([]int64, len(a.ints))
		for i, v := range a.ints {
			out.ints[i] = f.ints(v, b.ints[i])
		}
		return out, nil
	}
	if f.floats == nil {
		return nil, fmt.Errorf("%w: it is for integers", onnx.ErrUnsupported)
	}
	x, err := a.numbers()
	if err != nil {
		return nil, err
	}
	y, err := b.numbers()
	if err != nil {
		return nil, err
	}
	for i, v := range x {
		r := f.floats(float64(v), float64(y[i]))
		if f.compare {
			out.ints = append(out.ints, int64(r))
		} else {
			out.floats = append(out.floats, float32(r))
		}
	}
	return out, nil
}

// singles are operators of one number.
var singles = map[string]func(v float64) float64{
	"Neg": func(v float64) float64 { return -v }, "Abs": math.Abs, "Floor": math.Floor, "Ceil": math.Ceil, "Round": math.RoundToEven, "Sqrt": math.Sqrt,
	"Exp": math.Exp, "Log": math.Log, "Reciprocal": func(v float64) float64 { return 1 / v },
	"Sigmoid": func(v float64) float64 { return 1 / (1 + math.Exp(-v)) }, "Tanh": math.Tanh, "Relu": func(v float64) float64 { return max(v, 0) },
}

func foldSingle(c *nodeContext) ([]*array, error) {
	a, err := c.array(0)
	if err != nil {
		return nil, err
	}
	f := singles[c.n.GetOpType()]
	out := &array{dims: a.dims, integer: a.integer, batch: a.batch}
	if a.integer {
		for _, v := range a.ints {
			out.ints = append(out.ints, int64(f(float64(v))))
		}
		return one(out, nil)
	}
	v, err := a.numbers()
	if err != nil {
		return nil, err
	}
	for _, x := range v {
		out.floats = append(out.floats, float32(f(float64(x))))
	}
	return one(out, nil)
}

// nodeContext is a node with its inputs while it is imported.
type nodeContext struct {
	*importer
	n  *onnxpb.NodeProto
	in []*value
}

// has tells whether there is an input.
func (c *nodeContext) has(i int) bool { return i < len(c.in) && c.in[i] != nil }

// value is an input, which must be there.
func (c *nodeContext) value(i int) (*value, error) {
	if !c.has(i) {
		return nil, fmt.Errorf("%w: input %d is missing", onnx.ErrCorrupt, i)
	}
	return c.in[i], nil
}

// array is a constant input.
func (c *nodeContext) array(i int) (*array, error) {
	v, err := c.value(i)
	if err != nil {
		return nil, err
	}
	if v.array == nil {
		return nil, fmt.Errorf("%w: input %d, %q, is no constant", onnx.ErrUnsupported, i, c.n.Input[i])
	}
	return v.array, nil
}

// floats are the values of a constant input.
func (c *nodeContext) floats(i int) ([]float32, error) {
	a, err := c.array(i)
	if err != nil {
		return nil, err
	}
	if a.batch {
		return nil, fmt.Errorf("%w: a value that depends on the size of the batch", onnx.ErrUnsupported)
	}
	return a.numbers()
}

// ints are integers: input i, or, in older versions, an attribute. None are nil.
func (c *nodeContext) ints(i int, attribute string) ([]int64, error) {
	if c.has(i) {
		a, err := c.array(i)
		if err != nil {
			return nil, err
		}
		return a.integers()
	}
	return onnx.Attribute(c.n, attribute).GetInts(), nil
}

// int, float and text are attributes.
func (c *nodeContext) int(name string, otherwise int64) int64 {
	if a := onnx.Attribute(c.n, name); a != nil {
		return a.GetI()
	}
	return otherwise
}

func (c *nodeContext) float(name string, otherwise float64) float64 {
	if a := onnx.Attribute(c.n, name); a != nil {
		return float64(a.GetF())
	}
	return otherwise
}

func (c *nodeContext) text(name, otherwise string) string {
	if a := onnx.Attribute(c.n, name); a != nil {
		return string(a.GetS())
	}
	return otherwise
}

// perm is the order of a Transpose.
func (c *nodeContext) perm(rank int) ([]int, error) {
	var perm []int
	for _, p := range onnx.Attribute(c.n, "perm").GetInts() {
		d, err := axis(p, rank)
		if err != nil || slices.Contains(perm, d) {
			return nil, fmt.Errorf("%w: %d dimensions in the order %v", onnx.ErrCorrupt, rank, onnx.Attribute(c.n, "perm").GetInts())
		}
		perm = append(perm, d)
	}
	if perm == nil {
		for d := rank - 1; d >= 0; d-- {
			perm = append(perm, d)
		}
	}
	if len(perm) != rank {
		return nil, fmt.Errorf("%w: %d dimensions in the order %v", onnx.ErrCorrupt, rank, perm)
	}
	return perm, nil
}

// unsqueezed is dims with dimensions of 1 put in.
func (c *nodeContext) unsqueezed(dims []int) ([]int, error) {
	axes, err := c.ints(1, "axes")
	if err != nil {
		return nil, err
	}
	rank := len(dims) + len(axes)
	out := make([]int, rank)
	for _, a := range axes {
		d, err := axis(a, rank)
		if err != nil || out[d] != 0 {
			return nil, fmt.Errorf("%w: new dimensions %v of %v", onnx.ErrCorrupt, axes, dims)
		}
		out[d] = 1
	}
	k := 0
	for d := range out {
		if out[d] == 0 {
			out[d] = dims[k]
			k++
		}
	}
	return out, nil
}

// squeezed is dims without dimensions of 1, and those left out.
func (c *nodeContext) squeezed(dims []int) (out []int, left []int, err error) {
	axes, err := c.ints(1, "axes")
	if err != nil {
		return nil, nil, err
	}
	for _, a := range axes {
		d, err := axis(a, len(dims))
		if err != nil || dims[d] != 1 {
			return nil, nil, fmt.Errorf("%w: %v without dimensions %v", onnx.ErrCorrupt, dims, axes)
		}
		left = append(left, d)
	}
	for d, n := range dims {
		if axes == nil && n == 1 {
			left = append(left, d)
		}
		if !slices.Contains(left, d) {
			out = append(out, n)
		}
	}
	return out, left, nil
}

// axes are the dimensions of a reduction, all by default.
func (c *nodeContext) axes(rank int) ([]int, error) {
	given, err := c.ints(1, "axes")
	if err != nil {
		return nil, err
	}
	var axes []int
	for _, a := range given {
		d, err := axis(a, rank)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(axes, d) {
			axes = append(axes, d)
		}
	}
	if len(given) == 0 && c.int("noop_with_empty_axes", 0) == 0 {
		for d := range rank {
			axes = append(axes, d)
		}
	}
	return axes, nil
}

// split is the dimension and the sizes of the parts of a Split.
func (c *nodeContext) split(dims []int) (d int, sizes []int, err error) {
	if d, err = axis(c.int("axis", 0), len(dims)); err != nil {
		return 0, nil, err
	}
	given, err := c.ints(1, "split")
	if err != nil {
		return 0, nil, err
	}
	parts := len(c.n.Output)
	if given == nil {
		each := (dims[d] + parts - 1) / parts
		for i := range parts {
			sizes = append(sizes, max(min(each, dims[d]-i*each), 0))
		}
		return d, sizes, nil
	}
	total := int64(0)
	for _, n := range given {
		if n < 0 || n > mostValues {
			return 0, nil, fmt.Errorf("%w: parts of %v", onnx.ErrCorrupt, given)
		}
		total += n
		sizes = append(sizes, int(n))
	}
	if total != int64(dims[d]) || len(given) != parts {
		return 0, nil, fmt.Errorf("%w: %d outputs of %v of %d places", onnx.ErrCorrupt, parts, given, dims[d])
	}
	return d, sizes, nil
}

// cuts are those of a Slice.
func (c *nodeContext) cuts(rank int) ([]graph.Cut, error) {
	var v [4][]int64
	for i, name := range []string{"starts", "ends", "axes", "steps"} {
		var err error
		if v[i], err = c.ints(i+1, name); err != nil {
			return nil, err
		}
	}
	starts, ends, axes, steps := v[0], v[1], v[2], v[3]
	if len(ends) != len(starts) || axes != nil && len(axes) != len(starts) || steps != nil && len(steps) != len(starts) {
		return nil, fmt.Errorf("%w: cuts from %v to %v along %v by %v", onnx.ErrCorrupt, starts, ends, axes, steps)
	}
	near := func(v int64) int { return int(min(max(v, -mostValues), graph.End)) }
	var cuts []graph.Cut
	for i := range starts {
		k := graph.Cut{Axis: i, Start: near(starts[i]), End: near(ends[i]), Step: 1}
		if axes != nil {
			d, err := axis(axes[i], rank)
			if err != nil {
				return nil, err
			}
			k.Axis = d
		}
		if steps != nil {
			if k.Step = int(min(max(steps[i], -mostValues), mostValues)); k.Step == 0 {
				return nil, fmt.Errorf("%w: a step of 0", onnx.ErrCorrupt)
			}
		}
		if k.Axis >= rank || slices.ContainsFunc(cuts, func(o graph.Cut) bool { return o.Axis == k.Axis }) {
			return nil, fmt.Errorf("%w: cuts along %v", onnx.ErrCorrupt, axes)
		}
		cuts = append(cuts, k)
	}
	return cuts, nil
}
