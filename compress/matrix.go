package compress

import (
	"context"
	"errors"
	"math"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/internal/gemm"
	"github.com/lowrank-go/lowrank/internal/linalg"
)

// Matrix is a matrix of weights, Rows×Cols and row-major, that is read when it is needed
// and not kept: a large linear layer costs the memory of its weights or that of their
// decomposition, not both.
type Matrix struct {
	Rows, Cols int
	Read       func() ([]float32, error)
}

// block is how many rows or columns are converted to float64 at a time.
const block = 256

// Factor is the best approximation U·Vᵀ of the rank that choose returns for the squared
// singular values, falling: U of Rows×R and V of Cols×R, each component's scale in equal
// parts in both. It is nil where choose returns 0. Errors are the context's, Read's, or
// wrap linalg.ErrNotFinite where a weight is not finite.
func (m Matrix) Factor(ctx context.Context, workers int, choose func(energies []float64) int) (u, v *mat.Dense, err error) {
	n := min(m.Rows, m.Cols)
	var energies []float64
	w := make([]float64, n)
	gram, err := m.gram(workers)
	if err != nil {
		return nil, nil, err
	}
	vectors, r, err := linalg.EigenTopContext(ctx, workers, n, gram, n, w, func(values []float64) int {
		energies = make([]float64, n)
		for i, e := range values {
			energies[i] = max(e, 0)
		}
		return choose(energies)
	})
	gram = nil
	if err != nil || r == 0 {
		return nil, nil, err
	}
	data, err := m.Read()
	if err != nil {
		return nil, nil, err
	}
	// The vectors are of the shorter side; the others follow by a product.
	known := mat.NewDense(n, r, vectors)
	other := mat.NewDense(max(m.Rows, m.Cols), r, nil)
	m.blocks(data, func(b []float64, at, count int) {
		out := other.RawMatrix().Data[at*r:]
		if m.Rows <= m.Cols { // Rows×count
			gemm.Float64(workers, true, false, count, r, m.Rows, 1, b, count, vectors, r, 0, out, r)
		} else { // count×Cols
			gemm.Float64(workers, false, false, count, r, m.Cols, 1, b, m.Cols, vectors, r, 0, out, r)
		}
	})
	for c := range r {
		if energies[c] == 0 {
			continue
		}
		half := math.Pow(energies[c], 0.25)
		for i := range n {
			known.Set(i, c, known.At(i, c)*half)
		}
		for i := range other.RawMatrix().Rows {
			other.Set(i, c, other.At(i, c)/half)
		}
	}
	if m.Rows <= m.Cols {
		return known, other, nil
	}
	return other, known, nil
}

// gram is the Gram matrix of the shorter side.
func (m Matrix) gram(workers int) ([]float64, error) {
	data, err := m.Read()
	if err != nil {
		return nil, err
	}
	if len(data) != m.Rows*m.Cols {
		return nil, errors.New("compress: a matrix whose weights do not fit its shape")
	}
	n := min(m.Rows, m.Cols)
	g := make([]float64, n*n)
	m.blocks(data, func(b []float64, at, count int) {
		beta := 1.0
		if at == 0 {
			beta = 0
		}
		if m.Rows <= m.Cols {
			gemm.Gram64(workers, false, n, count, 1, b, count, beta, g, n)
		} else {
			gemm.Gram64(workers, true, n, count, 1, b, n, beta, g, n)
		}
	})
	return g, nil
}

// blocks calls f with the longer side's rows or columns, some at a time, in float64:
// Rows×count of a wide matrix, count×Cols of a long one.
func (m Matrix) blocks(data []float32, f func(b []float64, at, count int)) {
	long := max(m.Rows, m.Cols)
	buf := make([]float64, min(m.Rows, m.Cols)*min(block, long))
	for at := 0; at < long; at += block {
		count := min(block, long-at)
		b := buf[:min(m.Rows, m.Cols)*count]
		if m.Rows <= m.Cols {
			for i := range m.Rows {
				row := data[i*m.Cols+at:][:count]
				for j, v := range row {
					b[i*count+j] = float64(v)
				}
			}
		} else {
			for i, v := range data[at*m.Cols:][:len(b)] {
				b[i] = float64(v)
			}
		}
		f(b, at, count)
	}
}
