package graph

import (
	"github.com/lowrank-go/lowrank/internal/nn"
)

func init() { register(func() Op { return &Activation{} }) }

// Names of activations that networks are built with; package nn has them all, with what
// Alpha and Beta mean.
const (
	ReLU        = string(nn.ReLU)
	Clip        = string(nn.Clip) // ReLU6 with an Alpha of 0 and a Beta of 6
	LeakyReLU   = string(nn.LeakyReLU)
	Sigmoid     = string(nn.Sigmoid)
	HardSigmoid = string(nn.HardSigmoid)
	HardSwish   = string(nn.HardSwish)
	SiLU        = string(nn.SiLU)
	Tanh        = string(nn.Tanh)
)

// Activation applies a function to each value by itself.
type Activation struct {
	Name  string  `json:"name"`
	Alpha float64 `json:"alpha,omitempty"`
	Beta  float64 `json:"beta,omitempty"`
}

// Kind is "activation".
func (*Activation) Kind() string { return "activation" }

func (a *Activation) function() nn.Activation {
	return nn.Activation{Kind: nn.ActivationKind(a.Name), Alpha: a.Alpha, Beta: a.Beta}
}

// Shape is the input's.
func (a *Activation) Shape(in []Shape) (Shape, error) {
	if err := a.function().Validate(); err != nil {
		return nil, err
	}
	return one(in)
}

func (a *Activation) kernel(mode) (kernel, error) { return activation{a.function()}, nil }

type activation struct{ f nn.Activation }

func (k activation) inPlace() bool { return true }

func (k activation) needs(i int) bool {
	if i < 0 {
		return k.f.NeedsOutput()
	}
	return k.f.NeedsInput()
}

func (k activation) forward(c *call) error {
	c.out = k.f.Forward(c.out, c.in[0], c.workers)
	return nil
}

func (k activation) backward(c *call) error {
	if c.dx[0] != nil {
		c.dx[0] = k.f.Backward(c.dx[0], c.dy, c.in[0], c.out, c.add[0], c.workers)
	}
	return nil
}
