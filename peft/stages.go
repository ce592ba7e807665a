package peft

import "github.com/lowrank-go/lowrank/conv"

// Stage is one convolution of the chain that computes λ·ΔW * x beside the frozen
// convolution. Its weight is a factor; the last stage's is multiplied by λ.
type Stage[T Float] struct {
	// Shape is the weight's, outputs × inputs of a group × rows × columns.
	Shape    [4]int
	Geometry conv.Geometry
	// AfterBase is set where the stage reads the frozen convolution's output,
	// without its bias, rather than its input.
	AfterBase bool

	factor *Factor[T]
	last   *Change[T] // of the last stage, nil for the others
}

// Factor is the factor that the weight is.
func (s *Stage[T]) Factor() *Factor[T] { return s.factor }

// Load writes the weight as it is now to dst, in row-major order.
func (s *Stage[T]) Load(dst []T) {
	copy(dst, s.factor.Value)
	if s.last != nil {
		l := T(s.last.Lambda())
		for i := range dst {
			dst[i] *= l
		}
	}
}

// Store overwrites the gradient of the factor, and of λ where it is learned and the
// stage the last, from grad, the gradient in the weight that Load gives.
func (s *Stage[T]) Store(grad []T) {
	to := s.factor.Gradient()
	copy(to, grad)
	if s.last == nil {
		return
	}
	l := T(s.last.Lambda())
	if s.last.lambda != nil {
		s.last.lambda.Gradient()[0] = dot(grad, s.factor.Value)
	}
	for i := range to {
		to[i] *= l
	}
}

// step is a stage as a kind describes it.
type step struct {
	factor    string
	shape     [4]int
	geometry  conv.Geometry
	afterBase bool
}

// Stages is the chain that stands beside the frozen convolution, whose outputs add up
// to those of the convolution with the changed kernel; nil where there is no chain of
// plain convolutions, or none that is cheaper than the kernel: LoRAView, Tucker4,
// LoHa, LoKr, Full, an Axial along both axes or whose filters are copied, anything
// with DoRA or an anchor, and a Parallel or Axial whose convolution has less padding
// than the middle tap's distance from the first.
func (c *Change[T]) Stages() []*Stage[T] {
	describe := kinds[c.spec.Kind].stages
	if describe == nil || c.spec.DoRA || c.spec.Anchored {
		return nil
	}
	var stages []*Stage[T]
	for _, s := range describe(&c.spec) {
		stages = append(stages, &Stage[T]{Shape: s.shape, Geometry: s.geometry.Normal(), AfterBase: s.afterBase, factor: c.Factor(s.factor)})
	}
	if len(stages) > 0 {
		stages[len(stages)-1].last = c
	}
	return stages
}

// Chain is the chain of Stages as one of convolutions in its own right, with copies
// of the weights, and nil where there is none or where it runs on the output of the
// frozen convolution.
func (c *Change[T]) Chain() *conv.Chain {
	stages := c.Stages()
	if len(stages) == 0 || stages[0].AfterBase {
		return nil
	}
	out := &conv.Chain{Groups: c.spec.groups()}
	switch c.spec.Kind {
	case CP, CP4:
		out.Kind, out.Rank = conv.CP, c.spec.Rank
	case Tucker2:
		out.Kind, out.Rank = conv.Tucker2, c.spec.Rank
	case TKDCPD:
		out.Kind, out.Rank = conv.TKDCPD, c.spec.Rank
	case LoRA, Spatial:
		out.Kind, out.Rank = conv.SVD, c.spec.Rank
	default:
		out.Kind = conv.Dense
	}
	for _, s := range stages {
		w := make([]T, len(s.factor.Value))
		s.Load(w)
		out.Stages = append(out.Stages, &conv.Kernel{Shape: s.Shape, Weight: widen[float32](w), Geometry: s.Geometry})
	}
	return out
}

// widen converts between precisions.
func widen[D, S Float](v []S) []D {
	out := make([]D, len(v))
	for i, x := range v {
		out[i] = D(x)
	}
	return out
}

// alongAxes is the part of the convolution's geometry along the given axes.
func (s *Spec) alongAxes(groups int, axes ...int) conv.Geometry {
	g := conv.Geometry{Groups: groups}
	for _, a := range axes {
		g.Stride[a], g.Padding[a], g.Extra[a], g.Dilation[a] = s.Stride[a], s.Padding[a], s.Extra[a], s.Dilation[a]
	}
	return g
}

func (s *Spec) pointwise() conv.Geometry { return conv.Geometry{Groups: s.groups()} }

func loraStages(s *Spec) []step {
	r, g := s.Rank[0], s.groups()
	return []step{
		{factor: "down", shape: [4]int{g * r, s.Shape[1], s.Shape[2], s.Shape[3]}, geometry: s.alongAxes(g, 0, 1)},
		{factor: "up", shape: [4]int{s.Shape[0], r, 1, 1}, geometry: s.pointwise()},
	}
}

func spatialStages(s *Spec) []step {
	r, g := s.Rank[0], s.groups()
	return []step{
		{factor: "row", shape: [4]int{g * r, s.Shape[1], 1, s.Shape[3]}, geometry: s.alongAxes(g, 1)},
		{factor: "column", shape: [4]int{s.Shape[0], r, s.Shape[2], 1}, geometry: s.alongAxes(g, 0)},
	}
}

func cpStages(s *Spec) []step {
	r, g := s.Rank[0], s.groups()
	return []step{
		{factor: "in", shape: [4]int{g * r, s.Shape[1], 1, 1}, geometry: s.pointwise()},
		{factor: "tap", shape: [4]int{g * r, 1, s.Shape[2], s.Shape[3]}, geometry: s.alongAxes(g*r, 0, 1)},
		{factor: "out", shape: [4]int{s.Shape[0], r, 1, 1}, geometry: s.pointwise()},
	}
}

func cp4Stages(s *Spec) []step {
	r, g := s.Rank[0], s.groups()
	three := cpStages(s)
	return []step{
		three[0],
		{factor: "row", shape: [4]int{g * r, 1, s.Shape[2], 1}, geometry: s.alongAxes(g*r, 0)},
		{factor: "column", shape: [4]int{g * r, 1, 1, s.Shape[3]}, geometry: s.alongAxes(g*r, 1)},
		three[2],
	}
}

func tucker2Stages(s *Spec) []step {
	a, b, g := s.Rank[0], s.Rank[1], s.groups()
	return []step{
		{factor: "in", shape: [4]int{g * b, s.Shape[1], 1, 1}, geometry: s.pointwise()},
		{factor: "core", shape: [4]int{g * a, b, s.Shape[2], s.Shape[3]}, geometry: s.alongAxes(g, 0, 1)},
		{factor: "out", shape: [4]int{s.Shape[0], a, 1, 1}, geometry: s.pointwise()},
	}
}

func tkdcpdStages(s *Spec) []step {
	a, b, r, g := s.Rank[0], s.Rank[1], s.Rank[2], s.groups()
	return []step{
		{factor: "in", shape: [4]int{g * b, s.Shape[1], 1, 1}, geometry: s.pointwise()},
		{factor: "right", shape: [4]int{g * r, b, 1, 1}, geometry: s.pointwise()},
		{factor: "tap", shape: [4]int{g * r, 1, s.Shape[2], s.Shape[3]}, geometry: s.alongAxes(g*r, 0, 1)},
		{factor: "left", shape: [4]int{g * a, r, 1, 1}, geometry: s.pointwise()},
		{factor: "out", shape: [4]int{s.Shape[0], a, 1, 1}, geometry: s.pointwise()},
	}
}

// onMiddle is the convolution's geometry for a kernel that has the middle tap alone
// along the given axes: of k taps it starts reading k/2 later, and stops k−1−k/2
// earlier. ok is false where either would be inside the map.
func (s *Spec) onMiddle(groups int, axes ...int) (g conv.Geometry, ok bool) {
	g = s.alongAxes(groups, 0, 1)
	for _, a := range axes {
		taps, d := s.Shape[2+a], max(g.Dilation[a], 1)
		g.Padding[a] -= d * (taps / 2)
		g.Extra[a] += d * (taps/2 - (taps - 1 - taps/2)) // 0 of odd taps
		g.Dilation[a] = 1
		if g.Padding[a] < 0 || g.Padding[a]+g.Extra[a] < 0 {
			return g, false
		}
	}
	return g, true
}

func parallelStages(s *Spec) []step {
	g, ok := s.onMiddle(s.groups(), 0, 1)
	if !ok {
		return nil
	}
	return []step{{factor: "point", shape: [4]int{s.Shape[0], s.Shape[1], 1, 1}, geometry: g}}
}

func seriesStages(s *Spec) []step {
	return []step{{factor: "mix", shape: [4]int{s.Shape[0], s.Shape[0] / s.groups(), 1, 1}, geometry: s.pointwise(), afterBase: true}}
}

func axialStages(s *Spec) []step {
	groups, ins := s.groups(), s.Shape[1]
	outs := s.Shape[0] / groups
	switch {
	case len(s.Axes) > 1 || s.Match == Copy && outs != ins:
		return nil
	case s.Match == Copy:
		groups, ins = groups*ins, 1
	case s.Match == Groups:
		n := gcd(outs, ins)
		groups, ins = groups*n, ins/n
	}
	name, shape, other := "column", [4]int{s.Shape[0], ins, s.Shape[2], 1}, 1
	if s.Axes == "w" {
		name, shape, other = "row", [4]int{s.Shape[0], ins, 1, s.Shape[3]}, 0
	}
	g, ok := s.onMiddle(groups, other)
	if !ok {
		return nil
	}
	return []step{{factor: name, shape: shape, geometry: g}}
}
