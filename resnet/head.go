package resnet

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
)

// SetHead gives the network a new head of random weights for another number of
// classes.
func (n *Net) SetHead(classes int, seed uint64) error {
	if err := n.validateClasses(classes); err != nil {
		return err
	}
	n.Head, n.Classes = n.randomHead(classes, seed), classes
	return nil
}

// randomHead is a head of random weights for n.
func (n *Net) randomHead(classes int, seed uint64) *Unit {
	return newHead(n.Head.Name, n.Head.Chain.In(), classes, rand.New(rand.NewPCG(seed, 0x68656164)))
}

// ExtendHead gives the head outputs for more classes behind those that it has, which it
// keeps to the bit; the new rows are what SetHead(more, seed) would make. The error wraps
// ErrUnknown, or conv.ErrShape where the head is a chain; n is then as it was.
func (n *Net) ExtendHead(more int, seed uint64) error {
	if more < 1 {
		return fmt.Errorf("%w: %d more classes; want 1 or more", ErrUnknown, more)
	}
	if err := n.validateClasses(n.Classes + more); err != nil {
		return err
	}
	k, err := n.head()
	if err != nil {
		return err
	}
	add := n.randomHead(more, seed).Chain.Stages[0]
	bias := k.Bias
	if bias == nil {
		bias = make([]float32, k.Out())
	}
	n.setHead(slices.Concat(k.Weight, add.Weight), slices.Concat(bias, add.Bias))
	return nil
}

// Outputs is a copy of n with those outputs alone that are from first to last, exclusive,
// of n.Classes; weights are shared with n. The error wraps ErrUnknown where there are no
// such outputs, and conv.ErrShape where the head is a chain.
func (n *Net) Outputs(first, last int) (*Net, error) {
	if first < 0 || last <= first || last > n.Classes {
		return nil, fmt.Errorf("%w: outputs %d to %d; want some from 0 to %d", ErrUnknown, first, last, n.Classes)
	}
	k, err := n.head()
	if err != nil {
		return nil, err
	}
	out := n.Clone()
	bias := k.Bias
	if bias != nil {
		bias = bias[first:last:last]
	}
	out.setHead(k.Weight[first*k.In():last*k.In():last*k.In()], bias)
	return out, nil
}

// head is the head's kernel, whose rows are the outputs.
func (n *Net) head() (*conv.Kernel, error) {
	if c := n.Head.Chain; c.Kind != conv.Dense {
		return nil, fmt.Errorf("%w: the head %s is a chain of kind %s; its outputs can be chosen before it is compressed", conv.ErrShape, n.Head.Name, c.Kind)
	}
	return n.Head.Chain.Stages[0], nil
}

// setHead gives n a head with other rows.
func (n *Net) setHead(weight, bias []float32) {
	in := n.Head.Chain.In()
	n.Classes = len(weight) / in
	n.Head = &Unit{Name: n.Head.Name, Chain: conv.NewDense(&conv.Kernel{
		Shape: [4]int{n.Classes, in, 1, 1}, Weight: weight, Bias: bias, Geometry: conv.Geometry{}.Normal()})}
}
