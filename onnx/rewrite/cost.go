package rewrite

import (
	"github.com/lowrank-go/lowrank/compress"
	"github.com/lowrank-go/lowrank/conv"
)

// What a core does in ONNX Runtime, fitted to 267 chains on a processor with AVX-512
// (quartiles of measured over modelled time 0.87 and 1.11): products with channels
// filled up to whole blocks, and the bytes of every stage's input and output. Depthwise
// stages cost no more than their bytes.
const (
	macsPerSecond  = 89e9
	bytesPerSecond = 35e9
	perStage       = 2e-6
)

// assumed is the size of the smaller map, a side, where the model does not tell.
const assumed = 28

// cost is what a layer takes.
type cost struct {
	params  int
	macs    int64 // 0 where the maps' sizes are not known
	padded  float64
	seconds float64
}

// cost of stages in the layer's place; they need have no weights. block is how many
// channels the runtime computes at a time.
func (l *layer) cost(stages []*conv.Kernel, block int) cost {
	var c cost
	in, out, known := l.in, l.out, true
	for a := range 2 {
		if in[a] > 0 && out[a] > 0 {
			continue
		}
		known = false
		in[a], out[a] = assumed, assumed
		stride := 1
		if i := a - (2 - l.axes); i >= 0 {
			stride = l.geo.stride[i]
		}
		if l.op == "ConvTranspose" {
			out[a] *= stride
		} else {
			in[a] *= stride
		}
	}
	if l.axes < 2 && !known { // one row
		in[0], out[0] = 1, 1
	}
	if l.linear() && !known {
		in, out = [2]int{1, 1}, [2]int{1, 1}
	}
	own := [2]int{owner(&conv.Chain{Stages: stages}, 0), owner(&conv.Chain{Stages: stages}, 1)}
	up := func(n int) float64 { return float64((n + block - 1) / block * block) }
	at := in
	for i, s := range stages {
		next := at
		for a := range 2 {
			if own[a] == i {
				next[a] = out[a]
			}
		}
		pixels := next[0] * next[1]
		if l.op == "ConvTranspose" && (own[0] == i || own[1] == i) {
			pixels = at[0] * at[1] // each is spread out
		}
		groups := max(s.Groups, 1)
		outs, ins, taps := s.Shape[0]/groups, s.Shape[1], s.Taps()
		weights := s.Shape[0] * ins * taps
		c.params += weights
		c.macs += int64(weights) * int64(pixels)
		c.seconds += 4 * float64(s.In()*at[0]*at[1]+s.Out()*next[0]*next[1]) / bytesPerSecond
		if l.linear() {
			c.seconds += 4 * float64(weights) / bytesPerSecond
		}
		if ins == 1 && groups > 1 {
			c.padded += float64(weights * pixels)
		} else {
			padded := float64(groups*taps*pixels) * up(outs)
			if ins >= block {
				padded *= up(ins)
			} else {
				padded *= float64(ins) // the first block is read as it is
			}
			c.padded += padded
			c.seconds += padded / macsPerSecond
		}
		at = next
	}
	c.seconds += perStage * float64(len(stages))
	if !known {
		c.macs = 0
	}
	return c
}

// dense is the one stage of the layer as it is.
func (l *layer) dense() []*conv.Kernel {
	return []*conv.Kernel{{Shape: l.shape, Geometry: conv.Geometry{Groups: l.groups}}}
}

// stages are those of the chain of a method and ranks, without weights; nil for methods
// whose stages depend on more.
func (l *layer) stages(m compress.Method, rank []int) []*conv.Kernel {
	g := l.groups
	t, s, h, w := l.shape[0], l.shape[1], l.shape[2], l.shape[3]
	stage := func(out, in, h, w, groups int) *conv.Kernel {
		return &conv.Kernel{Shape: [4]int{out, in, h, w}, Geometry: conv.Geometry{Groups: groups}}
	}
	r := rank[len(rank)-1] * g
	per := r / g
	switch m {
	case compress.SVD:
		return []*conv.Kernel{stage(r, s, h, w, g), stage(t, per, 1, 1, g)}
	case compress.SVDIn:
		return []*conv.Kernel{stage(r, s, 1, 1, g), stage(t, per, h, w, g)}
	case compress.Spatial:
		return []*conv.Kernel{stage(r, s, h, 1, g), stage(t, per, 1, w, g)}
	case compress.CP:
		return []*conv.Kernel{stage(r, s, 1, 1, g), stage(r, 1, h, w, r), stage(t, per, 1, 1, g)}
	case compress.Separable:
		return []*conv.Kernel{stage(r, s, 1, 1, g), stage(r, 1, h, 1, r), stage(r, 1, 1, w, r), stage(t, per, 1, 1, g)}
	case compress.Tucker:
		out, in := rank[0], per
		var all []*conv.Kernel
		if in < s {
			all = append(all, stage(in*g, s, 1, 1, g))
		}
		all = append(all, stage(out*g, in, h, w, g))
		if out < t/g {
			all = append(all, stage(t, out, 1, 1, g))
		}
		return all
	}
	return nil
}
