package tkdcpd

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/cpd"
)

// Tensor is a Kruskal tensor multiplied by a matrix in some modes: with A_n the
// factors of the core and U_n the others, the Kruskal tensor of the factors U_n·A_n.
type Tensor struct {
	// Core is the CPD of the core, R_n×R where there is a factor of mode n.
	Core cpd.Kruskal
	// Factors has one entry a mode: I_n×R_n, or nil for a mode that is left alone.
	Factors []*mat.Dense
}

// Validate reports factors that do not fit together; the error wraps ErrSettings or
// that of the core.
func (t *Tensor) Validate() error {
	if t == nil {
		return fmt.Errorf("%w: no decomposition", ErrSettings)
	}
	if err := t.Core.Validate(); err != nil {
		return fmt.Errorf("tkdcpd: core: %w", err)
	}
	if len(t.Factors) != len(t.Core.Factors) {
		return fmt.Errorf("%w: %d factors for a core of order %d", ErrSettings, len(t.Factors), len(t.Core.Factors))
	}
	for n, u := range t.Factors {
		if u == nil {
			continue
		}
		if _, cols := u.Dims(); cols != t.Core.Shape()[n] {
			return fmt.Errorf("%w: factor %d has %d columns, the core is of %v", ErrSettings, n, cols, t.Core.Shape())
		}
	}
	return nil
}

// Shape is I_1, …, I_N.
func (t *Tensor) Shape() []int {
	shape := t.Core.Shape()
	for n, u := range t.Factors {
		if u != nil {
			shape[n], _ = u.Dims()
		}
	}
	return shape
}

// Params is the number of values of all factors, the weights multiplied in.
func (t *Tensor) Params() int {
	n := t.Core.Params()
	for _, u := range t.Factors {
		if u != nil {
			rows, cols := u.Dims()
			n += rows * cols
		}
	}
	return n
}

// merged is the tensor with the factors of the modes that merge tells multiplied
// together.
func (t *Tensor) merged(merge func(size, dim int) bool) *Tensor {
	m := &Tensor{Core: *t.Core.Clone()}
	for n, u := range t.Factors {
		if u != nil {
			if rows, cols := u.Dims(); merge(rows, cols) {
				var p mat.Dense
				p.Mul(u, m.Core.Factors[n])
				m.Core.Factors[n], u = &p, nil
			}
		}
		m.Factors = append(m.Factors, u)
	}
	return m
}

// Merged multiplies a mode's two factors together where the product has no more
// values, I_n·R ≤ R_n·(I_n + R), as Cheaper says.
func (t *Tensor) Merged() *Tensor {
	return t.merged(func(size, dim int) bool { return Cheaper.merges(size, dim, t.Core.Rank()) })
}

// Kruskal multiplies all factors together: a CPD of the whole, balanced.
func (t *Tensor) Kruskal() *cpd.Kruskal {
	return t.merged(func(int, int) bool { return true }).Core.Balanced()
}

// Reconstruct multiplies everything out. The error is that of Validate.
func (t *Tensor) Reconstruct() (*tensor.Dense, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	return t.Kruskal().Reconstruct()
}

// Sensitivity is the expected squared error of the tensor for each unit of variance
// of independent noise on the entries of all factors, as they are scaled now: with
// B_n = U_n·A_n, or A_n where there is no U_n,
//
//	Σ_n w_n Σ_r Π_{m≠n} ‖b_{m,r}‖² + Σ_n I_n·‖[[…, B_{n−1}, A_n, B_{n+1}, …]]‖²
//
// where w_n is ‖U_n‖², or I_n, and the second sum is over the modes that have a U_n.
func (t *Tensor) Sensitivity() float64 {
	var s float64
	for _, v := range t.sensitivities() {
		s += v
	}
	return s
}

// sensitivities are the shares of the core's factors together, first, and of each
// U_n, 0 for none.
func (t *Tensor) sensitivities() []float64 {
	whole := t.merged(func(int, int) bool { return true }).Core
	s := make([]float64, len(t.Factors)+1)
	for n, u := range t.Factors {
		w := float64(t.Core.Shape()[n])
		if u != nil {
			norm := mat.Norm(u, 2)
			w = norm * norm
		}
		for r := range t.Core.Rank() {
			product := w
			for m, b := range whole.Factors {
				v := mat.Norm(b.ColView(r), 2)
				if whole.Weights != nil && m == 0 {
					// The weights are the first factor's, whose noise they do not scale.
					v *= whole.Weights[r]
				}
				if m != n {
					product *= v * v
				}
			}
			s[0] += product
		}
		if u != nil {
			open := cpd.Kruskal{Weights: whole.Weights, Factors: append([]*mat.Dense(nil), whole.Factors...)}
			open.Factors[n] = t.Core.Factors[n]
			norm, rows := open.Norm(), t.Shape()[n]
			s[n+1] = float64(rows) * norm * norm
		}
	}
	return s
}

// Balanced is the same tensor, weights of one, with the scale of every component
// spread over the core's factors as cpd.Kruskal.Balanced does, and that of the whole
// over the core and the U_n, each times one number, for the least sensitivity. With c
// the share of a balanced core of order N, which grows as (Π p_n)^(1/N) where U_n is
// scaled by √p_n and the core by the inverse, and s_n/p_n that of U_n, the least is at
// p_n = s_n·t, t^(1+M/N) = N/(c·(Π s_n)^(1/N)) for M factors U_n. Those must have
// columns that are orthonormal but for a common scale.
func (t *Tensor) Balanced() *Tensor {
	b := &Tensor{Core: *t.Core.Balanced(), Factors: append([]*mat.Dense(nil), t.Factors...)}
	s := b.sensitivities()
	order, count, logs := float64(len(t.Factors)), 0., 0.
	for n, u := range b.Factors {
		if u != nil {
			count++
			logs += math.Log(s[n+1])
		}
	}
	lt := (math.Log(order) - math.Log(s[0]) - logs/order) / (1 + count/order)
	if count == 0 || math.IsInf(lt, 0) || math.IsNaN(lt) { // nothing to spread
		return b
	}
	core := 1.
	for n, u := range b.Factors {
		if u != nil {
			p := math.Exp((lt + math.Log(s[n+1])) / 2)
			var v mat.Dense
			v.Scale(p, u)
			b.Factors[n] = &v
			core /= p
		}
	}
	each := math.Pow(core, 1/order)
	for _, a := range b.Core.Factors {
		a.Scale(each, a)
	}
	return b
}
