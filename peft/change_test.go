package peft

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
)

// cases are descriptions of every kind, with and without groups.
func cases() []Spec {
	square := [4]int{6, 4, 3, 3}
	grouped := conv.Geometry{Groups: 2, Stride: [2]int{2, 1}, Padding: [2]int{1, 2}, Dilation: [2]int{1, 2}}
	padded := conv.Geometry{Padding: [2]int{1, 1}}
	var all []Spec
	for _, g := range []conv.Geometry{padded, grouped} {
		for _, s := range []Spec{
			{Kind: LoRA, Rank: []int{2}},
			{Kind: LoRAView, Rank: []int{1}},
			{Kind: Spatial, Rank: []int{2}},
			{Kind: CP, Rank: []int{3}},
			{Kind: CP4, Rank: []int{3}},
			{Kind: Tucker2, Rank: []int{2, 3}},
			{Kind: Tucker4, Rank: []int{2, 3, 2, 2}},
			{Kind: TKDCPD, Rank: []int{2, 3, 4}},
			{Kind: LoHa, Rank: []int{2}},
			{Kind: LoHa, Rank: []int{2}, Mid: true},
			{Kind: LoKr},
			{Kind: LoKr, Rank: []int{2}},
			{Kind: LoKr, Rank: []int{1}, Both: true, Split: [2]int{3, 2}},
			{Kind: LoKr, Rank: []int{2}, Mid: true},
			{Kind: Parallel},
			{Kind: Series},
			{Kind: Axial, Axes: "h"},
			{Kind: Axial, Axes: "hw"},
			{Kind: Axial, Axes: "w", Match: Copy},
			{Kind: Axial, Axes: "hw", Match: Copy},
			{Kind: Axial, Axes: "h", Match: Groups},
			{Kind: Full},
		} {
			s.Shape, s.Geometry = square, g
			all = append(all, s)
		}
	}
	all = append(all,
		Spec{Kind: Axial, Axes: "w", Match: Copy, Shape: [4]int{4, 4, 3, 3}, Geometry: padded},
		Spec{Kind: Axial, Axes: "h", Match: Copy, Shape: [4]int{2, 5, 3, 3}, Geometry: padded},
		Spec{Kind: LoRA, Rank: []int{2}, Shape: [4]int{5, 3, 1, 1}},
		Spec{Kind: CP, Rank: []int{2}, Shape: [4]int{8, 1, 3, 5}, Geometry: conv.Geometry{Groups: 8}},
		Spec{Kind: Spatial, Rank: []int{2}, Shape: [4]int{4, 3, 1, 3}},
	)
	return all
}

func (s Spec) title() string {
	return fmt.Sprintf("%s%v%s%s-g%d", s.Kind, s.Rank, s.Axes, s.Match, s.groups())
}

func eachCase(t *testing.T, f func(t *testing.T, s Spec, rng *rand.Rand)) {
	t.Helper()
	for i, s := range cases() {
		t.Run(fmt.Sprintf("%d-%s", i, s.title()), func(t *testing.T) { f(t, s, rand.New(rand.NewPCG(uint64(i), 5))) })
	}
}

// random is a change with Gaussian factors, and a Gaussian base.
func random[T Float](t *testing.T, s Spec, rng *rand.Rand) (*Change[T], []T) {
	t.Helper()
	c, err := NewChange[T](s)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range c.Factors() {
		fill(f.Value, rng)
	}
	return c, gaussian[T](s.kernelLen(), rng)
}

func fill[T Float](v []T, rng *rand.Rand) {
	for i := range v {
		v[i] = T(rng.NormFloat64())
	}
}

func gaussian[T Float](n int, rng *rand.Rand) []T {
	v := make([]T, n)
	fill(v, rng)
	return v
}

func kernelOf[T Float](t *testing.T, c *Change[T], base []T) []T {
	t.Helper()
	k, err := c.Kernel(base)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// distance is ‖a − b‖/‖b‖.
func distance[T Float](a, b []T) float64 {
	var d, n float64
	for i, v := range a {
		d += (float64(v) - float64(b[i])) * (float64(v) - float64(b[i]))
		n += float64(b[i]) * float64(b[i])
	}
	if d == 0 {
		return 0
	}
	return math.Sqrt(d / n)
}

// naive is ΔW[o,c,h,w] by the definition, entry by entry; c counts within the group.
func naive(ch *Change[float64], base []float64, o, c, h, w int) float64 {
	s := ch.Spec()
	k := s.Shape[3]
	g := o / (s.Shape[0] / s.groups())
	at := func(name string, index ...int) float64 {
		f := ch.Factor(name)
		i := 0
		for a, x := range index {
			i = i*f.Shape[a] + x
		}
		return f.Value[i]
	}
	rank := func(i int) int { return s.Rank[i] }
	var sum float64
	switch s.Kind {
	case LoRA:
		for r := range rank(0) {
			sum += at("up", o, r) * at("down", g*rank(0)+r, c, h, w)
		}
	case LoRAView:
		// The place in memory of the product.
		flat := ((o*s.Shape[1]+c)*s.Shape[2]+h)*k + w
		width := s.Shape[1] * s.groups() * k
		for q := range rank(0) * k {
			sum += at("B", flat/width, q) * at("A", q, flat%width)
		}
	case Spatial:
		for r := range rank(0) {
			sum += at("column", o, r, h) * at("row", g*rank(0)+r, c, w)
		}
	case CP, CP4:
		for r := range rank(0) {
			x := g*rank(0) + r
			if s.Kind == CP {
				sum += at("out", o, r) * at("in", x, c) * at("tap", x, h, w)
			} else {
				sum += at("out", o, r) * at("in", x, c) * at("row", x, h) * at("column", x, w)
			}
		}
	case Tucker2:
		for a := range rank(0) {
			for b := range rank(1) {
				sum += at("out", o, a) * at("core", g*rank(0)+a, b, h, w) * at("in", g*rank(1)+b, c)
			}
		}
	case Tucker4:
		for a := range rank(0) {
			for b := range rank(1) {
				for d := range rank(2) {
					for e := range rank(3) {
						sum += at("out", o, a) * at("core", g*rank(0)+a, b, d, e) * at("in", g*rank(1)+b, c) *
							at("row", g*s.Shape[2]+h, d) * at("column", g*k+w, e)
					}
				}
			}
		}
	case TKDCPD:
		for a := range rank(0) {
			for b := range rank(1) {
				for r := range rank(2) {
					x := g*rank(2) + r
					sum += at("out", o, a) * at("left", g*rank(0)+a, r) * at("tap", x, h, w) * at("right", x, b) * at("in", g*rank(1)+b, c)
				}
			}
		}
	case LoHa:
		sum = 1
		for _, n := range []string{"1", "2"} {
			var p float64
			for r := range rank(0) {
				if !s.Mid {
					p += at("hada_w"+n+"_a", o, r) * at("hada_w"+n+"_b", r, (c*s.Shape[2]+h)*k+w)
					continue
				}
				for q := range rank(0) {
					p += at("hada_t"+n, r, q, h, w) * at("hada_w"+n+"_a", r, o) * at("hada_w"+n+"_b", q, c)
				}
			}
			sum *= p
		}
	case LoKr:
		o1, c1 := s.split()[0], s.split()[1]
		o2, c2 := s.Shape[0]/o1, s.Shape[1]/c1
		i, j, p, q := o/o2, o%o2, c/c2, c%c2
		var one, two float64
		if s.Both {
			for r := range rank(0) {
				one += at("lokr_w1_a", i, r) * at("lokr_w1_b", r, p)
			}
		} else {
			one = at("lokr_w1", i, p)
		}
		switch {
		case len(s.Rank) == 0:
			two = at("lokr_w2", j, q, h, w)
		case s.Mid:
			for r := range rank(0) {
				for m := range rank(0) {
					two += at("lokr_w2_a", r, j) * at("lokr_t2", r, m, h, w) * at("lokr_w2_b", m, q)
				}
			}
		default:
			for r := range rank(0) {
				two += at("lokr_w2_a", j, r) * at("lokr_w2_b", r, (q*s.Shape[2]+h)*k+w)
			}
		}
		sum = one * two
	case Parallel:
		if h == s.Shape[2]/2 && w == k/2 {
			sum = at("point", o, c)
		}
	case Series:
		outs := s.Shape[0] / s.groups()
		for p := range outs {
			sum += at("mix", o, p) * base[(((g*outs+p)*s.Shape[1]+c)*s.Shape[2]+h)*k+w]
		}
	case Axial:
		outs, ins := s.Shape[0]/s.groups(), s.Shape[1]
		filter := func(name string, tap int) float64 {
			switch s.Match {
			case Copy:
				if o%outs%ins != c {
					return 0
				}
				return at(name, g*ins+c, tap)
			case Groups:
				n := gcd(outs, ins)
				if o%outs/(outs/n) != c/(ins/n) {
					return 0
				}
				return at(name, o, c%(ins/n), tap)
			}
			return at(name, o, c, tap)
		}
		if strings.Contains(s.Axes, "h") && w == k/2 {
			sum += filter("column", h)
		}
		if strings.Contains(s.Axes, "w") && h == s.Shape[2]/2 {
			sum += filter("row", w)
		}
	case Full:
		sum = at("diff", o, c, h, w)
	}
	return sum
}

func TestKernelsAreTheDefinitions(t *testing.T) {
	eachCase(t, func(t *testing.T, s Spec, rng *rand.Rand) {
		s.Scale = 0.5
		c, base := random[float64](t, s, rng)
		got := kernelOf(t, c, base)
		want := make([]float64, 0, len(got))
		for o := range s.Shape[0] {
			for i := range s.Shape[1] {
				for h := range s.Shape[2] {
					for w := range s.Shape[3] {
						want = append(want, naive(c, base, o, i, h, w)/2)
					}
				}
			}
		}
		if d := distance(got, want); d > 1e-14 || math.IsNaN(d) {
			t.Errorf("relative difference %g", d)
		}
		n := 0
		for _, f := range c.Factors() {
			n += len(f.Value)
		}
		if n != s.Params() {
			t.Errorf("%d values, Params says %d", n, s.Params())
		}
	})
}

// Every wrapper of every kind.
func wrapped(s Spec) []Spec {
	l, d, both := s, s, s
	l.Learned, d.DoRA, both.Learned, both.DoRA = true, true, true, true
	return []Spec{s, l, d, both}
}

func TestGradientsAreDifferenceQuotients(t *testing.T) {
	const h = 1e-5
	eachCase(t, func(t *testing.T, s Spec, rng *rand.Rand) {
		for _, s := range wrapped(s) {
			c, base := random[float64](t, s, rng)
			target := gaussian[float64](s.kernelLen(), rng)
			effective := func() []float64 {
				w := slices.Clone(base)
				c.Materialise(w, base)
				return w
			}
			w := effective()
			// The squared loss, with DoRA's norms held as they are here.
			held := slices.Clone(c.ratio)
			var norms []float64
			for o, r := range held {
				norms = append(norms, c.magnitude.Value[o]/r)
			}
			loss := func() float64 {
				w := effective()
				if s.DoRA {
					row := len(w) / s.Shape[0]
					for i := range w {
						w[i] *= c.magnitude.Value[i/row] / norms[i/row] / c.ratio[i/row]
					}
				}
				var l float64
				for i, v := range w {
					l += (v - target[i]) * (v - target[i]) / 2
				}
				return l
			}
			g := make([]float64, len(w))
			for i, v := range w {
				g[i] = v - target[i]
			}
			c.Pull(g, base)
			for _, f := range c.Factors() {
				for range 4 {
					i := rng.IntN(len(f.Value))
					was := f.Value[i]
					f.Value[i] = was + h
					up := loss()
					f.Value[i] = was - h
					down := loss()
					f.Value[i] = was
					want := (up - down) / (2 * h)
					if d := math.Abs(f.Grad[i] - want); d > 1e-6*(1+math.Abs(want)) {
						t.Errorf("learned %t, dora %t: %s[%d]: gradient %g, difference quotient %g", s.Learned, s.DoRA, f.Name, i, f.Grad[i], want)
					}
				}
			}
		}
	})
}

// ⟨ΔW(θ; φᵢ), G⟩ = ⟨φᵢ, ∂⟨ΔW, G⟩/∂θᵢ⟩, ΔW being linear in each factor, and it is.
func TestGradientsAreAdjoints(t *testing.T) {
	eachCase(t, func(t *testing.T, s Spec, rng *rand.Rand) {
		c, base := random[float64](t, s, rng)
		g := gaussian[float64](s.kernelLen(), rng)
		kept := slices.Clone(g)
		whole := kernelOf(t, c, base)
		for _, f := range c.Factors() {
			if s.Kind == Axial && len(s.Axes) > 1 {
				clear(f.Value) // a sum of two is linear in one where the other is absent
				whole = kernelOf(t, c, base)
			}
			was := slices.Clone(f.Value)
			phi := gaussian[float64](len(f.Value), rng)
			copy(f.Value, phi)
			k := kernelOf(t, c, base)
			for i := range was {
				f.Value[i] = was[i] + phi[i]
			}
			both := kernelOf(t, c, base)
			if s.Kind == Axial && len(s.Axes) > 1 {
				for i := range k {
					k[i] -= whole[i]
				}
			}
			for i, v := range k {
				if d := math.Abs(both[i] - v - whole[i]); d > 1e-12*(1+math.Abs(v)) {
					t.Fatalf("%s: not linear: entry %d is off by %g", f.Name, i, d)
				}
			}
			copy(f.Value, was)
			c.Pull(g, base)
			if !slices.Equal(g, kept) {
				t.Fatal("Pull wrote to the kernel's gradient")
			}
			if a, b := dot(k, g), dot(phi, f.Grad); math.Abs(a-b) > 1e-12*(1+math.Abs(a))*float64(len(g)) {
				t.Errorf("%s: %g and %g", f.Name, a, b)
			}
		}
	})
}

func TestChainsAreTheMaterialisedConvolutions(t *testing.T) {
	chains := 0
	eachCase(t, func(t *testing.T, s Spec, rng *rand.Rand) {
		s.Scale = -1.5
		c, base := random[float32](t, s, rng)
		chain := c.Chain()
		if chain == nil {
			return
		}
		chains++
		one, err := chain.Kernel()
		if err != nil {
			t.Fatal(err)
		}
		want := kernelOf(t, c, base)
		// One tap of a Parallel or Axial stage stands for the middle of more.
		if s.Kind != Parallel && s.Kind != Axial {
			if d := distance(one.Weight, want); one.Shape != s.Shape || one.Geometry != s.Normal() || d > 1e-6 {
				t.Errorf("the chain is a kernel of %v %+v, want %v %+v; relative difference %g", one.Shape, one.Geometry, s.Shape, s.Normal(), d)
			}
		}
		k, err := conv.NewKernel(s.Shape, want, nil, s.Geometry)
		if err != nil {
			t.Fatal(err)
		}
		x := conv.NewMap(2, 9, 8, k.In())
		fill(x.Data, rng)
		run := func(c *conv.Chain) *conv.Map {
			r, err := conv.NewRunner(c)
			if err != nil {
				t.Fatal(err)
			}
			y, err := r.Forward(nil, x, conv.Epilogue{}, 0)
			if err != nil {
				t.Fatal(err)
			}
			return y
		}
		y, z := run(conv.NewDense(k)), run(chain)
		if y.H != z.H || y.W != z.W || y.C != z.C {
			t.Fatalf("outputs of %d×%d×%d and %d×%d×%d", y.H, y.W, y.C, z.H, z.W, z.C)
		}
		if d := distance(z.Data, y.Data); d > 1e-5 {
			t.Errorf("relative difference of the outputs %g", d)
		}
		macs, _, _ := c.Costs(2, 9, 8)
		if macs != 2*chain.MACs(9, 8) {
			t.Errorf("Costs says %d, the chain %d", macs, 2*chain.MACs(9, 8))
		}
	})
	if chains < 16 {
		t.Errorf("%d chains", chains)
	}
}

// A stage's weight and gradient, against the gradient of the kernel it makes.
func TestStagesGiveTheGradientsOfPull(t *testing.T) {
	eachCase(t, func(t *testing.T, s Spec, rng *rand.Rand) {
		s.Learned, s.Scale = true, 2
		c, base := random[float64](t, s, rng)
		stages := c.Stages()
		if stages == nil {
			return
		}
		g := gaussian[float64](s.kernelLen(), rng)
		c.Pull(g, base)
		want := map[string][]float64{}
		for _, f := range c.Factors() {
			want[f.Name] = slices.Clone(f.Grad)
			clear(f.Grad)
		}
		// The gradient in a stage's weight is that of a change whose λ is 1 and
		// whose last factor is the weight.
		plain := s
		plain.Learned, plain.Scale = false, 1
		p, err := NewChange[float64](plain)
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range stages {
			if n := st.Shape[0] * st.Shape[1] * st.Shape[2] * st.Shape[3]; n != len(st.Factor().Value) {
				t.Fatalf("stage %v of factor %v", st.Shape, st.Factor().Shape)
			}
			st.Load(p.Factor(st.Factor().Name).Value)
		}
		p.Pull(g, base)
		for _, st := range stages {
			st.Store(p.Factor(st.Factor().Name).Grad)
		}
		for _, f := range c.Factors() {
			if d := distance(f.Grad, want[f.Name]); d > 1e-13 {
				t.Errorf("%s: relative difference %g", f.Name, d)
			}
		}
	})
}

func TestSeriesRunsOnTheOutput(t *testing.T) {
	c, err := New(Spec{Kind: Series, Shape: [4]int{6, 4, 3, 3}, Geometry: conv.Geometry{Groups: 2}})
	if err != nil {
		t.Fatal(err)
	}
	st := c.Stages()
	if len(st) != 1 || !st[0].AfterBase || c.Chain() != nil || st[0].Shape != [4]int{6, 3, 1, 1} || st[0].Geometry.Groups != 2 {
		t.Errorf("stages %+v", st)
	}
}

func TestDoRAKeepsItsNorms(t *testing.T) {
	eachCase(t, func(t *testing.T, s Spec, rng *rand.Rand) {
		s.DoRA = true
		c, base := random[float64](t, s, rng)
		for o := range c.magnitude.Value {
			c.magnitude.Value[o] = 1 + float64(o)
		}
		w := slices.Clone(base)
		c.Materialise(w, base)
		row := len(w) / s.Shape[0]
		for o := range s.Shape[0] {
			if n := norm(0, w[o*row:(o+1)*row], nil); math.Abs(n-1-float64(o)) > 1e-12*n {
				t.Errorf("output %d has norm %g, want %d", o, n, 1+o)
			}
		}
	})
}

func TestScaleAndGauge(t *testing.T) {
	eachCase(t, func(t *testing.T, s Spec, rng *rand.Rand) {
		one, base := random[float64](t, s, rng)
		s.Scale = 3
		three, err := NewChange[float64](s)
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range one.Factors() {
			copy(three.Factors()[i].Value, f.Value)
		}
		a, b := kernelOf(t, one, base), kernelOf(t, three, base)
		for i := range a {
			a[i] *= 3
		}
		if d := distance(b, a); d > 1e-14 {
			t.Errorf("λ = 3: relative difference %g", d)
		}
		f := three.Factors()
		if len(f) < 2 || s.Kind == Axial {
			return
		}
		for i := range f[0].Value {
			f[0].Value[i] *= 7
		}
		for i := range f[1].Value {
			f[1].Value[i] /= 7
		}
		if d := distance(kernelOf(t, three, base), b); d > 1e-12 {
			t.Errorf("gauge: relative difference %g", d)
		}
	})
}

func TestDescriptionsThatMakeNoSense(t *testing.T) {
	ok := Spec{Kind: LoRA, Shape: [4]int{4, 4, 3, 3}, Rank: []int{2}}
	for name, change := range map[string]func(s *Spec){
		"kind":             func(s *Spec) { s.Kind = "lorra" },
		"shape":            func(s *Spec) { s.Shape[1] = 0 },
		"huge":             func(s *Spec) { s.Shape = [4]int{1 << 20, 1 << 20, 3, 3} },
		"no rank":          func(s *Spec) { s.Rank = nil },
		"rank 0":           func(s *Spec) { s.Rank = []int{0} },
		"rank too large":   func(s *Spec) { s.Rank = []int{1 << 30} },
		"ranks":            func(s *Spec) { s.Rank = []int{1, 2} },
		"groups":           func(s *Spec) { s.Geometry.Groups = 3 },
		"negative padding": func(s *Spec) { s.Padding[0] = -1 },
		"not finite":       func(s *Spec) { s.Scale = math.Inf(1) },
		"another's choice": func(s *Spec) { s.Axes = "h" },
		"view":             func(s *Spec) { s.Kind, s.Shape[3] = LoRAView, 1 },
		"even":             func(s *Spec) { s.Kind, s.Rank, s.Shape[2] = Parallel, nil, 2 },
		"axes":             func(s *Spec) { s.Kind, s.Rank, s.Axes = Axial, nil, "x" },
		"match":            func(s *Spec) { s.Kind, s.Rank, s.Axes, s.Match = Axial, nil, "h", "fold" },
		"split":            func(s *Spec) { s.Kind, s.Rank, s.Split = LoKr, nil, [2]int{3, 2} },
		"both":             func(s *Spec) { s.Kind, s.Rank, s.Both = LoKr, nil, true },
		"factor too large": func(s *Spec) { s.Shape, s.Rank = [4]int{1 << 20, 4, 1, 1}, []int{1 << 16} },
	} {
		s := ok
		s.Rank = slices.Clone(ok.Rank)
		change(&s)
		if _, err := New(s); err == nil {
			t.Errorf("%s: no error for %+v", name, s)
		} else if !strings.HasPrefix(err.Error(), ErrSpec.Error()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
