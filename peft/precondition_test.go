package peft

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/linalg"
)

// randomSpecs calls f with descriptions of random shapes, ranks and groups of every kind
// with an inner rank.
func randomSpecs(t *testing.T, f func(t *testing.T, s Spec, rng *rand.Rand)) {
	t.Helper()
	for _, s := range []Spec{
		{Kind: LoRA}, {Kind: LoRAView}, {Kind: Spatial}, {Kind: CP}, {Kind: CP4}, {Kind: Tucker2}, {Kind: Tucker4}, {Kind: TKDCPD},
		{Kind: LoHa}, {Kind: LoHa, Mid: true}, {Kind: LoKr, Rank: []int{0}}, {Kind: LoKr, Rank: []int{0}, Both: true}, {Kind: LoKr, Rank: []int{0}, Mid: true}, {Kind: LoKr},
	} {
		for seed := range uint64(6) {
			rng := rand.New(rand.NewPCG(seed, 77))
			s.Geometry.Groups = 1 + rng.IntN(3)
			s.Shape = [4]int{s.Groups * (2 + rng.IntN(3)), 2 + rng.IntN(3), 1 + rng.IntN(3), 3}
			if s.Kind == LoRAView {
				s.Shape[2] = 3
			}
			n := max(kinds[s.Kind].ranks, len(s.Rank))
			s.Rank = make([]int, n)
			for i := range s.Rank {
				s.Rank[i] = 1 + rng.IntN(3)
			}
			s.Scale = []float64{1, .25, 3}[rng.IntN(3)]
			s.Learned = rng.IntN(3) == 0
			t.Run(fmt.Sprintf("%s-%d", s.title(), seed), func(t *testing.T) { f(t, s, rng) })
		}
	}
}

// along is the derivative of λ·ΔW in one factor along v: what the factor v in its place
// makes.
func along(t *testing.T, c *Change[float64], f *Factor[float64], v []float64) []float64 {
	t.Helper()
	kept := slices.Clone(f.Value)
	copy(f.Value, v)
	k := kernelOf(t, c, nil)
	copy(f.Value, kept)
	return k
}

// jacobian is that of λ·ΔW in one factor, a row for each value of the factor.
func jacobian(t *testing.T, c *Change[float64], f *Factor[float64]) [][]float64 {
	t.Helper()
	var j [][]float64
	for i := range f.Value {
		unit := make([]float64, len(f.Value))
		unit[i] = 1
		j = append(j, along(t, c, f, unit))
	}
	return j
}

// steps is the derivative of λ·ΔW along all factors' gradients, and the gradients.
func steps(t *testing.T, c *Change[float64]) (sum []float64, gradients [][]float64) {
	t.Helper()
	sum = make([]float64, c.spec.kernelLen())
	for _, f := range c.net.factors {
		for i, v := range along(t, c, f, f.Grad) {
			sum[i] += v
		}
		gradients = append(gradients, slices.Clone(f.Grad))
	}
	return sum, gradients
}

// The preconditioned gradient solves the normal equations of the dense Jacobian, damped as
// the forms say: with a single form JᵀJ + δI, block by block.
func TestPreconditioningIsTheDenseSolution(t *testing.T) {
	const damping = .1
	single := map[bool]int{}
	randomSpecs(t, func(t *testing.T, s Spec, rng *rand.Rand) {
		c, _ := random[float64](t, s, rng)
		g := gaussian[float64](s.kernelLen(), rng)
		c.Pull(g, nil)
		_, before := steps(t, c)
		c.Precondition(damping)
		p := newPreconditioner(c)
		p.lambda[0], p.steps = c.Lambda()*c.Lambda(), nil
		forms := map[*Factor[float64]]metric[float64]{}
		p.down(c.net.root, p.root, func(v *node[float64], of metric[float64]) { forms[v.factor] = of })
		for _, step := range p.steps {
			step()
		}
		var nodes []*node[float64]
		c.net.root.walk(func(v *node[float64]) {
			if v.factor != nil {
				nodes = append(nodes, v)
			}
		})
		for _, v := range nodes {
			f := v.factor
			at := slices.Index(c.net.factors, f)
			j := jacobian(t, c, f)
			single[len(forms[f]) == 1]++
			for row := range f.Value {
				// Row of ⊗(Γ + δI), and of JᵀJ, with what they give of the result.
				var got float64
				for col := range f.Value {
					plain, damped := 1., 1.
					rest := v.axes()
					for _, form := range forms[f] {
						x, y := entry(form, v.axes(), p.sizes, row, col, damping)
						plain, damped = plain*x, damped*y
						rest = filter(rest, func(l rune) bool { return !strings.ContainsRune(form.paired, l) })
					}
					for _, l := range rest {
						if digit(v.axes(), byte(l), p.sizes, row) != digit(v.axes(), byte(l), p.sizes, col) {
							plain, damped = 0, 0
						}
					}
					if want := dot(j[row], j[col]); math.Abs(plain-want) > 1e-9*(1+math.Abs(want)) {
						t.Fatalf("%s: JᵀJ[%d,%d] is %g, the forms say %g", f.Name, row, col, want, plain)
					}
					got += damped * f.Grad[col]
				}
				if want := before[at][row]; math.Abs(got-want) > 1e-9*(1+math.Abs(want)) {
					t.Fatalf("%s: row %d gives %g for %g", f.Name, row, got, want)
				}
			}
		}
	})
	if single[true] == 0 || single[false] == 0 {
		t.Errorf("factors with a single form and others: %v", single)
	}
}

// digit is the index along a label of the value at i.
func digit(axes string, l byte, sizes map[byte]int, i int) int {
	after := axes[strings.IndexByte(axes, l)+1:]
	return i / size(after, sizes) % sizes[l]
}

// entry is a form's between two values of a factor, without and with damping.
func entry(g gram[float64], axes string, sizes map[byte]int, row, col int, damping float64) (plain, damped float64) {
	at := func(labels string, i int) (n int) {
		for k := range len(labels) {
			n = n*sizes[labels[k]] + digit(axes, labels[k], sizes, i)
		}
		return n
	}
	d, n := at(g.diagonal, row), size(g.paired, sizes)
	block := g.value()[d*n*n:][:n*n]
	r, c := at(g.paired, row), at(g.paired, col)
	if at(g.diagonal, col) != d {
		return 0, 0
	}
	plain = block[r*n+c]
	if r != c {
		return plain, plain
	}
	var trace float64
	for i := range n {
		trace += block[i*n+i]
	}
	return plain, plain + damping*(trace/float64(n)+negligible)
}

// Each factor then moves λ·ΔW by the orthogonal projection of the kernel's gradient on
// what the factor can give, whatever the ranks: the reference is by Gram-Schmidt.
func TestPreconditionedStepsAreProjections(t *testing.T) {
	for _, deficient := range []bool{false, true} {
		randomSpecs(t, func(t *testing.T, s Spec, rng *rand.Rand) {
			c, _ := random[float64](t, s, rng)
			if deficient { // two rows of each factor are equal, or one is zero
				for _, f := range c.net.factors {
					switch n := len(f.Value) / f.Shape[0]; {
					case f.Shape[0] > 1 && rng.IntN(2) == 0:
						copy(f.Value[:n], f.Value[n:2*n])
					case f.Shape[0] > 2:
						clear(f.Value[:n])
					}
				}
			}
			g := gaussian[float64](s.kernelLen(), rng)
			c.Pull(g, nil)
			c.Precondition(1e-11)
			for _, f := range c.net.factors {
				want := make([]float64, len(g))
				var basis [][]float64
				for _, col := range jacobian(t, c, f) {
					size := math.Sqrt(dot(col, col))
					for range 2 {
						for _, b := range basis {
							x := dot(b, col)
							for i := range col {
								col[i] -= x * b[i]
							}
						}
					}
					if n := math.Sqrt(dot(col, col)); n > 1e-9*size && n > 0 {
						for i := range col {
							col[i] /= n
						}
						basis = append(basis, col)
					}
				}
				for _, b := range basis {
					x := dot(b, g)
					for i := range want {
						want[i] += x * b[i]
					}
				}
				if got := along(t, c, f, f.Grad); distance(got, want) > 1e-3 || math.IsNaN(dot(got, got)) {
					t.Errorf("deficient %t: %s moves ΔW by another vector than the projection, at a distance of %g", deficient, f.Name, distance(got, want))
				}
			}
		})
	}
}

// gauge multiplies the label of one factor by a random matrix for each group, and the one
// other factor that has it by the inverse's transpose; a diagonal matrix, or of two
// numbers whose product is one for a label that more factors have.
func gauge(t *testing.T, c *Change[float64], l string, rng *rand.Rand) {
	t.Helper()
	var with []*node[float64]
	c.net.root.walk(func(v *node[float64]) {
		if v.factor != nil && strings.Contains(v.axes(), l) {
			with = append(with, v)
		}
	})
	if len(with) < 2 {
		t.Fatalf("label %s is in %d factors", l, len(with))
	}
	m := newMeasure[float64](c.sizes())
	n, groups := m.sizes[l[0]], 1
	batch := ""
	if strings.Contains(with[0].axes(), "g") {
		batch, groups = "g", m.sizes['g']
	}
	r, inverse := make([]float64, groups*n*n), make([]float64, groups*n*n)
	for at := 0; at < len(r); at += n * n {
		a, x := make([]float64, n*n), inverse[at:at+n*n]
		for i := range n {
			for k := range n {
				if i == k || len(with) == 2 {
					r[at+i*n+k] = rng.NormFloat64()
				}
			}
			r[at+i*n+i] += 3 * float64(n)
		}
		// R⁻ᵀ = R·(RᵀR)⁻¹, first as (RᵀR)⁻¹.
		for i := range n {
			x[i*n+i] = 1
			for k := range n {
				for q := range n {
					a[i*n+k] += r[at+q*n+i] * r[at+q*n+k]
				}
			}
		}
		if err := linalg.Cholesky(1, n, a, n); err != nil {
			t.Fatal(err)
		}
		linalg.SolveCholesky(1, n, n, a, n, x, n)
		y := make([]float64, n*n)
		for i := range n {
			for k := range n {
				for q := range n {
					y[i*n+k] += r[at+i*n+q] * x[q*n+k]
				}
			}
		}
		copy(x, y)
	}
	for i, v := range with[:2] {
		by := r
		if i == 1 {
			by = inverse
		}
		out := make([]float64, v.length)
		newContraction[float64](v.axes(), batch+l+capitals(l), prime(v.axes(), l), m.sizes).run(out, v.value, by)
		copy(v.value, out)
	}
}

func (c *Change[T]) sizes() map[byte]int {
	_, sizes := kinds[c.spec.Kind].diagram(&c.spec)
	return sizes
}

// The derivative of λ·ΔW along the preconditioned gradient is the same for all factors
// that make the same λ·ΔW; along the gradient itself it is not.
func TestPreconditionedGradientsDoNotDependOnTheGauge(t *testing.T) {
	labels := map[Kind]string{LoRA: "r", LoRAView: "q", Spatial: "r", CP: "r", CP4: "r", Tucker2: "ab", Tucker4: "abde", TKDCPD: "abr"}
	differ := map[Kind]int{}
	randomSpecs(t, func(t *testing.T, s Spec, rng *rand.Rand) {
		l := labels[s.Kind]
		switch {
		case s.Kind == LoHa && s.Mid:
			l = "irjs"
		case s.Kind == LoHa:
			l = "rs"
		case s.Kind == LoKr && s.Mid:
			l = "rm"
		case s.Kind == LoKr && len(s.Rank) > 0:
			l = "r"
			if s.Both {
				l = "rx"
			}
		}
		c, _ := random[float64](t, s, rng)
		d := c.Clone()
		for i := range len(l) {
			gauge(t, d, l[i:i+1], rng)
		}
		// λ is a part of it.
		s2 := d.spec
		s2.Scale = 1
		e, err := NewChange[float64](s2)
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range d.net.factors {
			copy(e.net.factors[i].Value, f.Value)
		}
		for i := range d.output[0].value {
			e.output[0].value[i] *= d.Lambda()
		}
		g := gaussian[float64](s.kernelLen(), rng)
		var plain, conditioned [2][]float64
		for i, c := range []*Change[float64]{c, e} {
			c.Pull(g, nil)
			plain[i], _ = steps(t, c)
			c.Precondition(1e-10)
			conditioned[i], _ = steps(t, c)
		}
		if x := distance(kernelOf(t, e, nil), kernelOf(t, c, nil)); x > 1e-12 {
			t.Fatalf("the gauge changes ΔW by %g", x)
		}
		if x := distance(conditioned[1], conditioned[0]); !(x < 1e-4) {
			t.Errorf("the preconditioned steps differ by %g", x)
		}
		if distance(plain[1], plain[0]) > 1e-2 {
			differ[s.Kind]++
		}
	})
	for k := range labels {
		if differ[k] < 5 {
			t.Errorf("%s: plain steps differ in %d of 6 cases", k, differ[k])
		}
	}
}

// At the start the output factor is zero: nothing else has a gradient, before and after.
func TestPreconditioningAtTheStart(t *testing.T) {
	eachCase(t, func(t *testing.T, s Spec, rng *rand.Rand) {
		for _, damping := range []float64{0, 1e-6, .1} {
			c, err := New(s)
			if err != nil {
				t.Fatal(err)
			}
			base := gaussian[float32](s.kernelLen(), rng)
			if err := c.Init(rng, 0, base); err != nil {
				t.Fatal(err)
			}
			c.Pull(gaussian[float32](s.kernelLen(), rng), base)
			plain := map[string][]float32{}
			for _, f := range c.Factors() {
				plain[f.Name] = slices.Clone(f.Grad)
			}
			c.Precondition(damping)
			for _, v := range c.output {
				if n := norm(0, v.factor.Grad, nil); !(n > 0) || n-n != 0 {
					t.Errorf("damping %g: the gradient of %s has norm %g", damping, v.name, n)
				}
			}
			for _, f := range c.Factors() {
				zero := slices.ContainsFunc(c.output, func(v *node[float32]) bool { return v.factor == f })
				switch linear := kinds[s.Kind].linear; {
				case linear && !slices.Equal(f.Grad, plain[f.Name]):
					t.Errorf("%s of a linear kind was changed", f.Name)
				case !linear && !zero && slices.ContainsFunc(f.Grad, func(v float32) bool { return v != 0 }):
					t.Errorf("damping %g: the gradient of %s is no longer zero", damping, f.Name)
				}
			}
		}
	})
}

// λ's and DoRA's gradients stay.
func TestPreconditioningLeavesScalesAlone(t *testing.T) {
	c, base := random[float64](t, Spec{Kind: CP, Shape: [4]int{6, 4, 3, 3}, Rank: []int{2}, Learned: true, DoRA: true}, seeded(1))
	c.Pull(gaussian[float64](6*4*9, seeded(2)), base)
	lambda, magnitude := c.lambda.Grad[0], slices.Clone(c.magnitude.Grad)
	out := slices.Clone(c.Factor("out").Grad)
	c.Precondition(.1)
	if c.lambda.Grad[0] != lambda || !slices.Equal(c.magnitude.Grad, magnitude) || slices.Equal(c.Factor("out").Grad, out) {
		t.Error("λ or the norms were changed, or the factors not")
	}
}

// What preconditioning costs beside the gradient.
func BenchmarkPrecondition(b *testing.B) {
	for _, s := range []Spec{{Kind: LoRA, Rank: []int{8}}, {Kind: CP, Rank: []int{16}}, {Kind: Tucker2, Rank: []int{8, 8}}, {Kind: TKDCPD, Rank: []int{8, 8, 16}}, {Kind: LoHa, Rank: []int{2}}} {
		s.Shape, s.Geometry = [4]int{64, 64, 3, 3}, conv.Geometry{Padding: [2]int{1, 1}}
		c, err := New(s)
		if err != nil {
			b.Fatal(err)
		}
		for _, f := range c.Factors() {
			fill(f.Value, seeded(1))
		}
		w, g := make([]float32, s.kernelLen()), gaussian[float32](s.kernelLen(), seeded(2))
		b.Run(s.title()+"/gradient", func(b *testing.B) {
			for b.Loop() {
				c.Materialise(w, nil)
				c.Pull(g, nil)
			}
		})
		kept := make([][]float32, len(c.Factors()))
		for i, f := range c.Factors() {
			kept[i] = slices.Clone(f.Gradient())
		}
		b.Run(s.title()+"/precondition", func(b *testing.B) {
			for b.Loop() {
				for i, f := range c.Factors() {
					copy(f.Grad, kept[i])
				}
				c.Precondition(.01)
			}
		})
	}
}
