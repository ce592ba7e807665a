package cpd

import (
	"context"
	"fmt"
	"math"
	"slices"

	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/internal/gemm"
	"github.com/lowrank-go/lowrank/internal/linalg"
	"github.com/lowrank-go/lowrank/internal/tensorops"
)

// LM fits a Kruskal tensor of the given rank by the Levenberg-Marquardt method
// (damped Gauss-Newton), which changes all factors at once. An iteration costs
// about as much as one or two sweeps of ALS, plus the solution of a linear system
// by conjugate gradients at O(R²·ΣI_n) a step. It pays where ALS crawls: with
// nearly collinear components, and at high accuracy, it needs tens of iterations
// for ALS's thousands.
//
// The settings mean what they mean for ALS, with iterations for sweeps: MaxSweeps
// 0 means 200; Ridge, NonNegative and Weights must not be set. A start from Init or
// at random first makes 10 sweeps of ALS; one from Start is taken as it is, weights
// included. The error never rises.
//
// The Gauss-Newton products are those of Phan, Tichavský and Cichocki, "Low
// complexity damped Gauss-Newton algorithms for CANDECOMP/PARAFAC", SIAM J. Matrix
// Anal. Appl. 34 (2013), section 4; the block-diagonal preconditioner is that of
// Sorber, Van Barel and De Lathauwer, SIAM J. Optim. 23 (2013), section 4; the
// damping that of Nielsen (1999).
func LM(ctx context.Context, x *tensor.Dense, rank int, set *Settings) (*Result, error) {
	if set != nil && (set.Ridge != 0 || len(set.NonNegative) > 0 || set.Weights != nil) {
		return nil, fmt.Errorf("%w: ridge %g, non-negative modes %v, weights %v; LM has none of these", ErrSettings, set.Ridge, set.NonNegative, set.Weights != nil)
	}
	a, err := prepare(x, rank, set, 200)
	if err != nil {
		return nil, err
	}
	if err := a.compress(); err != nil {
		return nil, fmt.Errorf("cpd: %w", err)
	}
	return a.fit(ctx, func(a *als, number int) error { return a.warm(ctx, number) }, (*als).damped)
}

const (
	warmSweeps = 10
	// The linear systems are solved until the residual is this share of the
	// right-hand side, or for so many steps.
	cgResidual = 1e-6
	cgSteps    = 400
	// leastDamping is what damping grows from, for a tensor of unit norm.
	leastDamping = 1e-15
)

// point is factors with the error's value and derivatives there, for a tensor X
// of unit norm.
type point struct {
	u    [][]float64 // factors, weights included, I_n×R
	gram [][]float64 // UᵀU
	// grad is the gradient of ½‖X − X̂‖², I_n×R for each mode, and err ‖X − X̂‖.
	grad [][]float64
	err  float64
}

// warm sets the factors and weights to where a start begins.
func (a *als) warm(ctx context.Context, number int) error {
	if err := a.start(number); err != nil {
		return err
	}
	if number == 0 && a.set.Start != nil {
		// start makes columns unit, for ALS solves for their lengths anyway.
		k := a.set.Start.Balanced()
		scale := math.Pow(a.norm, -1/float64(len(a.shape)))
		for n, f := range k.Factors {
			for i := range a.shape[n] {
				for r := range a.rank {
					a.u[n][i*a.rank+r] = scale * f.At(i, r)
				}
			}
		}
		for r := range a.w {
			a.w[r] = 1
		}
		return nil
	}
	for range warmSweeps {
		if ctx.Err() != nil {
			return nil // the iterations will see it too
		}
		if _, err := a.sweep(0, nil); err != nil {
			return err
		}
	}
	return nil
}

// damped iterates from the factors and weights until one of the reasons to
// stop, and adds what happens to res.
func (a *als) damped(ctx context.Context, res *Result, most int) error {
	p := a.at(a.balanced(a.weighted()))
	// Damping, and the factor that grows it.
	mu, grow := 0., 2.
	for n := range a.shape {
		g := a.others(p.gram, n, -1)
		for r := range a.rank {
			mu = max(mu, 1e-3*g[r*a.rank+r])
		}
	}
	calm, patience := 0, a.set.Patience
	if len(res.Errors) > 0 {
		patience = min(patience, 2) // the projection has been fitted
	}
	res.Status = SweepLimit
	for res.Sweeps < most {
		if a.ends(ctx, res) {
			break
		}
		step, gain, ok := a.step(p, mu)
		last := p.err
		switch {
		case !ok: // too little damping, or none where all factors are zero
			mu = max(mu, leastDamping) * grow
			grow *= 2
		case gain > 0:
			u := make([][]float64, len(p.u))
			for n := range u {
				u[n] = slices.Clone(p.u[n])
				for i, d := range step[n] {
					u[n][i] += d
				}
			}
			q := a.at(u)
			// (p² − q²)/2 without cancellation.
			ratio := (p.err - q.err) * (p.err + q.err) / 2 / gain
			if q.err < p.err {
				p = a.at2(q)
				mu *= max(1./3, 1-math.Pow(2*ratio-1, 3))
				grow = 2
			} else {
				mu *= grow
				grow *= 2
			}
		}
		e := math.Hypot(a.lost, a.share*p.err)
		res.Sweeps++
		res.Errors = append(res.Errors, e)
		if a.set.Progress != nil {
			a.set.Progress(res.Start, res.Sweeps, e)
		}
		if p.err <= exact {
			res.Status = Exact
			break
		}
		if last-p.err >= a.set.Tol {
			calm = 0
		} else if calm++; calm >= patience || ok && gain <= 0 {
			res.Status = Converged
			break
		}
	}
	a.ends(ctx, res)
	a.u = p.u
	for r := range a.w {
		a.w[r] = 1 // they are in the factors
	}
	return nil
}

// balanced gives the columns of each component the same length in all modes: the
// damping then treats all alike.
func (a *als) balanced(u [][]float64) [][]float64 {
	scale := make([][]float64, len(u)) // logarithms of lengths
	mean := make([]float64, a.rank)
	for n := range u {
		scale[n] = make([]float64, a.rank)
		for i, v := range u[n] {
			scale[n][i%a.rank] = math.Hypot(scale[n][i%a.rank], v)
		}
		for r, v := range scale[n] {
			scale[n][r] = math.Log(v)
			mean[r] += scale[n][r] / float64(len(u))
		}
	}
	out := make([][]float64, len(u))
	for n := range u {
		out[n] = slices.Clone(u[n])
		for i := range out[n] {
			if r := i % a.rank; !math.IsInf(mean[r], 0) {
				out[n][i] *= math.Exp(mean[r] - scale[n][r])
			} else {
				out[n][i] = 0
			}
		}
	}
	return out
}

// at2 is q at balanced factors.
func (a *als) at2(q *point) *point {
	b := &point{u: a.balanced(q.u), err: q.err}
	b.gram = a.gramsOf(b.u)
	// A gradient scales as the inverse of its factor.
	for n, g := range q.grad {
		c := slices.Clone(g)
		for r := range a.rank {
			from, to := q.gram[n][r*a.rank+r], b.gram[n][r*a.rank+r]
			if to == 0 {
				continue
			}
			s := math.Sqrt(from / to)
			for i := r; i < len(c); i += a.rank {
				c[i] *= s
			}
		}
		b.grad = append(b.grad, c)
	}
	return b
}

func (a *als) gramsOf(u [][]float64) [][]float64 {
	g := make([][]float64, len(u))
	for n := range u {
		g[n] = make([]float64, a.rank*a.rank)
		gemm.Gram64(a.set.Workers, true, a.rank, a.shape[n], 1, u[n], a.rank, 0, g[n], a.rank)
	}
	return g
}

// all is the MTTKRP of x in every mode.
func all(x source, u [][]float64) [][]float64 {
	m := make([][]float64, len(u))
	_ = x.each(u, func(n int, mn []float64) error { m[n] = slices.Clone(mn); return nil })
	return m
}

// at computes the error and its gradient, U_n·Γ_n − M_n. Where the error is small
// both lose their digits so, and come from the residual instead.
func (a *als) at(u [][]float64) *point {
	p := &point{u: u, gram: a.gramsOf(u)}
	m := all(a.x, u)
	var inner, square, intensity float64
	for i, v := range u[0] {
		inner += v * m[0][i]
	}
	for i, v := range a.others(p.gram, -1, -1) {
		square += v
		if i%(a.rank+1) == 0 {
			intensity += v
		}
	}
	if e2 := 1 - 2*inner + square; e2 > 1e-6*max(1, intensity) {
		p.err = math.Sqrt(e2)
		for n := range u {
			gemm.Float64(a.set.Workers, false, false, a.shape[n], a.rank, a.rank, 1, u[n], a.rank, a.others(p.gram, n, -1), a.rank, -1, m[n], a.rank)
		}
		p.grad = m
		return p
	}
	x := a.x.(*dense)
	residual := tensorops.Kruskal(a.set.Workers, a.shape, u, a.rank)
	for i, v := range x.data {
		residual[i] -= v * x.scale
	}
	p.err = tensorops.Norm(residual)
	p.grad = all(&dense{tree: x.tree, data: residual, scale: 1}, u)
	return p
}

// step solves (JᵀJ + μ)·s = −gradient by preconditioned conjugate gradients, J
// being the Jacobian of X̂, and returns what the model says ½‖X − X̂‖² falls by; ok is
// false where μ is too small for the preconditioner.
func (a *als) step(p *point, mu float64) (s [][]float64, gain float64, ok bool) {
	order := len(a.shape)
	// The factors of the products, and the preconditioner's.
	pairs := make([][][]float64, order)
	own := make([][]float64, order)
	chol := make([][]float64, order)
	for n := range order {
		own[n] = a.others(p.gram, n, -1)
		chol[n] = slices.Clone(own[n])
		for r := range a.rank {
			// A zero component has no curvature, only the damping.
			chol[n][r*a.rank+r] += mu + 1e-14*own[n][r*a.rank+r]
		}
		if err := linalg.Cholesky(a.set.Workers, a.rank, chol[n], a.rank); err != nil {
			return nil, 0, false
		}
		pairs[n] = make([][]float64, order)
		for m := range order {
			if m != n {
				pairs[n][m] = a.others(p.gram, n, m)
			}
		}
	}
	vectors := func() [][]float64 {
		v := make([][]float64, order)
		for n := range v {
			v[n] = make([]float64, len(p.u[n]))
		}
		return v
	}
	s = vectors()
	r, q, w := vectors(), vectors(), vectors()
	for n, g := range p.grad {
		for i, v := range g {
			r[n][i] = -v
		}
	}
	precondition := func(z, r [][]float64) {
		for n := range r {
			rows := a.shape[n]
			t := make([]float64, len(r[n]))
			linalg.Transpose(1, rows, a.rank, r[n], a.rank, t, rows)
			linalg.SolveCholesky(1, a.rank, rows, chol[n], a.rank, t, rows)
			linalg.Transpose(1, a.rank, rows, t, rows, z[n], a.rank)
		}
	}
	z := vectors()
	precondition(z, r)
	for n := range q {
		copy(q[n], z[n])
	}
	rz := dot(r, z)
	start := math.Sqrt(dot(r, r))
	for range cgSteps {
		if rz <= 0 {
			break
		}
		a.curvature(w, q, p, own, pairs, mu)
		curve := dot(q, w)
		if curve <= 0 {
			break
		}
		t := rz / curve
		for n := range s {
			for i := range s[n] {
				s[n][i] += t * q[n][i]
				r[n][i] -= t * w[n][i]
			}
		}
		if math.Sqrt(dot(r, r)) <= cgResidual*start {
			break
		}
		precondition(z, r)
		next := dot(r, z)
		b := next / rz
		rz = next
		for n := range q {
			for i := range q[n] {
				q[n][i] = z[n][i] + b*q[n][i]
			}
		}
	}
	// −gᵀs − ½sᵀ(JᵀJ)s, with (JᵀJ)s known from w.
	a.curvature(w, s, p, own, pairs, 0)
	return s, -dot(p.grad, s) - dot(s, w)/2, true
}

// curvature writes (JᵀJ + μ)·v to w:
// V_n·Γ_n + U_n·Σ_{m≠n} (Γ_nm ∘ V_mᵀU_m) + μ·V_n.
func (a *als) curvature(w, v [][]float64, p *point, own [][]float64, pairs [][][]float64, mu float64) {
	order, r := len(a.shape), a.rank
	cross := make([][]float64, order) // V_mᵀU_m
	for m := range order {
		cross[m] = make([]float64, r*r)
		gemm.Float64(1, true, false, r, r, a.shape[m], 1, v[m], r, p.u[m], r, 0, cross[m], r)
	}
	sum := make([]float64, r*r)
	for n := range order {
		clear(sum)
		for m := range order {
			if m == n {
				continue
			}
			for i, c := range cross[m] {
				sum[i] += pairs[n][m][i] * c
			}
		}
		copy(w[n], v[n])
		gemm.Float64(1, false, false, a.shape[n], r, r, 1, v[n], r, own[n], r, mu, w[n], r)
		gemm.Float64(1, false, false, a.shape[n], r, r, 1, p.u[n], r, sum, r, 1, w[n], r)
	}
}

func dot(x, y [][]float64) float64 {
	var s float64
	for n := range x {
		for i, v := range x[n] {
			s += v * y[n][i]
		}
	}
	return s
}
