package graph

import (
	"fmt"
	"math"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

func init() { register(func() Op { return &BatchNorm{} }) }

// BatchNorm is a batch norm over channels (Ioffe and Szegedy 2015): in eval mode
// y = (x − Mean)/√(Var + Eps)·Weight + Bias.
type BatchNorm struct {
	Weight, Bias, Mean, Var []float32 `json:"-"`
	// Batches is the num_batches_tracked buffer, where there was one.
	Batches *int64  `json:"-"`
	Eps     float64 `json:"eps"`
	// Folded is set where an exporter folded the norm into the convolution before it, and
	// this one only adds the bias that came of it.
	Folded bool `json:"folded,omitempty"`
}

// NewBatchNorm is one of ones and zeros, which changes nothing but by Eps, 1e-5.
func NewBatchNorm(channels int) *BatchNorm {
	m := &BatchNorm{Eps: 1e-5, Batches: new(int64),
		Weight: make([]float32, channels), Bias: make([]float32, channels), Mean: make([]float32, channels), Var: make([]float32, channels)}
	for i := range channels {
		m.Weight[i], m.Var[i] = 1, 1
	}
	return m
}

// Kind is "batchnorm".
func (*BatchNorm) Kind() string { return "batchnorm" }

// Shape is the input's.
func (m *BatchNorm) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	if len(x) < 1 || len(x) > 3 || x[0] != len(m.Weight) {
		return nil, fmt.Errorf("%w: %d channels for %v", ErrShape, len(m.Weight), x)
	}
	for _, v := range [][]float32{m.Bias, m.Mean, m.Var} {
		if len(v) != len(m.Weight) {
			return nil, fmt.Errorf("%w: a batch norm of %d scales and %d values", ErrShape, len(m.Weight), len(v))
		}
	}
	return x, nil
}

func (m *BatchNorm) tensors() []tensor {
	c := []int{len(m.Weight)}
	return []tensor{{"weight", c, m.Weight}, {"bias", c, m.Bias}, {"running_mean", c, m.Mean}, {"running_var", c, m.Var}}
}

func (*BatchNorm) trained() int { return 2 }

func (m *BatchNorm) with(get func(string) (*tensor, error)) (Op, error) {
	out := *m
	for suffix, dst := range map[string]*[]float32{"weight": &out.Weight, "bias": &out.Bias, "running_mean": &out.Mean, "running_var": &out.Var} {
		t, err := get(suffix)
		if err != nil {
			return nil, err
		}
		*dst = t.data
	}
	for i, v := range out.Var {
		if v < 0 {
			return nil, tensorError(fmt.Sprintf("running_var is negative, %g, at channel %d", v, i))
		}
	}
	return &out, nil
}

// Clone is a norm in memory of its own.
func (m *BatchNorm) Clone() *BatchNorm {
	own := *m
	own.Weight, own.Bias = slices.Clone(m.Weight), slices.Clone(m.Bias)
	own.Mean, own.Var = slices.Clone(m.Mean), slices.Clone(m.Var)
	if m.Batches != nil {
		b := *m.Batches
		own.Batches = &b
	}
	return &own
}

// Affine is the norm in eval mode as a scale and a shift of each channel.
func (m *BatchNorm) Affine() (scale, shift []float64) {
	scale, shift = make([]float64, len(m.Weight)), make([]float64, len(m.Weight))
	for i := range scale {
		scale[i] = float64(m.Weight[i]) / math.Sqrt(float64(m.Var[i])+m.Eps)
		shift[i] = float64(m.Bias[i]) - float64(m.Mean[i])*scale[i]
	}
	return scale, shift
}

// fold is the chain with the norm folded into its last stage, in float64 and rounded
// once.
func (m *BatchNorm) fold(c *conv.Chain) (*conv.Chain, error) {
	if m == nil {
		return c, nil
	}
	scale, shift := m.Affine()
	last, err := c.Last().ScaleOutputs(scale, shift)
	if err != nil {
		return nil, err
	}
	out := *c
	out.Stages = append(append([]*conv.Kernel(nil), c.Stages[:len(c.Stages)-1]...), last)
	return &out, nil
}

// running is m for running alone: its memory is not written to.
func (m *BatchNorm) running() *nn.BatchNorm {
	return &nn.BatchNorm{Weight: m.Weight, Bias: m.Bias, Mean: m.Mean, Var: m.Var, Momentum: .1, Eps: m.Eps}
}

func (*BatchNorm) kernel(mode) (kernel, error) {
	return nil, fmt.Errorf("%w: a batch norm is a step of its own", ErrGraph)
}
