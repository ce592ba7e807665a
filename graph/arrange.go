package graph

import (
	"slices"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

// arrangement is tensors as rows of the values along some of their dimensions, which lie
// one after another in the rows. Where they do so in memory nothing is copied.
type arrangement struct {
	axes []int
	bufs [3]*conv.Map // copies
}

// rows is the view of an element whose innermost dimensions are the arrangement's, the
// length of a row, and whether that is how it lies in memory.
func (a *arrangement) rows(s Shape) (v view, width int, direct bool) {
	inMemory := s.order()
	var order []int
	for _, d := range inMemory {
		if !slices.Contains(a.axes, d) {
			order = append(order, d)
		}
	}
	order = append(order, a.axes...)
	width = 1
	for _, d := range a.axes {
		width *= s[d]
	}
	// Dimensions of 1 may be anywhere.
	large := func(order []int) []int {
		return slices.DeleteFunc(slices.Clone(order), func(d int) bool { return s[d] == 1 })
	}
	return view{dims: pick(s, order), strides: pick(s.Strides(), order)}, width, slices.Equal(large(order), large(inMemory))
}

// gather is x, of shape s, as rows: one a pixel of a map of one row of pixels. i is
// which of the arrangement's own maps it may be put into.
func (a *arrangement) gather(i int, x *conv.Map, s Shape, workers int) *conv.Map {
	v, width, direct := a.rows(s)
	rows := x.N * s.Len() / width
	if direct {
		return &conv.Map{N: rows, H: 1, W: 1, C: width, Data: x.Data}
	}
	a.bufs[i] = a.bufs[i].Resize(rows, 1, 1, width)
	nn.Permute(a.bufs[i].Data, append([]int{x.N}, v.dims...), x.Data, 0, append([]int{s.Len()}, v.strides...), workers)
	return a.bufs[i]
}

// place is where rows of an output are to be written: dst itself, or one of the
// arrangement's own maps, from which scatter copies them.
func (a *arrangement) place(i int, dst *conv.Map, s Shape) *conv.Map {
	_, width, direct := a.rows(s)
	rows := dst.N * s.Len() / width
	if direct {
		return &conv.Map{N: rows, H: 1, W: 1, C: width, Data: dst.Data}
	}
	a.bufs[i] = a.bufs[i].Resize(rows, 1, 1, width)
	return a.bufs[i]
}

// scatter is the inverse of gather: it writes rows that do not lie in dst there, or adds
// them. Rows in dst are what is added already.
func (a *arrangement) scatter(dst, rows *conv.Map, s Shape, add bool, workers int) {
	v, _, direct := a.rows(s)
	if !direct {
		nn.PermuteBackward(dst.Data, append([]int{dst.N}, v.dims...), rows.Data, 0, append([]int{s.Len()}, v.strides...), add, workers)
	}
}

// forward computes c.out of rows of c.in[0] by f.
func (a *arrangement) forward(c *call, f func(dst, x *conv.Map) *conv.Map) {
	x := c.in[0]
	c.out = c.shape.resize(c.out, x.N)
	s := c.shapes[0]
	dst := a.place(1, c.out, s)
	a.scatter(c.out, f(dst, a.gather(0, x, s, c.workers)), s, false, c.workers)
}

// backward computes c.dx[0] by f, from rows of c.dy and of another map, the input or the
// output. f adds where add is set.
func (a *arrangement) backward(c *call, other *conv.Map, f func(dx, dy, other *conv.Map, add bool) *conv.Map) {
	s := c.shapes[0]
	dy, o := a.gather(0, c.dy, s, c.workers), a.gather(1, other, s, c.workers)
	if c.dx[0] == nil {
		f(a.bufs[2].Resize(dy.N, 1, 1, dy.C), dy, o, false)
		return
	}
	c.dx[0] = s.resize(c.dx[0], c.dy.N)
	_, _, direct := a.rows(s)
	dx := a.place(2, c.dx[0], s)
	a.scatter(c.dx[0], f(dx, dy, o, c.add[0] && direct), s, c.add[0], c.workers)
}

// check reports dimensions that are not s's, or that are there twice.
func (a *arrangement) check(s Shape) error {
	for i, d := range a.axes {
		if d < 0 || d >= len(s) || slices.Contains(a.axes[:i], d) {
			return errAxes(a.axes, s)
		}
	}
	if len(a.axes) == 0 {
		return errAxes(a.axes, s)
	}
	return nil
}
