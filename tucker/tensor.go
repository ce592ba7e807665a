package tucker

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/internal/tensorops"
)

// Tucker is a core and factors.
type Tucker struct {
	// Core has R_n in place of I_n where mode n has a factor.
	Core *tensor.Dense
	// Factors has one entry a mode: I_n×R_n, or nil where the mode is left alone.
	// The columns are orthonormal, but for those of NonNegative.
	Factors []*mat.Dense
}

// Validate reports a core and factors that do not fit together; the error wraps
// ErrSettings or says what is wrong with the core.
func (t *Tucker) Validate() error {
	shape, _, err := tensorops.View(t.Core)
	if err != nil {
		return fmt.Errorf("tucker: core: %w", err)
	}
	if len(t.Factors) != len(shape) {
		return fmt.Errorf("%w: %d factors for a core of order %d", ErrSettings, len(t.Factors), len(shape))
	}
	for n, u := range t.Factors {
		if u == nil {
			continue
		}
		if _, cols := u.Dims(); cols != shape[n] {
			return fmt.Errorf("%w: factor %d has %d columns, the core %d in that mode", ErrSettings, n, cols, shape[n])
		}
	}
	return nil
}

// Ranks are the dimensions of the core.
func (t *Tucker) Ranks() []int { return slices.Clone(t.Core.Shape()) }

// Shape is I_1, …, I_N.
func (t *Tucker) Shape() []int {
	shape := t.Ranks()
	for n, u := range t.Factors {
		if u != nil {
			shape[n], _ = u.Dims()
		}
	}
	return shape
}

// Params is the number of values of the core and the factors.
func (t *Tucker) Params() int {
	n := tensorops.Product(t.Core.Shape())
	for _, u := range t.Factors {
		if u != nil {
			r, c := u.Dims()
			n += r * c
		}
	}
	return n
}

// Clone returns a copy that shares nothing, its core in row-major order.
func (t *Tucker) Clone() *Tucker {
	c := &Tucker{}
	if shape, data, err := tensorops.ViewAny(t.Core); err == nil {
		c.Core = tensorops.Wrap(shape, slices.Clone(data))
	}
	for _, u := range t.Factors {
		if u != nil {
			u = mat.DenseCopyOf(u)
		}
		c.Factors = append(c.Factors, u)
	}
	return c
}

// Norm is the Frobenius norm of the tensor that t stands for, from the core and the
// factors' Gram matrices: that of the core where the factors are orthonormal.
func (t *Tucker) Norm() float64 {
	shape, core, err := tensorops.View(t.Core)
	if err != nil {
		return math.NaN()
	}
	norm := tensorops.Norm(core)
	if norm == 0 {
		return 0
	}
	unit := scaled(core, 1/norm)
	g := unit
	for n, u := range t.Factors {
		if u != nil {
			var gram mat.Dense
			gram.Mul(u.T(), u)
			_, g = tensorops.MulMode(0, shape, g, n, false, dense(&gram), shape[n])
		}
	}
	return norm * math.Sqrt(max(tensorops.Dot(g, unit), 0))
}

// Inner is the inner product with a dense tensor, which is projected; the tensor
// that t stands for is not formed. The error wraps ErrSettings where shapes differ.
func (t *Tucker) Inner(x *tensor.Dense) (float64, error) {
	if err := t.Validate(); err != nil {
		return 0, err
	}
	shape, data, err := tensorops.View(x)
	if err != nil {
		return 0, fmt.Errorf("tucker: %w", err)
	}
	if got := t.Shape(); !slices.Equal(got, shape) {
		return 0, fmt.Errorf("%w: a Tucker tensor of shape %v and a tensor of shape %v", ErrSettings, got, shape)
	}
	for n, u := range t.Factors {
		if u != nil {
			_, cols := u.Dims()
			shape, data = tensorops.MulMode(0, shape, data, n, true, dense(u), cols)
		}
	}
	_, core, err := tensorops.View(t.Core)
	if err != nil {
		return 0, err
	}
	return tensorops.Dot(core, data), nil
}

// Sensitivity is the expected squared error of the tensor for each unit of
// variance of independent noise on all entries of the core and the factors, whose
// columns are orthonormal: the number of entries of the core, and I_n·‖G‖² for each
// factor.
func (t *Tucker) Sensitivity() float64 {
	norm := t.Norm()
	s := float64(tensorops.Product(t.Core.Shape()))
	for _, u := range t.Factors {
		if u != nil {
			rows, _ := u.Dims()
			s += float64(rows) * norm * norm
		}
	}
	return s
}

// Reconstruct multiplies the core with the factors. The error is that of Validate.
func (t *Tucker) Reconstruct() (*tensor.Dense, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	shape, data, err := tensorops.View(t.Core)
	if err != nil {
		return nil, err
	}
	for n, u := range t.Factors {
		if u != nil {
			rows, _ := u.Dims()
			shape, data = tensorops.MulMode(0, shape, data, n, false, dense(u), rows)
		}
	}
	return tensorops.Wrap(shape, slices.Clone(data)), nil
}

// dense is the values of m in row-major order without gaps.
func dense(m *mat.Dense) []float64 {
	raw := m.RawMatrix()
	if raw.Stride == raw.Cols {
		return raw.Data[:raw.Rows*raw.Cols]
	}
	return mat.DenseCopyOf(m).RawMatrix().Data
}
