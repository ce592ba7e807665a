package peft

import (
	"errors"
	"fmt"
	"math"

	"github.com/lowrank-go/lowrank/conv"
)

// Errors that others wrap.
var (
	// ErrSpec: a description of a ΔW that makes no sense for its kernel.
	ErrSpec = errors.New("peft: bad description of a change")
	// ErrBase: an adapter and a base network that do not belong together.
	ErrBase = errors.New("peft: another base network")
	// ErrFile: an adapter file that is incomplete or contradicts itself.
	ErrFile = errors.New("peft: bad adapter file")
	// ErrLossy: a conversion that cannot be exact.
	ErrLossy = errors.New("peft: not exact")
)

// Kind names a parametrisation of ΔW. Its text is what files hold.
type Kind string

// The kinds; the package comment has their formulas and costs.
const (
	LoRA     Kind = "lora"
	LoRAView Kind = "lora-view"
	Spatial  Kind = "spatial"
	CP       Kind = "cp"
	CP4      Kind = "cp4"
	Tucker2  Kind = "tucker2"
	Tucker4  Kind = "tucker4"
	TKDCPD   Kind = "tkdcpd"
	LoHa     Kind = "loha"
	LoKr     Kind = "lokr"
	Parallel Kind = "parallel"
	Series   Kind = "series"
	Axial    Kind = "axial"
	Full     Kind = "full"
)

// Match says how an axial convolution that keeps channels apart serves a kernel
// whose numbers of input and output channels differ.
type Match string

// The ways.
const (
	// Dense does not keep them apart: O×C filters.
	Dense Match = ""
	// Copy has a filter for each input channel; output channel o reads filter
	// o mod C. Where O < C the filters from O on are not used.
	Copy Match = "copy"
	// Groups is a convolution in gcd(O, C) groups.
	Groups Match = "groups"
)

// Spec describes a ΔW but for the values of its factors. It is comparable but for
// Rank, and travels with a file as JSON.
type Spec struct {
	Kind Kind `json:"kind"`
	// Shape is the kernel's: O×C/g×kh×kw.
	Shape [4]int `json:"shape"`
	// Geometry is the frozen convolution's.
	conv.Geometry
	// Rank lists the ranks, of one group where the kernel has groups: the output
	// mode's first. LoRA, LoRAView, Spatial, CP and CP4 and LoHa have one; Tucker2
	// has two, Tucker4 four (output, input, rows, columns), TKDCPD three (output,
	// input, and that of the CP); LoKr none for a full second factor, or one. The
	// others have none.
	Rank []int `json:"rank,omitempty"`
	// Scale is λ; 0 means 1. It is what λ starts from where it is learned.
	Scale float64 `json:"scale,omitempty"`
	// Learned makes λ a factor.
	Learned bool `json:"learned,omitempty"`
	// DoRA rescales the output channels of W₀ + λΔW to learned norms.
	DoRA bool `json:"dora,omitempty"`
	// Anchored subtracts the ΔW of the factors that the change was anchored at.
	Anchored bool `json:"anchored,omitempty"`
	// Mid gives LoHa and LoKr a core of taps, LyCORIS's use_tucker.
	Mid bool `json:"mid,omitempty"`
	// Split is the shape of LoKr's first factor, which divides O×C/g; zeros mean
	// the most balanced pairs of divisors, the smaller one in the first factor.
	Split [2]int `json:"split,omitzero"`
	// Both gives LoKr's first factor the rank too.
	Both bool `json:"both,omitempty"`
	// Axes are those along which Axial has filters: "h", "w" or "hw".
	Axes string `json:"axes,omitempty"`
	// Match is Axial's.
	Match Match `json:"match,omitempty"`
}

// AlphaOverRank is LoRA's λ, α/r, or rank-stabilised LoRA's, α/√r (Kalajdzievski
// 2023).
func AlphaOverRank(alpha float64, rank int, stabilised bool) float64 {
	if stabilised {
		return alpha / math.Sqrt(float64(rank))
	}
	return alpha / float64(rank)
}

// scale is λ as it starts.
func (s *Spec) scale() float64 {
	if s.Scale == 0 {
		return 1
	}
	return s.Scale
}

func (s *Spec) groups() int { return max(s.Geometry.Groups, 1) }

// kernelLen is the number of weights of the kernel.
func (s *Spec) kernelLen() int { return s.Shape[0] * s.Shape[1] * s.Shape[2] * s.Shape[3] }

// maxElements bounds the weights of a kernel and the values of a factor, so that
// their products do not overflow and a file cannot ask for any amount of memory.
const maxElements = 1 << 28

// maxRank bounds a rank; more than the kernel's own dimensions is redundant, but
// sums of changes have it.
const maxRank = 1 << 16

// Validate reports a kernel, a geometry, ranks or choices that do not go together;
// the error wraps ErrSpec.
func (s *Spec) Validate() error {
	n := 1
	for _, d := range s.Shape {
		if d < 1 || n > maxElements/d {
			return fmt.Errorf("%w: kernel shape %v; want dimensions from 1, and at most %d weights", ErrSpec, s.Shape, maxElements)
		}
		n *= d
	}
	for a := range 2 {
		if s.Stride[a] < 0 || s.Padding[a] < 0 || s.Dilation[a] < 0 {
			return fmt.Errorf("%w: negative stride %v, padding %v or dilation %v", ErrSpec, s.Stride, s.Padding, s.Dilation)
		}
		if s.Extra[a] < -s.Padding[a] {
			return fmt.Errorf("%w: a padding of %v with %v more at the end is negative there", ErrSpec, s.Padding, s.Extra)
		}
	}
	if g := s.Geometry.Groups; g < 0 || s.Shape[0]%max(g, 1) != 0 {
		return fmt.Errorf("%w: %d outputs do not divide into %d groups", ErrSpec, s.Shape[0], g)
	}
	if s.Scale-s.Scale != 0 {
		return fmt.Errorf("%w: scale %g", ErrSpec, s.Scale)
	}
	k, ok := kinds[s.Kind]
	if !ok {
		return fmt.Errorf("%w: kind %q", ErrSpec, s.Kind)
	}
	if len(s.Rank) != k.ranks && !(s.Kind == LoKr && len(s.Rank) == 1) {
		return fmt.Errorf("%w: %s has %d ranks, got %v", ErrSpec, s.Kind, k.ranks, s.Rank)
	}
	for _, r := range s.Rank {
		if r < 1 || r > maxRank {
			return fmt.Errorf("%w: ranks %v of %s; want them from 1 to %d", ErrSpec, s.Rank, s.Kind, maxRank)
		}
	}
	if s.Kind != Axial && (s.Axes != "" || s.Match != Dense) || s.Kind != LoKr && (s.Split != [2]int{} || s.Both) ||
		s.Kind != LoKr && s.Kind != LoHa && s.Mid {
		return fmt.Errorf("%w: %s with another kind's choices: axes %q, match %q, split %v, both %t, mid %t", ErrSpec, s.Kind, s.Axes, s.Match, s.Split, s.Both, s.Mid)
	}
	if k.check != nil {
		if err := k.check(s); err != nil {
			return err
		}
	}
	t, sizes := k.diagram(s)
	for _, f := range leaves(t, nil) {
		n := 1
		for _, d := range f.shape(sizes) {
			if n > maxElements/d {
				return fmt.Errorf("%w: factor %s of %s has shape %v, above %d values", ErrSpec, f.name, s.Kind, f.shape(sizes), maxElements)
			}
			n *= d
		}
	}
	return nil
}

// Params is the number of values that are learned: the factors, λ where it is and
// DoRA's norms. A description that is not valid has none.
func (s *Spec) Params() int {
	if s.Validate() != nil {
		return 0
	}
	t, sizes := kinds[s.Kind].diagram(s)
	n := 0
	for _, f := range leaves(t, nil) {
		n += size(f.axes(), sizes)
	}
	if s.Learned {
		n++
	}
	if s.DoRA {
		n += s.Shape[0]
	}
	return n
}

// String says what the change is: its kind, ranks and size.
func (s Spec) String() string {
	return fmt.Sprintf("%s %v of %v, %d parameters", s.Kind, s.Rank, s.Shape, s.Params())
}

// leaves appends the factors of t.
func leaves(t *term, to []*term) []*term {
	if t.x != nil {
		return leaves(t.y, leaves(t.x, to))
	}
	if t.name != "" {
		to = append(to, t)
	}
	return to
}
