package graph

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
)

// Compose is the network with each chain of convolutions multiplied out to the one
// convolution that it equals, in float64 and rounded once: the network as it was before a
// compression, but for what that lost. Its state dict has the original's names. g stays as
// it is, and shares all other operations with the result.
func (g *Graph) Compose() (*Graph, error) {
	out := g.Clone()
	for _, n := range out.Nodes {
		c := n.Conv()
		if c == nil || len(c.Chain.Stages) == 1 {
			continue
		}
		k, err := c.Chain.Kernel()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n.Name, err)
		}
		n.Op = &Conv{Chain: conv.NewDense(k), Linear: c.Linear}
	}
	return out, nil
}
