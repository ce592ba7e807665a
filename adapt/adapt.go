package adapt

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/match"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/zoo"
)

// Policies lists what may become of the batch norms.
var Policies = []peft.NormPolicy{peft.NormFrozen, peft.NormStats, peft.NormAffine, peft.NormAffineStats}

// Options are the choices of New.
type Options struct {
	Method Method
	// Rank lists the ranks of the kind of change; one is used for all. nil means those
	// that Choose gives, and without it the method's own. A rank above what a kernel has
	// is lowered to that.
	Rank   []int
	Choose Choice
	// Start is where the factors of a method with ranks come from; "" is Random.
	Start Start
	// Gradients are those of the loss in the kernels, by the convolution's name, as the
	// function Gradients computes them, for starts and choices that look at them.
	Gradients map[string][]float32
	// Alpha gives λ = Alpha/r, with r the first rank; with Stabilised it is Alpha/√r.
	// 0 means λ = 1. Learned lets λ learn. Of a module it is the scale of what the module
	// adds, and 0 means the published one.
	Alpha               float64
	Stabilised, Learned bool
	// DoRA lets the norms of output channels learn apart (Liu et al. 2024). It and
	// Learned are for changes of kernels.
	DoRA bool
	// Gain is how large the first step is; see peft.Change.Init. 0 means 1/√3.
	Gain float64
	// Precondition, where above 0, rewrites the gradients of the factors before the
	// optimiser has them, and is the damping; see peft.Change.Precondition. Lower rates
	// suit it than plain gradient descent. Methods that change no kernel have nothing to
	// precondition; to those that are linear in all factors together it makes no
	// difference.
	Precondition float64
	// Norms is the policy of the batch norms; "" means the method's own.
	Norms peft.NormPolicy
	// Layers are patterns of path.Match for the convolutions to change, of which '*'
	// matches dots too; nil means all but the first. Each must match one.
	Layers []string
	// Classes is the number of classes of the new head.
	Classes int
	// Segment is set for a task with a class for every pixel. A classifier becomes a
	// segmentation network for it, with a new neck before the new head and Dilate stages
	// dilated, nil meaning zoo.DefaultDilate.
	Segment bool
	Dilate  *int
	Seed    uint64
	// Batch is the number of images of a step, by which it is decided how a change
	// is computed; 0 means 128.
	Batch int
}

// String says what is trained, but for the seed and the gradients, which follow from the
// data: two runs are one where all this is the same.
func (o Options) String() string {
	rule := "none"
	if r := o.Choose.Rule; r != nil {
		rule = fmt.Sprintf("energy %g to rank %d", r.Energy, r.Most)
	}
	dilate := -1
	if o.Dilate != nil {
		dilate = *o.Dilate
	}
	return fmt.Sprintf("%s, rank %v, rule %s, budget %d parameters %d MACs, of %q, start %q, alpha %g, stabilised %t, learned %t, dora %t, gain %g, norms %s, layers %q, dilate %d, precondition %g",
		o.Method, o.Rank, rule, o.Choose.Params, o.Choose.MACs, o.Choose.Of, o.Start, o.Alpha, o.Stabilised, o.Learned, o.DoRA, o.Gain, o.Norms, o.Layers, dilate, o.Precondition)
}

// Network is a network that is being adapted.
type Network struct {
	// Base is the network as it was, frozen, but for the head, which is new, or of LwF has
	// new rows, as the neck of a new segmentation network is, and modules of the method,
	// which add nothing at first.
	Base *graph.Graph
	// Learner trains it; of LwF it has the outputs of the base before those of the new
	// head.
	Learner *graph.Learner
	// Changes are those of the kernels, by the convolution's name.
	Changes map[string]*peft.Delta
	Options Options
	// extension is what becomes of the base's description.
	extension zoo.Extension
	old       graph.Op // base's head
	// fresh are the units that are new: the head, and the neck of a network that segments
	// and did not.
	fresh map[string]bool
	kept  int // see Kept
}

// New prepares base for adaptation. base itself is left as it is. Starts and choices of
// ranks that decompose large kernels take a while: see NewContext.
func New(base *graph.Graph, opt Options) (*Network, error) {
	return NewContext(context.Background(), base, opt)
}

// NewContext is New until ctx ends.
func NewContext(ctx context.Context, base *graph.Graph, opt Options) (*Network, error) {
	m, err := opt.complete()
	if err != nil {
		return nil, err
	}
	n := &Network{Base: base.Clone(), Changes: map[string]*peft.Delta{}, Options: opt}
	if opt.Method == Scratch {
		n.Base.Randomise(opt.Seed)
	}
	if err := n.setTask(); err != nil {
		return nil, err
	}
	sites, err := chosen(n.Base, opt.Layers, n.isFresh)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(opt.Seed, 0x616461707400))
	if m.module != nil {
		if err := n.addModules(m, sites, rng); err != nil {
			return nil, err
		}
	}
	lo := graph.LearnerOptions{FixedNorms: opt.fixedNorms(), ModuleNorms: m.module != nil, Learn: n.learns}
	if m.kind != "" {
		specs, err := n.specs(ctx, m, sites)
		if err != nil {
			return nil, err
		}
		lo.Adapt = func(at graph.Site) (*graph.Adaption, error) {
			s, ok := specs[at.Name]
			if !ok {
				return nil, nil
			}
			return n.change(ctx, s, rng)
		}
	}
	n.Learner, err = n.Base.NewLearner(lo)
	return n, err
}

// complete puts the method's own in place of what is not given, and reports what makes no
// sense.
func (o *Options) complete() (method, error) {
	if _, err := ParseMethod(string(o.Method)); err != nil {
		return method{}, err
	}
	m := methods[o.Method]
	if o.Norms == "" {
		o.Norms = m.norms
	}
	if !slices.Contains(Policies, o.Norms) {
		return m, fmt.Errorf("%w: batch norms %q; want one of %v", ErrOption, o.Norms, Policies)
	}
	if p := o.Precondition; !(p >= 0) || math.IsInf(p, 1) || p > 0 && m.kind == "" {
		return m, fmt.Errorf("%w: method %s with a preconditioner damped by %g; want a method that changes kernels and a number above 0, or 0 for none", ErrOption, o.Method, p)
	}
	if o.Batch == 0 {
		o.Batch = 128
	}
	if err := o.checkStart(m); err != nil {
		return m, err
	}
	if err := o.checkChoice(m); err != nil {
		return m, err
	}
	if o.Choose.made() {
		return m, nil
	}
	var err error
	o.Rank, err = m.ranks(o.Rank, o.Method)
	return m, err
}

// fixedNorms tells whether the norms use their running statistics.
func (o *Options) fixedNorms() bool {
	return o.Norms == peft.NormFrozen || o.Norms == peft.NormAffine
}

// ranks are the ranks asked for, or the method's own.
func (m method) ranks(asked []int, name Method) ([]int, error) {
	if len(asked) == 0 {
		return m.rank, nil
	}
	for _, r := range asked {
		if r < 1 {
			return nil, fmt.Errorf("%w: rank %v; want numbers from 1", ErrOption, asked)
		}
	}
	switch n := len(m.rank); {
	case n == 0:
		return nil, fmt.Errorf("%w: rank %v; method %s has none", ErrOption, asked, name)
	case len(asked) == n:
		return asked, nil
	case len(asked) == 1:
		return slices.Repeat(asked, n), nil
	default:
		return nil, fmt.Errorf("%w: rank %v; method %s has %d", ErrOption, asked, name, n)
	}
}

// chosen are the convolutions that the patterns match, all but the first without any, and
// none of the units that are fresh.
func chosen(n *graph.Graph, patterns []string, fresh func(unit string) bool) ([]graph.Site, error) {
	all := slices.DeleteFunc(n.Sites(), func(s graph.Site) bool { return fresh(s.Name) })
	if len(patterns) == 0 {
		return all[1:], nil
	}
	names := make([]string, len(all))
	for i, s := range all {
		names[i] = s.Name
	}
	matched, err := match.Names(patterns, names, "convolution")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOption, err)
	}
	var sites []graph.Site
	for i, s := range all {
		if matched[i] {
			sites = append(sites, s)
		}
	}
	return sites, nil
}

// isFresh tells whether a unit is the new head, or the new neck.
func (n *Network) isFresh(unit string) bool {
	return n.fresh[unit]
}

// learns tells which of the network's own parameters the method trains.
func (n *Network) learns(p *graph.Param) bool {
	switch {
	case n.isFresh(p.Unit), p.Module && methods[n.Options.Method].module != nil:
		return true
	case n.Options.Method == Full || n.Options.Method == Scratch || n.Options.Method == LwF:
		return p.Kind == graph.Weight || p.Kind == graph.Bias || n.affine()
	case n.Options.Method == Bias:
		return p.Kind == graph.Shift || p.Kind == graph.Bias
	case p.Kind == graph.Gain || p.Kind == graph.Shift:
		return n.affine()
	}
	return false
}

// affine tells whether the policy trains the norms' scales and shifts.
func (n *Network) affine() bool {
	return n.Options.Norms == peft.NormAffine || n.Options.Norms == peft.NormAffineStats
}

// specs describe the changes of the chosen kernels, ranks and all, by name.
func (n *Network) specs(ctx context.Context, m method, sites []graph.Site) (map[string]*site, error) {
	o := n.Options
	all := make([]site, len(sites))
	for i, s := range sites {
		if s.Chain.Kind != conv.Dense {
			return nil, fmt.Errorf("%s: %w: the convolution is a chain of kind %s; networks are adapted before they are compressed", s.Name, ErrOption, s.Chain.Kind)
		}
		shape, geometry := s.Chain.Shape()
		all[i] = site{Site: s, spec: m.spec(shape, geometry), base: s.Chain.Stages[0].Weight}
		all[i].spec.Learned, all[i].spec.DoRA = o.Learned, o.DoRA
		if err := o.checkGradient(&all[i]); err != nil {
			return nil, err
		}
	}
	if o.Choose.made() {
		if err := o.choose(ctx, all); err != nil {
			return nil, err
		}
	}
	byName := map[string]*site{}
	for i := range all {
		s := &all[i].spec
		if !o.Choose.made() {
			s.Rank = m.rankOf(*s, o.Rank)
		}
		if a := o.Alpha; a != 0 && len(s.Rank) > 0 {
			s.Scale = peft.AlphaOverRank(a, s.Rank[0], o.Stabilised)
		} else if a != 0 {
			s.Scale = a
		}
		byName[all[i].Name] = &all[i]
	}
	return byName, nil
}

// change is the change of one kernel and how it is computed.
func (n *Network) change(ctx context.Context, s *site, rng *rand.Rand) (*graph.Adaption, error) {
	d, err := peft.New(s.spec)
	if err != nil {
		return nil, err
	}
	if err := n.Options.start(ctx, d, s, rng); err != nil {
		return nil, err
	}
	n.Changes[s.Name] = d
	a := &graph.Adaption{Delta: d}
	if p := n.Options.Precondition; p > 0 {
		a.Precondition = func() { d.Precondition(p) }
	}
	for _, f := range d.Factors() {
		a.Params = append(a.Params, &graph.Param{Name: fmt.Sprintf("%s.%s.%s", s.Name, s.spec.Kind, f.Name), Value: f.Value, Grad: f.Gradient()})
	}
	if d.Plan(n.Options.Batch, s.H, s.W) == peft.Materialised {
		return a, nil
	}
	stages := d.Stages()
	b := &graph.Branch{
		Load:  func(i int, w []float32) { stages[i].Load(w) },
		Store: func(i int, g []float32) { stages[i].Store(g) },
	}
	if stages[0].AfterBase {
		k := &conv.Kernel{Shape: stages[0].Shape, Weight: make([]float32, len(stages[0].Factor().Value)), Geometry: stages[0].Geometry}
		b.Chain = conv.NewDense(k)
		a.Serial = b
	} else {
		b.Chain = d.Chain()
		a.Parallel = b
	}
	return a, nil
}

// pointwise are the kinds that have no sense of their own for 1×1 kernels.
var pointwise = map[peft.Kind]bool{
	peft.LoRAView: true, peft.Spatial: true, peft.CP: true, peft.CP4: true, peft.Tucker2: true, peft.Tucker4: true,
	peft.TKDCPD: true, peft.Axial: true,
}

// spec describes the method's change of a kernel, but for ranks.
func (m method) spec(shape [4]int, g conv.Geometry) peft.Spec {
	if shape[2] == 1 && shape[3] == 1 && pointwise[m.kind] {
		// There is nothing to factorise in the taps.
		return peft.Spec{Kind: peft.LoRA, Shape: shape, Geometry: g}
	}
	return peft.Spec{Kind: m.kind, Shape: shape, Geometry: g, Match: m.match, Axes: m.axes}
}

// rankOf is the method's rank, of those asked for, for one kernel: as LoRA's of a 1×1
// kernel the first, and nowhere more than the kernel can have.
func (m method) rankOf(spec peft.Spec, asked []int) []int {
	r := slices.Clone(asked)
	if spec.Kind != m.kind {
		r = r[:min(1, len(r))]
		if len(r) == 0 {
			r = []int{4}
		}
	}
	limit := func(i, v int) {
		if i < len(r) {
			r[i] = min(r[i], v)
		}
	}
	switch spec.Kind {
	case peft.LoRA:
		limit(0, most(spec))
	case peft.Tucker2, peft.TKDCPD, peft.Tucker4:
		limit(0, spec.Shape[0]/max(spec.Groups, 1))
		limit(1, spec.Shape[1])
		if spec.Kind == peft.Tucker4 {
			limit(2, spec.Shape[2])
			limit(3, spec.Shape[3])
		}
	}
	// No tensor needs more terms of a CP than it has entries without its largest mode.
	o, c, taps := spec.Shape[0]/max(spec.Groups, 1), spec.Shape[1], spec.Shape[2]*spec.Shape[3]
	switch spec.Kind {
	case peft.TKDCPD:
		o, c = r[0], r[1]
		fallthrough
	case peft.CP, peft.CP4:
		limit(len(r)-1, o*c*taps/max(o, c, taps))
	}
	return r
}

// Params is the number of trained values, those of the head among them.
func (n *Network) Params() int {
	total := 0
	for _, p := range n.Learner.Params() {
		total += p.Len()
	}
	return total
}

// HeadParams is how many of them are the new head's, and the neck's of a new segmentation
// network: what every method trains.
func (n *Network) HeadParams() int {
	total := 0
	for _, p := range n.Learner.Params() {
		if n.isFresh(p.Unit) {
			total += p.Len()
		}
	}
	return total
}
