package peft

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// exactTargets are the kinds that each becomes exactly, beside itself and Full.
var exactTargets = map[Kind][]Kind{
	CP:       {Tucker2, Tucker4, TKDCPD, LoRA},
	CP4:      {CP, Tucker2, Tucker4, TKDCPD, LoRA},
	TKDCPD:   {CP, Tucker2, Tucker4, LoRA},
	Tucker2:  {Tucker4, LoRA},
	Tucker4:  {Tucker2, LoRA},
	LoRA:     {Tucker2, Tucker4},
	Spatial:  {LoRA, Tucker2, Tucker4},
	LoRAView: {LoRA, Tucker2, Tucker4},
	LoHa:     {LoRA, Tucker2, Tucker4},
	LoKr:     {LoRA, Tucker2, Tucker4},
}

func TestExactConversionsAreExact(t *testing.T) {
	eachCase(t, func(t *testing.T, s Spec, rng *rand.Rand) {
		s.Scale, s.Learned = -0.25, true
		c, base := random[float32](t, s, rng)
		want := kernelOf(t, c, base)
		for _, to := range append([]Kind{s.Kind, Full}, exactTargets[s.Kind]...) {
			spec := Spec{Kind: to}
			if to == s.Kind {
				spec = s
				spec.Rank = nil
			}
			got, how, err := Convert(context.Background(), c, spec, base, nil)
			if s.Kind == LoRAView && s.groups() > 1 && to != Full && to != LoRAView {
				if !errors.Is(err, ErrLossy) {
					t.Errorf("to %s: %v", to, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("to %s: %v", to, err)
			}
			d := distance(kernelOf(t, got, base), want)
			if !how.Exact || d > 2e-6 || how.RelError > 2e-6 || how.Path[0] != s.Kind || how.Path[len(how.Path)-1] != to || got.Spec().Kind != to {
				t.Errorf("to %s: %+v, measured %g", to, how, d)
			}
			// And back, where that is exact too, by way of the ranks.
			if slices.Contains(exactTargets[to], s.Kind) {
				back, how, err := Convert(context.Background(), got, Spec{Kind: s.Kind}, base, nil)
				if err != nil || !how.Exact || distance(kernelOf(t, back, base), want) > 2e-6 {
					t.Errorf("to %s and back: %+v, %v", to, how, err)
				}
			}
		}
	})
}

func TestLossyConversionsSaySo(t *testing.T) {
	rng := seeded(6)
	s := Spec{Kind: LoRA, Shape: [4]int{12, 8, 3, 3}, Rank: []int{4}}
	c, base := random[float32](t, s, rng)
	want := kernelOf(t, c, base)
	if _, _, err := Convert(context.Background(), c, Spec{Kind: CP}, base, nil); !errors.Is(err, ErrLossy) {
		t.Errorf("LoRA to CP: %v", err)
	}
	for _, to := range []Spec{{Kind: CP, Rank: []int{8}}, {Kind: TKDCPD, Rank: []int{4, 6, 10}}, {Kind: LoRA, Rank: []int{2}}, {Kind: Parallel}, {Kind: LoKr, Rank: []int{2}}, {Kind: LoRA, Rank: []int{3}, DoRA: true}} {
		got, how, err := Convert(context.Background(), c, to, base, nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := distance(kernelOf(t, got, base), want); how.Exact || how.RelError <= 1e-5 || d > how.RelError*1.001 || d < how.RelError*0.999 {
			t.Errorf("to %s %v: %+v, measured %g", to.Kind, to.Rank, how, d)
		}
	}
	got, how, err := Convert(context.Background(), c, Spec{Kind: LoRA}, base, &Rule{Energy: 0.5})
	if err != nil || !how.Exact || got.Spec().Rank[0] != 4 {
		t.Errorf("a rule is for what is not exact: %+v %v", how, err)
	}
	got, how, err = Convert(context.Background(), c, Spec{Kind: LoRA, Rank: []int{6}}, base, nil)
	if err != nil || !how.Exact || got.Spec().Rank[0] != 6 {
		t.Errorf("raised ranks: %+v %v", how, err)
	}
	r, e, err := Round(context.Background(), c, []int{3}, base, nil)
	if err != nil || r.Spec().Rank[0] != 3 || e < 0.1 || e > 0.7 {
		t.Errorf("rounded: %v, error %g, %v", r.Spec(), e, err)
	}
	if _, e, err = Round(context.Background(), c, nil, base, &Rule{Energy: 0.9}); err != nil || e*e > 0.1+1e-6 {
		t.Errorf("rounded: error %g, %v", e, err)
	}
	if _, _, err = Round(context.Background(), c, nil, base, nil); !errors.Is(err, ErrSpec) {
		t.Errorf("error %v", err)
	}
}

func TestWrappersAreConverted(t *testing.T) {
	rng := seeded(8)
	s := Spec{Kind: CP, Shape: [4]int{6, 4, 3, 3}, Rank: []int{3}, DoRA: true, Learned: true, Scale: 2}
	c, base := random[float32](t, s, rng)
	want := kernelOf(t, c, base)
	for _, to := range []Spec{{Kind: LoRA, DoRA: true}, {Kind: CP, DoRA: true, Learned: true}, {Kind: Full}, {Kind: Full, DoRA: true, Rank: nil}} {
		got, how, err := Convert(context.Background(), c, to, base, &Rule{Energy: 1})
		if err != nil {
			t.Fatal(err)
		}
		if d := distance(kernelOf(t, got, base), want); d > 1e-5 {
			t.Errorf("to %+v: %+v, measured %g", to, how, d)
		}
	}
	// Norms that scale nothing.
	s.DoRA = false
	c, _ = random[float32](t, s, rng)
	got, how, err := Convert(context.Background(), c, Spec{Kind: LoRA, DoRA: true}, base, nil)
	if err != nil || !how.Exact || how.RelError > 1e-5 || got.Factor("magnitude") == nil {
		t.Errorf("%+v, %v", how, err)
	}
	// Anchors are summands.
	c.Anchor()
	for _, f := range c.Factors() {
		fill(f.Value, rng)
	}
	got, how, err = Convert(context.Background(), c, Spec{Kind: LoRA}, base, nil)
	if err != nil || !how.Exact || how.RelError > 1e-5 || got.Spec().Rank[0] != 6 {
		t.Errorf("%+v, %v", how, err)
	}
	// λ = 0 is no change, of any kind.
	c, _ = random[float32](t, s, rng)
	c.Factor("lambda").Value[0] = 0
	got, how, err = Convert(context.Background(), c, Spec{Kind: LoRA}, base, nil)
	if err != nil || norm(0, kernelOf(t, got, base), nil) != 0 {
		t.Errorf("%+v, %v", how, err)
	}
	for _, bad := range []Spec{{Kind: "x"}, {Kind: LoRA, Anchored: true}} {
		if _, _, err := Convert(context.Background(), c, bad, base, nil); !errors.Is(err, ErrSpec) {
			t.Errorf("error %v", err)
		}
	}
	if _, _, err := Convert(context.Background(), c, Spec{Kind: LoRA, DoRA: true}, nil, nil); !errors.Is(err, ErrSpec) {
		t.Errorf("error %v", err)
	}
}

func TestStartsFromKernels(t *testing.T) {
	eachCase(t, func(t *testing.T, s Spec, rng *rand.Rand) {
		for _, origin := range []Origin{Leading, Minor, Subspace} {
			for _, s := range []Spec{s, wrapped(s)[3]} {
				c, base := random[float32](t, s, rng)
				err := c.StartFrom(context.Background(), base, base, origin, 0)
				if s.Mid || origin == Minor && kinds[s.Kind].ranks == 0 {
					if !errors.Is(err, ErrLossy) && !errors.Is(err, ErrSpec) {
						t.Errorf("%s: error %v", origin, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				w := slices.Clone(base)
				c.Materialise(w, base)
				if !slices.Equal(w, base) {
					t.Errorf("%s: the start changes the kernel", origin)
				}
				c.Pull(gaussian[float32](len(base), rng), base)
				for _, f := range c.Factors() {
					// λ and DoRA's norms apart, anchored factors are alive, and of the
					// others the outputs' alone.
					alive := slices.ContainsFunc(f.Grad, func(v float32) bool { return v != 0 })
					if f.Name == "lambda" || f.Name == "magnitude" {
						continue
					}
					if want := origin != Subspace || slices.ContainsFunc(c.output, func(v *node[float32]) bool { return v.factor == f }); alive != want {
						t.Errorf("%s: %s has a gradient: %t", origin, f.Name, alive)
					}
				}
			}
		}
	})
}

// Of a kernel with fewer components than ranks, or none, the rest learn too.
func TestStartsFromKernelsWithLittleInThemLearn(t *testing.T) {
	eachCase(t, func(t *testing.T, s Spec, rng *rand.Rand) {
		if s.Mid || len(s.Rank) == 0 {
			return
		}
		for _, lone := range []float32{0, 1} {
			for _, origin := range []Origin{Leading, Minor, Subspace} {
				if origin == Minor && s.Kind == LoKr {
					continue
				}
				c, base := random[float32](t, s, rng)
				kernel := make([]float32, len(base))
				kernel[0] = lone
				if err := c.StartFrom(context.Background(), kernel, base, origin, 0); err != nil {
					t.Fatal(err)
				}
				if norm(0, kernelOf(t, c, base), nil) != 0 {
					t.Errorf("%s: the start changes the kernel", origin)
				}
				c.Pull(gaussian[float32](len(base), rng), base)
				for _, v := range c.output {
					if slices.Contains(v.factor.Grad, 0) {
						t.Errorf("%s of a kernel with %g in it: %s has gradients of zero", origin, lone, v.factor.Name)
					}
				}
			}
		}
	})
}

// The subspace of a gradient: the first step goes where the gradient does, more than
// from a random start.
func TestAStartFromTheGradientFollowsIt(t *testing.T) {
	rng := seeded(12)
	s := Spec{Kind: LoRA, Shape: [4]int{16, 8, 3, 3}, Rank: []int{2}}
	low, _ := random[float32](t, s, rng)
	g := kernelOf(t, low, nil)
	step := func(c *Delta) float64 {
		c.Pull(g, nil)
		up := c.Factor("up")
		copy(up.Value, up.Grad)
		k := kernelOf(t, c, nil)
		return float64(dot(k, g) / norm(0, k, nil) / norm(0, g, nil))
	}
	c := started[float32](t, s, 1, 0, nil)
	blind := step(c)
	if err := c.StartFrom(context.Background(), g, nil, Subspace, 0); err != nil {
		t.Fatal(err)
	}
	if seen := step(c); seen < 0.9 || blind > 0.5 {
		t.Errorf("cosines %g from the gradient, %g at random", seen, blind)
	}
	// Minor components of a kernel of rank 2 are none.
	if err := c.StartFrom(context.Background(), g, nil, Minor, 0); err != nil {
		t.Fatal(err)
	}
	if n := norm(0, c.Factor("up").Value, nil); n > 1e-2 {
		t.Errorf("minor components of norm %g", n)
	}
	if err := c.StartFrom(context.Background(), g, nil, "x", 0); !errors.Is(err, ErrSpec) {
		t.Errorf("error %v", err)
	}
	if err := c.StartFrom(context.Background(), g[1:], nil, Minor, 0); !errors.Is(err, ErrSpec) {
		t.Errorf("error %v", err)
	}
}
