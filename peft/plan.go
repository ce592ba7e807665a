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

// Plan is the cheaper plan of a training step on a batch of maps of h×w. With B the
// MACs of the frozen convolution on the batch, and N those of the chain and M those of
// multiplying the factors out, a chained step costs 2B + 3N and a materialised one
// 3B + 3M: chained where N < B/3 + M.
func (c *Change[T]) Plan(batch, h, w int) Plan {
	chain, build, base := c.Costs(batch, h, w)
	if chain > 0 && 3*chain < base+3*build {
		return Chained
	}
	return Materialised
}

// Costs are the multiply-accumulates of one forward pass of a batch of maps of h×w
// through the chain (0 where there is none), of multiplying the factors out to ΔW, and
// of the frozen convolution on the batch.
func (c *Change[T]) Costs(batch, h, w int) (chain, build, base int64) {
	frozen := &conv.Kernel{Shape: c.spec.Shape, Geometry: c.spec.Geometry}
	oh, ow := frozen.OutputSize(h, w)
	base = int64(batch) * int64(oh) * int64(ow) * int64(c.spec.kernelLen())
	if !c.spec.DoRA && !c.spec.Anchored {
		chain = int64(batch) * c.spec.MACs(h, w)
	}
	return chain, c.net.build, base
}

// MACs are the multiply-accumulates of the chain on one map of h×w, and 0 where Stages
// has none for such factors, wrappers apart. A description that is not valid has none.
func (s *Spec) MACs(h, w int) int64 {
	if s.Validate() != nil || kinds[s.Kind].stages == nil {
		return 0
	}
	total := int64(0)
	for _, st := range kinds[s.Kind].stages(s) {
		if st.afterBase {
			h, w = (&conv.Kernel{Shape: s.Shape, Geometry: s.Geometry}).OutputSize(h, w)
		}
		h, w = (&conv.Kernel{Shape: st.shape, Geometry: st.geometry.Normal()}).OutputSize(h, w)
		total += int64(h) * int64(w) * int64(st.shape[0]*st.shape[1]*st.shape[2]*st.shape[3])
	}
	return total
}
