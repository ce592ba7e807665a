package tkdcpd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/internal/bisect"
	"github.com/lowrank-go/lowrank/internal/tensorops"
	"github.com/lowrank-go/lowrank/tucker"
	"github.com/lowrank-go/lowrank/vbmf"
)

// ErrRank is wrapped by errors about bounds and budgets that no ranks satisfy.
var ErrRank = errors.New("tkdcpd: no ranks serve")

// shares of the squared error that the Tucker part may spend, where it is not said.
// With none of it the decomposition is a CPD of the whole.
var shares = []float64{0, 1. / 16, 1. / 8, 1. / 4, 1. / 2}

// trialSweeps bounds the sweeps of the fits that a choice is made by.
const trialSweeps = 60

// plan is tensors of one shape with settings that have been checked.
type plan struct {
	Settings
	shape []int
	x     []*tensor.Dense
	norms []float64
}

func newPlan(set *Settings, x ...*tensor.Dense) (*plan, error) {
	if set == nil {
		return nil, fmt.Errorf("%w: none; want ranks, a bound or a budget", ErrSettings)
	}
	p := &plan{Settings: *set, x: x}
	for i, t := range x {
		shape, data, err := tensorops.View(t)
		if err != nil {
			return nil, fmt.Errorf("tkdcpd: %w", err)
		}
		if i > 0 && !slices.Equal(shape, p.shape) {
			return nil, fmt.Errorf("%w: tensors of shapes %v and %v", ErrSettings, p.shape, shape)
		}
		p.shape, p.norms = shape, append(p.norms, tensorops.Norm(data))
	}
	if len(x) == 0 {
		return nil, fmt.Errorf("%w: no tensor", ErrSettings)
	}
	if p.Modes == nil {
		p.Modes = []int{0, 1}
	}
	for i, n := range p.Modes {
		if n < 0 || n >= len(p.shape) || slices.Contains(p.Modes[:i], n) {
			return nil, fmt.Errorf("%w: modes %v of a tensor of order %d", ErrSettings, p.Modes, len(p.shape))
		}
	}
	if len(p.Ranks) == 1 {
		p.Ranks = slices.Repeat(p.Ranks, len(p.Modes))
	}
	given := len(p.Ranks) > 0 || p.VBMF
	switch {
	case p.Rank < 0 || p.Params < 0:
		return nil, fmt.Errorf("%w: rank %d, %d parameters", ErrSettings, p.Rank, p.Params)
	case len(p.Ranks) > 0 && p.VBMF:
		return nil, fmt.Errorf("%w: ranks %v and VBMF; want one of them", ErrSettings, p.Ranks)
	case len(p.Ranks) > 0 && (len(p.Ranks) != len(p.Modes) || slices.Min(p.Ranks) < 1):
		return nil, fmt.Errorf("%w: ranks %v for modes %v", ErrSettings, p.Ranks, p.Modes)
	case !given && p.RelError == 0 && p.Params == 0:
		return nil, fmt.Errorf("%w: neither ranks nor a bound on the relative error nor a budget", ErrSettings)
	case p.Rank > 0 && p.Params > 0:
		return nil, fmt.Errorf("%w: rank %d and %d parameters; want one of them", ErrSettings, p.Rank, p.Params)
	case !(p.RelError >= 0 && p.RelError < 1):
		return nil, fmt.Errorf("%w: a bound of %g on the relative error; want one below 1", ErrSettings, p.RelError)
	case !(p.Share >= 0 && p.Share < 1):
		return nil, fmt.Errorf("%w: a share of %g; want one above 0 and below 1", ErrSettings, p.Share)
	case p.Fuse != Apart && p.Fuse != Cheaper && p.Fuse != All:
		return nil, fmt.Errorf("%w: fuse %q; want %q, %q or %q", ErrSettings, p.Fuse, Apart, Cheaper, All)
	case p.EPC.Factor != 0 && !(p.EPC.Factor >= 1) || math.IsInf(p.EPC.Factor, 1):
		return nil, fmt.Errorf("%w: a factor of %g; want at least 1", ErrSettings, p.EPC.Factor)
	case p.Fit.Weights != nil || p.Fit.NonNegative != nil:
		return nil, fmt.Errorf("%w: weights or signs of the core's CPD, which are not those of the tensor", ErrSettings)
	case !(p.Corrected >= 0 && p.Corrected < 1) || p.Corrected > 0 && p.EPC.Factor > 0:
		return nil, fmt.Errorf("%w: a bound of %g on the corrected error and a factor of %g; want one of them, the bound below 1", ErrSettings, p.Corrected, p.EPC.Factor)
	case p.EPC.Bound != 0 || p.EPC.Target != 0 || p.EPC.Sizes != nil:
		return nil, fmt.Errorf("%w: a bound, target or sizes of the correction, which follow from the decomposition", ErrSettings)
	}
	p.Fit.Workers, p.EPC.Workers = p.Workers, p.Workers
	return p, nil
}

// Choose finds the ranks that the settings ask for, which are to be those of all x,
// tensors of one shape: those of the Tucker part, one for each of Modes, I_n for a
// mode that it leaves alone, and that of the CPD. Short fits decide where no rule
// does. Where nothing serves the error wraps ErrRank.
func Choose(ctx context.Context, set *Settings, x ...*tensor.Dense) (ranks []int, rank int, err error) {
	p, err := newPlan(set, x...)
	if err != nil {
		return nil, 0, err
	}
	c, err := p.choose(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, n := range p.Modes {
		ranks = append(ranks, c.dims[n])
	}
	return ranks, c.rank, nil
}

// choice is ranks: the core's dimensions and the CPD's.
type choice struct {
	dims []int
	rank int
	// parts are the Tucker parts, and error2 is the squared error of a trial.
	parts  []*tucker.Result
	error2 float64
	// fits are a trial's CPDs of the parts' cores, from which the decomposition goes on;
	// nil where there was none, or of other cores.
	fits []*cpd.Result
}

// most is a rank that holds any core of the dimensions.
func (c *choice) most() int { return tensorops.Product(c.dims) / slices.Max(c.dims) }

// holds tells whether a decomposition with a core of dims and a rank up to most is one
// of c's form too, which has no more error then.
func (c *choice) holds(dims []int, most int) bool {
	for n, d := range dims {
		if d > c.dims[n] {
			return false
		}
	}
	return most <= c.rank
}

func (p *plan) choose(ctx context.Context) (*choice, error) {
	if dims, err := p.given(); dims != nil || err != nil {
		if err != nil {
			return nil, err
		}
		c, err := p.project(ctx, tucker.HOOI, dims)
		switch {
		case err != nil:
			return nil, err
		case p.Rank > 0:
			c.rank = min(p.Rank, c.most())
		case p.RelError == 0 && p.Params == 0:
			// The rank is at least that of any unfolding.
			for _, n := range p.Modes {
				c.rank = max(c.rank, c.dims[n])
			}
		default:
			return p.better(ctx, nil, c)
		}
		return c, nil
	}
	if p.Rank > 0 {
		share := p.Share
		if share == 0 {
			share = .25
		}
		c, err := p.within(ctx, tucker.HOOI, p.RelError*math.Sqrt(share))
		if err == nil {
			c.rank = min(p.Rank, c.most())
		}
		return c, err
	}
	all := shares
	if p.Share > 0 {
		all = []float64{p.Share}
	}
	// The error that is shared out: without a bound, that of a CPD in the budget.
	whole := p.RelError
	var best *choice
	if whole == 0 {
		c, err := p.within(ctx, tucker.HOSVD, 0)
		if err == nil {
			c, err = p.better(ctx, nil, c)
		}
		switch {
		case err == nil:
			whole = math.Sqrt(c.error2) / tensorops.Norm(p.norms)
			if p.Share == 0 {
				best, all = c, all[1:]
			}
		case !errors.Is(err, ErrRank):
			return nil, err
		}
		if !(whole > 0 && whole < 1) { // too small a budget, or a zero tensor
			whole = 1
		}
	}
	last := fmt.Errorf("%w: a relative error of %g in %d parameters", ErrRank, p.RelError, p.Params)
	candidates, err := p.candidates(ctx, all, whole)
	if err != nil {
		return nil, err
	}
	for _, c := range candidates {
		if best != nil && slices.Equal(c.dims, best.dims) {
			continue
		}
		switch c, err = p.better(ctx, best, c); {
		case err == nil:
			best = c
		case errors.Is(err, ErrRank):
			last = err
		default:
			return nil, err
		}
	}
	if best == nil {
		return nil, last
	}
	if slices.Equal(best.dims, p.shape) {
		return best, nil
	}
	c, err := p.project(ctx, tucker.HOOI, best.dims)
	if err == nil {
		c.rank = best.rank
	}
	return c, err
}

// partial is a partial Tucker decomposition: tucker.HOOI, or tucker.HOSVD, which takes
// a tenth of the time, where one of several is to be chosen.
type partial func(context.Context, *tensor.Dense, *tucker.Settings) (*tucker.Result, error)

// given are the dimensions of the core that Ranks or VBMF tell, cut to what the modes
// have; nil where neither is set.
func (p *plan) given() ([]int, error) {
	if len(p.Ranks) == 0 && !p.VBMF {
		return nil, nil
	}
	dims := slices.Clone(p.shape)
	for i, n := range p.Modes {
		rank := 0
		if !p.VBMF {
			rank = p.Ranks[i]
		} else {
			for j, x := range p.x {
				v, err := vbmf.Unfolding(x, n, &vbmf.Settings{Workers: p.Workers, Precision: p.Precision})
				if err != nil {
					return nil, fmt.Errorf("tkdcpd: mode %d: %w", n, err)
				}
				if rank = max(rank, v.Rank); rank == 0 && p.norms[j] == 0 {
					rank = 1
				}
			}
			if rank == 0 {
				return nil, fmt.Errorf("%w: VBMF finds only noise in mode %d", ErrRank, n)
			}
		}
		dims[n] = min(rank, dims[n])
	}
	return dims, nil
}

// within is the Tucker parts of the fewest parameters whose relative error is at most
// bound, with the same ranks for all.
func (p *plan) within(ctx context.Context, method partial, bound float64) (*choice, error) {
	if bound == 0 {
		return p.project(ctx, method, p.shape)
	}
	dims := slices.Repeat([]int{1}, len(p.shape))
	for _, x := range p.x {
		t, err := method(ctx, x, &tucker.Settings{Modes: p.Modes, RelError: bound, Workers: p.Workers})
		if err != nil {
			return nil, err
		}
		full := false
		for n, d := range t.Ranks() {
			dims[n] = max(dims[n], d)
			full = full || t.Factors[n] != nil && d == p.shape[n]
		}
		if len(p.x) == 1 && !full {
			return &choice{dims: dims, parts: []*tucker.Result{t}}, nil
		}
	}
	return p.project(ctx, method, dims)
}

// candidates are the Tucker parts that spend shares of the squared error whole².
func (p *plan) candidates(ctx context.Context, shares []float64, whole float64) ([]*choice, error) {
	var all []*choice
	var bounds []float64
	for _, share := range shares {
		if share > 0 {
			bounds = append(bounds, whole*math.Sqrt(share))
		}
	}
	if len(p.x) > 1 || len(bounds) < 2 {
		for _, share := range shares {
			c, err := p.within(ctx, tucker.HOSVD, whole*math.Sqrt(share))
			if err != nil {
				return nil, err
			}
			all = append(all, c)
		}
		return all, nil
	}
	if shares[0] == 0 {
		c, err := p.project(ctx, tucker.HOSVD, p.shape)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	// One HOSVD serves all bounds.
	parts, err := tucker.HOSVDs(ctx, p.x[0], &tucker.Settings{Modes: p.Modes, Workers: p.Workers}, bounds...)
	if err != nil {
		return nil, err
	}
	for _, t := range parts {
		c := &choice{dims: t.Ranks(), parts: []*tucker.Result{t}}
		for n, u := range t.Factors {
			if u != nil && c.dims[n] == p.shape[n] { // a factor that is none
				if c, err = p.project(ctx, tucker.HOSVD, c.dims); err != nil {
					return nil, err
				}
				break
			}
		}
		all = append(all, c)
	}
	return all, nil
}

// hopeless tells that c cannot have less error than best at a rank up to most, or the
// bound's at a lower one: the squared error of a CPD falls with the rank no faster than
// R⁻², and has to make up for what the Tucker parts spend.
func (p *plan) hopeless(c, best *choice, most int) bool {
	allowed, spent := best.error2, 0.
	if p.RelError > 0 {
		bound := p.RelError * tensorops.Norm(p.norms)
		allowed = bound * bound
	}
	for i, t := range c.parts {
		e := t.RelError * p.norms[i]
		spent += e * e
	}
	return spent >= allowed || float64(most) < float64(best.rank)/math.Sqrt(1-spent/allowed)
}

// project computes the Tucker parts with cores of dims, or of less where an unfolding
// of the core could not have the rank. Modes of full rank are left alone.
func (p *plan) project(ctx context.Context, method partial, dims []int) (*choice, error) {
	c := &choice{dims: p.shape}
	set := &tucker.Settings{Workers: p.Workers}
	for n, d := range dims {
		if d < p.shape[n] {
			set.Modes, set.Ranks = append(set.Modes, n), append(set.Ranks, d)
		}
	}
	for _, x := range p.x {
		if len(set.Modes) == 0 {
			c.parts = append(c.parts, &tucker.Result{Tucker: tucker.Tucker{Core: x, Factors: make([]*mat.Dense, len(dims))}})
			continue
		}
		t, err := method(ctx, x, set)
		if err != nil {
			return nil, err
		}
		c.dims, c.parts = t.Ranks(), append(c.parts, t)
	}
	return c, nil
}

// better gives c the rank of the CPD that the bound or the budget ask for, or is best
// where that is no worse: has no more parameters under a bound, no more error in a
// budget.
func (p *plan) better(ctx context.Context, best, c *choice) (*choice, error) {
	most := c.most()
	budget := p.Params
	if best != nil && p.RelError > 0 {
		budget = Params(p.shape, best.dims, best.rank, p.Fuse) - 1
	}
	first := 1
	if budget > 0 {
		most = sort.Search(most, func(r int) bool { return Params(p.shape, c.dims, r+1, p.Fuse) > budget })
		first = most
	}
	switch {
	case best != nil && (best.holds(c.dims, most) || slices.Equal(best.dims, p.shape) && p.hopeless(c, best, most)):
		return best, nil
	case most == 0:
		return nil, fmt.Errorf("%w: rank 1 of a core of %v has more than %d parameters", ErrRank, c.dims, budget)
	case p.RelError > 0:
		rank, err := bisect.Least(first, most, func(r int) (bool, error) {
			_, fits, err := p.try(ctx, c, r)
			if fits != nil { // of fewer components than those before
				c.fits = fits
			}
			return fits != nil, err
		})
		switch {
		case err != nil:
			return nil, err
		case rank == 0 && best != nil:
			return best, nil
		case rank == 0:
			return nil, fmt.Errorf("%w: rank %d of a core of %v does not reach a relative error of %g", ErrRank, most, c.dims, p.RelError)
		}
		c.rank = rank
		return c, nil
	}
	var err error
	if c.error2, c.fits, err = p.try(ctx, c, most); err != nil {
		return nil, err
	}
	if c.rank = most; best != nil && best.error2 <= c.error2 {
		c = best
	}
	return c, nil
}

// try fits CPDs of a rank in few sweeps: their squared error, and the fits, nil where one
// is not within the bound.
func (p *plan) try(ctx context.Context, c *choice, rank int) (error2 float64, fits []*cpd.Result, err error) {
	for i, t := range c.parts {
		set := p.Fit
		if set.MaxSweeps == 0 || set.MaxSweeps > trialSweeps {
			set.MaxSweeps = trialSweeps
		}
		bound := p.left(i, t, p.RelError)
		if bound > 0 {
			set.Target = bound
		}
		fit, err := cpd.ALS(ctx, t.Core, rank, &set)
		if err != nil {
			return 0, nil, err
		}
		fits = append(fits, fit)
		e := math.Hypot(t.RelError*p.norms[i], fit.RelError*t.Norm())
		error2 += e * e
		if p.RelError > 0 && fit.RelError > bound {
			return error2, nil, nil
		}
	}
	return error2, fits, nil
}

// left is what the Tucker part of tensor i leaves of a bound on the relative error,
// relative to its core; 0 where there is no bound.
func (p *plan) left(i int, t *tucker.Result, bound float64) float64 {
	core := t.Norm()
	if bound == 0 || core == 0 {
		return 0
	}
	// Below that bounds are not told from rounding.
	return max(math.Sqrt(max(bound*bound-t.RelError*t.RelError, 0))*p.norms[i]/core, 1e-6)
}
