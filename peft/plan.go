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
	var chain int64
	c.spec.eachStage(h, w, func(shape [4]int, g conv.Geometry, macs int64) {
		outs := shape[0] / g.Groups
		if outs == 1 && g.Groups > 1 {
			chain += depthwiseCost * macs
		} else {
			chain += macs * int64((outs+panel-1)/panel*panel) / int64(outs)
		}
	})
	if c.Stages() != nil && 3*chain*int64(batch) < base+3*build {
		return Chained
	}
	return Materialised
}

// Costs are the multiply-accumulates of one forward pass of a batch of maps of h×w
// through the chain (0 where there is none), of multiplying the factors out to ΔW, and
// of the frozen convolution on the batch.
func (c *Change[T]) Costs(batch, h, w int) (chain, build, base int64) {
	oh, ow := c.spec.outputSize(h, w)
	base = int64(batch) * int64(oh) * int64(ow) * int64(c.spec.kernelLen())
	if c.Stages() != nil {
		chain = int64(batch) * c.spec.MACs(h, w)
	}
	return chain, c.net.build, base
}

// MACs are the multiply-accumulates of the chain on one map of h×w, and 0 where Stages
// has none for such factors, wrappers apart. A description that is not valid has none.
func (s *Spec) MACs(h, w int) int64 {
	total := int64(0)
	if s.Validate() == nil {
		s.eachStage(h, w, func(_ [4]int, _ conv.Geometry, macs int64) { total += macs })
	}
	return total
}

// eachStage calls f for each stage of the chain, if there is one, with its kernel's shape,
// its geometry and its multiply-accumulates on one map of h×w.
func (s *Spec) eachStage(h, w int, f func(shape [4]int, g conv.Geometry, macs int64)) {
	if kinds[s.Kind].stages == nil {
		return
	}
	for _, st := range kinds[s.Kind].stages(s) {
		if st.afterBase {
			h, w = s.outputSize(h, w)
		}
		g := st.geometry.Normal()
		h, w = (&conv.Kernel{Shape: st.shape, Geometry: g}).OutputSize(h, w)
		f(st.shape, g, int64(h)*int64(w)*int64(st.shape[0]*st.shape[1]*st.shape[2]*st.shape[3]))
	}
}

// outputSize is that of the frozen convolution.
func (s *Spec) outputSize(h, w int) (int, int) {
	return (&conv.Kernel{Shape: s.Shape, Geometry: s.Geometry}).OutputSize(h, w)
}
