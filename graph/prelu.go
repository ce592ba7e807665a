package graph

import (
	"fmt"

	"github.com/lowrank-go/lowrank/internal/nn"
)

func init() { register(func() Op { return &PReLU{} }) }

// PReLU multiplies negative values by a slope, which is learned (He et al. 2015).
type PReLU struct {
	// Weight has a slope for each channel, or one for all.
	Weight []float32 `json:"-"`
}

// Kind is "prelu".
func (*PReLU) Kind() string { return "prelu" }

// Shape is the input's.
func (p *PReLU) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	if len(x) < 1 || len(x) > 3 || len(p.Weight) != 1 && len(p.Weight) != x[0] {
		return nil, fmt.Errorf("%w: %d slopes for %v", ErrShape, len(p.Weight), x)
	}
	return x, nil
}

func (p *PReLU) tensors() []tensor {
	return []tensor{{"weight", []int{len(p.Weight)}, p.Weight}}
}
func (*PReLU) trained() int { return 1 }

func (*PReLU) with(get func(string) (*tensor, error)) (Op, error) {
	t, err := get("weight")
	if err != nil {
		return nil, err
	}
	return &PReLU{t.data}, nil
}

func (p *PReLU) kernel(m mode) (kernel, error) {
	return &prelu{newLearned(p.tensors(), Weight)}, nil
}

type prelu struct{ *learned }

func (k *prelu) op() Op         { return &PReLU{k.snapshot(0)} }
func (*prelu) inPlace() bool    { return true }
func (*prelu) needs(i int) bool { return i == 0 }

func (k *prelu) forward(c *call) error {
	c.out = nn.PReLU(c.out, c.in[0], k.value(0), c.workers)
	return nil
}

func (k *prelu) backward(c *call) error {
	dx, add := c.dx[0], c.add[0]
	if dx == nil {
		dx, add = c.scratch.maps[0], false
	}
	dx = nn.PReLUBackward(dx, c.dy, c.in[0], k.value(0), k.gradient(0), add, c.workers)
	if c.dx[0] == nil {
		c.scratch.maps[0] = dx
	} else {
		c.dx[0] = dx
	}
	return nil
}
