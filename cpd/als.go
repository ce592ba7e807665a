package cpd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/internal/tensorops"
)

// ErrSettings is wrapped by errors about a rank, a start or other settings that
// make no sense for the tensor.
var ErrSettings = errors.New("cpd: bad settings")

// Init is a way to start.
type Init string

// The starts.
const (
	// InitHOSVD takes the leading eigenvectors of the unfoldings' Gram
	// matrices, and random columns where the rank is above a dimension.
	InitHOSVD Init = "hosvd"
	// InitRandom takes normal random numbers.
	InitRandom Init = "random"
)

// Settings are the choices; the zero value, or nil, is a single start from the
// HOSVD.
type Settings struct {
	// Init is the first start, "" meaning InitHOSVD.
	Init Init
	// Start, where not nil, is the first start in place of Init; it is not
	// changed. Its weights, the scale of its columns and its first factor do
	// not matter, since that factor is solved for first.
	Start *Kruskal
	// Starts is the number of starts; the best result counts. 0 means 1, or 4
	// where a small projection of the tensor is fitted first (see Plain), which
	// makes starts cheap, or components of the first have vanished. All but the first
	// are random, and none follows one that ends Exact. A start's components that
	// vanish, as zero is a fixed point, are replaced by fibres of the residual.
	Starts int
	// Seed is where random numbers come from.
	Seed uint64
	// MaxSweeps bounds the sweeps of a start; 0 means 500.
	MaxSweeps int
	// Target stops everything as soon as the relative error is at most this; 0 is
	// no target.
	Target float64
	// MaxTime stops everything with the first sweep that ends after it; 0 means no
	// limit. What is found then depends on the machine's speed.
	MaxTime time.Duration
	// Tol and Patience stop a start when Patience sweeps in a row have each
	// lowered the relative error by less than Tol; 0 means 1e-8 and 10. One
	// flat sweep is no sign of convergence: ALS has plateaus.
	Tol      float64
	Patience int
	// Ridge, relative to ‖X‖, adds (Ridge·‖X‖)^(2/N)·Σ‖U_n‖² to the squared
	// error, which keeps components from growing; 0 is plain least squares.
	// The error is then no longer what is minimised, and may rise.
	Ridge float64
	// NonNegative lists the modes whose factors must not have negative entries;
	// these are fitted by hierarchical alternating least squares, a column at a
	// time (Cichocki and Phan 2009), and nothing is compressed first.
	NonNegative []int
	// Weights, where not nil, is of the tensor's shape, and the squared error of an
	// entry counts that often; 0 is an entry that is not known, whose value, NaN
	// even, does not matter. Each row of a factor then has a least-squares problem
	// of its own; see ALSSparse. RelError is that of the weighted entries. It is
	// for ALS alone.
	Weights *tensor.Dense
	// Plain makes every sweep the classical one, of the tensor itself in float64,
	// and nothing else. Otherwise, where that is much smaller, the tensor's
	// projection on the leading 1.5·R singular directions of each mode is fitted
	// first (Bro and Andersson 1998), and only then the tensor, from there; ALS
	// extrapolates its factors (Ang, Cohen, Hien and Gillis 2020) and takes a
	// sweep back that has not lowered the error; and it multiplies with the tensor
	// in float32 until the error nears what that can tell. The errors are those of
	// the tensor throughout.
	Plain bool
	// Workers bounds the goroutines, 0 means GOMAXPROCS. It does not change
	// the result.
	Workers int
	// Progress, where not nil, is called after every sweep.
	Progress func(start, sweep int, relError float64)
}

// Status says why a start stopped.
type Status string

// The reasons.
const (
	Converged  Status = "converged"
	SweepLimit Status = "sweep limit"
	// Exact means that the error reached the rounding of float64.
	Exact Status = "exact"
	// Reached means that the error is at most Settings.Target.
	Reached Status = "target reached"
	// TimeLimit means that Settings.MaxTime has passed.
	TimeLimit Status = "time limit"
	// Cancelled means that the context was.
	Cancelled Status = "cancelled"
)

// Result is the best decomposition and how it came about.
type Result struct {
	// Kruskal is arranged: unit columns, weights falling.
	Kruskal
	// RelError is ‖X − X̂‖/‖X‖, 0 for a zero tensor.
	RelError float64
	// Errors is the relative error after each sweep of the best start, and
	// Sweeps their number.
	Errors []float64
	Sweeps int
	Status Status
	// Start is the number of the best start, from 0.
	Start int
	// Vanished is the number of components that explain nothing, though the error is
	// above the target and they were tried again: the rank is wasted, and other seeds
	// or more starts may find more. It is 0 where the fit ended early.
	Vanished int
}

// exact is the relative error below which a sweep cannot improve.
const exact = 1e-14

// ALS fits a Kruskal tensor of the given rank by alternating least squares. Any
// rank from 1 on is accepted; where it is more than the tensor carries, the
// surplus components are small or share what there is. One far above the product of
// all sizes but the largest, which holds any tensor of the shape, is an error that
// wraps ErrSettings, as is one whose R×R matrices dwarf the tensor. A zero tensor gives
// zero weights.
//
// The context ends it between sweeps; the result is then the best so far, whose
// status is Cancelled, beside the context's error, and nil only where no sweep has
// ended.
func ALS(ctx context.Context, x *tensor.Dense, rank int, set *Settings) (*Result, error) {
	if set != nil && set.Weights != nil {
		s, err := masked(x, set.Weights)
		if err != nil {
			return nil, err
		}
		without := *set
		without.Weights = nil
		return ALSSparse(ctx, s, rank, &without)
	}
	a, err := prepare(x, rank, set, 500)
	if err != nil {
		return nil, err
	}
	if err := a.compress(); err != nil {
		return nil, fmt.Errorf("cpd: %w", err)
	}
	return a.fit(ctx, (*als).start, (*als).iterate)
}

// prepare checks what it is given, with sweeps for MaxSweeps where that is 0. The
// norm of the result is 0 where the tensor is.
func prepare(x *tensor.Dense, rank int, set *Settings, sweeps int) (a *als, err error) {
	shape, data, err := tensorops.View(x)
	if err != nil {
		return nil, fmt.Errorf("cpd: %w", err)
	}
	if err := carries(shape, len(data), rank); err != nil {
		return nil, err
	}
	s, many, err := set.complete(shape, rank, sweeps)
	if err != nil {
		return nil, err
	}
	a = &als{set: s, many: many, shape: shape, rank: rank, norm: tensorops.Norm(data), share: 1}
	if math.IsInf(a.norm, 0) {
		return nil, fmt.Errorf("cpd: %w: the norm overflows", tensorops.ErrTensor)
	}
	if a.norm == 0 {
		return a, nil
	}
	a.x = newDense(s.Workers, shape, data, a.norm, rank)
	return a, nil
}

// surplus is a rank that every tensor may have, however little it carries, and
// gramMost the number of values of an R×R matrix that is never too many.
const (
	surplus  = 1000
	gramMost = 1 << 26
)

// carries refuses ranks that a tensor of so many entries cannot use, before anything of
// their size is allocated.
func carries(shape []int, entries, rank int) error {
	if rank <= surplus || len(shape) == 0 {
		return nil
	}
	most, largest := 1, slices.Max(shape)
	for n, d := range shape {
		if n != slices.Index(shape, largest) {
			most = min(most, math.MaxInt/d) * d
		}
	}
	most = min(most, entries)
	switch {
	case rank > most:
		return fmt.Errorf("%w: rank %d; no tensor of shape %v and %d entries needs more than %d", ErrSettings, rank, shape, entries, most)
	case rank > max(4*entries, gramMost)/rank:
		return fmt.Errorf("%w: rank %d for a tensor of %d entries, whose fit needs matrices of %d×%d", ErrSettings, rank, entries, rank, rank)
	}
	return nil
}

// complete checks the settings for a tensor and a rank and fills in what is 0, with
// sweeps for MaxSweeps; many tells that the number of starts is ours to choose.
func (set *Settings) complete(shape []int, rank, sweeps int) (s Settings, many bool, err error) {
	if set != nil {
		s = *set
	}
	many = s.Starts == 0
	if many {
		s.Starts = 1
	}
	if s.MaxSweeps == 0 {
		s.MaxSweeps = sweeps
	}
	if s.Tol == 0 {
		s.Tol = 1e-8
	}
	if s.Patience == 0 {
		s.Patience = 10
	}
	if s.Init == "" {
		s.Init = InitHOSVD
	}
	switch {
	case len(shape) < 2:
		return s, many, fmt.Errorf("%w: a tensor of order %d; want at least 2", ErrSettings, len(shape))
	case rank < 1:
		return s, many, fmt.Errorf("%w: rank %d", ErrSettings, rank)
	case s.Starts < 0 || s.MaxSweeps < 0 || s.Patience < 0 || s.Tol < 0 || s.Ridge < 0 || math.IsNaN(s.Tol) || math.IsNaN(s.Ridge) || math.IsInf(s.Ridge, 1):
		return s, many, fmt.Errorf("%w: %d starts, %d sweeps, patience %d, tolerance %g, ridge %g; want none negative", ErrSettings, s.Starts, s.MaxSweeps, s.Patience, s.Tol, s.Ridge)
	case s.MaxTime < 0 || !(s.Target >= 0):
		return s, many, fmt.Errorf("%w: time limit %v, target %g; want none negative", ErrSettings, s.MaxTime, s.Target)
	case s.Init != InitHOSVD && s.Init != InitRandom:
		return s, many, fmt.Errorf("%w: start %q; want %q or %q", ErrSettings, s.Init, InitHOSVD, InitRandom)
	}
	for _, n := range s.NonNegative {
		if n < 0 || n >= len(shape) {
			return s, many, fmt.Errorf("%w: non-negative modes %v of a tensor of order %d", ErrSettings, s.NonNegative, len(shape))
		}
	}
	if s.Start != nil {
		if err := s.Start.Validate(); err != nil {
			return s, many, err
		}
		if got := s.Start.Shape(); s.Start.Rank() != rank || !slices.Equal(got, shape) {
			return s, many, fmt.Errorf("%w: a start of shape %v and rank %d for a tensor of %v at rank %d", ErrSettings, got, s.Start.Rank(), shape, rank)
		}
		for n, u := range s.Start.Factors {
			if norm := mat.Norm(u, math.Inf(1)); math.IsNaN(norm) || math.IsInf(norm, 0) {
				return s, many, fmt.Errorf("%w: factor %d of the start is not finite", ErrSettings, n)
			}
		}
	}
	return s, many, nil
}
