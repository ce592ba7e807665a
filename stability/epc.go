package stability

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/internal/tensorops"
)

// ErrSettings is wrapped by errors about bounds, starts and other settings that make
// no sense for the tensor.
var ErrSettings = errors.New("stability: bad settings")

// Objective is what is made small.
type Objective string

// The objectives.
const (
	// Sensitivity is that of cpd.Kruskal.LeastSensitivity.
	Sensitivity Objective = "sensitivity"
	// Intensity is the sum of the components' squared norms.
	Intensity Objective = "intensity"
)

// Settings are the choices; the zero value, or nil, is the least sensitivity at 1 %
// more error than the start has.
type Settings struct {
	// Objective is what to minimise, "" meaning Sensitivity.
	Objective Objective
	// The bound on ‖X − X̂‖/‖X‖ is Bound, or Factor times the start's, or as small
	// as lets the objective fall to Target. At most one may be set; none means a
	// Factor of 1.01. A Factor lets go of half of what the start explains of ‖X‖² at
	// the most: more of a poor fit would be nothing.
	Bound, Factor, Target float64
	// Steps is the number of bounds that are kept one after another, each half the one
	// before, down to the one that is asked for; 0 means 1. A loose bound takes a start
	// of large components, from which a tight one is not reached in thousands of
	// sweeps, to small ones in a few, and least squares hardly let them grow again. It
	// does not go with Target.
	Steps int
	// Sizes are the I_n of the sensitivity where these are not the tensor's own: of
	// a core whose factors are to be multiplied with others, those of the products.
	Sizes []int
	// MaxSweeps bounds the sweeps at each bound; 0 means 500.
	MaxSweeps int
	// Tol and Patience stop when Patience sweeps in a row have each lowered the
	// objective by less than this share of it; 0 means 1e-5 and 5.
	Tol      float64
	Patience int
	// Slack is how far below the bound a factor's squared error may stay, as a share of
	// it; 0 means 1e-10. A looser one spares most of the search for multipliers.
	Slack float64
	// Workers bounds the goroutines, 0 means GOMAXPROCS. It does not change the
	// result.
	Workers int
	// Progress, where not nil, is called after every sweep.
	Progress func(sweep int, objective, relError float64)
}

// Status says why a correction stopped.
type Status string

// The reasons.
const (
	Converged  Status = "converged"
	SweepLimit Status = "sweep limit"
	Cancelled  Status = "cancelled"
)

// State is what a correction changes.
type State struct {
	RelError  float64 `json:"rel_error"`
	Intensity float64 `json:"intensity"`
	// Sensitivity is the least of all scalings of the components.
	Sensitivity float64 `json:"sensitivity"`
}

// Result is a corrected decomposition.
type Result struct {
	// Kruskal is balanced: weights of one, columns scaled for the least sensitivity.
	cpd.Kruskal
	// Before is the start, After the result.
	Before, After State
	// Bound is the bound on the relative error that was kept. Raised tells that it
	// is not what was asked for, but the least that the rank was found to reach.
	Bound  float64
	Raised bool
	// Multiplier is that of the bound, for X scaled to unit norm: its inverse is the
	// rate at which the least objective falls as the squared error may grow. Penalised
	// has the same solutions with it as its weight.
	Multiplier float64
	// Objectives is the objective after each sweep, in the units of X, and Sweeps
	// their number.
	Objectives []float64
	Sweeps     int
	Status     Status
}

// epc is a tensor of unit norm with the factors at hand.
type epc struct {
	set   Settings
	shape []int
	sizes []int // of the sensitivity
	data  []float64
	scale float64 // data·scale has unit norm
	norm  float64
	rank  int
	tree  *tensorops.Tree[float64]
	// u are the factors, g their Gram matrices, mu the multiplier of each mode's
	// last constraint, from which the next search begins.
	u, g [][]float64
	mu   []float64
	// bound is that on ‖X − X̂‖², error2 what the last update says that is.
	bound, error2 float64
	// penalty, where not 0, is a multiplier that is given, in place of a bound.
	penalty float64
	memory
}

// EPC is the error-preserving correction of a decomposition of x. It minimises the
// objective over all decompositions of the start's rank whose relative error is
// within the bound, mode by mode, each exactly: for the others fixed the best factor
// is U = M·(Γ + μ·W)⁻¹ with the multiplier μ at which the error is the bound's (Phan
// et al., "Stable low-rank tensor decomposition for compression of convolutional
// neural network", ECCV 2020, section 3.2). From a start within the bound neither the
// objective rises nor is the bound left.
//
// Where the start's error is above the bound, least squares lower it first; where
// they cannot, the bound becomes the error that they reach, and Raised tells. Below
// a relative error of 1e-6 bounds are not told from rounding.
//
// The context ends it between sweeps; the result is then the best so far, beside the
// context's error.
func EPC(ctx context.Context, x *tensor.Dense, start *cpd.Kruskal, set *Settings) (*Result, error) {
	e, res, err := begin(x, start, set)
	if err != nil || e.norm == 0 {
		return res, err
	}
	if e.set.Target > 0 {
		return e.reach(ctx, res)
	}
	bound := e.set.Bound
	if bound == 0 {
		now := res.Before.RelError
		bound = min(e.set.Factor*now, max(now, math.Sqrt((1+now*now)/2)))
	}
	for step := e.set.Steps - 1; step >= 0; step-- {
		b := bound * math.Pow(2, float64(step))
		if b >= 1 && step > 0 {
			continue // nothing would be left
		}
		if err := e.feasible(ctx, x, b, res); err != nil {
			return nil, err
		}
		if res.Raised && e.set.Steps > 1 {
			// The path has led away from what the start could keep.
			e.load(start)
			step, e.set.Steps = 1, 1
			continue
		}
		if err = e.iterate(ctx, res); err != nil {
			break
		}
	}
	e.finish(res)
	return res, err
}

// begin loads a start and its state, into what is the result already where the tensor
// is zero.
func begin(x *tensor.Dense, start *cpd.Kruskal, set *Settings) (*epc, *Result, error) {
	e, err := prepare(x, start, set)
	if err != nil {
		return nil, nil, err
	}
	res := &Result{}
	if e.norm == 0 {
		return e, e.nothing(start, res), nil
	}
	e.load(start)
	res.Before = e.state()
	return e, res, nil
}

// least is the relative error below which bounds have no digits.
const least = 1e-6

func prepare(x *tensor.Dense, start *cpd.Kruskal, set *Settings) (*epc, error) {
	s := Settings{}
	if set != nil {
		s = *set
	}
	shape, data, err := tensorops.View(x)
	if err != nil {
		return nil, fmt.Errorf("stability: %w", err)
	}
	if start == nil {
		return nil, fmt.Errorf("%w: no start", ErrSettings)
	}
	if err := start.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSettings, err)
	}
	if got := start.Shape(); !slices.Equal(got, shape) || len(shape) < 2 {
		return nil, fmt.Errorf("%w: a start of shape %v for a tensor of %v; want the same, of order 2 or more", ErrSettings, got, shape)
	}
	for n, u := range start.Factors {
		if v := mat.Norm(u, 1); v-v != 0 {
			return nil, fmt.Errorf("%w: factor %d of the start is not finite", ErrSettings, n)
		}
	}
	for r, w := range start.Weights {
		if w-w != 0 {
			return nil, fmt.Errorf("%w: weight %d of the start is %g", ErrSettings, r, w)
		}
	}
	given := 0
	for name, v := range map[string]float64{"bound": s.Bound, "factor": s.Factor, "target": s.Target} {
		if !(v >= 0) || math.IsInf(v, 1) {
			return nil, fmt.Errorf("%w: a %s of %g", ErrSettings, name, v)
		}
		if v > 0 {
			given++
		}
	}
	switch {
	case given > 1:
		return nil, fmt.Errorf("%w: bound %g, factor %g and target %g; want one of them", ErrSettings, s.Bound, s.Factor, s.Target)
	case s.Steps < 0 || s.Steps > 1 && s.Target > 0:
		return nil, fmt.Errorf("%w: %d steps to a target of %g", ErrSettings, s.Steps, s.Target)
	case s.MaxSweeps < 0 || s.Patience < 0 || !(s.Tol >= 0) || !(s.Slack >= 0 && s.Slack < 1):
		return nil, fmt.Errorf("%w: at most %d sweeps, patience %d, tolerance %g, slack %g", ErrSettings, s.MaxSweeps, s.Patience, s.Tol, s.Slack)
	case s.Objective == "":
		s.Objective = Sensitivity
	case s.Objective != Sensitivity && s.Objective != Intensity:
		return nil, fmt.Errorf("%w: objective %q; want %q or %q", ErrSettings, s.Objective, Sensitivity, Intensity)
	}
	if given == 0 {
		s.Factor = 1.01
	}
	s.Steps = max(s.Steps, 1)
	if s.MaxSweeps == 0 {
		s.MaxSweeps = 500
	}
	if s.Tol == 0 {
		s.Tol = 1e-5
	}
	if s.Patience == 0 {
		s.Patience = 5
	}
	if s.Slack == 0 {
		s.Slack = precise
	}
	sizes := s.Sizes
	if sizes == nil {
		sizes = shape
	}
	if len(sizes) != len(shape) || slices.Min(sizes) < 1 {
		return nil, fmt.Errorf("%w: sizes %v for a tensor of order %d", ErrSettings, s.Sizes, len(shape))
	}
	e := &epc{set: s, shape: shape, sizes: sizes, data: data, norm: tensorops.Norm(data), rank: start.Rank()}
	if math.IsInf(e.norm, 0) {
		return nil, fmt.Errorf("stability: %w: the norm overflows", tensorops.ErrTensor)
	}
	if e.norm == 0 {
		return e, nil
	}
	e.data, e.scale = tensorops.Unit(data, e.norm)
	e.tree = tensorops.NewTree[float64](s.Workers, shape, e.rank)
	return e, nil
}

// nothing is the correction of a zero tensor.
func (e *epc) nothing(start *cpd.Kruskal, res *Result) *Result {
	res.Kruskal = *start.Clone()
	res.Weights = nil
	for _, u := range res.Factors {
		u.Zero()
	}
	res.Status = Converged
	return res
}

// load takes over factors, in the units of a tensor of unit norm.
func (e *epc) load(k *cpd.Kruskal) {
	k = k.Normalized()
	for r := range k.Weights {
		k.Weights[r] /= e.norm
	}
	k = k.Balanced()
	e.u, e.g = nil, nil
	for n, f := range k.Factors {
		e.u = append(e.u, mat.DenseCopyOf(f).RawMatrix().Data)
		e.g = append(e.g, make([]float64, e.rank*e.rank))
		e.gram(n)
	}
	e.mu = make([]float64, len(e.u))
	e.balance()
}

// state is the decomposition at hand, in the units of X.
func (e *epc) state() State {
	s := State{RelError: e.distance()}
	for r := range e.rank {
		square := 1.
		for _, g := range e.g {
			square *= g[r*e.rank+r]
		}
		s.Intensity += square * e.norm * e.norm
	}
	k := e.kruskal()
	order := float64(len(e.shape))
	s.Sensitivity = k.LeastSensitivity() * math.Pow(e.norm, 2*(order-1)/order)
	return s
}

// distance is ‖X − X̂‖, from the residual.
func (e *epc) distance() float64 {
	u := slices.Clone(e.u)
	u[0] = make([]float64, len(e.u[0]))
	for i, v := range e.u[0] {
		u[0][i] = v / e.scale
	}
	return e.scale * tensorops.KruskalDistance(e.set.Workers, e.shape, e.data, u, e.rank)
}

func (e *epc) kruskal() *cpd.Kruskal {
	k := &cpd.Kruskal{}
	for n, u := range e.u {
		k.Factors = append(k.Factors, mat.NewDense(e.shape[n], e.rank, slices.Clone(u)))
	}
	return k
}

// feasible sets the bound, and factors within it.
func (e *epc) feasible(ctx context.Context, x *tensor.Dense, bound float64, res *Result) error {
	bound = max(bound, least)
	res.Raised = false
	now := e.distance()
	if now > bound {
		r, err := cpd.ALS(ctx, x, e.rank, &cpd.Settings{Start: e.units(), Target: bound * (1 - 1e-9), Workers: e.set.Workers})
		if r == nil {
			return err
		}
		e.load(&r.Kruskal)
		now = r.RelError
	}
	if now > bound {
		// At its own error a decomposition has no room to move in.
		bound, res.Raised = now*(1+1e-4), true
	}
	res.Bound, e.bound = bound, bound*bound
	return nil
}

// units is the decomposition at hand in the units of X.
func (e *epc) units() *cpd.Kruskal {
	k := e.kruskal().Normalized()
	for r := range k.Weights {
		k.Weights[r] *= e.norm
	}
	return k
}

// objectiveUnits are those of X of the objective for a tensor of unit norm.
func (e *epc) objectiveUnits() float64 {
	order := float64(len(e.shape))
	switch {
	case e.penalty > 0:
		return 1
	case e.set.Objective == Sensitivity:
		return math.Pow(e.norm, 2*(order-1)/order)
	}
	return e.norm * e.norm
}

// goal is what sweeps lower: the objective, or with a penalty the penalised error.
func (e *epc) goal() float64 {
	if e.penalty > 0 {
		return e.error2 + e.penalty*e.objective()
	}
	return e.objective()
}

// iterate sweeps until the goal is still.
func (e *epc) iterate(ctx context.Context, res *Result) error {
	units := e.objectiveUnits()
	calm, last := 0, e.goal()
	res.Status = SweepLimit
	for range e.set.MaxSweeps {
		if ctx.Err() != nil {
			res.Status = Cancelled
			return context.Cause(ctx)
		}
		if err := e.sweep(); err != nil {
			return err
		}
		f := e.goal()
		res.Sweeps++
		res.Objectives = append(res.Objectives, f*units)
		if e.set.Progress != nil {
			e.set.Progress(res.Sweeps, f*units, math.Sqrt(e.error2))
		}
		if last-f <= e.set.Tol*last {
			if calm++; calm >= e.set.Patience || f == 0 {
				res.Status = Converged
				return nil
			}
		} else {
			calm = 0
		}
		last = f
	}
	return nil
}

// finish fills in the result, back in the units of X.
func (e *epc) finish(res *Result) {
	res.After = e.state()
	res.Multiplier = e.mu[0]
	res.Kruskal = *e.units().Balanced()
	res.Weights = nil
}

// reach finds the least bound at which the objective falls to the target, to 0.2 %:
// from the start outwards in growing steps, then inwards, always from factors within
// the bound.
func (e *epc) reach(ctx context.Context, res *Result) (*Result, error) {
	enough := func() bool {
		s := e.state()
		if e.set.Objective == Intensity {
			return s.Intensity <= e.set.Target
		}
		return s.Sensitivity <= e.set.Target
	}
	low := max(res.Before.RelError, least)
	res.Bound, res.Status = low, Converged
	if enough() || low >= 1 {
		e.finish(res)
		return res, nil
	}
	from, best, high := clones(e.u), [][]float64(nil), 0.
	for step := .01; best == nil || high > 1.002*low; {
		mid := math.Sqrt(low * high)
		if best == nil {
			mid = min(low*(1+step), 1) // at 1 nothing is left
			step *= 2
		}
		e.take(from)
		e.bound = mid * mid
		if err := e.iterate(ctx, res); err != nil {
			if best != nil {
				e.take(best)
			}
			e.finish(res)
			return res, err
		}
		if enough() {
			high, best = mid, clones(e.u)
		} else {
			low, from = mid, clones(e.u)
		}
	}
	e.take(best)
	res.Bound = high
	e.finish(res)
	return res, nil
}

// take takes over factors.
func (e *epc) take(u [][]float64) {
	e.u = clones(u)
	for n := range e.u {
		e.gram(n)
	}
}

func clones(u [][]float64) [][]float64 {
	c := make([][]float64, len(u))
	for n, v := range u {
		c[n] = slices.Clone(v)
	}
	return c
}
