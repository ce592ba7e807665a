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
package tkdcpd

import (
	"context"
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/internal/tensorops"
	"github.com/lowrank-go/lowrank/stability"
	"github.com/lowrank-go/lowrank/tucker"
)

// ErrSettings is wrapped by errors about settings that make no sense.
var ErrSettings = errors.New("tkdcpd: bad settings")

// Settings are the choices; Rank is needed, and one of Ranks and RelError.
type Settings struct {
	// Modes are those that the Tucker part compresses; nil means 0 and 1, the
	// channels of a kernel.
	Modes []int
	// Ranks has one rank for each of Modes, or one for all.
	Ranks []int
	// RelError bounds ‖X − X̂‖/‖X‖ as a whole; without Ranks the Tucker part may
	// spend Share of its square, 0 meaning a quarter, and takes the fewest
	// parameters that do.
	RelError, Share float64
	// Rank is that of the CPD.
	Rank int
	// Factor is, without RelError, how many times its own the error of the core's
	// CPD may grow in the correction; 0 means 1.01.
	Factor float64
	// Fused says that the factors will be multiplied together, into a CPD of the
	// whole (Result.Kruskal): the sensitivity that is made small is then that one's.
	Fused bool
	// Seed, MaxSweeps and Workers are those of cpd.Settings.
	Seed      uint64
	MaxSweeps int
	Workers   int
}

// Result is a decomposition.
type Result struct {
	// Core is the CPD of the Tucker part's core, balanced, in the core's dimensions.
	Core cpd.Kruskal
	// Factors are the Tucker part's, I_n×R_n with orthonormal columns, nil for modes
	// that it leaves alone.
	Factors []*mat.Dense
	// RelError is ‖X − X̂‖/‖X‖, TuckerError the part of it that is the Tucker
	// decomposition's.
	RelError, TuckerError float64
	// Correction is that of the core's CPD, with errors relative to the core. Where
	// Raised is set there, RelError is above the bound that was asked for.
	Correction *stability.Result
}

// Kruskal multiplies the factors together: a CPD of the whole, balanced.
func (r *Result) Kruskal() *cpd.Kruskal {
	k := r.Core.Clone()
	for n, u := range r.Factors {
		if u != nil {
			var p mat.Dense
			p.Mul(u, k.Factors[n])
			k.Factors[n] = &p
		}
	}
	return k.Balanced()
}

// Params is the number of values of the factors of both parts.
func (r *Result) Params() int {
	n := r.Core.Params()
	for _, u := range r.Factors {
		if u != nil {
			rows, cols := u.Dims()
			n += rows * cols
		}
	}
	return n
}

// Decompose computes the decomposition. Errors wrap ErrSettings or those of the
// packages that it stands on.
func Decompose(ctx context.Context, x *tensor.Dense, set *Settings) (*Result, error) {
	if set == nil {
		return nil, fmt.Errorf("%w: none; want a rank", ErrSettings)
	}
	s := *set
	if s.Modes == nil {
		s.Modes = []int{0, 1}
	}
	if s.Share == 0 {
		s.Share = .25
	}
	if s.Factor == 0 {
		s.Factor = 1.01
	}
	switch {
	case s.Rank < 1:
		return nil, fmt.Errorf("%w: rank %d", ErrSettings, s.Rank)
	case len(s.Ranks) == 0 && s.RelError == 0:
		return nil, fmt.Errorf("%w: neither ranks nor a bound on the relative error", ErrSettings)
	case !(s.RelError >= 0 && s.RelError < 1):
		return nil, fmt.Errorf("%w: a bound of %g on the relative error; want one below 1", ErrSettings, s.RelError)
	case !(s.Share > 0 && s.Share < 1):
		return nil, fmt.Errorf("%w: a share of %g; want one above 0 and below 1", ErrSettings, s.Share)
	case !(s.Factor >= 1) || math.IsInf(s.Factor, 1):
		return nil, fmt.Errorf("%w: a factor of %g; want at least 1", ErrSettings, s.Factor)
	}
	ts := &tucker.Settings{Modes: s.Modes, Ranks: s.Ranks, Workers: s.Workers}
	if len(s.Ranks) == 0 {
		ts.RelError = s.RelError * math.Sqrt(s.Share)
	}
	t, err := tucker.HOOI(ctx, x, ts)
	if err != nil {
		return nil, err
	}
	r := &Result{Factors: t.Factors, TuckerError: t.RelError}
	fit, err := cpd.ALS(ctx, t.Core, s.Rank, &cpd.Settings{Seed: s.Seed, MaxSweeps: s.MaxSweeps, Workers: s.Workers})
	if err != nil {
		return nil, err
	}
	_, data, err := tensorops.View(x)
	if err != nil {
		return nil, err
	}
	whole, core := tensorops.Norm(data), t.Norm()
	es := &stability.Settings{Factor: s.Factor, Workers: s.Workers}
	if s.Fused {
		es.Sizes = x.Shape().Clone()
	}
	if s.RelError > 0 && core > 0 {
		// What is left of the bound, relative to the core.
		left := s.RelError*s.RelError - t.RelError*t.RelError
		es.Factor, es.Bound = 0, max(math.Sqrt(max(left, 0))*whole/core, 1e-6)
	}
	if r.Correction, err = stability.EPC(ctx, t.Core, &fit.Kruskal, es); err != nil {
		return nil, err
	}
	r.Core = r.Correction.Kruskal
	if whole > 0 {
		r.RelError = math.Hypot(t.RelError, r.Correction.After.RelError*core/whole)
	}
	return r, nil
}
