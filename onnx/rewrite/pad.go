package rewrite

import (
	"github.com/lowrank-go/lowrank/conv"
)

// filled is a chain with the channels between its stages filled up with zeros to
// multiples of block: the same function, which runtimes that compute whole blocks of
// channels run quicker. Chains in groups stay as they are.
func filled(c *conv.Chain, block int) *conv.Chain {
	if block < 2 || max(c.Groups, 1) > 1 {
		return c
	}
	out := *c
	out.Stages = make([]*conv.Kernel, len(c.Stages))
	up := func(n int) int { return (n + block - 1) / block * block }
	for i, s := range c.Stages {
		own := *s
		if depthwise := s.Shape[1] == 1 && s.Groups > 1 && s.Groups == s.Shape[0]; depthwise {
			own.Shape[0] = up(s.Shape[0])
			own.Groups = own.Shape[0]
		} else {
			if i > 0 {
				own.Shape[1] = up(s.Shape[1])
			}
			if i < len(c.Stages)-1 {
				own.Shape[0] = up(s.Shape[0])
			}
		}
		own.Weight = make([]float32, own.Shape[0]*own.Shape[1]*own.Taps())
		row, wide := s.Shape[1]*s.Taps(), own.Shape[1]*own.Taps()
		for o := range s.Shape[0] {
			copy(own.Weight[o*wide:], s.Weight[o*row:(o+1)*row])
		}
		out.Stages[i] = &own
	}
	return &out
}
