package peft

import (
	"fmt"
	"slices"
	"strings"
)

// Sum is the change Σ weights[i]·λᵢ·ΔWᵢ of changes of one kind and one kernel, exactly
// but for rounding: ranks add up, the factors being concatenated, and where there are
// none the factors are added. (Adding the factors of low-rank changes, as merging
// tools do, is not their sum.) Its λ is 1; the weights go into the outputs' factors.
// An anchored change counts as two, the second being the anchor's with its weight
// negated, so that the sum is not anchored. LoHa and LoKr have no such sum, and
// nothing with DoRA has: those errors wrap ErrLossy, others ErrSpec.
func Sum[T Float](weights []float64, changes ...*Change[T]) (*Change[T], error) {
	if len(weights) != len(changes) || len(changes) == 0 {
		return nil, fmt.Errorf("%w: %d weights for %d changes", ErrSpec, len(weights), len(changes))
	}
	first := changes[0].spec
	k := kinds[first.Kind]
	if k.rankAxes == "" && !k.linear {
		return nil, fmt.Errorf("%w: the sum of two %s is none", ErrLossy, first.Kind)
	}
	spec := plain(first)
	spec.Rank = make([]int, len(first.Rank))
	var parts []part[T]
	for i, c := range changes {
		if c.spec.DoRA {
			return nil, fmt.Errorf("%w: change %d is scaled to learned norms, which do not add up", ErrLossy, i)
		}
		if a, b := describeKernel(c.spec), describeKernel(spec); a != b {
			return nil, fmt.Errorf("%w: change %d is %s; change 0 is %s", ErrSpec, i, a, b)
		}
		w := weights[i] * c.Lambda()
		parts = append(parts, part[T]{w, c.values(), c.spec.Rank})
		if c.spec.Anchored {
			parts = append(parts, part[T]{-w, c.anchor, c.spec.Rank})
		}
	}
	for _, p := range parts {
		for j, r := range p.rank {
			spec.Rank[j] += r
		}
	}
	out, err := NewChange[T](spec)
	if err != nil {
		return nil, err
	}
	out.concatenate(parts)
	return out, nil
}

// part is a summand: its weight, its factors' values and its ranks.
type part[T Float] struct {
	weight float64
	values [][]T
	rank   []int
}

// plain is s without λ and wrappers.
func plain(s Spec) Spec {
	s.Scale, s.Learned, s.DoRA, s.Anchored = 1, false, false, false
	return s
}

// describeKernel is what changes that are added must have in common.
func describeKernel(s Spec) string {
	return fmt.Sprintf("%s %s%s of a kernel of %v with %+v", s.Kind, s.Axes, s.Match, s.Shape, s.Geometry.Normal())
}

// values are the factors of the product.
func (c *Change[T]) values() [][]T {
	var v [][]T
	for _, f := range c.net.factors {
		v = append(v, f.Value)
	}
	return v
}

// concatenate fills the factors of c with those of the parts, one after another along
// the axes of ranks, the off-diagonal blocks of a core being zero.
func (c *Change[T]) concatenate(parts []part[T]) {
	axes := kinds[c.spec.Kind].rankAxes
	_, sizes := kinds[c.spec.Kind].diagram(&c.spec)
	at := make([]int, len(axes))
	for _, p := range parts {
		one := c.spec
		one.Rank = p.rank
		_, own := kinds[c.spec.Kind].diagram(&one)
		i := 0
		c.net.root.walk(func(v *node[T]) {
			if v.factor == nil {
				return
			}
			src := p.values[i]
			i++
			if v.zero {
				src = slices.Clone(src)
				for j := range src {
					src[j] *= T(p.weight)
				}
			}
			if axes == "" {
				for j, x := range src {
					v.value[j] += x
				}
				return
			}
			var into, from, offset []int
			for _, l := range []byte(v.axes()) {
				into, from = append(into, sizes[l]), append(from, own[l])
				o := 0
				if a := strings.IndexByte(axes, l); a >= 0 {
					o = at[a]
				}
				offset = append(offset, o)
			}
			place(v.value, into, src, from, offset)
		})
		for a, l := range []byte(axes) {
			at[a] += own[l]
		}
	}
}

// Padded is the same change with ranks raised to the given ones by columns of zeros.
// The error wraps ErrSpec where a rank would fall, the kind has none to raise or the
// change is anchored.
func (c *Change[T]) Padded(rank []int) (*Change[T], error) {
	if kinds[c.spec.Kind].rankAxes == "" {
		return nil, fmt.Errorf("%w: %s has no rank to raise", ErrSpec, c.spec.Kind)
	}
	if c.spec.Anchored {
		return nil, fmt.Errorf("%w: an anchored change", ErrSpec)
	}
	spec := c.spec
	spec.Rank = slices.Clone(rank)
	if len(rank) == len(c.spec.Rank) {
		for i, r := range rank {
			if r < c.spec.Rank[i] {
				return nil, fmt.Errorf("%w: ranks %v are below %v", ErrSpec, rank, c.spec.Rank)
			}
		}
	}
	out, err := NewChange[T](spec)
	if err != nil {
		return nil, err
	}
	out.concatenate([]part[T]{{1, c.values(), c.spec.Rank}})
	for _, f := range []string{"lambda", "magnitude"} {
		if from := c.Factor(f); from != nil {
			copy(out.Factor(f).Value, from.Value)
		}
	}
	return out, nil
}
