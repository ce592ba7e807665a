package stability

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/internal/tensorops"
)

// Report tells how much the components of a decomposition cancel each other.
type Report struct {
	// Norm is that of the sum of the components, Intensity the sum of their squared
	// norms, and Sensitivity the least of all scalings.
	Norm, Intensity, Sensitivity float64
	// Degeneracy is Intensity/Norm²: 1 for orthogonal components, far above where
	// they cancel, infinite where they cancel wholly.
	Degeneracy float64
	// Cosine is the least between two components as tensors, and Pair these; near −1
	// they are all but opposite. With one component that is not zero it is 1.
	Cosine float64
	Pair   [2]int
	// CoreConsistency is that of Bro and Kiers (2003), in per cent: 100 where the
	// least-squares core for the factors is superdiagonal, near 0 or below where the
	// model is not valid. NaN where that core would have more than ten million
	// entries.
	CoreConsistency float64
	// NormalCondition is the condition number of the normal equations of the mode
	// where it is worst, with unit columns: digits that least squares lose.
	NormalCondition float64
	// Condition is that of the decomposition itself (Breiding and Vannieuwenhoven
	// 2018): by how much the norm of a small change of the tensor grows, at most, to
	// that of the components. It is 1 for orthogonal ones, infinite where components
	// are not determined, and NaN where it would take more than 800 tangent vectors,
	// R·(1 + Σ(I_n − 1)).
	Condition float64
}

// mostCore is the number of entries of a core that is still formed.
const mostCore = 10_000_000

// Diagnose reports on a decomposition of x. Errors wrap ErrSettings or say what is
// wrong with x.
func Diagnose(x *tensor.Dense, k *cpd.Kruskal) (*Report, error) {
	shape, data, err := tensorops.View(x)
	if err != nil {
		return nil, fmt.Errorf("stability: %w", err)
	}
	if k == nil {
		return nil, fmt.Errorf("%w: no decomposition", ErrSettings)
	}
	if err := k.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSettings, err)
	}
	if got := k.Shape(); !slices.Equal(got, shape) {
		return nil, fmt.Errorf("%w: a decomposition of shape %v of a tensor of %v", ErrSettings, got, shape)
	}
	r := &Report{Norm: k.Norm(), Intensity: k.Intensity(), Sensitivity: k.LeastSensitivity(), Cosine: 1}
	r.Degeneracy = r.Intensity / (r.Norm * r.Norm)
	unit := k.Normalized()
	rank := k.Rank()
	cosines := mat.NewDense(rank, rank, slices.Repeat([]float64{1}, rank*rank))
	var grams []*mat.Dense
	for _, u := range unit.Factors {
		var g mat.Dense
		g.Mul(u.T(), u)
		cosines.MulElem(cosines, &g)
		grams = append(grams, &g)
	}
	if r.NormalCondition, err = normalCondition(rank, grams); err != nil {
		return nil, err
	}
	if r.Condition, err = condition(unit); err != nil {
		return nil, err
	}
	for i := range rank {
		for j := range i {
			if c := cosines.At(i, j); unit.Weights[i] > 0 && unit.Weights[j] > 0 && c < r.Cosine {
				r.Cosine, r.Pair = c, [2]int{j, i}
			}
		}
	}
	if math.Pow(float64(rank), float64(len(shape))) > mostCore {
		r.CoreConsistency = math.NaN()
		return r, nil
	}
	scale := 0.
	for n, u := range unit.Factors {
		if n == 0 {
			u.Apply(func(_, c int, v float64) float64 { return v * unit.Weights[c] }, u)
		}
		p, err := pseudoInverse(u)
		if err != nil {
			return nil, err
		}
		shape, data = tensorops.MulMode(0, shape, data, n, false, p, rank)
	}
	var off float64
	step := 0
	for range shape {
		step = step*rank + 1
	}
	for at, v := range data {
		want := 0.
		if at%step == 0 {
			want = 1
		}
		off += (v - want) * (v - want)
		scale += want
	}
	r.CoreConsistency = 100 * (1 - off/scale)
	return r, nil
}

// pseudoInverse is that of an I×R matrix, R×I.
func pseudoInverse(u *mat.Dense) ([]float64, error) {
	rows, cols := u.Dims()
	var f mat.SVD
	if !f.Factorize(u, mat.SVDThin) {
		return nil, fmt.Errorf("stability: the singular values of a %d×%d factor did not converge", rows, cols)
	}
	var left, right mat.Dense
	f.UTo(&left)
	f.VTo(&right)
	s := f.Values(nil)
	right.Apply(func(_, c int, v float64) float64 {
		if s[c] <= 1e-12*s[0] {
			return 0
		}
		return v / s[c]
	}, &right)
	var p mat.Dense
	p.Mul(&right, left.T())
	return p.RawMatrix().Data, nil
}
