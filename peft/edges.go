package peft

import (
	"slices"

	"github.com/lowrank-go/lowrank/internal/gemm"
)

// edge is an exact conversion of a product without wrappers.
type edge func(*Change[float64]) (*Change[float64], error)

var edges = map[Kind]map[Kind]edge{
	CP4:      {CP: cp4ToCP, LoRA: basisToLoRA},
	CP:       {Tucker2: cpToTucker2, TKDCPD: cpToTKDCPD, LoRA: basisToLoRA},
	TKDCPD:   {CP: tkdcpdToCP, Tucker2: tkdcpdToTucker2, LoRA: basisToLoRA},
	Tucker4:  {Tucker2: tucker4ToTucker2, LoRA: basisToLoRA},
	Tucker2:  {Tucker4: tucker2ToTucker4, LoRA: basisToLoRA},
	LoRA:     {Tucker2: loraToTucker2},
	Spatial:  {LoRA: spatialToLoRA},
	LoRAView: {LoRA: viewToLoRA},
	LoHa:     {LoRA: lohaToLoRA},
	LoKr:     {LoRA: lokrToLoRA},
}

// edgeOrder fixes in which order edges are tried, so that ways do not depend on a map.
var edgeOrder = []Kind{CP, Tucker2, TKDCPD, Tucker4, LoRA}

// route is the shortest way by exact edges, nil for none. A kind is exactly itself
// where the choices are equal.
func route(from, to Spec) []Kind {
	if from.Kind == to.Kind {
		if from.Axes != to.Axes || from.Match != to.Match || from.Mid != to.Mid || from.Both != to.Both ||
			from.Kind == LoKr && from.split() != to.split() {
			return nil
		}
		return []Kind{from.Kind}
	}
	if from.Kind == LoRAView && from.groups() > 1 {
		return nil // the view does not respect groups
	}
	before := map[Kind]Kind{from.Kind: ""}
	for queue := []Kind{from.Kind}; len(queue) > 0; queue = queue[1:] {
		for _, next := range edgeOrder {
			if _, seen := before[next]; seen || edges[queue[0]][next] == nil {
				continue
			}
			before[next] = queue[0]
			if next == to.Kind {
				var path []Kind
				for k := next; k != ""; k = before[k] {
					path = append(path, k)
				}
				slices.Reverse(path)
				return path
			}
			queue = append(queue, next)
		}
	}
	return nil
}

// derived is a change of the same kernel of another kind, with no wrappers.
func (c *Change[T]) derived(kind Kind, rank ...int) (*Change[T], error) {
	s := Spec{Kind: kind, Shape: c.spec.Shape, Geometry: c.spec.Geometry, Rank: rank, Scale: 1}
	return NewChange[T](s)
}

// copyFactors copies factors of equal layout, given as pairs of names: to, from.
func (c *Change[T]) copyFactors(from *Change[T], names ...string) {
	for i := 0; i < len(names); i += 2 {
		copy(c.Factor(names[i]).Value, from.Factor(names[i+1]).Value)
	}
}

// computed is the value of the intermediate array with the given labels.
func (c *Change[T]) computed(labels string) []T {
	c.net.forward(nil)
	var value []T
	c.net.root.walk(func(v *node[T]) {
		if v.x != nil && v.labels == labels {
			value = v.value
		}
	})
	return value
}

func toFull(c *Change[float64], to Spec, base []float64) (*Change[float64], error) {
	kernel, err := c.Kernel(base)
	if err != nil {
		return nil, err
	}
	out, err := c.derived(Full)
	if err != nil {
		return nil, err
	}
	copy(out.Factor("diff").Value, kernel)
	if !to.Learned {
		return out, nil
	}
	s := out.spec
	s.Learned = true
	return out.with(s), nil
}

// basisToLoRA: the outputs' factor and the product of all others.
func basisToLoRA(c *Change[float64]) (*Change[float64], error) {
	out, err := c.derived(LoRA, c.spec.Rank[0])
	if err != nil {
		return nil, err
	}
	out.copyFactors(c, "up", "out")
	c.net.forward(nil)
	copy(out.Factor("down").Value, c.net.root.y.value)
	return out, nil
}

func cp4ToCP(c *Change[float64]) (*Change[float64], error) {
	out, err := c.derived(CP, c.spec.Rank[0])
	if err != nil {
		return nil, err
	}
	out.copyFactors(c, "out", "out", "in", "in")
	copy(out.Factor("tap").Value, c.computed("grhw"))
	return out, nil
}

// cpToTucker2: the taps on the diagonal of the core.
func cpToTucker2(c *Change[float64]) (*Change[float64], error) {
	r, taps := c.spec.Rank[0], c.spec.Shape[2]*c.spec.Shape[3]
	out, err := c.derived(Tucker2, r, r)
	if err != nil {
		return nil, err
	}
	out.copyFactors(c, "out", "out", "in", "in")
	core, tap := out.Factor("core").Value, c.Factor("tap").Value
	for i := range c.spec.groups() * r {
		copy(core[(i*r+i%r)*taps:][:taps], tap[i*taps:])
	}
	return out, nil
}

// identities writes an n×n identity for each group.
func (c *Change[T]) identities(name string, n int) {
	v := c.Factor(name).Value
	for i := range len(v) / n {
		v[i*n+i%n] = 1
	}
}

func cpToTKDCPD(c *Change[float64]) (*Change[float64], error) {
	r := c.spec.Rank[0]
	out, err := c.derived(TKDCPD, r, r, r)
	if err != nil {
		return nil, err
	}
	out.copyFactors(c, "out", "out", "in", "in", "tap", "tap")
	out.identities("left", r)
	out.identities("right", r)
	return out, nil
}

func tkdcpdToCP(c *Change[float64]) (*Change[float64], error) {
	out, err := c.derived(CP, c.spec.Rank[2])
	if err != nil {
		return nil, err
	}
	out.copyFactors(c, "tap", "tap")
	copy(out.Factor("in").Value, c.computed("grc"))
	a, r, groups := c.spec.Rank[0], c.spec.Rank[2], c.spec.groups()
	o := c.spec.Shape[0] / groups
	for g := range groups {
		gemm.Float64(0, false, false, o, r, a, 1, c.Factor("out").Value[g*o*a:], a, c.Factor("left").Value[g*a*r:], r, 0, out.Factor("out").Value[g*o*r:], r)
	}
	return out, nil
}

// tkdcpdToTucker2 multiplies the CP of the core out.
func tkdcpdToTucker2(c *Change[float64]) (*Change[float64], error) {
	a, b, r := c.spec.Rank[0], c.spec.Rank[1], c.spec.Rank[2]
	out, err := c.derived(Tucker2, a, b)
	if err != nil {
		return nil, err
	}
	out.copyFactors(c, "out", "out", "in", "in")
	taps := c.spec.Shape[2] * c.spec.Shape[3]
	core, left := out.Factor("core").Value, c.Factor("left").Value
	right, tap := c.Factor("right").Value, c.Factor("tap").Value
	for i := range c.spec.groups() * a {
		for j := range b {
			for l := range r {
				x := i/a*r + l // of the group
				s := left[i*r+l] * right[x*b+j]
				for t, v := range tap[x*taps : (x+1)*taps] {
					core[(i*b+j)*taps+t] += s * v
				}
			}
		}
	}
	return out, nil
}

func tucker4ToTucker2(c *Change[float64]) (*Change[float64], error) {
	out, err := c.derived(Tucker2, c.spec.Rank[0], c.spec.Rank[1])
	if err != nil {
		return nil, err
	}
	out.copyFactors(c, "out", "out", "in", "in")
	copy(out.Factor("core").Value, c.computed("gabhw"))
	return out, nil
}

func tucker2ToTucker4(c *Change[float64]) (*Change[float64], error) {
	h, w := c.spec.Shape[2], c.spec.Shape[3]
	out, err := c.derived(Tucker4, c.spec.Rank[0], c.spec.Rank[1], h, w)
	if err != nil {
		return nil, err
	}
	out.copyFactors(c, "out", "out", "in", "in", "core", "core")
	out.identities("row", h)
	out.identities("column", w)
	return out, nil
}

func loraToTucker2(c *Change[float64]) (*Change[float64], error) {
	out, err := c.derived(Tucker2, c.spec.Rank[0], c.spec.Shape[1])
	if err != nil {
		return nil, err
	}
	out.copyFactors(c, "out", "up", "core", "down")
	out.identities("in", c.spec.Shape[1])
	return out, nil
}

// spatialToLoRA: component (r,h) has the row filter in row h of the kernel.
func spatialToLoRA(c *Change[float64]) (*Change[float64], error) {
	r, i, h, w := c.spec.Rank[0], c.spec.Shape[1], c.spec.Shape[2], c.spec.Shape[3]
	out, err := c.derived(LoRA, r*h)
	if err != nil {
		return nil, err
	}
	out.copyFactors(c, "up", "column") // o×r×h either way
	down, row := out.Factor("down").Value, c.Factor("row").Value
	for x := range c.spec.groups() * r {
		for y := range h {
			for l := range i {
				copy(down[(((x*h+y)*i+l)*h+y)*w:][:w], row[(x*i+l)*w:])
			}
		}
	}
	return out, nil
}

// viewToLoRA: a filter is k rows of the view one after another, so that
// ΔW₍₁₎ = [B_{o,0} … B_{o,k−1}]·(I_k ⊗ A).
func viewToLoRA(c *Change[float64]) (*Change[float64], error) {
	k := c.spec.Shape[2]
	q := c.spec.Rank[0] * k
	out, err := c.derived(LoRA, q*k)
	if err != nil {
		return nil, err
	}
	out.copyFactors(c, "up", "B") // o×(k·q) either way
	down, a := out.Factor("down").Value, c.Factor("A").Value
	width := len(a) / q
	for i := range k {
		for j := range q {
			copy(down[((i*q+j)*k+i)*width:][:width], a[j*width:])
		}
	}
	return out, nil
}

// lohaToLoRA is (A·B) ⊙ (C·D) = (A ⊛ C)·(B ⊙ D), of the face-splitting and the
// Khatri-Rao product: component (r,s) is the products of both.
func lohaToLoRA(c *Change[float64]) (*Change[float64], error) {
	r := c.spec.Rank[0]
	out, err := c.derived(LoRA, r*r)
	if err != nil {
		return nil, err
	}
	n := c.spec.Shape[0]
	var left, right [2][]float64 // n×r, r×K
	for i, name := range []string{"1", "2"} {
		left[i], right[i] = c.Factor("hada_w"+name+"_a").Value, c.Factor("hada_w"+name+"_b").Value
		if c.spec.Mid {
			left[i] = make([]float64, n*r)
			permute(left[i], c.Factor("hada_w"+name+"_a").Value, []int{r, n}, []int{1, 0})
			right[i] = c.computed([]string{"ichw", "jchw"}[i])
		}
	}
	up := out.Factor("up").Value
	for o := range n {
		outer(1, r, r, left[0][o*r:(o+1)*r], left[1][o*r:(o+1)*r], up[o*r*r:(o+1)*r*r])
	}
	down := out.Factor("down").Value
	k := len(down) / (r * r * c.spec.groups())
	for x := range r {
		for y := range r {
			for j := range k {
				down[(x*r+y)*k+j] = right[0][x*k+j] * right[1][y*k+j]
			}
		}
	}
	repeatGroups(down, c.spec.groups())
	return out, nil
}

// repeatGroups copies the first of equal parts to the others.
func repeatGroups(v []float64, groups int) {
	n := len(v) / groups
	for g := 1; g < groups; g++ {
		copy(v[g*n:], v[:n])
	}
}

// lokrToLoRA is (P·Q) ⊗ (A·B) = (P ⊗ A)·(Q ⊗ B). A factor that is not a product is
// one with an identity on its smaller side.
func lokrToLoRA(c *Change[float64]) (*Change[float64], error) {
	s := &c.spec
	split := s.split()
	o2, c2, taps := s.Shape[0]/split[0], s.Shape[1]/split[1], s.Shape[2]*s.Shape[3]
	product := func(f *Factor[float64], a, b []float64, rows, cols int) ([]float64, []float64, int) {
		switch {
		case f == nil:
			return a, b, len(a) / rows
		case rows <= cols:
			return copies(rows, rows), f.Value, rows
		}
		return f.Value, copies(cols, cols), cols
	}
	var oneA, oneB, twoA, twoB []float64
	if s.Both {
		oneA, oneB = c.Factor("lokr_w1_a").Value, c.Factor("lokr_w1_b").Value
	}
	if len(s.Rank) > 0 {
		twoA = c.Factor("lokr_w2_a").Value
		if s.Mid {
			twoA = make([]float64, len(twoA))
			permute(twoA, c.Factor("lokr_w2_a").Value, []int{s.Rank[0], o2}, []int{1, 0})
			twoB = c.computed("rqhw")
		} else {
			twoB = c.Factor("lokr_w2_b").Value
		}
	}
	p, q, m := product(c.Factor("lokr_w1"), oneA, oneB, split[0], split[1])
	a, b, r := product(c.Factor("lokr_w2"), twoA, twoB, o2, c2*taps)
	out, err := c.derived(LoRA, m*r)
	if err != nil {
		return nil, err
	}
	up, down := out.Factor("up").Value, out.Factor("down").Value
	for i := range split[0] {
		for j := range o2 {
			outer(1, m, r, p[i*m:(i+1)*m], a[j*r:(j+1)*r], up[(i*o2+j)*m*r:])
		}
	}
	for x := range m {
		for y := range r {
			outer(1, split[1], c2*taps, q[x*split[1]:(x+1)*split[1]], b[y*c2*taps:(y+1)*c2*taps], down[(x*r+y)*s.Shape[1]*taps:])
		}
	}
	repeatGroups(down, s.groups())
	return out, nil
}
