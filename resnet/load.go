package resnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/model"
)

// ErrUnknown is wrapped by errors about state dicts that are not one of the
// networks this package knows.
var ErrUnknown = errors.New("resnet: not a known residual network")

// Options are what a caller knows beyond a state dict. The zero value suits
// torchvision's and the common CIFAR checkpoints.
type Options struct {
	// StrideFirst: see Config. It is ignored for files that say it themselves.
	StrideFirst bool
	// Dilate: see Config. It is for segmentation networks whose file does not say it
	// itself; nil means DefaultDilate.
	Dilate *int
}

// publishedNet is a network of the papers by its stages.
type publishedNet struct {
	name       string
	cifar      bool
	bottleneck bool
	blocks     []int
}

var published = []publishedNet{
	{"resnet18", false, false, []int{2, 2, 2, 2}},
	{"resnet34", false, false, []int{3, 4, 6, 3}},
	{"resnet50", false, true, []int{3, 4, 6, 3}},
	{"resnet101", false, true, []int{3, 4, 23, 3}},
	{"resnet152", false, true, []int{3, 8, 36, 3}},
	{"resnet20", true, false, []int{3, 3, 3}},
	{"resnet32", true, false, []int{5, 5, 5}},
	{"resnet44", true, false, []int{7, 7, 7}},
	{"resnet56", true, false, []int{9, 9, 9}},
	{"resnet110", true, false, []int{18, 18, 18}},
}

// prefixes are what training wrappers put before every name.
var prefixes = []string{"module.", "_orig_mod.", "model.", "net.", "backbone."}

// Load makes a network of a state dict: one that Net.StateDict wrote, or a
// PyTorch checkpoint, whose names are stripped of prefixes such as "module.". Where
// convolutions have biases and no batch norms, as in exports that folded those, the norms
// are ones that add the biases.
// Every tensor must be accounted for. An error wraps ErrUnknown where the
// tensors are not those of a known network and conv.ErrShape where one has the
// wrong shape; it names the tensor.
func Load(sd *model.StateDict, opt Options) (*Net, error) {
	manifest, err := model.ReadManifest(sd)
	if err != nil {
		return nil, err
	}
	l := &loader{sd: sd, strip: commonPrefix(sd), manifest: manifest, used: map[string]bool{}}
	names := l.names()
	if manifest != nil && manifest.Network != nil {
		var d description
		if err := json.Unmarshal(manifest.Network, &d); err != nil {
			return nil, fmt.Errorf("resnet: the file's network description: %w", err)
		}
		l.net.Config, l.modules = d.Config, d.Modules
		err = l.net.Config.validate()
	} else {
		l.net.Config, err = recognise(names)
		l.net.StrideFirst = opt.StrideFirst
		if err == nil && l.net.Segment {
			l.net.Dilate = l.net.DefaultDilate()
			if opt.Dilate != nil {
				l.net.Dilate = *opt.Dilate
			}
			err = l.net.Config.validate()
		}
	}
	if err != nil {
		return nil, err
	}
	if err := l.build(names); err != nil {
		return nil, err
	}
	if err := l.checkModules(); err != nil {
		return nil, err
	}
	var extra []string
	for _, n := range sd.Names() {
		if !l.used[n] {
			extra = append(extra, n)
		}
	}
	if len(extra) > 0 {
		return nil, fmt.Errorf("%w: %s has no place for %s", ErrUnknown, l.net.Arch, list(extra))
	}
	return &l.net, nil
}

// Strip is sd, aliased, without what training wrappers put before every name, such as
// "module.".
func Strip(sd *model.StateDict) *model.StateDict {
	prefix := commonPrefix(sd)
	out := model.NewStateDict()
	for k, v := range sd.Meta {
		out.Meta[k] = v
	}
	for _, name := range sd.Names() {
		t, _ := sd.Get(name)
		out.Set(strings.TrimPrefix(name, prefix), t)
	}
	return out
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

func list(names []string) string {
	const most = 4
	quoted := make([]string, 0, most)
	for _, n := range names[:min(most, len(names))] {
		quoted = append(quoted, fmt.Sprintf("%q", n))
	}
	s := strings.Join(quoted, ", ")
	if len(names) > most {
		s += fmt.Sprintf(" and %d more", len(names)-most)
	}
	return s
}

// recognise reads the architecture off the names.
func recognise(names map[string]bool) (Config, error) {
	var c Config
	for _, need := range []string{"conv1.weight", "bn1.weight", "layer1.0.conv1.weight"} {
		folded := need == "bn1.weight" && names["conv1.bias"]
		if !names[need] && !folded {
			some := make([]string, 0, len(names))
			for n := range names {
				some = append(some, n)
			}
			sort.Strings(some)
			return c, fmt.Errorf("%w: no tensor is called %q; the file has %s", ErrUnknown, need, list(some))
		}
	}
	for s := 1; ; s++ {
		b := 0
		for names[fmt.Sprintf("layer%d.%d.conv1.weight", s, b)] {
			b++
		}
		if b == 0 {
			break
		}
		c.Blocks = append(c.Blocks, b)
	}
	c.Bottleneck = names["layer1.0.conv3.weight"]
	c.Segment = names[neckName+".weight"]
	// ImageNet networks have four stages, CIFAR networks three.
	switch len(c.Blocks) {
	case 4:
		c.Input = [2]int{224, 224}
		c.Preprocess = dataset.ImageNet
	case 3:
		c.CIFAR = true
		c.Input = [2]int{32, 32}
		c.Preprocess = dataset.CIFAR
	default:
		return c, fmt.Errorf("%w: %d stages (layer1, layer2, …); want 4 (ImageNet) or 3 (CIFAR)", ErrUnknown, len(c.Blocks))
	}
	c.Arch = "resnet"
	for _, b := range c.Blocks {
		c.Arch += fmt.Sprintf("-%d", b)
	}
	for _, p := range published {
		if p.cifar == c.CIFAR && p.bottleneck == c.Bottleneck && slices.Equal(p.blocks, c.Blocks) {
			c.Arch = p.name
		}
	}
	return c, nil
}

// validate refuses a description that no network can have.
func (c Config) validate() error {
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
	return c.validateDilate(c.Dilate)
}

type loader struct {
	net   Net
	sd    *model.StateDict
	strip string
	// body is what torchvision's segmentation networks have before the names of all
	// but the neck and the head.
	body     string
	manifest *model.Manifest
	used     map[string]bool
	modules  map[string][]ModuleSpec
}

func (l *loader) build(names map[string]bool) error {
	n := &l.net
	var err error
	g, taps := stem(n.CIFAR)
	if n.Stem, err = l.unit("conv1", "bn1", taps, 0, 0, g); err != nil {
		return err
	}
	if in := n.Stem.Chain.In(); in != 3 {
		return fmt.Errorf("%w: conv1 takes %d channels, want 3 (RGB)", ErrUnknown, in)
	}
	width := n.Stem.Chain.Out()
	for s, count := range n.Blocks {
		var stage []*Block
		for i := range count {
			b, err := l.block(fmt.Sprintf("layer%d.%d", s+1, i), width, n.place(s, i), names)
			if err != nil {
				return err
			}
			width = b.Units[len(b.Units)-1].Chain.Out()
			stage = append(stage, b)
		}
		n.Stages = append(n.Stages, stage)
	}
	head := "fc"
	switch {
	case n.Segment:
		head = headName
		if n.Neck, err = l.unit(neckName, neckNorm, 3, width, 0, neckGeometry); err != nil {
			return err
		}
		width = n.Neck.Chain.Out()
	case !names["fc.weight"] && !names["fc.0.weight"]:
		head = "linear"
	}
	if n.Head, err = l.unit(head, "", 1, width, 0, conv.Geometry{}); err != nil {
		return err
	}
	n.Classes = n.Head.Chain.Out()
	return n.Config.validateClasses(n.Classes)
}

// stem is the first convolution's geometry and its taps a side.
func stem(cifar bool) (conv.Geometry, int) {
	if cifar {
		return conv.Geometry{Padding: [2]int{1, 1}}, 3
	}
	return conv.Geometry{Stride: [2]int{2, 2}, Padding: [2]int{3, 3}}, 7
}

// step is a convolution of a block: its taps a side and its geometry.
type step struct {
	taps int
	g    conv.Geometry
}

// place is where a block stands: the stride of the block and the dilation of its
// 3×3 convolutions.
type place struct{ stride, dilation int }

// place is that of a block of a stage, both counted from 0.
func (c Config) place(stage, block int) place {
	p := place{1, 1}
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
func (c Config) steps(p place) []step {
	square := func(v int) [2]int { return [2]int{v, v} }
	three := conv.Geometry{Padding: square(p.dilation), Dilation: square(p.dilation)}
	strided := three
	strided.Stride = square(p.stride)
	switch {
	case !c.Bottleneck:
		return []step{{3, strided}, {3, three}}
	case c.StrideFirst:
		return []step{{1, conv.Geometry{Stride: square(p.stride)}}, {3, three}, {1, conv.Geometry{}}}
	}
	return []step{{1, conv.Geometry{}}, {3, strided}, {1, conv.Geometry{}}}
}

// shortcutGeometry is that of a projection.
func (p place) shortcutGeometry() conv.Geometry {
	return conv.Geometry{Stride: [2]int{p.stride, p.stride}}
}

func (l *loader) block(name string, in int, at place, names map[string]bool) (*Block, error) {
	b := &Block{}
	width := in
	for i, st := range l.net.steps(at) {
		u, err := l.unit(fmt.Sprintf("%s.conv%d", name, i+1), fmt.Sprintf("%s.bn%d", name, i+1), st.taps, width, 0, st.g)
		if err != nil {
			return nil, err
		}
		width = u.Chain.Out()
		b.Units = append(b.Units, u)
	}
	for _, short := range []string{"downsample", "shortcut"} {
		conv1, bn := name+"."+short+".0", name+"."+short+".1"
		if !names[conv1+".weight"] && !names[conv1+".0.weight"] {
			continue
		}
		u, err := l.unit(conv1, bn, 1, in, width, at.shortcutGeometry())
		if err != nil {
			return nil, err
		}
		b.Shortcut = u
		return b, nil
	}
	if in == width && at.stride == 1 {
		return b, nil
	}
	// Option A, where the shape changes and nothing projects.
	if !l.net.CIFAR || width < in || (width-in)%2 != 0 {
		return nil, fmt.Errorf("%w: %s goes from %d to %d channels with stride %d and has no %s.downsample.0.weight", ErrUnknown, name, in, width, at.stride, name)
	}
	l.net.PadShortcut = true
	return b, nil
}

// unit takes a convolution and its norm from the state dict. in and out are the
// channels it must have, 0 for any.
func (l *loader) unit(name, norm string, taps, in, out int, g conv.Geometry) (*Unit, error) {
	u := &Unit{Name: name}
	var err error
	if u.Chain, err = l.chain(name, g); err != nil {
		return nil, err
	}
	shape, geometry := u.Chain.Shape()
	want := g.Normal()
	if shape[2] != taps || shape[3] != taps || geometry != want {
		return nil, fmt.Errorf("%w: %s has shape %v and %+v; %s wants %d×%d taps and %+v there",
			conv.ErrShape, name, shape, geometry, l.net.Arch, taps, taps, want)
	}
	if in != 0 && shape[1] != in || out != 0 && shape[0] != out {
		return nil, fmt.Errorf("%w: %s maps %d channels to %d; %s wants %s to %s there",
			conv.ErrShape, name, shape[1], shape[0], l.net.Arch, anyOr(in), anyOr(out))
	}
	if norm == "" {
		return u, nil
	}
	if _, ok := l.sd.Get(l.full(norm + ".weight")); !ok && u.Chain.Kind == conv.Dense && u.Chain.Stages[0].Bias != nil {
		u.Norm = unfolded(u.Chain.Stages[0], norm)
	} else if u.Norm, err = l.norm(norm, shape[0]); err != nil {
		return nil, err
	}
	return u, l.addModules(u)
}

// unfolded is the norm of a convolution that its exporter folded one into: it adds the
// bias, which it takes from the kernel, and does nothing else.
func unfolded(k *conv.Kernel, name string) *Norm {
	n := &Norm{Name: name, Eps: 1e-5, Bias: k.Bias, Mean: make([]float32, len(k.Bias))}
	for range k.Bias {
		n.Weight, n.Var = append(n.Weight, 1), append(n.Var, float32(1-n.Eps))
	}
	k.Bias = nil
	return n
}

// chain is the convolution called name, of geometry g, or the chain in its place.
func (l *loader) chain(name string, g conv.Geometry) (*conv.Chain, error) {
	if spec := l.manifest.Chain(name); spec != nil {
		return spec.Load(l.sd, l.full(name), l.mark)
	}
	k, err := l.kernel(name, g)
	if err != nil {
		return nil, err
	}
	return conv.NewDense(k), nil
}

func anyOr(n int) string {
	if n == 0 {
		return "any number"
	}
	return strconv.Itoa(n)
}

// names has the names of the state dict without what l puts before them. Of
// torchvision's segmentation networks it passes the auxiliary head over.
func (l *loader) names() map[string]bool {
	if _, ok := l.sd.Get(l.strip + backbone + "conv1.weight"); ok {
		l.body = backbone
	}
	names := map[string]bool{}
	for _, n := range l.sd.Names() {
		short := strings.TrimPrefix(n, l.strip)
		if l.body != "" && strings.HasPrefix(short, "aux_classifier.") {
			l.mark(n)
			continue
		}
		if rest, ok := strings.CutPrefix(short, l.body); ok || strings.HasPrefix(short, classifier) {
			names[rest] = true
		}
	}
	return names
}

// full is what the state dict calls a tensor.
func (l *loader) full(name string) string {
	if strings.HasPrefix(name, classifier) {
		return l.strip + name
	}
	return l.strip + l.body + name
}

func (l *loader) mark(name string) { l.used[name] = true }

func (l *loader) floats(name string, dims int) ([]float32, []int, error) {
	full := l.full(name)
	t, ok := l.sd.Get(full)
	if !ok {
		return nil, nil, fmt.Errorf("%w: %s needs a tensor called %q", ErrUnknown, l.net.Arch, full)
	}
	if dims >= 0 && len(t.Shape) != dims {
		return nil, nil, fmt.Errorf("%w: %s has shape %v, want %d dimensions", conv.ErrShape, full, t.Shape, dims)
	}
	v, err := t.Float32s()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", full, err)
	}
	l.mark(full)
	return v, t.Shape, nil
}

// kernel is the convolution called name, or, of two dimensions, the linear
// layer.
func (l *loader) kernel(name string, g conv.Geometry) (*conv.Kernel, error) {
	w, dims, err := l.floats(name+".weight", -1)
	if err != nil {
		return nil, err
	}
	if len(dims) == 2 {
		dims = []int{dims[0], dims[1], 1, 1}
	}
	if len(dims) != 4 {
		return nil, fmt.Errorf("%w: %s.weight has shape %v, want four dimensions, or two for a linear layer", conv.ErrShape, name, dims)
	}
	var bias []float32
	if _, ok := l.sd.Get(l.full(name + ".bias")); ok {
		if bias, _, err = l.floats(name+".bias", 1); err != nil {
			return nil, err
		}
	}
	k, err := conv.NewKernel([4]int(dims), w, bias, g)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return k, nil
}

func (l *loader) norm(name string, channels int) (*Norm, error) {
	n := &Norm{Name: name, Eps: 1e-5}
	for _, f := range []struct {
		name string
		dst  *[]float32
	}{{"weight", &n.Weight}, {"bias", &n.Bias}, {"running_mean", &n.Mean}, {"running_var", &n.Var}} {
		v, _, err := l.floats(name+"."+f.name, 1)
		if err != nil {
			return nil, err
		}
		if len(v) != channels {
			return nil, fmt.Errorf("%w: %s.%s has %d values, the convolution before it %d channels", conv.ErrShape, name, f.name, len(v), channels)
		}
		*f.dst = v
	}
	for i, v := range n.Var {
		if v < 0 {
			return nil, fmt.Errorf("%w: %s.running_var is negative, %g, at channel %d", ErrUnknown, name, v, i)
		}
	}
	const tracked = ".num_batches_tracked"
	if t, ok := l.sd.Get(l.full(name + tracked)); ok {
		v, isInt := t.Data.([]int64)
		if !isInt || len(v) != 1 {
			return nil, fmt.Errorf("%w: %s%s is %v of %v, want one int64", conv.ErrShape, name, tracked, t.DType(), t.Shape)
		}
		n.Batches = &v[0]
		l.mark(l.full(name + tracked))
	}
	return n, nil
}

// StateDict is the network as it is saved: the tensors under their PyTorch
// names, without prefixes, a chain's stages under <name>.<stage>.weight and
// .bias, and a manifest from which Load rebuilds the network. It aliases the
// network's weights.
func (n *Net) StateDict() (*model.StateDict, error) {
	sd := model.NewStateDict()
	config, err := json.Marshal(n.describe())
	if err != nil {
		return nil, err
	}
	manifest := model.Manifest{Network: config}
	units := []*Unit{n.Stem}
	for _, stage := range n.Stages {
		for _, b := range stage {
			units = append(units, b.Units...)
			if b.Shortcut != nil {
				units = append(units, b.Shortcut)
			}
		}
	}
	if n.Neck != nil {
		units = append(units, n.Neck)
	}
	for _, u := range withSteps(units) {
		if u.Chain != nil {
			manifest.Store(sd, u.Name, u.Chain)
		}
		m := u.Norm
		if m == nil {
			continue
		}
		for _, f := range []struct {
			name string
			v    []float32
		}{{"weight", m.Weight}, {"bias", m.Bias}, {"running_mean", m.Mean}, {"running_var", m.Var}} {
			sd.Set(m.Name+"."+f.name, &model.Tensor{Shape: []int{len(f.v)}, Data: f.v})
		}
		if m.Batches != nil {
			sd.Set(m.Name+".num_batches_tracked", &model.Tensor{Data: []int64{*m.Batches}})
		}
	}
	if h := n.Head.Chain; h.Kind == conv.Dense && !n.Segment {
		// A linear layer keeps PyTorch's two dimensions.
		k := h.Stages[0]
		sd.Set(n.Head.Name+".weight", &model.Tensor{Shape: k.Shape[:2:2], Data: k.Weight})
		if k.Bias != nil {
			sd.Set(n.Head.Name+".bias", &model.Tensor{Shape: []int{len(k.Bias)}, Data: k.Bias})
		}
	} else {
		manifest.Store(sd, n.Head.Name, h)
	}
	if err := manifest.Write(sd); err != nil {
		return nil, err
	}
	return sd, nil
}
