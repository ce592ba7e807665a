package model

import (
	"fmt"
	"slices"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/tucker"
)

// Dense is the array as a tensor of float64, whose memory is Data where that is of
// float64. Booleans and scalars are errors, which wrap ErrUnsupported.
func (t *Tensor) Dense() (*tensor.Dense, error) {
	v, err := t.Float64s()
	if err != nil {
		return nil, err
	}
	if len(t.Shape) == 0 || len(v) == 0 {
		return nil, fmt.Errorf("%w: shape %v; want at least one dimension and one value", ErrUnsupported, t.Shape)
	}
	return tensor.New(tensor.WithShape(t.Shape...), tensor.WithBacking(v)), nil
}

// matrix is a copy of m.
func matrix(m *mat.Dense) *Tensor {
	rows, cols := m.Dims()
	return &Tensor{Shape: []int{rows, cols}, Data: mat.DenseCopyOf(m).RawMatrix().Data}
}

// factor is the name of the factor of a mode.
func factor(mode int) string { return fmt.Sprintf("factor%d", mode) }

// SetKruskal puts a Kruskal tensor into sd, as "weights", R values, and "factor0",
// "factor1", …, I_n×R: what the command decompose writes.
func (sd *StateDict) SetKruskal(k *cpd.Kruskal) {
	weights := slices.Clone(k.Weights)
	if weights == nil {
		weights = slices.Repeat([]float64{1}, k.Rank())
	}
	sd.Set("weights", &Tensor{Shape: []int{len(weights)}, Data: weights})
	for n, u := range k.Factors {
		sd.Set(factor(n), matrix(u))
	}
}

// Kruskal takes a Kruskal tensor out of sd; see SetKruskal. Errors wrap ErrFormat.
func (sd *StateDict) Kruskal() (*cpd.Kruskal, error) {
	k := &cpd.Kruskal{}
	for n := 0; ; n++ {
		t, ok := sd.Get(factor(n))
		if !ok {
			break
		}
		u, err := t.matrix()
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrFormat, factor(n), err)
		}
		k.Factors = append(k.Factors, u)
	}
	if t, ok := sd.Get("weights"); ok {
		w, err := t.Float64s()
		if err != nil || len(t.Shape) != 1 {
			return nil, fmt.Errorf("%w: weights of shape %v and type %s", ErrFormat, t.Shape, t.DType())
		}
		k.Weights = w
	}
	if err := k.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return k, nil
}

func (t *Tensor) matrix() (*mat.Dense, error) {
	v, err := t.Float64s()
	if err != nil {
		return nil, err
	}
	if len(t.Shape) != 2 || len(v) == 0 {
		return nil, fmt.Errorf("shape %v; want a matrix", t.Shape)
	}
	return mat.NewDense(t.Shape[0], t.Shape[1], v), nil
}

// SetTucker puts a Tucker tensor into sd, as "core" and "factor0", "factor1", …,
// I_n×R_n, none for a mode that has none: what the command decompose writes. The
// error is that of a core that is not one.
func (sd *StateDict) SetTucker(t *tucker.Tucker) error {
	if err := t.Validate(); err != nil {
		return err
	}
	c := t.Clone()
	sd.Set("core", &Tensor{Shape: slices.Clone(c.Core.Shape()), Data: c.Core.Data()})
	for n, u := range t.Factors {
		if u != nil {
			sd.Set(factor(n), matrix(u))
		}
	}
	return nil
}

// Tucker takes a Tucker tensor out of sd; see SetTucker. Errors wrap ErrFormat.
func (sd *StateDict) Tucker() (*tucker.Tucker, error) {
	core, ok := sd.Get("core")
	if !ok {
		return nil, fmt.Errorf("%w: no tensor is called core", ErrFormat)
	}
	c, err := core.Dense()
	if err != nil {
		return nil, fmt.Errorf("%w: core: %w", ErrFormat, err)
	}
	t := &tucker.Tucker{Core: c, Factors: make([]*mat.Dense, c.Dims())}
	for n := range t.Factors {
		f, ok := sd.Get(factor(n))
		if !ok {
			continue
		}
		if t.Factors[n], err = f.matrix(); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrFormat, factor(n), err)
		}
	}
	if err := t.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return t, nil
}
