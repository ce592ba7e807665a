package adapt

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/ranks"
)

// ExtractOptions are the choices of Extract.
type ExtractOptions struct {
	// Method is one that changes kernels.
	Method Method
	// Rank lists ranks as Options.Rank does; nil means those that Rule gives.
	Rank []int
	Rule peft.Rule
	// Budget, where it is above 0, is the number of parameters of all changes
	// together: ranks are spread over the layers so that the most of the change is
	// kept (ranks.Allocate). It is for kinds that peft.NewLayer knows, and a layer may get
	// none. Rank and Rule then do not count.
	Budget int64
	// Progress, where it is not nil, is told what is worked on.
	Progress func(done, total int, name string)
}

// Extracted is what Extract found.
type Extracted struct {
	Adapter *peft.Adapter
	// Changes has a row for each kernel that was fine-tuned; one that got no rank of a
	// budget has the error 1, and is the base's in the adapter.
	Changes []Change
	// RelError is ‖ΔW − ΔW′‖/‖ΔW‖ over all kernels.
	RelError float64
}

// site is a kernel with a change.
type site struct {
	graph.Site
	spec        peft.Spec
	base, delta []float32 // delta is what fine-tuning made of it, where that is known
	skip        bool      // of a budget nothing was left for it
}

// Extract represents what fine-tuning made of base by low-rank changes of the
// convolutions, fitted to the difference of the kernels, and by the other tensors that
// differ, whole: the head, batch norms and biases. The head may have other classes.
// Errors wrap peft.ErrBase where the networks are not of one architecture, ErrOption for
// options, or are those of peft.Extract.
func Extract(ctx context.Context, base, tuned *graph.Graph, opt ExtractOptions) (*Extracted, error) {
	m, ok := methods[opt.Method]
	if !ok {
		_, err := ParseMethod(string(opt.Method))
		return nil, err
	}
	if m.kind == "" {
		return nil, fmt.Errorf("%w: method %s changes no kernels", ErrOption, opt.Method)
	}
	if opt.Rank != nil {
		var err error
		if opt.Rank, err = m.ranks(opt.Rank, opt.Method); err != nil {
			return nil, err
		}
	}
	was, is, err := sameNetwork(base, tuned)
	if err != nil {
		return nil, err
	}
	sites, kernels, err := m.tuned(base, was, is)
	if err != nil {
		return nil, err
	}
	switch {
	case opt.Budget > 0:
		err = spend(opt.Budget, sites)
	case opt.Rank != nil:
		for i := range sites {
			s := &sites[i].spec
			s.Rank = m.rankOf(*s, opt.Rank)
			if err = s.Validate(); err != nil {
				return nil, fmt.Errorf("%s: %w", sites[i].Name, err)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	out := &Extracted{Adapter: &peft.Adapter{Extra: replaced(was, is, kernels)}}
	out.Adapter.Norm = policy(base, out.Adapter.Extra)
	var lost, all float64
	for i, s := range sites {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if opt.Progress != nil {
			opt.Progress(i, len(sites), s.Name)
		}
		row, err := out.fit(ctx, s, opt.Rule)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		out.Changes = append(out.Changes, row)
		n := norm(s.delta)
		lost += n * n * row.RelError * row.RelError
		all += n * n
	}
	if all > 0 {
		out.RelError = math.Sqrt(lost / all)
	}
	return out, nil
}

// fit adds the change of one kernel.
func (e *Extracted) fit(ctx context.Context, s site, rule peft.Rule) (Change, error) {
	if s.skip {
		return Change{Module: s.Name, Kind: s.spec.Kind, Rank: s.spec.Rank, RelError: 1}, nil
	}
	d, relError, err := peft.Extract(ctx, s.spec, s.delta, s.base, rule)
	if err != nil {
		return Change{}, err
	}
	m := peft.Module{Name: s.Name, Delta: d}
	row, err := describe(m, "", 1, s.base)
	row.RelError = relError
	e.Adapter.Modules = append(e.Adapter.Modules, m)
	return row, err
}

// sameNetwork are the state dicts of two networks with the same tensors, those of the
// head having any number of outputs.
func sameNetwork(base, tuned *graph.Graph) (was, is *model.StateDict, err error) {
	if was, err = base.StateDict(); err != nil {
		return nil, nil, err
	}
	if is, err = tuned.StateDict(); err != nil {
		return nil, nil, err
	}
	for _, pair := range [][2]*model.StateDict{{was, is}, {is, was}} {
		for _, name := range pair[0].Names() {
			x, _ := pair[0].Get(name)
			y, ok := pair[1].Get(name)
			if !ok {
				return nil, nil, fmt.Errorf("%w: only one of the two networks has a tensor %q", peft.ErrBase, name)
			}
			head := name == base.Head.Name+".weight" || name == base.Head.Name+".bias"
			if !slices.Equal(x.Shape, y.Shape) && !(head && len(x.Shape) == len(y.Shape) && slices.Equal(x.Shape[1:], y.Shape[1:])) {
				return nil, nil, fmt.Errorf("%w: %q has shape %v in one of the two networks and %v in the other", peft.ErrBase, name, x.Shape, y.Shape)
			}
		}
	}
	return was, is, nil
}

// tuned are the convolutions whose kernels differ, and the names of all kernels.
func (m method) tuned(base *graph.Graph, was, is *model.StateDict) ([]site, map[string]bool, error) {
	var sites []site
	kernels := map[string]bool{}
	for _, s := range base.Sites() {
		if s.Name == base.Head.Name {
			continue
		}
		if s.Chain.Kind != conv.Dense {
			return nil, nil, fmt.Errorf("%w: %s is a chain of kind %s; changes are extracted from networks that are not compressed", ErrOption, s.Name, s.Chain.Kind)
		}
		w, err := kernelOf(was, s.Name)
		if err != nil {
			return nil, nil, err
		}
		v, err := kernelOf(is, s.Name)
		if err != nil {
			return nil, nil, err
		}
		kernels[s.Name+".weight"] = true
		if slices.Equal(v, w) {
			continue
		}
		d := make([]float32, len(w))
		for i := range d {
			d[i] = v[i] - w[i]
		}
		shape, g := s.Chain.Shape()
		sites = append(sites, site{Site: s, spec: m.spec(shape, g), base: w, delta: d})
	}
	return sites, kernels, nil
}

// spend chooses ranks by a budget.
func spend(budget int64, sites []site) error {
	layers := make([]ranks.Layer, len(sites))
	for i, s := range sites {
		var err error
		if layers[i], err = peft.NewLayer(s.spec, s.delta); err != nil {
			return fmt.Errorf("%w: a budget of parameters: %w", ErrOption, err)
		}
	}
	chosen, err := ranks.Allocate(budget, layers)
	if err != nil {
		return err
	}
	for i, r := range chosen {
		sites[i].spec.Rank, sites[i].skip = r, r[0] == 0
	}
	return nil
}

// policy is the batch-norm policy that leaves such tensors.
func policy(n *graph.Graph, extra *model.StateDict) peft.NormPolicy {
	has := func(name string) bool {
		_, ok := extra.Get(name)
		return ok
	}
	affine, stats := false, false
	for _, node := range n.Nodes {
		if _, ok := node.Op.(*graph.BatchNorm); ok {
			affine = affine || has(node.Name+".weight") || has(node.Name+".bias")
			stats = stats || has(node.Name+".running_mean") || has(node.Name+".running_var")
		}
	}
	switch {
	case affine && stats:
		return peft.NormAffineStats
	case affine:
		return peft.NormAffine
	case stats:
		return peft.NormStats
	}
	return peft.NormFrozen
}
