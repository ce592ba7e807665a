package resnet

import (
	"fmt"
	"math"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

// LearnerOptions say what of a network learns.
type LearnerOptions struct {
	// Learn says which parameters are trained; nil means all. What lies below the
	// lowest of them runs without keeping anything for a backward pass.
	Learn func(p *Param) bool
	// FixedNorms makes the batch norms use their running statistics, and leave
	// them alone, as in eval mode; otherwise they use the batch's and update them.
	FixedNorms bool
	// ModuleNorms makes those of modules use the batch's statistics even so: a norm that
	// is new has none that mean anything.
	ModuleNorms bool
	// Adapt, where not nil, gives the adaption of a unit, or nil for none.
	Adapt func(u *Unit) (*Adaption, error)
}

// Learner is a network in training: it runs forwards keeping what the backward
// pass needs, and backwards for the gradients of its parameters.
//
// A unit keeps two maps, its convolution's output and its own; one where its norm
// is fixed and not trained; none where nothing below it or in it is trained. It must
// not run on two goroutines at a time.
type Learner struct {
	net    *Net
	stem   *learning
	blocks []*learningBlock
	neck   *learning // of a segmentation network
	head   *learning
	params []*Param
	// lowest is the first unit, by execution, that is differentiated.
	lowest int
	units  []*learning
	// cut is the first block in which a unit is differentiated.
	cut int

	pool         nn.MaxPool
	pooled       *conv.Map // by the max-pool
	average      *conv.Map
	padded       *conv.Map // option A shortcut
	resized      *conv.Map // a segmentation network's logits
	small        *conv.Map // their gradient before they are resized
	grads        [4]*conv.Map
	spare        spareMaps
	shared       []*conv.Map // maps that nothing keeps
	stemH, stemW int         // of the stem's output
	lastH, lastW int         // of the last block's
}

// spareMaps are used within a unit's forward and backward passes.
type spareMaps struct {
	stages [2]*conv.Map
	serial *conv.Map // the gradient behind which a serial branch was
	module *conv.Map // what a module adds, where nothing keeps it
	// modules are the gradients within a unit's modules, two for each.
	modules [][2]*conv.Map
}

// learning is a unit in training, or a step of a module, which may lack the convolution.
type learning struct {
	unit  *Unit
	index int
	conv  *conv.Stack
	// frozen is the unit folded into one chain, where neither the convolution nor the
	// norm learns and the norm is fixed; conv and norm are then nil.
	frozen *conv.Stack
	norm   *nn.BatchNorm // nil for the head
	fixed  bool
	adapt  *adapted // nil for none
	// gain and shift are the gradients of the norm's parameters; scratch if those do
	// not learn, nil if nothing needs them.
	gain, shift []float32
	learns      bool // some parameter does
	in          *conv.Map
	z, y        **conv.Map
	normed      *conv.Map // the norm's input: *z, or what serial modules made of it
	out         *conv.Map // *y, or what modules made of it
	steps       []*learning
	learningModules
	own [2]*conv.Map
}

type learningBlock struct {
	units    []*learning
	shortcut *learning
	pad      bool
	stride   int
	in       *conv.Map
}

// NewLearner prepares a copy of n's weights for training.
func (n *Net) NewLearner(opt LearnerOptions) (*Learner, error) {
	l := &Learner{net: n.Clone()}
	add := func(u *Unit) (*learning, error) {
		t, err := l.learning(u, "", opt)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", u.Name, err)
		}
		t.index = len(l.units)
		l.units = append(l.units, t)
		return t, nil
	}
	err := n.checkModules()
	if err != nil {
		return nil, err
	}
	if l.stem, err = add(l.net.Stem); err != nil {
		return nil, err
	}
	for i, stage := range l.net.Stages {
		for j, b := range stage {
			lb := &learningBlock{stride: n.place(i, j).stride}
			// The shortcut comes first: it is no deeper than the block's input.
			if b.Shortcut != nil {
				if lb.shortcut, err = add(b.Shortcut); err != nil {
					return nil, err
				}
			}
			for _, u := range b.Units {
				t, err := add(u)
				if err != nil {
					return nil, err
				}
				lb.units = append(lb.units, t)
			}
			in, out := b.Units[0].Chain.In(), b.Units[len(b.Units)-1].Chain.Out()
			lb.pad = b.Shortcut == nil && (in != out || lb.stride != 1)
			l.blocks = append(l.blocks, lb)
		}
	}
	if l.net.Neck != nil {
		if l.neck, err = add(l.net.Neck); err != nil {
			return nil, err
		}
	}
	if l.head, err = add(l.net.Head); err != nil {
		return nil, err
	}
	l.lowest = slices.IndexFunc(l.units, func(t *learning) bool { return t.learns })
	if l.lowest < 0 {
		l.lowest = len(l.units)
	}
	l.cut = slices.IndexFunc(l.blocks, func(b *learningBlock) bool { return b.units[len(b.units)-1].index >= l.lowest })
	if l.cut < 0 {
		l.cut = len(l.blocks)
	}
	l.share()
	return l, nil
}

// learning prepares a unit, or a step of the unit called of, and registers those of its
// parameters that learn.
func (l *Learner) learning(u *Unit, of string, opt LearnerOptions) (*learning, error) {
	t := &learning{unit: u, fixed: opt.FixedNorms}
	t.y, t.z = &t.own[0], &t.own[1]
	var params []*Param
	try := func(p *Param) bool {
		p.Unit = u.Name
		if of != "" {
			p.Unit, p.Module = of, true
		}
		if opt.Learn != nil && !opt.Learn(p) {
			return false
		}
		p.Grad = make([]float32, len(p.Value))
		params = append(params, p)
		return true
	}
	if u.Chain != nil {
		if err := t.convolution(u, try); err != nil {
			return nil, err
		}
	}
	if opt.Adapt != nil {
		a, err := opt.Adapt(u)
		if err != nil {
			return nil, err
		}
		if a != nil {
			if t.adapt, err = newAdapted(a, u, t.conv); err != nil {
				return nil, err
			}
			for _, p := range a.Params {
				p.Unit, p.Kind = u.Name, Factor
				if len(p.Grad) != len(p.Value) {
					return nil, fmt.Errorf("%w: parameter %s has %d values and %d gradients", conv.ErrShape, p.Name, len(p.Value), len(p.Grad))
				}
			}
			params = append(params, a.Params...)
		}
	}
	if u.Norm != nil {
		t.normalise(u, try)
	}
	t.learns = len(params) > 0
	l.params = append(l.params, params...)
	var learns bool
	var err error
	if t.steps, t.learningModules, learns, err = l.modules(u, opt); err != nil {
		return nil, err
	}
	if !t.learns && t.fixed && t.norm != nil && t.conv != nil && !t.within() {
		c, err := fold(u)
		if err != nil {
			return nil, err
		}
		if t.frozen, err = conv.NewStack(c); err != nil {
			return nil, err
		}
		t.norm, t.conv = nil, nil
	}
	t.learns = t.learns || learns
	return t, nil
}

// convolution prepares u's. try registers a parameter, if it learns.
func (t *learning) convolution(u *Unit, try func(*Param) bool) error {
	stack, err := conv.NewStack(u.Chain)
	if err != nil {
		return err
	}
	layers := stack.Layers()
	for i, layer := range layers {
		name := u.Name
		if u.Chain.Kind != conv.Dense {
			name = fmt.Sprintf("%s.%d", u.Name, i)
		}
		if p := (&Param{Name: name + ".weight", Kind: Weight, Value: layer.Weights(), stack: stack, stage: i}); try(p) {
			stack.Gradient(i).Weight = p.Grad
		}
		if i == len(layers)-1 && stack.HasBias() {
			if p := (&Param{Name: name + ".bias", Kind: Bias, Value: layer.Bias(), stack: stack, stage: i}); try(p) {
				stack.Gradient(i).Bias = p.Grad
			}
		}
	}
	t.conv = stack
	return nil
}

// normalise prepares u's batch norm, which becomes a copy.
func (t *learning) normalise(u *Unit, try func(*Param) bool) {
	own := u.Norm.clone()
	u.Norm = own
	t.norm = &nn.BatchNorm{Weight: own.Weight, Bias: own.Bias, Mean: own.Mean, Var: own.Var, Momentum: .1, Eps: own.Eps}
	gain := &Param{Name: own.Name + ".weight", Kind: Gain, Value: own.Weight}
	shift := &Param{Name: own.Name + ".bias", Kind: Shift, Value: own.Bias}
	learnGain, learnShift := try(gain), try(shift)
	if learnGain || learnShift || !t.fixed {
		t.gain, t.shift = gain.Grad, shift.Grad
		if !learnGain {
			t.gain = make([]float32, len(own.Weight))
		}
		if !learnShift {
			t.shift = make([]float32, len(own.Bias))
		}
	}
}

// clone is a norm in memory of its own.
func (m *Norm) clone() *Norm {
	own := *m
	own.Weight, own.Bias = slices.Clone(m.Weight), slices.Clone(m.Bias)
	own.Mean, own.Var = slices.Clone(m.Mean), slices.Clone(m.Var)
	if m.Batches != nil {
		b := *m.Batches
		own.Batches = &b
	}
	return &own
}

// share gives the units below the lowest that learns maps in common, for nothing
// there is kept, frozen chains one set of maps between their stages, and those whose
// convolution's output is not needed again one map instead of two.
func (l *Learner) share() {
	for _, t := range l.units {
		if t.fixed && t.gain == nil && len(t.serial) == 0 { // they keep it
			t.z = t.y
		}
	}
	longest := 0
	for _, t := range l.units {
		longest = max(longest, len(t.unit.Chain.Stages))
	}
	between := make([]*conv.Map, longest)
	for _, t := range l.units {
		switch {
		case t.frozen != nil:
			t.frozen.Share(between)
		case t.index < l.lowest:
			t.conv.Share(between)
		}
	}
	// Three maps rotate for the units of a block, one is the shortcut's, one the
	// convolutions'.
	l.shared = make([]*conv.Map, 5)
	in := 0
	give := func(t *learning, i int) {
		if t.index < l.lowest {
			t.y = &l.shared[i]
			t.z = &l.shared[4]
			if t.frozen != nil || t.fixed {
				t.z = t.y
			}
		}
	}
	give(l.stem, in)
	for _, b := range l.blocks {
		if b.shortcut != nil {
			give(b.shortcut, 3)
		}
		at := in
		for _, t := range b.units {
			next := 0
			for next == in || next == at {
				next++
			}
			give(t, next)
			at = next
		}
		in = at
	}
}

// Params are the parameters that learn, in execution order.
func (l *Learner) Params() []*Param { return l.params }

// Config is the network's.
func (l *Learner) Config() Config { return l.net.Config }

// Updated tells the learner that the values of its parameters were changed.
func (l *Learner) Updated() {
	for _, t := range l.parts() {
		if t.adapt != nil {
			t.adapt.stale = true
		}
		if t.learns && t.conv != nil {
			for _, layer := range t.conv.Layers() {
				layer.Update()
			}
		}
	}
}

// Net is the network with the weights and statistics as they are now, and adaptions
// merged into the kernels, in memory of its own.
func (l *Learner) Net() (*Net, error) { return l.snapshot(true) }

func (l *Learner) snapshot(merge bool) (*Net, error) {
	out := l.net.Clone()
	parts := l.parts()
	for i, s := range out.parts() {
		t := parts[i]
		if t.conv != nil {
			var c *conv.Chain
			var err error
			switch {
			case t.adapt == nil:
				c, err = t.conv.Chain()
			case merge:
				c, err = t.adapt.merged(t.unit.Chain)
			default:
				c = t.unit.Chain
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.Name, err)
			}
			s.Chain = c
		}
		if s.Norm != nil {
			s.Norm = s.Norm.clone()
		}
	}
	return out, nil
}

// all lists the units in the learner's order: a block's shortcut before its units.
func (n *Net) all() []*Unit {
	units := []*Unit{n.Stem}
	for _, stage := range n.Stages {
		for _, b := range stage {
			if b.Shortcut != nil {
				units = append(units, b.Shortcut)
			}
			units = append(units, b.Units...)
		}
	}
	if n.Neck != nil {
		units = append(units, n.Neck)
	}
	return append(units, n.Head)
}

// Diverged names the first unit, in execution order, whose output in the last Forward
// has a value that is not finite; "" if there is none.
func (l *Learner) Diverged() string {
	for _, t := range l.units {
		if t.out == nil {
			continue
		}
		for _, v := range t.out.Data {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return t.unit.Name
			}
		}
	}
	return ""
}
