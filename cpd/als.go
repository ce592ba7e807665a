package cpd

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
	// where a small projection of the tensor is fitted first (NoCompression),
	// which makes starts cheap. All but the first are random, and none follows
	// one that ends Exact.
	Starts int
	// Seed is where random numbers come from.
	Seed uint64
	// MaxSweeps bounds the sweeps of a start; 0 means 500.
	MaxSweeps int
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
	// NoCompression makes every sweep one of the tensor itself. Otherwise, where
	// that is much smaller, ALS first fits the tensor's projection on the leading
	// 1.5·R singular directions of each mode (Bro and Andersson 1998), and only
	// then the tensor, from there. The errors are those of the tensor throughout.
	NoCompression bool
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
}

// exact is the relative error below which a sweep cannot improve.
const exact = 1e-14

// ALS fits a Kruskal tensor of the given rank by alternating least squares. Any
// rank from 1 on is accepted; where it is more than the tensor carries, the
// surplus components are small or share what there is. A zero tensor gives
// zero weights. The context ends it between sweeps with the context's error.
func ALS(ctx context.Context, x *tensor.Dense, rank int, set *Settings) (*Result, error) {
	a, err := prepare(x, rank, set, 500)
	if err != nil {
		return nil, err
	}
	if err := a.compress(); err != nil {
		return nil, fmt.Errorf("cpd: %w", err)
	}
	return a.fit((*als).start, func(a *als, res *Result, most int) error { return a.iterate(ctx, res, most) })
}

// fit is the best result of all starts: begin sets the factors to those of a
// start, and iterate improves them. Where there is a projection, that is what the
// starts fit, and only the best of them goes on with the tensor.
func (a *als) fit(begin func(a *als, number int) error, iterate func(a *als, res *Result, most int) error) (*Result, error) {
	if a.norm == 0 {
		return a.zero(), nil
	}
	from, most := a, a.set.MaxSweeps
	if a.core != nil {
		// A quarter of the sweeps is left for the tensor itself.
		from, most = a.core, most-(most+3)/4
	}
	var best *Result
	var u [][]float64
	var w []float64
	least := math.Inf(1)
	for number := range a.set.Starts {
		res := &Result{Start: number}
		if err := begin(from, number); err != nil {
			return nil, err
		}
		if err := iterate(from, res, most); err != nil {
			return nil, err
		}
		e := math.Inf(1)
		if n := len(res.Errors); n > 0 {
			e = res.Errors[n-1]
		}
		if best == nil || e < least {
			best, least, u, w = res, e, slices.Clone(from.u), slices.Clone(from.w)
		}
		if res.Status == Exact {
			break
		}
	}
	from.u, from.w = u, w
	if from != a {
		a.expand()
		if err := iterate(a, best, a.set.MaxSweeps); err != nil {
			return nil, err
		}
	}
	a.finish(best)
	return best, nil
}

// prepare checks what it is given, with sweeps for MaxSweeps where that is 0. The
// norm of the result is 0 where the tensor is.
func prepare(x *tensor.Dense, rank int, set *Settings, sweeps int) (a *als, err error) {
	if set == nil {
		set = &Settings{}
	}
	shape, data, err := tensorops.View(x)
	if err != nil {
		return nil, fmt.Errorf("cpd: %w", err)
	}
	s := *set
	many := s.Starts == 0
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
		return nil, fmt.Errorf("%w: a tensor of order %d; want at least 2", ErrSettings, len(shape))
	case rank < 1:
		return nil, fmt.Errorf("%w: rank %d", ErrSettings, rank)
	case s.Starts < 0 || s.MaxSweeps < 0 || s.Patience < 0 || s.Tol < 0 || s.Ridge < 0 || math.IsNaN(s.Tol) || math.IsNaN(s.Ridge) || math.IsInf(s.Ridge, 1):
		return nil, fmt.Errorf("%w: %d starts, %d sweeps, patience %d, tolerance %g, ridge %g; want none negative", ErrSettings, s.Starts, s.MaxSweeps, s.Patience, s.Tol, s.Ridge)
	case s.Init != InitHOSVD && s.Init != InitRandom:
		return nil, fmt.Errorf("%w: start %q; want %q or %q", ErrSettings, s.Init, InitHOSVD, InitRandom)
	}
	for _, n := range s.NonNegative {
		if n < 0 || n >= len(shape) {
			return nil, fmt.Errorf("%w: non-negative modes %v of a tensor of order %d", ErrSettings, s.NonNegative, len(shape))
		}
	}
	if s.Start != nil {
		if err := s.Start.Validate(); err != nil {
			return nil, err
		}
		if got := s.Start.Shape(); s.Start.Rank() != rank || !slices.Equal(got, shape) {
			return nil, fmt.Errorf("%w: a start of shape %v and rank %d for a tensor of %v at rank %d", ErrSettings, got, s.Start.Rank(), shape, rank)
		}
		for n, u := range s.Start.Factors {
			if norm := mat.Norm(u, math.Inf(1)); math.IsNaN(norm) || math.IsInf(norm, 0) {
				return nil, fmt.Errorf("%w: factor %d of the start is not finite", ErrSettings, n)
			}
		}
	}
	a = &als{set: s, many: many, shape: shape, rank: rank, norm: tensorops.Norm(data), share: 1}
	if math.IsInf(a.norm, 0) {
		return nil, fmt.Errorf("cpd: %w: the norm overflows", tensorops.ErrTensor)
	}
	if a.norm == 0 {
		return a, nil
	}
	// Scaled to unit norm, so that nothing below depends on units.
	a.data = make([]float64, len(data))
	for i, v := range data {
		a.data[i] = v / a.norm
	}
	return a, nil
}

// als is a tensor of unit norm and the state of one start.
type als struct {
	set   Settings
	many  bool // the number of starts is ours to choose
	shape []int
	data  []float64
	rank  int
	norm  float64
	// u are the factors, I_n×R row-major, g their Gram matrices, w the weights.
	u, g [][]float64
	w    []float64
	// Of a tensor that is a projection of another, of unit norm: share is its
	// norm before it was scaled, and lost the norm of what was projected away.
	// Otherwise they are 1 and 0.
	share, lost float64
	// core is the tensor's projection on the columns of basis, where a mode has
	// one; nil where there is none.
	core  *als
	basis [][]float64
}

func (a *als) zero() *Result {
	k := Kruskal{Weights: make([]float64, a.rank)}
	for _, d := range a.shape {
		u := mat.NewDense(d, a.rank, nil)
		for r := range a.rank {
			u.Set(0, r, 1)
		}
		k.Factors = append(k.Factors, u)
	}
	return &Result{Kruskal: k, Status: Exact}
}

// start sets the factors of a start.
func (a *als) start(number int) error {
	a.u = make([][]float64, len(a.shape))
	a.g = make([][]float64, len(a.shape))
	a.w = make([]float64, a.rank)
	rng := rand.New(rand.NewPCG(a.set.Seed, uint64(number)))
	for n, d := range a.shape {
		u := make([]float64, d*a.rank)
		switch {
		case number == 0 && a.set.Start != nil:
			// Unit columns first: normalise squares entries as they are.
			f := mat.DenseCopyOf(a.set.Start.Factors[n])
			for r := range a.rank {
				divideColumn(f, r, columnNorm(f, r))
			}
			copy(u, f.RawMatrix().Data)
		default:
			for i := range u {
				u[i] = rng.NormFloat64()
			}
			if number > 0 || a.set.Init == InitRandom {
				break
			}
			w := make([]float64, d)
			// Directions that the tensor does not have stay random.
			z, k, err := linalg.EigenTop(a.set.Workers, d, tensorops.Gram(a.set.Workers, a.shape, a.data, n), d, w, func(w []float64) int {
				k := 0
				for k < min(d, a.rank) && w[k] > 1e-14*w[0] {
					k++
				}
				return k
			})
			if err != nil {
				return fmt.Errorf("cpd: %w", err)
			}
			for i := range d {
				copy(u[i*a.rank:], z[i*k:(i+1)*k])
			}
		}
		if a.nonNegative(n) {
			// Leading directions have signs; their sizes are as good a start.
			for i, v := range u {
				u[i] = math.Abs(v)
			}
		}
		a.u[n] = u
		a.g[n] = make([]float64, a.rank*a.rank)
		a.normalise(n)
	}
	return nil
}

// normalise gives the columns of factor n unit norm, stores the norms as
// weights, and refreshes the Gram matrix. A zero column stays zero.
func (a *als) normalise(n int) {
	sq := make([]float64, a.rank)
	u := a.u[n]
	for i := 0; i < len(u); i += a.rank {
		for r, v := range u[i : i+a.rank] {
			sq[r] += v * v
		}
	}
	inv := make([]float64, a.rank)
	for r, v := range sq {
		a.w[r] = math.Sqrt(v)
		if a.w[r] > 0 {
			inv[r] = 1 / a.w[r]
		}
	}
	for i := 0; i < len(u); i += a.rank {
		for r := range inv {
			u[i+r] *= inv[r]
		}
	}
	gemm.Gram64(a.set.Workers, true, a.rank, len(u)/a.rank, 1, u, a.rank, 0, a.g[n], a.rank)
}

// iterate sweeps until one of the reasons to stop, and adds what happens to res.
func (a *als) iterate(ctx context.Context, res *Result, most int) error {
	calm, last := 0, math.Inf(1)
	patience := a.set.Patience
	if n := len(res.Errors); n > 0 {
		// The projection has been fitted: what is left to gain is little, and
		// either comes at once or not.
		last, patience = res.Errors[n-1], min(patience, 2)
	}
	res.Status = SweepLimit
	for res.Sweeps < most {
		if err := ctx.Err(); err != nil {
			return err
		}
		u, w := slices.Clone(a.u), slices.Clone(a.w)
		m, err := a.sweep()
		if err != nil {
			return err
		}
		e := math.Hypot(a.lost, a.share*a.relError(m))
		// A least-squares update cannot raise the error. Where it does, what is
		// left is below the rounding of ill-conditioned normal equations, and the
		// sweep is undone.
		if a.set.Ridge == 0 && e > last+1e-13 {
			a.u, a.w = u, w
			res.Status = Converged
			return nil
		}
		res.Sweeps++
		res.Errors = append(res.Errors, e)
		if a.set.Progress != nil {
			a.set.Progress(res.Start, res.Sweeps, e)
		}
		if e <= exact {
			res.Status = Exact
			return nil
		}
		if last-e < a.set.Tol {
			if calm++; calm >= patience {
				res.Status = Converged
				return nil
			}
		} else {
			calm = 0
		}
		last = e
	}
	return nil
}

// sweep updates every factor, and returns the MTTKRP of the last mode.
func (a *als) sweep() (m []float64, err error) {
	err = a.mttkrps(a.data, a.u, func(n int, mn []float64) error {
		m = mn
		return a.update(n, mn)
	})
	return m, err
}

// mttkrps calls f with the MTTKRP of data in every mode in turn, by two products
// with data, one for each half of the modes. f may change its mode's factor; later
// MTTKRPs are then those with the new one.
func (a *als) mttkrps(data []float64, u [][]float64, f func(n int, m []float64) error) error {
	h := tensorops.Split(a.shape)
	for _, half := range [][2]int{{0, h}, {h, len(a.shape)}} {
		sizes, factors := a.shape[half[0]:half[1]], u[half[0]:half[1]]
		partial := tensorops.PartialMTTKRP(a.set.Workers, a.shape, data, h, half[0] == 0, u, a.rank)
		for n := range sizes {
			if err := f(half[0]+n, tensorops.FinishMTTKRP(sizes, partial, factors, n, a.rank)); err != nil {
				return err
			}
		}
	}
	return nil
}

// others is the Hadamard product of Gram matrices, of all modes but n and m.
func (a *als) others(gram [][]float64, n, m int) []float64 {
	out := make([]float64, a.rank*a.rank)
	for i := range out {
		out[i] = 1
	}
	for k, g := range gram {
		if k == n || k == m {
			continue
		}
		for i, v := range g {
			out[i] *= v
		}
	}
	return out
}

// weighted is the factors with the weights in the first.
func (a *als) weighted() [][]float64 {
	u := slices.Clone(a.u)
	u[0] = slices.Clone(u[0])
	for i := range u[0] {
		u[0][i] *= a.w[i%a.rank]
	}
	return u
}

// update is the least-squares solution for factor n, m·Γ⁻¹.
func (a *als) update(n int, m []float64) error {
	g := a.others(a.g, n, -1)
	if a.set.Ridge > 0 {
		ridge := math.Pow(a.set.Ridge, 2/float64(len(a.shape)))
		for r := range a.rank {
			g[r*a.rank+r] += ridge
		}
	}
	if a.nonNegative(n) {
		a.hierarchical(n, g, m)
		a.normalise(n)
		return nil
	}
	u, err := solve(a.set.Workers, g, m, a.rank)
	if err != nil {
		return fmt.Errorf("cpd: %w", err)
	}
	a.u[n] = u
	a.normalise(n)
	return nil
}

// solve returns m·G⁺ for a positive semi-definite G, R×R: by Cholesky where G is
// safely regular, else by eigenvalues with those below 1e-13 of the largest cut.
func solve(workers int, g, m []float64, r int) ([]float64, error) {
	rows := len(m) / r
	var norm float64
	for i := range r {
		var sum float64
		for _, v := range g[i*r : (i+1)*r] {
			sum += math.Abs(v)
		}
		norm = max(norm, sum)
	}
	u := slices.Clone(g)
	if err := linalg.Cholesky(workers, r, u, r); err == nil && (evident(u, r) || linalg.Cond(r, norm, u, r) < 1e12) {
		// X·G = M is G·Xᵀ = Mᵀ.
		xt, out := make([]float64, len(m)), make([]float64, len(m))
		linalg.Transpose(workers, rows, r, m, r, xt, rows)
		linalg.SolveCholesky(workers, r, rows, u, r, xt, rows)
		linalg.Transpose(workers, r, rows, xt, rows, out, r)
		return out, nil
	}
	w, z := make([]float64, r), make([]float64, r*r)
	if err := linalg.EigenSym(workers, r, g, r, w, z, r); err != nil {
		return nil, err
	}
	t := make([]float64, len(m))
	gemm.Float64(workers, false, false, rows, r, r, 1, m, r, z, r, 0, t, r)
	for i := range t {
		if v := w[i%r]; v > 1e-13*w[r-1] {
			t[i] /= v
		} else {
			t[i] = 0
		}
	}
	out := make([]float64, len(m))
	gemm.Float64(workers, false, true, rows, r, r, 1, t, r, z, r, 0, out, r)
	return out, nil
}

// evident reports whether a Cholesky factor's diagonal shows that the matrix is
// far from singular, so that its condition need not be estimated, which takes as
// long as the factorisation of a small one. The diagonal can hide a condition in
// contrived matrices alone, by nothing like the margin left here.
func evident(u []float64, r int) bool {
	least, most := math.Inf(1), 0.
	for i := range r {
		least, most = min(least, u[i*r+i]), max(most, u[i*r+i])
	}
	return least*1e3 > most
}

// relError is ‖X − X̂‖ from the MTTKRP m of the last mode, which was updated
// last: ‖X‖² − 2⟨m, U·diag(w)⟩ + wᵀ(Γ∘UᵀU)w, with ‖X‖ = 1. The sum loses its
// digits where the error is small; then the residual is formed.
func (a *als) relError(m []float64) float64 {
	last := len(a.shape) - 1
	var inner, square, intensity float64
	for i, v := range a.u[last] {
		inner += v * a.w[i%a.rank] * m[i]
	}
	g := a.others(a.g, -1, -1)
	for i, v := range g {
		square += v * a.w[i/a.rank] * a.w[i%a.rank]
	}
	for _, w := range a.w {
		intensity += w * w
	}
	if e2 := 1 - 2*inner + square; e2 > 1e-6*max(1, intensity) {
		return math.Sqrt(e2)
	}
	return a.distance()
}

// distance is ‖X − X̂‖, from the residual.
func (a *als) distance() float64 {
	return tensorops.KruskalDistance(a.set.Workers, a.shape, a.data, a.weighted(), a.rank)
}

func (a *als) kruskal() *Kruskal {
	k := &Kruskal{Weights: append([]float64(nil), a.w...)}
	for n, u := range a.u {
		k.Factors = append(k.Factors, mat.NewDense(a.shape[n], a.rank, append([]float64(nil), u...)))
	}
	return k
}

// finish fills in the factors, back in the units of X.
func (a *als) finish(res *Result) {
	k := a.kruskal()
	res.RelError = a.distance()
	for r := range k.Weights {
		k.Weights[r] *= a.norm
	}
	res.Kruskal = *k.Arranged()
}
