package peft

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Conversion says what a conversion did.
type Conversion struct {
	// Exact: the result represents the same ΔW but for rounding.
	Exact bool
	// RelError is ‖ΔW − ΔW′‖/‖ΔW‖, measured; 0 for a zero change.
	RelError float64
	// Path are the kinds that an exact conversion went through, both ends included.
	Path []Kind
}

// Convert represents a change as one of another kind. Of to the kind, its choices, the
// wrappers and the ranks count; the kernel is the change's.
//
// These kinds become others exactly: CP4, TKDCPD → CP → Tucker2, TKDCPD; Tucker4,
// TKDCPD → Tucker2 → Tucker4; CP, CP4, TKDCPD, Tucker2 and Tucker4 → LoRA (of the rank
// of the outputs' mode) → Tucker2 (with all inputs); Spatial → LoRA (rank R·k);
// LoRAView → LoRA (R·k², without groups); LoHa → LoRA (R², the Khatri-Rao identity);
// LoKr → LoRA (the product of its factors' ranks, the mixed-product identity);
// everything → Full. Where there is such a way, or several in a row, it is taken; its
// ranks follow, and are raised to to's by zeros. Where there is none, or to's ranks
// are lower, the kernel is fitted (Extract) with those ranks, or those of rule; with
// neither the error wraps ErrLossy.
//
// base is the frozen kernel: Series, and DoRA where one side has it, need it.
func Convert(ctx context.Context, c *Delta, to Spec, base []float32, rule *Rule) (*Delta, *Conversion, error) {
	to.Shape, to.Geometry, to.Scale = c.spec.Shape, c.spec.Geometry, c.Lambda()
	if _, ok := kinds[to.Kind]; !ok {
		return nil, nil, fmt.Errorf("%w: kind %q", ErrSpec, to.Kind)
	}
	if to.Anchored {
		return nil, nil, fmt.Errorf("%w: nothing is converted to an anchored change", ErrSpec)
	}
	if err := c.checkBase(base); err != nil {
		return nil, nil, err
	}
	if to.DoRA && len(base) != to.kernelLen() {
		return nil, nil, fmt.Errorf("%w: learned norms of a kernel of %v need a base of %d weights, got %d", ErrSpec, to.Shape, to.kernelLen(), len(base))
	}
	kernel, err := c.Kernel(base)
	if err != nil {
		return nil, nil, err
	}
	out, path, err := exactly(c, to, base)
	if err != nil {
		return nil, nil, err
	}
	conversion := &Conversion{Exact: true, Path: path}
	if out == nil {
		if rule == nil && len(to.Rank) < kinds[to.Kind].ranks {
			return nil, nil, fmt.Errorf("%w: %s to %s without ranks or a rule for them", ErrLossy, c.spec.Kind, to.Kind)
		}
		if rule == nil {
			rule = &Rule{}
		}
		if out, _, err = Extract(ctx, to, kernel, base, *rule); err != nil {
			return nil, nil, err
		}
		*conversion = Conversion{}
	}
	got, err := out.Kernel(base)
	if err != nil {
		return nil, nil, err
	}
	conversion.RelError = relative(got, kernel)
	return out, conversion, nil
}

// relative is ‖a − b‖/‖b‖, 0 where both are zero and 1 where b alone is.
func relative(a, b []float32) float64 {
	d := make([]float32, len(a))
	for i, v := range a {
		d[i] = v - b[i]
	}
	num, den := norm(0, d, nil), norm(0, b, nil)
	switch {
	case num == 0:
		return 0
	case den == 0:
		return 1
	}
	return float64(num) / float64(den)
}

// Round is the same change of lower rank, or of the ranks of rule where none is given,
// and what that costs: a fit of its kernel. base is Convert's.
func Round(ctx context.Context, c *Delta, rank []int, base []float32, rule *Rule) (*Delta, float64, error) {
	kernel, err := c.Kernel(base)
	if err != nil {
		return nil, 0, err
	}
	spec := c.spec
	spec.Rank, spec.Scale = rank, c.Lambda()
	if rule == nil {
		rule = &Rule{}
		if rank == nil && kinds[spec.Kind].ranks > 0 {
			return nil, 0, fmt.Errorf("%w: neither ranks nor a rule for them", ErrSpec)
		}
	}
	out, _, err := Extract(ctx, spec, kernel, base, *rule)
	if err != nil {
		return nil, 0, err
	}
	got, err := out.Kernel(base)
	if err != nil {
		return nil, 0, err
	}
	return out, relative(got, kernel), nil
}

// In converts a change between precisions.
func In[D, S Float](c *Change[S]) *Change[D] {
	out, err := NewChange[D](c.spec)
	if err != nil {
		panic(err) // c has the same description
	}
	for i, f := range c.factors {
		copy(out.factors[i].Value, widen[D](f.Value))
	}
	for i, v := range c.anchor {
		copy(out.anchor[i], widen[D](v))
	}
	return out
}

// exactly follows exact edges, or returns nil where none lead to to's kind with at
// most its ranks. It computes in float64.
func exactly(c *Delta, to Spec, base []float32) (*Delta, []Kind, error) {
	from := In[float64](c)
	if c.spec.Anchored && !c.spec.DoRA {
		flat, err := Sum([]float64{1}, from)
		switch {
		case errors.Is(err, ErrLossy):
			if to.Kind != Full {
				return nil, nil, nil
			}
		case err != nil:
			return nil, nil, err
		default:
			from = flat
			to.Scale = 1
		}
	}
	if to.Kind == Full && !to.DoRA {
		out, err := toFull(from, to, widen[float64](base))
		if err != nil {
			return nil, nil, err
		}
		return In[float32](out), slices.Compact([]Kind{c.spec.Kind, Full}), nil
	}
	if from.spec.DoRA && !to.DoRA || from.spec.Anchored {
		return nil, nil, nil
	}
	path := route(from.spec, to)
	if path == nil {
		return nil, nil, nil
	}
	product := from
	if from.spec.DoRA {
		product = product.with(plain(from.spec))
	}
	var kindsOnTheWay []Kind
	for i, k := range path {
		kindsOnTheWay = append(kindsOnTheWay, k)
		if i == 0 {
			continue
		}
		next, err := edges[path[i-1]][k](product)
		if err != nil {
			return nil, nil, err
		}
		product = next
	}
	spec := product.spec
	if to.Rank != nil && !slices.Equal(to.Rank, spec.Rank) {
		padded, err := product.Padded(to.Rank)
		if err != nil {
			return nil, nil, nil // lower ranks, or a kind that has none to raise
		}
		product, spec = padded, padded.spec
	}
	if to.Scale == 0 { // a learned λ may be, a fixed one of 0 means 1
		clear(product.output[0].value)
	}
	spec.Scale, spec.Learned, spec.DoRA = to.Scale, to.Learned, to.DoRA
	out := In[float32](product.with(spec))
	switch {
	case out.magnitude == nil:
	case c.magnitude != nil:
		copy(out.magnitude.Value, c.magnitude.Value)
	default: // the norms as they are: they scale nothing
		kernel, err := c.Kernel(base)
		if err != nil {
			return nil, nil, err
		}
		for i, v := range base {
			kernel[i] += v
		}
		out.setMagnitude(kernel)
	}
	return out, kindsOnTheWay, nil
}

// with is the product's factors under another description of the same kind.
func (c *Change[T]) with(s Spec) *Change[T] {
	s.Anchored = false
	out, err := NewChange[T](s)
	if err != nil {
		panic(err) // c's own but for wrappers
	}
	for i, f := range c.net.factors {
		copy(out.net.factors[i].Value, f.Value)
	}
	return out
}
