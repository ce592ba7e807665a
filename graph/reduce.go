package graph

import (
	"slices"

	"github.com/lowrank-go/lowrank/internal/nn"
)

func init() { register(func() Op { return &Reduce{} }) }

// ReduceOp names a function that makes one value of many.
type ReduceOp string

// The reductions. Those of Max and Min are Largest and Least.
const (
	Sum       ReduceOp = ReduceOp(nn.ReduceSum)
	Mean      ReduceOp = ReduceOp(nn.ReduceMean)
	Largest   ReduceOp = ReduceOp(nn.ReduceMax)
	Least     ReduceOp = ReduceOp(nn.ReduceMin)
	L1        ReduceOp = ReduceOp(nn.ReduceL1)      // Σ|x|
	L2        ReduceOp = ReduceOp(nn.ReduceL2)      // √Σx²
	SumSquare ReduceOp = ReduceOp(nn.ReduceSquares) // Σx²
)

// Reduce makes one value of all along some dimensions, which stay as dimensions of 1.
type Reduce struct {
	Op   ReduceOp `json:"op"`
	Axes []int    `json:"axes"`
}

// Kind is "reduce".
func (*Reduce) Kind() string { return "reduce" }

// Shape is the input's with 1 along Axes.
func (r *Reduce) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	if err := nn.Reduce(r.Op).Validate(); err != nil {
		return nil, err
	}
	if err := (&arrangement{axes: r.Axes}).check(x); err != nil {
		return nil, err
	}
	out := slices.Clone(x)
	for _, a := range r.Axes {
		out[a] = 1
	}
	return out, nil
}

func (r *Reduce) kernel(mode) (kernel, error) { return &reduction{nn.Reduce(r.Op), r.Axes}, nil }

type reduction struct {
	f    nn.Reduce
	axes []int
}

// needs tells what derivatives are computed from; those of sums are constant.
func (k *reduction) needs(int) bool { return k.f != nn.ReduceSum && k.f != nn.ReduceMean }

// dims are the input's in the order of memory, with their strides, and which of them the
// axes are.
func (k *reduction) dims(s Shape, n int) (dims, strides, axes []int) {
	order := s.order()
	dims = s.memory(n)
	strides = append([]int{s.Len()}, pick(s.Strides(), order)...)
	for i, d := range order {
		if slices.Contains(k.axes, d) {
			axes = append(axes, i+1)
		}
	}
	return dims, strides, axes
}

func (k *reduction) forward(c *call) error {
	x := c.in[0]
	c.out = c.shape.resize(c.out, x.N)
	dims, strides, axes := k.dims(c.shapes[0], x.N)
	k.f.Strided(c.out.Data, dims, x.Data, strides, axes, c.workers)
	return nil
}

func (k *reduction) backward(c *call) error {
	if c.dx[0] == nil {
		return nil
	}
	n := c.dy.N
	c.dx[0] = c.shapes[0].resize(c.dx[0], n)
	x, y := c.in[0].Data, c.out.Data
	dims, strides, axes := k.dims(c.shapes[0], n)
	k.f.StridedBackward(c.dx[0].Data, c.dy.Data, dims, x, strides, y, axes, c.add[0], c.workers)
	return nil
}
