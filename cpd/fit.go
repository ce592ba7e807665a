package cpd

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/internal/gemm"
	"github.com/lowrank-go/lowrank/internal/hadamard"
	"github.com/lowrank-go/lowrank/internal/linalg"
)

// source is a tensor of unit norm as a fit sees it.
type source interface {
	// each calls f with the MTTKRP in every mode in turn, f's own until it
	// returns. f may change its mode's factor; later MTTKRPs are those with the
	// new one.
	each(u [][]float64, f func(n int, m []float64) error) error
	// distance is ‖X − X̂‖, from the residual where that can be had.
	distance(u [][]float64) float64
	// gram is X_(n)·X_(n)ᵀ, or nil where that would be too large.
	gram(n int) []float64
	// residual is the values of X − X̂, or of X where u is nil, the caller's own, and
	// what finds their indices. Of a sparse tensor it is those that are listed.
	residual(u [][]float64) (values []float64, locate func(i int, index []int))
}

// als is a tensor of unit norm and the state of one start.
type als struct {
	set   Settings
	many  bool // the number of starts is ours to choose
	shape []int
	x     source
	rank  int
	norm  float64
	// u are the factors, I_n×R row-major, w the weights, g the factors' Gram matrices:
	// see grams.
	u, g  [][]float64
	w     []float64
	stale []bool // the Gram matrices that are older than their factors
	// Of a tensor that is a projection of another, of unit norm: share is its
	// norm before it was scaled, and lost the norm of what was projected away.
	// Otherwise they are 1 and 0.
	share, lost float64
	// core is the tensor's projection on the columns of basis, where a mode has
	// one; nil where there is none.
	core  *als
	basis [][]float64
	// deadline is when MaxTime is over, the zero time where there is no limit.
	deadline time.Time
	// proximal is set where the last update was not the exact solution.
	proximal bool
	// memory of an update
	gamma, across, sums []float64
}

// fit is the best result of all starts: begin sets the factors to those of a
// start, and iterate improves them. Where there is a projection, that is what the
// starts fit, and only the best of them goes on with the tensor.
func (a *als) fit(ctx context.Context, begin func(a *als, number int) error, iterate func(a *als, ctx context.Context, res *Result, most int) error) (*Result, error) {
	if a.norm == 0 {
		return a.zero(), nil
	}
	from, most := a, a.set.MaxSweeps
	if a.core != nil {
		// A quarter of the sweeps is left for the tensor itself.
		from, most = a.core, most-(most+3)/4
	}
	if a.set.MaxTime > 0 {
		a.deadline = time.Now().Add(a.set.MaxTime)
		from.deadline = a.deadline
	}
	var best *Result
	var u [][]float64
	var w []float64
	var failed error
	least, starts := math.Inf(1), a.set.Starts
	for number := 0; number < starts; number++ {
		res, own := &Result{Start: number}, math.Inf(1)
		err := begin(from, number)
		for tries := 0; err == nil; tries++ {
			if err = iterate(from, ctx, res, most); err != nil {
				break
			}
			e := math.Inf(1)
			if n := len(res.Errors); n > 0 {
				e = res.Errors[n-1]
			}
			if best == nil || e < least {
				best, least, u, w = res, e, clones(from.u), slices.Clone(from.w)
			}
			dead := from.dead(res)
			res.Vanished = len(dead)
			if len(dead) == 0 || tries == revivals || own-e < a.set.Tol {
				break
			}
			if own = e; a.many {
				starts = max(starts, cheapStarts)
			}
			from.revive(dead)
			res = &Result{Start: number}
		}
		if err != nil {
			failed = cmp.Or(failed, err)
			continue // others may serve
		}
		if res.Status != Converged && res.Status != SweepLimit {
			if res != best && res.Status != Exact {
				best.Status = res.Status
			}
			break
		}
	}
	if best == nil {
		return nil, failed
	}
	from.u, from.w = u, w
	if from != a {
		a.expand()
		if best.Status == Converged || best.Status == SweepLimit || best.Status == Exact {
			if err := iterate(a, ctx, best, a.set.MaxSweeps); err != nil {
				return nil, err
			}
		}
	}
	if best.Status == Cancelled && best.Sweeps == 0 {
		return nil, context.Cause(ctx)
	}
	a.finish(best)
	if best.Status == Cancelled {
		return best, context.Cause(ctx)
	}
	return best, nil
}

// ends reports that a fit must end, and says why in res.
func (a *als) ends(ctx context.Context, res *Result) bool {
	switch n := len(res.Errors); {
	case ctx.Err() != nil:
		res.Status = Cancelled
	case n > 0 && res.Errors[n-1] <= a.set.Target:
		res.Status = Reached
	case n > 0 && !a.deadline.IsZero() && time.Now().After(a.deadline):
		res.Status = TimeLimit
	default:
		return false
	}
	return true
}

func clones(u [][]float64) [][]float64 {
	c := make([][]float64, len(u))
	for n, v := range u {
		c[n] = slices.Clone(v)
	}
	return c
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
			g := a.x.gram(n)
			if g == nil {
				break
			}
			w := make([]float64, d)
			// Directions that the tensor does not have stay random.
			z, k, err := linalg.EigenTop(a.set.Workers, d, g, d, w, func(w []float64) int {
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
		a.normalise(n)
	}
	return nil
}

// normalise gives the columns of factor n unit norm, and stores the norms as
// weights. A zero column stays zero.
func (a *als) normalise(n int) {
	u, r := a.u[n], a.rank
	rows := len(u) / r
	a.sums = zeroed(a.sums, r)
	hadamard.MultiplyAdd(rows, r, a.sums, 0, u, r, u, r)
	for c, v := range a.sums {
		a.w[c] = math.Sqrt(v)
		if a.w[c] > 0 {
			a.sums[c] = 1 / a.w[c]
		}
	}
	hadamard.Multiply(rows, r, u, r, u, r, a.sums, 0)
	if a.stale == nil {
		a.stale = make([]bool, len(a.shape))
	}
	a.stale[n] = true
}

// grams is the Gram matrices of the factors, all up to date but that of mode skip: many
// a factor changes twice before its matrix is asked for.
func (a *als) grams(skip int) [][]float64 {
	if a.g == nil {
		a.g = make([][]float64, len(a.shape))
	}
	for n, u := range a.u {
		if n == skip || !a.stale[n] {
			continue
		}
		a.g[n] = sized(a.g[n], a.rank*a.rank)
		gemm.Gram64(a.set.Workers, true, a.rank, a.shape[n], 1, u, a.rank, 0, a.g[n], a.rank)
		a.stale[n] = false
	}
	return a.g
}

// zeroed is buf with n elements, all 0.
func zeroed(buf []float64, n int) []float64 {
	buf = sized(buf, n)
	clear(buf)
	return buf
}

// sized is buf with n elements, whose values do not matter.
func sized(buf []float64, n int) []float64 {
	if cap(buf) < n {
		return make([]float64, n)
	}
	return buf[:n]
}

// sweep updates every factor and returns ‖X − X̂‖. With momentum β the others'
// updates see U_n + β·(U_n − V_n) in place of the factor U_n that solves the
// least-squares problem of mode n, V_n being the one of the sweep before; on
// return v holds the U_n. The last mode's factor is what solves.
func (a *als) sweep(beta float64, v [][]float64) (e float64, err error) {
	last := len(a.shape) - 1
	switch {
	case beta > 0:
		// The last mode's factor of the sweep before last is in v.
		a.extrapolate(last, beta, v[last])
	case v != nil:
		copy(v[last], a.u[last])
	}
	// next goes on from mode n, whose problem has been solved.
	next := func(n int) {
		switch {
		case n == last:
		case beta > 0:
			a.extrapolate(n, beta, v[n])
		case v != nil:
			copy(v[n], a.u[n])
		}
	}
	if x, ok := a.x.(*known); ok {
		for n := range a.shape {
			if err := x.update(a, n); err != nil {
				return 0, err
			}
			next(n)
		}
		return a.distance(), nil
	}
	err = a.x.each(a.u, func(n int, m []float64) error {
		if err := a.update(n, m); err != nil {
			return err
		}
		if n == last {
			e = a.relError(m)
		}
		next(n)
		return nil
	})
	return e, err
}

// extrapolate replaces factor n, U, by U + β·(U − V), with unit columns, and V by U.
func (a *als) extrapolate(n int, beta float64, v []float64) {
	u := a.u[n]
	for i, x := range u {
		u[i] = x + beta*(x-v[i])
		v[i] = x
	}
	if a.nonNegative(n) {
		for i, x := range u {
			u[i] = max(x, 0)
		}
	}
	w := slices.Clone(a.w)
	a.normalise(n)
	copy(a.w, w)
}

// others is the Hadamard product of Gram matrices, of all modes but n and m.
func (a *als) others(gram [][]float64, n, m int) []float64 {
	out := make([]float64, a.rank*a.rank)
	hadamard.All(out, gram, n, m)
	return out
}

// weighted is the factors with the weights in the first.
func (a *als) weighted() [][]float64 {
	u := slices.Clone(a.u)
	u[0] = make([]float64, len(a.u[0]))
	hadamard.Multiply(a.shape[0], a.rank, u[0], a.rank, a.u[0], a.rank, a.w, 0)
	return u
}

// update makes factor n the least-squares solution m·Γ⁻¹.
func (a *als) update(n int, m []float64) error {
	r := a.rank
	a.gamma = sized(a.gamma, r*r)
	hadamard.All(a.gamma, a.grams(n), n)
	if a.set.Ridge > 0 {
		ridge := math.Pow(a.set.Ridge, 2/float64(len(a.shape)))
		for c := range r {
			a.gamma[c*r+c] += ridge
		}
	}
	if a.nonNegative(n) {
		a.hierarchical(n, a.gamma, m)
		a.normalise(n)
		return nil
	}
	if err := a.solve(n, m); err != nil {
		return fmt.Errorf("cpd: mode %d: %w", n, err)
	}
	a.normalise(n)
	return nil
}

// solve sets factor n to m·Γ⁻¹ by Cholesky. Where Γ may be singular, as where
// components share columns, it takes the proximal step (m + ε·U)·(Γ + ε)⁻¹ from the
// factor U at hand instead, with an ε of rounding's size: it lowers the error as
// the exact one does but for that much, moves nothing along null directions, and
// has the same fixed points.
func (a *als) solve(n int, m []float64) error {
	r, rows := a.rank, a.shape[n]
	a.across = sized(a.across, rows*r)
	err := linalg.Cholesky(a.set.Workers, r, a.gamma, r)
	x := m
	a.proximal = false
	if err != nil || !evident(a.gamma, r) {
		hadamard.All(a.gamma, a.grams(n), n)
		top := 0.
		for c := range r {
			top = max(top, a.gamma[c*r+c])
		}
		if top == 0 {
			a.proximal = true
			clear(a.u[n])
			return nil
		}
		eps := singular * float64(r) * top
		if a.set.Ridge > 0 {
			eps += math.Pow(a.set.Ridge, 2/float64(len(a.shape)))
		}
		for c := range r {
			a.gamma[c*r+c] += eps
		}
		if a.set.Ridge == 0 {
			a.proximal = true
			x = a.u[n]
			for i := 0; i < len(x); i += r {
				for c, v := range m[i : i+r] {
					x[i+c] = v + eps*a.w[c]*x[i+c]
				}
			}
		}
		if err := linalg.Cholesky(a.set.Workers, r, a.gamma, r); err != nil {
			return err
		}
	}
	// X·G = M is G·Xᵀ = Mᵀ.
	linalg.Transpose(a.set.Workers, rows, r, x, r, a.across, rows)
	linalg.SolveCholesky(a.set.Workers, r, rows, a.gamma, r, a.across, rows)
	linalg.Transpose(a.set.Workers, r, rows, a.across, rows, a.u[n], r)
	return nil
}

// singular, times the rank, is what is added to the diagonal of a Γ that may be
// singular, whose diagonal is 1.
const singular = 1e-15

// evident reports whether a Cholesky factor's diagonal shows that the matrix is
// far from singular. The diagonal can hide a condition in contrived matrices
// alone, by nothing like the margin left here.
func evident(u []float64, r int) bool {
	least, most := math.Inf(1), 0.
	for i := range r {
		least, most = min(least, u[i*r+i]), max(most, u[i*r+i])
	}
	return least*1e5 > most
}

// relError is ‖X − X̂‖ from the MTTKRP m of the last mode, which was updated
// last, with ‖X‖ = 1. Where that update solved its least-squares problem, the
// residual is orthogonal to X̂, and the square is ‖X‖² − ⟨m, U·diag(w)⟩; otherwise
// ‖X‖² − 2⟨m, U·diag(w)⟩ + wᵀ(Γ∘UᵀU)w. The sum loses its digits where the error is
// small; then the residual is formed.
func (a *als) relError(m []float64) float64 {
	last, r := len(a.shape)-1, a.rank
	a.sums = zeroed(a.sums, r)
	hadamard.MultiplyAdd(a.shape[last], r, a.sums, 0, a.u[last], r, m, r)
	var inner, intensity float64
	for c, v := range a.sums {
		inner += v * a.w[c]
		intensity += a.w[c] * a.w[c]
	}
	e2 := 1 - inner
	if a.set.Ridge > 0 || a.nonNegative(last) || a.proximal {
		var square float64
		hadamard.All(a.gamma, a.grams(-1))
		for i, w := range a.w {
			var sum float64
			for c, v := range a.gamma[i*r : (i+1)*r] {
				sum += v * a.w[c]
			}
			square += w * sum
		}
		e2 += square - inner
	}
	if e2 > 1e-6*max(1, intensity) {
		return math.Sqrt(e2)
	}
	return a.distance()
}

// distance is ‖X − X̂‖, from the residual.
func (a *als) distance() float64 { return a.x.distance(a.weighted()) }

func (a *als) kruskal() *Kruskal {
	k := &Kruskal{Weights: slices.Clone(a.w)}
	for n, u := range a.u {
		k.Factors = append(k.Factors, mat.NewDense(a.shape[n], a.rank, slices.Clone(u)))
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
