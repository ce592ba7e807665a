// Package tkdcpd combines the Tucker and the canonical polyadic decomposition: a
// partial Tucker decomposition first, then a CPD of its small core, then the
// error-preserving correction of that (Phan et al., "Stable low-rank tensor
// decomposition for compression of convolutional neural network", ECCV 2020, section
// 3.3). For a convolution kernel T×S×P compressed in its first two modes,
//
//	X ≈ [[A, B, C]] ×₁ U ×₂ V
//
// It costs a fraction of a CPD of the whole, whose sweeps it spares, and has fewer
// parameters than either where both the channels' subspaces and the core's rank are
// small. Since U and V are orthonormal, squared errors add up exactly:
// ‖X − X̂‖² = ε² + ‖G − Ĝ‖², ε being that of the Tucker decomposition, G its core.
// What the Tucker part does not spend of a bound is therefore the CPD's.
//
// Where the CPD's rank R is not well above a mode's R_n, the product of the two factors
// of the mode has fewer values than they have, I_n·R against R_n·(I_n + R): then it is
// cheaper to fuse them (Tensor.Merged), and the Tucker part is only a quicker way to a
// CPD of the whole.
package tkdcpd

import (
	"context"
	"errors"
	"math"
	"slices"

	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/stability"
	"github.com/lowrank-go/lowrank/tucker"
)

// ErrSettings is wrapped by errors about settings that make no sense.
var ErrSettings = errors.New("tkdcpd: bad settings")

// Settings are the choices. The Tucker part's ranks are Ranks, or VBMF's, or follow
// from RelError or Params, as the CPD's does where Rank is 0: the fewest parameters
// whose error is within RelError, or the least error of at most Params parameters.
// What is tried then is a Tucker part with none, 1/16, 1/8, 1/4 and 1/2 of the squared
// error, that of the bound or of a CPD of the whole that has as many parameters, and
// for each the CPD's rank by bisection or from the budget. With Ranks or VBMF alone
// the CPD's rank is the largest of the Tucker part's, which is no more than what the
// core's is.
type Settings struct {
	// Modes are those that the Tucker part compresses; nil means 0 and 1, the
	// channels of a kernel. A mode of full rank is left alone.
	Modes []int
	// Ranks has one rank for each of Modes, or one for all; cut to what the modes
	// have.
	Ranks []int
	// VBMF takes the ranks that variational Bayes finds in the unfoldings of the
	// modes; see package vbmf. A mode in which it finds only noise is an error that
	// wraps ErrRank.
	VBMF bool
	// Precision is that of vbmf.Settings: the rounding of x's entries where they were
	// not float64 once.
	Precision float64
	// RelError bounds ‖X − X̂‖/‖X‖ as a whole. Share is what the Tucker part may
	// spend of its square; 0 means a quarter where Rank is set, and otherwise that
	// several are tried.
	RelError, Share float64
	// Params bounds the number of parameters, as Fuse counts them; 0 is no bound.
	// Where nothing is within it and RelError the error wraps ErrRank.
	Params int
	// Rank is that of the CPD; one above what any core of the ranks needs is cut.
	Rank int
	// Fuse says which factors will be multiplied together. The sensitivity that is
	// made small is that of the products.
	Fuse Fuse
	// Plain leaves out the correction.
	Plain bool
	// Fit are the settings of the CPD, and EPC those of the correction: its Factor
	// bounds, with RelError and without, how many times its own the error of the
	// core's CPD may grow, 1.01 where neither is set; with RelError alone all of
	// that is spent. Its Bound, Target and Sizes follow from the decomposition; Weights
	// and NonNegative of Fit have no meaning for a core.
	Fit cpd.Settings
	EPC stability.Settings
	// Corrected, where not 0, bounds ‖X − X̂‖/‖X‖ after the correction, in place of the
	// factor of EPC. It does not choose ranks: where they do not reach it, the bound is
	// what they were found to reach.
	Corrected float64
	// Workers bounds the goroutines, 0 means GOMAXPROCS. It does not change the
	// result.
	Workers int
}

// Result is a decomposition and how it came about.
type Result struct {
	// Tensor has a balanced core, and factors with orthonormal columns.
	Tensor
	// RelError is ‖X − X̂‖/‖X‖, TuckerError the part of it that is the Tucker
	// decomposition's.
	RelError, TuckerError float64
	// Fit is the CPD of the core before it is corrected, with errors relative to the
	// core.
	Fit *cpd.Result
	// Correction is that of the core's CPD, likewise; nil where there was none.
	// Where Raised is set there, RelError is above the bound that was asked for.
	Correction *stability.Result
}

// Decompose computes the decomposition. Errors wrap ErrSettings, ErrRank or those of
// the packages that it stands on.
//
// The context ends it between sweeps; the result is then the best so far, beside the
// context's error, and nil only where there is no CPD yet.
func Decompose(ctx context.Context, x *tensor.Dense, set *Settings) (*Result, error) {
	all, err := DecomposeAll(ctx, set, x)
	if len(all) == 0 {
		return nil, err
	}
	return all[0], err
}

// DecomposeAll decomposes tensors of one shape with the same ranks, those of Choose. Where the
// context ends it, the results are those of the first tensors.
func DecomposeAll(ctx context.Context, set *Settings, x ...*tensor.Dense) ([]*Result, error) {
	p, err := newPlan(set, x...)
	if err != nil {
		return nil, err
	}
	c, err := p.choose(ctx)
	if err != nil {
		return nil, err
	}
	var all []*Result
	for i := range x {
		r, err := p.decompose(ctx, c, i)
		if r != nil {
			all = append(all, r)
		}
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// decompose is the decomposition of tensor i with the ranks that were chosen.
func (p *plan) decompose(ctx context.Context, c *choice, i int) (*Result, error) {
	t := c.parts[i]
	fit, err := p.fit(ctx, c, i)
	if fit == nil {
		return nil, err
	}
	r := &Result{Tensor: Tensor{Core: *fit.Balanced(), Factors: t.Factors}, TuckerError: t.RelError, Fit: fit}
	core := fit.RelError
	if err == nil && !p.Plain {
		if r.Correction, err = p.correct(ctx, i, t, fit); r.Correction == nil {
			return nil, err
		}
		r.Core, core = r.Correction.Kruskal, r.Correction.After.RelError
	}
	if whole := p.norms[i]; whole > 0 {
		r.RelError = math.Hypot(t.RelError, core*t.Norm()/whole)
	}
	return r, err
}

// fit is the CPD of core i, which goes on from a trial's where there is one.
func (p *plan) fit(ctx context.Context, c *choice, i int) (*cpd.Result, error) {
	core := c.parts[i].Core
	if c.fits == nil {
		return cpd.ALS(ctx, core, c.rank, &p.Fit)
	}
	trial, set := c.fits[i], p.Fit
	if set.MaxSweeps == 0 {
		set.MaxSweeps = fitSweeps
	}
	if set.MaxSweeps -= trial.Sweeps; set.MaxSweeps <= 0 || trial.Status != cpd.SweepLimit && trial.Status != cpd.Reached {
		return trial, nil
	}
	set.Start, set.Starts = &trial.Kruskal, 1
	fit, err := cpd.ALS(ctx, core, c.rank, &set)
	if fit == nil || fit.RelError > trial.RelError {
		return trial, err
	}
	history := slices.Clone(trial.Errors)
	for _, e := range fit.Errors { // rounding apart they fall
		history = append(history, min(e, trial.Errors[len(trial.Errors)-1]))
	}
	fit.Errors, fit.Sweeps, fit.Start = history, fit.Sweeps+trial.Sweeps, trial.Start
	return fit, err
}

// fitSweeps are the sweeps of the CPD where the settings do not say.
const fitSweeps = 500

// correct makes the CPD of the core less sensitive within the bound.
func (p *plan) correct(ctx context.Context, i int, t *tucker.Result, fit *cpd.Result) (*stability.Result, error) {
	set := p.EPC
	set.Sizes = t.Core.Shape().Clone()
	for n, d := range set.Sizes {
		if t.Factors[n] != nil && p.Fuse.merges(p.shape[n], d, fit.Rank()) {
			set.Sizes[n] = p.shape[n]
		}
	}
	whole := p.RelError
	if p.Corrected > 0 && (whole == 0 || p.Corrected < whole) {
		whole = p.Corrected
	}
	if bound := p.left(i, t, whole); bound > 0 {
		if set.Bound = bound; set.Factor > 0 {
			set.Bound = min(bound, max(set.Factor*fit.RelError, 1e-6))
		}
		set.Factor = 0
	}
	return stability.EPC(ctx, t.Core, &fit.Kruskal, &set)
}
