package graph

import (
	"github.com/lowrank-go/lowrank/internal/nn"
)

// view is a strided array within a tensor: value (i, j, …) of dims lies at
// offset + i·strides[0] + j·strides[1] + …. The batch is left out.
type view struct {
	dims, strides []int
	offset        int
}

// order lists the dimensions as they lie in memory, the innermost last.
func (s Shape) order() []int {
	switch len(s) {
	case 2:
		return []int{1, 0}
	case 3:
		return []int{1, 2, 0}
	}
	order := make([]int, len(s))
	for i := range order {
		order[i] = i
	}
	return order
}

// memory is the dimensions of a batch of n in the order of memory.
func (s Shape) memory(n int) []int {
	return append([]int{n}, pick(s, s.order())...)
}

// pick lists the values of v at the places of order.
func pick(v, order []int) []int {
	out := make([]int, len(order))
	for i, o := range order {
		out[i] = v[o]
	}
	return out
}

// viewed is the view whose value (i, j, …), of a tensor of shape to, lies at offset +
// i·strides[0] + …, in the order in which to lies in memory.
func viewed(to Shape, strides []int, offset int) view {
	order := to.order()
	return view{pick(to, order), pick(strides, order), offset}
}

// copying is an operation that copies values of its input. The view of the input is in
// the order in which the output lies in memory.
type copying struct{ view func(in, out Shape) view }

func (copying) needs(int) bool { return false }

// batch is the view of the first input with n elements.
func (k copying) batch(c *call, n int) view {
	v := k.view(c.shapes[0], c.shape)
	return view{append([]int{n}, v.dims...), append([]int{c.shapes[0].Len()}, v.strides...), v.offset}
}

func (k copying) forward(c *call) error {
	x := c.in[0]
	c.out = c.shape.resize(c.out, x.N)
	v := k.batch(c, x.N)
	nn.Permute(c.out.Data, v.dims, x.Data, v.offset, v.strides, c.workers)
	return nil
}

func (k copying) backward(c *call) error {
	if c.dx[0] == nil {
		return nil
	}
	n := c.dy.N
	c.dx[0] = c.shapes[0].resize(c.dx[0], n)
	v := k.batch(c, n)
	nn.PermuteBackward(c.dx[0].Data, v.dims, c.dy.Data, v.offset, v.strides, c.add[0], c.workers)
	return nil
}
