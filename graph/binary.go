package graph

import (
	"fmt"

	"github.com/lowrank-go/lowrank/internal/nn"
)

func init() { register(func() Op { return &Binary{} }) }

// BinaryOp names an operation of two tensors, value by value.
type BinaryOp string

// The operations of two tensors.
const (
	Add BinaryOp = BinaryOp(nn.Plus)
	Sub BinaryOp = BinaryOp(nn.Minus)
	Mul BinaryOp = BinaryOp(nn.Times)
	Div BinaryOp = BinaryOp(nn.Divide)
	Max BinaryOp = BinaryOp(nn.Largest)
	Min BinaryOp = BinaryOp(nn.Least)
	Pow BinaryOp = BinaryOp(nn.Power)
	// Comparisons are 1 where they hold, else 0.
	Equal   BinaryOp = BinaryOp(nn.Equal)
	Less    BinaryOp = BinaryOp(nn.Less)
	Greater BinaryOp = BinaryOp(nn.Greater)
)

// Binary combines two tensors value by value. Where one has a dimension of 1 it is
// repeated along the other's.
type Binary struct {
	Op BinaryOp `json:"op"`
}

// Kind is "binary".
func (*Binary) Kind() string { return "binary" }

// Shape is the larger of both inputs' sizes.
func (b *Binary) Shape(in []Shape) (Shape, error) {
	x, err := only(in, 2)
	if err != nil {
		return nil, err
	}
	if nn.Binary(b.Op).Validate() != nil {
		return nil, fmt.Errorf("%w: operation %q", ErrUnsupported, b.Op)
	}
	y := in[1]
	out := make(Shape, len(x))
	for i, d := range x {
		if len(y) != len(x) || d != y[i] && d != 1 && y[i] != 1 {
			return nil, fmt.Errorf("%w: %v and %v", ErrShape, x, y)
		}
		out[i] = max(d, y[i])
	}
	if len(y) != len(x) {
		return nil, fmt.Errorf("%w: %v and %v", ErrShape, x, y)
	}
	return out, nil
}

func (b *Binary) kernel(mode) (kernel, error) {
	if b.Op == Add {
		return &sum{binary: binary{nn.Plus}}, nil
	}
	return &binary{nn.Binary(b.Op)}, nil
}

type binary struct{ f nn.Binary }

func (*binary) inPlace() bool { return true }

// needs tells what derivatives are computed from; those of sums and differences are
// constant.
func (k *binary) needs(i int) bool {
	switch k.f {
	case nn.Plus, nn.Minus, nn.Equal, nn.Less, nn.Greater:
		return false
	}
	return i >= 0
}

// operands is how the inputs lie; either may be of a batch of one. Their values may be
// missing in a backward pass that does not need them.
func (c *call) operands() (dims, a, b []int) {
	at := func(i int) []int { return c.shapes[i].memory(c.in[i].N) }
	dims, a, b, err := nn.Broadcast(at(0), at(1))
	if err != nil {
		panic(err) // Shape says they do
	}
	return dims, a, b
}

func (k *binary) forward(c *call) error {
	dims, as, bs := c.operands()
	c.out = c.shape.resize(c.out, dims[0])
	k.f.Strided(c.out.Data, dims, c.in[0].Data, as, c.in[1].Data, bs, c.workers)
	return nil
}

func (k *binary) backward(c *call) error {
	dims, as, bs := c.operands()
	a, b := c.in[0].Data, c.in[1].Data
	if !k.needs(0) {
		a, b = c.dy.Data, c.dy.Data // whatever, of the same length
	}
	for i, dx := range c.dx {
		if dx != nil {
			c.dx[i] = c.shapes[i].resize(dx, c.in[i].N)
			k.f.StridedBackward(c.dx[i].Data, c.dy.Data, dims, a, as, b, bs, i == 1, c.add[i], c.workers)
		}
	}
	return nil
}

// sum is an addition, of tensors of the same shape as fast as memory.
type sum struct {
	binary
	ones []float32
}

// alike tells whether both inputs, and so the output, have one shape.
func (c *call) alike() bool {
	return c.shapes[0].Equal(c.shapes[1]) && c.in[0].N == c.in[1].N
}

func (k *sum) forward(c *call) error {
	if !c.alike() {
		return k.binary.forward(c)
	}
	if x := c.in[0]; len(k.ones) != x.C {
		k.ones = uniform(x.C, 1)
	}
	c.out = nn.Scale(c.out, c.in[0], c.in[1], k.ones, false, c.workers)
	return nil
}

func (k *sum) backward(c *call) error {
	if !c.alike() {
		return k.binary.backward(c)
	}
	for i, dx := range c.dx {
		switch {
		case dx == nil:
		case dx != c.dy:
			c.dx[i] = give(dx, c.dy, c.add[i], c.workers)
		case c.add[i]: // both inputs are one
			nn.Add(c.dy, c.dy, c.workers)
		}
	}
	return nil
}

// passes says that the first input's gradient is the output's, where their shapes are
// the same.
func (*sum) passes() int { return 0 }
