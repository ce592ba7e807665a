package graph

import (
	"fmt"
	"math"
	"slices"
)

func init() { register(func() Op { return &Slice{} }) }

// End, as the end of a cut, means all that is there.
const End = math.MaxInt32

// Cut says what is taken along a dimension: places Start, Start + Step and so on before
// End. Negative places count from the end of the dimension; both are first brought to
// where something is, as ONNX does. A negative Step, which takes the places in backward
// order, ends behind End, and with an End of −(size+1) at the first.
type Cut struct {
	Axis  int `json:"axis,omitempty"`
	Start int `json:"start,omitempty"`
	End   int `json:"end"`
	Step  int `json:"step,omitempty"` // 0 means 1
}

// Slice takes parts of dimensions.
type Slice struct {
	Cuts []Cut `json:"cuts"`
}

// Kind is "slice".
func (*Slice) Kind() string { return "slice" }

// Places is the first of a dimension's n places, the step and how many are taken.
func (k Cut) Places(n int) (first, step, size int) {
	step = k.Step
	if step == 0 {
		step = 1
	}
	place := func(i, low, high int) int {
		if i < 0 {
			i += n
		}
		return min(max(i, low), high)
	}
	if step > 0 {
		first = place(k.Start, 0, n)
		return first, step, max((place(k.End, 0, n)-first+step-1)/step, 0)
	}
	first = place(k.Start, 0, n-1)
	return first, step, max((first-place(k.End, -1, n-1)-step-1)/-step, 0)
}

// Shape is the input's but for the sizes that are cut.
func (s *Slice) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	out := slices.Clone(x)
	seen := map[int]bool{}
	for _, k := range s.Cuts {
		if k.Axis < 0 || k.Axis >= len(x) || seen[k.Axis] || k.Step < -mostValues || k.Step > mostValues {
			return nil, fmt.Errorf("%w: a cut of dimension %d of %v with step %d, or a second", ErrShape, k.Axis, x, k.Step)
		}
		seen[k.Axis] = true
		if k.Start < -mostValues || k.Start > End || k.End > End {
			return nil, fmt.Errorf("%w: a cut from %d to %d", ErrShape, k.Start, k.End)
		}
		if _, _, out[k.Axis] = k.Places(x[k.Axis]); out[k.Axis] < 1 {
			return nil, fmt.Errorf("%w: nothing is left of dimension %d of %v from %d to %d", ErrShape, k.Axis, x, k.Start, k.End)
		}
	}
	return out, nil
}

func (s *Slice) kernel(mode) (kernel, error) {
	return copying{func(in, out Shape) view {
		strides, offset := in.Strides(), 0
		for _, k := range s.Cuts {
			first, step, _ := k.Places(in[k.Axis])
			offset += first * strides[k.Axis]
			strides[k.Axis] *= step
		}
		return viewed(out, strides, offset)
	}}, nil
}
