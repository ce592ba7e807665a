package graph

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
)

// ParamKind tells what a parameter is, for those who treat kinds differently.
type ParamKind int

// The kinds of parameter.
const (
	Weight ParamKind = iota // of a convolution, of a stage of a chain, of the head; slopes of activations
	Bias
	Gain   // of a norm, its weight
	Shift  // of a norm, its bias
	Factor // of an Adaption
)

// String is the kind's name.
func (k ParamKind) String() string {
	return [...]string{"weight", "bias", "gain", "shift", "factor"}[k]
}

// Param is a tensor that training changes, and its gradient. Value and Grad are the
// learner's own memory, in an order of its own and with zeros in between that stay zero
// where the gradient alone is applied value by value; Export and Import translate to the
// order of the state dict.
type Param struct {
	Name string // in the state dict
	Kind ParamKind
	// Unit is the name of the convolution that the parameter belongs to, or that its
	// batch norm or adapter does; of another operation the node's.
	Unit string
	// Module is set for the parameters of adapters' own layers, see AddModule.
	Module      bool
	Value, Grad []float32

	stack *conv.Stack // of weights and biases of convolutions
	stage int
}

// Len is the number of values in the state dict.
func (p *Param) Len() int {
	if p.stack == nil {
		return len(p.Value)
	}
	if p.Kind == Bias {
		shape, _ := p.stack.Stage(p.stage)
		return shape[0]
	}
	return p.stack.Values(p.stage)
}

// Export is values in the order of Value, be it the parameter, its gradient or an
// optimiser's memory of it, in the order of the state dict, newly allocated.
func (p *Param) Export(values []float32) ([]float32, error) {
	switch {
	case p.stack == nil:
		return append([]float32(nil), values...), nil
	case p.Kind == Bias:
		return p.stack.Biases(p.stage, values), nil
	}
	return p.stack.Export(p.stage, values)
}

// Import is the inverse of Export: it writes dst, which has the length of Value.
func (p *Param) Import(dst, values []float32) error {
	var err error
	switch {
	case p.stack == nil && len(values) != len(dst):
		err = fmt.Errorf("%w: %d values, want %d", conv.ErrShape, len(values), len(dst))
	case p.stack == nil:
		copy(dst, values)
	case p.Kind == Bias:
		err = p.stack.SetBiases(p.stage, dst, values)
	default:
		err = p.stack.Import(p.stage, dst, values)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	return nil
}
