package zoo

import (
	"fmt"
	"slices"

	"github.com/lowrank-go/lowrank/graph"
)

func init() {
	f := family{is: isShuffleNet, build: (*builder).shuffleNet}
	for _, s := range shuffleNets {
		f.names = append(f.names, s.name)
	}
	families = append(families, f)
}

// shuffleNet is a network of Ma et al. (2018), table 5: the channels of three stages and
// of the last convolution.
type shuffleNet struct {
	name string
	out  [3]int
	last int
}

var shuffleNets = []shuffleNet{
	{"shufflenet_v2_x0_5", [3]int{48, 96, 192}, 1024},
	{"shufflenet_v2_x1_0", [3]int{116, 232, 464}, 1024},
	{"shufflenet_v2_x1_5", [3]int{176, 352, 704}, 1024},
	{"shufflenet_v2_x2_0", [3]int{244, 488, 976}, 2048},
}

func isShuffleNet(r *graph.Reader) bool {
	return has(r, "stage2.0.branch1.0") && has(r, "conv5.0")
}

// shuffleNet builds the network called arch, or that of a state dict, of any widths and
// numbers of blocks.
func (b *builder) shuffleNet(arch string) error {
	var c shuffleNet
	blocks := []int{4, 8, 4}
	if b.random() {
		c = shuffleNets[slices.IndexFunc(shuffleNets, func(s shuffleNet) bool { return s.name == arch })]
	} else {
		for i := range blocks {
			blocks[i] = b.count(func(l int) string { return fmt.Sprintf("stage%d.%d.branch2.0", i+2, l) })
		}
		c.name = "shufflenet_v2"
		s := b.r.Shape("stage2.0.branch2.0.weight")
		for _, v := range shuffleNets {
			if slices.Equal(blocks, []int{4, 8, 4}) && len(s) == 4 && s[0] == v.out[0]/2 {
				c.name = v.name
			}
		}
	}
	b.g.Arch = c.name
	x := b.begin("conv1.0", 224)
	x = b.unit("conv1", x, square(24, 3, 2, 1), 1e-5, relu)
	x = b.maxPool("maxpool", x, 3, 2, 1, false)
	for i, n := range blocks {
		for l := range n {
			x = b.shuffleNetBlock(fmt.Sprintf("stage%d.%d", i+2, l), x, c.out[i]/2, l == 0)
		}
	}
	x = b.unit("conv5", x, square(c.last, 1, 1, 0), 1e-5, relu)
	x = b.vector(x)
	b.head(x, "fc")
	return b.err
}

// shuffleNetBlock adds a block of two branches of so many channels: the first half of the
// channels goes by, or, of the first block of a stage, all go through two branches that
// stride. The channels of the two are mixed.
func (b *builder) shuffleNetBlock(name string, in *graph.Node, out int, strides bool) *graph.Node {
	left, x, stride := in, in, 1
	if strides {
		stride = 2
		one := name + ".branch1"
		left = b.conv(one+".0", left, b.depthwise(left, b.taps(one+".0", 3), stride))
		left = b.norm(one+".1", left)
		left = b.conv(one+".2", left, square(out, 1, 1, 0))
		left = b.norm(one+".3", left)
		left = b.relu(one+".4", left)
	} else {
		half := (b.channels[in] + 1) / 2
		left = b.add(name+".left", &graph.Slice{Cuts: []graph.Cut{{End: half}}}, half, in)
		x = b.add(name+".right", &graph.Slice{Cuts: []graph.Cut{{Start: half, End: graph.End}}}, b.channels[in]-half, in)
	}
	two := name + ".branch2"
	x = b.conv(two+".0", x, square(out, 1, 1, 0))
	x = b.norm(two+".1", x)
	x = b.relu(two+".2", x)
	x = b.conv(two+".3", x, b.depthwise(x, b.taps(two+".3", 3), stride))
	x = b.norm(two+".4", x)
	x = b.conv(two+".5", x, square(out, 1, 1, 0))
	x = b.norm(two+".6", x)
	x = b.relu(two+".7", x)
	x = b.concat(name+".concat", left, x)
	return b.add(name, &graph.Shuffle{Groups: 2}, b.channels[x], x)
}
