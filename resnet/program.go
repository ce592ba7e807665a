package resnet

import (
	"context"
	"fmt"
	"math"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

// Program is a network ready to run in eval mode, with its batch norms folded.
// It keeps its intermediate maps from one call to the next, so one program must
// not run on two goroutines at a time.
type Program struct {
	net    *Net
	stem   *runningUnit
	blocks []*runningBlock
	neck   *runningUnit // of a segmentation network
	head   *runningUnit
	pool   nn.MaxPool
	// Maps of the layer before, of the block's inner layers, and of the
	// shortcut; they rotate. pooled is the neck's where there is one.
	a, b, c, short, pooled *conv.Map
	logits, resized        *conv.Map
}

type runningBlock struct {
	units    []*runningUnit
	shortcut *runningUnit
	pad      bool // option A
	stride   int
}

// fold is the chain of u with its batch norm folded into the last stage, in
// float64 and rounded once.
func fold(u *Unit) (*conv.Chain, error) {
	if u.Norm == nil {
		return u.Chain, nil
	}
	n := u.Norm
	scale, shift := n.affine()
	last, err := u.Chain.Last().ScaleOutputs(scale, shift)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.Name, err)
	}
	c := *u.Chain
	c.Stages = append(append([]*conv.Kernel(nil), c.Stages[:len(c.Stages)-1]...), last)
	return &c, nil
}

// affine is the norm as a scale and a shift of each channel.
func (m *Norm) affine() (scale, shift []float64) {
	scale, shift = make([]float64, len(m.Weight)), make([]float64, len(m.Weight))
	for i := range scale {
		scale[i] = float64(m.Weight[i]) / math.Sqrt(float64(m.Var[i])+m.Eps)
		shift[i] = float64(m.Bias[i]) - float64(m.Mean[i])*scale[i]
	}
	return scale, shift
}

// Compile prepares the network for running. The program does not follow later
// changes of the network.
func (n *Net) Compile() (*Program, error) {
	failed := n.checkModules()
	runner := func(u *Unit) *runningUnit {
		if u == nil || failed != nil {
			return nil
		}
		r, err := newRunningUnit(u)
		if err != nil {
			failed = fmt.Errorf("%s: %w", u.Name, err)
		}
		return r
	}
	p := &Program{net: n.Clone(), stem: runner(n.Stem), neck: runner(n.Neck), head: runner(n.Head)}
	for i, stage := range n.Stages {
		for j, b := range stage {
			rb := &runningBlock{shortcut: runner(b.Shortcut), stride: n.place(i, j).stride}
			for _, u := range b.Units {
				rb.units = append(rb.units, runner(u))
			}
			in, out := b.Units[0].Chain.In(), b.Units[len(b.Units)-1].Chain.Out()
			rb.pad = b.Shortcut == nil && (in != out || rb.stride != 1)
			p.blocks = append(p.blocks, rb)
		}
	}
	return p, failed
}

// Net is the network that the program was compiled from.
func (p *Program) Net() *Net { return p.net }

// Forward runs the network on x, N×H×W×3, and returns N×classes logits, or
// N×H×W×classes of a segmentation network, that stay valid until the next call. workers 0 means GOMAXPROCS; the result does
// not depend on it. The context is looked at between blocks.
func (p *Program) Forward(ctx context.Context, x *conv.Map, workers int) ([]float32, error) {
	var err error
	if p.a, err = p.stem.Forward(p.a, x, conv.Epilogue{ReLU: true}, workers); err != nil {
		return nil, fmt.Errorf("%s: %w", p.net.Stem.Name, err)
	}
	if !p.net.CIFAR {
		p.b = p.pool.Forward(p.b, p.a, workers)
		p.a, p.b = p.b, p.a
	}
	for i, b := range p.blocks {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := p.block(b, workers); err != nil {
			return nil, fmt.Errorf("block %d: %w", i, err)
		}
	}
	if p.neck == nil {
		p.pooled = nn.AveragePool(p.pooled, p.a, workers)
	} else if p.pooled, err = p.neck.Forward(p.pooled, p.a, conv.Epilogue{ReLU: true}, workers); err != nil {
		return nil, fmt.Errorf("%s: %w", p.net.Neck.Name, err)
	}
	if p.logits, err = p.head.Forward(p.logits, p.pooled, conv.Epilogue{}, workers); err != nil {
		return nil, fmt.Errorf("%s: %w", p.net.Head.Name, err)
	}
	if p.neck == nil {
		return p.logits.Data, nil
	}
	p.resized = nn.Bilinear(p.resized, p.logits, x.H, x.W, workers)
	return p.resized.Data, nil
}

// block runs b on p.a and leaves its output there.
func (p *Program) block(b *runningBlock, workers int) error {
	var err error
	short := p.a
	switch {
	case b.shortcut != nil:
		if p.short, err = b.shortcut.Forward(p.short, p.a, conv.Epilogue{}, workers); err != nil {
			return err
		}
		short = p.short
	case b.pad:
		p.short = padShortcut(p.short, p.a, b.stride, b.units[len(b.units)-1].conv.Out(), workers)
		short = p.short
	}
	x := p.a
	for i, u := range b.units {
		e := conv.Epilogue{ReLU: true}
		if i == len(b.units)-1 {
			e.Residual = short
		}
		if p.b, err = u.Forward(p.b, x, e, workers); err != nil {
			return err
		}
		// The block's input must survive until the shortcut is added.
		x, p.b, p.c = p.b, p.c, p.b
	}
	p.a, p.c = x, p.a
	return nil
}
