// Package zoo builds the convolutional networks that people have, as graphs: with the
// weights of a state dict, whose tensors' names and shapes tell which network it is, or
// with random ones. One file a family; each has one builder that serves both.
//
// The families are residual networks (ResNet, ResNeXt, Wide ResNet, for ImageNet and for
// CIFAR, and FCN and DeepLabV3 on them), VGG, AlexNet, SqueezeNet, MobileNetV2 and V3,
// DenseNet, EfficientNet, GoogLeNet, ShuffleNetV2 and U-Net, with torchvision's names where
// it has them. Widths, groups and numbers of layers are those of the state dict, so that
// pruned networks load too; strides, which no tensor tells, are the published network's.
//
// Three things of torchvision's training are not part of the networks: whole blocks that
// are left out at random (EfficientNet), auxiliary heads (GoogLeNet, FCN, DeepLabV3) and the
// momentum of batch norms, which is 0.1 here in all and 0.01 in its MobileNetV3.
package zoo

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
)

// ErrUnknown is wrapped by errors about state dicts that are not one of the networks this
// package knows.
var ErrUnknown = errors.New("zoo: not a known network")

// Options are what a caller knows beyond a state dict. The zero value suits torchvision's
// and the common CIFAR checkpoints. They are ignored for files that say it themselves, and
// the first two for other networks than residual ones.
type Options struct {
	// StrideFirst puts a bottleneck's stride into its first 1×1 convolution (the paper's
	// "v1"); unset it is in the 3×3 ("v1.5", torchvision's). Nothing in a checkpoint tells
	// the two apart.
	StrideFirst bool
	// Dilate is how many of the last stages of a residual network that segments keep the
	// resolution of their input and dilate in place of striding; nil means DefaultDilate.
	Dilate *int
	// Input is the height and width of images that sizes and costs are stated for; zeros
	// mean the family's own.
	Input [2]int
}

// NewOptions are the choices of New beside the architecture; the zero value is the
// published network.
type NewOptions struct {
	// Seed is where the random weights come from.
	Seed uint64
	// Preprocess travels with the network; the zero value means the family's.
	Preprocess dataset.Preprocess
	// Input is the height and width of images; zeros mean Preprocess's crop or the
	// family's own. Channels is how many an image has; 0 means 3.
	Input    [2]int
	Channels int
	// StrideFirst: see Options.
	StrideFirst bool
	// Projection gives residual networks for CIFAR 1×1 shortcuts with batch norms where
	// the shape changes, as ImageNet networks have them, in place of option A's.
	Projection bool
	// SmallStem gives residual networks for ImageNet the stem of those for CIFAR, a 3×3
	// convolution of stride 1 without pooling, for small images.
	SmallStem bool
	// Segment makes a network with a class for every pixel, Dilate: see Options.
	Segment bool
	Dilate  *int
	// ZeroGain begins with each residual block's last batch norm at zero, so that the
	// blocks are identities at first (Goyal et al. 2017).
	ZeroGain bool
}

// validatePlain refuses the choices that only residual networks have.
func (o *NewOptions) validatePlain(arch string) error {
	for _, c := range []struct {
		set  bool
		name string
	}{{o.StrideFirst, "StrideFirst"}, {o.Projection, "Projection"}, {o.SmallStem, "SmallStem"}, {o.Segment, "Segment"}, {o.Dilate != nil, "Dilate"}, {o.ZeroGain, "ZeroGain"}} {
		if c.set {
			return fmt.Errorf("%w: %s with %s, which only residual networks have", ErrUnknown, arch, c.name)
		}
	}
	return nil
}

// family is a kind of networks.
type family struct {
	// names lists those that New builds.
	names []string
	// residual is set for the one whose networks have variants: see NewOptions.
	residual bool
	// is tells whether a state dict is one of the family's.
	is func(r *graph.Reader) bool
	// build builds; arch is "" for a state dict, of which it must be found out.
	build func(b *builder, arch string) error
}

var families []family

// Architectures lists what New can build.
func Architectures() []string {
	var names []string
	for _, f := range families {
		names = append(names, f.names...)
	}
	return names
}

// New is a published network for the given number of classes with random weights: normal
// ones of variance 2/(T·kh·kw) for convolutions (He et al. 2015, by the outputs; T of a
// group), uniform ones within ±1/√S for linear layers and heads, ones and zeros for the
// norms. The error wraps ErrUnknown.
func New(arch string, classes int, opt NewOptions) (*graph.Graph, error) {
	return create(arch, classes, opt, rand.New(rand.NewPCG(opt.Seed, 0x6c6f7772616e6b)))
}

// create is New with weights from rng, or of zeros if it is nil.
func create(arch string, classes int, opt NewOptions, rng *rand.Rand) (*graph.Graph, error) {
	at := slices.IndexFunc(families, func(f family) bool { return slices.Contains(f.names, arch) })
	if at < 0 {
		return nil, fmt.Errorf("%w: architecture %q; want one of %s", ErrUnknown, arch, strings.Join(Architectures(), ", "))
	}
	if !families[at].residual {
		if err := opt.validatePlain(arch); err != nil {
			return nil, err
		}
	}
	most := 1 << 20
	if opt.Segment {
		most = dataset.Ignore
	}
	if classes < 1 || classes > most {
		return nil, fmt.Errorf("%w: %d classes; want 1 to %d", ErrUnknown, classes, most)
	}
	b := &builder{
		g: &graph.Graph{Arch: arch, Preprocess: opt.Preprocess}, opt: opt, classes: classes, channels: map[*graph.Node]int{},
		rng: rng,
	}
	if err := families[at].build(b, arch); err != nil {
		return nil, err
	}
	if b.err != nil {
		return nil, b.err
	}
	return b.g, b.g.Validate()
}

// prefixes are what training wrappers put before every name.
var prefixes = []string{"module.", "_orig_mod.", "model.", "net.", "backbone."}

// Load makes a network of a state dict: one that graph.Graph.StateDict or an earlier
// version wrote, or a PyTorch checkpoint, whose names are stripped of prefixes such as
// "module.". Where convolutions have biases and no batch norms, as in exports that folded
// those, the norms are ones that add the biases. Every tensor must be accounted for. An
// error wraps ErrUnknown where the tensors are not those of a known network and
// graph.ErrShape where one has the wrong shape; it names the tensor.
func Load(sd *model.StateDict, opt Options) (*graph.Graph, error) {
	g, r, err := load(sd, opt)
	if err != nil {
		return nil, err
	}
	if extra := r.Unused(); len(extra) > 0 {
		return nil, fmt.Errorf("%w: %s has no place for %s", ErrUnknown, g.Arch, graph.Quote(extra))
	}
	return g, nil
}

// load is Load that lets tensors be over.
func load(sd *model.StateDict, opt Options) (*graph.Graph, *graph.Reader, error) {
	manifest, err := graph.ReadManifest(sd)
	if err != nil {
		return nil, nil, err
	}
	if graph.Described(manifest) {
		return graph.LoadPart(sd)
	}
	r := graph.NewReader(sd)
	strip := commonPrefix(sd)
	r.Name = func(name string) string { return strip + name }
	b := &builder{g: &graph.Graph{}, r: r, strip: strip, manifest: manifest, load: opt, channels: map[*graph.Node]int{}}
	if manifest != nil && manifest.Network != nil {
		err = b.formatOne(manifest.Network)
	} else {
		at := slices.IndexFunc(families, func(f family) bool { return f.is(r) })
		if at < 0 {
			names := sd.Names()
			if len(names) == 0 {
				return nil, nil, fmt.Errorf("%w: the file has no tensors", ErrUnknown)
			}
			sort.Strings(names)
			return nil, nil, fmt.Errorf("%w: the names of its tensors are those of none; the file has %s", ErrUnknown, graph.Quote(names))
		}
		err = families[at].build(b, "")
	}
	if err == nil {
		err = b.err
	}
	if err == nil {
		err = b.g.Validate()
	}
	if err != nil {
		return nil, nil, err
	}
	return b.g, r, nil
}

func commonPrefix(sd *model.StateDict) string {
	strip := ""
next:
	for {
		for _, p := range prefixes {
			all := sd.Len() > 0
			for _, n := range sd.Names() {
				all = all && strings.HasPrefix(n, strip+p)
			}
			if all {
				strip += p
				continue next
			}
		}
		return strip
	}
}

// builder adds the nodes of a network to a graph, with weights from a state dict or with
// random ones. After the first error it does nothing.
type builder struct {
	g        *graph.Graph
	channels map[*graph.Node]int // of a node's output
	err      error

	// Of a state dict; r is nil for random weights.
	r        *graph.Reader
	strip    string // what is before all names
	manifest *graph.Manifest
	load     Options

	// Of random weights.
	rng     *rand.Rand // nil for zeros
	opt     NewOptions
	classes int
}

// random tells whether weights are random.
func (b *builder) random() bool { return b.r == nil }

// fail keeps the first error.
func (b *builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

// refuse keeps the error of a layer that the state dict does not have: of a network that
// is another, unless a shape is wrong.
func (b *builder) refuse(err error) {
	if errors.Is(err, graph.ErrGraph) {
		b.fail("%w: %s: %w", ErrUnknown, b.arch(), err)
		return
	}
	b.fail("%s: %w", b.arch(), err)
}

// start adds the input: images of so many channels, for the family's preprocessing and
// size unless the caller chose others.
func (b *builder) start(channels int, input [2]int, pre dataset.Preprocess) *graph.Node {
	if b.random() {
		if b.opt.Channels > 0 {
			channels = b.opt.Channels
		}
		if b.g.Preprocess == (dataset.Preprocess{}) {
			b.g.Preprocess = pre
		}
		if c := b.g.Preprocess.Crop; c[0] > 0 {
			input = [2]int{c[1], c[0]}
		}
		if b.opt.Input != [2]int{} {
			input = b.opt.Input
		}
	} else {
		b.g.Preprocess = pre
		if b.load.Input != [2]int{} {
			input = b.load.Input
		}
	}
	b.g.Input = graph.Shape{channels, input[0], input[1]}
	n := b.g.Add("input", &graph.Input{Size: b.g.Input})
	b.channels[n] = channels
	return n
}

// add adds a node whose output has so many channels.
func (b *builder) add(name string, op graph.Op, channels int, in ...*graph.Node) *graph.Node {
	n := b.g.Add(name, op, in...)
	b.channels[n] = channels
	return n
}

// layer is what a convolution of a family is like.
type layer struct {
	// out is the number of outputs of random weights; those of a state dict have any.
	out int
	// size is the taps, rows and columns; geometry the rest. Groups of 0 mean, of a state
	// dict, as many as its kernel has; of random weights 1.
	size     [2]int
	geometry conv.Geometry
	bias     bool // of random weights
	linear   bool
	// flat is set for a linear layer on all values of a map of as many pixels as the kernel
	// has taps, which is a convolution of one output pixel. A state dict has it with the two
	// dimensions of a linear layer, T×(S·kh·kw).
	flat bool
	// uniform is set for a layer whose random weights are as graph.NewHead makes them: the
	// last one of a network, and linear ones.
	uniform bool
	// fixed makes out the number of outputs of a state dict's too.
	fixed bool
}

// square is a layer of k×k taps with a stride, padding and dilation alike on both axes.
func square(out, k, stride, padding int) layer {
	return layer{out: out, size: [2]int{k, k}, geometry: conv.Geometry{Stride: [2]int{stride, stride}, Padding: [2]int{padding, padding}}}
}

// dilated is the layer with a dilation.
func (l layer) dilated(d int) layer {
	l.geometry.Dilation = [2]int{d, d}
	return l
}

// grouped is the layer in groups.
func (l layer) grouped(groups int) layer {
	l.geometry.Groups = groups
	return l
}

// biased is the layer with biases.
func (l layer) biased() layer {
	l.bias = true
	return l
}

// last is the layer as the last of a network, with biases.
func (l layer) last() layer {
	l.uniform = true
	return l.biased()
}

// conv adds a convolution.
func (b *builder) conv(name string, x *graph.Node, l layer) *graph.Node {
	if b.err != nil {
		return x
	}
	in := b.channels[x]
	if b.random() {
		g := l.geometry.Normal()
		if in%g.Groups != 0 || l.out%g.Groups != 0 {
			b.fail("%w: %s maps %d channels to %d in %d groups", ErrUnknown, name, in, l.out, g.Groups)
			return x
		}
		c := graph.NewConv([4]int{l.out, in / g.Groups, l.size[0], l.size[1]}, g, l.bias)
		k := c.Stages[0]
		if b.rng == nil {
			// Zeros will do.
		} else if l.uniform || l.linear || l.flat {
			head := graph.NewHead(in*k.Taps(), l.out, b.rng)
			k.Weight, k.Bias = head.Weight, head.Bias
		} else {
			graph.SetNormal(k, b.rng)
		}
		return b.add(name, &graph.Conv{Chain: c, Linear: l.linear}, l.out, x)
	}
	g := l.geometry
	if shape := b.r.Shape(name + ".weight"); g.Groups == 0 && len(shape) == 4 && shape[1] > 0 && in%shape[1] == 0 {
		g.Groups = in / shape[1]
	}
	c, err := b.r.Chain(b.manifest, name, g)
	if err != nil {
		b.refuse(err)
		return x
	}
	if l.flat {
		c = unflatten(c, in, l.size)
	}
	shape, geometry := c.Shape()
	if want := g.Normal(); g.Groups != 0 || b.manifest.Chain(name) == nil {
		// Along an axis of one tap a dilation means nothing.
		for a := range 2 {
			if shape[2+a] == 1 {
				geometry.Dilation[a] = want.Dilation[a]
			}
		}
		if [2]int(shape[2:]) != l.size || geometry != want {
			b.fail("%w: %s has %d×%d taps%s; %s wants %d×%d there%s", graph.ErrShape, name, shape[2], shape[3], unlike(geometry, want), b.arch(), l.size[0], l.size[1], unlike(want, geometry))
			return x
		}
	}
	if c.In() != in || l.fixed && c.Out() != l.out {
		want := "any number"
		if l.fixed {
			want = fmt.Sprint(l.out)
		}
		b.fail("%w: %s maps %d channels to %d; %s wants %d to %s there", graph.ErrShape, name, c.In(), c.Out(), b.arch(), in, want)
		return x
	}
	return b.add(name, &graph.Conv{Chain: c, Linear: l.linear}, c.Out(), x)
}

// unflatten is a linear layer on all values of a map, in PyTorch's order, as the
// convolution that it is; other chains are what they were. Weights are shared.
func unflatten(c *conv.Chain, in int, size [2]int) *conv.Chain {
	if c.Kind != conv.Dense {
		return c
	}
	k := *c.Stages[0]
	if k.Taps() != 1 || k.Shape[1] != in*size[0]*size[1] {
		return c
	}
	k.Shape = [4]int{k.Shape[0], in, size[0], size[1]}
	return conv.NewDense(&k)
}

// unlike tells in words what of a geometry another does not have.
func unlike(g, other conv.Geometry) string {
	var s string
	for _, f := range []struct {
		name     string
		is, isnt [2]int
	}{{"stride", g.Stride, other.Stride}, {"padding", g.Padding, other.Padding}, {"more padding at the end", g.Extra, other.Extra}, {"dilation", g.Dilation, other.Dilation}} {
		if f.is != f.isnt {
			s += fmt.Sprintf(", %s %d×%d", f.name, f.is[0], f.is[1])
		}
	}
	if g.Groups != other.Groups {
		s += fmt.Sprintf(", %d groups", g.Groups)
	}
	return s
}

// arch names the network in messages.
func (b *builder) arch() string {
	if b.g.Arch == "" {
		return "the network"
	}
	return b.g.Arch
}

// norm adds the batch norm behind a convolution. In a state dict without it, where the
// convolution has a bias, it is one that adds that.
func (b *builder) norm(name string, x *graph.Node) *graph.Node { return b.normEps(name, x, 1e-5) }

func (b *builder) normEps(name string, x *graph.Node, eps float64) *graph.Node {
	if b.err != nil {
		return x
	}
	c := b.channels[x]
	if b.random() {
		m := graph.NewBatchNorm(c)
		m.Eps = eps
		return b.add(name, m, c, x)
	}
	if cv := x.Conv(); cv != nil && cv.Chain.Kind == conv.Dense && cv.Chain.Stages[0].Bias != nil && !b.r.Has(name+".weight") {
		return b.add(name, unfolded(cv.Chain.Stages[0], eps), c, x)
	}
	m, err := b.r.BatchNorm(name, c, eps)
	if err != nil {
		b.refuse(err)
		return x
	}
	return b.add(name, m, c, x)
}

// unfolded is the norm of a convolution that its exporter folded one into: it adds the
// bias, which it takes from the kernel, and does nothing else.
func unfolded(k *conv.Kernel, eps float64) *graph.BatchNorm {
	n := &graph.BatchNorm{Eps: eps, Bias: k.Bias, Mean: make([]float32, len(k.Bias))}
	for range k.Bias {
		n.Weight, n.Var = append(n.Weight, 1), append(n.Var, float32(1-n.Eps))
	}
	k.Bias = nil
	return n
}

// relu adds ReLU.
func (b *builder) relu(name string, x *graph.Node) *graph.Node {
	return b.act(name, x, graph.ReLU, 0, 0)
}

// act adds an activation.
func (b *builder) act(name string, x *graph.Node, kind string, alpha, beta float64) *graph.Node {
	return b.add(name, &graph.Activation{Name: kind, Alpha: alpha, Beta: beta}, b.channels[x], x)
}

// sum adds the addition of two maps.
func (b *builder) sum(name string, x, y *graph.Node) *graph.Node {
	if b.err == nil && b.channels[x] != b.channels[y] {
		b.fail("%w: %s adds %d channels to %d", graph.ErrShape, name, b.channels[y], b.channels[x])
	}
	return b.add(name, &graph.Binary{Op: graph.Add}, b.channels[x], x, y)
}

// maxPool adds max pooling.
func (b *builder) maxPool(name string, x *graph.Node, size, stride, padding int, ceil bool) *graph.Node {
	return b.add(name, &graph.Pool{Size: [2]int{size, size}, Stride: [2]int{stride, stride},
		Begin: [2]int{padding, padding}, End: [2]int{padding, padding}, Ceil: ceil}, b.channels[x], x)
}

// vector adds the mean over all pixels and a vector of it.
func (b *builder) vector(x *graph.Node) *graph.Node {
	x = b.add("avgpool", graph.GlobalAverage(), b.channels[x], x)
	return b.add("flatten", &graph.Flatten{}, b.channels[x], x)
}

// linear adds a linear layer.
func (b *builder) linear(name string, x *graph.Node, out int) *graph.Node {
	return b.conv(name, x, layer{out: out, size: [2]int{1, 1}, bias: true, linear: true})
}

// finish makes y the output and head the layer of the classes.
func (b *builder) finish(y, head *graph.Node) {
	b.g.Outputs, b.g.Head = []*graph.Node{y}, head
}

// has tells whether a state dict has a tensor; of a chain its first stage's.
func has(r *graph.Reader, layer string) bool {
	return r.Has(layer+".weight") || r.Has(layer+".0.weight")
}

// decode reads the JSON of a description.
func decode(text json.RawMessage, into any) error {
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%w: the file's network description: %w", ErrUnknown, err)
	}
	return nil
}
