package graph

import (
	"fmt"

	"github.com/lowrank-go/lowrank/internal/nn"
)

func init() { register(func() Op { return &LRN{} }) }

// LRN divides each value by a power of the mean square of neighbouring channels, local
// response normalisation (Krizhevsky et al. 2012), as PyTorch and ONNX do:
// y[c] = x[c]/(Bias + Alpha/Size·Σx[i]²)^Beta over Size channels around c.
type LRN struct {
	Size  int     `json:"size"`
	Alpha float64 `json:"alpha"`
	Beta  float64 `json:"beta"`
	Bias  float64 `json:"bias"`
}

// Kind is "lrn".
func (*LRN) Kind() string { return "lrn" }

func (l *LRN) function() *nn.LRN {
	return &nn.LRN{Size: l.Size, Alpha: l.Alpha, Beta: l.Beta, Bias: l.Bias}
}

// Shape is the input's.
func (l *LRN) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	if len(x) < 1 || len(x) > 3 || l.Size > mostValues {
		return nil, fmt.Errorf("%w: %d channels of %v", ErrShape, l.Size, x)
	}
	return x, l.function().Validate()
}

func (l *LRN) kernel(mode) (kernel, error) { return lrn{l.function()}, nil }

type lrn struct{ f *nn.LRN }

func (lrn) inPlace() bool    { return true }
func (lrn) needs(i int) bool { return i == 0 }

func (k lrn) forward(c *call) error {
	c.out = k.f.Forward(c.out, c.in[0], c.workers)
	return nil
}

func (k lrn) backward(c *call) error {
	if c.dx[0] != nil {
		c.dx[0] = k.f.Backward(c.dx[0], c.dy, c.in[0], c.add[0], c.workers)
	}
	return nil
}
