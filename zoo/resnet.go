package zoo

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
)

func init() {
	f := family{residual: true, is: isResNet, build: (*builder).resnet}
	for _, p := range published {
		f.names = append(f.names, p.name)
	}
	families = append(families, f)
}

// publishedNet is a residual network of the papers by its stages (He et al. 2016; Xie et
// al. 2017; Zagoruyko and Komodakis 2016).
type publishedNet struct {
	name       string
	cifar      bool
	bottleneck bool
	blocks     []int
	groups     int // of the 3×3 convolutions; 0 means 1
	width      int // of them in the first stage; 0 means 64
	deepLab    bool
}

var published = []publishedNet{
	{name: "resnet18", blocks: []int{2, 2, 2, 2}},
	{name: "resnet34", blocks: []int{3, 4, 6, 3}},
	{name: "resnet50", bottleneck: true, blocks: []int{3, 4, 6, 3}},
	{name: "resnet101", bottleneck: true, blocks: []int{3, 4, 23, 3}},
	{name: "resnet152", bottleneck: true, blocks: []int{3, 8, 36, 3}},
	{name: "resnet20", cifar: true, blocks: []int{3, 3, 3}},
	{name: "resnet32", cifar: true, blocks: []int{5, 5, 5}},
	{name: "resnet44", cifar: true, blocks: []int{7, 7, 7}},
	{name: "resnet56", cifar: true, blocks: []int{9, 9, 9}},
	{name: "resnet110", cifar: true, blocks: []int{18, 18, 18}},
	{name: "resnext50_32x4d", bottleneck: true, blocks: []int{3, 4, 6, 3}, groups: 32, width: 128},
	{name: "resnext101_32x8d", bottleneck: true, blocks: []int{3, 4, 23, 3}, groups: 32, width: 256},
	{name: "wide_resnet50_2", bottleneck: true, blocks: []int{3, 4, 6, 3}, width: 128},
	{name: "wide_resnet101_2", bottleneck: true, blocks: []int{3, 4, 23, 3}, width: 128},
	{name: "deeplabv3_resnet50", bottleneck: true, blocks: []int{3, 4, 6, 3}, deepLab: true},
	{name: "deeplabv3_resnet101", bottleneck: true, blocks: []int{3, 4, 23, 3}, deepLab: true},
}

// resnetConfig is what the names of a residual network's tensors do not say of its nodes;
// format 1 of our files has it as JSON.
type resnetConfig struct {
	Arch        string             `json:"arch"`
	Blocks      []int              `json:"blocks"`
	Bottleneck  bool               `json:"bottleneck"`
	CIFAR       bool               `json:"cifar"`
	PadShortcut bool               `json:"pad_shortcut"`
	StrideFirst bool               `json:"stride_first,omitempty"`
	Dilate      int                `json:"dilate,omitempty"`
	Segment     bool               `json:"segment,omitempty"`
	Classes     int                `json:"classes"`
	Input       [2]int             `json:"input"`
	Preprocess  dataset.Preprocess `json:"preprocess"`
	// Modules are adapters' own layers, by their units.
	Modules map[string][]graph.ModuleSpec `json:"modules,omitempty"`

	smallStem bool // as of networks for CIFAR
	deepLab   bool // it segments with DeepLab's head
	groups    int
	width     int // of the first stage's 3×3 convolutions
}

// The names of torchvision's segmentation networks. This package writes the body's
// without the prefix, so that a layer has one name in both kinds of network.
const (
	backbone   = "backbone."
	classifier = "classifier."
	auxiliary  = "aux_classifier."
	neckName   = classifier + "0"
	neckNorm   = classifier + "1"
	headName   = classifier + "4" // 2 and 3 are ReLU and dropout
)

func isResNet(r *graph.Reader) bool {
	for _, body := range []string{"", backbone} {
		if has(r, body+"conv1") && has(r, body+"layer1.0.conv1") {
			return true
		}
	}
	return false
}

// resnet builds the network called arch, or that of a state dict.
func (b *builder) resnet(arch string) error {
	var c resnetConfig
	if !b.random() {
		b.resnetNames()
		var err error
		if c, err = b.recogniseResNet(); err != nil {
			return err
		}
		b.buildResNet(c)
		return nil
	}
	p := published[slices.IndexFunc(published, func(p publishedNet) bool { return p.name == arch })]
	c = resnetConfig{
		Arch: p.name, Blocks: p.blocks, Bottleneck: p.bottleneck, CIFAR: p.cifar, groups: p.groups, width: p.width,
		PadShortcut: p.cifar && !b.opt.Projection, StrideFirst: b.opt.StrideFirst && p.bottleneck,
		Segment: b.opt.Segment || p.deepLab, deepLab: p.deepLab, Classes: b.classes, smallStem: p.cifar || b.opt.SmallStem,
	}
	c.standard()
	if b.opt.SmallStem && !p.cifar {
		c.Input = [2]int{32, 32}
	}
	if c.Segment {
		c.Dilate = c.defaultDilate()
	}
	if b.opt.Dilate != nil {
		c.Dilate = *b.opt.Dilate
	}
	if err := c.validateDilate(); err != nil {
		return err
	}
	b.buildResNet(c)
	return nil
}

// standard is the input of networks for CIFAR and for ImageNet.
func (c *resnetConfig) standard() {
	c.Input, c.Preprocess = [2]int{224, 224}, dataset.ImageNet
	if c.CIFAR {
		c.Input, c.Preprocess = [2]int{32, 32}, dataset.CIFAR
	}
}

// resnetNames makes the reader find tensors of torchvision's segmentation networks, whose
// body has a prefix, and passes over their auxiliary heads.
func (b *builder) resnetNames() {
	if !has(b.r, backbone+"conv1") {
		return
	}
	sd := b.r.SD
	for _, n := range sd.Names() {
		if short := strings.TrimPrefix(n, b.strip); strings.HasPrefix(short, auxiliary) {
			b.r.Mark(short)
		}
	}
	strip := b.strip
	b.r.Name = func(name string) string {
		if strings.HasPrefix(name, classifier) {
			return strip + name
		}
		return strip + backbone + name
	}
}

// recogniseResNet reads the architecture off the names.
func (b *builder) recogniseResNet() (resnetConfig, error) {
	var c resnetConfig
	r := b.r
	if !has(r, "bn1") && !r.Has("conv1.bias") {
		return c, fmt.Errorf("%w: its convolutions have the names of a residual network's, but there is no tensor called %q", ErrUnknown, "bn1.weight")
	}
	for s := 1; ; s++ {
		n := 0
		for has(r, fmt.Sprintf("layer%d.%d.conv1", s, n)) {
			n++
		}
		if n == 0 {
			break
		}
		c.Blocks = append(c.Blocks, n)
	}
	c.Bottleneck = has(r, "layer1.0.conv3")
	c.deepLab = has(r, asppName+"convs.0.0")
	c.Segment = c.deepLab || has(r, neckName)
	// ImageNet networks have four stages, CIFAR networks three.
	switch len(c.Blocks) {
	case 4:
	case 3:
		c.CIFAR = true
	default:
		return c, fmt.Errorf("%w: %d stages (layer1, layer2, …); want 4 (ImageNet) or 3 (CIFAR)", ErrUnknown, len(c.Blocks))
	}
	c.standard()
	c.smallStem = c.CIFAR
	if s := r.Shape("conv1.weight"); len(s) == 4 && s[2] == 3 && s[3] == 3 && !c.CIFAR {
		c.smallStem, c.Input = true, [2]int{32, 32}
	}
	width, groups := 64, 1
	if s := r.Shape("layer1.0.conv2.weight"); len(s) == 4 && c.Bottleneck {
		width = s[0]
		groups = max(s[0]/max(s[1], 1), 1)
	}
	c.Arch = "resnet"
	for _, n := range c.Blocks {
		c.Arch += fmt.Sprintf("-%d", n)
	}
	for _, p := range published {
		if p.deepLab == c.deepLab && p.cifar == c.CIFAR && p.bottleneck == c.Bottleneck && slices.Equal(p.blocks, c.Blocks) && (!c.Bottleneck || max(p.width, 64) == width || p.width == 0 && p.groups == 0 && groups == 1 && width != 128) && max(p.groups, 1) == groups {
			c.Arch = p.name
			break
		}
	}
	c.StrideFirst = b.load.StrideFirst
	if c.Segment {
		c.Dilate = c.defaultDilate()
		if b.load.Dilate != nil {
			c.Dilate = *b.load.Dilate
		}
	}
	return c, c.validateDilate()
}

// formatOne builds a network that format 1 of our files describes.
func (b *builder) formatOne(text json.RawMessage) error {
	var c resnetConfig
	if err := decode(text, &c); err != nil {
		return err
	}
	if err := c.validate(); err != nil {
		return err
	}
	c.smallStem = c.CIFAR
	b.resnetNames()
	b.buildResNet(c)
	if b.err != nil {
		return b.err
	}
	return addModules(b.g, b.r, b.manifest, c.Modules)
}

// validate refuses a description that no network can have.
func (c *resnetConfig) validate() error {
	if n := len(c.Blocks); n == 0 || n > 16 {
		return fmt.Errorf("%w: a description with %d stages", ErrUnknown, n)
	}
	for _, b := range c.Blocks {
		if b < 1 || b > 1<<10 {
			return fmt.Errorf("%w: a description with a stage of %d blocks", ErrUnknown, b)
		}
	}
	if c.Input[0] < 1 || c.Input[1] < 1 || c.Input[0] > 1<<14 || c.Input[1] > 1<<14 {
		return fmt.Errorf("%w: a description with an input of %d×%d", ErrUnknown, c.Input[0], c.Input[1])
	}
	return c.validateDilate()
}

// defaultDilate is how many stages of a segmentation network dilate where nobody says:
// two, as in torchvision's, of a network for large images, one of three stages for 32×32.
func (c *resnetConfig) defaultDilate() int {
	if c.CIFAR {
		return 1
	}
	return 2
}

// maxDilate is all but the first of four stages. A convolution's input is copied with its
// padding, which doubles with each, so a file must not say any number.
const maxDilate = 3

// validateDilate refuses what Dilate cannot be.
func (c *resnetConfig) validateDilate() error {
	if most := min(len(c.Blocks)-1, maxDilate); c.Dilate < 0 || c.Dilate > most {
		return fmt.Errorf("%w: %d of %d stages dilated; want 0 to %d", ErrUnknown, c.Dilate, len(c.Blocks), most)
	}
	return nil
}

// position is where a block stands: the stride of the block and the dilation of its 3×3
// convolutions.
type position struct{ stride, dilation int }

// position is that of a block of a stage, both counted from 0.
func (c *resnetConfig) position(stage, block int) position {
	p := position{1, 1}
	// How many stages up to this one dilate.
	dilating := max(stage+1+c.Dilate-len(c.Blocks), 0)
	switch {
	case block > 0:
		p.dilation <<= dilating
	case dilating > 0:
		p.dilation <<= dilating - 1
	case stage > 0:
		p.stride = 2
	}
	return p
}

// steps are the convolutions of a block.
func (c *resnetConfig) steps(p position, inner, out int) []layer {
	three := func(to, stride int) layer { return square(to, 3, stride, p.dilation).dilated(p.dilation) }
	switch {
	case !c.Bottleneck:
		return []layer{three(inner, p.stride), three(out, 1)}
	case c.StrideFirst:
		return []layer{square(inner, 1, p.stride, 0).grouped(1), three(inner, 1).grouped(c.groups), square(out, 1, 1, 0).grouped(1)}
	}
	return []layer{square(inner, 1, 1, 0).grouped(1), three(inner, p.stride).grouped(c.groups), square(out, 1, 1, 0).grouped(1)}
}

// heads are what people call the last layer of a classifier. A Sequential's last linear
// layer is found too.
var heads = []string{"fc", "linear", "head", "classifier", "last_linear", "head.fc"}

// head adds the last layer of a classifier to x.
func (b *builder) head(x *graph.Node, name string) {
	if b.err != nil {
		return
	}
	if !b.random() {
		found := b.findHead(name, b.channels[x])
		if found == "" {
			b.fail("%w: %s needs its last layer, a tensor called %q or the like; a body without a head has no classes, and its kernels alone can be compressed", ErrUnknown, b.arch(), name+".weight")
			return
		}
		name = found
	}
	y := b.linear(name, x, b.classes)
	b.finish(y, y)
}

// findHead is the name of a state dict's last layer, which the family calls name: that,
// or one of heads, or whatever the only linear layer on so many channels is called that
// nothing has taken. It is "" if there is none.
func (b *builder) findHead(name string, channels int) string {
	for _, h := range append([]string{name}, heads...) {
		if b.r.Has(h+".weight") || b.manifest.Chain(h) != nil {
			return h
		}
		for i := range 8 { // dropout and the like before it
			if s := fmt.Sprintf("%s.%d", h, i); len(b.r.Shape(s+".weight")) == 2 {
				return s
			}
		}
	}
	found := ""
	for _, n := range b.r.Unused() {
		layer, ok := strings.CutSuffix(strings.TrimPrefix(n, b.strip), ".weight")
		if s := b.r.Shape(layer + ".weight"); !ok || len(s) != 2 || s[1] != channels {
			continue
		}
		if found != "" {
			return ""
		}
		found = layer
	}
	return found
}

// buildResNet adds a residual network.
func (b *builder) buildResNet(c resnetConfig) {
	b.g.Arch = c.Arch
	channels := 3
	if !b.random() {
		if s := b.r.Shape("conv1.weight"); len(s) == 4 {
			channels = s[1]
		} else if s := b.r.Shape("conv1.0.weight"); len(s) == 4 {
			channels = s[1]
			if spec := b.manifest.Chain("conv1"); spec != nil && spec.Groups > 1 {
				channels *= spec.Groups
			}
		}
	}
	x := b.start(channels, c.Input, c.Preprocess)
	width := 64
	if c.CIFAR {
		width = 16
	}
	input := x
	stem := square(width, 7, 2, 3)
	if c.smallStem {
		stem = square(width, 3, 1, 1)
	}
	x = b.conv("conv1", x, stem.grouped(1))
	x = b.norm("bn1", x)
	x = b.relu("relu", x)
	if !c.smallStem {
		x = b.maxPool("maxpool", x, 3, 2, 1, false)
	}
	inner := c.width
	if inner == 0 || !c.Bottleneck {
		inner = width
	}
	for s, count := range c.Blocks {
		out := width << s
		if c.Bottleneck {
			out *= 4
		}
		for i := range count {
			x = b.resnetBlock(fmt.Sprintf("layer%d.%d", s+1, i), x, &c, c.position(s, i), inner<<s, out)
		}
	}
	if b.err != nil {
		return
	}
	if c.deepLab {
		b.deepLab(x, input)
		return
	}
	if c.Segment {
		b.segmentation(x, input, b.classes)
		return
	}
	x = b.vector(x)
	name := "fc"
	if c.CIFAR {
		name = "linear"
	}
	b.head(x, name)
}

func (b *builder) resnetBlock(name string, in *graph.Node, c *resnetConfig, at position, inner, out int) *graph.Node {
	x := in
	steps := c.steps(at, inner, out)
	for i, st := range steps {
		x = b.conv(fmt.Sprintf("%s.conv%d", name, i+1), x, st)
		x = b.norm(fmt.Sprintf("%s.bn%d", name, i+1), x)
		if i < len(steps)-1 {
			x = b.relu(fmt.Sprintf("%s.relu%d", name, i+1), x)
		} else if b.random() && b.opt.ZeroGain {
			clear(x.Op.(*graph.BatchNorm).Weight)
		}
	}
	short := b.shortcut(name, in, c, at, b.channels[x])
	x = b.sum(name+".add", x, short)
	return b.relu(name+".relu", x)
}

// shortcut is what is added behind a block whose output has so many channels.
func (b *builder) shortcut(name string, in *graph.Node, c *resnetConfig, at position, out int) *graph.Node {
	project := func(short string) *graph.Node {
		l := square(out, 1, at.stride, 0).grouped(1)
		l.fixed = true
		x := b.conv(name+"."+short+".0", in, l)
		return b.norm(name+"."+short+".1", x)
	}
	width := b.channels[in]
	same := width == out && at.stride == 1
	if b.err != nil {
		return in
	}
	if b.random() {
		switch {
		case same:
			return in
		case !c.PadShortcut && c.CIFAR:
			return project("shortcut")
		case !c.PadShortcut:
			return project("downsample")
		}
	} else {
		for _, short := range []string{"downsample", "shortcut"} {
			if has(b.r, name+"."+short+".0") {
				return project(short)
			}
		}
		if same {
			return in
		}
		// Option A, where the shape changes and nothing projects.
		if !c.CIFAR || out < width || (out-width)%2 != 0 {
			b.fail("%w: %s goes from %d to %d channels with stride %d and has no %s.downsample.0.weight", ErrUnknown, name, width, out, at.stride, name)
			return in
		}
	}
	half := (out - width) / 2
	return b.add(name+".shortcut", &graph.Subsample{Stride: [2]int{at.stride, at.stride}, Before: half, After: out - width - half}, out, in)
}

// segmentation adds torchvision's fully convolutional head (Long et al. 2015; the dropout
// before the last convolution is left out), whose logits are resized to the input's size.
func (b *builder) segmentation(x, input *graph.Node, classes int) {
	inner := max(b.channels[x]/4, 1)
	x = b.conv(neckName, x, square(inner, 3, 1, 1).grouped(1))
	x = b.norm(neckNorm, x)
	x = b.relu(classifier+"2", x)
	b.pixelClasses(headName, x, input, classes)
}

// pixelClasses adds the last layer of a network that segments, and makes its logits as
// large as the input.
func (b *builder) pixelClasses(name string, x, input *graph.Node, classes int) {
	x = b.conv(name, x, square(classes, 1, 1, 0).grouped(1).last())
	head := x
	x = b.add("resize", &graph.Resize{}, b.channels[x], x, input)
	b.finish(x, head)
	if n := b.channels[x]; b.err == nil && n > dataset.Ignore {
		b.fail("%w: %d classes; want 1 to %d", ErrUnknown, n, dataset.Ignore)
	}
}
