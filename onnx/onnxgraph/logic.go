package onnxgraph

import (
	"fmt"

	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/onnx"
)

// opLogic imports operators whose values are true or false, which are 1 and 0 in networks.
func opLogic(c *nodeContext) ([]*value, error) {
	op := c.n.GetOpType()
	if op == "Where" {
		return opWhere(c)
	}
	for i := range c.in {
		v, err := c.value(i)
		if err != nil {
			return nil, err
		}
		if logic := op == "Not" || op == "And" || op == "Or"; v.node != nil && logic != c.truths[v.node] {
			return nil, fmt.Errorf("%w: truth values and numbers", onnx.ErrUnsupported)
		}
	}
	not := func(x *graph.Node) (*graph.Node, error) {
		return c.add(c.name(), &graph.Activation{Name: "linear", Alpha: -1, Beta: 1}, x)
	}
	var x *graph.Node
	var err error
	switch op {
	case "Not":
		if x, _, err = c.input(0); err == nil {
			x, err = not(x)
		}
	case "LessOrEqual", "GreaterOrEqual":
		other := graph.Greater
		if op == "GreaterOrEqual" {
			other = graph.Less
		}
		if x, err = c.two(c.unique(c.n.Output[0]+".not"), other); err == nil {
			x, err = not(x)
		}
	default:
		x, err = c.two(c.name(), map[string]graph.BinaryOp{
			"Equal": graph.Equal, "Less": graph.Less, "Greater": graph.Greater, "And": graph.Mul, "Or": graph.Max,
		}[op])
	}
	if err != nil {
		return nil, err
	}
	c.truths[x] = true
	return []*value{{node: x}}, nil
}

// two adds an operation of the first two inputs.
func (c *nodeContext) two(name string, op graph.BinaryOp) (*graph.Node, error) {
	a, err := c.value(0)
	if err != nil {
		return nil, err
	}
	b, err := c.value(1)
	if err != nil {
		return nil, err
	}
	return c.combine(name, op, a, b)
}

// opWhere is t·a + (1 − t)·b of truth values t, which are 0 and 1. It differs from the
// definition where what is not chosen is not finite.
func opWhere(c *nodeContext) ([]*value, error) {
	var in [3]*value
	for i := range in {
		var err error
		if in[i], err = c.value(i); err != nil {
			return nil, err
		}
	}
	if in[0].node != nil && !c.truths[in[0].node] {
		return nil, fmt.Errorf("%w: numbers as truth values", onnx.ErrUnsupported)
	}
	base := c.unique(c.n.Output[0])
	step := func(suffix string, op graph.BinaryOp, a, b *value) (*value, error) {
		if a.array != nil && b.array != nil {
			v, err := combine(pairs[binaries[op]], a.array, b.array)
			return &value{array: v}, err
		}
		n, err := c.combine(c.unique(base+suffix), op, a, b)
		return &value{node: n}, err
	}
	one := &value{array: &array{floats: []float32{1}}}
	other, err := step(".not", graph.Sub, one, in[0])
	if err != nil {
		return nil, err
	}
	a, err := step(".then", graph.Mul, in[1], in[0])
	if err != nil {
		return nil, err
	}
	b, err := step(".else", graph.Mul, in[2], other)
	if err != nil {
		return nil, err
	}
	v, err := step(".where", graph.Add, a, b)
	return []*value{v}, err
}
