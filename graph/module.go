package graph

import (
	"fmt"
	"math"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
)

// Place says where an adapter's own layers stand at a convolution.
type Place string

// The places. What stands before the batch norm is, for an input x of the convolution W,
// z = W∗x + Σ scale·steps(x) over the parallel modules, which the serial ones then change
// one after another.
const (
	// Parallel goes from the convolution's input to its output.
	Parallel Place = "parallel"
	// Serial goes from the convolution's output to itself: z + scale·steps(z).
	Serial Place = "serial"
	// After goes from the convolution's input to the unit's output, behind its batch norm,
	// what is added to it and its activation: y + scale·steps(x).
	After Place = "after"
)

// Module is a small network of its own that adds to what a convolution and what belongs
// to it compute: an adapter that need not be a change of the kernel.
type Module struct {
	Place Place
	Scale float64
	Steps []ModuleStep
}

// ModuleStep is a convolution, a batch norm behind it and ReLU; one of the first two may
// be missing.
type ModuleStep struct {
	Chain *conv.Chain
	Norm  *BatchNorm
	ReLU  bool
}

// ModuleSpec is a module without its weights, as files describe it. Step i of all of a
// unit's modules has its tensors under <unit>.adapter.<i>, and its norm's under
// <unit>.adapter.<i>.norm.
type ModuleSpec struct {
	Place Place      `json:"place"`
	Scale float64    `json:"scale"`
	Steps []StepSpec `json:"steps"`
}

// StepSpec is a step without its weights. The norm is there if Norm is set.
type StepSpec struct {
	Conv *conv.Geometry `json:"conv,omitempty"`
	Norm bool           `json:"norm,omitempty"`
	ReLU bool           `json:"relu,omitempty"`
}

// Bounds of what a file may ask for.
const (
	mostModules = 16 // of a unit
	mostSteps   = 16 // of a module
	mostTaps    = 64 // of a step's convolution, along an axis
	mostDilate  = 8  // of it
)

// Spec is the module without its weights.
func (m *Module) Spec() ModuleSpec {
	spec := ModuleSpec{Place: m.Place, Scale: m.Scale}
	for _, s := range m.Steps {
		st := StepSpec{Norm: s.Norm != nil, ReLU: s.ReLU}
		if s.Chain != nil {
			_, g := s.Chain.Shape()
			st.Conv = &g
		}
		spec.Steps = append(spec.Steps, st)
	}
	return spec
}

// Names of a module's nodes behind the unit's: step i, counted through all modules of the
// unit, and what they have behind it. The places of sums are named by the first step.
const (
	// StepNorm is what the name of a step's batch norm has behind the step's.
	StepNorm  = ".norm"
	stepReLU  = ".relu"
	stepScale = ".scale"
	stepSum   = ".sum"
)

// StepName is the name of a unit's i-th step, counted through all its modules.
func StepName(unit string, i int) string { return fmt.Sprintf("%s%s%d", unit, adapter, i) }

// HasModules tells whether an adapter's own layers are in the network.
func (g *Graph) HasModules() bool {
	return slices.ContainsFunc(g.Nodes, func(n *Node) bool { return moduleOf(n.Name) != "" })
}

// ModulesAt is how many modules a convolution has.
func (g *Graph) ModulesAt(name string) int {
	modules := 0
	for _, n := range g.Nodes {
		if _, ok := n.Op.(*Scale); ok && moduleOf(n.Name) == name {
			modules++
		}
	}
	return modules
}

func (g *Graph) has(name string) bool { return g.Node(name) != nil }

// AddModule adds a module behind the modules of the convolution called name, which must
// have a batch norm. The weights are shared. The error wraps ErrShape where m does not
// fit there; g is then as it was.
func (g *Graph) AddModule(name string, m *Module) error {
	out := g.Clone()
	if err := out.addModule(name, m); err != nil {
		return fmt.Errorf("module at %s: %w", name, err)
	}
	*g = *out
	return nil
}

func (g *Graph) addModule(name string, m *Module) error {
	n := g.Node(name)
	if n == nil || n.Conv() == nil {
		return fmt.Errorf("%w: no convolution is called so", ErrGraph)
	}
	norm := normBehind(n, g.consumers())
	if norm == nil {
		return fmt.Errorf("%w: it has no batch norm behind it", ErrShape)
	}
	modules, steps := g.ModulesAt(name), 0
	for g.has(StepName(name, steps)) || g.has(StepName(name, steps)+StepNorm) {
		steps++
	}
	if k := len(m.Steps); k == 0 || k > mostSteps || modules >= mostModules || math.IsNaN(m.Scale) || math.IsInf(m.Scale, 0) {
		return fmt.Errorf("%w: module %d of %d steps with scale %g; want at most %d modules of 1 to %d, and a finite one", ErrShape, modules, k, m.Scale, mostModules, mostSteps)
	}
	// at is the node whose output the module adds to; nodes go behind behind.
	var from, at *Node
	switch m.Place {
	case Parallel, Serial:
		from, at = n.In[0], norm.In[0]
		if m.Place == Serial {
			from = at
		} else {
			// Parallel modules stand before serial ones.
			for {
				_, sum := at.Op.(*Binary)
				if !sum || g.placeOf(at) != Serial {
					break
				}
				at = at.In[0]
			}
		}
	case After:
		from, at = n.In[0], g.unitEnd(n)
	default:
		return fmt.Errorf("%w: place %q; want %s, %s or %s", ErrShape, m.Place, Parallel, Serial, After)
	}
	first := StepName(name, steps)
	var added []*Node
	add := func(name string, op Op, in ...*Node) *Node {
		node := &Node{Name: name, Op: op, In: in}
		added = append(added, node)
		return node
	}
	x := from
	for i, s := range m.Steps {
		if err := s.check(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		step := StepName(name, steps+i)
		if s.Chain != nil {
			x = add(step, &Conv{Chain: s.Chain}, x)
		}
		if s.Norm != nil {
			x = add(step+StepNorm, s.Norm, x)
		}
		if s.ReLU {
			x = add(step+stepReLU, &Activation{Name: ReLU}, x)
		}
	}
	x = add(first+stepScale, &Scale{Value: m.Scale, Place: m.Place}, x)
	sum := add(first+stepSum, &Binary{Op: Add}, at, x)
	g.insertBehind(at, sum, added...)
	if err := g.Validate(); err != nil {
		return err
	}
	// The sum must not broadcast.
	shapes, err := g.Shapes(g.Input)
	if err != nil {
		return err
	}
	var a, b Shape
	for i, o := range g.Nodes {
		switch o {
		case at:
			a = shapes[i]
		case x:
			b = shapes[i]
		}
	}
	if !a.Equal(b) {
		return fmt.Errorf("%w: it gives %v, the unit %v", ErrShape, b, a)
	}
	return nil
}

// placeOf is the place of the module whose sum n is.
func (g *Graph) placeOf(n *Node) Place {
	if len(n.In) == 2 {
		if s, ok := n.In[1].Op.(*Scale); ok {
			return s.Place
		}
	}
	return ""
}

// check reports a step that is none.
func (s *ModuleStep) check() error {
	if s.Chain == nil && s.Norm == nil {
		return fmt.Errorf("%w: neither a convolution nor a batch norm", ErrShape)
	}
	if s.Chain == nil {
		return nil
	}
	if err := s.Chain.Validate(); err != nil {
		return err
	}
	for _, k := range s.Chain.Stages {
		// A map is copied with its padding: a file must not say any number.
		g := k.Normal()
		for a, taps := range k.Shape[2:] {
			if taps > mostTaps || g.Dilation[a] > mostDilate || g.Padding[a]+max(g.Extra[a], 0) > g.Dilation[a]*(taps-1) {
				return fmt.Errorf("%w: %d taps with a dilation of %d and a padding of %d and %d more at the end", ErrShape, taps, g.Dilation[a], g.Padding[a], g.Extra[a])
			}
		}
	}
	return nil
}
