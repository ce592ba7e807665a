package graph

import (
	"context"
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

// Program is a network ready to run in eval mode, with its batch norms folded. It keeps
// its intermediate maps from one call to the next, so one program must not run on two
// goroutines at a time.
type Program struct {
	*machine
	net *Graph
}

// Compile prepares the network for running. The program does not follow later changes of
// the network.
func (g *Graph) Compile() (*Program, error) {
	run := g.Clone()
	if err := foldModules(run); err != nil {
		return nil, err
	}
	m, err := newMachine(run, false)
	if err != nil {
		return nil, err
	}
	for _, s := range m.steps {
		if s.kernel, err = s.running(); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	m.assign(func(int) bool { return false })
	return &Program{m, g.Clone()}, nil
}

// Graph is the network that the program was compiled from.
func (p *Program) Graph() *Graph { return p.net }

// Forward runs the network on x, N×H×W×C, and returns its first output, N×classes logits
// of a classifier, N×H×W×classes of a network that segments, which stays valid until the
// next call. workers 0 means GOMAXPROCS; the result does not depend on it.
func (p *Program) Forward(ctx context.Context, x *conv.Map, workers int) ([]float32, error) {
	if err := p.forward(ctx, x, workers); err != nil {
		return nil, err
	}
	return p.value[p.output[0]].Data, nil
}

func (p *Program) forward(ctx context.Context, x *conv.Map, workers int) error {
	if err := p.begin(x); err != nil {
		return err
	}
	return p.run(ctx, 0, len(p.steps), workers)
}

// Tensor is an output as other tools have it.
type Tensor struct {
	// Shape is that of the batch: its size, then the dimensions.
	Shape []int
	// Data is row-major: of a map N×C×H×W.
	Data []float32
}

// Run runs the network on x and returns all outputs, in the order of dimensions that
// PyTorch and ONNX give them, in memory of their own.
func (p *Program) Run(ctx context.Context, x *conv.Map, workers int) ([]Tensor, error) {
	if err := p.forward(ctx, x, workers); err != nil {
		return nil, err
	}
	var out []Tensor
	for _, v := range p.output {
		out = append(out, export(p.shapes[v], p.value[v]))
	}
	return out, nil
}

// export is a map as a row-major tensor.
func export(s Shape, m *conv.Map) Tensor {
	t := Tensor{Shape: append([]int{m.N}, s...), Data: make([]float32, m.N*s.Len())}
	flat := Shape{s.Len()}
	reorder(&conv.Map{N: m.N, H: 1, W: 1, C: flat[0], Data: t.Data}, m, flat, s, false, 1)
	return t
}

// running is the step's kernel in eval mode.
func (s *step) running() (kernel, error) {
	if !s.unit() {
		return s.node.Op.kernel(mode{})
	}
	u := &runningUnit{relu: s.relu, residual: s.residual}
	if s.conv == nil {
		u.norm = s.norm.BatchNorm().running()
		return u, nil
	}
	c := s.conv.Conv().Chain
	var err error
	if s.norm != nil {
		if c, err = s.norm.BatchNorm().fold(c); err != nil {
			return nil, fmt.Errorf("%s: %w", s.norm.Name, err)
		}
	}
	u.conv, err = conv.NewRunner(c)
	return u, err
}

// runningUnit is a unit in eval mode.
type runningUnit struct {
	conv     *conv.Runner  // with the norm folded in
	norm     *nn.BatchNorm // where there is no convolution
	residual bool
	relu     bool
}

func (u *runningUnit) inPlace() bool { return u.conv == nil }

func (u *runningUnit) forward(c *call) error {
	var residual *conv.Map
	if u.residual {
		residual = c.in[1]
	}
	if u.conv == nil {
		c.out = u.norm.ForwardFixed(c.out, c.in[0], residual, u.relu, c.workers)
		return nil
	}
	var err error
	c.out, err = u.conv.Forward(c.out, c.in[0], conv.Epilogue{Residual: residual, ReLU: u.relu}, c.workers)
	return err
}
