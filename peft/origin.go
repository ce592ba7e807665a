package peft

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/lowrank-go/lowrank/internal/tensorops"
)

// Origin is what a start takes from a kernel.
type Origin string

// The origins.
const (
	// Leading decomposes the kernel and anchors the change there: it is exactly zero
	// with all factors alive, and trains the kernel's leading components (PiSSA,
	// Meng et al. 2024, for tensors; W₀ stays whole).
	Leading Origin = "leading"
	// Minor is Leading for what the leading left singular vectors leave of the
	// kernel, as many of which as outputs are not in the rank (MiLoRA, Wang et al. 2024).
	Minor Origin = "minor"
	// Subspace takes the factors but the outputs', which is zero, and scales them as
	// Init does: of W₀ its row space; of a gradient the directions in which the loss
	// falls fastest (LoRA-GA, Wang et al. 2024).
	Subspace Origin = "subspace"
)

// StartFrom gives the factors values from a kernel, W₀ or a gradient, of the change's
// own shape; either way ΔW is exactly zero. Where the kernel has fewer components than the
// ranks, factors but the outputs' are random for the others, which could not learn as
// zeros. gain is Init's, for Subspace and for these. base is the frozen kernel, which
// Series and DoRA need. The error wraps ErrSpec or, for kinds
// that Extract cannot fit, ErrLossy; the change is then as it was.
func (c *Change[T]) StartFrom(ctx context.Context, kernel, base []float32, origin Origin, gain float64) error {
	spec := c.spec
	spec.Anchored, spec.DoRA = false, false
	x := kernel
	switch origin {
	case Leading, Subspace:
	case Minor:
		if kinds[spec.Kind].ranks == 0 {
			return fmt.Errorf("%w: %s has no minor components", ErrSpec, spec.Kind)
		}
		if len(kernel) != spec.kernelLen() {
			return fmt.Errorf("%w: a kernel of %v has %d weights, got %d", ErrSpec, spec.Shape, spec.kernelLen(), len(kernel))
		}
		var err error
		if x, err = minor(ctx, &spec, kernel); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: origin %q; want %s, %s or %s", ErrSpec, origin, Leading, Minor, Subspace)
	}
	if c.spec.DoRA {
		if err := c.checkBase(widen[T](base)); err != nil {
			return err
		}
	}
	fitted, _, err := Extract(ctx, spec, x, base, Rule{})
	if err != nil {
		return err
	}
	for i, f := range c.net.factors {
		copy(f.Value, widen[T](fitted.net.factors[i].Value))
	}
	if c.lambda != nil {
		c.lambda.Value[0] = T(c.spec.scale())
	}
	if c.magnitude != nil {
		c.setMagnitude(widen[T](base))
	}
	c.spec.Anchored, c.anchor, c.start = false, nil, nil
	if gain <= 0 {
		gain = DefaultGain
	}
	c.fillEmpty(gain)
	if origin != Subspace {
		c.Anchor()
		return nil
	}
	for _, v := range c.output {
		clear(v.value)
	}
	c.net.root.normalise(gain)
	return nil
}

// fillEmpty draws the parts of factors, along their first axes, that are zero, with norms of
// about gain; not those of the outputs' factors. The draws are always the same.
func (c *Change[T]) fillEmpty(gain float64) {
	rng := rand.New(rand.NewPCG(0x656d707479, uint64(c.spec.kernelLen())))
	c.net.root.walk(func(v *node[T]) {
		if v.factor == nil || v.zero {
			return
		}
		width := len(v.value) / v.factor.Shape[0]
		for part := range slices.Chunk(v.value, width) {
			if slices.ContainsFunc(part, func(x T) bool { return x != 0 }) {
				continue
			}
			for i := range part {
				part[i] = T(gain / math.Sqrt(float64(width)) * rng.NormFloat64())
			}
		}
	})
}

// minor is the kernel without its leading left singular vectors, of each group all but
// as many as the first rank.
func minor(ctx context.Context, s *Spec, kernel []float32) ([]float32, error) {
	x := widen[float64](kernel)
	o := s.Shape[0] / s.groups()
	n := len(x) / s.groups()
	lead := o - s.Rank[0]
	if lead <= 0 {
		return kernel, nil
	}
	for g := range s.groups() {
		part := x[g*n : (g+1)*n]
		t, err := truncate(ctx, []int{o, n / o}, part, []int{0}, []int{lead})
		if err != nil {
			return nil, err
		}
		if t == nil {
			continue
		}
		full, err := t.Reconstruct()
		if err != nil {
			return nil, err
		}
		_, leading, err := tensorops.View(full)
		if err != nil {
			return nil, err
		}
		for i, v := range leading {
			part[i] -= v
		}
	}
	return widen[float32](x), nil
}
