package peft

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestSumsAreExact(t *testing.T) {
	eachCase(t, func(t *testing.T, s Spec, rng *rand.Rand) {
		s.Scale = 2
		a, base := random[float64](t, s, rng)
		wider := s
		if kinds[s.Kind].rankAxes != "" {
			wider.Rank = slices.Clone(s.Rank)
			for i := range wider.Rank {
				wider.Rank[i]++
			}
		}
		wider.Learned = true
		b, _ := random[float64](t, wider, rng)
		sum, err := Sum([]float64{3, -0.5}, a, b)
		if s.Kind == LoHa || s.Kind == LoKr {
			if !errors.Is(err, ErrLossy) {
				t.Errorf("error %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		want, kb := kernelOf(t, a, base), kernelOf(t, b, base)
		for i := range want {
			want[i] = 3*want[i] - kb[i]/2
		}
		if d := distance(kernelOf(t, sum, base), want); d > 1e-13 {
			t.Errorf("relative difference %g", d)
		}
		if sum.Lambda() != 1 || len(s.Rank) > 0 && sum.Spec().Rank[0] != 2*s.Rank[0]+1 {
			t.Errorf("sum is %v, λ %g", sum.Spec(), sum.Lambda())
		}
		one, err := Sum([]float64{1}, a)
		if err != nil {
			t.Fatal(err)
		}
		if d := distance(kernelOf(t, one, base), kernelOf(t, a, base)); d > 1e-15 || !slices.Equal(one.Spec().Rank, s.Rank) {
			t.Errorf("the sum of one differs by %g, ranks %v", d, one.Spec().Rank)
		}
		a.Anchor()
		for _, f := range a.Factors() {
			fill(f.Value, rng)
		}
		flat, err := Sum([]float64{1}, a)
		if err != nil {
			t.Fatal(err)
		}
		if d := distance(kernelOf(t, flat, base), kernelOf(t, a, base)); d > 1e-13 || flat.Spec().Anchored {
			t.Errorf("the sum of an anchored change differs by %g", d)
		}
	})
}

func TestSumsOfChangesThatDoNotFit(t *testing.T) {
	s := Spec{Kind: LoRA, Shape: [4]int{4, 4, 3, 3}, Rank: []int{2}}
	a, _ := random[float32](t, s, seeded(1))
	other := s
	other.Shape[0] = 5
	b, _ := random[float32](t, other, seeded(1))
	other = s
	other.DoRA = true
	c, _ := random[float32](t, other, seeded(1))
	other = s
	other.Kind = CP
	d, _ := random[float32](t, other, seeded(1))
	for name, try := range map[string]func() error{
		"nothing": func() error { _, err := Sum[float32](nil); return err },
		"weights": func() error { _, err := Sum([]float64{1}, a, a); return err },
		"shape":   func() error { _, err := Sum([]float64{1, 1}, a, b); return err },
		"dora":    func() error { _, err := Sum([]float64{1, 1}, a, c); return err },
		"kind":    func() error { _, err := Sum([]float64{1, 1}, a, d); return err },
		"padded":  func() error { _, err := a.Padded([]int{1}); return err },
		"ranks":   func() error { _, err := a.Padded([]int{3, 3}); return err },
	} {
		if err := try(); !errors.Is(err, ErrSpec) && !errors.Is(err, ErrLossy) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPaddingChangesNothing(t *testing.T) {
	eachCase(t, func(t *testing.T, s Spec, rng *rand.Rand) {
		for _, s := range wrapped(s) {
			c, base := random[float64](t, s, rng)
			rank := slices.Clone(s.Rank)
			for i := range rank {
				rank[i] += 1 + i
			}
			p, err := c.Padded(rank)
			if kinds[s.Kind].rankAxes == "" {
				if !errors.Is(err, ErrSpec) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := distance(kernelOf(t, p, base), kernelOf(t, c, base)); d > 1e-14 {
				t.Errorf("relative difference %g", d)
			}
		}
	})
}
