package cpd

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/internal/tensorops"
)

// Kruskal is a sum of R rank-1 tensors: component r is Weights[r] times the
// outer product of the columns r of the factors.
type Kruskal struct {
	// Weights has R values; nil means all ones.
	Weights []float64
	// Factors has one matrix a mode, I_n×R.
	Factors []*mat.Dense
}

// Validate reports factors and weights that do not fit together; the error
// wraps ErrSettings.
func (k *Kruskal) Validate() error {
	if len(k.Factors) == 0 {
		return fmt.Errorf("%w: a Kruskal tensor without factors", ErrSettings)
	}
	if i := slices.Index(k.Factors, nil); i >= 0 {
		return fmt.Errorf("%w: factor %d is missing", ErrSettings, i)
	}
	r := k.Rank()
	for n, u := range k.Factors {
		if rows, c := u.Dims(); c != r || rows < 1 || r < 1 {
			return fmt.Errorf("%w: factor %d is %d×%d, factor 0 has %d columns", ErrSettings, n, rows, c, r)
		}
	}
	if k.Weights != nil && len(k.Weights) != r {
		return fmt.Errorf("%w: %d weights for %d components", ErrSettings, len(k.Weights), r)
	}
	return nil
}

// Rank is the number of components.
func (k *Kruskal) Rank() int {
	_, r := k.Factors[0].Dims()
	return r
}

// Shape is I_1, …, I_N.
func (k *Kruskal) Shape() []int {
	shape := make([]int, len(k.Factors))
	for n, u := range k.Factors {
		shape[n], _ = u.Dims()
	}
	return shape
}

// Params is R·ΣI_n, the number of values of the factors with the weights
// multiplied in.
func (k *Kruskal) Params() int {
	n := 0
	for _, d := range k.Shape() {
		n += d
	}
	return n * k.Rank()
}

func (k *Kruskal) weight(r int) float64 {
	if k.Weights == nil {
		return 1
	}
	return k.Weights[r]
}

// Clone returns a copy that shares nothing.
func (k *Kruskal) Clone() *Kruskal {
	c := &Kruskal{Weights: slices.Clone(k.Weights)}
	for _, u := range k.Factors {
		c.Factors = append(c.Factors, mat.DenseCopyOf(u))
	}
	return c
}

// Normalized returns the same tensor with columns of unit norm and all scale in
// the weights, which are not negative (a sign goes into the first factor). A
// component with a zero column has weight 0.
func (k *Kruskal) Normalized() *Kruskal {
	c := k.Clone()
	r := k.Rank()
	c.Weights = make([]float64, r)
	for j := range r {
		w := k.weight(j)
		for _, u := range c.Factors {
			norm := columnNorm(u, j)
			w *= norm
			divideColumn(u, j, norm)
		}
		if w < 0 {
			w = -w
			scaleColumn(c.Factors[0], j, -1)
		}
		c.Weights[j] = w
	}
	return c
}

// Arranged returns the same tensor, normalised, with components by falling
// weight.
func (k *Kruskal) Arranged() *Kruskal {
	c := k.Normalized()
	order := make([]int, len(c.Weights))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(i, j int) bool { return c.Weights[order[i]] > c.Weights[order[j]] })
	out := &Kruskal{Weights: make([]float64, len(order))}
	for i, o := range order {
		out.Weights[i] = c.Weights[o]
	}
	for _, u := range c.Factors {
		rows, _ := u.Dims()
		v := mat.NewDense(rows, len(order), nil)
		for i, o := range order {
			for j := range rows {
				v.Set(j, i, u.At(j, o))
			}
		}
		out.Factors = append(out.Factors, v)
	}
	return out
}

// Balanced returns the same tensor with weights of one, the scale of every
// component spread over its columns so that the sensitivity is least:
// ‖u_{n,r}‖² in the ratio of I_n. No other scaling of the same components loses
// less when all entries are perturbed alike.
func (k *Kruskal) Balanced() *Kruskal {
	c := k.Normalized()
	shape := c.Shape()
	order := float64(len(shape))
	logProduct := 0.0
	for _, d := range shape {
		logProduct += math.Log(float64(d))
	}
	for j, w := range c.Weights {
		for n, u := range c.Factors {
			s := 0.0
			if w > 0 {
				// Π‖u_n‖ = w with ‖u_n‖² = I_n/t, t = (Π I_n / w²)^(1/N).
				s = math.Exp((math.Log(float64(shape[n])) - (logProduct-2*math.Log(w))/order) / 2)
			}
			scaleColumn(u, j, s)
		}
		c.Weights[j] = 1
	}
	return c
}

func columnNorm(u *mat.Dense, j int) float64 {
	rows, _ := u.Dims()
	v := make([]float64, rows)
	for i := range v {
		v[i] = u.At(i, j)
	}
	return tensorops.Norm(v)
}

// divideColumn leaves a column alone where its norm is 0. It divides rather than
// multiplies because the reciprocal of a small norm may be infinite.
func divideColumn(u *mat.Dense, j int, norm float64) {
	if norm == 0 {
		return
	}
	rows, _ := u.Dims()
	for i := range rows {
		u.Set(i, j, u.At(i, j)/norm)
	}
}

func scaleColumn(u *mat.Dense, j int, s float64) {
	rows, _ := u.Dims()
	for i := range rows {
		u.Set(i, j, u.At(i, j)*s)
	}
}

// Reconstruct multiplies the components out.
func (k *Kruskal) Reconstruct() (*tensor.Dense, error) {
	if err := k.Validate(); err != nil {
		return nil, err
	}
	shape := k.Shape()
	return tensorops.Wrap(shape, k.full(0)), nil
}

func (k *Kruskal) full(workers int) []float64 {
	return tensorops.Kruskal(workers, k.Shape(), k.factors(), k.Rank())
}

// factors are copies, row-major, the weights multiplied into the first.
func (k *Kruskal) factors() [][]float64 {
	f := make([][]float64, len(k.Factors))
	for n, u := range k.Factors {
		f[n] = mat.DenseCopyOf(u).RawMatrix().Data
	}
	if k.Weights != nil {
		for i := range f[0] {
			f[0][i] *= k.Weights[i%len(k.Weights)]
		}
	}
	return f
}

// Norm is the Frobenius norm of the sum, from the factors' Gram matrices; it
// loses digits where components cancel.
func (k *Kruskal) Norm() float64 {
	c := k.Normalized()
	top := slices.Max(c.Weights)
	if top == 0 {
		return 0
	}
	r := k.Rank()
	g := make([]float64, r*r)
	for i := range g {
		g[i] = c.Weights[i/r] / top * (c.Weights[i%r] / top)
	}
	for _, u := range c.Factors {
		var gram mat.Dense
		gram.Mul(u.T(), u)
		for i, v := range gram.RawMatrix().Data {
			g[i] *= v
		}
	}
	var s float64
	for _, v := range g {
		s += v
	}
	return top * math.Sqrt(max(s, 0))
}

// Inner is the inner product of the sum with a dense tensor, at the cost of one
// MTTKRP; the sum is not formed. The error wraps ErrSettings where the shapes
// differ.
func (k *Kruskal) Inner(x *tensor.Dense) (float64, error) {
	if err := k.Validate(); err != nil {
		return 0, err
	}
	shape, data, err := tensorops.View(x)
	if err != nil {
		return 0, fmt.Errorf("cpd: %w", err)
	}
	if got := k.Shape(); !slices.Equal(got, shape) {
		return 0, fmt.Errorf("%w: a Kruskal tensor of shape %v and a tensor of shape %v", ErrSettings, got, shape)
	}
	f := k.factors()
	var inner float64
	first := errors.New("the first mode is all")
	_ = tensorops.NewTree[float64](0, shape, k.Rank()).Each(data, f, func(_ int, m []float64) error {
		inner = tensorops.Dot(f[0], m)
		return first
	})
	return inner, nil
}

// Intensity is Σ_r ‖component r‖², the sum of the squared norms of the rank-1
// tensors. Far above the squared norm of their sum it means that components
// cancel each other.
func (k *Kruskal) Intensity() float64 {
	var s float64
	for _, w := range k.Normalized().Weights {
		s += w * w
	}
	return s
}

// Sensitivity is the expected squared error of the sum for each unit of variance
// of independent noise on all entries of the factors, as they are scaled now,
// with the weights multiplied into the first factor (Tichavský, Phan and
// Cichocki 2019; Phan et al. 2020):
//
//	Σ_n I_n Σ_r Π_{m≠n} ‖u_{m,r}‖²
func (k *Kruskal) Sensitivity() float64 {
	shape := k.Shape()
	var s float64
	for j := range k.Rank() {
		sq := make([]float64, len(k.Factors))
		for n, u := range k.Factors {
			v := columnNorm(u, j)
			if n == 0 {
				v *= k.weight(j)
			}
			sq[n] = v * v
		}
		for n, d := range shape {
			p := float64(d)
			for m, v := range sq {
				if m != n {
					p *= v
				}
			}
			s += p
		}
	}
	return s
}

// LeastSensitivity is the sensitivity after Balanced,
// N·(Π I_n)^(1/N)·Σ_r λ_r^(2(N−1)/N) with λ_r the norm of component r.
func (k *Kruskal) LeastSensitivity() float64 {
	order := float64(len(k.Factors))
	logProduct := 0.0
	for _, d := range k.Shape() {
		logProduct += math.Log(float64(d))
	}
	var s float64
	for _, w := range k.Normalized().Weights {
		if w > 0 {
			s += math.Exp(2 * (order - 1) / order * math.Log(w))
		}
	}
	return order * math.Exp(logProduct/order) * s
}
