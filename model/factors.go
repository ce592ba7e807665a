package model

import (
	"fmt"
	"slices"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/tkdcpd"
	"github.com/lowrank-go/lowrank/tucker"
)

// Dense is the array as a tensor of float64, whose memory is Data where that is of
// float64. Scalars are errors, which wrap ErrUnsupported.
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

// factor is the name of the factor of a mode, inner that of a core's.
func factor(mode int) string { return fmt.Sprintf("factor%d", mode) }
func inner(mode int) string  { return fmt.Sprintf("core%d", mode) }

// SetKruskal puts a Kruskal tensor into sd, as "weights", R values, and "factor0",
// "factor1", …, I_n×R: what the command decompose writes.
func (sd *StateDict) SetKruskal(k *cpd.Kruskal) { sd.setKruskal(k, factor) }

func (sd *StateDict) setKruskal(k *cpd.Kruskal, name func(int) string) {
	weights := slices.Clone(k.Weights)
	if weights == nil {
		weights = slices.Repeat([]float64{1}, k.Rank())
	}
	sd.Set("weights", &Tensor{Shape: []int{len(weights)}, Data: weights})
	for n, u := range k.Factors {
		sd.Set(name(n), matrix(u))
	}
}

// Kruskal takes a Kruskal tensor out of sd; see SetKruskal. Errors wrap ErrFormat.
func (sd *StateDict) Kruskal() (*cpd.Kruskal, error) { return sd.kruskal(factor) }

func (sd *StateDict) kruskal(name func(int) string) (*cpd.Kruskal, error) {
	k := &cpd.Kruskal{}
	for n := 0; ; n++ {
		u, err := sd.matrix(name(n))
		if err != nil {
			return nil, err
		}
		if u == nil {
			break
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

// matrix takes a matrix out of sd, nil where there is none of the name. Errors wrap
// ErrFormat.
func (sd *StateDict) matrix(name string) (*mat.Dense, error) {
	t, ok := sd.Get(name)
	if !ok {
		return nil, nil
	}
	v, err := t.Float64s()
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFormat, name, err)
	}
	if len(t.Shape) != 2 || len(v) == 0 {
		return nil, fmt.Errorf("%w: %s: shape %v; want a matrix", ErrFormat, name, t.Shape)
	}
	return mat.NewDense(t.Shape[0], t.Shape[1], v), nil
}

// SetTKDCPD puts a Kruskal tensor in a Tucker tensor into sd: the core's as "weights"
// and "core0", "core1", …, R_n×R, and the others' as "factor0", "factor1", …, I_n×R_n,
// none for a mode that has none: what the command decompose writes. The error is that
// of factors that do not fit together.
func (sd *StateDict) SetTKDCPD(t *tkdcpd.Tensor) error {
	if err := t.Validate(); err != nil {
		return err
	}
	sd.setKruskal(&t.Core, inner)
	sd.setFactors(t.Factors)
	return nil
}

// TKDCPD takes a Kruskal tensor in a Tucker tensor out of sd; see SetTKDCPD. Errors
// wrap ErrFormat.
func (sd *StateDict) TKDCPD() (*tkdcpd.Tensor, error) {
	k, err := sd.kruskal(inner)
	if err != nil {
		return nil, err
	}
	t := &tkdcpd.Tensor{Core: *k}
	if t.Factors, err = sd.factors(len(k.Factors)); err != nil {
		return nil, err
	}
	if err := t.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return t, nil
}

func (sd *StateDict) setFactors(factors []*mat.Dense) {
	for n, u := range factors {
		if u != nil {
			sd.Set(factor(n), matrix(u))
		}
	}
}

// factors are those of modes up to order, nil for a mode that has none.
func (sd *StateDict) factors(order int) ([]*mat.Dense, error) {
	f := make([]*mat.Dense, order)
	for n := range f {
		u, err := sd.matrix(factor(n))
		if err != nil {
			return nil, err
		}
		f[n] = u
	}
	return f, nil
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
	sd.setFactors(t.Factors)
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
	t := &tucker.Tucker{Core: c}
	if t.Factors, err = sd.factors(c.Dims()); err != nil {
		return nil, err
	}
	if err := t.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return t, nil
}
