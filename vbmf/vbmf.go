// Package vbmf finds the rank of a noisy low-rank matrix analytically: the
// global solution of empirical variational Bayes matrix factorisation (EVBMF)
// of Nakajima, Sugiyama, Babacan and Tomioka, "Global analytic solution of
// fully-observed variational Bayesian matrix factorization", JMLR 14 (2013).
//
// Use it to answer "which rank?" without data or trials: a singular value that
// noise alone could explain is cut, one that it could not is kept. It needs the
// singular values only, of an L×M matrix with L ≤ M (transpose otherwise, which
// changes nothing); with the noise variance unknown it minimises the free
// energy over it, in time O(L) an evaluation. The answer does not change when
// the matrix is scaled, transposed or rotated.
//
// For a convolution kernel of T×S×kh×kw it is applied to the unfoldings of the
// first two modes (Kim et al. 2016). It assumes white Gaussian noise; kernels
// whose spectra fall off smoothly have no gap to find, and its rank is then a
// recommendation, not a discovery. See [Weakened] for going part of the way.
package vbmf

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/internal/linalg"
	"github.com/lowrank-go/lowrank/internal/tensorops"
)

// ErrInput is wrapped by errors about input that is no matrix's singular values.
var ErrInput = errors.New("vbmf: bad input")

// Settings are the choices; the zero value estimates the variance with the
// usual threshold. A nil *Settings means the zero value.
type Settings struct {
	// Variance is the noise variance of an entry where it is known; 0 means
	// that it is estimated.
	Variance float64
	// ExactThreshold solves for the threshold's constant τ̲(α), the root of
	// Φ(τ) + Φ(τ/α) = 0 with Φ(z) = log(z+1)/z − 1/2, instead of taking
	// 2.5129·√α, which every published implementation uses and which is exact
	// for square matrices only; the threshold changes by about 1 % at most.
	ExactThreshold bool
	// Precision is the relative rounding of an entry, such as 2⁻²³ for data that once
	// were float32; 0 means 2⁻⁵², float64's. Singular values below four times that of
	// the Frobenius norm, which may be rounding alone, count as zeros.
	Precision float64
	// Workers bounds the goroutines of Matrix and Unfolding; 0 means
	// GOMAXPROCS.
	Workers int
}

// Result is the factorisation's outcome.
type Result struct {
	// Rank is the number of singular values above Threshold.
	Rank int
	// Variance is the noise variance of an entry, given or estimated.
	Variance float64
	// Threshold is √(M·Variance·x̲) with x̲ = (1+τ̲)(1+α/τ̲), α = L/M.
	Threshold float64
	// Shrunk are the Rank singular values of the estimate without noise,
	// falling; they are smaller than the observed ones. They are values, not
	// ranks.
	Shrunk []float64
}

// Singular solves for a rows×cols matrix with the singular values s, in any
// order, of which there may be fewer than min(rows, cols): the rest are zero.
// Negative or non-finite values are errors.
func Singular(s []float64, rows, cols int, set *Settings) (Result, error) {
	if set == nil {
		set = &Settings{}
	}
	L, M := min(rows, cols), max(rows, cols)
	if L < 1 {
		return Result{}, fmt.Errorf("%w: a matrix of %d×%d", ErrInput, rows, cols)
	}
	if len(s) > L {
		return Result{}, fmt.Errorf("%w: %d singular values of a %d×%d matrix", ErrInput, len(s), rows, cols)
	}
	if set.Variance < 0 || math.IsNaN(set.Variance) || math.IsInf(set.Variance, 0) {
		return Result{}, fmt.Errorf("%w: a noise variance of %g", ErrInput, set.Variance)
	}
	if !(set.Precision >= 0 && set.Precision < 1) {
		return Result{}, fmt.Errorf("%w: a precision of %g; want one below 1", ErrInput, set.Precision)
	}
	g := make([]float64, L)
	copy(g, s)
	for _, v := range g {
		if v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
			return Result{}, fmt.Errorf("%w: singular value %g", ErrInput, v)
		}
	}
	least := 4 * max(set.Precision, 0x1p-52) * tensorops.Norm(g)
	for i, v := range g {
		if v < least {
			g[i] = 0
		}
	}
	slices.SortFunc(g, func(a, b float64) int {
		switch {
		case a > b:
			return -1
		case a < b:
			return 1
		}
		return 0
	})
	if g[0] == 0 {
		return Result{Variance: set.Variance}, nil
	}
	// Work on a matrix of unit largest singular value: scaling then changes
	// nothing but the scale, bit for bit where it is a power of two.
	top := g[0]
	e := newEnergy(g, top, L, M, set.ExactThreshold)
	v := set.Variance / top / top
	if set.Variance == 0 {
		v = e.variance()
	}
	r := Result{Variance: v * top * top, Threshold: math.Sqrt(float64(M)*v*e.xbar) * top}
	for _, x := range e.g {
		if x*x <= float64(M)*v*e.xbar {
			break
		}
		r.Rank++
		// Eq. (27) of the paper's EVB estimator.
		a := 1 - float64(L+M)*v/(x*x)
		b := 4 * float64(L) * float64(M) * v * v / (x * x * x * x)
		r.Shrunk = append(r.Shrunk, top*x/2*(a+math.Sqrt(max(a*a-b, 0))))
	}
	return r, nil
}

// energy is the free energy as a function of the noise variance, up to factors
// and terms that do not depend on it.
type energy struct {
	g           []float64 // falling, the largest 1
	L, M        int
	alpha, xbar float64
}

func newEnergy(g []float64, top float64, l, m int, exact bool) *energy {
	e := &energy{g: make([]float64, len(g)), L: l, M: m, alpha: float64(l) / float64(m)}
	for i, v := range g {
		e.g[i] = v / top
	}
	tau := 2.5129 * math.Sqrt(e.alpha)
	if exact {
		tau = tauBar(e.alpha)
	}
	e.xbar = (1 + tau) * (1 + e.alpha/tau)
	return e
}

// tauBar is the root of Φ(τ) + Φ(τ/α) = 0. The sum falls from 1 to −1.
func tauBar(alpha float64) float64 {
	phi := func(z float64) float64 { return math.Log1p(z)/z - 0.5 }
	lo, hi := 1e-12, 10.0
	for range 200 {
		mid := math.Sqrt(lo * hi)
		if phi(mid)+phi(mid/alpha) > 0 {
			lo = mid
		} else {
			hi = mid
		}
	}
	return math.Sqrt(lo * hi)
}

// at is Ω(v) = Σ_h (x_h − log x_h) + Σ_{x_h>x̲} [log(τ+1) + α·log(τ/α+1) − τ]
// with x_h = g_h²/(M·v), over the singular values that are not zero; the others
// contribute (their number)·log v.
func (e *energy) at(v float64) float64 {
	var f float64
	for _, g := range e.g {
		x := g * g / (float64(e.M) * v)
		if x == 0 {
			f += math.Log(v)
			continue
		}
		f += x - math.Log(x)
		if x > e.xbar {
			b := x - (1 + e.alpha)
			tau := (b + math.Sqrt(max(b*b-4*e.alpha, 0))) / 2
			f += math.Log1p(tau) + e.alpha*math.Log1p(tau/e.alpha) - tau
		}
	}
	return f
}

// variance is the minimiser of at. The energy is piecewise smooth with kinks
// where a singular value crosses the threshold, and may have several minima: it
// is looked at on the kinks and on a logarithmic grid between the paper's
// bounds, and the best bracket is narrowed by golden section in log v, so that
// the tolerance is relative.
func (e *energy) variance() float64 {
	L, M := float64(e.L), float64(e.M)
	var total float64
	for _, g := range e.g {
		total += g * g
	}
	upper := total / (L * M)
	hbar := min(int(math.Ceil(L/(1+e.alpha)))-1, e.L-1)
	hbar = max(hbar, 0)
	var tail float64
	for _, g := range e.g[hbar:] {
		tail += g * g
	}
	lower := max(e.g[hbar]*e.g[hbar]/(M*e.xbar), tail/(M*float64(e.L-hbar)))
	// Exactly low-rank data have no noise: the variance is then whatever is
	// far below the smallest value that counts.
	lower = max(lower, upper*1e-30)
	if lower >= upper {
		return upper
	}
	const grid = 64
	points := []float64{lower, upper}
	for i := 1; i < grid; i++ {
		points = append(points, lower*math.Pow(upper/lower, float64(i)/grid))
	}
	for _, g := range e.g {
		if k := g * g / (M * e.xbar); k > lower && k < upper {
			points = append(points, k)
		}
	}
	slices.Sort(points)
	best := 0
	values := make([]float64, len(points))
	for i, p := range points {
		values[i] = e.at(p)
		if values[i] < values[best] {
			best = i
		}
	}
	lo, hi := math.Log(points[max(best-1, 0)]), math.Log(points[min(best+1, len(points)-1)])
	const ratio = 0.6180339887498949
	a, b := hi-ratio*(hi-lo), lo+ratio*(hi-lo)
	fa, fb := e.at(math.Exp(a)), e.at(math.Exp(b))
	for hi-lo > 1e-13 {
		if fa <= fb {
			hi, b, fb = b, a, fa
			a = hi - ratio*(hi-lo)
			fa = e.at(math.Exp(a))
		} else {
			lo, a, fa = a, b, fb
			b = lo + ratio*(hi-lo)
			fb = e.at(math.Exp(b))
		}
		if a >= b {
			break
		}
	}
	mid := math.Exp((lo + hi) / 2)
	if values[best] <= e.at(mid) {
		return points[best]
	}
	return mid
}

// gramPrecision is that of singular values from a Gram matrix, whose eigenvalues are
// their squares: the root of a few roundings.
const gramPrecision = 3e-8

// Matrix solves for a matrix, through the eigenvalues of its smaller Gram
// matrix; singular values below 1.2e-7 of the norm are not told from zero.
func Matrix(a mat.Matrix, set *Settings) (Result, error) {
	r, c := a.Dims()
	d := mat.DenseCopyOf(a)
	return unfolding([]int{r, c}, d.RawMatrix().Data, 0, set)
}

// Unfolding solves for the mode-n unfolding of a tensor; see Matrix.
func Unfolding(x *tensor.Dense, mode int, set *Settings) (Result, error) {
	shape, data, err := tensorops.View(x)
	if err != nil {
		return Result{}, fmt.Errorf("vbmf: %w", err)
	}
	if mode < 0 || mode >= len(shape) {
		return Result{}, fmt.Errorf("%w: mode %d of a tensor of order %d", ErrInput, mode, len(shape))
	}
	return unfolding(shape, data, mode, set)
}

func unfolding(shape []int, data []float64, mode int, set *Settings) (Result, error) {
	if set == nil {
		set = &Settings{}
	}
	rows := shape[mode]
	cols := len(data) / rows
	u := tensorops.Unfold(shape, data, mode)
	// Squares must neither overflow nor vanish; a power of two rounds nothing.
	scale := 1.0
	if norm := tensorops.Norm(u); norm > 0 && (norm < 1e-100 || norm > 1e100) {
		_, exp := math.Frexp(norm)
		scale = math.Ldexp(1, exp)
		scaled := make([]float64, len(u))
		for i, v := range u {
			scaled[i] = v / scale
		}
		u = scaled
	}
	n, side := rows, 0
	if cols < rows {
		n, side = cols, 1
	}
	w := make([]float64, n)
	// The smaller of X·Xᵀ and Xᵀ·X.
	if err := linalg.EigenSym(set.Workers, n, tensorops.Gram(set.Workers, []int{rows, cols}, u, side), n, w, nil, n); err != nil {
		return Result{}, fmt.Errorf("vbmf: %w", err)
	}
	return squares(w, scale, rows, cols, set)
}

// Gram solves for a rows×cols matrix of which the eigenvalues of the smaller Gram matrix
// are known, in any order; see Matrix. It is for matrices too large to be copied.
func Gram(eigenvalues []float64, rows, cols int, set *Settings) (Result, error) {
	if set == nil {
		set = &Settings{}
	}
	return squares(slices.Clone(eigenvalues), 1, rows, cols, set)
}

// squares solves for singular values whose squares, over scale², are w.
func squares(w []float64, scale float64, rows, cols int, set *Settings) (Result, error) {
	for i, v := range w {
		w[i] = scale * math.Sqrt(max(v, 0))
	}
	with := *set
	with.Precision = max(with.Precision, gramPrecision)
	return Singular(w, rows, cols, &with)
}

// Weakened goes a share weakening of the way from init, a mode's present size,
// to rank, VBMF's: ⌊init − weakening·(init − rank)⌋, not below least (Gusak et
// al. 2019, MUSCO). Where rank is 0 or init at most least, it is init.
func Weakened(init, rank int, weakening float64, least int) int {
	if rank == 0 || init <= least {
		return init
	}
	// A share like 0.8 is not exact, and 64 − 0.8·50 must be 24 nevertheless.
	const slack = 1e-9
	return max(int(float64(init)-weakening*float64(init-rank)+slack), least)
}
