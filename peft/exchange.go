package peft

import (
	"context"
	"fmt"
	"slices"

	"github.com/lowrank-go/lowrank/model"
)

// The names that the factors of the published formats have here: PEFT's and LyCORIS's
// own for LoHa and LoKr, and for the rest these. A writer and a reader of a format
// only rename them.
const (
	pubUp        = "up"        // O×R×1×1
	pubDown      = "down"      // R×C×kh×kw, or R×C×1×1 with a mid
	pubMid       = "mid"       // R×R×kh×kw
	pubDiff      = "diff"      // the whole change
	pubMagnitude = "magnitude" // DoRA's norms
)

// published is a tensor under its name here.
type published struct {
	name string
	*model.Tensor
}

// site is the module's.
func (m *Module) site() Site {
	return Site{Name: m.Name, Shape: m.spec.Shape, Geometry: m.spec.Geometry, Linear: m.Linear}
}

// shape is that of a tensor in a file: two dimensions for linear layers.
func (s *Site) shape(dims ...int) []int {
	if s.Linear && len(dims) == 4 {
		return dims[:2]
	}
	return dims
}

// publish is the change as published tensors, with λ apart. allowed says which kinds
// the format has; all others are converted to LoRA where that is exact. Changes of
// kernels in groups have no LoRA in any format.
func (m *Module) publish(allowed ...Kind) (*Delta, []published, error) {
	d := m.Delta
	if !slices.Contains(allowed, d.spec.Kind) || d.spec.Anchored {
		to := Spec{Kind: LoRA, DoRA: d.spec.DoRA}
		if d.spec.DoRA || d.spec.Kind == Series {
			// Their conversions measure the kernel, and there is no base here: the
			// product alone is converted.
			if d.spec.Kind == Series || d.spec.Anchored {
				return nil, nil, fmt.Errorf("%w: %s of %s needs its base: convert it first", ErrLossy, d.spec.Kind, m.Name)
			}
			to.DoRA = false
			s := d.spec
			s.DoRA = false
			d = d.with(s)
			if l := m.Factor("lambda"); l != nil {
				copy(d.lambda.Value, l.Value)
			}
		}
		lora, how, err := Convert(context.Background(), d, to, nil, nil)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", m.Name, err)
		}
		if !how.Exact {
			return nil, nil, fmt.Errorf("%w: %s of %s: convert it first", ErrLossy, d.spec.Kind, m.Name)
		}
		d = lora
		if m.spec.DoRA {
			s := d.spec
			s.DoRA = true
			d = d.with(s)
			copy(d.magnitude.Value, m.magnitude.Value)
		}
	}
	if g := d.spec.groups(); g > 1 && (d.spec.Kind == LoRA || d.spec.Kind == Tucker2) {
		return nil, nil, fmt.Errorf("%w: %s: the format has no %s of a kernel in %d groups", ErrLossy, m.Name, d.spec.Kind, g)
	}
	var out []published
	s := m.site()
	add := func(name, factor string, dims ...int) {
		out = append(out, published{name, &model.Tensor{Shape: s.shape(dims...), Data: d.Factor(factor).Value}})
	}
	o, i, h, w := s.Shape[0], s.Shape[1], s.Shape[2], s.Shape[3]
	switch d.spec.Kind {
	case LoRA:
		r := d.spec.Rank[0]
		add(pubUp, "up", o, r, 1, 1)
		add(pubDown, "down", r, i, h, w)
	case Tucker2:
		r := d.spec.Rank[0]
		add(pubUp, "out", o, r, 1, 1)
		add(pubMid, "core", r, d.spec.Rank[1], h, w)
		add(pubDown, "in", d.spec.Rank[1], i, 1, 1)
	case Full:
		add(pubDiff, "diff", o, i, h, w)
	default: // LoHa and LoKr have their published names and shapes
		for _, f := range d.net.factors {
			add(f.Name, f.Name, f.Shape...)
		}
	}
	if d.magnitude != nil {
		out = append(out, published{pubMagnitude, &model.Tensor{Shape: []int{o}, Data: d.magnitude.Value}})
	}
	return d, out, nil
}

// unpublish is the change of a site that tensors describe. Which kind it is follows
// from which are there; λ is what scale makes of the rank, 0 where there is none.
func (s *Site) unpublish(tensors map[string]*model.Tensor, scale func(rank int) (float64, error)) (*Delta, error) {
	has := func(name string) bool { return tensors[name] != nil }
	dim := func(name string, axis int) int {
		if t := tensors[name]; t != nil && axis < len(t.Shape) {
			return t.Shape[axis]
		}
		return 0
	}
	spec := Spec{Shape: s.Shape, Geometry: s.Geometry, DoRA: has(pubMagnitude)}
	rank := 0
	if has("lokr_w2") { // the rank is that of the first factor, if any
		rank = dim("lokr_w1_b", 0)
		var err error
		if tensors, err = wholeFirst(tensors); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	rename := map[string]string{pubMagnitude: "magnitude"}
	switch {
	case has(pubUp) && has(pubMid):
		spec.Kind, spec.Rank = Tucker2, []int{dim(pubMid, 0), dim(pubMid, 1)}
		rank = dim(pubDown, 0)
		rename[pubUp], rename[pubMid], rename[pubDown] = "out", "core", "in"
	case has(pubUp):
		rank = dim(pubDown, 0)
		spec.Kind, spec.Rank = LoRA, []int{rank}
	case has("hada_w1_a"):
		spec.Kind, spec.Mid = LoHa, has("hada_t1")
		rank = dim("hada_w1_b", 0)
		spec.Rank = []int{rank}
	case has("lokr_w1") || has("lokr_w1_a"):
		spec.Kind, spec.Both, spec.Mid = LoKr, has("lokr_w1_a"), has("lokr_t2")
		spec.Split = [2]int{dim("lokr_w1", 0), dim("lokr_w1", 1)}
		if spec.Both {
			rank = dim("lokr_w1_b", 0)
			spec.Split = [2]int{dim("lokr_w1_a", 0), dim("lokr_w1_b", 1)}
		}
		if has("lokr_w2_b") {
			rank = dim("lokr_w2_b", 0)
			spec.Rank = []int{rank}
		}
	case has(pubDiff):
		spec.Kind = Full
	default:
		return nil, fmt.Errorf("%w: %s: its tensors are of no kind that is known", ErrFile, s.Name)
	}
	if (spec.Kind == LoRA || spec.Kind == Tucker2) && s.Groups > 1 {
		return nil, fmt.Errorf("%w: %s has %d groups, for whose kernel published LoRAs are no change", ErrLossy, s.Name, s.Groups)
	}
	lambda, err := scale(rank)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	if lambda == 0 || lambda-lambda != 0 {
		return nil, fmt.Errorf("%w: %s: a scale of %g", ErrFile, s.Name, lambda)
	}
	spec.Scale = lambda
	if err := spec.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFile, s.Name, err)
	}
	have := 0
	for _, t := range tensors {
		have += t.Len()
	}
	if spec.Params() != have {
		return nil, fmt.Errorf("%w: %s: %s of ranks %v has %d values, the file %d", ErrFile, s.Name, spec.Kind, spec.Rank, spec.Params(), have)
	}
	d, err := New(spec)
	if err != nil {
		return nil, err
	}
	for name, t := range tensors {
		to := name
		if r, ok := rename[name]; ok {
			to = r
		}
		f := d.Factor(to)
		if f == nil {
			return nil, fmt.Errorf("%w: %s: a %s has no tensor %q", ErrFile, s.Name, spec.Kind, name)
		}
		got := trim(t.Shape)
		if name == pubMagnitude { // (O) among axes of 1
			for len(got) > 1 && got[0] == 1 {
				got = got[1:]
			}
		}
		if !slices.Equal(got, trim(f.Shape)) && !slices.Equal(flat(t.Shape), trim(f.Shape)) {
			return nil, fmt.Errorf("%w: %s: %s has shape %v, want %v", ErrFile, s.Name, name, t.Shape, f.Shape)
		}
		v, err := t.Float32s()
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %s: %w", ErrFile, s.Name, name, err)
		}
		copy(f.Value, v)
	}
	return d, nil
}

// flat is a shape as two dimensions, which writers of LoHa and LoKr differ in.
func flat(shape []int) []int {
	if len(shape) < 2 {
		return shape
	}
	n := 1
	for _, d := range shape[1:] {
		n *= d
	}
	return trim([]int{shape[0], n})
}

// alpha is an α whose α/rank is λ to the bit in the precision that holds it, or 0 where
// there is none near λ·rank.
func alpha(lambda float64, rank int, holds func(float64) float64) float64 {
	a := holds(lambda * float64(rank))
	if a/float64(rank) == lambda && a-a == 0 {
		return a
	}
	return 0
}

// folded is the change with λ multiplied into the outputs' factor, and λ = 1.
func (c *Change[T]) folded() *Change[T] {
	s := plain(c.spec)
	s.DoRA = c.spec.DoRA
	out := c.with(s)
	for _, v := range out.output {
		for i := range v.value {
			v.value[i] *= T(c.Lambda())
		}
	}
	if c.magnitude != nil {
		copy(out.magnitude.Value, c.magnitude.Value)
	}
	return out
}
