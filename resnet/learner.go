package resnet

import (
	"context"
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

// spareMaps are used within a unit's backward pass.
type spareMaps struct {
	stages [2]*conv.Map
	serial *conv.Map // the gradient behind which a serial branch was
}

// learning is a unit in training.
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
	own         [2]*conv.Map
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
		t, err := l.learning(u, opt)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", u.Name, err)
		}
		t.index = len(l.units)
		l.units = append(l.units, t)
		return t, nil
	}
	var err error
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

// learning prepares a unit and registers those of its parameters that learn.
func (l *Learner) learning(u *Unit, opt LearnerOptions) (*learning, error) {
	t := &learning{unit: u, fixed: opt.FixedNorms}
	t.y, t.z = &t.own[0], &t.own[1]
	stack, err := conv.NewStack(u.Chain)
	if err != nil {
		return nil, err
	}
	var params []*Param
	try := func(p *Param) bool {
		p.Unit = u.Name
		if opt.Learn != nil && !opt.Learn(p) {
			return false
		}
		p.Grad = make([]float32, len(p.Value))
		params = append(params, p)
		return true
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
	if opt.Adapt != nil {
		a, err := opt.Adapt(u)
		if err != nil {
			return nil, err
		}
		if a != nil {
			if t.adapt, err = newAdapted(a, u, stack); err != nil {
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
	if m := u.Norm; m != nil {
		own := *m
		own.Weight, own.Bias = slices.Clone(m.Weight), slices.Clone(m.Bias)
		own.Mean, own.Var = slices.Clone(m.Mean), slices.Clone(m.Var)
		if m.Batches != nil {
			b := *m.Batches
			own.Batches = &b
		}
		u.Norm = &own
		t.norm = &nn.BatchNorm{Weight: own.Weight, Bias: own.Bias, Mean: own.Mean, Var: own.Var, Momentum: .1, Eps: own.Eps}
		gain := &Param{Name: m.Name + ".weight", Kind: Gain, Value: own.Weight}
		shift := &Param{Name: m.Name + ".bias", Kind: Shift, Value: own.Bias}
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
		if len(params) == 0 && t.fixed {
			c, err := fold(u)
			if err != nil {
				return nil, err
			}
			if t.frozen, err = conv.NewStack(c); err != nil {
				return nil, err
			}
			t.norm, t.conv = nil, nil
		}
	}
	t.learns = len(params) > 0
	l.params = append(l.params, params...)
	return t, nil
}

// share gives the units below the lowest that learns maps in common, for nothing
// there is kept, frozen chains one set of maps between their stages, and those whose convolution's output is not needed again one map
// instead of two.
func (l *Learner) share() {
	for _, t := range l.units {
		if t.fixed && t.gain == nil {
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
	for _, t := range l.units {
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
	for i, s := range out.all() {
		t := l.units[i]
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
		if m := s.Norm; m != nil {
			own := *m
			own.Weight, own.Bias = slices.Clone(m.Weight), slices.Clone(m.Bias)
			own.Mean, own.Var = slices.Clone(m.Mean), slices.Clone(m.Var)
			s.Norm = &own
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

// Forward runs the network on x, N×H×W×3, and returns N×classes logits, or
// N×H×W×classes of a segmentation network, that stay valid until the next call. What
// was kept of x is x itself: it must not change before Backward. workers 0 means
// GOMAXPROCS; the result does not depend on it.
func (l *Learner) Forward(ctx context.Context, x *conv.Map, workers int) ([]float32, error) {
	f, err := l.Features(ctx, x, workers)
	if err != nil {
		return nil, err
	}
	if l.neck != nil {
		if f, err = l.forwardBlocks(ctx, l.blocks[l.cut:], f, workers); err != nil {
			return nil, err
		}
		return l.segment(f, x.H, x.W, workers)
	}
	return l.ForwardFeatures(ctx, f, workers)
}

// Cacheable tells whether Features gives the same for an image each time, so that it
// can be kept: whether norms are fixed. It is false for segmentation networks.
func (l *Learner) Cacheable() bool { return l.neck == nil && l.units[0].fixed && l.lowest > 0 }

// Features is the part of Forward below everything that learns, down to the bounds of
// blocks: images' maps, or, where only the head learns, their averages. It stays
// valid until the next call.
func (l *Learner) Features(ctx context.Context, x *conv.Map, workers int) (*conv.Map, error) {
	a, err := l.stem.forward(x, nil, true, workers)
	if err != nil {
		return nil, err
	}
	if !l.net.CIFAR {
		l.stemH, l.stemW = a.H, a.W
		l.pooled = l.pool.Forward(l.pooled, a, workers)
		a = l.pooled
	}
	if a, err = l.forwardBlocks(ctx, l.blocks[:l.cut], a, workers); err != nil {
		return nil, err
	}
	if l.cut == len(l.blocks) && l.neck == nil {
		l.lastH, l.lastW = a.H, a.W
		l.average = nn.AveragePool(l.average, a, workers)
		return l.average, nil
	}
	return a, nil
}

// ForwardFeatures is the part of Forward after Features, of a classifier.
func (l *Learner) ForwardFeatures(ctx context.Context, f *conv.Map, workers int) ([]float32, error) {
	if l.cut < len(l.blocks) {
		a, err := l.forwardBlocks(ctx, l.blocks[l.cut:], f, workers)
		if err != nil {
			return nil, err
		}
		l.lastH, l.lastW = a.H, a.W
		l.average = nn.AveragePool(l.average, a, workers)
		f = l.average
	}
	logits, err := l.head.forward(f, nil, false, workers)
	if err != nil {
		return nil, err
	}
	return logits.Data, nil
}

func (l *Learner) forwardBlocks(ctx context.Context, blocks []*learningBlock, a *conv.Map, workers int) (*conv.Map, error) {
	var err error
	for _, b := range blocks {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b.in = a
		short := a
		switch {
		case b.shortcut != nil:
			if short, err = b.shortcut.forward(a, nil, false, workers); err != nil {
				return nil, err
			}
		case b.pad:
			l.padded = padShortcut(l.padded, a, b.stride, b.units[len(b.units)-1].unit.Chain.Out(), workers)
			short = l.padded
		}
		for i, t := range b.units {
			var residual *conv.Map
			if i == len(b.units)-1 {
				residual = short
			}
			if a, err = t.forward(a, residual, true, workers); err != nil {
				return nil, err
			}
		}
	}
	return a, nil
}

func (t *learning) forward(x, residual *conv.Map, relu bool, workers int) (*conv.Map, error) {
	t.in = x
	fail := func(err error) (*conv.Map, error) { return nil, fmt.Errorf("%s: %w", t.unit.Name, err) }
	var err error
	switch {
	case t.frozen != nil:
		if *t.y, err = t.frozen.Forward(*t.y, x, conv.Epilogue{Residual: residual, ReLU: relu}, workers); err != nil {
			return fail(err)
		}
		return *t.y, nil
	case t.norm == nil:
		if *t.y, err = t.convolve(*t.y, x, workers); err != nil {
			return fail(err)
		}
		return *t.y, nil
	}
	if *t.z, err = t.convolve(*t.z, x, workers); err != nil {
		return fail(err)
	}
	if t.fixed {
		*t.y = t.norm.ForwardFixed(*t.y, *t.z, residual, relu, workers)
		return *t.y, nil
	}
	if t.unit.Norm.Batches != nil {
		*t.unit.Norm.Batches++
	}
	*t.y = t.norm.Forward(*t.y, *t.z, residual, relu, workers)
	return *t.y, nil
}

// convolve is the unit's convolution with its adaption.
func (t *learning) convolve(dst, x *conv.Map, workers int) (*conv.Map, error) {
	a := t.adapt
	if a == nil {
		return t.conv.Forward(dst, x, conv.Epilogue{}, workers)
	}
	if err := a.refresh(t.conv); err != nil {
		return nil, err
	}
	first := &dst
	if a.serial != nil {
		first = &a.first
	}
	var err error
	if *first, err = t.conv.Forward(*first, x, conv.Epilogue{}, workers); err != nil {
		return nil, err
	}
	if a.parallel != nil {
		if *first, err = a.parallel.Forward(*first, x, conv.Epilogue{Residual: *first}, workers); err != nil {
			return nil, fmt.Errorf("parallel branch: %w", err)
		}
	}
	if a.serial != nil {
		if dst, err = a.serial.Forward(dst, a.first, conv.Epilogue{Residual: a.first}, workers); err != nil {
			return nil, fmt.Errorf("serial branch: %w", err)
		}
	}
	return dst, nil
}

// backward takes the gradient dy of the unit's output, masks it in place if the
// unit ends in ReLU, and writes the gradient of the unit's input, if that is wanted,
// to dx, with residual (which may be dx) added. spare is used on the way and may be
// dy where dy is not needed again.
func (t *learning) backward(dx, dy, spare **conv.Map, relu, input bool, residual *conv.Map, m *spareMaps, workers int) error {
	var out *conv.Map
	if relu {
		out = *t.y
	}
	g := dy
	stack := t.conv
	switch {
	case t.frozen != nil:
		stack = t.frozen
		if relu {
			nn.Mask(*dy, out, workers)
		}
	case t.norm == nil:
	case t.fixed:
		g = spare
		*g = t.norm.BackwardFixed(*g, *dy, *t.z, out, t.gain, t.shift, workers)
	default:
		g = spare
		*g = t.norm.Backward(*g, *dy, *t.z, out, t.gain, t.shift, workers)
	}
	var into *conv.Map
	if input {
		into = *dx
	}
	a := t.adapt
	if a != nil && a.serial != nil {
		var err error
		if m.serial, err = a.serial.Backward(m.serial, a.first, *g, true, conv.Epilogue{Residual: *g}, &m.stages, workers); err != nil {
			return fmt.Errorf("%s: serial branch: %w", t.unit.Name, err)
		}
		g = &m.serial
	}
	got, err := stack.Backward(into, t.in, *g, input, conv.Epilogue{Residual: residual}, &m.stages, workers)
	if err != nil {
		return fmt.Errorf("%s: %w", t.unit.Name, err)
	}
	if a != nil && a.parallel != nil {
		// It adds to what the convolution gave.
		if got, err = a.parallel.Backward(got, t.in, *g, input, conv.Epilogue{Residual: got}, &m.stages, workers); err != nil {
			return fmt.Errorf("%s: parallel branch: %w", t.unit.Name, err)
		}
	}
	if input {
		*dx = got
	}
	if a != nil {
		if err := a.store(t.conv); err != nil {
			return fmt.Errorf("%s: %w", t.unit.Name, err)
		}
	}
	return nil
}

// Backward computes, from the gradient of a loss in the logits of the last Forward,
// the gradients of all parameters that learn.
func (l *Learner) Backward(ctx context.Context, logits []float32, workers int) error {
	g := &l.grads
	// below tells whether something that comes before unit t learns.
	below := func(t *learning) bool { return l.lowest < t.index }
	if l.neck != nil {
		if more, err := l.segmentBackward(logits, below, workers); err != nil || !more {
			return err
		}
	} else {
		n := l.head.in.N
		if len(logits) != n*l.net.Classes {
			return fmt.Errorf("%w: %d gradients of %d×%d logits", conv.ErrShape, len(logits), n, l.net.Classes)
		}
		dy := &conv.Map{N: n, H: 1, W: 1, C: l.net.Classes, Data: logits}
		if err := l.head.backward(&g[1], &dy, &dy, false, below(l.head), nil, &l.spare, workers); err != nil || !below(l.head) {
			return err
		}
		g[0] = nn.AveragePoolBackward(g[0], g[1], l.lastH, l.lastW, workers)
	}
	for i := len(l.blocks) - 1; i >= 0; i-- {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := l.blocks[i]
		first := b.units[0]
		if b.shortcut != nil {
			first = b.shortcut
		}
		if err := l.blockBackward(b, below(first), workers); err != nil || !below(first) {
			return err
		}
	}
	if !l.net.CIFAR {
		g[1] = l.pool.Backward(g[1], g[0], l.stemH, l.stemW, workers)
		g[0], g[1] = g[1], g[0]
	}
	return l.stem.backward(&g[1], &g[0], &g[0], true, false, nil, &l.spare, workers)
}

// blockBackward takes the gradient of b's output in grads[0] and leaves that of its
// input there, if that is wanted.
func (l *Learner) blockBackward(b *learningBlock, input bool, workers int) error {
	g := &l.grads
	last := len(b.units) - 1
	for i := last; i >= 0; i-- {
		t := b.units[i]
		if t.index < l.lowest {
			break // what learns is in the units above, and the shortcut is below
		}
		var residual *conv.Map
		// After the last unit's backward pass g[0] is the gradient of the shortcut,
		// which the first unit's is added to.
		spare := &g[1]
		dy := &g[1]
		if i == last {
			dy = &g[0]
		}
		if i > 0 {
			dx := &g[2]
			if err := t.backward(dx, dy, spare, true, l.lowest < t.index, nil, &l.spare, workers); err != nil {
				return err
			}
			g[1], g[2] = g[2], g[1]
			continue
		}
		if !input {
			// Nothing below: the shortcut's own gradient is still to come.
			if err := t.backward(nil, dy, spare, true, false, nil, &l.spare, workers); err != nil {
				return err
			}
			continue
		}
		switch {
		case b.pad:
			g[3] = padShortcutBackward(g[3], g[0], b.in, b.stride, workers)
			g[0], g[3] = g[3], g[0]
			residual = g[0]
		case b.shortcut == nil:
			residual = g[0]
		default:
			if err := b.shortcut.backward(&g[3], &g[0], &g[0], false, true, nil, &l.spare, workers); err != nil {
				return err
			}
			g[0], g[3] = g[3], g[0]
			residual = g[0]
		}
		if err := t.backward(&g[0], dy, spare, true, true, residual, &l.spare, workers); err != nil {
			return err
		}
	}
	if !input && b.shortcut != nil && b.shortcut.learns {
		return b.shortcut.backward(nil, &g[0], &g[0], false, false, nil, &l.spare, workers)
	}
	return nil
}

// Diverged names the first unit, in execution order, whose output in the last Forward
// has a value that is not finite; "" if there is none.
func (l *Learner) Diverged() string {
	for _, t := range l.units {
		if *t.y == nil {
			continue
		}
		for _, v := range (*t.y).Data {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return t.unit.Name
			}
		}
	}
	return ""
}
