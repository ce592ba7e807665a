package graph

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
)

// Tap has f called with the input map of each named convolution or linear layer, in
// execution order, while the program runs: just before the step that the layer is part of,
// which may hold its batch norm, a residual and ReLU too. The map belongs to the program
// and is overwritten later; f must copy what it keeps. An error of f ends the run. A nil f
// takes the taps of the names away. The error wraps ErrGraph where the program runs no
// convolution of a name.
func (p *Program) Tap(names []string, f func(name string, in *conv.Map) error) error {
	steps := make(map[string]*step, len(p.steps))
	for _, s := range p.steps {
		if s.conv != nil {
			steps[s.name] = s
		}
	}
	for _, name := range names {
		if steps[name] == nil {
			return fmt.Errorf("%w: a tap at %q, of which the program runs no convolution", ErrGraph, name)
		}
	}
	for _, name := range names {
		steps[name].tap = f
	}
	return nil
}
