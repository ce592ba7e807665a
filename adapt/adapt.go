package adapt

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/resnet"
)

// Policies lists what may become of the batch norms.
var Policies = []peft.NormPolicy{peft.NormFrozen, peft.NormStats, peft.NormAffine, peft.NormAffineStats}

// Options are the choices of New.
type Options struct {
	Method Method
	// Rank lists the ranks of the kind of change; one is used for all. nil means the
	// method's own. A rank above what a kernel has is lowered to that.
	Rank []int
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
	// matches dots too; nil means all but the first.
	Layers []string
	// Classes is the number of classes of the new head.
	Classes int
	Seed    uint64
	// Batch is the number of images of a step, by which it is decided how a change
	// is computed; 0 means 128.
	Batch int
}

// Network is a network that is being adapted.
type Network struct {
	// Base is the network as it was, frozen, but for the head, which is new, and modules
	// of the method, which add nothing at first.
	Base *resnet.Net
	// Learner trains it.
	Learner *resnet.Learner
	// Changes are those of the kernels, by the convolution's name.
	Changes map[string]*peft.Delta
	Options Options
}

// New prepares base for adaptation. base itself is left as it is.
func New(base *resnet.Net, opt Options) (*Network, error) {
	m, ok := methods[opt.Method]
	if !ok {
		_, err := ParseMethod(string(opt.Method))
		return nil, err
	}
	if opt.Norms == "" {
		opt.Norms = m.norms
	}
	if !slices.Contains(Policies, opt.Norms) {
		return nil, fmt.Errorf("%w: batch norms %q; want one of %v", ErrOption, opt.Norms, Policies)
	}
	if p := opt.Precondition; !(p >= 0) || math.IsInf(p, 1) || p > 0 && m.kind == "" {
		return nil, fmt.Errorf("%w: method %s with a preconditioner damped by %g; want a method that changes kernels and a number above 0, or 0 for none", ErrOption, opt.Method, p)
	}
	if opt.Batch == 0 {
		opt.Batch = 128
	}
	rank, err := m.ranks(opt.Rank, opt.Method)
	if err != nil {
		return nil, err
	}
	opt.Rank = rank
	n := &Network{Base: base.Clone(), Changes: map[string]*peft.Delta{}, Options: opt}
	if opt.Method == Scratch {
		n.Base.Randomise(opt.Seed)
	}
	if err := n.Base.SetHead(opt.Classes, opt.Seed); err != nil {
		return nil, err
	}
	sizes := map[string][2]int{}
	matched := false
	for i, s := range n.Base.Sites() {
		if !s.Linear && (i > 0 || opt.Layers != nil) && chosen(opt.Layers, s.Name) {
			sizes[s.Name] = [2]int{s.H, s.W}
			matched = true
		}
	}
	if !matched {
		return nil, fmt.Errorf("%w: no convolution is called %q", ErrOption, opt.Layers)
	}
	rng := rand.New(rand.NewPCG(opt.Seed, 0x616461707400))
	if m.module != nil {
		if err := n.addModules(m, sizes, rng); err != nil {
			return nil, err
		}
	}
	lo := resnet.LearnerOptions{
		FixedNorms:  opt.Norms == peft.NormFrozen || opt.Norms == peft.NormAffine,
		ModuleNorms: m.module != nil,
		Learn:       n.learns,
	}
	if m.kind != "" {
		lo.Adapt = func(u *resnet.Unit) (*resnet.Adaption, error) {
			size, ok := sizes[u.Name]
			if !ok {
				return nil, nil
			}
			return n.change(u, m, size, rng)
		}
	}
	n.Learner, err = n.Base.NewLearner(lo)
	return n, err
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

func chosen(patterns []string, name string) bool {
	if len(patterns) == 0 {
		return true
	}
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := path.Match(p, name) // names have no slashes
		return ok
	})
}

// learns tells which of the network's own parameters the method trains.
func (n *Network) learns(p *resnet.Param) bool {
	switch {
	case p.Unit == n.Base.Head.Name, p.Module && methods[n.Options.Method].module != nil:
		return true
	case n.Options.Method == Full || n.Options.Method == Scratch:
		return p.Kind == resnet.Weight || p.Kind == resnet.Bias || n.affine()
	case n.Options.Method == Bias:
		return p.Kind == resnet.Shift || p.Kind == resnet.Bias
	case p.Kind == resnet.Gain || p.Kind == resnet.Shift:
		return n.affine()
	}
	return false
}

// affine tells whether the policy trains the norms' scales and shifts.
func (n *Network) affine() bool {
	return n.Options.Norms == peft.NormAffine || n.Options.Norms == peft.NormAffineStats
}

// change is the change of one unit and how it is computed.
func (n *Network) change(u *resnet.Unit, m method, size [2]int, rng *rand.Rand) (*resnet.Adaption, error) {
	shape, geometry := u.Chain.Shape()
	spec := m.spec(shape, geometry)
	spec.Learned, spec.DoRA = n.Options.Learned, n.Options.DoRA
	spec.Rank = m.rankOf(spec, n.Options.Rank)
	if a := n.Options.Alpha; a != 0 && len(spec.Rank) > 0 {
		spec.Scale = peft.AlphaOverRank(a, spec.Rank[0], n.Options.Stabilised)
	} else if a != 0 {
		spec.Scale = a
	}
	if u.Chain.Kind != conv.Dense {
		return nil, fmt.Errorf("%w: the convolution is a chain of kind %s; networks are adapted before they are compressed", ErrOption, u.Chain.Kind)
	}
	base := u.Chain.Stages[0].Weight
	d, err := peft.New(spec)
	if err != nil {
		return nil, err
	}
	if err := d.Init(rng, n.Options.Gain, base); err != nil {
		return nil, err
	}
	n.Changes[u.Name] = d
	a := &resnet.Adaption{Delta: d}
	if p := n.Options.Precondition; p > 0 {
		a.Precondition = func() { d.Precondition(p) }
	}
	for _, f := range d.Factors() {
		a.Params = append(a.Params, &resnet.Param{Name: fmt.Sprintf("%s.%s.%s", u.Name, spec.Kind, f.Name), Value: f.Value, Grad: f.Gradient()})
	}
	if d.Plan(n.Options.Batch, size[0], size[1]) == peft.Materialised {
		return a, nil
	}
	stages := d.Stages()
	b := &resnet.Branch{
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
