package compress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/match"
)

// Target is a convolution in its place.
type Target struct {
	Name  string
	Chain *conv.Chain
	// Linear is set for a linear layer; it is compressed only where a pattern
	// in Options.Layers names it.
	Linear bool
	// H, W is the size of the input map, or 0 where it is not known: costs in
	// multiply-accumulates are then 0 and not weighed.
	H, W int
	// Reason, where not empty, says why the target must be left alone.
	Reason string
	// Note says what had to be taken for granted; it goes into the result.
	Note string
}

// Options are the knobs of Layers. The zero value means what the command does by default.
type Options struct {
	Method Method // "" means Auto
	Rank   Rank
	// Layers are patterns of path.Match over whole names ("layer3.*"), where a
	// '*' matches dots too; empty means every convolution.
	Layers []string
	// Stability corrects the CPs of methods CP and TKDCPD so that they are the least
	// sensitive of all within a bound (package stability). Above 1 it is a factor of the
	// fit's error; below 1 it is the relative error itself, or the fit's where that is
	// larger; ranks by energy keep their bound too. 0 is DefaultStability for TKDCPD, and
	// none for CP. NoStability corrects none.
	Stability float64
	// Always takes chains that save nothing too, those of full rank among them, for
	// which methods SVD, SVDIn and Spatial have no error.
	Always bool
	// Precision is the relative rounding of the weights where they were coarser than
	// float32 once, such as 2⁻⁷ for bfloat16; VBMF takes what may be rounding for zero.
	Precision float64
	// Statistics, where not nil, makes the decompositions of the layers that it has moments
	// of the best for the outputs on its images, not for the weights: see the package
	// comment. It also puts the bias right.
	Statistics *Statistics
	// Seed is where random starts come from.
	Seed uint64
	// Workers bounds the goroutines; 0 means GOMAXPROCS. It does not change
	// the result.
	Workers int
	// Progress, where not nil, is called before each target and once at the
	// end with done equal to total.
	Progress func(done, total int, name string)
	// Share, where not nil, is called more often, with the share of the work that is done
	// as far as that can be told ahead, and the target's name.
	Share func(done float64, name string)

	// step tells how far the fit of the target at hand is, from 0 to 1.
	step func(done float64)
}

// NoStability as Options.Stability leaves CPs as they were fitted.
const NoStability = -1

// DefaultStability is what TKDCPD is corrected by where nothing is said: it makes factors
// four times less sensitive and takes half a point from ResNet-20 (at 1.02: a point).
const DefaultStability = 1.01

// Result is what became of one target.
type Result struct {
	Name string `json:"name"`
	// Chain is in the target's place: new, or the old one where Reason is set.
	Chain *conv.Chain `json:"-"`
	// Method is the factorisation of the chain ("none" where it is unchanged).
	Method string `json:"method"`
	Rank   []int  `json:"rank"`
	// RelError is ‖W − Ŵ‖/‖W‖ of the weights as they are stored, in float32.
	RelError float64 `json:"rel_error"`
	// OutputError is, with Options.Statistics, the error of the outputs relative to what
	// they vary by on the statistics' images. Sensitivities and intensities are then those
	// of factors for white inputs.
	OutputError float64 `json:"output_error,omitempty"`
	// SensitivityBefore and SensitivityAfter are the sensitivities (Phan et
	// al. 2020) of the factors as the decomposition gave them and as they are
	// stored; for CP, balancing the components lowers it.
	SensitivityBefore float64 `json:"sensitivity_before"`
	SensitivityAfter  float64 `json:"sensitivity_after"`
	// IntensityBefore and IntensityAfter are, for CP, Separable and TKDCPD, the sums of the
	// components' squared norms, of the fit and as they are stored: far above the
	// kernel's squared norm they tell that components cancel. DegeneracyBefore and
	// DegeneracyAfter are how many times above that of the fitted kernel, CosineBefore
	// and CosineAfter the least cosine between two components; of several groups the
	// worst (stability.Report).
	IntensityBefore  float64 `json:"intensity_before,omitempty"`
	IntensityAfter   float64 `json:"intensity_after,omitempty"`
	DegeneracyBefore float64 `json:"degeneracy_before,omitempty"`
	DegeneracyAfter  float64 `json:"degeneracy_after,omitempty"`
	CosineBefore     float64 `json:"cosine_before,omitempty"`
	CosineAfter      float64 `json:"cosine_after,omitempty"`
	ParamsBefore     int     `json:"params_before"`
	ParamsAfter      int     `json:"params_after"`
	MACsBefore       int64   `json:"macs_before"`
	MACsAfter        int64   `json:"macs_after"`
	// Reason says why the layer was left as it was; empty where it was not.
	Reason string `json:"reason,omitempty"`
	// Note is the target's.
	Note    string  `json:"note,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Compressible reports whether a factorisation can make the kernel smaller at
// all, and if not, why.
func Compressible(k *conv.Kernel) (bool, string) {
	groups := max(k.Groups, 1)
	switch {
	case k.Shape[1] == 1 && groups > 1:
		return false, "depthwise: one input channel in each group"
	case k.Shape[0]/groups == 1:
		return false, "one output channel in each group"
	case k.Shape[1] == 1 && k.Pointwise():
		return false, "one weight for each output"
	case k.Norm() == 0:
		return false, "all weights are zero"
	case math.IsNaN(k.Norm()) || math.IsInf(k.Norm(), 0):
		return false, "weights are not finite"
	}
	return true, ""
}

// Layers factorises the targets one after another. One whose numbers do not allow it is
// left alone, with the reason. It stops with the context's
// error when that is done, and with an error wrapping ErrOption where an option
// makes no sense or a pattern names no target.
func Layers(ctx context.Context, targets []Target, opt Options) ([]Result, error) {
	if err := opt.complete(); err != nil {
		return nil, err
	}
	chosen, err := choose(targets, opt.Layers)
	if err != nil {
		return nil, err
	}
	results := make([]Result, 0, len(targets))
	work := newWork(targets, chosen, &opt)
	for i, t := range targets {
		if opt.Progress != nil {
			opt.Progress(i, len(targets), t.Name)
		}
		work.begin(i)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		start := time.Now()
		r, err := layer(ctx, t, chosen[i], opt)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.Name, err)
		}
		r.Seconds = time.Since(start).Seconds()
		results = append(results, r)
	}
	work.begin(len(targets))
	if opt.Progress != nil {
		opt.Progress(len(targets), len(targets), "")
	}
	return results, nil
}

// complete checks the options and fills in what is not said.
func (opt *Options) complete() error {
	if opt.Method == "" {
		opt.Method = Auto
	}
	if _, err := ParseMethod(string(opt.Method)); err != nil {
		return err
	}
	if opt.Method == Auto {
		opt.Method = TKDCPD
	}
	switch v := opt.Stability; {
	case v == 0 && opt.Method == TKDCPD:
		opt.Stability = DefaultStability
	case v == NoStability:
		opt.Stability = 0
	case v != 0 && (!(v > 0) || v == 1 || math.IsInf(v, 1) || opt.Method != CP && opt.Method != Separable && opt.Method != TKDCPD):
		return fmt.Errorf("%w: a stability of %g for method %s; want method cp, cp-separable or tkdcpd, and a factor above 1 or a relative error below", ErrOption, v, opt.Method)
	}
	switch opt.Rank.Rule {
	case "":
		opt.Rank = DefaultRank
	case Error:
		opt.Rank = Rank{Rule: Energy, Value: opt.Rank.Keeps()}
	case Params, MACs, MS:
		return fmt.Errorf("%w: rank %v; a budget is for Plan", ErrOption, opt.Rank)
	}
	if most := map[Method]int{Tucker: 2, TKDCPD: 3}[opt.Method]; len(opt.Rank.Fixed) > 1 && len(opt.Rank.Fixed) != most {
		return fmt.Errorf("%w: rank %v; method %s takes one rank%s", ErrOption, opt.Rank, opt.Method,
			[]string{"", "", " or R_out,R_in", " or R_out,R_in,R"}[most])
	}
	return nil
}

// decompose is factorise with the statistics of the layer called name, if there are any.
func (opt *Options) decompose(ctx context.Context, name string, k *conv.Kernel) (factorised, error) {
	m, err := opt.Statistics.of(name, k)
	if err != nil {
		return factorised{}, fmt.Errorf("%w: %w", ErrOption, err)
	}
	if m == nil {
		return factorise(ctx, k, *opt)
	}
	a, err := newAware(ctx, k, m, opt.Workers)
	if err != nil {
		return factorised{}, err
	}
	return a.factorise(ctx, *opt)
}

// choose tells which targets the patterns match, all but linear ones without any.
func choose(targets []Target, patterns []string) ([]bool, error) {
	names := make([]string, len(targets))
	for i, t := range targets {
		names[i] = t.Name
	}
	chosen, err := match.Names(patterns, names, "layer")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOption, err)
	}
	for i, t := range targets {
		chosen[i] = chosen[i] || len(patterns) == 0 && !t.Linear
	}
	return chosen, nil
}

// layer factorises one target, or says why not.
func layer(ctx context.Context, t Target, chosen bool, opt Options) (Result, error) {
	r := Result{Name: t.Name, Chain: t.Chain, Method: "none", Rank: []int{}, Note: t.Note,
		ParamsBefore: t.Chain.Params(), ParamsAfter: t.Chain.Params()}
	if t.H > 0 && t.W > 0 {
		r.MACsBefore = t.Chain.MACs(t.H, t.W)
		r.MACsAfter = r.MACsBefore
	}
	if !chosen {
		r.Reason = "not chosen"
		if t.Linear && len(opt.Layers) == 0 {
			r.Reason = "linear: compressed only where --layers names it"
		}
		return r, nil
	}
	k, err := t.Chain.Kernel()
	if err != nil {
		return r, err
	}
	if ok, why := Compressible(k); !ok || t.Reason != "" {
		r.Reason = cmp.Or(t.Reason, why)
		return r, nil
	}
	f, err := opt.decompose(ctx, t.Name, k)
	switch {
	case ctx.Err() != nil || errors.Is(err, ErrOption):
		return r, cmp.Or(err, context.Cause(ctx))
	case err != nil: // a sick layer is no reason to leave the others
		f.reason = fmt.Sprintf("its factorisation failed: %v", err)
	}
	if f.reason != "" {
		r.Reason = f.reason
		return r, nil
	}
	var macs int64
	if r.MACsBefore > 0 {
		macs = f.chain.MACs(t.H, t.W)
	}
	switch {
	case opt.Always:
	case f.chain.Params() >= r.ParamsBefore:
		r.Reason = fmt.Sprintf("rank %v would need %d parameters, the layer has %d", f.chain.Rank, f.chain.Params(), r.ParamsBefore)
		return r, nil
	case macs > r.MACsBefore:
		r.Reason = fmt.Sprintf("rank %v would need %d multiply-accumulates, the layer needs %d", f.chain.Rank, macs, r.MACsBefore)
		return r, nil
	}
	got, err := f.chain.Kernel()
	if err != nil {
		return r, err
	}
	if r.RelError, err = k.RelError(got); err != nil {
		return r, err
	}
	r.OutputError = f.output
	if e := cmp.Or(f.output, r.RelError); !(e < 1) {
		r.Reason, r.RelError, r.OutputError = fmt.Sprintf("rank %v has a relative error of %g, no better than nothing", f.chain.Rank, e), 0, 0
		return r, nil
	}
	r.Chain, r.Method, r.Rank = f.chain, string(f.method), f.chain.Rank
	r.ParamsAfter, r.MACsAfter = f.chain.Params(), macs
	r.SensitivityBefore, r.SensitivityAfter = f.before, f.after
	r.IntensityBefore, r.IntensityAfter = f.intensity[0], f.intensity[1]
	r.DegeneracyBefore, r.DegeneracyAfter = f.degeneracy[0], f.degeneracy[1]
	r.CosineBefore, r.CosineAfter = f.cosine[0], f.cosine[1]
	return r, nil
}
