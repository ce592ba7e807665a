package cpd

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/internal/gemm"
	"github.com/lowrank-go/lowrank/internal/linalg"
	"github.com/lowrank-go/lowrank/internal/tensorops"
)

// known is a tensor of which some entries are known, with weights, scaled such that
// Σ weight·value² is 1. Its least-squares problems are solved row by row (Tomasi and
// Bro 2005, as alternating least squares in place of their Gauss-Newton).
type known struct {
	workers, rank int
	shape         []int
	modes         []unfolding
	roots         [][]float64 // of the weights, in the order of each unfolding; nil for 1
}

func newKnown(workers int, x *Sparse, rank int) (*known, float64, error) {
	weighted := make([]float64, len(x.Values))
	for e, v := range x.Values {
		weighted[e] = v
		if x.Weights != nil {
			weighted[e] *= math.Sqrt(x.Weights[e])
		}
	}
	norm := tensorops.Norm(weighted)
	if math.IsInf(norm, 0) || math.IsNaN(norm) {
		return nil, 0, fmt.Errorf("cpd: %w: the norm overflows", tensorops.ErrTensor)
	}
	k := &known{workers: workers, rank: rank, shape: x.Shape}
	var twice int
	k.modes, twice = unfoldings(x, x.Values)
	if twice > 0 {
		return nil, 0, fmt.Errorf("%w: %d entries are listed more than once", ErrSettings, twice)
	}
	if norm == 0 {
		return k, 0, nil
	}
	divide(k.modes, norm)
	if x.Weights != nil {
		roots, _ := unfoldings(x, x.Weights)
		for _, u := range roots {
			for i, w := range u.values {
				u.values[i] = math.Sqrt(w)
			}
			k.roots = append(k.roots, u.values)
		}
	}
	return k, norm, nil
}

// masked is the known entries of a dense tensor, those of a weight above 0, of which
// alone the values must be finite.
func masked(x, weights *tensor.Dense) (*Sparse, error) {
	shape, w, err := tensorops.View(weights)
	if err != nil {
		return nil, fmt.Errorf("cpd: weights: %w", err)
	}
	got, data, err := tensorops.ViewAny(x)
	if err != nil {
		return nil, fmt.Errorf("cpd: %w", err)
	}
	s := &Sparse{Shape: got, Unknown: true}
	if !slices.Equal(shape, got) {
		return nil, fmt.Errorf("%w: weights of shape %v for a tensor of %v", ErrSettings, shape, got)
	}
	index := make([]int, len(shape))
	for e, v := range w {
		if v != 0 {
			s.Index = append(s.Index, index...)
			s.Values = append(s.Values, data[e])
			s.Weights = append(s.Weights, v)
		}
		for n := len(shape) - 1; n >= 0; n-- {
			if index[n]++; index[n] < shape[n] {
				break
			}
			index[n] = 0
		}
	}
	return s, s.Validate()
}

// errWhole says that the least-squares problems have no Γ in common.
var errWhole = errors.New("cpd: a tensor with unknown entries has no MTTKRP")

func (x *known) each([][]float64, func(n int, m []float64) error) error { return errWhole }

func (x *known) gram(n int) []float64 { return gram(x.shape, x.modes, n) }

// chunk is the number of entries that are multiplied at a time.
const chunk = 256

// design writes, for the entries of row i of the mode-n unfolding from e on, at most
// chunk, the rows of the least-squares problem, each times the root of its weight,
// and right-hand sides, and returns their number.
func (x *known) design(n, i, e int, u [][]float64, rows, rhs []float64) int {
	v, r, last := &x.modes[n], x.rank, lastOther(x.shape, n)
	count := min(chunk, v.start[i+1]-e)
	for k := range count {
		out := rows[k*r:][:r]
		row(out, x.shape, u, n, last, v.prefix[e+k])
		root := 1.
		if x.roots != nil {
			root = x.roots[n][e+k]
		}
		for c, b := range u[last][v.last[e+k]*r:][:r] {
			out[c] *= b * root
		}
		rhs[k] = v.values[e+k] * root
	}
	return count
}

// update solves for factor n of a, row by row.
func (x *known) update(a *als, n int) error {
	v, r := &x.modes[n], x.rank
	errs := make([]error, x.shape[n])
	v.ranges(x.workers, func(i0, i1 int) {
		rows, rhs := make([]float64, chunk*r), make([]float64, chunk)
		gamma, b := make([]float64, r*r), make([]float64, r)
		for i := i0; i < i1; i++ {
			clear(gamma)
			clear(b)
			for e := v.start[i]; e < v.start[i+1]; {
				k := x.design(n, i, e, a.u, rows, rhs)
				gemm.Gram64(1, true, r, k, 1, rows, r, 1, gamma, r)
				for j, y := range rhs[:k] {
					for c, h := range rows[j*r:][:r] {
						b[c] += y * h
					}
				}
				e += k
			}
			errs[i] = a.solveRow(n, i, gamma, b)
		}
	})
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("cpd: row %d of mode %d: %w", i, n, err)
		}
	}
	a.normalise(n)
	return nil
}

// solveRow sets row i of factor n to Γ⁻¹·b, by a proximal step as solve does: a slice
// of fewer entries than components leaves Γ singular. Without entries it is 0.
func (a *als) solveRow(n, i int, gamma, b []float64) error {
	r := a.rank
	u := a.u[n][i*r:][:r]
	top := 0.
	for c := range r {
		u[c] *= a.w[c]
		top = max(top, gamma[c*r+c])
	}
	if top == 0 {
		clear(u)
		return nil
	}
	eps := knownRidge * top
	if a.set.Ridge > 0 {
		eps = math.Pow(a.set.Ridge, 2/float64(len(a.shape)))
		for c := range r {
			gamma[c*r+c] += eps
		}
	}
	if a.nonNegative(n) {
		linalg.NonNegative(u, gamma, b, r)
		return nil
	}
	if a.set.Ridge == 0 {
		for c := range r {
			gamma[c*r+c] += eps
			b[c] += eps * u[c]
		}
	}
	if err := linalg.Cholesky(1, r, gamma, r); err != nil {
		return err
	}
	copy(u, b)
	linalg.SolveCholesky(1, r, 1, gamma, r, u, 1)
	return nil
}

// knownRidge is the share of Γ's largest diagonal entry that holds a row where its
// slice does not determine it.
const knownRidge = 1e-10

// distance is √Σ weight·(x−x̂)².
func (x *known) distance(u [][]float64) float64 {
	v, r := &x.modes[0], x.rank
	sums := make([]float64, x.shape[0])
	v.ranges(x.workers, func(i0, i1 int) {
		rows, rhs := make([]float64, chunk*r), make([]float64, chunk)
		for i := i0; i < i1; i++ {
			for e := v.start[i]; e < v.start[i+1]; {
				k := x.design(0, i, e, u, rows, rhs)
				for j, y := range rhs[:k] {
					d := y - tensorops.Dot(u[0][i*r:][:r], rows[j*r:])
					sums[i] += d * d
				}
				e += k
			}
		}
	})
	var sum float64
	for _, s := range sums {
		sum += s
	}
	return math.Sqrt(sum)
}
