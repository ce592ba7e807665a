package graph

import (
	"context"
	"fmt"
	"strings"

	"github.com/lowrank-go/lowrank/conv"
)

// LearnerOptions say what of a network learns.
type LearnerOptions struct {
	// Learn says which parameters are trained; nil means all. What lies below the lowest
	// of them runs without keeping anything for a backward pass.
	Learn func(p *Param) bool
	// FixedNorms makes the batch norms use their running statistics, and leave them alone,
	// as in eval mode; otherwise they use the batch's and update them.
	FixedNorms bool
	// ModuleNorms makes those of adapters' own layers use the batch's statistics even so:
	// a norm that is new has none that mean anything.
	ModuleNorms bool
	// Adapt, where not nil, gives the adaption of a convolution, or nil for none.
	Adapt func(s Site) (*Adaption, error)
	// Seed is where dropout's random numbers come from.
	Seed uint64
}

// Learner is a network in training: it runs forwards keeping what the backward pass
// needs, and backwards from its first output for the gradients of its parameters. It must
// not run on two goroutines at a time.
type Learner struct {
	*machine
	params []*Param
	// kept tells which values the backward pass reads.
	kept []bool
	// active tells which steps have a backward pass, cut is where the last point lies
	// below which nothing learns and above which one value alone is read, live.
	active    []bool
	cut, live int
	// grads are the places of gradients, gradOf a value's, -1 for none.
	grads  []*conv.Map
	gradOf []int
	ops    []learningStep // by step
	from   int            // the first step of the last forward pass
	// dice is set where some step's output is random; passes counts forward passes.
	dice   bool
	passes int64
	seed   uint64

	classes  int
	segments bool
}

// learningStep is what a learner knows of a step beside the machine.
type learningStep struct {
	unit    *unit
	norm    *BatchNorm // the unit's, in memory of its own
	trainer trainer    // of another operation with parameters
	learns  bool
	wants   []bool // the inputs whose gradient is computed
	adds    []bool // where that adds to what is there
}

// trainer is a kernel with parameters.
type trainer interface {
	kernel
	// parameters are the parameters, in memory of the kernel's own.
	parameters() []parameter
	// learn gives memory for the gradient of parameter i, which the backward pass then
	// computes.
	learn(i int, gradient []float32)
	// op is the operation with the values as they are now, in memory of its own.
	op() Op
}

// parameter is one of a trainer's.
type parameter struct {
	suffix string
	kind   ParamKind
	value  []float32
}

// random is a kernel whose output is not the same each time.
type random interface{ seed(seed uint64) }

// NewLearner prepares a copy of g's weights for training.
func (g *Graph) NewLearner(opt LearnerOptions) (*Learner, error) {
	m, err := newMachine(g.Clone(), true)
	if err != nil {
		return nil, err
	}
	l := &Learner{machine: m, ops: make([]learningStep, len(m.steps)), kept: make([]bool, len(m.value)), active: make([]bool, len(m.steps)), seed: opt.Seed, classes: g.Classes(), segments: g.Segments()}
	sites := map[*Node]Site{}
	for _, s := range l.graph.allSites() {
		sites[s.Node] = s
	}
	for i, s := range m.steps {
		if err := l.prepare(i, s, sites, opt); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if err := l.activate(); err != nil {
		return nil, err
	}
	l.share()
	if l.live, l.cut = l.findCut(); l.cut < 0 {
		l.cut = 0
	}
	l.assign(func(v int) bool { return l.kept[v] })
	l.assignGradients()
	return l, nil
}

// prepare makes a step's kernel, if it may have parameters, and registers those that
// learn.
func (l *Learner) prepare(i int, s *step, sites map[*Node]Site, opt LearnerOptions) error {
	o := &l.ops[i]
	o.wants, o.adds = make([]bool, len(s.in)), make([]bool, len(s.in))
	try := func(p *Param, unit string) bool {
		p.Unit = unit
		if of := moduleOf(p.Unit); of != "" {
			p.Unit, p.Module = of, true
		}
		if opt.Learn != nil && !opt.Learn(p) {
			return false
		}
		p.Grad = make([]float32, len(p.Value))
		l.params = append(l.params, p)
		o.learns = true
		return true
	}
	if !s.unit() {
		if _, ok := s.node.Op.(parametric); !ok {
			return nil
		}
		k, err := s.node.Op.kernel(mode{train: true})
		if err != nil {
			return err
		}
		t, ok := k.(trainer)
		if !ok {
			return nil
		}
		s.kernel, o.trainer = k, t
		for i, v := range t.parameters() {
			p := &Param{Name: s.node.Name + "." + v.suffix, Kind: v.kind, Value: v.value}
			if try(p, s.node.Name) {
				t.learn(i, p.Grad)
			}
		}
		return nil
	}
	u := &unit{relu: s.relu, residual: s.residual, fixed: opt.FixedNorms && !(opt.ModuleNorms && moduleOf(s.name) != "")}
	o.unit, s.kernel = u, u
	name := s.name
	if s.conv != nil {
		c := s.conv.Conv().Chain
		if err := l.convolution(u, name, c, try); err != nil {
			return err
		}
		if opt.Adapt != nil && moduleOf(name) == "" {
			if err := l.adapt(o, sites[s.conv], opt); err != nil {
				return err
			}
		}
	} else if from := convBefore(s.norm); from != nil && moduleOf(name) == "" {
		// The norm of a convolution that an adapter's sum separates it from.
		name = from.Name
	}
	if s.norm == nil {
		return nil
	}
	o.norm = s.norm.BatchNorm().Clone()
	u.batchs = o.norm.Batches
	u.norm = o.norm.running()
	gain := &Param{Name: s.norm.Name + ".weight", Kind: Gain, Value: o.norm.Weight}
	shift := &Param{Name: s.norm.Name + ".bias", Kind: Shift, Value: o.norm.Bias}
	learnGain, learnShift := try(gain, name), try(shift, name)
	if learnGain || learnShift || !u.fixed {
		u.gain, u.shift = gain.Grad, shift.Grad
		if !learnGain {
			u.gain = make([]float32, len(o.norm.Weight))
		}
		if !learnShift {
			u.shift = make([]float32, len(o.norm.Bias))
		}
	}
	if !o.learns && u.fixed && s.conv != nil {
		folded, err := o.norm.fold(s.conv.Conv().Chain)
		if err != nil {
			return err
		}
		if u.frozen, err = conv.NewStack(folded); err != nil {
			return err
		}
		u.norm, u.conv, u.batchs = nil, nil, nil
	}
	return nil
}

// convolution prepares u's. try registers a parameter, if it learns.
func (l *Learner) convolution(u *unit, unitName string, c *conv.Chain, try func(*Param, string) bool) error {
	stack, err := conv.NewStack(c)
	if err != nil {
		return err
	}
	layers := stack.Layers()
	for i, layer := range layers {
		name := stageName(unitName, c, i)
		if p := (&Param{Name: name + ".weight", Kind: Weight, Value: layer.Weights(), stack: stack, stage: i}); try(p, unitName) {
			stack.Gradient(i).Weight = p.Grad
			u.learnsConv = true
		}
		if i == len(layers)-1 && stack.HasBias() {
			if p := (&Param{Name: name + ".bias", Kind: Bias, Value: layer.Bias(), stack: stack, stage: i}); try(p, unitName) {
				stack.Gradient(i).Bias = p.Grad
				u.learnsConv = true
			}
		}
	}
	u.conv = stack
	return nil
}

// stageName is what the tensors of a stage of a chain are called.
func stageName(name string, c *conv.Chain, stage int) string {
	if c.Kind == conv.Dense {
		return name
	}
	return fmt.Sprintf("%s.%d", name, stage)
}

// adapt gives a unit its adaption, if it gets one.
func (l *Learner) adapt(o *learningStep, s Site, opt LearnerOptions) error {
	a, err := opt.Adapt(s)
	if err != nil || a == nil {
		return err
	}
	u := o.unit
	if u.adapt, err = newAdapted(a, s.Chain, u.conv); err != nil {
		return err
	}
	for _, p := range a.Params {
		p.Unit, p.Kind = s.Name, Factor
		if len(p.Grad) != len(p.Value) {
			return fmt.Errorf("%w: parameter %s has %d values and %d gradients", conv.ErrShape, p.Name, len(p.Value), len(p.Grad))
		}
	}
	u.learnsConv = true
	o.learns = o.learns || len(a.Params) > 0
	l.params = append(l.params, a.Params...)
	return nil
}

// activate finds the steps that have a backward pass, and what it reads.
func (l *Learner) activate() error {
	// Values that depend on something that learns, and those that the first output does
	// depend on.
	learnt := make([]bool, len(l.value))
	for i, s := range l.steps {
		learnt[s.out] = l.ops[i].learns
		for _, v := range s.in {
			learnt[s.out] = learnt[s.out] || learnt[v]
		}
	}
	reaches := make([]bool, len(l.value))
	reaches[l.output[0]] = true
	for i := len(l.steps) - 1; i >= 0; i-- {
		s := l.steps[i]
		if !reaches[s.out] {
			continue
		}
		for _, v := range s.in {
			reaches[v] = true
		}
		l.active[i] = learnt[s.out]
	}
	for i, s := range l.steps {
		o := &l.ops[i]
		active := l.active[i]
		if o.unit != nil {
			o.unit.active = active
		}
		if s.kernel == nil {
			var err error
			if s.kernel, err = s.node.Op.kernel(mode{train: active}); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if _, ok := s.kernel.(random); ok {
				l.dice = true
			}
		}
		if !active {
			continue
		}
		d, ok := s.kernel.(differentiable)
		if !ok {
			return fmt.Errorf("%w: %s %q cannot be trained through", ErrUnsupported, s.node.Op.Kind(), s.name)
		}
		for j, v := range s.in {
			o.wants[j] = learnt[v]
			if d.needs(j) {
				l.kept[v] = true
			}
		}
		if d.needs(-1) {
			l.kept[s.out] = true
		}
	}
	return nil
}

// share gives chains that keep nothing one set of maps between their stages.
func (l *Learner) share() {
	longest := 0
	for _, o := range l.ops {
		for _, s := range o.stacks() {
			longest = max(longest, len(s.Layers()))
		}
	}
	l.scratch.between = make([]*conv.Map, longest)
	for i, o := range l.ops {
		if o.unit == nil {
			continue
		}
		switch {
		case o.unit.frozen != nil:
			o.unit.frozen.Share(l.scratch.between)
		case !l.active[i] && o.unit.conv != nil:
			o.unit.conv.Share(l.scratch.between)
		}
	}
}

func (o *learningStep) stacks() []*conv.Stack {
	var s []*conv.Stack
	if u := o.unit; u != nil && u.conv != nil {
		s = append(s, u.conv)
	}
	if u := o.unit; u != nil && u.frozen != nil {
		s = append(s, u.frozen)
	}
	return s
}

// findCut is the last point below everything that learns, or moves, at which one value
// alone is live: step cut is the first above it, live the value.
func (l *Learner) findCut() (live, cut int) {
	cut = -1
	last := make([]int, len(l.value))
	for i, s := range l.steps {
		for _, v := range s.in {
			last[v] = i
		}
	}
	for _, v := range l.output {
		last[v] = len(l.steps)
	}
	alive := map[int]bool{}
	if last[l.input] > 0 || len(l.steps) > 0 {
		alive[l.input] = true
	}
	for i, s := range l.steps {
		o := l.ops[i]
		_, dice := s.kernel.(random)
		moving := o.unit != nil && o.unit.norm != nil && !o.unit.fixed
		if o.learns || moving || dice {
			break
		}
		alive[s.out] = true
		for v := range alive {
			if last[v] <= i {
				delete(alive, v)
			}
		}
		if len(alive) == 1 && i+1 < len(l.steps) {
			for v := range alive {
				if v != l.input {
					live, cut = v, i+1
				}
			}
		}
	}
	return live, cut
}

// assignGradients gives gradients places.
func (l *Learner) assignGradients() {
	l.gradOf = make([]int, len(l.value))
	for v := range l.gradOf {
		l.gradOf[v] = -1
	}
	var pool slots
	for i := len(l.steps) - 1; i >= 0; i-- {
		if !l.active[i] {
			continue
		}
		s, o := l.steps[i], &l.ops[i]
		own := l.gradOf[s.out] // -1 where it is the caller's
		moved := false
		pass := -1
		if p, ok := s.kernel.(passing); ok {
			pass = p.passes()
		}
		for j, v := range s.in {
			if !o.wants[j] {
				continue
			}
			switch {
			case l.gradOf[v] >= 0:
				o.adds[j] = true
			case j == pass && own >= 0 && l.shapes[v].Equal(l.shapes[s.out]):
				l.gradOf[v], moved = own, true
			default:
				l.gradOf[v] = pool.take(l.shapes[v].Len())
			}
		}
		if own >= 0 && !moved {
			pool.give(own)
		}
	}
	l.grads = make([]*conv.Map, len(pool.size))
	for i := range l.grads {
		l.grads[i] = new(conv.Map)
	}
}

// Params are the parameters that learn, in execution order.
func (l *Learner) Params() []*Param { return l.params }

// Graph is the network that the learner was made of, as it was.
func (l *Learner) Graph() *Graph { return l.graph }

// Classes is the number of logits of an image, or of a pixel.
func (l *Learner) Classes() int { return l.classes }

// Segments tells whether every pixel has logits.
func (l *Learner) Segments() bool { return l.segments }

// Updated tells the learner that the values of its parameters were changed.
func (l *Learner) Updated() {
	for i := range l.ops {
		o := &l.ops[i]
		if o.unit == nil {
			continue
		}
		if o.unit.adapt != nil {
			o.unit.adapt.stale = true
		}
		if o.learns && o.unit.conv != nil {
			for _, layer := range o.unit.conv.Layers() {
				layer.Update()
			}
		}
	}
}

// Forward runs the network on x, N×H×W×C, and returns N×classes logits, or N×H×W×classes
// of a network that segments, that stay valid until the next call. What was kept of x is x
// itself: it must not change before Backward. workers 0 means GOMAXPROCS; the result does
// not depend on it.
func (l *Learner) Forward(ctx context.Context, x *conv.Map, workers int) ([]float32, error) {
	if err := l.begin(x); err != nil {
		return nil, err
	}
	l.from = 0
	l.roll()
	if err := l.run(ctx, 0, len(l.steps), workers); err != nil {
		return nil, err
	}
	return l.value[l.output[0]].Data, nil
}

// roll gives random steps the numbers of the next pass, which follow from how many there
// were.
func (l *Learner) roll() {
	if !l.dice {
		return
	}
	for i, s := range l.steps {
		if r, ok := s.kernel.(random); ok {
			r.seed(l.seed<<48 ^ uint64(l.passes)<<16 ^ uint64(i))
		}
	}
	l.passes++
}

// Cacheable tells whether Features gives the same for an image each time, so that it can
// be kept: whether something lies below everything that learns, and moves nothing. It is
// false for networks that segment.
func (l *Learner) Cacheable() bool { return l.cut > 0 && !l.Segments() }

// Features is the part of Forward below everything that learns, down to the last point
// where one value is all that is read above. It stays valid until the next call.
func (l *Learner) Features(ctx context.Context, x *conv.Map, workers int) (*conv.Map, error) {
	if err := l.begin(x); err != nil {
		return nil, err
	}
	if l.cut == 0 {
		return x, nil
	}
	if err := l.run(ctx, 0, l.cut, workers); err != nil {
		return nil, err
	}
	return l.value[l.live], nil
}

// ForwardFeatures is the part of Forward after Features.
func (l *Learner) ForwardFeatures(ctx context.Context, f *conv.Map, workers int) ([]float32, error) {
	if l.cut == 0 {
		return l.Forward(ctx, f, workers)
	}
	if err := l.resizeAt(l.live, f); err != nil {
		return nil, err
	}
	l.value[l.live], l.batch, l.from = f, f.N, l.cut
	l.roll()
	if err := l.run(ctx, l.cut, len(l.steps), workers); err != nil {
		return nil, err
	}
	return l.value[l.output[0]].Data, nil
}

// Backward computes, from the gradient of a loss in the logits of the last Forward, which
// it may overwrite, the gradients of all parameters that learn.
func (l *Learner) Backward(ctx context.Context, logits []float32, workers int) error {
	y := l.value[l.output[0]]
	if y == nil || len(logits) != len(y.Data) {
		n := 0
		if y != nil {
			n = len(y.Data)
		}
		return fmt.Errorf("%w: %d gradients of %d logits", conv.ErrShape, len(logits), n)
	}
	top := &conv.Map{N: y.N, H: y.H, W: y.W, C: y.C, Data: logits}
	for i := len(l.steps) - 1; i >= l.from; i-- {
		if !l.active[i] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		s, o := l.steps[i], &l.ops[i]
		c := &s.call
		c.workers, c.dy = workers, top
		if g := l.gradOf[s.out]; g >= 0 {
			c.dy = l.grads[g]
		}
		c.out = l.was(s.out, y.N)
		for j, v := range s.in {
			c.in[j] = l.was(v, y.N)
			c.dx[j], c.add[j] = nil, o.adds[j]
			if o.wants[j] {
				// Of its size beforehand: an input that is there twice has one.
				g := l.gradOf[v]
				if c.dx[j] = l.grads[g]; c.dx[j] != c.dy && !o.adds[j] {
					c.dx[j] = l.shapes[v].resize(c.dx[j], y.N)
					l.grads[g] = c.dx[j]
				}
			}
		}
		if err := s.kernel.(differentiable).backward(c); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		for j, v := range s.in {
			if o.wants[j] {
				l.grads[l.gradOf[v]] = c.dx[j]
			}
		}
	}
	return nil
}

// was is the value v of the last forward pass, or, where it was not kept, a map of its
// size alone.
func (l *Learner) was(v, n int) *conv.Map {
	if l.kept[v] || v == l.input {
		return l.value[v]
	}
	h, w, c := l.shapes[v].Layout()
	return &conv.Map{N: n, H: h, W: w, C: c}
}

// Diverged names the first step, in execution order, whose output in the last Forward has
// a value that is not finite; "" if there is none. Of outputs that later steps wrote over
// nothing is known any more.
func (l *Learner) Diverged() string {
	last := make([]*step, len(l.maps)) // that wrote there
	for _, s := range l.steps {
		last[l.slot[s.out]] = s
	}
	for _, s := range l.steps {
		if m := l.value[s.out]; m != nil && last[l.slot[s.out]] == s && !finite(m) {
			return s.name
		}
	}
	return ""
}

// Statistics are the running means and variances that Forward updates, the learner's own
// memory, in execution order; none where norms are fixed.
func (l *Learner) Statistics() [][]float32 {
	var s [][]float32
	for _, o := range l.ops {
		if o.unit != nil && o.unit.norm != nil && !o.unit.fixed {
			s = append(s, o.norm.Mean, o.norm.Var)
		}
	}
	return s
}

// Net is the network with the weights and statistics as they are now, and adaptions
// merged into the kernels, in memory of its own.
func (l *Learner) Net() (*Graph, error) { return l.snapshot(true) }

func (l *Learner) snapshot(merge bool) (*Graph, error) {
	out := l.graph.Clone()
	at := map[string]*Node{}
	for _, n := range out.Nodes {
		at[n.Name] = n
	}
	for i, s := range l.steps {
		o := &l.ops[i]
		switch {
		case o.trainer != nil:
			at[s.node.Name].Op = o.trainer.op()
		case o.unit == nil:
			continue
		}
		if s.conv != nil && o.unit.conv != nil {
			was := s.conv.Conv()
			c := was.Chain
			var err error
			switch {
			case o.unit.adapt == nil:
				c, err = o.unit.conv.Chain()
			case merge:
				c, err = o.unit.adapt.merged(c)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			at[s.conv.Name].Op = &Conv{Chain: c, Linear: was.Linear}
		}
		if s.norm != nil {
			at[s.norm.Name].Op = o.norm.Clone()
		}
	}
	return out, nil
}

// adapter is what the names of adapters' own layers have in them.
const adapter = ".adapter."

// moduleOf is the name of the unit that a layer is an adapter's at, "" if it is none's.
func moduleOf(name string) string {
	of, rest, ok := strings.Cut(name, adapter)
	if !ok || rest == "" {
		return ""
	}
	return of
}
