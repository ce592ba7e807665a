// Package factors puts decompositions into files: a Kruskal tensor, a Tucker tensor, or
// one with a Kruskal tensor for its core becomes the named tensors of a
// [model.StateDict], and those become the decomposition again. The names are those that
// the command decompose writes.
package factors

import (
	"fmt"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/tkdcpd"
	"github.com/lowrank-go/lowrank/tucker"
)

// matrix is a copy of m.
func matrix(m *mat.Dense) *model.Tensor {
	rows, cols := m.Dims()
	return &model.Tensor{Shape: []int{rows, cols}, Data: mat.DenseCopyOf(m).RawMatrix().Data}
}

// factor is the name of the factor of a mode, inner that of a core's.
func factor(mode int) string { return fmt.Sprintf("factor%d", mode) }
func inner(mode int) string  { return fmt.Sprintf("core%d", mode) }

// PutKruskal puts a Kruskal tensor into sd, as "weights", R values, and "factor0",
// "factor1", …, I_n×R: what the command decompose writes.
func PutKruskal(sd *model.StateDict, k *cpd.Kruskal) { putKruskal(sd, k, factor) }

func putKruskal(sd *model.StateDict, k *cpd.Kruskal, name func(int) string) {
	weights := slices.Clone(k.Weights)
	if weights == nil {
		weights = slices.Repeat([]float64{1}, k.Rank())
	}
	sd.Set("weights", &model.Tensor{Shape: []int{len(weights)}, Data: weights})
	for n, u := range k.Factors {
		sd.Set(name(n), matrix(u))
	}
}

// Kruskal takes a Kruskal tensor out of sd; see PutKruskal. Errors wrap model.ErrFormat.
func Kruskal(sd *model.StateDict) (*cpd.Kruskal, error) { return kruskal(sd, factor) }

func kruskal(sd *model.StateDict, name func(int) string) (*cpd.Kruskal, error) {
	k := &cpd.Kruskal{}
	for n := 0; ; n++ {
		u, err := take(sd, name(n))
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
			return nil, fmt.Errorf("%w: weights of shape %v and type %s", model.ErrFormat, t.Shape, t.DType())
		}
		k.Weights = w
	}
	if err := k.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", model.ErrFormat, err)
	}
	return k, nil
}

// take takes a matrix out of sd, nil where there is none of the name. Errors wrap
// model.ErrFormat.
func take(sd *model.StateDict, name string) (*mat.Dense, error) {
	t, ok := sd.Get(name)
	if !ok {
		return nil, nil
	}
	v, err := t.Float64s()
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", model.ErrFormat, name, err)
	}
	if len(t.Shape) != 2 || len(v) == 0 {
		return nil, fmt.Errorf("%w: %s: shape %v; want a matrix", model.ErrFormat, name, t.Shape)
	}
	return mat.NewDense(t.Shape[0], t.Shape[1], v), nil
}

// PutTKDCPD puts a Kruskal tensor in a Tucker tensor into sd: the core's as "weights"
// and "core0", "core1", …, R_n×R, and the others' as "factor0", "factor1", …, I_n×R_n,
// none for a mode that has none: what the command decompose writes. The error is that
// of factors that do not fit together.
func PutTKDCPD(sd *model.StateDict, t *tkdcpd.Tensor) error {
	if err := t.Validate(); err != nil {
		return err
	}
	putKruskal(sd, &t.Core, inner)
	putFactors(sd, t.Factors)
	return nil
}

// TKDCPD takes a Kruskal tensor in a Tucker tensor out of sd; see PutTKDCPD. Errors
// wrap model.ErrFormat.
func TKDCPD(sd *model.StateDict) (*tkdcpd.Tensor, error) {
	k, err := kruskal(sd, inner)
	if err != nil {
		return nil, err
	}
	t := &tkdcpd.Tensor{Core: *k}
	if t.Factors, err = takeFactors(sd, len(k.Factors)); err != nil {
		return nil, err
	}
	if err := t.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", model.ErrFormat, err)
	}
	return t, nil
}

func putFactors(sd *model.StateDict, factors []*mat.Dense) {
	for n, u := range factors {
		if u != nil {
			sd.Set(factor(n), matrix(u))
		}
	}
}

// takeFactors are those of modes up to order, nil for a mode that has none.
func takeFactors(sd *model.StateDict, order int) ([]*mat.Dense, error) {
	f := make([]*mat.Dense, order)
	for n := range f {
		u, err := take(sd, factor(n))
		if err != nil {
			return nil, err
		}
		f[n] = u
	}
	return f, nil
}

// PutTucker puts a Tucker tensor into sd, as "core" and "factor0", "factor1", …,
// I_n×R_n, none for a mode that has none: what the command decompose writes. The
// error is that of a core that is not one.
func PutTucker(sd *model.StateDict, t *tucker.Tucker) error {
	if err := t.Validate(); err != nil {
		return err
	}
	c := t.Clone()
	sd.Set("core", &model.Tensor{Shape: slices.Clone(c.Core.Shape()), Data: c.Core.Data()})
	putFactors(sd, t.Factors)
	return nil
}

// Tucker takes a Tucker tensor out of sd; see PutTucker. Errors wrap model.ErrFormat.
func Tucker(sd *model.StateDict) (*tucker.Tucker, error) {
	core, ok := sd.Get("core")
	if !ok {
		return nil, fmt.Errorf("%w: no tensor is called core", model.ErrFormat)
	}
	c, err := core.Dense()
	if err != nil {
		return nil, fmt.Errorf("%w: core: %w", model.ErrFormat, err)
	}
	t := &tucker.Tucker{Core: c}
	if t.Factors, err = takeFactors(sd, c.Dims()); err != nil {
		return nil, err
	}
	if err := t.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", model.ErrFormat, err)
	}
	return t, nil
}
