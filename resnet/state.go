package resnet

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/model"
)

// Classes is the number of logits of an image, or of a pixel.
func (l *Learner) Classes() int { return l.net.Classes }

// Segments tells whether every pixel has logits.
func (l *Learner) Segments() bool { return l.net.Segment }

// Statistics are the running means and variances that Forward updates, the learner's
// own memory, in execution order; none where norms are fixed.
func (l *Learner) Statistics() [][]float32 {
	var s [][]float32
	for _, t := range l.parts() {
		if t.norm != nil && !t.fixed {
			s = append(s, t.norm.Mean, t.norm.Var)
		}
	}
	return s
}

// adaptionPrefix is before the names of adaptions' parameters in a state.
const adaptionPrefix = "adaption."

// State is the state dict of the network as it is now, without adaptions, and those
// beside it, from which SetState goes on.
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
	return sd, nil
}

// SetState gives the learner the weights and statistics of a state dict of the same
// network. Weights of units that do not learn at all are not looked at.
func (l *Learner) SetState(sd *model.StateDict) error {
	own := model.NewStateDict()
	own.Meta = sd.Meta
	for _, name := range sd.Names() {
		if !strings.HasPrefix(name, adaptionPrefix) {
			t, _ := sd.Get(name)
			own.Set(name, t)
		}
	}
	n, err := Load(own, Options{})
	if err != nil {
		return err
	}
	units, parts := n.parts(), l.parts()
	if n.Dilate != l.net.Dilate {
		return fmt.Errorf("%w: a state of a network with %d stages dilated, the learner's has %d", conv.ErrShape, n.Dilate, l.net.Dilate)
	}
	if len(units) != len(parts) {
		return fmt.Errorf("%w: a state of %s for a learner of %s", conv.ErrShape, n.Arch, l.net.Arch)
	}
	for _, p := range l.params {
		if p.Kind != Factor {
			continue
		}
		t, ok := sd.Get(adaptionPrefix + p.Name)
		if !ok {
			return fmt.Errorf("%w: no tensor %q", model.ErrCorrupt, adaptionPrefix+p.Name)
		}
		v, err := t.Float32s()
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		if len(v) != len(p.Value) {
			return fmt.Errorf("%w: %s has %d values, the learner %d", conv.ErrShape, p.Name, len(v), len(p.Value))
		}
		copy(p.Value, v)
	}
	for i, t := range parts {
		if err := t.restore(units[i]); err != nil {
			return fmt.Errorf("%s: %w", units[i].Name, err)
		}
	}
	return nil
}

// restore gives t the weights and statistics of u.
func (t *learning) restore(u *Unit) error {
	if (u.Chain == nil) != (t.unit.Chain == nil) || (u.Norm == nil) != (t.unit.Norm == nil) {
		return fmt.Errorf("%w: the learner has another module there", conv.ErrShape)
	}
	if t.adapt != nil {
		t.adapt.stale = true
	}
	if t.conv != nil {
		layers := t.conv.Layers()
		if len(u.Chain.Stages) != len(layers) {
			return fmt.Errorf("%w: a chain of %d stages, the learner has %d", conv.ErrShape, len(u.Chain.Stages), len(layers))
		}
		for j, s := range u.Chain.Stages {
			if t.adapt == nil { // its base does not change
				if err := t.conv.Import(j, layers[j].Weights(), s.Weight); err != nil {
					return err
				}
			}
			if s.Bias != nil {
				if err := t.conv.SetBiases(j, layers[j].Bias(), s.Bias); err != nil {
					return err
				}
			}
			layers[j].Update()
		}
	}
	if t.norm == nil { // there is none, or it is folded
		return nil
	}
	m := t.unit.Norm
	if len(u.Norm.Mean) != len(m.Mean) {
		return fmt.Errorf("%w: %d channels, the learner has %d", conv.ErrShape, len(u.Norm.Mean), len(m.Mean))
	}
	copy(m.Weight, u.Norm.Weight)
	copy(m.Bias, u.Norm.Bias)
	copy(m.Mean, u.Norm.Mean)
	copy(m.Var, u.Norm.Var)
	if m.Batches != nil && u.Norm.Batches != nil {
		*m.Batches = *u.Norm.Batches
	}
	return nil
}
