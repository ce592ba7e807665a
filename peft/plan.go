package peft

import "github.com/lowrank-go/lowrank/conv"

// Plan is a way to compute with a change while it is trained.
type Plan string

// The plans.
const (
	// Materialised adds ΔW to the kernel once a step and pulls the kernel's
	// gradient back: the cost of building it does not depend on the batch.
	Materialised Plan = "materialise"
	// Chained runs the chain beside the frozen convolution, which then needs no
	// gradient of its kernel.
	Chained Plan = "chain"
)

// What operations cost relative to those of an ordinary convolution, as they run:
// Winograd's method takes a quarter of the multiplications, and what it takes to get
// there; outputs are computed in panels, full or not; depthwise stages wait for memory.
const (
	fastGain      = 2
	panel         = 16
	depthwiseCost = 3
)

// Plan is the cheaper plan of a training step on a batch of maps of h×w, Materialised
// where there is no chain. With B the cost of the frozen convolution on the batch, and
// N that of the chain and M that of multiplying the factors out, a chained step costs
// 2B + 3N and a materialised one 3B + 3M: chained where N < B/3 + M. The costs are
// those of Costs, weighted by how fast each operation runs.
func (c *Change[T]) Plan(batch, h, w int) Plan {
	_, build, base := c.Costs(batch, h, w)
	if conv.Fast(c.spec.Shape, c.spec.Geometry) {
		base /= fastGain
	}
	stages := c.Stages()
	var chain int64
	for i, macs := range c.stageCosts(stages, batch, h, w) {
		s := stages[i]
		outs := s.Shape[0] / s.Geometry.Groups
		if outs == 1 && s.Geometry.Groups > 1 {
			chain += depthwiseCost * macs
		} else {
			chain += macs * int64((outs+panel-1)/panel*panel) / int64(outs)
		}
	}
	if len(stages) > 0 && 3*chain < base+3*build {
		return Chained
	}
	return Materialised
}

// Costs are the multiply-accumulates of one forward pass of a batch of maps of h×w
// through the chain (0 where there is none), of multiplying the factors out to ΔW, and
// of the frozen convolution on the batch.
func (c *Change[T]) Costs(batch, h, w int) (chain, build, base int64) {
	oh, ow := c.outputSize(h, w)
	base = int64(batch) * int64(oh) * int64(ow) * int64(c.spec.kernelLen())
	for _, macs := range c.stageCosts(c.Stages(), batch, h, w) {
		chain += macs
	}
	return chain, c.net.build, base
}

// outputSize is that of the frozen convolution.
func (c *Change[T]) outputSize(h, w int) (int, int) {
	return (&conv.Kernel{Shape: c.spec.Shape, Geometry: c.spec.Geometry}).OutputSize(h, w)
}

// stageCosts are the multiply-accumulates of each stage.
func (c *Change[T]) stageCosts(stages []*Stage[T], batch, h, w int) []int64 {
	costs := make([]int64, len(stages))
	for i, s := range stages {
		if s.AfterBase {
			h, w = c.outputSize(h, w)
		}
		h, w = (&conv.Kernel{Shape: s.Shape, Geometry: s.Geometry}).OutputSize(h, w)
		costs[i] = int64(batch) * int64(h) * int64(w) * int64(len(s.factor.Value))
	}
	return costs
}
