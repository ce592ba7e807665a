package zoo

import (
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
)

// function is an activation; the zero value is none.
type function struct {
	kind        string
	alpha, beta float64
}

// Activations of the families.
var (
	none        = function{}
	relu        = function{kind: graph.ReLU}
	relu6       = function{kind: graph.Clip, beta: 6}
	silu        = function{kind: graph.SiLU}
	hardSwish   = function{kind: graph.HardSwish}
	sigmoid     = function{kind: graph.Sigmoid}
	hardSigmoid = function{kind: graph.HardSigmoid, alpha: 1. / 6, beta: .5}
)

// activate adds an activation, if there is one.
func (b *builder) activate(name string, x *graph.Node, f function) *graph.Node {
	if f == none {
		return x
	}
	return b.act(name, x, f.kind, f.alpha, f.beta)
}

// unit adds a convolution, its batch norm and an activation, of the names that a
// Sequential gives them: name.0, name.1 and name.2.
func (b *builder) unit(name string, x *graph.Node, l layer, eps float64, f function) *graph.Node {
	x = b.conv(name+".0", x, l)
	x = b.normEps(name+".1", x, eps)
	return b.activate(name+".2", x, f)
}

// depthwise is a layer of k×k taps of which each channel has its own, with padding that
// keeps the size.
func (b *builder) depthwise(x *graph.Node, k, stride int) layer {
	return square(b.channels[x], k, stride, k/2).grouped(b.channels[x])
}

// concat adds the channels of its inputs one behind the other.
func (b *builder) concat(name string, in ...*graph.Node) *graph.Node {
	channels := 0
	for _, x := range in {
		channels += b.channels[x]
	}
	return b.add(name, &graph.Concat{}, channels, in...)
}

// flatten adds a vector of all values of a map of so many pixels.
func (b *builder) flatten(name string, x *graph.Node, pixels int) *graph.Node {
	return b.add(name, &graph.Flatten{}, b.channels[x]*pixels, x)
}

// dropout adds dropout, which does something in training alone.
func (b *builder) dropout(name string, x *graph.Node, rate float64) *graph.Node {
	return b.add(name, &graph.Dropout{Rate: rate}, b.channels[x], x)
}

// adaptive adds the mean over windows that divide the map into size×size.
func (b *builder) adaptive(name string, x *graph.Node, size int) *graph.Node {
	return b.add(name, &graph.Pool{Average: true, Adaptive: [2]int{size, size}}, b.channels[x], x)
}

// images is the number of channels of images: of a state dict those that its first
// convolution takes.
func (b *builder) images(first string) int {
	if b.random() {
		return 3
	}
	for _, name := range []string{first, first + ".0"} {
		if s := b.r.Shape(name + ".weight"); len(s) == 4 && s[1] > 0 {
			return s[1]
		}
	}
	return 3
}

// taps is the rows of the kernel that a state dict has for a convolution, or what it is
// otherwise.
func (b *builder) taps(name string, otherwise int) int {
	if !b.random() {
		if s := b.r.Shape(name + ".weight"); len(s) == 4 && s[2] > 0 {
			return s[2]
		}
	}
	return otherwise
}

// count is how many layers a state dict has of a series, whose names layer makes of 0, 1
// and so on.
func (b *builder) count(layer func(i int) string) int {
	n := 0
	for n < mostLayers && has(b.r, layer(n)) {
		n++
	}
	return n
}

// mostLayers bounds what a file's names may ask for.
const mostLayers = 1 << 12

// pass says of the tensors below a prefix that they belong to nothing that is used.
func (b *builder) pass(prefix string) {
	if b.random() {
		return
	}
	full := b.strip + prefix
	for _, n := range b.r.SD.Names() {
		if len(n) > len(full) && n[:len(full)] == full {
			b.r.Mark(n[len(b.strip):])
		}
	}
}

// pixels is the size of images of n×n and what makes them, as networks are trained on.
func pixels(n int) ([2]int, dataset.Preprocess) {
	p := dataset.ImageNet
	switch n {
	case 224:
	case 32:
		p = dataset.CIFAR
	default:
		p.Resize, p.Crop = n*256/224, [2]int{n, n}
	}
	return [2]int{n, n}, p
}

// begin is start for images of n×n pixels.
func (b *builder) begin(first string, n int) *graph.Node {
	size, pre := pixels(n)
	return b.start(b.images(first), size, pre)
}
