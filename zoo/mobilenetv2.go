package zoo

import (
	"fmt"

	"github.com/lowrank-go/lowrank/graph"
)

func init() {
	families = append(families, family{names: []string{"mobilenet_v2"}, is: isMobileNetV2, build: (*builder).mobileNetV2})
}

// mobileNetV2Stages are table 2 of Sandler et al. (2018).
var mobileNetV2Stages = []struct{ expansion, out, blocks, stride int }{
	{1, 16, 1, 1}, {6, 24, 2, 2}, {6, 32, 3, 2}, {6, 64, 4, 2}, {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1},
}

func isMobileNetV2(r *graph.Reader) bool { return r.Has("features.1.conv.0.0.weight") }

// mobileNetV2 builds the network of the paper, or that of a state dict with any widths.
func (b *builder) mobileNetV2(string) error {
	b.g.Arch = "mobilenet_v2"
	blocks := 0
	for _, s := range mobileNetV2Stages {
		blocks += s.blocks
	}
	if !b.random() {
		if n := b.count(func(i int) string { return fmt.Sprintf("features.%d.conv.0.0", i+1) }); n != blocks {
			return fmt.Errorf("%w: %d blocks, the last is features.%d; MobileNetV2 has %d, and which of others have strides no name tells", ErrUnknown, n, n, blocks)
		}
	}
	x := b.begin("features.0.0", 224)
	x = b.unit("features.0", x, square(32, 3, 2, 1), 1e-5, relu6)
	at := 1
	for _, s := range mobileNetV2Stages {
		for i := range s.blocks {
			stride := 1
			if i == 0 {
				stride = s.stride
			}
			x = b.mobileNetV2Block(fmt.Sprintf("features.%d", at), x, s.expansion, s.out, stride)
			at++
		}
	}
	x = b.unit(fmt.Sprintf("features.%d", at), x, square(1280, 1, 1, 0), 1e-5, relu6)
	x = b.vector(x)
	x = b.dropout("classifier.0", x, .2)
	b.head(x, "classifier.1")
	return b.err
}

// mobileNetV2Block adds an inverted residual, which is added to its input where both have
// one shape.
func (b *builder) mobileNetV2Block(name string, in *graph.Node, expansion, out, stride int) *graph.Node {
	x, at := in, 0
	next := func() string { at++; return fmt.Sprintf("%s.conv.%d", name, at-1) }
	if b.random() && expansion > 1 || !b.random() && b.r.Has(name+".conv.1.0.weight") {
		x = b.unit(next(), x, square(b.channels[x]*expansion, 1, 1, 0), 1e-5, relu6)
	}
	x = b.unit(next(), x, b.depthwise(x, 3, stride), 1e-5, relu6)
	x = b.conv(next(), x, square(out, 1, 1, 0))
	x = b.norm(next(), x)
	if stride == 1 && b.channels[x] == b.channels[in] {
		x = b.sum(name+".add", x, in)
	}
	return x
}
