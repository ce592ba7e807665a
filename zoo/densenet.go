package zoo

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/lowrank-go/lowrank/graph"
)

func init() {
	f := family{is: isDenseNet, build: (*builder).denseNet}
	for _, d := range denseNets {
		f.names = append(f.names, d.name)
	}
	families = append(families, f)
}

// denseNetConfig is a network of Huang et al. (2017), table 1.
type denseNetConfig struct {
	name   string
	blocks []int
	growth int // of the channels by a layer; the stem has twice as many
}

var denseNets = []denseNetConfig{
	{"densenet121", []int{6, 12, 24, 16}, 32},
	{"densenet161", []int{6, 12, 36, 24}, 48},
	{"densenet169", []int{6, 12, 32, 32}, 32},
	{"densenet201", []int{6, 12, 48, 32}, 32},
}

// bottleneck is how many times the growth a layer's 1×1 convolution gives.
const bottleneck = 4

// oldDense are torchvision's names of layers before version 0.2, norm.1 for norm1.
var oldDense = regexp.MustCompile(`(denselayer\d+\.(?:norm|conv))([12])\.`)

func isDenseNet(r *graph.Reader) bool {
	return has(r, "features.conv0") && (has(r, "features.denseblock1.denselayer1.conv1") || has(r, "features.denseblock1.denselayer1.conv.1"))
}

// denseNet builds the network called arch, or that of a state dict, of any widths and
// numbers of layers.
func (b *builder) denseNet(arch string) error {
	var c denseNetConfig
	if b.random() {
		c = denseNets[slices.IndexFunc(denseNets, func(d denseNetConfig) bool { return d.name == arch })]
	} else {
		if b.r.Has("features.denseblock1.denselayer1.conv.1.weight") {
			name := b.r.Name
			b.r.Name = func(n string) string { return name(oldDense.ReplaceAllString(n, "$1.$2.")) }
		}
		c.name = "densenet"
		for {
			n := b.count(func(i int) string {
				return fmt.Sprintf("features.denseblock%d.denselayer%d.conv1", len(c.blocks)+1, i+1)
			})
			if n == 0 {
				break
			}
			c.blocks = append(c.blocks, n)
		}
		for _, d := range denseNets {
			if slices.Equal(d.blocks, c.blocks) {
				c.name = d.name
			}
		}
	}
	b.g.Arch = c.name
	x := b.begin("features.conv0", 224)
	x = b.conv("features.conv0", x, square(2*c.growth, 7, 2, 3))
	x = b.norm("features.norm0", x)
	x = b.relu("features.relu0", x)
	x = b.maxPool("features.pool0", x, 3, 2, 1, false)
	for i, layers := range c.blocks {
		block := fmt.Sprintf("features.denseblock%d", i+1)
		for l := range layers {
			name := fmt.Sprintf("%s.denselayer%d", block, l+1)
			y := b.norm(name+".norm1", x)
			y = b.relu(name+".relu1", y)
			y = b.conv(name+".conv1", y, square(bottleneck*c.growth, 1, 1, 0))
			y = b.norm(name+".norm2", y)
			y = b.relu(name+".relu2", y)
			y = b.conv(name+".conv2", y, square(c.growth, 3, 1, 1))
			x = b.concat(name, x, y)
		}
		if i < len(c.blocks)-1 {
			name := fmt.Sprintf("features.transition%d", i+1)
			y := b.norm(name+".norm", x)
			y = b.relu(name+".relu", y)
			y = b.conv(name+".conv", y, square(b.channels[x]/2, 1, 1, 0))
			x = b.add(name+".pool", &graph.Pool{Average: true, Size: [2]int{2, 2}, Stride: [2]int{2, 2}}, b.channels[y], y)
		}
	}
	x = b.norm("features.norm5", x)
	x = b.relu("relu", x)
	x = b.vector(x)
	b.head(x, "classifier")
	return b.err
}
