package stability

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/internal/linalg"
)

// mostTangents is the number of tangent vectors whose Gram matrix is still formed.
const mostTangents = 800

// normalCondition is the largest condition number, over the modes, of the Hadamard
// products of the other factors' Gram matrices: of the normal equations of ALS, with
// columns of unit norm. Grams are those of the modes, R×R.
func normalCondition(rank int, grams []*mat.Dense) (float64, error) {
	worst := 1.
	for n := range grams {
		g := slices.Repeat([]float64{1}, rank*rank)
		for m, other := range grams {
			if m != n {
				for i, v := range other.RawMatrix().Data {
					g[i] *= v
				}
			}
		}
		for r := range rank { // nothing is solved for where a component is zero
			if g[r*rank+r] == 0 {
				g[r*rank+r] = 1
			}
		}
		w := make([]float64, rank)
		if err := linalg.EigenSym(0, rank, g, rank, w, nil, 0); err != nil {
			return 0, fmt.Errorf("stability: %w", err)
		}
		worst = max(worst, ratio(slices.Max(w), slices.Min(w), rank))
	}
	return worst, nil
}

// ratio is a/b, or infinite where b is rounding of n values up to a.
func ratio(a, b float64, n int) float64 {
	if b <= 4e-16*float64(n)*a {
		return math.Inf(1)
	}
	return a / b
}

// condition is that of the decomposition of Breiding and Vannieuwenhoven, "The
// condition number of join decompositions" (2018): the inverse of the least singular
// value of the Terracini matrix, whose columns are orthonormal bases of the tangent
// spaces of the rank-1 tensors at the components. Those of component r are the products
// of the unit columns, with the column of at most one mode replaced by one orthogonal
// to it: 1 + Σ(I_n − 1) in number. Its squares, the Gram matrix, are formed mode by
// mode, so that above 1e7 it is infinite. Columns have unit norm; components of
// weight zero are left out.
func condition(k *cpd.Kruskal) (float64, error) {
	shape := k.Shape()
	each, size := 1, 1
	for _, d := range shape {
		each += d - 1
		size = min(size*d, math.MaxInt/1024)
	}
	var live []int
	for r, w := range k.Weights {
		if w > 0 {
			live = append(live, r)
		}
	}
	count := len(live) * each
	switch {
	case count > size:
		return math.Inf(1), nil
	case count > mostTangents:
		return math.NaN(), nil
	case count == 0:
		return 1, nil
	}
	// Of each mode the inner products of all bases that begin with a component's column.
	inner := make([]*mat.Dense, len(shape))
	for n, d := range shape {
		bases := mat.NewDense(d, d*len(live), nil)
		for i, r := range live {
			u := mat.NewDense(d, 1, mat.Col(nil, r, k.Factors[n]))
			var qr mat.QR
			qr.Factorize(u)
			var q mat.Dense
			qr.QTo(&q)
			bases.Slice(0, d, i*d, (i+1)*d).(*mat.Dense).Copy(&q)
			bases.Slice(0, d, i*d, i*d+1).(*mat.Dense).Copy(u)
		}
		inner[n] = new(mat.Dense)
		inner[n].Mul(bases.T(), bases)
	}
	// Tangent t of a component has column at[n][t] of mode n's basis.
	at := make([][]int, len(shape))
	for n := range shape {
		at[n] = make([]int, each)
		first := 1
		for m, d := range shape[:n+1] {
			for i := 1; i < d; i++ {
				if m == n {
					at[n][first] = i
				}
				first++
			}
		}
	}
	gram := slices.Repeat([]float64{1}, count*count)
	for n, d := range shape {
		for a := range count {
			for b := range count {
				gram[a*count+b] *= inner[n].At(a/each*d+at[n][a%each], b/each*d+at[n][b%each])
			}
		}
	}
	w := make([]float64, count)
	if err := linalg.EigenSym(0, count, gram, count, w, nil, 0); err != nil {
		return 0, fmt.Errorf("stability: %w", err)
	}
	return math.Sqrt(ratio(1, slices.Min(w), count)), nil
}
