package zoo

import (
	"github.com/lowrank-go/lowrank/graph"
)

func init() {
	families = append(families, family{names: []string{"googlenet"}, is: isGoogLeNet, build: (*builder).googLeNet})
}

// inceptions are table 1 of Szegedy et al. (2015): of each inception the channels of the
// branch of one pixel, of the next two before and of their larger kernels, and of that of
// the pooling. Where there are none pooling is, of so many pixels.
var inceptions = []struct {
	name             string
	one              int
	before2, branch2 int
	before3, branch3 int
	pooled           int
	pool             int
}{
	{name: "inception3a", one: 64, before2: 96, branch2: 128, before3: 16, branch3: 32, pooled: 32},
	{name: "inception3b", one: 128, before2: 128, branch2: 192, before3: 32, branch3: 96, pooled: 64},
	{name: "maxpool3", pool: 3},
	{name: "inception4a", one: 192, before2: 96, branch2: 208, before3: 16, branch3: 48, pooled: 64},
	{name: "inception4b", one: 160, before2: 112, branch2: 224, before3: 24, branch3: 64, pooled: 64},
	{name: "inception4c", one: 128, before2: 128, branch2: 256, before3: 24, branch3: 64, pooled: 64},
	{name: "inception4d", one: 112, before2: 144, branch2: 288, before3: 32, branch3: 64, pooled: 64},
	{name: "inception4e", one: 256, before2: 160, branch2: 320, before3: 32, branch3: 128, pooled: 128},
	{name: "maxpool4", pool: 2},
	{name: "inception5a", one: 256, before2: 160, branch2: 320, before3: 32, branch3: 128, pooled: 128},
	{name: "inception5b", one: 384, before2: 192, branch2: 384, before3: 48, branch3: 128, pooled: 128},
}

func isGoogLeNet(r *graph.Reader) bool { return has(r, "inception3a.branch1.conv") }

// googLeNet builds torchvision's GoogLeNet, with batch norms, and 3×3 kernels in the third
// branches, where the paper has 5×5; or that of a state dict, of any widths, whose
// auxiliary heads are passed over. Images for torchvision's own weights, which are
// TensorFlow's, are normalised by means and deviations of ½ (transform_input); this is not
// part of the network.
func (b *builder) googLeNet(string) error {
	b.g.Arch = "googlenet"
	b.pass("aux1.")
	b.pass("aux2.")
	x := b.begin("conv1.conv", 224)
	unit := func(name string, x *graph.Node, l layer) *graph.Node {
		x = b.conv(name+".conv", x, l)
		x = b.normEps(name+".bn", x, 1e-3)
		return b.relu(name+".relu", x)
	}
	x = unit("conv1", x, square(64, 7, 2, 3))
	x = b.maxPool("maxpool1", x, 3, 2, 0, true)
	x = unit("conv2", x, square(64, 1, 1, 0))
	x = unit("conv3", x, square(192, 3, 1, 1))
	x = b.maxPool("maxpool2", x, 3, 2, 0, true)
	// Of a state dict the taps are what it has.
	around := func(name string, out int) layer {
		k := b.taps(name+".conv", 3)
		return square(out, k, 1, k/2)
	}
	for _, c := range inceptions {
		if c.pool > 0 {
			x = b.maxPool(c.name, x, c.pool, 2, 0, true)
			continue
		}
		one := unit(c.name+".branch1", x, square(c.one, 1, 1, 0))
		two := unit(c.name+".branch2.0", x, square(c.before2, 1, 1, 0))
		two = unit(c.name+".branch2.1", two, around(c.name+".branch2.1", c.branch2))
		three := unit(c.name+".branch3.0", x, square(c.before3, 1, 1, 0))
		three = unit(c.name+".branch3.1", three, around(c.name+".branch3.1", c.branch3))
		pooled := b.maxPool(c.name+".branch4.0", x, 3, 1, 1, true)
		pooled = unit(c.name+".branch4.1", pooled, square(c.pooled, 1, 1, 0))
		x = b.concat(c.name, one, two, three, pooled)
	}
	x = b.vector(x)
	x = b.dropout("dropout", x, .2)
	b.head(x, "fc")
	return b.err
}
