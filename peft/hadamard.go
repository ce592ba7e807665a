package peft

import (
	"context"
	"math"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/internal/tensorops"
)

// Sweeps of fitHadamard: rounds over the two products, and sweeps of each in a round.
const hadamardRounds, hadamardSweeps = 25, 2

// fitHadamard fits X ≈ M₁ ⊙ M₂ of two products of the same rank. With M₂ fixed that is
// M₁ ≈ X/M₂ where an entry counts M₂² times, least squares with weights, whose factors
// are solved for in turn; then the same for M₂. It starts from the best M₁ beside ones
// (with a little noise, so that M₂ has its rank) and never gets worse than that.
func (c *Change[T]) fitHadamard(ctx context.Context, x []float64) error {
	n, rank := c.spec.Shape[0], c.spec.Rank[0]
	k := len(x) / n
	t, err := truncate(ctx, []int{n, k}, x, []int{0}, []int{rank})
	if err != nil {
		return err
	}
	_, core, err := tensorops.View(t.Core)
	if err != nil {
		return err
	}
	products := [2]*cpd.Kruskal{
		{Factors: []*mat.Dense{widened(t.Factors[0], rank), widened(mat.DenseCopyOf(mat.NewDense(len(core)/k, k, core).T()), rank)}},
		{Factors: []*mat.Dense{nearOnes(n, rank), nearOnes(k, rank)}},
	}
	last := math.Inf(1)
	target, weight := make([]float64, len(x)), make([]float64, len(x))
	for range hadamardRounds {
		var relError float64
		for i := range products {
			var other mat.Dense
			other.Mul(products[1-i].Factors[0], products[1-i].Factors[1].T())
			for j, m := range other.RawMatrix().Data {
				target[j], weight[j] = 0, m*m
				if m != 0 {
					target[j] = x[j] / m
				}
			}
			r, err := cpd.ALS(ctx, tensorops.Wrap([]int{n, k}, target), rank, &cpd.Settings{
				Start: products[i], Starts: 1, MaxSweeps: hadamardSweeps, Weights: tensorops.Wrap([]int{n, k}, weight),
			})
			if err != nil {
				return err
			}
			products[i], relError = r.Balanced(), r.RelError
		}
		if relError >= last*(1-1e-4) {
			break
		}
		last = relError
	}
	for i, names := range [][2]string{{"hada_w1_a", "hada_w1_b"}, {"hada_w2_a", "hada_w2_b"}} {
		c.set(names[0], 0, products[i].Factors[0].RawMatrix().Data, n, rank)
		c.setMatrix(names[1], 0, products[i].Factors[1], true)
	}
	return nil
}

// widened is m with columns of zeros up to rank.
func widened(m *mat.Dense, rank int) *mat.Dense {
	rows, cols := m.Dims()
	out := mat.NewDense(rows, rank, nil)
	out.Slice(0, rows, 0, cols).(*mat.Dense).Copy(m)
	return out
}

// nearOnes has a first column of ones, and small others that are no multiples of it.
func nearOnes(rows, rank int) *mat.Dense {
	m := mat.NewDense(rows, rank, nil)
	for i := range rows {
		m.Set(i, 0, 1)
		for j := 1; j < rank; j++ {
			m.Set(i, j, 0.1*math.Cos(math.Pi*float64(j)*(float64(i)+0.5)/float64(rows)))
		}
	}
	return m
}
