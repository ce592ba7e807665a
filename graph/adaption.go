package graph

import (
	"errors"
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
)

// Adaption changes what a convolution computes while it trains, by parameters
// of its own: package peft has the kinds. The convolution's own weights must not
// learn beside it.
type Adaption struct {
	// Params are trained beside the network's own. Their names must be unique in the
	// network.
	Params []*Param
	// Delta is the change of the kernel. The convolution must then be an ordinary one,
	// not a chain. It may be nil where the change is none of the kernel's, and there
	// are branches; the network cannot then be merged.
	Delta Delta
	// Parallel adds to the convolution's output what a chain makes of its input,
	// Serial what a chain makes of that output: what Delta says, by other means. With
	// neither the kernel itself is changed in each step.
	Parallel, Serial *Branch
	// Precondition, where not nil, is called in each backward pass when the gradients
	// of Params are complete, and may rewrite them. Whoever reads them sees the result:
	// a bound on their norm is then one on the step, which is made of nothing else.
	Precondition func()
}

// ErrNotMergeable is wrapped by the error of a network with a change that no kernel
// can take in.
var ErrNotMergeable = errors.New("graph: the adaption is not a change of the kernel")

// Delta is a change of a kernel, in the order of conv.Kernel.Weight. base is the
// kernel as it was before.
type Delta interface {
	// Materialise adds the change to dst, which holds the base.
	Materialise(dst, base []float32)
	// Pull sets the gradients of the parameters from that of the changed kernel.
	Pull(kernel, base []float32)
}

// Branch is a chain whose weights are functions of parameters that lie elsewhere.
type Branch struct {
	// Chain has the shapes and the geometry; its weights are overwritten.
	Chain *conv.Chain
	// Load writes the weights of a stage, in the order of conv.Kernel.Weight, and
	// Store takes their gradient, to set those of the parameters. All stages are
	// stored, in order.
	Load  func(stage int, weight []float32)
	Store func(stage int, gradient []float32)
}

// adapted is an adaption at work.
type adapted struct {
	*Adaption
	materialised     bool      // there are no branches
	base, kernel     []float32 // of Delta
	gradient         []float32 // of the layer, in its own order
	parallel, serial *conv.Stack
	spare            []float32
	stale            bool      // the weights that follow from the parameters
	first            *conv.Map // the convolution's output before Serial
	gradientFirst    *conv.Map // the gradient in it
}

func newAdapted(a *Adaption, c *conv.Chain, stack *conv.Stack) (*adapted, error) {
	t := &adapted{Adaption: a, stale: true, materialised: a.Parallel == nil && a.Serial == nil}
	if t.materialised && a.Delta == nil {
		return nil, fmt.Errorf("%w: an adaption without a change", conv.ErrShape)
	}
	if a.Delta != nil {
		if c.Kind != conv.Dense {
			return nil, fmt.Errorf("%w: a change of the kernel of a chain of kind %s", conv.ErrShape, c.Kind)
		}
		t.base = c.Stages[0].Weight
	}
	if t.materialised {
		t.kernel = make([]float32, len(t.base))
		t.gradient = make([]float32, len(stack.Layers()[0].Weights()))
		stack.Gradient(0).Weight = t.gradient
	}
	shape, g := c.Shape()
	for i, b := range []*Branch{a.Parallel, a.Serial} {
		if b == nil {
			continue
		}
		s, err := conv.NewStack(b.Chain)
		if err != nil {
			return nil, err
		}
		bs, bg := b.Chain.Shape()
		in, out := b.Chain.In(), b.Chain.Out()
		switch {
		case i == 1 && (in != shape[0] || out != shape[0] || bg.Stride != [2]int{1, 1}):
			return nil, fmt.Errorf("%w: a serial branch from %d channels to %d with stride %v behind %d", conv.ErrShape, in, out, bg.Stride, shape[0])
		case i == 0 && (in != c.In() || out != shape[0] || bg.Stride != g.Stride):
			return nil, fmt.Errorf("%w: a parallel branch of %v with stride %v beside a convolution of %v with %v", conv.ErrShape, bs, bg.Stride, shape, g.Stride)
		}
		for j, l := range s.Layers() {
			s.Gradient(j).Weight = make([]float32, len(l.Weights()))
		}
		if i == 0 {
			t.parallel = s
		} else {
			t.serial = s
		}
	}
	return t, nil
}

// refresh computes the weights that follow from the parameters.
func (t *adapted) refresh(stack *conv.Stack) error {
	if !t.stale {
		return nil
	}
	t.stale = false
	if t.materialised {
		copy(t.kernel, t.base)
		t.Delta.Materialise(t.kernel, t.base)
		l := stack.Layers()[0]
		if err := stack.Import(0, l.Weights(), t.kernel); err != nil {
			return err
		}
		l.Update()
	}
	for _, b := range t.branches() {
		for i, l := range b.stack.Layers() {
			w := t.values(b.stack.Values(i))
			clear(w)
			b.Load(i, w)
			if err := b.stack.Import(i, l.Weights(), w); err != nil {
				return err
			}
			l.Update()
		}
	}
	return nil
}

// values is memory for n values, until the next call.
func (t *adapted) values(n int) []float32 {
	if cap(t.spare) < n {
		t.spare = make([]float32, n)
	}
	return t.spare[:n]
}

type workingBranch struct {
	*Branch
	stack *conv.Stack
}

func (t *adapted) branches() []workingBranch {
	var b []workingBranch
	if t.parallel != nil {
		b = append(b, workingBranch{t.Parallel, t.parallel})
	}
	if t.serial != nil {
		b = append(b, workingBranch{t.Serial, t.serial})
	}
	return b
}

// store hands the gradients of what followed from the parameters to their owner.
func (t *adapted) store(stack *conv.Stack) error {
	if t.materialised {
		g := t.values(stack.Values(0))
		if err := stack.ExportTo(g, 0, t.gradient); err != nil {
			return err
		}
		t.Delta.Pull(g, t.base)
	}
	for _, b := range t.branches() {
		for i := range b.stack.Layers() {
			g := t.values(b.stack.Values(i))
			if err := b.stack.ExportTo(g, i, b.stack.Gradient(i).Weight); err != nil {
				return err
			}
			b.Store(i, g)
		}
	}
	if t.Precondition != nil {
		t.Precondition()
	}
	return nil
}

// merged is the convolution with the change in its kernel, in memory of its own.
func (t *adapted) merged(c *conv.Chain) (*conv.Chain, error) {
	if t.Delta == nil {
		return nil, ErrNotMergeable
	}
	k := *c.Stages[0]
	k.Weight = append([]float32(nil), t.base...)
	t.Delta.Materialise(k.Weight, t.base)
	return conv.NewDense(&k), nil
}
