package zoo

import (
	"fmt"
	"math"
	"slices"

	"github.com/lowrank-go/lowrank/graph"
)

func init() {
	f := family{is: isEfficientNet, build: (*builder).efficientNet}
	for _, e := range efficientNets {
		f.names = append(f.names, e.name)
	}
	families = append(families, f)
}

// efficientNetStages are table 1 of Tan and Le (2019).
var efficientNetStages = []struct{ expansion, taps, stride, out, blocks int }{
	{1, 3, 1, 16, 1}, {6, 3, 2, 24, 2}, {6, 5, 2, 40, 2}, {6, 3, 2, 80, 3}, {6, 5, 1, 112, 3}, {6, 5, 2, 192, 4}, {6, 3, 1, 320, 1},
}

// efficientNet is a scaled network.
type efficientNet struct {
	name         string
	width, depth float64
	dropout      float64
	resize, crop int
}

// scaled is the channels for those of table 1.
func (e *efficientNet) scaled(channels int) int {
	return divisible(int(math.Round(float64(channels)*e.width*10)), 80) / 10
}

// efficientNets are made of table 1 by scaling the channels and the blocks, and have their
// own sizes of images.
var efficientNets = []efficientNet{
	{"efficientnet_b0", 1, 1, .2, 256, 224},
	{"efficientnet_b1", 1, 1.1, .2, 256, 240},
	{"efficientnet_b2", 1.1, 1.2, .3, 288, 288},
	{"efficientnet_b3", 1.2, 1.4, .3, 320, 300},
}

func isEfficientNet(r *graph.Reader) bool { return has(r, "features.1.0.block.0.0") }

// efficientNet builds the network called arch, or that of a state dict, of any widths and
// numbers of blocks. Norms have the Eps of torchvision's; whole blocks are never left out
// (stochastic depth).
func (b *builder) efficientNet(arch string) error {
	var blocks []int
	e := efficientNets[0]
	if b.random() {
		for _, v := range efficientNets {
			if v.name == arch {
				e = v
			}
		}
		for _, s := range efficientNetStages {
			blocks = append(blocks, int(math.Ceil(float64(s.blocks)*e.depth)))
		}
	} else {
		for i := range efficientNetStages {
			blocks = append(blocks, b.count(func(l int) string { return fmt.Sprintf("features.%d.%d.block.0.0", i+1, l) }))
		}
		if at := slices.Index(blocks, 0); at >= 0 {
			return fmt.Errorf("%w: EfficientNet has 7 stages; there is no tensor called %q", ErrUnknown, fmt.Sprintf("features.%d.0.block.0.0.weight", at+1))
		}
		e.name = "efficientnet"
		last := b.r.Shape("features.8.0.weight")
		for _, v := range efficientNets {
			same := len(last) == 4 && last[1] == v.scaled(320)
			for i, s := range efficientNetStages {
				same = same && blocks[i] == int(math.Ceil(float64(s.blocks)*v.depth))
			}
			if same {
				e = v
			}
		}
	}
	b.g.Arch = e.name
	const eps = 1e-5
	size, pre := pixels(224)
	size, pre.Resize, pre.Crop = [2]int{e.crop, e.crop}, e.resize, [2]int{e.crop, e.crop}
	x := b.start(b.images("features.0.0"), size, pre)
	x = b.unit("features.0", x, square(e.scaled(32), 3, 2, 1), eps, silu)
	for i, s := range efficientNetStages {
		for l := range blocks[i] {
			stride := s.stride
			if l > 0 {
				stride = 1
			}
			in := b.channels[x]
			x = b.inverted(fmt.Sprintf("features.%d.%d", i+1, l), x, inverted{
				taps: s.taps, stride: stride, expanded: divisible(in*s.expansion, 8), out: e.scaled(s.out), squeeze: max(in/4, 1),
				eps: eps, function: silu, squeezed: silu, gate: sigmoid,
			})
		}
	}
	x = b.unit(fmt.Sprintf("features.%d", len(blocks)+1), x, square(4*b.channels[x], 1, 1, 0), eps, silu)
	x = b.vector(x)
	x = b.dropout("classifier.0", x, e.dropout)
	b.head(x, "classifier.1")
	return b.err
}
