package peft

import (
	"container/heap"
	"fmt"
)

// Layer is what Allocate knows of one kernel.
type Layer struct {
	// Singular are the singular values of the matricisation that the kind ranks,
	// falling: of a ΔW, a gradient or W₀.
	Singular []float64
	// Cost is what one unit of rank costs here, parameters or multiply-accumulates.
	Cost int64
	// Least is the rank that the layer has in any case.
	Least int
}

// Allocate spreads a budget over layers: it raises ranks, from every layer's Least,
// by one at a time where the next singular value's square is largest for its cost,
// σ²/cost, as long as the budget lasts; a layer whose next rank no longer fits gets no
// more. Ranks are at most the number of singular values.
//
// Squares fall, so for equal costs no other ranks keep more; for unequal ones at most
// the square of one singular value more could be kept, of the first that did not fit
// (the bound of the greedy rule for knapsacks). The budget is exceeded by no bit; where
// the least ranks alone do, and for values that are not falling, the error wraps
// ErrSpec.
func Allocate(budget int64, layers []Layer) ([]int, error) {
	ranks := make([]int, len(layers))
	rest := budget
	q := &queue{layers: layers, ranks: ranks}
	for i, l := range layers {
		if l.Cost < 1 || l.Least < 0 || l.Least > len(l.Singular) {
			return nil, fmt.Errorf("%w: layer %d: a cost of %d, at least rank %d of %d", ErrSpec, i, l.Cost, l.Least, len(l.Singular))
		}
		for j, v := range l.Singular {
			if !(v >= 0) || j > 0 && v > l.Singular[j-1] {
				return nil, fmt.Errorf("%w: layer %d: singular value %d is %g; want them falling and not negative", ErrSpec, i, j, v)
			}
		}
		if int64(l.Least) > rest/l.Cost {
			return nil, fmt.Errorf("%w: the least ranks of %d layers are above a budget of %d", ErrSpec, len(layers), budget)
		}
		rest -= int64(l.Least) * l.Cost
		ranks[i] = l.Least
		if l.Least < len(l.Singular) {
			q.waiting = append(q.waiting, i)
		}
	}
	heap.Init(q)
	for len(q.waiting) > 0 {
		i := q.waiting[0]
		if layers[i].Cost > rest || layers[i].Singular[ranks[i]] == 0 {
			heap.Pop(q)
			continue
		}
		rest -= layers[i].Cost
		if ranks[i]++; ranks[i] == len(layers[i].Singular) {
			heap.Pop(q)
		} else {
			heap.Fix(q, 0)
		}
	}
	return ranks, nil
}

// queue has the layers that may still rise, the most gainful first.
type queue struct {
	layers  []Layer
	ranks   []int
	waiting []int
}

func (q *queue) gain(i int) float64 {
	s := q.layers[i].Singular[q.ranks[i]]
	return s * s / float64(q.layers[i].Cost)
}

func (q *queue) Len() int { return len(q.waiting) }

func (q *queue) Less(a, b int) bool {
	x, y := q.waiting[a], q.waiting[b]
	if g, h := q.gain(x), q.gain(y); g != h {
		return g > h
	}
	return x < y
}

func (q *queue) Swap(a, b int) { q.waiting[a], q.waiting[b] = q.waiting[b], q.waiting[a] }

func (q *queue) Push(x any) { q.waiting = append(q.waiting, x.(int)) }

func (q *queue) Pop() any {
	n := len(q.waiting) - 1
	x := q.waiting[n]
	q.waiting = q.waiting[:n]
	return x
}

// NewLayer is the layer of a kernel for a kind with one rank that follows from singular
// values, LoRA, LoRAView or Spatial, with the parameters of a unit of rank for its cost.
// Of a kernel in groups the values are the root sums of squares over the groups, which
// all have one rank. Of LoRAView a unit of rank is k values together. For a budget of
// multiply-accumulates put the chain's of a change of rank 1 (Change.Costs) in place of
// the cost. The error wraps ErrSpec.
func NewLayer(spec Spec, kernel []float32) (Layer, error) {
	if spec.Kind != LoRA && spec.Kind != LoRAView && spec.Kind != Spatial {
		return Layer{}, fmt.Errorf("%w: %s has no rank of singular values", ErrSpec, spec.Kind)
	}
	spec.Rank = []int{1}
	if err := spec.Validate(); err != nil {
		return Layer{}, err
	}
	if len(kernel) != spec.kernelLen() {
		return Layer{}, fmt.Errorf("%w: a kernel of %v has %d weights, got %d", ErrSpec, spec.Shape, spec.kernelLen(), len(kernel))
	}
	m := spec.matricisations()[0]
	values, _, _, err := m.spectra(&spec, widen[float64](kernel))
	if err != nil {
		return Layer{}, err
	}
	unit := 1
	if spec.Kind == LoRAView {
		unit = spec.Shape[2]
	}
	bare := plain(spec)
	l := Layer{Cost: int64(bare.Params())}
	for at := 0; at < len(values[0]); at += unit {
		var part []float64
		for _, v := range values {
			part = append(part, v[at:min(at+unit, len(v))]...)
		}
		l.Singular = append(l.Singular, norm(0, part, nil))
	}
	return l, nil
}
