package graph

import (
	"encoding/json"
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

// Op is the operation of a node. The set is closed: one file of this package a kind, with
// its rule of shapes and its forward and backward pass. An Op is not written to once it
// is in a graph; edits put another in its place, so that graphs can share them.
type Op interface {
	// Kind is what printed graphs and files call the operation.
	Kind() string
	// Shape is the shape of the output for those of the inputs. The error wraps
	// ErrShape and need not name the node.
	Shape(in []Shape) (Shape, error)
	// kernel prepares the operation for running alone.
	kernel(mode mode) (kernel, error)
}

// mode says what a kernel is prepared for.
type mode struct {
	// train is set where a backward pass may follow.
	train bool
}

// kernel is an operation, or several in one, prepared for running. It may keep memory
// from one call to the next, and is not used by two goroutines at a time.
type kernel interface {
	// forward computes c.out, which it resizes, from c.in.
	forward(c *call) error
}

// differentiable is a kernel with a backward pass.
type differentiable interface {
	kernel
	// needs tells whether backward reads input i of the forward pass, or, of -1, the
	// output. The others may be overwritten before.
	needs(i int) bool
	// backward computes, from c.dy, the gradients c.dx of the inputs that are wanted,
	// and those of the parameters. It may overwrite c.dy.
	backward(c *call) error
}

// inPlace is a kernel that can write its output over its first input.
type inPlace interface{ inPlace() bool }

// passing is a differentiable kernel that leaves in c.dy the gradient of one of its
// inputs: where c.dx of that input is c.dy nothing is to be done.
type passing interface{ passes() int }

// call is what a kernel works on.
type call struct {
	in      []*conv.Map
	out     *conv.Map
	shapes  []Shape // of one element of each input
	shape   Shape   // of the output
	batch   int     // elements of what has no inputs
	workers int

	// Of the backward pass: dx is nil for inputs whose gradient is not wanted; where add
	// is set dx holds a gradient already, to which the kernel adds.
	dy  *conv.Map
	dx  []*conv.Map
	add []bool

	scratch *scratch
}

// scratch is memory that a kernel may use within one call.
type scratch struct {
	maps   [2]*conv.Map
	stages [2]*conv.Map
	// between are the maps between the stages of chains that keep nothing.
	between []*conv.Map
}

// contribute adds the gradient that f computes to c.dx[i]: f writes to what it gets, and
// returns it.
func (c *call) contribute(i int, f func(dst *conv.Map) *conv.Map) {
	if c.dx[i] == nil {
		return
	}
	if !c.add[i] {
		c.dx[i] = f(c.dx[i])
		return
	}
	c.scratch.maps[1] = f(c.scratch.maps[1])
	nn.Add(c.dx[i], c.scratch.maps[1], c.workers)
}

// kinds makes an empty operation of each kind, for files.
var kinds = map[string]func() Op{}

// register adds kinds to those that files may name.
func register(makers ...func() Op) {
	for _, m := range makers {
		kinds[m().Kind()] = m
	}
}

// decodeOp makes an operation of a kind from its attributes.
func decodeOp(kind string, attributes json.RawMessage) (Op, error) {
	m, ok := kinds[kind]
	if !ok {
		return nil, fmt.Errorf("%w: operation %q", ErrUnsupported, kind)
	}
	op := m()
	if len(attributes) > 0 {
		if err := json.Unmarshal(attributes, op); err != nil {
			return nil, fmt.Errorf("%w: attributes of %s: %w", ErrGraph, kind, err)
		}
	}
	return op, nil
}

// tensor is a parameter or a buffer of an operation.
type tensor struct {
	// suffix is what its name has behind the node's: "weight".
	suffix string
	shape  []int
	data   []float32
}

// parametric is an operation with tensors of its own, other than a convolution's.
type parametric interface {
	Op
	// tensors lists them. Buffers, which are not trained, come last.
	tensors() []tensor
	// with is a copy of the operation with tensors from a file, by their suffixes.
	with(get func(suffix string) (*tensor, error)) (Op, error)
	// trained is how many of tensors are parameters.
	trained() int
}

// one reports other than one input.
func one(in []Shape) (Shape, error) { return only(in, 1) }

// only reports another number of inputs than n and returns the first.
func only(in []Shape, n int) (Shape, error) {
	if len(in) != n {
		return nil, fmt.Errorf("%w: %d inputs, want %d", ErrShape, len(in), n)
	}
	return in[0], nil
}
