package graph

import (
	"fmt"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/model"
)

// adaptionPrefix is before the names of adaptions' parameters in a state, stepsKey the
// number of forward passes, from which dropout's random numbers follow.
const (
	adaptionPrefix = "adaption."
	stepsKey       = "learner.steps"
)

// State is the state dict of the network as it is now, without adaptions, and those beside
// it, from which SetState goes on.
func (l *Learner) State() (*model.StateDict, error) {
	n, err := l.snapshot(false)
	if err != nil {
		return nil, err
	}
	sd, err := n.StateDict()
	if err != nil {
		return nil, err
	}
	for _, p := range l.params {
		if p.Kind == Factor {
			sd.Set(adaptionPrefix+p.Name, &model.Tensor{Shape: []int{len(p.Value)}, Data: slices.Clone(p.Value)})
		}
	}
	if l.dice {
		sd.Set(stepsKey, &model.Tensor{Data: []int64{l.passes}})
	}
	return sd, nil
}

// SetState gives the learner the weights and statistics of a state dict of the same
// network. Weights of convolutions that have adaptions, and of those that do not learn at
// all and were folded, are not looked at.
func (l *Learner) SetState(sd *model.StateDict) error {
	r := NewReader(sd)
	manifest, err := ReadManifest(sd)
	if err != nil {
		return err
	}
	if Described(manifest) {
		own, err := l.graph.describe()
		if err != nil {
			return err
		}
		if string(own) != string(manifest.Network) {
			return fmt.Errorf("%w: a state of another network, or of %s with other sizes, strides or dilations", ErrShape, l.graph.Arch)
		}
	}
	for _, p := range l.params {
		if p.Kind != Factor {
			continue
		}
		v, _, err := r.Floats(adaptionPrefix+p.Name, -1)
		if err != nil {
			return fmt.Errorf("%w: %w", model.ErrCorrupt, err)
		}
		if len(v) != len(p.Value) {
			return fmt.Errorf("%w: %s has %d values, the learner %d", ErrShape, p.Name, len(v), len(p.Value))
		}
		copy(p.Value, v)
	}
	for i, s := range l.steps {
		if err := l.restore(i, r, manifest); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if t, ok := sd.Get(stepsKey); ok {
		if v, isInt := t.Data.([]int64); isInt && len(v) == 1 {
			l.passes = v[0]
		}
	}
	return nil
}

// restore gives step i the tensors of a state.
func (l *Learner) restore(i int, r *Reader, manifest *Manifest) error {
	s, o := l.steps[i], &l.ops[i]
	if o.trainer != nil {
		for _, p := range o.trainer.parameters() {
			v, _, err := r.Floats(s.node.Name+"."+p.suffix, -1)
			if err == nil && len(v) != len(p.value) {
				err = fmt.Errorf("%w: %s has %d values, the learner %d", ErrShape, p.suffix, len(v), len(p.value))
			}
			if err != nil {
				return err
			}
			copy(p.value, v)
		}
		return nil
	}
	u := o.unit
	if u == nil {
		return nil
	}
	if u.adapt != nil {
		u.adapt.stale = true
	}
	if u.conv != nil {
		was, geometry := s.conv.Conv().Chain.Shape()
		c, err := r.Chain(manifest, s.conv.Name, geometry)
		if err != nil {
			return err
		}
		if shape, g := c.Shape(); shape != was || g != geometry {
			return fmt.Errorf("%w: a convolution of %v with %s, the learner has %v with %s", ErrShape, shape, describe(g), was, describe(geometry))
		}
		if err := u.setChain(c); err != nil {
			return err
		}
	}
	if u.norm == nil { // there is none, or it is folded
		return nil
	}
	m := o.norm
	n, err := r.BatchNorm(s.norm.Name, len(m.Mean), m.Eps)
	if err != nil {
		return err
	}
	copy(m.Weight, n.Weight)
	copy(m.Bias, n.Bias)
	copy(m.Mean, n.Mean)
	copy(m.Var, n.Var)
	if m.Batches != nil && n.Batches != nil {
		*m.Batches = *n.Batches
	}
	return nil
}

// setChain gives the unit's convolution the weights of another of its shape.
func (u *unit) setChain(c *conv.Chain) error {
	layers := u.conv.Layers()
	if len(c.Stages) != len(layers) {
		return fmt.Errorf("%w: a chain of %d stages, the learner has %d", ErrShape, len(c.Stages), len(layers))
	}
	for j, s := range c.Stages {
		if u.adapt == nil { // its base does not change
			if err := u.conv.Import(j, layers[j].Weights(), s.Weight); err != nil {
				return err
			}
		}
		if s.Bias != nil {
			if err := u.conv.SetBiases(j, layers[j].Bias(), s.Bias); err != nil {
				return err
			}
		}
		layers[j].Update()
	}
	return nil
}
