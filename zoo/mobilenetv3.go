package zoo

import (
	"fmt"
	"slices"

	"github.com/lowrank-go/lowrank/graph"
)

func init() {
	f := family{is: isMobileNetV3, build: (*builder).mobileNetV3}
	for _, m := range mobileNetsV3 {
		f.names = append(f.names, m.name)
	}
	families = append(families, f)
}

// mobileNetV3Block is a row of tables 1 and 2 of Howard et al. (2019).
type mobileNetV3Block struct {
	taps, expanded, out int
	squeeze             bool
	function            function
	stride              int
}

var mobileNetsV3 = []struct {
	name   string
	blocks []mobileNetV3Block
	hidden int // of the classifier
}{
	{"mobilenet_v3_large", []mobileNetV3Block{
		{3, 16, 16, false, relu, 1}, {3, 64, 24, false, relu, 2}, {3, 72, 24, false, relu, 1},
		{5, 72, 40, true, relu, 2}, {5, 120, 40, true, relu, 1}, {5, 120, 40, true, relu, 1},
		{3, 240, 80, false, hardSwish, 2}, {3, 200, 80, false, hardSwish, 1}, {3, 184, 80, false, hardSwish, 1}, {3, 184, 80, false, hardSwish, 1},
		{3, 480, 112, true, hardSwish, 1}, {3, 672, 112, true, hardSwish, 1},
		{5, 672, 160, true, hardSwish, 2}, {5, 960, 160, true, hardSwish, 1}, {5, 960, 160, true, hardSwish, 1},
	}, 1280},
	{"mobilenet_v3_small", []mobileNetV3Block{
		{3, 16, 16, true, relu, 2}, {3, 72, 24, false, relu, 2}, {3, 88, 24, false, relu, 1},
		{5, 96, 40, true, hardSwish, 2}, {5, 240, 40, true, hardSwish, 1}, {5, 240, 40, true, hardSwish, 1},
		{5, 120, 48, true, hardSwish, 1}, {5, 144, 48, true, hardSwish, 1},
		{5, 288, 96, true, hardSwish, 2}, {5, 576, 96, true, hardSwish, 1}, {5, 576, 96, true, hardSwish, 1},
	}, 1024},
}

func isMobileNetV3(r *graph.Reader) bool {
	return r.Has("features.1.block.0.0.weight") && r.Has("features.0.0.weight")
}

// mobileNetV3 builds the network called arch, or that of a state dict, of any widths;
// which of the two it is the number of its blocks tells. Norms have torchvision's Eps.
func (b *builder) mobileNetV3(arch string) error {
	count := 0
	if !b.random() {
		count = b.count(func(i int) string { return fmt.Sprintf("features.%d.block.0.0", i+1) })
	}
	at := slices.IndexFunc(mobileNetsV3, func(m struct {
		name   string
		blocks []mobileNetV3Block
		hidden int
	}) bool {
		return m.name == arch || len(m.blocks) == count
	})
	if at < 0 {
		return fmt.Errorf("%w: %d blocks, the last is features.%d; MobileNetV3 has 15 (large) or 11 (small), and which of others have strides no name tells", ErrUnknown, count, count)
	}
	m := mobileNetsV3[at]
	b.g.Arch = m.name
	const eps = 1e-3
	x := b.begin("features.0.0", 224)
	x = b.unit("features.0", x, square(16, 3, 2, 1), eps, hardSwish)
	for i, c := range m.blocks {
		name := fmt.Sprintf("features.%d", i+1)
		s := inverted{taps: c.taps, expanded: c.expanded, out: c.out, stride: c.stride, eps: eps, function: c.function, gate: hardSigmoid, squeezed: relu}
		if c.squeeze {
			s.squeeze = divisible(c.expanded/4, 8)
		}
		x = b.inverted(name, x, s)
	}
	x = b.unit(fmt.Sprintf("features.%d", len(m.blocks)+1), x, square(6*b.channels[x], 1, 1, 0), eps, hardSwish)
	x = b.vector(x)
	x = b.linear("classifier.0", x, m.hidden)
	x = b.activate("classifier.1", x, hardSwish)
	x = b.dropout("classifier.2", x, .2)
	b.head(x, "classifier.3")
	return b.err
}

// divisible is the multiple of d next to n that is not a tenth below it.
func divisible(n, d int) int {
	v := max(d, (n+d/2)/d*d)
	if 10*v < 9*n {
		v += d
	}
	return v
}

// inverted is an inverted residual with squeeze and excitation, as torchvision has it for
// MobileNetV3 and EfficientNet.
type inverted struct {
	taps, stride  int
	expanded, out int // channels of random weights
	squeeze       int // channels that excitation comes of, of random weights; 0 for none
	eps           float64
	function      function
	// squeezed is the function between the two layers of the excitation, gate the one
	// behind them.
	squeezed, gate function
}

// inverted adds an inverted residual: a convolution of one pixel that expands, where there
// is one, a depthwise one, squeeze and excitation, where there is, and a projection. It is
// added to its input where both have one shape.
func (b *builder) inverted(name string, in *graph.Node, c inverted) *graph.Node {
	x, at := in, 0
	next := func() string { at++; return fmt.Sprintf("%s.block.%d", name, at-1) }
	expands := c.expanded != b.channels[in]
	if !b.random() {
		// What comes first is as wide as its kernel is deep, or depthwise.
		s := b.r.Shape(name + ".block.0.0.weight")
		expands = len(s) == 4 && (s[2] == 1 || s[1] != 1)
	}
	if expands {
		x = b.unit(next(), x, square(c.expanded, 1, 1, 0), c.eps, c.function)
	}
	dw := next()
	x = b.unit(dw, x, b.depthwise(x, b.taps(dw+".0", c.taps), c.stride), c.eps, c.function)
	if b.random() && c.squeeze > 0 || !b.random() && has(b.r, fmt.Sprintf("%s.block.%d.fc1", name, at)) {
		x = b.excite(next(), x, c)
	}
	last := next()
	x = b.unit(last, x, square(c.out, 1, 1, 0), c.eps, none)
	if c.stride == 1 && b.channels[x] == b.channels[in] {
		x = b.sum(name+".add", x, in)
	}
	return x
}

// excite adds squeeze and excitation (Hu et al. 2018): channels are multiplied by what two
// layers make of their means.
func (b *builder) excite(name string, in *graph.Node, c inverted) *graph.Node {
	x := b.adaptive(name+".avgpool", in, 1)
	x = b.conv(name+".fc1", x, square(c.squeeze, 1, 1, 0).biased())
	x = b.activate(name+".activation", x, c.squeezed)
	l := square(b.channels[in], 1, 1, 0).biased()
	l.fixed = true
	x = b.conv(name+".fc2", x, l)
	x = b.activate(name+".scale_activation", x, c.gate)
	return b.add(name, &graph.Binary{Op: graph.Mul}, b.channels[in], in, x)
}
