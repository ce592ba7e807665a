package graph

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
	"github.com/lowrank-go/lowrank/internal/parallel"
)

func init() { register(func() Op { return &Reshape{} }) }

// Reshape gives a tensor other dimensions; its values stay in the order of PyTorch and
// ONNX.
type Reshape struct {
	// Size are the new dimensions, without the batch. One may be -1, which follows from
	// the others; 0 keeps that of the input.
	Size []int `json:"size"`
}

// Kind is "reshape".
func (*Reshape) Kind() string { return "reshape" }

// Shape is Size.
func (r *Reshape) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	out := make(Shape, len(r.Size))
	free, known := -1, 1
	for i, d := range r.Size {
		switch {
		case d == -1 && free < 0:
			free = i
			continue
		case d == 0 && i < len(x):
			d = x[i]
		case d < 1:
			return nil, fmt.Errorf("%w: %v into %v", ErrShape, x, r.Size)
		}
		out[i] = d
		if known > mostValues/d {
			return nil, fmt.Errorf("%w: %v into %v", ErrShape, x, r.Size)
		}
		known *= d
	}
	if free >= 0 {
		if x.Len()%known != 0 {
			return nil, fmt.Errorf("%w: %v into %v", ErrShape, x, r.Size)
		}
		out[free] = x.Len() / known
	} else if known != x.Len() {
		return nil, fmt.Errorf("%w: %v into %v", ErrShape, x, r.Size)
	}
	return out, nil
}

func (*Reshape) kernel(mode) (kernel, error) { return reshaping{}, nil }
func (*Flatten) kernel(mode) (kernel, error) { return reshaping{}, nil }

// reshaping copies values in the order of PyTorch and ONNX.
type reshaping struct{}

func (reshaping) needs(int) bool { return false }

func (reshaping) forward(c *call) error {
	x := c.in[0]
	c.out = c.shape.resize(c.out, x.N)
	reorder(c.out, x, c.shape, c.shapes[0], false, c.workers)
	return nil
}

func (reshaping) backward(c *call) error {
	if c.dx[0] != nil {
		c.dx[0] = c.shapes[0].resize(c.dx[0], c.dy.N)
		reorder(c.dx[0], c.dy, c.shapes[0], c.shape, c.add[0], c.workers)
	}
	return nil
}

// linear tells whether tensors of a shape lie in memory in the order of PyTorch and ONNX.
func (s Shape) linear() bool {
	if len(s) != 2 && len(s) != 3 {
		return true
	}
	return s[0] == 1 || s.Len() == s[0]
}

// reorder copies, or adds, the values of x, of shape from, to dst, of shape to, in the
// order of PyTorch and ONNX.
func reorder(dst, x *conv.Map, to, from Shape, add bool, workers int) {
	n := to.Len()
	each := func(s Shape, strides []int) ([]int, []int) {
		order := s.order()
		return s.memory(x.N), append([]int{n}, pick(strides, order)...)
	}
	switch straight := to.linear() && from.linear() || to.Equal(from); {
	case straight && !add:
		copy(dst.Data, x.Data)
	case straight:
		nn.Add(dst, &conv.Map{N: dst.N, H: dst.H, W: dst.W, C: dst.C, Data: x.Data}, workers)
	case to.linear() && !add:
		nn.Permute(dst.Data, append([]int{x.N}, from...), x.Data, 0, append([]int{n}, from.Strides()...), workers)
	case from.linear() && !add:
		dims, strides := each(to, rowMajor(to))
		nn.Permute(dst.Data, dims, x.Data, 0, strides, workers)
	case to.linear():
		dims, strides := each(from, rowMajor(from))
		nn.PermuteBackward(dst.Data, dims, x.Data, 0, strides, true, workers)
	case from.linear():
		nn.PermuteBackward(dst.Data, append([]int{x.N}, to...), x.Data, 0, append([]int{n}, to.Strides()...), true, workers)
	default:
		parallel.For(workers, x.N, func(i int) {
			d, s := dst.Data[i*n:(i+1)*n], x.Data[i*n:(i+1)*n]
			a, b := newWalk(to), newWalk(from)
			for range n {
				if add {
					d[a.at] += s[b.at]
				} else {
					d[a.at] = s[b.at]
				}
				a.next()
				b.next()
			}
		})
	}
}

// walk visits the places of a tensor's values in the order of PyTorch and ONNX.
type walk struct {
	at            int
	size, strides []int
	index         []int
}

func newWalk(s Shape) *walk {
	return &walk{size: s, strides: s.Strides(), index: make([]int, len(s))}
}

func (w *walk) next() {
	for d := len(w.size) - 1; d >= 0; d-- {
		w.index[d]++
		w.at += w.strides[d]
		if w.index[d] < w.size[d] {
			return
		}
		w.at -= w.index[d] * w.strides[d]
		w.index[d] = 0
	}
}
