package resnet

import (
	"math"
	"math/rand/v2"

	"github.com/lowrank-go/lowrank/conv"
)

// ResidualSerial is the residual adapter of Rebuffi et al. (2018) as it was released:
// behind the convolution, y + A∗BN(y) with a 1×1 convolution A. A is zero at first, so
// that the unit is what it was.
func ResidualSerial(u *Unit) *Module {
	outs := u.Chain.Out()
	m := &Module{Place: Serial, Scale: 1, Steps: []*Step{
		{Unit: &Unit{Norm: newNorm("", outs)}},
		{Unit: &Unit{Chain: zeroConv([4]int{outs, outs, 1, 1}, conv.Geometry{}, false)}},
	}}
	return m
}

// Bottleneck is a convolution of the unit's size that reduces the channels to 1/gamma of
// them, each a group of its own, ReLU, and a 1×1 convolution to the unit's outputs,
// beside the unit's convolution (Conv-Adapter, Chen et al. 2022, in Houlsby's order; its
// scales of the outputs are in the last convolution here, which is zero at first, where
// theirs is not). Where gamma does not divide the channels the divisor next to it does.
func Bottleneck(u *Unit, gamma int, rng *rand.Rand) *Module {
	shape, g := u.Chain.Shape()
	in := u.Chain.In()
	gamma = nearestDivisor(in, gamma)
	inner := in / gamma
	g.Groups = inner
	m := &Module{Place: Parallel, Scale: 1, Steps: []*Step{
		{Unit: &Unit{Chain: zeroConv([4]int{inner, gamma, shape[2], shape[3]}, g, true)}, ReLU: true},
		{Unit: &Unit{Chain: zeroConv([4]int{u.Chain.Out(), inner, 1, 1}, conv.Geometry{}, true)}},
	}}
	m.randomise(rng)
	return m
}

// Chapter is CHAPTER's adapter (Chen et al. 2023) for networks on images: a copy of the
// unit, its convolution along the rows' axis alone, with a batch norm of its own and
// ReLU, added to the unit's output with the published scale of 0.01 where scale is 0.
// groups, which must divide the channels, makes the convolution cheaper; 0 means 1.
//
// The published convolution is zero at first. That works with their GELU, and for ever
// stays zero with ReLU, which passes no gradient at 0. So the convolution is random here,
// and a scale for each channel behind ReLU, a convolution of its own, is zero.
func Chapter(u *Unit, groups int, scale float64, rng *rand.Rand) *Module {
	shape, g := u.Chain.Shape()
	outs := u.Chain.Out()
	if scale == 0 {
		scale = .01
	}
	g.Groups, g.Padding[1], g.Extra[1], g.Dilation[1] = max(groups, 1), 0, 0, 1
	m := &Module{Place: After, Scale: scale, Steps: []*Step{
		{Unit: &Unit{Chain: zeroConv([4]int{outs, u.Chain.In() / g.Groups, shape[2], 1}, g, false), Norm: newNorm("", outs)}, ReLU: true},
		{Unit: &Unit{Chain: zeroConv([4]int{outs, 1, 1, 1}, conv.Geometry{Groups: outs}, false)}},
	}}
	m.randomise(rng)
	return m
}

// nearestDivisor is the divisor of n next to want, the smaller of two.
func nearestDivisor(n, want int) int {
	best := 1
	for d := 1; d <= n; d++ {
		if n%d == 0 && max(d-want, want-d) < max(best-want, want-best) {
			best = d
		}
	}
	return best
}

// zeroConv is a convolution of zeros.
func zeroConv(shape [4]int, g conv.Geometry, bias bool) *conv.Chain {
	k := &conv.Kernel{Shape: shape, Weight: make([]float32, shape[0]*shape[1]*shape[2]*shape[3]), Geometry: g.Normal()}
	if bias {
		k.Bias = make([]float32, shape[0])
	}
	return conv.NewDense(k)
}

// randomise lets the module begin anew, with random convolutions, as New's are, and the
// norms of New; but for the last convolution, or where a norm stands behind it that
// norm's scale, which is zero, so that the module adds nothing. Chains become ordinary
// convolutions.
func (m *Module) randomise(rng *rand.Rand) {
	for i, s := range m.Steps {
		last := i == len(m.Steps)-1
		if c := s.Chain; c != nil {
			shape, g := c.Shape()
			s.Chain = zeroConv(shape, g, c.Last().Bias != nil)
			if !last || s.Norm != nil {
				normal(s.Chain.Stages[0], rng)
			}
		}
		if s.Norm != nil {
			s.Norm = newNorm(s.Norm.Name, len(s.Norm.Weight))
			if last {
				clear(s.Norm.Weight)
			}
		}
	}
}

// normal draws weights of variance 2/(T·kh·kw), T being the outputs of a group.
func normal(k *conv.Kernel, rng *rand.Rand) {
	deviation := math.Sqrt(2 / float64(k.Shape[0]/max(k.Groups, 1)*k.Taps()))
	for i := range k.Weight {
		k.Weight[i] = float32(deviation * rng.NormFloat64())
	}
}

// newNorm is a batch norm of ones and zeros.
func newNorm(name string, channels int) *Norm {
	m := &Norm{Name: name, Eps: 1e-5, Batches: new(int64),
		Weight: make([]float32, channels), Bias: make([]float32, channels), Mean: make([]float32, channels), Var: make([]float32, channels)}
	for i := range channels {
		m.Weight[i], m.Var[i] = 1, 1
	}
	return m
}
