package rewrite

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/lowrank-go/lowrank/compress"
	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/linalg"
)

// plan is a method and ranks for a layer, and what it will cost.
type plan struct {
	method compress.Method
	rank   []int
	err    float64 // squared and relative, as far as it is known beforehand
	cost   cost
}

// methods are those that may stand in a layer's place. Auto tries those whose ranks and
// errors follow from singular values alone.
func (l *layer) methods(m compress.Method) []compress.Method {
	switch {
	case l.shape[2]*l.shape[3] == 1:
		return []compress.Method{compress.SVD}
	case m != compress.Auto:
		return []compress.Method{m}
	case l.axes == 1:
		return []compress.Method{compress.SVDIn, compress.SVD, compress.Tucker}
	}
	return []compress.Method{compress.SVDIn, compress.Spatial, compress.Tucker, compress.SVD}
}

// plan chooses among the methods: by energy the quickest, by a ratio of the products the
// one of the least error. It is nil, with the reason, where none pays.
func (l *layer) plan(ctx context.Context, k *conv.Kernel, opt *Options) (*plan, string, error) {
	dense := l.cost(l.dense(), opt.block())
	var best *plan
	reason := ""
	for _, m := range l.methods(opt.Method) {
		candidates, why, err := l.ranks(ctx, k, m, dense, opt)
		if err != nil {
			return nil, "", err
		}
		if len(candidates) == 0 && reason == "" {
			reason = why
		}
		for _, p := range candidates {
			if why := opt.saves(dense, p.cost); why != "" {
				if reason == "" {
					reason = fmt.Sprintf("rank %v of %s %s", p.rank, p.method, why)
				}
				continue
			}
			better := best == nil || p.cost.seconds < best.cost.seconds
			if best != nil && opt.Rank.Rule == compress.Ratio {
				better = p.err < best.err
			}
			if better {
				best = &p
			}
		}
	}
	if best == nil {
		return nil, reason, nil
	}
	return best, "", nil
}

// saves tells why a chain of a cost does not pay, "" where it does.
func (o *Options) saves(dense, chain cost) string {
	switch {
	case o.Always:
		return ""
	case chain.params >= dense.params:
		return fmt.Sprintf("would need %d parameters, the layer has %d", chain.params, dense.params)
	case chain.macs > dense.macs:
		return fmt.Sprintf("would need %d multiply-accumulates, the layer needs %d", chain.macs, dense.macs)
	case chain.seconds >= worth*dense.seconds:
		return "would not be quicker"
	}
	return ""
}

// worth is the share of the time, by the model, that a chain must come down to.
const worth = 0.9

// round is the rank from r upwards that runtimes like, at most full.
func (o *Options) round(r, full int) int {
	b := o.block()
	return min((r+b-1)/b*b, full)
}

func (o *Options) block() int { return max(o.Multiple, 1) }

// ranks are a method's ranks by the rule, none where the rule has none.
func (l *layer) ranks(ctx context.Context, k *conv.Kernel, m compress.Method, dense cost, opt *Options) ([]plan, string, error) {
	t, s := l.shape[0]/l.groups, l.shape[1]
	made := func(err float64, rank ...int) plan {
		return plan{m, rank, err, l.cost(l.stages(m, rank), opt.block())}
	}
	none := fmt.Sprintf("no rank fits into %g of its products", opt.Rank.Value)
	switch rule := opt.Rank.Rule; {
	case rule == compress.Fixed:
		// Cut to the shape by package compress, and filled up with zeros afterwards.
		p := plan{method: m, rank: opt.Rank.Fixed, err: math.NaN()}
		if m == compress.TKDCPD {
			p.cost = cost{}
			return []plan{p}, "", nil
		}
		first, last := p.rank[0], p.rank[len(p.rank)-1]
		if m == compress.Tucker {
			p.rank = []int{min(first, t, s*k.Taps()), min(last, s, t*k.Taps())}
			if p.rank[0] == t && p.rank[1] == s {
				return nil, fmt.Sprintf("rank %d,%d is full", t, s), nil
			}
		} else if f, err := conv.NewFold(k, conv.Kind(m)); err == nil {
			p.rank = []int{min(first, f.Rows, f.Cols)}
		} else {
			p.rank = []int{first}
		}
		p.cost = l.cost(l.stages(m, p.rank), opt.block())
		return []plan{p}, "", nil
	case rule == compress.VBMF || m == compress.TKDCPD || (m == compress.CP || m == compress.Separable) && rule == compress.Energy:
		return l.searched(ctx, k, m, opt)
	case m == compress.CP || m == compress.Separable:
		for r := opt.block(); ; r += opt.block() {
			if p := made(math.NaN(), r); p.cost.padded > opt.Rank.Value*dense.padded {
				if r -= opt.block(); r == 0 {
					return nil, none, nil
				}
				return []plan{made(math.NaN(), r)}, "", nil
			}
		}
	case m == compress.Tucker:
		return l.tucker(ctx, k, dense, opt)
	}
	energies, err := compress.Energies(k, m, opt.Workers)
	if err != nil {
		return nil, "", err
	}
	p, why := l.matrixPlan(m, energies, dense, opt)
	if p == nil {
		return nil, why, nil
	}
	return []plan{*p}, "", nil
}

// matrixPlan is the rank of a product of two matrices by energy or ratio, from the
// squared singular values.
func (l *layer) matrixPlan(m compress.Method, energies []float64, dense cost, opt *Options) (*plan, string) {
	var total float64
	for _, e := range energies {
		total += e
	}
	full := len(energies)
	made := func(r int) *plan {
		var rest float64
		for _, e := range energies[r:] {
			rest += e
		}
		return &plan{m, []int{r}, rest / total, l.cost(l.stages(m, []int{r}), opt.block())}
	}
	if opt.Rank.Rule == compress.Energy {
		r, kept := 0, 0.0
		for r < full && (kept < opt.Rank.Value*total || r == 0) {
			kept += energies[r]
			r++
		}
		if opt.Rank.Value == 1 {
			r = full
		}
		return made(opt.round(r, full)), ""
	}
	best := 0
	for r := opt.block(); r < full; r += opt.block() {
		if l.cost(l.stages(m, []int{r}), opt.block()).padded <= opt.Rank.Value*dense.padded {
			best = r
		}
	}
	if best == 0 {
		return nil, fmt.Sprintf("no rank fits into %g of its products", opt.Rank.Value)
	}
	return made(best), ""
}

// pointwise is the chain of a matrix, which is decomposed once and, while it is, not kept.
// The plan is nil, with the reason, where none pays.
func (l *layer) pointwise(ctx context.Context, opt *Options) (*plan, *conv.Chain, string, error) {
	t, s := l.shape[0], l.shape[1]
	if t == 1 || s == 1 {
		return nil, nil, "a single output or input", nil
	}
	var p *plan
	reason := ""
	dense := l.cost(l.dense(), opt.block())
	u, v, err := compress.Matrix{Rows: t, Cols: s, Read: l.weights}.Factor(ctx, opt.Workers, func(energies []float64) int {
		if energies[0] == 0 {
			reason = "all weights are zero"
			return 0
		}
		if p, reason = l.matrixPlan(compress.SVD, energies, dense, opt); p == nil {
			return 0
		}
		if why := opt.saves(dense, p.cost); why != "" {
			p, reason = nil, fmt.Sprintf("rank %v of svd %s", p.rank, why)
			return 0
		}
		return p.rank[0]
	})
	switch {
	case errors.Is(err, linalg.ErrNotFinite):
		return nil, nil, "weights are not finite", nil
	case err != nil || p == nil:
		return nil, nil, reason, err
	}
	r := p.rank[0]
	first, last := make([]float32, r*s), make([]float32, t*r)
	for c := range r {
		for j := range s {
			first[c*s+j] = float32(v.At(j, c))
		}
		for i := range t {
			last[i*r+c] = float32(u.At(i, c))
		}
	}
	chain := &conv.Chain{Kind: conv.SVD, Rank: p.rank, Groups: 1, Stages: []*conv.Kernel{
		{Shape: [4]int{r, s, 1, 1}, Weight: first}, {Shape: [4]int{t, r, 1, 1}, Weight: last},
	}}
	return p, chain, "", chain.Validate()
}

// searched are the ranks that package compress finds, rounded up.
func (l *layer) searched(ctx context.Context, k *conv.Kernel, m compress.Method, opt *Options) ([]plan, string, error) {
	o := opt.Options
	o.Method, o.Progress, o.Layers, o.Always = m, nil, nil, false
	r, err := compress.Layers(ctx, []compress.Target{{Name: l.name, Chain: conv.NewDense(k)}}, o)
	if err != nil {
		return nil, "", err
	}
	if r[0].Reason != "" {
		return nil, r[0].Reason, nil
	}
	t, s := l.shape[0]/l.groups, l.shape[1]
	p := plan{method: m, err: r[0].RelError * r[0].RelError}
	for i, v := range r[0].Rank {
		switch {
		case len(r[0].Rank) > 1 && i < 2:
			p.rank = append(p.rank, opt.round(v, []int{t, s}[i]))
		case m == compress.CP || m == compress.Separable || m == compress.TKDCPD:
			p.rank = append(p.rank, opt.round(v, math.MaxInt))
		default:
			f, err := conv.NewFold(k, conv.Kind(m))
			if err != nil {
				return nil, "", err
			}
			p.rank = append(p.rank, opt.round(v, min(f.Rows, f.Cols)))
		}
	}
	if stages := l.stages(m, p.rank); stages != nil {
		p.cost = l.cost(stages, opt.block())
	}
	return []plan{p}, "", nil
}

// tucker are the ranks of Tucker-2 on the grid of multiples: the quickest that keep the
// energy, or those that keep most within the products.
func (l *layer) tucker(ctx context.Context, k *conv.Kernel, dense cost, opt *Options) ([]plan, string, error) {
	kept, err := compress.TuckerEnergies(ctx, k, opt.Workers)
	if err != nil {
		return nil, "", err
	}
	t, s, taps := len(kept), len(kept[0]), k.Taps()
	total := kept[t-1][s-1]
	var best *plan
	for out := opt.round(1, t); ; out = opt.round(out+1, t) {
		for in := opt.round(1, s); ; in = opt.round(in+1, s) {
			if (out < t || in < s) && out <= in*taps && in <= out*taps {
				p := plan{method: compress.Tucker, rank: []int{out, in}, err: max(1-kept[out-1][in-1]/total, 0), cost: l.cost(l.stages(compress.Tucker, []int{out, in}), opt.block())}
				var fits, better bool
				if opt.Rank.Rule == compress.Energy {
					fits = p.err <= 1-opt.Rank.Value
					better = best == nil || p.cost.seconds < best.cost.seconds
				} else {
					fits = p.cost.padded <= opt.Rank.Value*dense.padded
					better = best == nil || p.err < best.err
				}
				if fits && better {
					best = &p
				}
			}
			if in == s {
				break
			}
		}
		if out == t {
			break
		}
	}
	if best == nil {
		if opt.Rank.Rule == compress.Energy {
			return nil, fmt.Sprintf("no ranks below the full ones keep %g of the energy", opt.Rank.Value), nil
		}
		return nil, fmt.Sprintf("no ranks fit into %g of its products", opt.Rank.Value), nil
	}
	return []plan{*best}, "", nil
}
