package zoo

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/lowrank-go/lowrank/graph"
)

func init() {
	f := family{is: isVGG, build: (*builder).vgg}
	for _, form := range []string{"", "_bn", "_cifar"} {
		for _, p := range publishedVGG {
			f.names = append(f.names, p.name+form)
		}
	}
	families = append(families, f)
}

// pool, in the place of a convolution's outputs, is max pooling.
const pool = 0

// publishedVGG are the networks A, B, D and E of Simonyan and Zisserman (2015) by the
// outputs of their convolutions.
var publishedVGG = []struct {
	name   string
	layers []int
}{
	{"vgg11", []int{64, pool, 128, pool, 256, 256, pool, 512, 512, pool, 512, 512, pool}},
	{"vgg13", []int{64, 64, pool, 128, 128, pool, 256, 256, pool, 512, 512, pool, 512, 512, pool}},
	{"vgg16", []int{64, 64, pool, 128, 128, pool, 256, 256, 256, pool, 512, 512, 512, pool, 512, 512, 512, pool}},
	{"vgg19", []int{64, 64, pool, 128, 128, pool, 256, 256, 256, 256, pool, 512, 512, 512, 512, pool, 512, 512, 512, 512, pool}},
}

// isVGG tells whether the convolutions are numbered ones of 3×3 taps.
func isVGG(r *graph.Reader) bool {
	n := 0
	for i := range 8 {
		if s := r.Shape(fmt.Sprintf("features.%d.weight", i)); len(s) == 4 {
			if s[2] != 3 || s[3] != 3 {
				return false
			}
			n++
		}
	}
	return n > 1
}

// vgg builds the network called arch, or that of a state dict. The convolutions of a
// state dict have any widths, and there are as many as it has; where numbers are left
// out max pooling is. torchvision's networks ("vgg16", "vgg16_bn") end in three linear
// layers on a map of 7×7; those for CIFAR ("vgg16_cifar", with batch norms, and of a state
// dict without) in any number on one pixel.
func (b *builder) vgg(arch string) error {
	var layers []int
	norms, names, k := false, []string{"classifier.0", "classifier.3", "classifier.6"}, 7
	hidden := 4096
	if b.random() {
		base, form, _ := strings.Cut(arch, "_")
		for _, p := range publishedVGG {
			if p.name == base {
				layers = p.layers
			}
		}
		norms = form != ""
		if form == "cifar" {
			names, k = []string{"classifier"}, 1
		}
	} else {
		var err error
		if layers, norms, err = b.vggLayers(); err != nil {
			return err
		}
		if names, k, err = b.linearLayers("classifier", lastWidth(layers)); err != nil {
			return err
		}
		arch = "vgg"
		for _, p := range publishedVGG {
			if slices.EqualFunc(p.layers, layers, func(a, b int) bool { return (a == pool) == (b == pool) }) {
				arch = p.name
			}
		}
		switch {
		case k == 1:
			arch += "_cifar"
		case norms:
			arch += "_bn"
		}
	}
	b.g.Arch = arch
	size := k
	for _, out := range layers {
		if out == pool {
			size *= 2
		}
	}
	x := b.begin("features.0", size)
	at := 0
	next := func() string { at++; return fmt.Sprintf("features.%d", at-1) }
	for _, out := range layers {
		if out == pool {
			x = b.maxPool(next(), x, 2, 2, 0, false)
			continue
		}
		x = b.conv(next(), x, square(out, 3, 1, 1).biased())
		if norms {
			x = b.norm(next(), x)
		}
		x = b.relu(next(), x)
	}
	b.linears(names, x, k, hidden)
	return b.err
}

// lastWidth is the outputs of the last convolution.
func lastWidth(layers []int) int {
	for _, out := range slices.Backward(layers) {
		if out != pool {
			return out
		}
	}
	return 0
}

// vggLayers reads the convolutions off a state dict, and whether norms are behind them: a
// convolution, with its norm and ReLU, has two or three numbers, and pooling one.
func (b *builder) vggLayers() (layers []int, norms bool, err error) {
	var at []int
	last := -1
	for i := range mostLayers {
		name := fmt.Sprintf("features.%d", i)
		if s := b.r.Shape(name + ".weight"); len(s) == 4 || b.manifest.Chain(name) != nil {
			at, last = append(at, i), i
		} else if len(s) == 1 {
			norms = true
		}
		if i > last+4 {
			break
		}
	}
	// An export that folded the norms leaves their numbers out.
	for i, a := range at[1:] {
		norms = norms || a-at[i] > 3
	}
	each := 2
	if norms {
		each = 3
	}
	for i, a := range at {
		out := 0
		if s := b.r.Shape(fmt.Sprintf("features.%d.weight", a)); len(s) == 4 {
			out = s[0]
		} else {
			out = 1 // of a chain, which knows
		}
		if out < 1 {
			return nil, false, fmt.Errorf("%w: features.%d.weight has shape %v", graph.ErrShape, a, b.r.Shape(fmt.Sprintf("features.%d.weight", a)))
		}
		gap := each + 1
		if i+1 < len(at) {
			gap = at[i+1] - a
		}
		switch gap {
		case each:
			layers = append(layers, out)
		case each + 1:
			layers = append(layers, out, pool)
		default:
			return nil, false, fmt.Errorf("%w: features.%d is followed by features.%d; a VGG has %d or %d more", ErrUnknown, a, at[i+1], each, each+1)
		}
	}
	if at[0] != 0 {
		return nil, false, fmt.Errorf("%w: the first convolution is features.%d", ErrUnknown, at[0])
	}
	return layers, norms, nil
}

// linearLayers are the names of a state dict's linear layers at the end, which are one
// called prefix or numbered ones, and the rows and columns of the map of so many channels
// that the first is on.
func (b *builder) linearLayers(prefix string, channels int) (names []string, k int, err error) {
	if b.r.Has(prefix + ".weight") {
		names = []string{prefix}
	}
	for i := 0; i < 16 && !b.r.Has(prefix+".weight"); i++ {
		if name := fmt.Sprintf("%s.%d", prefix, i); b.r.Has(name+".weight") || b.manifest.Chain(name) != nil {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, 0, fmt.Errorf("%w: it has no last layer, a tensor called %q or %q or the like; a body without a head has no classes, and its kernels alone can be compressed", ErrUnknown, prefix+".weight", prefix+".0.weight")
	}
	s := b.r.Shape(names[0] + ".weight")
	switch {
	case len(s) == 4 && s[2] == s[3]:
		return names, s[2], nil
	case len(s) == 2 && channels > 0 && s[1]%channels == 0:
		k = int(math.Sqrt(float64(s[1] / channels)))
		if k >= 1 && k*k*channels == s[1] {
			return names, k, nil
		}
	}
	return nil, 0, fmt.Errorf("%w: %s.weight has shape %v; want columns for the values of a square map of %d channels", graph.ErrShape, names[0], s, channels)
}

// linears adds the linear layers at the end of a classifier, on a map that is made k×k.
// The first is a convolution of k×k taps, as which it can be decomposed, unless it is on
// one pixel. A number between two layers' is a ReLU, another dropout.
func (b *builder) linears(names []string, x *graph.Node, k, hidden int) {
	x = b.adaptive("avgpool", x, k)
	if k == 1 {
		x = b.flatten("flatten", x, 1)
	}
	number := func(i int) int {
		n := -1
		if _, after, ok := strings.Cut(names[i], "."); ok {
			fmt.Sscan(after, &n)
		}
		return n
	}
	prefix, _, _ := strings.Cut(names[0], ".")
	if number(0) == 1 {
		x = b.dropout(prefix+".0", x, .5)
	}
	for i, name := range names {
		out := hidden
		if i == len(names)-1 {
			out = b.classes
		}
		flat := i == 0 && k > 1
		if flat {
			x = b.conv(name, x, layer{out: out, size: [2]int{k, k}, bias: true, flat: true})
		} else {
			x = b.linear(name, x, out)
		}
		head, y := x, x
		if i < len(names)-1 {
			x = b.relu(fmt.Sprintf("%s.%d", prefix, number(i)+1), x)
			if number(i+1)-number(i) > 2 {
				x = b.dropout(fmt.Sprintf("%s.%d", prefix, number(i)+2), x, .5)
			}
			y = x
		}
		if flat {
			x = b.flatten("flatten", y, 1)
			y = x
		}
		if i == len(names)-1 {
			b.finish(y, head)
		}
	}
}
