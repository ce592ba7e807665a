package zoo

import (
	"fmt"

	"github.com/lowrank-go/lowrank/graph"
)

func init() {
	families = append(families, family{names: []string{"alexnet"}, is: isAlexNet, build: (*builder).alexNet})
}

// alexNetConvs are the convolutions of Krizhevsky (2014) by their numbers.
var alexNetConvs = []struct {
	at, out, size, stride, padding int
	pool                           bool
}{
	{0, 64, 11, 4, 2, true}, {3, 192, 5, 1, 2, true}, {6, 384, 3, 1, 1, false}, {8, 256, 3, 1, 1, false}, {10, 256, 3, 1, 1, true},
}

func isAlexNet(r *graph.Reader) bool {
	s := r.Shape("features.0.weight")
	return len(s) == 4 && s[2] == 11 && has(r, "features.10")
}

// alexNet builds torchvision's AlexNet, or that of a state dict, of any widths.
func (b *builder) alexNet(string) error {
	b.g.Arch = "alexnet"
	x := b.begin("features.0", 224)
	for _, c := range alexNetConvs {
		x = b.conv(fmt.Sprintf("features.%d", c.at), x, square(c.out, c.size, c.stride, c.padding).biased())
		x = b.relu(fmt.Sprintf("features.%d", c.at+1), x)
		if c.pool {
			x = b.maxPool(fmt.Sprintf("features.%d", c.at+2), x, 3, 2, 0, false)
		}
	}
	names, k := []string{"classifier.1", "classifier.4", "classifier.6"}, 6
	if !b.random() && b.err == nil {
		var err error
		if names, k, err = b.linearLayers("classifier", b.channels[x]); err != nil {
			return err
		}
	}
	b.linears(names, x, k, 4096)
	return b.err
}
