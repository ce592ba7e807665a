package zoo

import (
	"fmt"
	"slices"

	"github.com/lowrank-go/lowrank/graph"
)

func init() {
	families = append(families, family{names: []string{"squeezenet1_0", "squeezenet1_1"}, is: isSqueezeNet, build: (*builder).squeezeNet})
}

// squeezeNets are the two versions of Iandola et al. (2016): the first convolution, and
// what follows it, fire modules by their squeezed and expanded channels, and max pooling
// of no channels.
var squeezeNets = []struct {
	name  string
	first layer
	rest  [][2]int
}{
	{"squeezenet1_0", square(96, 7, 2, 0).biased(), [][2]int{{}, {16, 64}, {16, 64}, {32, 128}, {}, {32, 128}, {48, 192}, {48, 192}, {64, 256}, {}, {64, 256}}},
	{"squeezenet1_1", square(64, 3, 2, 0).biased(), [][2]int{{}, {16, 64}, {16, 64}, {}, {32, 128}, {32, 128}, {}, {48, 192}, {48, 192}, {64, 256}, {64, 256}}},
}

func isSqueezeNet(r *graph.Reader) bool { return has(r, "features.3.squeeze") }

// squeezeNet builds the version called arch, or that of a state dict, of any widths: the
// two have their pooling in different places.
func (b *builder) squeezeNet(arch string) error {
	at := slices.IndexFunc(squeezeNets, func(v struct {
		name  string
		first layer
		rest  [][2]int
	}) bool {
		if b.random() {
			return v.name == arch
		}
		for i, f := range v.rest {
			if (f == [2]int{}) == has(b.r, fmt.Sprintf("features.%d.squeeze", i+2)) {
				return false
			}
		}
		return true
	})
	if at < 0 {
		return fmt.Errorf("%w: the fire modules are those of no SqueezeNet; of the two version 1.0 pools at features.6 and 11, and 1.1 at features.5 and 8", ErrUnknown)
	}
	v := squeezeNets[at]
	b.g.Arch = v.name
	x := b.begin("features.0", 224)
	x = b.conv("features.0", x, v.first)
	x = b.relu("features.1", x)
	for i, f := range v.rest {
		name := fmt.Sprintf("features.%d", i+2)
		if f == [2]int{} {
			x = b.maxPool(name, x, 3, 2, 0, true)
			continue
		}
		x = b.conv(name+".squeeze", x, square(f[0], 1, 1, 0).biased())
		x = b.relu(name+".squeeze_activation", x)
		one := b.conv(name+".expand1x1", x, square(f[1], 1, 1, 0).biased())
		one = b.relu(name+".expand1x1_activation", one)
		three := b.conv(name+".expand3x3", x, square(f[1], 3, 1, 1).biased())
		three = b.relu(name+".expand3x3_activation", three)
		x = b.concat(name, one, three)
	}
	x = b.dropout("classifier.0", x, .5)
	head := b.conv("classifier.1", x, square(b.classes, 1, 1, 0).biased())
	x = b.relu("classifier.2", head)
	x = b.adaptive("classifier.3", x, 1)
	b.finish(b.flatten("flatten", x, 1), head)
	return b.err
}
