package peft

import "strings"

// term is an array in the description of a ΔW: a factor that is learned, a fixed
// array, the frozen kernel, a contraction of two terms or a sum of two. Its labels
// name its axes; those of a leaf are grouped by spaces into the dimensions of the
// tensor that files hold, which is the same memory.
type term struct {
	name   string // of a factor
	labels string
	zero   bool             // a factor that starts at zero
	fixed  func() []float64 // the values of a fixed array, made when they are needed
	base   bool             // the frozen kernel
	x, y   *term            // of what is computed
	sum    bool             // x + y rather than a contraction
}

func factor(name, labels string) *term { return &term{name: name, labels: labels} }

// output is the factor of a product that starts at zero.
func output(name, labels string) *term { return &term{name: name, labels: labels, zero: true} }

func fixed(labels string, values func() []float64) *term { return &term{labels: labels, fixed: values} }

// times is the contraction of t and u to an array with the labels.
func (t *term) times(u *term, labels string) *term { return &term{labels: labels, x: t, y: u} }

// plus is the sum of two arrays of the same labels.
func (t *term) plus(u *term) *term { return &term{labels: t.labels, x: t, y: u, sum: true} }

// axes are the labels without the grouping.
func (t *term) axes() string { return strings.ReplaceAll(t.labels, " ", "") }

// shape is that of the tensor of a leaf.
func (t *term) shape(sizes map[byte]int) []int {
	var s []int
	for _, word := range strings.Fields(t.labels) {
		s = append(s, size(word, sizes))
	}
	return s
}

// node is a term with its memory: of factors from the start, of all else from the
// first use, for a kernel may be far larger than its factors.
type node[T Float] struct {
	*term
	length      int
	x, y        *node[T]
	value, grad []T
	factor      *Factor[T] // of a factor
	learned     bool       // a factor, or computed from one
	forward     *contraction[T]
	toX, toY    *contraction[T] // the gradients of the operands
}

// network computes an array from factors, and the factors' gradients from the
// array's: reverse-mode differentiation of a tree of contractions, whose gradients
// are contractions themselves. A factor stands in one place only.
type network[T Float] struct {
	root    *node[T]
	factors []*Factor[T]
	bases   []*node[T]
	build   int64 // multiply-accumulates of forward
}

func newNetwork[T Float](t *term, sizes map[byte]int) *network[T] {
	n := &network[T]{}
	n.root = n.add(t, sizes)
	return n
}

func (n *network[T]) add(t *term, sizes map[byte]int) *node[T] {
	v := &node[T]{term: t, length: size(t.axes(), sizes)}
	switch {
	case t.x != nil:
		v.x, v.y = n.add(t.x, sizes), n.add(t.y, sizes)
		v.learned = v.x.learned || v.y.learned
		if t.sum {
			break
		}
		a, b, out := t.x.axes(), t.y.axes(), t.axes()
		v.forward = newContraction[T](a, b, out, sizes)
		n.build += v.forward.macs()
		if v.x.learned {
			v.toX = newContraction[T](out, b, a, sizes)
		}
		if v.y.learned {
			v.toY = newContraction[T](out, a, b, sizes)
		}
	case t.base:
		n.bases = append(n.bases, v)
	case t.fixed != nil:
	default:
		v.learned = true
		v.value = make([]T, v.length)
		v.factor = &Factor[T]{Name: t.name, Shape: t.shape(sizes), Value: v.value}
		n.factors = append(n.factors, v.factor)
	}
	return v
}

// forward is the array for the factors as they are; the memory is the network's.
func (n *network[T]) forward(base []T) []T {
	n.prepare(base)
	n.root.combine()
	return n.root.value
}

// prepare computes all that backward reads: the operands of the root.
func (n *network[T]) prepare(base []T) {
	for _, b := range n.bases {
		b.value = base
	}
	n.root.x.compute()
	n.root.y.compute()
}

func (v *node[T]) compute() {
	if v.fixed != nil && v.value == nil {
		v.value = widen[T](v.fixed())
	}
	if v.x == nil {
		return
	}
	v.x.compute()
	v.y.compute()
	v.combine()
}

// combine computes v from its operands.
func (v *node[T]) combine() {
	if v.value == nil {
		v.value = make([]T, v.length)
	}
	if v.sum {
		for i, x := range v.x.value {
			v.value[i] = x + v.y.value[i]
		}
		return
	}
	v.forward.run(v.value, v.x.value, v.y.value)
}

// backward overwrites the gradients of the factors with those that follow from
// grad, the root's, for the values that forward or
// prepare left.
func (n *network[T]) backward(grad []T) { n.root.pull(grad) }

func (v *node[T]) pull(grad []T) {
	switch {
	case !v.learned:
	case v.factor != nil:
		copy(v.factor.Gradient(), grad)
	case v.sum:
		v.x.pull(grad)
		v.y.pull(grad)
	default:
		v.x.pullThrough(v.toX, grad, v.y)
		v.y.pullThrough(v.toY, grad, v.x)
	}
}

// pullThrough pulls through one operand of a contraction.
func (v *node[T]) pullThrough(c *contraction[T], grad []T, other *node[T]) {
	if c == nil {
		return
	}
	if v.factor != nil {
		c.run(v.factor.Gradient(), grad, other.value)
		return
	}
	if v.grad == nil {
		v.grad = make([]T, v.length)
	}
	c.run(v.grad, grad, other.value)
	v.pull(v.grad)
}

// walk visits v and the nodes below it, operands first.
func (v *node[T]) walk(visit func(*node[T])) {
	if v.x != nil {
		v.x.walk(visit)
		v.y.walk(visit)
	}
	visit(v)
}
