package resnet

import (
	"fmt"
	"math"

	"github.com/lowrank-go/lowrank/conv"
)

// Place says where a module stands at its unit.
type Place string

// The places. What stands before the unit's batch norm is, for an input x of the
// convolution W, z = W∗x + Σ scale·steps(x) over the parallel modules, which the serial
// ones then change one after another.
const (
	// Parallel goes from the unit's input to the convolution's output.
	Parallel Place = "parallel"
	// Serial goes from the convolution's output to itself: z + scale·steps(z).
	Serial Place = "serial"
	// After goes from the unit's input to the unit's output, behind its batch norm, what
	// is added to it and its ReLU: y + scale·steps(x).
	After Place = "after"
)

// Module is a small network of its own that adds to what a unit computes: an adapter
// that need not be a change of the unit's kernel.
type Module struct {
	Place Place
	Scale float64
	Steps []*Step
}

// Step is a convolution, a batch norm behind it and ReLU; one of the first two may be
// missing (Chain or Norm is then nil). A module's steps follow one another, and have no
// modules themselves. Their names, and those of their norms, follow from the unit's.
type Step struct {
	*Unit
	ReLU bool
}

// Bounds of what a file may ask for.
const (
	mostModules = 16 // of a unit
	mostSteps   = 16 // of a module
	mostTaps    = 64 // of a step's convolution, along an axis
)

// AddModule puts a copy of m behind the modules of the unit called name, which must have
// a batch norm. The weights are shared. The error wraps conv.ErrShape where m does not
// fit there.
func (n *Net) AddModule(name string, m *Module) error {
	for _, s := range n.Sites() {
		if s.Name == name {
			u := *s.Unit
			u.Modules = append(append([]*Module(nil), u.Modules...), m.clone())
			u.nameSteps()
			if err := u.checkModules(s.H, s.W); err != nil {
				return err
			}
			s.Unit.Modules = u.Modules
			return nil
		}
	}
	return fmt.Errorf("%w: no convolution is called %q", ErrUnknown, name)
}

func (m *Module) clone() *Module {
	c := &Module{Place: m.Place, Scale: m.Scale}
	for _, s := range m.Steps {
		u := *s.Unit
		c.Steps = append(c.Steps, &Step{Unit: &u, ReLU: s.ReLU})
	}
	return c
}

// steps lists the steps of all modules of u.
func (u *Unit) steps() []*Step {
	var all []*Step
	for _, m := range u.Modules {
		all = append(all, m.Steps...)
	}
	return all
}

// nameSteps gives u's steps, which are its own, their names.
func (u *Unit) nameSteps() {
	for i, s := range u.steps() {
		s.Name = stepName(u.Name, i)
		if s.Norm != nil {
			own := *s.Norm
			own.Name = s.Name + stepNorm
			s.Norm = &own
		}
	}
}

// stepNorm is what the name of a step's norm has behind the step's.
const stepNorm = ".norm"

// stepName is the name of a unit's i-th step, counted through all its modules.
func stepName(unit string, i int) string { return fmt.Sprintf("%s.adapter.%d", unit, i) }

// input is the size of a module's input, at a unit whose input is h×w.
func (m *Module) input(u *Unit, h, w int) (int, int) {
	if m.Place == Serial {
		return u.Chain.OutputSize(h, w)
	}
	return h, w
}

// walk visits the steps of a module whose input is h×w with the size of theirs, and
// returns that of the output.
func (m *Module) walk(h, w int, visit func(s *Step, h, w int)) (int, int) {
	for _, s := range m.Steps {
		visit(s, h, w)
		if s.Chain != nil {
			h, w = s.Chain.OutputSize(h, w)
		}
	}
	return h, w
}

// checkModules reports modules of u that cannot stand there, where its input is h×w.
func (u *Unit) checkModules(h, w int) error {
	if len(u.Modules) == 0 {
		return nil
	}
	if u.Norm == nil || len(u.Modules) > mostModules {
		return fmt.Errorf("%w: %s has %d modules; want at most %d, and none where there is no batch norm", conv.ErrShape, u.Name, len(u.Modules), mostModules)
	}
	for i, m := range u.Modules {
		if err := m.check(u, h, w); err != nil {
			return fmt.Errorf("module %d of %s: %w", i, u.Name, err)
		}
	}
	return nil
}

// checkModules reports modules that cannot stand where they do.
func (n *Net) checkModules() error {
	for _, s := range n.Sites() {
		if err := s.checkModules(s.H, s.W); err != nil {
			return err
		}
	}
	return nil
}

func (m *Module) check(u *Unit, h, w int) error {
	channels := u.Chain.In()
	switch m.Place {
	case Parallel, After:
	case Serial:
		channels = u.Chain.Out()
	default:
		return fmt.Errorf("%w: place %q; want %s, %s or %s", conv.ErrShape, m.Place, Parallel, Serial, After)
	}
	if n := len(m.Steps); n == 0 || n > mostSteps || math.IsNaN(m.Scale) || math.IsInf(m.Scale, 0) {
		return fmt.Errorf("%w: %d steps with scale %g; want 1 to %d, and a finite one", conv.ErrShape, n, m.Scale, mostSteps)
	}
	for i, s := range m.Steps {
		out, err := s.check(channels)
		if err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		channels = out
	}
	oh, ow := u.Chain.OutputSize(h, w)
	h, w = m.input(u, h, w)
	if h, w = m.walk(h, w, func(*Step, int, int) {}); h != oh || w != ow || channels != u.Chain.Out() {
		return fmt.Errorf("%w: it gives %d×%d×%d, the unit %d×%d×%d", conv.ErrShape, h, w, channels, oh, ow, u.Chain.Out())
	}
	return nil
}

// check reports a step that is none, or not for the channels, and returns how many it
// gives.
func (s *Step) check(channels int) (int, error) {
	if s.Unit == nil || s.Chain == nil && s.Norm == nil || len(s.Modules) > 0 {
		return 0, fmt.Errorf("%w: neither a convolution nor a batch norm, or modules of its own", conv.ErrShape)
	}
	if s.Chain != nil {
		if err := s.Chain.Validate(); err != nil {
			return 0, err
		}
		for _, k := range s.Chain.Stages {
			// A map is copied with its padding: a file must not say any number.
			g := k.Normal()
			for a, taps := range k.Shape[2:] {
				if taps > mostTaps || g.Dilation[a] > 1<<maxDilate || max(g.Padding[a], g.Padding[a]+g.Extra[a]) > g.Dilation[a]*(taps-1) {
					return 0, fmt.Errorf("%w: %d taps with a dilation of %d and a padding of %d and %d more at the end", conv.ErrShape, taps, g.Dilation[a], g.Padding[a], g.Extra[a])
				}
			}
		}
		if in := s.Chain.In(); in != channels {
			return 0, fmt.Errorf("%w: a convolution of %d channels on %d", conv.ErrShape, in, channels)
		}
		channels = s.Chain.Out()
	}
	if m := s.Norm; m != nil {
		for _, v := range [][]float32{m.Weight, m.Bias, m.Mean, m.Var} {
			if len(v) != channels {
				return 0, fmt.Errorf("%w: a batch norm of %d channels behind %d", conv.ErrShape, len(v), channels)
			}
		}
	}
	return channels, nil
}

// params is the number of trainable parameters of u's own and of its modules'.
func (u *Unit) params() int {
	p := 0
	if u.Chain != nil {
		p += u.Chain.Params()
	}
	if u.Norm != nil {
		p += len(u.Norm.Weight) + len(u.Norm.Bias)
	}
	for _, s := range u.steps() {
		p += s.params()
	}
	return p
}

// macs is the number of multiply-accumulates of u and its modules on a map of h×w.
func (u *Unit) macs(h, w int) int64 {
	total := u.Chain.MACs(h, w)
	for _, m := range u.Modules {
		mh, mw := m.input(u, h, w)
		m.walk(mh, mw, func(s *Step, h, w int) {
			if s.Chain != nil {
				total += s.Chain.MACs(h, w)
			}
		})
	}
	return total
}

// clone is a unit with modules of its own.
func (u *Unit) clone() *Unit {
	if u == nil {
		return nil
	}
	c := *u
	c.Modules = nil
	for _, m := range u.Modules {
		c.Modules = append(c.Modules, m.clone())
	}
	return &c
}

// withSteps lists units, each with its steps behind it.
func withSteps(units []*Unit) []*Unit {
	var all []*Unit
	for _, u := range units {
		all = append(all, u)
		for _, s := range u.steps() {
			all = append(all, s.Unit)
		}
	}
	return all
}
