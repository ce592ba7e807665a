package adapt

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/lowrank-go/lowrank/peft"
)

// Start says where the factors of a change come from. With each the network is at first
// what it was, to the bit.
type Start string

// The starts. Those that decompose a kernel train all factors from the first step; they are
// anchored (peft.Change.Anchor), for which the kernel is put together in each step. The
// others have factors of zeros at the outputs.
const (
	// Random draws the factors.
	Random Start = "random"
	// FromKernel trains the leading components of the kernel (PiSSA, Meng et al. 2024).
	FromKernel Start = "kernel"
	// FromMinor trains its minor components (MiLoRA, Wang et al. 2024).
	FromMinor Start = "minor"
	// FromSubspace reads the inputs that the kernel's leading components read.
	FromSubspace Start = "subspace"
	// FromGradient reads those along which the loss falls fastest, by Options.Gradients
	// (LoRA-GA, Wang et al. 2024).
	FromGradient Start = "gradient"
)

// Starts lists the starts.
var Starts = []Start{Random, FromKernel, FromMinor, FromSubspace, FromGradient}

// ByGradient tells whether Options.Gradients are looked at.
func (o *Options) ByGradient() bool { return o.Start == FromGradient || o.Choose.Of == Gradient }

func (o *Options) checkStart(m method) error {
	switch {
	case o.Start == "" || o.Start == Random:
		return nil
	case !slices.Contains(Starts, o.Start):
		return fmt.Errorf("%w: start %q; want one of %v", ErrOption, o.Start, Starts)
	case m.kind == "" || len(m.rank) == 0:
		return fmt.Errorf("%w: start %q; method %s has no factors to start", ErrOption, o.Start, o.Method)
	}
	return nil
}

// start gives the factors of a change their first values.
func (o *Options) start(ctx context.Context, d *peft.Delta, s *site, rng *rand.Rand) error {
	from, origin := s.base, peft.Leading
	switch o.Start {
	case "", Random:
		return d.Init(rng, o.Gain, s.base)
	case FromMinor:
		origin = peft.Minor
	case FromSubspace:
		origin = peft.Subspace
	case FromGradient:
		from, origin = o.Gradients[s.Name], peft.Subspace
	}
	if err := d.StartFrom(ctx, from, s.base, origin, o.Gain); err != nil {
		return asOption("start "+string(o.Start), err) // the caller tells the layer
	}
	return nil
}
