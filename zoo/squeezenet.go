package zoo

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lowrank-go/lowrank/graph"
)

func init() {
	families = append(families, family{names: []string{"squeezenet1_0", "squeezenet1_1"}, is: isSqueezeNet, build: (*builder).squeezeNet})
}

// squeezeNet is a version of the network of Iandola et al. (2016): the first convolution,
// and what follows it, fire modules by their squeezed and expanded channels, and max
// pooling of no channels.
type squeezeNet struct {
	name  string
	first layer
	rest  [][2]int
}

// fits tells whether a state dict has the fire modules: the two versions have their pooling
// in different places.
func (v *squeezeNet) fits(r *graph.Reader) bool {
	for i, f := range v.rest {
		if (f == [2]int{}) == has(r, fmt.Sprintf("features.%d.squeeze", i+2)) {
			return false
		}
	}
	return true
}

// rename makes r find MXNet's tensors by torchvision's names.
func (v *squeezeNet) rename(r *graph.Reader) {
	layers := []string{"features.0"}
	for i, f := range v.rest {
		for _, part := range []string{"squeeze", "expand1x1", "expand3x3"} {
			if f != [2]int{} {
				layers = append(layers, fmt.Sprintf("features.%d.%s", i+2, part))
			}
		}
	}
	number := map[string]int{}
	for i, l := range append(layers, "classifier.1") {
		number[l] = i
	}
	name := r.Name
	r.Name = func(n string) string {
		at := strings.LastIndexByte(n, '.')
		if i, ok := number[n[:max(at, 0)]]; ok {
			return name(fmt.Sprintf("%s%d_%s", gluon, i, n[at+1:]))
		}
		return name(n)
	}
}

var squeezeNets = []squeezeNet{
	{"squeezenet1_0", square(96, 7, 2, 0).biased(), [][2]int{{}, {16, 64}, {16, 64}, {32, 128}, {}, {32, 128}, {48, 192}, {48, 192}, {64, 256}, {}, {64, 256}}},
	{"squeezenet1_1", square(64, 3, 2, 0).biased(), [][2]int{{}, {16, 64}, {16, 64}, {}, {32, 128}, {32, 128}, {}, {48, 192}, {48, 192}, {64, 256}, {64, 256}}},
}

// gluon is before the names of the layers of MXNet's SqueezeNets, which are numbered:
// squeezenet0_conv0_weight.
const gluon = "squeezenet0_conv"

func isSqueezeNet(r *graph.Reader) bool {
	return has(r, "features.3.squeeze") || r.Has(gluon+"0_weight")
}

// squeezeNet builds the version called arch, or that of a state dict, of any widths, with
// torchvision's names or MXNet's.
func (b *builder) squeezeNet(arch string) error {
	if !b.random() && b.r.Has(gluon+"0_weight") {
		arch = squeezeNets[1].name
		if s := b.r.Shape(gluon + "0_weight"); len(s) == 4 && s[2] == 7 {
			arch = squeezeNets[0].name
		}
	}
	at := slices.IndexFunc(squeezeNets, func(v squeezeNet) bool { return v.name == arch || arch == "" && v.fits(b.r) })
	if at < 0 {
		return fmt.Errorf("%w: the fire modules are those of no SqueezeNet; version 1.0 pools at features.2, 6 and 11, and 1.1 at features.2, 5 and 8", ErrUnknown)
	}
	v := squeezeNets[at]
	b.g.Arch = v.name
	if !b.random() && b.r.Has(gluon+"0_weight") {
		v.rename(b.r)
	}
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
	head := b.conv("classifier.1", x, square(b.classes, 1, 1, 0).last())
	x = b.relu("classifier.2", head)
	x = b.adaptive("classifier.3", x, 1)
	b.finish(b.flatten("flatten", x, 1), head)
	return b.err
}
