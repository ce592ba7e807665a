package resnet

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

// learningModule is a module in training.
type learningModule struct {
	name   string // of its first step
	scale  []float32
	steps  []*learning
	relu   []bool
	lowest int       // the first step that learns; how many there are if none does
	out    *conv.Map // of serial modules and those after the unit
	index  int       // among the unit's
	dx     *conv.Map // the gradient of its input after backward, until the next unit's
}

// learningModules are a unit's, by their places.
type learningModules struct{ parallel, serial, after []*learningModule }

// within tells whether some stand before the unit's batch norm, which then cannot be
// folded into the convolution.
func (m *learningModules) within() bool { return len(m.parallel)+len(m.serial) > 0 }

// add puts one behind those of its place.
func (m *learningModules) add(place Place, b *learningModule) {
	switch place {
	case Parallel:
		m.parallel = append(m.parallel, b)
	case Serial:
		m.serial = append(m.serial, b)
	default:
		m.after = append(m.after, b)
	}
}

// modules prepares the modules of a unit, and registers those of their parameters that
// learn behind the unit's own; learns tells whether there are any.
func (l *Learner) modules(u *Unit, opt LearnerOptions) (steps []*learning, places learningModules, learns bool, err error) {
	opt.Adapt = nil
	opt.FixedNorms = opt.FixedNorms && !opt.ModuleNorms
	for n, m := range u.Modules {
		if n == len(l.spare.modules) {
			l.spare.modules = append(l.spare.modules, [2]*conv.Map{})
		}
		b := &learningModule{index: n, name: m.Steps[0].Name, scale: uniform(u.Chain.Out(), m.Scale), lowest: len(m.Steps)}
		for i, s := range m.Steps {
			t, err := l.learning(s.Unit, u.Name, opt)
			if err != nil {
				return nil, places, false, fmt.Errorf("%s: %w", s.Name, err)
			}
			if t.learns {
				learns = true
				b.lowest = min(b.lowest, i)
			}
			b.steps, b.relu = append(b.steps, t), append(b.relu, s.ReLU)
		}
		if last := len(b.steps) - 1; b.steps[last].norm == nil && !b.relu[last] {
			b.steps[last].y = &l.spare.module
		}
		steps = append(steps, b.steps...)
		places.add(m.Place, b)
	}
	return steps, places, learns, nil
}

func uniform(n int, v float64) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(v)
	}
	return s
}

// forward writes y + scale·steps(x) to dst (resized; it may be y).
func (b *learningModule) forward(dst, x, y *conv.Map, workers int) (*conv.Map, error) {
	var err error
	for i, t := range b.steps {
		if x, err = t.forward(x, nil, b.relu[i], workers); err != nil {
			return nil, err
		}
	}
	if err := sameSize(b.name, x, y); err != nil {
		return nil, err
	}
	return nn.Scale(dst, x, y, b.scale, false, workers), nil
}

// sameSize reports a module that does not fit its unit on an image of this size.
func sameSize(name string, m, y *conv.Map) error {
	if m.N != y.N || m.H != y.H || m.W != y.W || m.C != y.C {
		return fmt.Errorf("%s: %w: the module gives %d×%d×%d, its unit %d×%d×%d", name, conv.ErrShape, m.H, m.W, m.C, y.H, y.W, y.C)
	}
	return nil
}

// backward takes the gradient dy of the module's output, which it leaves as it is, and
// leaves that of its input in dx, if that is wanted.
func (b *learningModule) backward(dy *conv.Map, input bool, m *spareMaps, workers int) error {
	lowest := b.lowest
	if input {
		lowest = 0
	}
	if lowest == len(b.steps) {
		return nil
	}
	g := &m.modules[b.index]
	g[0] = nn.Scale(g[0], dy, nil, b.scale, false, workers)
	for i := len(b.steps) - 1; i >= lowest; i-- {
		if err := b.steps[i].backward(&g[1], &g[0], &g[0], b.relu[i], input || i > lowest, nil, m, workers); err != nil {
			return err
		}
		g[0], g[1] = g[1], g[0]
	}
	b.dx = g[0]
	return nil
}

// parts lists the units and the steps of their modules, in the order of Net.parts.
func (l *Learner) parts() []*learning {
	var all []*learning
	for _, t := range l.units {
		all = append(append(all, t), t.steps...)
	}
	return all
}

// parts lists the units in the learner's order, each with its steps behind it.
func (n *Net) parts() []*Unit { return withSteps(n.all()) }
