package cpd

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// Score is the factor match score of two Kruskal tensors of the same shape, at
// most 1 and 1 only for the same components (Tomasi and Bro 2006; Acar et al.
// 2011): the mean over pairs of components, paired so that it is greatest, of
//
//	(1 − |λ_a − λ_b| / max(λ_a, λ_b)) · Π_n cos(a_n, b_n)
//
// Signs and scales of columns do not matter as long as the component is the
// same; opposite components score below 0. Where the ranks differ, the mean is
// over the smaller one, and components left over do not count. The error wraps
// ErrSettings.
func Score(a, b *Kruskal) (float64, error) { return score(a, b, true) }

// Congruence is Score with the weights left out: the mean product of the
// cosines alone, which tells whether the directions were found. A component that
// is zero counts as 0.
func Congruence(a, b *Kruskal) (float64, error) { return score(a, b, false) }

func score(a, b *Kruskal, weights bool) (float64, error) {
	for _, k := range []*Kruskal{a, b} {
		if err := k.Validate(); err != nil {
			return 0, err
		}
	}
	if p, q := a.Shape(), b.Shape(); !slices.Equal(p, q) {
		return 0, fmt.Errorf("%w: Kruskal tensors of shapes %v and %v", ErrSettings, p, q)
	}
	a, b = a.Normalized(), b.Normalized()
	if a.Rank() > b.Rank() {
		a, b = b, a
	}
	table := mat.NewDense(a.Rank(), b.Rank(), nil)
	table.Apply(func(i, j int, _ float64) float64 {
		p, q := a.Weights[i], b.Weights[j]
		if !weights || max(p, q) == 0 {
			return 1
		}
		return min(p, q) / max(p, q)
	}, table)
	for n, u := range a.Factors {
		var cos mat.Dense
		cos.Mul(u.T(), b.Factors[n])
		table.MulElem(table, &cos)
	}
	if norm := mat.Norm(table, 1); math.IsNaN(norm) || math.IsInf(norm, 0) {
		return 0, fmt.Errorf("%w: factors or weights are not finite", ErrSettings)
	}
	var sum float64
	for i, j := range assign(table) {
		sum += table.At(i, j)
	}
	return sum / float64(a.Rank()), nil
}

// assign gives each row of a table that is not higher than wide a column of its
// own such that the entries sum to the most: Kuhn's method by shortest augmenting
// paths, rows·rows·columns steps.
func assign(table *mat.Dense) []int {
	rows, cols := table.Dims()
	// Prices keep the reduced costs, price minus entry, from falling below 0.
	// Row and column 0 are no one's.
	rowPrice, colPrice := make([]float64, rows+1), make([]float64, cols+1)
	owner, previous := make([]int, cols+1), make([]int, cols+1)
	for i := 1; i <= rows; i++ {
		slack := make([]float64, cols+1)
		for j := range slack {
			slack[j] = math.Inf(1)
		}
		done := make([]bool, cols+1)
		owner[0] = i
		j := 0
		for owner[j] != 0 {
			done[j] = true
			row, next, step := owner[j], 0, math.Inf(1)
			for c := 1; c <= cols; c++ {
				if done[c] {
					continue
				}
				if d := -table.At(row-1, c-1) - rowPrice[row] - colPrice[c]; d < slack[c] {
					slack[c], previous[c] = d, j
				}
				if slack[c] < step {
					step, next = slack[c], c
				}
			}
			for c := range done {
				if done[c] {
					rowPrice[owner[c]] += step
					colPrice[c] -= step
				} else {
					slack[c] -= step
				}
			}
			j = next
		}
		for j != 0 {
			owner[j] = owner[previous[j]]
			j = previous[j]
		}
	}
	match := make([]int, rows)
	for j, i := range owner[1:] {
		if i != 0 {
			match[i-1] = j
		}
	}
	return match
}
