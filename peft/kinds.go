package peft

import (
	"fmt"
	"math"
	"strings"
)

// kind is what there is to know of a parametrisation.
type kind struct {
	ranks int
	// check reports what a description of this kind must not be; nil for nothing.
	check func(*Spec) error
	// diagram is ΔW as a term, and the sizes of its labels. The labels g, o, c, h, w
	// are the groups, a group's outputs and inputs, and the taps; r, a, b, d, e are
	// ranks. Factors that a chain runs are in the order of a convolution's weight.
	diagram func(*Spec) (*term, map[byte]int)
	// stages tells how the factors run as convolutions; nil where they cannot, and it
	// returns nil where these ones cannot.
	stages func(*Spec) []step
	// rankAxes are the labels that grow where two changes are concatenated; "" where
	// the sum of two is no change of the kind with larger ranks.
	rankAxes string
	// linear: the change is linear in all factors together, which add up as they are.
	linear bool
}

var kinds map[Kind]*kind

func init() { // kinds refer to functions that refer to kinds
	kinds = map[Kind]*kind{
		LoRA:     {ranks: 1, diagram: loraDiagram, stages: loraStages, rankAxes: "r"},
		LoRAView: {ranks: 1, check: checkView, diagram: viewDiagram, rankAxes: "q"},
		Spatial:  {ranks: 1, diagram: spatialDiagram, stages: spatialStages, rankAxes: "r"},
		CP:       {ranks: 1, diagram: cpDiagram, stages: cpStages, rankAxes: "r"},
		CP4:      {ranks: 1, diagram: cp4Diagram, stages: cp4Stages, rankAxes: "r"},
		Tucker2:  {ranks: 2, diagram: tucker2Diagram, stages: tucker2Stages, rankAxes: "ab"},
		Tucker4:  {ranks: 4, diagram: tucker4Diagram, rankAxes: "abde"},
		TKDCPD:   {ranks: 3, diagram: tkdcpdDiagram, stages: tkdcpdStages, rankAxes: "abr"},
		LoHa:     {ranks: 1, diagram: lohaDiagram},
		LoKr:     {ranks: 0, check: checkLoKr, diagram: lokrDiagram},
		Parallel: {check: checkOdd, diagram: parallelDiagram, stages: parallelStages, linear: true},
		Series:   {diagram: seriesDiagram, stages: seriesStages, linear: true},
		Axial:    {check: checkAxial, diagram: axialDiagram, stages: axialStages, linear: true},
		Full:     {diagram: fullDiagram, linear: true},
	}
}

// sizes are those of the kernel's labels.
func (s *Spec) sizes() map[byte]int {
	g := s.groups()
	return map[byte]int{'g': g, 'o': s.Shape[0] / g, 'c': s.Shape[1], 'h': s.Shape[2], 'w': s.Shape[3]}
}

// ranked adds the sizes of the rank labels.
func (s *Spec) ranked(labels string) map[byte]int {
	m := s.sizes()
	for i := range len(labels) {
		m[labels[i]] = s.Rank[i]
	}
	return m
}

const kernelAxes = "gochw"

// ΔW[o, (c,h,w)] = Σ_r up[o,r]·down[r, (c,h,w)].
func loraDiagram(s *Spec) (*term, map[byte]int) {
	return output("up", "go r").times(factor("down", "gr c h w"), kernelAxes), s.ranked("r")
}

// The same product of an (O/g·k)×(r·k) and an (r·k)×(C·k) matrix, whose memory is
// taken as the kernel's: no axis of it is one of the kernel's.
func viewDiagram(s *Spec) (*term, map[byte]int) {
	k, g := s.Shape[2], s.groups()
	return output("B", "p q").times(factor("A", "q s"), "ps"),
		map[byte]int{'p': s.Shape[0] / g * k, 'q': s.Rank[0] * k, 's': s.Shape[1] * g * k}
}

func checkView(s *Spec) error {
	if s.Shape[2] != s.Shape[3] {
		return fmt.Errorf("%w: %s needs a square kernel, got %v", ErrSpec, s.Kind, s.Shape)
	}
	return nil
}

// ΔW[(o,h), (c,w)] = Σ_r column[o,r,h]·row[r,c,w].
func spatialDiagram(s *Spec) (*term, map[byte]int) {
	return output("column", "go r h").times(factor("row", "gr c w"), kernelAxes), s.ranked("r")
}

// ΔW[o,c,(h,w)] = Σ_r out[o,r]·in[r,c]·tap[r,(h,w)].
func cpDiagram(s *Spec) (*term, map[byte]int) {
	basis := factor("tap", "gr h w").times(factor("in", "gr c"), "grchw")
	return output("out", "go r").times(basis, kernelAxes), s.ranked("r")
}

// The taps of CP as an outer product.
func cp4Diagram(s *Spec) (*term, map[byte]int) {
	taps := factor("row", "gr h").times(factor("column", "gr w"), "grhw")
	return output("out", "go r").times(taps.times(factor("in", "gr c"), "grchw"), kernelAxes), s.ranked("r")
}

// ΔW[o,c,t] = Σ_ab out[o,a]·core[a,b,t]·in[b,c].
func tucker2Diagram(s *Spec) (*term, map[byte]int) {
	basis := factor("core", "ga b h w").times(factor("in", "gb c"), "gachw")
	return output("out", "go a").times(basis, kernelAxes), s.ranked("ab")
}

func tucker4Diagram(s *Spec) (*term, map[byte]int) {
	t := factor("core", "ga b d e").times(factor("row", "gh d"), "gabhe")
	t = t.times(factor("column", "gw e"), "gabhw")
	return output("out", "go a").times(t.times(factor("in", "gb c"), "gachw"), kernelAxes), s.ranked("abde")
}

// ΔW[o,c,t] = Σ_abr out[o,a]·left[a,r]·tap[r,t]·right[r,b]·in[b,c].
func tkdcpdDiagram(s *Spec) (*term, map[byte]int) {
	in := factor("right", "gr b").times(factor("in", "gb c"), "grc")
	basis := factor("left", "ga r").times(factor("tap", "gr h w").times(in, "grchw"), "gachw")
	return output("out", "go a").times(basis, kernelAxes), s.ranked("abr")
}

// The elementwise product of two low-rank O×(C/g·k²) matrices, or of two Tucker-2
// tensors of equal ranks. Names and shapes are those of the published files.
func lohaDiagram(s *Spec) (*term, map[byte]int) {
	m := s.sizes()
	m['n'] = s.Shape[0]
	for _, l := range "ijrs" {
		m[byte(l)] = s.Rank[0]
	}
	if s.Mid {
		one := factor("hada_t1", "i r h w").times(factor("hada_w1_b", "r c"), "ichw")
		two := factor("hada_t2", "j s h w").times(factor("hada_w2_b", "s c"), "jchw")
		return factor("hada_w1_a", "i n").times(one, "nchw").times(output("hada_w2_a", "j n").times(two, "nchw"), "nchw"), m
	}
	one := factor("hada_w1_a", "n r").times(factor("hada_w1_b", "r chw"), "nchw")
	return one.times(output("hada_w2_a", "n s").times(factor("hada_w2_b", "s chw"), "nchw"), "nchw"), m
}

// The Kronecker product ΔW[i·o₂+j, p·c₂+q, t] = w1[i,p]·w2[j,q,t].
func lokrDiagram(s *Spec) (*term, map[byte]int) {
	split := s.split()
	m := map[byte]int{'i': split[0], 'j': s.Shape[0] / split[0], 'p': split[1], 'q': s.Shape[1] / split[1], 'h': s.Shape[2], 'w': s.Shape[3]}
	for _, l := range "rmx" {
		if len(s.Rank) > 0 {
			m[byte(l)] = s.Rank[0]
		}
	}
	one := factor("lokr_w1", "i p")
	if s.Both {
		one = factor("lokr_w1_a", "i x").times(factor("lokr_w1_b", "x p"), "ip")
	}
	var two *term
	switch {
	case len(s.Rank) == 0:
		two = output("lokr_w2", "j q h w")
	case s.Mid:
		two = output("lokr_w2_a", "r j").times(factor("lokr_t2", "r m h w").times(factor("lokr_w2_b", "m q"), "rqhw"), "jqhw")
	default:
		two = output("lokr_w2_a", "j r").times(factor("lokr_w2_b", "r qhw"), "jqhw")
	}
	return one.times(two, "ijpqhw"), m
}

// split is the shape of LoKr's first factor.
func (s *Spec) split() [2]int {
	split := s.Split
	for a := range 2 {
		if split[a] == 0 {
			split[a] = divisor(s.Shape[a])
		}
	}
	return split
}

// divisor is the largest divisor of n that is at most √n.
func divisor(n int) int {
	d := int(math.Sqrt(float64(n)))
	for n%d != 0 {
		d--
	}
	return d
}

func checkLoKr(s *Spec) error {
	for a := range 2 {
		if s.Split[a] < 0 || s.Split[a] > 0 && s.Shape[a]%s.Split[a] != 0 {
			return fmt.Errorf("%w: a first factor of %v does not divide a kernel of %v", ErrSpec, s.Split, s.Shape)
		}
	}
	if len(s.Rank) == 0 && (s.Both || s.Mid) {
		return fmt.Errorf("%w: %s without a rank cannot have low-rank factors", ErrSpec, s.Kind)
	}
	return nil
}

// centre is the array that is 1 at the middle tap, along the labels.
func centre(s *Spec, labels string) *term {
	n := 1
	for _, l := range labels {
		n *= s.Shape[strings.IndexRune("__hw", l)]
	}
	return fixed(labels, func() []float64 {
		v := make([]float64, n)
		v[n/2] = 1 // the middle of all odd sizes
		return v
	})
}

func checkOdd(s *Spec) error {
	if s.Shape[2]%2 == 0 || s.Shape[3]%2 == 0 {
		return fmt.Errorf("%w: %s needs a middle tap, got a kernel of %v", ErrSpec, s.Kind, s.Shape)
	}
	return nil
}

// ΔW[o,c,t] = point[o,c] at the middle tap, 0 elsewhere (Rebuffi et al. 2018).
func parallelDiagram(s *Spec) (*term, map[byte]int) {
	return output("point", "go c").times(centre(s, "hw"), kernelAxes), s.sizes()
}

// ΔW[o,c,t] = Σ_p mix[o,p]·W₀[p,c,t], within groups (Rebuffi et al. 2017 without its
// inner batch norm).
func seriesDiagram(s *Spec) (*term, map[byte]int) {
	m := s.sizes()
	m['p'] = m['o']
	return output("mix", "go p").times(&term{labels: "gpchw", base: true}, kernelAxes), m
}

// Filters along the middle column and row.
func axialDiagram(s *Spec) (*term, map[byte]int) {
	m := s.sizes()
	var t *term
	for _, axis := range []string{"h", "w"} {
		if !strings.Contains(s.Axes, axis) {
			continue
		}
		name := map[string]string{"h": "column", "w": "row"}[axis]
		other := map[string]string{"h": "w", "w": "h"}[axis]
		var u *term
		switch s.Match {
		case Copy:
			u = output(name, "gc "+axis).times(fixed("oc", func() []float64 { return copies(m['o'], m['c']) }), "goc"+axis)
			u = u.times(centre(s, other), kernelAxes)
		case Groups:
			n := gcd(m['o'], m['c'])
			m['m'], m['k'], m['x'], m['y'] = n, n, m['o']/n, m['c']/n
			u = output(name, "gmx y "+axis).times(fixed("mk", func() []float64 { return copies(n, n) }), "gmxky"+axis)
			u = u.times(centre(s, other), "gmxkyhw")
		default:
			u = output(name, "go c "+axis).times(centre(s, other), kernelAxes)
		}
		if t == nil {
			t = u
		} else {
			t = t.plus(u)
		}
	}
	return t, m
}

func checkAxial(s *Spec) error {
	if s.Axes != "h" && s.Axes != "w" && s.Axes != "hw" {
		return fmt.Errorf("%w: axes %q; want h, w or hw", ErrSpec, s.Axes)
	}
	if s.Match != Dense && s.Match != Copy && s.Match != Groups {
		return fmt.Errorf("%w: match %q; want %q, %q or nothing", ErrSpec, s.Match, Copy, Groups)
	}
	return checkOdd(s)
}

// copies is the o×c matrix whose row i is the unit vector i mod c.
func copies(o, c int) []float64 {
	v := make([]float64, o*c)
	for i := range o {
		v[i*c+i%c] = 1
	}
	return v
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// ΔW itself. The fixed scalar makes it a product as all others.
func fullDiagram(s *Spec) (*term, map[byte]int) {
	return output("diff", "go c h w").times(fixed("", func() []float64 { return []float64{1} }), kernelAxes), s.sizes()
}
