package graph

import (
	"fmt"
	"slices"

	"github.com/lowrank-go/lowrank/internal/parallel"
)

func init() { register(func() Op { return &Const{} }) }

// Const gives the same tensor for each element of a batch.
type Const struct {
	Size Shape `json:"size"`
	// Values are in the order of PyTorch and ONNX. Files have them as a tensor.
	Values []float32 `json:"-"`
}

// Kind is "const".
func (*Const) Kind() string { return "const" }

// Shape is Size; there are no inputs.
func (k *Const) Shape(in []Shape) (Shape, error) {
	if len(in) > 0 {
		return nil, fmt.Errorf("%w: a constant with inputs", ErrGraph)
	}
	if err := k.Size.check(); err != nil {
		return nil, err
	}
	if k.Size.Len() != len(k.Values) {
		return nil, fmt.Errorf("%w: a constant of %v with %d values", ErrShape, k.Size, len(k.Values))
	}
	return k.Size, nil
}

func (k *Const) tensors() []tensor { return []tensor{{"value", k.Size, k.Values}} }

// trained is 0: what a constant is, it stays.
func (*Const) trained() int { return 0 }

func (k *Const) with(get func(string) (*tensor, error)) (Op, error) {
	t, err := get("value")
	if err != nil {
		return nil, err
	}
	if !slices.Equal(t.shape, k.Size) {
		return nil, fmt.Errorf("%w: a constant of %v with values of %v", ErrShape, k.Size, t.shape)
	}
	return &Const{Size: k.Size, Values: t.data}, nil
}

func (k *Const) kernel(mode) (kernel, error) {
	return &constant{inMemory(k.Size, k.Values)}, nil
}

// inMemory is values in the order of PyTorch and ONNX as a tensor of s has them.
func inMemory(s Shape, values []float32) []float32 {
	if s.linear() {
		return values
	}
	out := make([]float32, len(values))
	w := newWalk(s)
	for _, v := range values {
		out[w.at] = v
		w.next()
	}
	return out
}

type constant struct{ values []float32 }

func (k *constant) forward(c *call) error {
	c.out = c.shape.resize(c.out, c.batch)
	n := len(k.values)
	parallel.For(c.workers, c.batch, func(i int) { copy(c.out.Data[i*n:(i+1)*n], k.values) })
	return nil
}
