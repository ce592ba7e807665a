package tucker

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/internal/gemm"
	"github.com/lowrank-go/lowrank/internal/linalg"
	"github.com/lowrank-go/lowrank/internal/tensorops"
)

// NonNegative is the Tucker decomposition whose core and factors have no negative
// entries: parts that add up, for data that are amounts. Factors have columns of
// unit norm, which are not orthogonal. It starts from the sizes of the HOSVD's
// entries and alternates over the modes by hierarchical least squares, and over the
// core by projected gradients (Phan and Cichocki 2011; Nesterov 1983); the error
// never rises. Ranks, or VBMF, choose the size; bounds on the error cannot be
// kept, and are errors. MaxSweeps 0 means 500. See HOOI for the context and errors.
func NonNegative(ctx context.Context, x *tensor.Dense, set *Settings) (*Result, error) {
	p, err := newPlan(x, set)
	if err != nil {
		return nil, err
	}
	if p.ranks == nil {
		return nil, fmt.Errorf("%w: bounds on the error of a non-negative decomposition; want ranks", ErrSettings)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var best *Result
	starts := max(p.set.Starts, 1)
	for number := 0; number < starts; number++ {
		if number > 0 || p.set.Init == InitRandom {
			p.random(number)
		} else if err := p.hosvd(); err != nil {
			return nil, err
		}
		for _, v := range append(p.factors, p.core) {
			for i, a := range v {
				v[i] = math.Abs(a)
			}
		}
		r, err := p.alternate(ctx)
		// The sizes of an HOSVD may be orthogonal to the tensor, which is then zero's.
		if most := p.entries(); err == nil && r.RelError*r.RelError > most+1e-9 {
			if p.set.Starts == 0 {
				starts = collapsedStarts
			}
			var again *Result
			if again, err = p.alternate(ctx); again.RelError < r.RelError {
				r = again
			}
		}
		if r.Start = number; best == nil || r.RelError < best.RelError {
			best = r
		}
		if err != nil || best.RelError <= exact {
			return best, err
		}
	}
	return best, nil
}

// collapsedStarts is the number of starts where the first has come to nothing.
const collapsedStarts = 4

// entries sets factors and core to the largest entries of X, as many as the least rank:
// the columns are unit vectors, the core is diagonal. It returns the squared relative
// error.
func (p *plan) entries() float64 {
	if p.norm == 0 {
		return 0
	}
	count := slices.Min(p.ranks)
	order := make([]int, 0, len(p.data))
	for i, v := range p.data {
		if v > 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(p.data[j], p.data[i]) })
	p.dims = slices.Clone(p.shape)
	p.factors = make([][]float64, len(p.shape))
	for i, n := range p.modes {
		p.dims[n] = p.ranks[i]
		p.factors[n] = make([]float64, p.shape[n]*p.ranks[i])
		for k := range p.factors[n] {
			if k%p.ranks[i] >= count { // a column that the core may use
				p.factors[n][k] = 1 / math.Sqrt(float64(p.shape[n]))
			}
		}
	}
	p.core = make([]float64, tensorops.Product(p.dims))
	left := 1.
	for c, at := range order[:min(count, len(order))] {
		v := p.data[at]
		left -= v / p.norm * (v / p.norm)
		place, stride := 0, 1
		for n := len(p.shape) - 1; n >= 0; n-- {
			i := at % p.shape[n]
			at /= p.shape[n]
			if u := p.factors[n]; u != nil {
				u[i*p.dims[n]+c] = 1
				i = c
			}
			place += i * stride
			stride *= p.dims[n]
		}
		p.core[place] = v
	}
	return left
}

// alternate improves factors and a core that are not negative.
func (p *plan) alternate(ctx context.Context) (*Result, error) {
	limit, tol := p.set.MaxSweeps, p.set.Tol
	if limit == 0 {
		limit = 500
	}
	if tol == 0 {
		tol = 1e-7
	}
	q := &parts{plan: p, grams: make([][]float64, len(p.shape))}
	for i, n := range p.modes {
		q.unit(i, n)
	}
	_, z := p.project(-1)
	q.solveCore(z)
	e := q.error(z)
	errs, status := []float64{e}, SweepLimit
	sweeps := 0
	for e > 0 && sweeps < limit {
		if ctx.Err() != nil {
			status = Cancelled
			break
		}
		old := *p
		old.core, old.factors = slices.Clone(p.core), slices.Clone(p.factors)
		for n, u := range old.factors {
			old.factors[n] = slices.Clone(u)
		}
		for i, n := range p.modes {
			q.solveFactor(i, n)
		}
		_, z = p.project(-1)
		q.solveCore(z)
		last := e
		if e = q.error(z); e > last+1e-12 { // rounding is all that is left
			*p, status = old, Converged
			break
		}
		sweeps++
		errs = append(errs, e)
		if p.set.Progress != nil {
			p.set.Progress(sweeps, e)
		}
		if last-e < tol {
			status = Converged
			break
		}
	}
	r := p.result()
	r.RelError = q.residual()
	r.Errors, r.Sweeps, r.Status = errs, sweeps, status
	if status == Cancelled {
		return r, context.Cause(ctx)
	}
	return r, nil
}

// parts is a plan whose factors and core are not negative, and the factors' Gram
// matrices, nil where a mode has no factor.
type parts struct {
	*plan
	grams [][]float64
}

// unit gives the columns of factor n unit norm, and their norms to the core.
func (q *parts) unit(i, n int) {
	u, r := q.factors[n], q.ranks[i]
	norm := make([]float64, r)
	for k, v := range u {
		norm[k%r] += v * v
	}
	for c, v := range norm {
		norm[c] = math.Sqrt(v)
	}
	for k := range u {
		if v := norm[k%r]; v > 0 {
			u[k] /= v
		}
	}
	right := tensorops.Product(q.dims[n+1:])
	for k := range q.core {
		q.core[k] *= norm[k/right%r]
	}
	q.grams[n] = make([]float64, r*r)
	gemm.Gram64(q.set.Workers, true, r, len(u)/r, 1, u, r, 0, q.grams[n], r)
}

// solveFactor improves factor n for the others and the core.
func (q *parts) solveFactor(i, n int) {
	r := q.ranks[i]
	dims, y := q.project(n)
	rest := len(y) / dims[n]
	g := tensorops.Unfold(q.dims, q.core, n)
	m, gamma := make([]float64, dims[n]*r), make([]float64, r*r)
	gemm.Float64(q.set.Workers, false, true, dims[n], r, rest, 1, tensorops.Unfold(dims, y, n), rest, g, rest, 0, m, r)
	s := tensorops.Unfold(q.dims, q.metric(q.core, n), n)
	gemm.Float64(q.set.Workers, false, true, r, r, rest, 1, s, rest, g, rest, 0, gamma, r)
	linalg.NonNegative(q.factors[n], gamma, m, r)
	q.unit(i, n)
}

// metric multiplies a tensor of the core's shape with the Gram matrices of all modes
// but skip.
func (q *parts) metric(core []float64, skip int) []float64 {
	for n, g := range q.grams {
		if g != nil && n != skip {
			_, core = tensorops.MulMode(q.set.Workers, q.dims, core, n, false, g, q.dims[n])
		}
	}
	return core
}

// coreSteps is the number of gradient steps that the core takes in a sweep.
const coreSteps = 10

// solveCore improves the core, for X projected on the factors: accelerated projected
// gradients, begun anew where momentum points uphill (O'Donoghue and Candès 2015), of
// which the best is kept.
func (q *parts) solveCore(z []float64) {
	lipschitz := 1.
	for n, g := range q.grams {
		if g == nil {
			continue
		}
		top := 0.
		for i := range q.dims[n] {
			var sum float64
			for _, v := range g[i*q.dims[n] : (i+1)*q.dims[n]] {
				sum += v // none is negative
			}
			top = max(top, sum)
		}
		lipschitz *= top
	}
	if lipschitz == 0 {
		return
	}
	best, value := slices.Clone(q.core), q.value(q.core, z)
	core, y, t := slices.Clone(q.core), slices.Clone(q.core), 1.
	for range coreSteps {
		grad := q.metric(y, -1)
		next := make([]float64, len(core))
		uphill := 0.
		for i, v := range y {
			d := grad[i] - z[i]
			next[i] = max(v-d/lipschitz, 0)
			uphill += d * (next[i] - core[i])
		}
		s := (1 + math.Sqrt(1+4*t*t)) / 2
		beta := (t - 1) / s
		if t = s; uphill > 0 {
			beta, t = 0, 1
		}
		for i, v := range next {
			y[i] = v + beta*(v-core[i])
		}
		core = next
		if f := q.value(core, z); f < value {
			value = f
			copy(best, core)
		}
	}
	q.core = best
}

// value is ½⟨G, G×A⟩ − ⟨G, Z⟩, half the squared error but for ‖X‖².
func (q *parts) value(core, z []float64) float64 {
	return tensorops.Dot(core, q.metric(core, -1))/2 - tensorops.Dot(core, z)
}

// error is ‖X − X̂‖/‖X‖ from the projection, and from the residual where that has no
// digits left.
func (q *parts) error(z []float64) float64 {
	if q.norm == 0 {
		return 0
	}
	if e2 := 1 + 2*q.value(q.core, z)/(q.norm*q.norm); e2 > 1e-4 {
		return math.Sqrt(e2)
	}
	return q.residual()
}
