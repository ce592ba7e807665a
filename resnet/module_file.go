package resnet

import (
	"fmt"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
)

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

// description is what a file says of a network; files of networks without modules have
// the Config alone.
type description struct {
	Config
	Modules map[string][]ModuleSpec `json:"modules,omitempty"`
}

func (n *Net) describe() description { return description{n.Config, n.ModuleSpecs()} }

// ModuleSpecs describes the modules, by the names of their units; it is nil where there
// are none.
func (n *Net) ModuleSpecs() map[string][]ModuleSpec {
	var all map[string][]ModuleSpec
	for _, u := range n.all() {
		for _, m := range u.Modules {
			spec := ModuleSpec{Place: m.Place, Scale: m.Scale}
			for _, s := range m.Steps {
				st := StepSpec{Norm: s.Norm != nil, ReLU: s.ReLU}
				if s.Chain != nil {
					_, g := s.Chain.Shape()
					st.Conv = &g
				}
				spec.Steps = append(spec.Steps, st)
			}
			if all == nil {
				all = map[string][]ModuleSpec{}
			}
			all[u.Name] = append(all[u.Name], spec)
		}
	}
	return all
}

// addModules takes u's modules from the state dict.
func (l *loader) addModules(u *Unit) error {
	step := 0
	for _, spec := range l.modules[u.Name] {
		// Empty steps would take no tensors from the file.
		if len(spec.Steps) > mostSteps || len(u.Modules) == mostModules {
			return fmt.Errorf("%w: more modules of %s than %d of %d steps", ErrUnknown, u.Name, mostModules, mostSteps)
		}
		m := &Module{Place: spec.Place, Scale: spec.Scale}
		for _, s := range spec.Steps {
			part, err := l.step(stepName(u.Name, step), s)
			if err != nil {
				return err
			}
			m.Steps = append(m.Steps, &Step{Unit: part, ReLU: s.ReLU})
			step++
		}
		u.Modules = append(u.Modules, m)
	}
	return nil
}

func (l *loader) step(name string, s StepSpec) (*Unit, error) {
	u := &Unit{Name: name}
	channels := -1
	if s.Conv != nil {
		var err error
		if u.Chain, err = l.chain(name, *s.Conv); err != nil {
			return nil, err
		}
		channels = u.Chain.Out()
	}
	if !s.Norm {
		return u, nil
	}
	if channels < 0 {
		v, _, err := l.floats(name+stepNorm+".weight", 1)
		if err != nil {
			return nil, err
		}
		channels = len(v)
	}
	var err error
	u.Norm, err = l.norm(name+stepNorm, channels)
	return u, err
}

// checkModules reports described modules that no unit has or that do not fit theirs.
func (l *loader) checkModules() error {
	if len(l.modules) == 0 {
		return nil
	}
	if err := l.net.checkModules(); err != nil {
		return err
	}
	units := l.net.all()
	for name := range l.modules {
		if !slices.ContainsFunc(units, func(u *Unit) bool { return u.Name == name && u.Norm != nil }) {
			return fmt.Errorf("%w: a description of modules of %q, of which %s has none", ErrUnknown, name, l.net.Arch)
		}
	}
	return nil
}
