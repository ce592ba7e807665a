package adapt

import (
	"fmt"
	"math/rand/v2"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
)

// residualSerial is the residual adapter of Rebuffi et al. (2018) as it was released:
// behind the convolution c, y + A∗BN(y) with a 1×1 convolution A. A is zero at first, so
// that the unit is what it was.
func residualSerial(c *conv.Chain, _ []int, _ *rand.Rand) *graph.Module {
	outs := c.Out()
	return &graph.Module{Place: graph.Serial, Scale: 1, Steps: []graph.ModuleStep{
		{Norm: graph.NewBatchNorm(outs)},
		{Chain: graph.NewConv([4]int{outs, outs, 1, 1}, conv.Geometry{}, false)},
	}}
}

// bottleneck is a convolution of c's size that reduces the channels to 1/rank of them,
// each a group of its own, ReLU, and a 1×1 convolution to c's outputs, beside c
// (Conv-Adapter, Chen et al. 2022, in Houlsby's order; its scales of the outputs are in the
// last convolution here, which is zero at first, where theirs is not). Where rank does not
// divide the channels the divisor next to it does.
func bottleneck(c *conv.Chain, rank []int, rng *rand.Rand) *graph.Module {
	shape, g := c.Shape()
	in := c.In()
	gamma := nearestDivisor(in, rank[0])
	inner := in / gamma
	g.Groups = inner
	first := graph.NewConv([4]int{inner, gamma, shape[2], shape[3]}, g, true)
	graph.SetNormal(first.Stages[0], rng)
	return &graph.Module{Place: graph.Parallel, Scale: 1, Steps: []graph.ModuleStep{
		{Chain: first, ReLU: true},
		{Chain: graph.NewConv([4]int{c.Out(), inner, 1, 1}, conv.Geometry{}, true)},
	}}
}

// chapter is CHAPTER's adapter (Chen et al. 2023) for networks on images: a copy of the
// unit, its convolution along the rows' axis alone, with a batch norm of its own and ReLU,
// added to the unit's output. The scale is 1: with the published 0.01 it does nothing in
// as short a training as adapters usually get.
//
// The published convolution is zero at first. That works with their GELU, and for ever
// stays zero with ReLU, which passes no gradient at 0. So the convolution is random here,
// and a scale for each channel behind ReLU, a convolution of its own, is zero.
func chapter(c *conv.Chain, _ []int, rng *rand.Rand) *graph.Module {
	shape, g := c.Shape()
	outs := c.Out()
	g.Groups, g.Padding[1], g.Extra[1], g.Dilation[1] = 1, 0, 0, 1
	first := graph.NewConv([4]int{outs, c.In(), shape[2], 1}, g, false)
	graph.SetNormal(first.Stages[0], rng)
	return &graph.Module{Place: graph.After, Scale: 1, Steps: []graph.ModuleStep{
		{Chain: first, Norm: graph.NewBatchNorm(outs), ReLU: true},
		{Chain: graph.NewConv([4]int{outs, 1, 1, 1}, conv.Geometry{Groups: outs}, false)},
	}}
}

// nearestDivisor is the divisor of n next to want, the smaller of two.
func nearestDivisor(n, want int) int {
	best := 1
	for d := 1; d <= n; d++ {
		if n%d == 0 && max(d-want, want-d) < max(best-want, want-best) {
			best = d
		}
	}
	return best
}

// addModules puts the method's modules beside chosen convolutions of Base.
func (n *Network) addModules(m method, chosen []graph.Site, rng *rand.Rand) error {
	o := n.Options
	switch {
	case o.DoRA || o.Learned:
		return fmt.Errorf("%w: learned norms or a learned λ; method %s changes no kernel", ErrOption, o.Method)
	case n.Base.HasModules():
		return fmt.Errorf("%w: the network has modules of an adapter already; method %s adds some to networks without", ErrOption, o.Method)
	}
	n.extension.Modules = map[string][]graph.ModuleSpec{}
	for _, s := range chosen {
		module := m.module(s.Chain, o.Rank, rng)
		if o.Alpha != 0 {
			module.Scale = o.Alpha
		}
		if err := n.Base.AddModule(s.Name, module); err != nil {
			return err
		}
		n.extension.Modules[s.Name] = []graph.ModuleSpec{module.Spec()}
	}
	return nil
}
