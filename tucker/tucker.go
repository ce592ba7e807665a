package tucker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/internal/gemm"
	"github.com/lowrank-go/lowrank/internal/linalg"
	"github.com/lowrank-go/lowrank/internal/tensorops"
	"github.com/lowrank-go/lowrank/vbmf"
)

// ErrSettings is wrapped by errors about modes, ranks or bounds that make no
// sense for the tensor.
var ErrSettings = errors.New("tucker: bad settings")

// Settings are the choices; one of Ranks, RelError, Energy and VBMF is needed.
type Settings struct {
	// Modes are the modes to compress, all where empty.
	Modes []int
	// Ranks has one rank for each of Modes, or a single one for all of them;
	// a rank above what the mode can have is cut.
	Ranks []int
	// RelError bounds ‖X − X̂‖/‖X‖, in place of Ranks: the ranks of the fewest
	// parameters whose truncated HOSVD keeps the bound are chosen, and HOOI
	// lowers them further where it can.
	RelError float64
	// Energy is the share of ‖X‖² that is to be kept, in place of RelError, which
	// is then √(1 − Energy).
	Energy float64
	// VBMF takes the ranks that variational Bayes finds in the unfoldings of the
	// modes; see package vbmf. A mode in which it finds only noise is an error.
	VBMF bool
	// Precision is that of vbmf.Settings: the rounding of X's entries where they were
	// not float64 once.
	Precision float64
	// MaxSweeps bounds HOOI; 0 means 50.
	MaxSweeps int
	// Tol stops HOOI when a sweep lowers the relative error by less than
	// this; 0 means 1e-7.
	Tol float64
	// Starts is the number of starts of HOOI and NonNegative with given ranks; the best
	// result counts. 0 means 1, or 4 where the first start of NonNegative has come to
	// nothing. All but the first are random: columns of normal numbers, orthonormal for
	// HOOI. The first is so too with InitRandom.
	Starts int
	// Init is the first start, "" meaning InitHOSVD.
	Init Init
	// Seed is where random numbers come from.
	Seed uint64
	// Workers bounds the goroutines, 0 means GOMAXPROCS. It does not change
	// the result.
	Workers int
	// Progress, where not nil, is called after every sweep of HOOI.
	Progress func(sweep int, relError float64)
}

// Init is a way to start.
type Init string

// The starts.
const (
	InitHOSVD  Init = "hosvd"
	InitRandom Init = "random"
)

// Status says why an iteration stopped.
type Status string

// The reasons.
const (
	Direct     Status = "direct" // nothing was iterated
	Converged  Status = "converged"
	SweepLimit Status = "sweep limit"
	Cancelled  Status = "cancelled"
)

// Result is a decomposition and how it came about.
type Result struct {
	Tucker
	// RelError is ‖X − X̂‖/‖X‖, 0 for a zero tensor.
	RelError float64
	// Sweeps is the number of sweeps of HOOI, and Errors the relative error
	// of the start and after each.
	Sweeps int
	Errors []float64
	Status Status
	// Start is the number of the best start, from 0.
	Start int
}

// plan is a tensor and settings that have been checked.
type plan struct {
	shape   []int
	data    []float64 // X·scale
	norm    float64   // of data
	scale   float64
	modes   []int
	ranks   []int // of modes
	set     Settings
	factors [][]float64 // of every mode, nil where left alone; I_n×rank
	core    []float64   // and its shape
	dims    []int
}

func newPlan(x *tensor.Dense, set *Settings) (*plan, error) {
	shape, data, err := tensorops.View(x)
	if err != nil {
		return nil, fmt.Errorf("tucker: %w", err)
	}
	if set == nil {
		return nil, fmt.Errorf("%w: none; want ranks or a bound on the relative error", ErrSettings)
	}
	p := &plan{shape: shape, data: data, norm: tensorops.Norm(data), scale: 1, set: *set}
	if math.IsInf(p.norm, 0) {
		return nil, fmt.Errorf("tucker: %w: the norm overflows", tensorops.ErrTensor)
	}
	// Gram matrices hold squares. A power of two scales without rounding.
	if _, exp := math.Frexp(p.norm); p.norm > 0 && (exp < -200 || exp > 200) {
		p.scale = math.Ldexp(1, min(-exp, 1021))
		p.data = scaled(data, p.scale)
		p.norm = tensorops.Norm(p.data)
	}
	p.modes = slices.Clone(set.Modes)
	if len(p.modes) == 0 {
		for n := range shape {
			p.modes = append(p.modes, n)
		}
	}
	slices.Sort(p.modes)
	for i, n := range p.modes {
		if n < 0 || n >= len(shape) || i > 0 && p.modes[i-1] == n {
			return nil, fmt.Errorf("%w: modes %v of a tensor of order %d", ErrSettings, set.Modes, len(shape))
		}
	}
	if set.MaxSweeps < 0 || set.Tol < 0 || math.IsNaN(set.Tol) {
		return nil, fmt.Errorf("%w: at most %d sweeps, tolerance %g", ErrSettings, set.MaxSweeps, set.Tol)
	}
	given := 0
	for _, is := range []bool{len(set.Ranks) > 0, set.RelError != 0, set.Energy != 0, set.VBMF} {
		if is {
			given++
		}
	}
	switch {
	case set.Init != "" && set.Init != InitHOSVD && set.Init != InitRandom:
		return nil, fmt.Errorf("%w: start %q; want %q or %q", ErrSettings, set.Init, InitHOSVD, InitRandom)
	case set.Starts < 0:
		return nil, fmt.Errorf("%w: %d starts", ErrSettings, set.Starts)
	case (set.Starts > 1 || set.Init == InitRandom) && (set.RelError != 0 || set.Energy != 0):
		return nil, fmt.Errorf("%w: %d starts with a bound on the error, whose ranks follow from the HOSVD; want ranks", ErrSettings, set.Starts)
	case given != 1:
		return nil, fmt.Errorf("%w: ranks %v, a bound of %g on the relative error, an energy of %g, VBMF %v; want one of them", ErrSettings, set.Ranks, set.RelError, set.Energy, set.VBMF)
	case set.VBMF:
		return p, p.vbmf()
	case set.Energy != 0:
		if !(set.Energy > 0 && set.Energy < 1) {
			return nil, fmt.Errorf("%w: an energy of %g; want one above 0 and below 1", ErrSettings, set.Energy)
		}
		p.set.RelError = math.Sqrt(1 - set.Energy)
		return p, nil
	case len(set.Ranks) == 0:
		if !(set.RelError > 0 && set.RelError < 1) {
			return nil, fmt.Errorf("%w: a bound of %g on the relative error; want one above 0 and below 1", ErrSettings, set.RelError)
		}
		return p, nil
	case len(set.Ranks) != 1 && len(set.Ranks) != len(p.modes):
		return nil, fmt.Errorf("%w: ranks %v for modes %v", ErrSettings, set.Ranks, p.modes)
	}
	p.ranks = make([]int, len(p.modes))
	for i, n := range p.modes {
		r := set.Ranks[0]
		if len(set.Ranks) > 1 {
			// Ranks belong to Modes in the caller's order.
			at := i
			if len(set.Modes) > 0 {
				at = slices.Index(set.Modes, n)
			}
			r = set.Ranks[at]
		}
		if r < 1 {
			return nil, fmt.Errorf("%w: rank %d in mode %d", ErrSettings, r, n)
		}
		p.ranks[i] = min(r, shape[n])
	}
	p.feasible()
	return p, nil
}

// vbmf sets the ranks that variational Bayes finds.
func (p *plan) vbmf() error {
	x := tensorops.Wrap(p.shape, p.data)
	for _, n := range p.modes {
		v, err := vbmf.Unfolding(x, n, &vbmf.Settings{Workers: p.set.Workers, Precision: p.set.Precision})
		if err != nil {
			return fmt.Errorf("tucker: mode %d: %w", n, err)
		}
		if v.Rank == 0 && p.norm > 0 {
			return fmt.Errorf("%w: VBMF finds only noise in mode %d", ErrSettings, n)
		}
		p.ranks = append(p.ranks, max(v.Rank, 1))
	}
	p.feasible()
	return nil
}

func scaled(v []float64, s float64) []float64 {
	out := slices.Clone(v)
	for i := range out {
		out[i] *= s
	}
	return out
}

// feasible cuts ranks that exceed the product of the others: the core's
// unfolding could not have them.
func (p *plan) feasible() {
	for changed := true; changed; {
		changed = false
		dims := slices.Clone(p.shape)
		for i, n := range p.modes {
			dims[n] = p.ranks[i]
		}
		for i, n := range p.modes {
			others := 1
			for m, d := range dims {
				if m != n {
					others = min(others*d, math.MaxInt/1024)
				}
			}
			if p.ranks[i] > others {
				p.ranks[i], dims[n], changed = others, others, true
			}
		}
	}
}

// leading computes the left singular vectors of the mode-n unfolding of data of
// the largest singular values: as many as r, or, where keep is not negative, as
// few as have squares that sum to keep. They are eigenvectors of the Gram matrix,
// gram, which is destroyed. Signs are fixed: the entry of largest magnitude of a
// vector is positive.
func (p *plan) leading(gram []float64, dims []int, data []float64, n, r int, keep float64) (u []float64, rank int, err error) {
	size := dims[n]
	w := make([]float64, size)
	u, rank, err = linalg.EigenTop(p.set.Workers, size, gram, size, w, func(w []float64) int {
		if keep < 0 {
			return r
		}
		var sum float64
		for i, v := range w {
			if sum += max(v, 0); sum >= keep {
				return i + 1
			}
		}
		return size
	})
	if err != nil {
		return nil, 0, fmt.Errorf("tucker: %w", err)
	}
	if rank > 0 && rank < size && w[rank-1] < blunt*w[0] {
		u = p.sharpen(dims, data, n, u, rank)
	}
	fixSigns(u, size, rank)
	return u, rank, nil
}

// blunt is the share of the largest eigenvalue below which an eigenvector of a
// Gram matrix has lost digits that matter: it is off by rounding over that share,
// the square of what it is for the unfolding itself.
const blunt = 1e-4

// sharpen is an orthonormal basis of X_(n)·(X_(n)ᵀ·u), in which the products are
// not squared first: whatever of u is outside the range of X_(n) is gone.
func (p *plan) sharpen(dims []int, data []float64, n int, u []float64, r int) []float64 {
	size, k := dims[n], len(data)/dims[n]
	short, y := tensorops.MulMode(p.set.Workers, dims, data, n, true, u, r)
	z := make([]float64, size*r)
	gemm.Float64(p.set.Workers, false, true, size, r, k, 1, tensorops.Unfold(dims, data, n), k, tensorops.Unfold(short, y, n), k, 0, z, r)
	q := make([]float64, size*r)
	linalg.QR(p.set.Workers, size, r, z, r, q, r, nil, 0)
	return q
}

// largeMode is the dimension above which HOOI's eigen-problems are not solved
// anew in every sweep: a few steps of orthogonal iteration from the factor at
// hand cost a fraction, never raise the error, and have the same fixed points.
const largeMode = 128

// refine takes two steps of orthogonal iteration: u becomes an orthonormal
// basis of G²·u, on which trace(uᵀ·G·u) is no smaller.
func (p *plan) refine(gram, u []float64, size, r int) []float64 {
	for range 2 {
		v := make([]float64, size*r)
		gemm.Float64(p.set.Workers, false, false, size, r, size, 1, gram, size, u, r, 0, v, r)
		u = make([]float64, size*r)
		linalg.QR(p.set.Workers, size, r, v, r, u, r, nil, 0)
	}
	return u
}

// fixSigns makes the entry of largest magnitude of each column positive, the
// first of those that are about as large.
func fixSigns(u []float64, size, r int) {
	for c := range r {
		top, sign := 0.0, 1.0
		for i := range size {
			if v := u[i*r+c]; math.Abs(v) > top*(1+1e-9) {
				top, sign = math.Abs(v), math.Copysign(1, v)
			}
		}
		for i := range size {
			u[i*r+c] *= sign
		}
	}
}

// project multiplies X with the transposed factors of all compressed modes but
// skip (−1 for none).
func (p *plan) project(skip int) ([]int, []float64) {
	dims, data := p.shape, p.data
	for i, n := range p.modes {
		if n != skip && p.factors[n] != nil {
			dims, data = tensorops.MulMode(p.set.Workers, dims, data, n, true, p.factors[n], p.ranks[i])
		}
	}
	return dims, data
}

// hosvd finds the factors one mode after another, each from the whole tensor,
// and the core. Without ranks it chooses them.
func (p *plan) hosvd() error {
	if p.ranks != nil {
		return p.truncated()
	}
	if err := p.full(); err != nil {
		return err
	}
	p.cut(p.choose())
	return nil
}

// full is hosvd with all ranks there are.
func (p *plan) full() error {
	for _, n := range p.modes {
		p.ranks = append(p.ranks, p.shape[n])
	}
	return p.truncated()
}

// truncated is hosvd with the ranks at hand.
func (p *plan) truncated() error {
	p.factors = make([][]float64, len(p.shape))
	for i, n := range p.modes {
		u, _, err := p.leading(tensorops.Gram(p.set.Workers, p.shape, p.data, n), p.shape, p.data, n, p.ranks[i], -1)
		if err != nil {
			return err
		}
		p.factors[n] = u
	}
	p.dims, p.core = p.project(-1)
	return nil
}

// choose returns the ranks of the fewest parameters such that the full core
// loses at most (RelError·‖X‖)² where it is cut to them. Of all rank tuples it
// tries every one, on a table of the energies lost; ties go to the least.
func (p *plan) choose() []int {
	sizes := make([]int, len(p.modes))
	for i, n := range p.modes {
		sizes[i] = p.shape[n]
	}
	kept := make([]float64, tensorops.Product(sizes))
	index := make([]int, len(p.dims))
	for _, v := range p.core {
		at := 0
		for i, n := range p.modes {
			at = at*sizes[i] + index[n]
		}
		kept[at] += v * v
		for d := len(index) - 1; d >= 0; d-- {
			if index[d]++; index[d] < p.dims[d] {
				break
			}
			index[d] = 0
		}
	}
	// Axis by axis, an index becomes a rank less one: what was kept is summed up
	// to it, and what lies beyond is lost. Only sums of squares are formed, no
	// differences, so that small bounds are kept too.
	lost := make([]float64, len(kept))
	stride := 1
	for i := len(sizes) - 1; i >= 0; i-- {
		for base := range kept {
			if base/stride%sizes[i] > 0 {
				continue
			}
			end := base + sizes[i]*stride
			var all float64
			for at := base; at < end; at += stride {
				all += lost[at]
			}
			var beyond float64
			for at := end - stride; at >= base; at -= stride {
				lost[at] = all + beyond
				beyond += kept[at]
			}
			for at := base + stride; at < end; at += stride {
				kept[at] += kept[at-stride]
			}
		}
		stride *= sizes[i]
	}
	rest := len(p.data) / len(kept)
	limit := p.bound() * p.norm
	best := slices.Clone(sizes)
	least, lowest := math.Inf(1), math.Inf(1)
	r := make([]int, len(sizes))
	for at, e := range lost {
		rem := at
		params, core := 0.0, float64(rest)
		for i := len(sizes) - 1; i >= 0; i-- {
			r[i] = rem%sizes[i] + 1
			rem /= sizes[i]
			params += float64(sizes[i]) * float64(r[i])
			core *= float64(r[i])
		}
		params += core
		if e <= limit*limit && (params < least || params == least && e < lowest) {
			least, lowest = params, e
			copy(best, r)
		}
	}
	return best
}

// bound is RelError, less the rounding of the sums that are held against it.
func (p *plan) bound() float64 { return p.set.RelError * (1 - 1e-10) }

// keep is the energy that the bound asks for.
func (p *plan) keep() float64 {
	return (1 - p.bound()*p.bound()) * p.norm * p.norm
}

// cut keeps the leading r columns of each factor, and that part of the core.
func (p *plan) cut(r []int) {
	for i, n := range p.modes {
		p.factors[n] = columns(p.factors[n], p.ranks[i], r[i])
	}
	p.ranks = r
	p.dims, p.core = p.project(-1)
}

// relError is ‖X − X̂‖/‖X‖ for the present core and factors. The difference of
// squared norms loses all digits where the error is small; then the residual is
// formed.
func (p *plan) relError() float64 {
	if p.norm == 0 {
		return 0
	}
	core := tensorops.Norm(p.core) / p.norm
	if e2 := 1 - core*core; e2 > 1e-4 {
		return math.Sqrt(e2)
	}
	return p.residual()
}

// residual is ‖X − X̂‖/‖X‖ from the difference itself.
func (p *plan) residual() float64 {
	if p.norm == 0 {
		return 0
	}
	dims, data := p.dims, p.core
	for n, u := range p.factors {
		if u != nil {
			dims, data = tensorops.MulMode(p.set.Workers, dims, data, n, false, u, p.shape[n])
		}
	}
	diff := make([]float64, len(data))
	for i, v := range data {
		diff[i] = p.data[i] - v
	}
	return tensorops.Norm(diff) / p.norm
}

func (p *plan) result() *Result {
	r := &Result{RelError: p.relError(), Status: Direct}
	r.Core = tensorops.Wrap(slices.Clone(p.dims), scaled(p.core, 1/p.scale))
	r.Factors = make([]*mat.Dense, len(p.shape))
	for i, n := range p.modes {
		r.Factors[n] = mat.NewDense(p.shape[n], p.ranks[i], p.factors[n])
	}
	r.Errors = []float64{r.RelError}
	return r
}

// HOSVD is the truncated higher-order singular value decomposition: the factor
// of mode n is the leading eigenvectors of X_(n)·X_(n)ᵀ, and the core the
// projection of X. With E_n the energy cut in mode n, its squared error is
// between max E_n and ΣE_n. Errors wrap ErrSettings or say what is wrong with x.
func HOSVD(ctx context.Context, x *tensor.Dense, set *Settings) (*Result, error) {
	p, err := newPlan(x, set)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := p.hosvd(); err != nil {
		return nil, err
	}
	return p.result(), nil
}

// HOSVDs is HOSVD for several bounds on the relative error, in place of those of the
// settings, at the cost of one and of the cuts.
func HOSVDs(ctx context.Context, x *tensor.Dense, set *Settings, bounds ...float64) ([]*Result, error) {
	var all []*Result
	var full *plan
	for _, bound := range bounds {
		with := *set
		with.RelError = bound
		p, err := newPlan(x, &with)
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if full == nil {
			full = p
			if err := p.full(); err != nil {
				return nil, err
			}
		}
		at := *p
		at.ranks, at.factors, at.dims, at.core = full.ranks, slices.Clone(full.factors), full.dims, full.core
		at.cut(at.choose())
		all = append(all, at.result())
	}
	return all, nil
}

// HOOI is the higher-order orthogonal iteration: from the truncated HOSVD it
// replaces the factor of one mode after another by the best one for the others,
// the leading eigenvectors of the Gram matrix of X projected on them (for
// dimensions above 128, by a better one, from two steps of orthogonal
// iteration). With Settings.Ranks the error never rises, and it is no larger than
// that of STHOSVD, from which HOOI begins again where the HOSVD has led to a worse
// point, such as zero. With Settings.RelError
// such a step instead lowers its rank as far as the bound allows (for dimensions
// above 128, in the first sweep only), and the error may rise up to the bound.
//
// The context ends it between sweeps; the result is then the best so far, beside the
// context's error, and nil only where the HOSVD had not begun.
func HOOI(ctx context.Context, x *tensor.Dense, set *Settings) (*Result, error) {
	p, err := newPlan(x, set)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if p.ranks == nil {
		if err := p.hosvd(); err != nil {
			return nil, err
		}
		return p.hooi(ctx)
	}
	var best *Result
	for number := range max(p.set.Starts, 1) {
		if number > 0 || p.set.Init == InitRandom {
			p.random(number)
		} else if err := p.hosvd(); err != nil {
			return nil, err
		}
		best, err = p.better(ctx, best, number)
		if err == nil && number == 0 && len(p.modes) > 1 && best.RelError > exact {
			if err = p.sequential(ctx); err == nil && p.relError() < best.RelError-1e-12 {
				best, err = p.better(ctx, best, number)
			}
		}
		if err != nil || best.RelError <= exact {
			return best, err
		}
	}
	return best, nil
}

// exact is a relative error that is rounding.
const exact = 1e-14

// better iterates from the factors at hand: the result, or best where that is no worse.
func (p *plan) better(ctx context.Context, best *Result, number int) (*Result, error) {
	r, err := p.hooi(ctx)
	if r == nil {
		return best, err
	}
	if r.Start = number; best != nil && best.RelError <= r.RelError {
		r = best
	}
	return r, err
}

// random sets orthonormal factors at random, and the core.
func (p *plan) random(number int) {
	rng := rand.New(rand.NewPCG(p.set.Seed, uint64(number)))
	p.factors = make([][]float64, len(p.shape))
	for i, n := range p.modes {
		size, r := p.shape[n], p.ranks[i]
		u, q := make([]float64, size*r), make([]float64, size*r)
		for k := range u {
			u[k] = rng.NormFloat64()
		}
		linalg.QR(p.set.Workers, size, r, u, r, q, r, nil, 0)
		p.factors[n] = q
	}
	p.dims, p.core = p.project(-1)
}

// hooi iterates from the factors and the core at hand.
func (p *plan) hooi(ctx context.Context) (*Result, error) {
	limit, tol := p.set.MaxSweeps, p.set.Tol
	if limit == 0 {
		limit = 50
	}
	if tol == 0 {
		tol = 1e-7
	}
	errs := []float64{p.relError()}
	status := SweepLimit
	// One compressed mode has its optimum already.
	if len(p.modes) == 1 || errs[0] == 0 {
		limit, status = 0, Converged
	}
	sweeps := 0
	for sweeps < limit {
		if ctx.Err() != nil {
			status = Cancelled
			break
		}
		before, old := p.params(), *p
		old.ranks, old.factors = slices.Clone(p.ranks), slices.Clone(p.factors)
		for i, n := range p.modes {
			dims, y := p.project(n)
			gram := tensorops.Gram(p.set.Workers, dims, y, n)
			if p.shape[n] > largeMode && (p.set.RelError == 0 || sweeps > 0) {
				p.factors[n] = p.refine(gram, p.factors[n], p.shape[n], p.ranks[i])
				continue
			}
			keep := -1.0
			if p.set.RelError > 0 {
				keep = p.keep()
			}
			u, r, err := p.leading(gram, dims, y, n, p.ranks[i], keep)
			if err != nil {
				return nil, err
			}
			// Rounding must not raise a rank that was enough.
			if r > p.ranks[i] {
				continue
			}
			p.factors[n], p.ranks[i] = u, r
		}
		p.dims, p.core = p.project(-1)
		e := p.relError()
		// Eigenvalues carry the rounding of squares: below relative errors of
		// 1e-8 they cannot tell what a rank loses. The last sweep that kept the
		// bound stands.
		if p.set.RelError > 0 && e > p.set.RelError {
			*p, status = old, Converged
			break
		}
		sweeps++
		errs = append(errs, e)
		if p.set.Progress != nil {
			p.set.Progress(sweeps, e)
		}
		if p.params() == before && errs[sweeps-1]-e < tol {
			status = Converged
			break
		}
	}
	r := p.result()
	r.Errors, r.Sweeps, r.Status = errs, sweeps, status
	if status == Cancelled {
		return r, context.Cause(ctx)
	}
	return r, nil
}

func (p *plan) params() int {
	n := len(p.data)
	total := 0
	for i, m := range p.modes {
		n = n / p.shape[m] * p.ranks[i]
		total += p.shape[m] * p.ranks[i]
	}
	return total + n
}
