package peft

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func seeded(n uint64) *rand.Rand { return rand.New(rand.NewPCG(n, 11)) }

func started[T Float](t *testing.T, s Spec, seed uint64, gain float64, base []T) *Change[T] {
	t.Helper()
	c, err := NewChange[T](s)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Init(seeded(seed), gain, base); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAStartChangesNoBit(t *testing.T) {
	eachCase(t, func(t *testing.T, s Spec, rng *rand.Rand) {
		for _, s := range wrapped(s) {
			base := gaussian[float32](s.kernelLen(), rng)
			base[1] = float32(math.Copysign(0, -1))
			c := started(t, s, 1, 0, base)
			w := slices.Clone(base)
			c.Materialise(w, base)
			for i, v := range w {
				if math.Float32bits(v) != math.Float32bits(base[i]) {
					t.Fatalf("weight %d is %g, was %g", i, v, base[i])
				}
			}
		}
	})
}

// Only the factors of the outputs have a gradient at the start; where a second factor
// is zero too nothing has.
func TestOneFactorIsZero(t *testing.T) {
	eachCase(t, func(t *testing.T, s Spec, rng *rand.Rand) {
		base, g := gaussian[float64](s.kernelLen(), rng), gaussian[float64](s.kernelLen(), rng)
		c := started(t, s, 2, 0, base)
		c.Pull(g, base)
		dead := func(v []float64) bool { return !slices.ContainsFunc(v, func(x float64) bool { return x != 0 }) }
		var zero, others []*Factor[float64]
		for _, f := range c.Factors() {
			if dead(f.Value) {
				zero = append(zero, f)
			} else {
				others = append(others, f)
			}
		}
		if len(zero) != len(c.output) || len(zero) != 1 && s.Kind != Axial {
			t.Errorf("%d factors are zero, %d of the outputs", len(zero), len(c.output))
		}
		for _, f := range zero {
			if dead(f.Grad) {
				t.Errorf("%s has no gradient", f.Name)
			}
		}
		for _, f := range others {
			if !dead(f.Grad) {
				t.Errorf("%s has a gradient", f.Name)
			}
		}
		if len(others) == 0 {
			return
		}
		clear(others[0].Value)
		c.Pull(g, base)
		for _, f := range c.Factors() {
			if f.Name != others[0].Name && !dead(f.Grad) {
				t.Errorf("%s has a gradient though two factors are zero", f.Name)
			}
		}
		if !dead(others[0].Grad) {
			t.Errorf("%s has a gradient though two factors are zero", others[0].Name)
		}
	})
}

// ‖ΔW¹‖/(η·λ²·‖G‖) of the first step of gradient descent, a mean over draws.
func firstStep(t *testing.T, s Spec, gain float64) float64 {
	rng := seeded(3)
	base := gaussian[float64](s.kernelLen(), rng)
	var sum float64
	const draws = 4
	for i := range draws {
		c := started(t, s, uint64(10+i), gain, base)
		g := gaussian[float64](s.kernelLen(), rng)
		c.Pull(g, base)
		for _, v := range c.output {
			for i := range v.value {
				v.value[i] -= v.factor.Grad[i]
			}
		}
		l := c.Lambda()
		sum += norm(0, kernelOf(t, c, base), nil) / norm(0, g, nil) / l / l / draws
	}
	return sum
}

func TestFirstStepsAreEquallyLargeForEveryKind(t *testing.T) {
	shape := [4]int{64, 64, 3, 3}
	for _, c := range []struct {
		s    Spec
		rows float64
	}{
		{Spec{Kind: LoRA, Rank: []int{16}}, 16},
		{Spec{Kind: LoRA, Rank: []int{16}, Scale: 4}, 16},
		{Spec{Kind: CP, Rank: []int{16}}, 16},
		{Spec{Kind: CP4, Rank: []int{16}}, 16},
		{Spec{Kind: Tucker2, Rank: []int{16, 24}}, 16},
		{Spec{Kind: TKDCPD, Rank: []int{8, 40, 40}}, 8},
		{Spec{Kind: Spatial, Rank: []int{16}}, 16},
	} {
		c.s.Shape = shape
		for _, gain := range []float64{0, 2} {
			g := gain
			if g == 0 {
				g = DefaultGain
			}
			want := g * g * math.Sqrt(c.rows/576)
			if c.s.Kind == Spatial {
				// Its basis is the row factor alone, of C·k values, for each tap row.
				want = g * g * math.Sqrt(c.rows/192)
			}
			if got := firstStep(t, c.s, gain); math.Abs(got-want) > 0.1*want {
				t.Errorf("%s %v, gain %g: %.4f, want %.4f", c.s.Kind, c.s.Rank, gain, got, want)
			}
		}
	}
	// LoHa's steps have the size of LoRA's but for the spread of its first product.
	lora, loha := firstStep(t, Spec{Kind: LoRA, Shape: shape, Rank: []int{16}}, 0), firstStep(t, Spec{Kind: LoHa, Shape: shape, Rank: []int{16}}, 0)
	if loha < lora/2 || loha > 2*lora {
		t.Errorf("loha %g, lora %g", loha, lora)
	}
	for kind, want := range map[Kind]float64{Parallel: 1. / 3, Full: 1} {
		if got := firstStep(t, Spec{Kind: kind, Shape: shape}, 0); math.Abs(got-want) > 0.02 {
			t.Errorf("%s: %g, want %g", kind, got, want)
		}
	}
}

func TestStartsFollowTheSeed(t *testing.T) {
	s := Spec{Kind: TKDCPD, Shape: [4]int{8, 6, 3, 3}, Rank: []int{2, 3, 4}}
	a, b, c := started[float32](t, s, 1, 0, nil), started[float32](t, s, 1, 0, nil), started[float32](t, s, 2, 0, nil)
	if !slices.Equal(a.Factor("in").Value, b.Factor("in").Value) || slices.Equal(a.Factor("in").Value, c.Factor("in").Value) {
		t.Error("the seed does not decide")
	}
	d, err := New(Spec{Kind: LoRA, Shape: s.Shape, Rank: []int{1}, DoRA: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Init(seeded(1), 0, nil); err == nil {
		t.Error("DoRA started without a base")
	}
}

func TestAnchoredChangesStartAtZeroAndLive(t *testing.T) {
	eachCase(t, func(t *testing.T, s Spec, rng *rand.Rand) {
		c, base := random[float32](t, s, rng)
		whole := kernelOf(t, c, base)
		c.Anchor()
		w := slices.Clone(base)
		c.Materialise(w, base)
		if !slices.Equal(w, base) {
			t.Error("the anchor changes the kernel")
		}
		c.Pull(gaussian[float32](len(base), rng), base)
		for _, f := range c.Factors() {
			if !slices.ContainsFunc(f.Grad, func(v float32) bool { return v != 0 }) {
				t.Errorf("%s has no gradient", f.Name)
			}
		}
		d := c.Clone()
		for _, f := range d.Factors() {
			clear(f.Value)
		}
		minus := kernelOf(t, d, base)
		for i := range minus {
			minus[i] = -minus[i]
		}
		if !slices.Equal(minus, whole) {
			t.Error("without factors it is not minus its anchor")
		}
	})
}

// A filter of zeros has no norm to keep: its change learns all the same.
func TestDoRAOfADeadFilter(t *testing.T) {
	rng := seeded(5)
	s := Spec{Kind: LoRA, Shape: [4]int{3, 4, 3, 3}, Rank: []int{2}, DoRA: true}
	base := gaussian[float64](s.kernelLen(), rng)
	clear(base[36:72])
	c := started(t, s, 1, 0, base)
	c.Pull(gaussian[float64](len(base), rng), base)
	up := c.Factor("up").Grad
	if slices.ContainsFunc(up, func(v float64) bool { return v == 0 || v-v != 0 }) || c.Factor("magnitude").Grad[1] != 0 {
		t.Errorf("gradients %v, of the norms %v", up, c.Factor("magnitude").Grad)
	}
}
