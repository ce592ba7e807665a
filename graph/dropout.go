package graph

import "github.com/lowrank-go/lowrank/internal/nn"

func (d *Dropout) kernel(mode) (kernel, error) { return &dropping{of: nn.Dropout{Rate: d.Rate}}, nil }

// dropping is dropout in training. Each forward pass has a seed, from which the backward
// pass knows what was dropped.
type dropping struct {
	of   nn.Dropout
	last uint64
}

func (k *dropping) seed(seed uint64) { k.last = seed }

func (*dropping) needs(int) bool { return false }

func (k *dropping) forward(c *call) error {
	c.out = k.of.Forward(c.out, c.in[0], k.last, c.workers)
	return nil
}

func (k *dropping) backward(c *call) error {
	if c.dx[0] != nil {
		c.dx[0] = k.of.Backward(c.dx[0], c.dy, k.last, c.add[0], c.workers)
	}
	return nil
}
