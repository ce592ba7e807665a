package adapt

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/ranks"
)

// Source is what ranks are chosen by.
type Source string

// The sources.
const (
	Kernel   Source = "kernel"   // the frozen kernel
	Gradient Source = "gradient" // Options.Gradients: what the task asks of the kernel
)

// Choice chooses the ranks of each kernel, in place of the same everywhere: by one of Rule,
// Params and MACs, or, as the zero value, by none.
type Choice struct {
	// Rule is peft.ChooseRanks's.
	Rule *peft.Rule
	// Params, where above 0, is the number of trained values of all changes together,
	// beside the head and norms. Every layer has at least rank 1; what is left raises ranks
	// where it gains most for its cost, as ranks.Allocate and peft.NewLayer say.
	Params int64
	// MACs likewise bounds the multiply-accumulates of all chains on one image, for kinds
	// that have one (peft.Spec.MACs); whether a change runs as one is another matter.
	MACs int64
	// Of is what this looks at; "" is Kernel.
	Of Source
}

func (c *Choice) made() bool { return c.Rule != nil || c.Params != 0 || c.MACs != 0 }

// checkChoice reports a choice that contradicts itself, other options or the method.
func (o *Options) checkChoice(m method) error {
	c := &o.Choose
	given := 0
	for _, is := range []bool{len(o.Rank) > 0, c.Rule != nil, c.Params != 0, c.MACs != 0} {
		if is {
			given++
		}
	}
	switch {
	case given > 1:
		return fmt.Errorf("%w: ranks %v, rule %v, %d parameters and %d MACs; want one of them", ErrOption, o.Rank, c.Rule, c.Params, c.MACs)
	case c.Params < 0 || c.MACs < 0:
		return fmt.Errorf("%w: a budget of %d parameters, %d MACs; want a number from 1", ErrOption, c.Params, c.MACs)
	case c.Of != "" && c.Of != Kernel && c.Of != Gradient:
		return fmt.Errorf("%w: ranks of %q; want %s or %s", ErrOption, c.Of, Kernel, Gradient)
	case c.Of != "" && !c.made():
		return fmt.Errorf("%w: ranks of the %s, but nothing that chooses them by it", ErrOption, c.Of)
	case c.made() && (m.kind == "" || len(m.rank) == 0 || m.kind == peft.LoKr):
		return fmt.Errorf("%w: method %s has no ranks to choose", ErrOption, o.Method)
	}
	return nil
}

// choose sets the ranks of all kernels.
func (o *Options) choose(ctx context.Context, sites []site) error {
	c := o.Choose
	var layers []ranks.Layer
	for i := range sites {
		s := &sites[i]
		x := s.base
		if c.Of == Gradient {
			x = o.Gradients[s.Name]
		}
		var err error
		if c.Rule != nil {
			s.spec.Rank, err = peft.ChooseRanks(ctx, s.spec, x, *c.Rule)
		} else {
			layers, err = c.layer(layers, s, x)
		}
		if err != nil {
			return asOption(s.Name, err)
		}
	}
	if c.Rule != nil {
		return nil
	}
	chosen, err := ranks.Allocate(c.Params+c.MACs, layers) // one of them is 0
	if err != nil {
		what := "MACs"
		if c.Params > 0 {
			what = "parameters"
		}
		return asOption("a budget of "+what, err)
	}
	for i, r := range chosen {
		sites[i].spec.Rank = r
	}
	return nil
}

// layer appends what a budget needs to know of a kernel.
func (c *Choice) layer(to []ranks.Layer, s *site, x []float32) ([]ranks.Layer, error) {
	l, err := peft.NewLayer(s.spec, x)
	if err != nil {
		return nil, err
	}
	l.Least = 1
	if c.MACs > 0 {
		l.Cost = func(rank []int) int64 {
			spec := s.spec
			spec.Rank = rank
			return spec.MACs(s.H, s.W)
		}
		one := slices.Repeat([]int{1}, len(l.Singular))
		if l.Tied {
			one = append(one, 1)
		}
		if l.Cost(one) == 0 {
			return nil, fmt.Errorf("%w: %s has no chain of convolutions to count", peft.ErrSpec, s.spec.Kind)
		}
	}
	return append(to, l), nil
}

// asOption makes an error about a description, or about what cannot be fitted, one about
// options.
func asOption(what string, err error) error {
	if errors.Is(err, peft.ErrSpec) || errors.Is(err, peft.ErrLossy) || errors.Is(err, ranks.ErrBudget) {
		return fmt.Errorf("%w: %s: %w", ErrOption, what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
