package zoo

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
)

// Extension is what a task makes of a network beside new values for its tensors.
type Extension struct {
	// Modules are added, by the names of their units, which must have none so far.
	Modules map[string][]graph.ModuleSpec `json:"modules,omitempty"`
	// Dilate, where not nil, makes a classifier a segmentation network of which that many
	// stages dilate; see SetSegmentation.
	Dilate *int `json:"dilate,omitempty"`
}

// Extend puts an extension into the network in a state dict that Load reads. The tensors
// that it needs are in the state dict already; those of a classifier's head, which it
// replaces, are taken out.
func Extend(sd *model.StateDict, e Extension) error {
	if len(e.Modules) == 0 && e.Dilate == nil {
		return nil
	}
	manifest, err := graph.ReadManifest(sd)
	if err != nil {
		return err
	}
	if manifest == nil || manifest.Network == nil {
		return fmt.Errorf("%w: the file does not describe its network, which is to be extended", ErrUnknown)
	}
	g, r, err := load(sd, Options{})
	if err != nil {
		return err
	}
	for unit := range e.Modules {
		if g.ModulesAt(unit) > 0 {
			return fmt.Errorf("%w: %s has modules already", ErrUnknown, unit)
		}
	}
	if e.Dilate != nil {
		if g.Segments() {
			return fmt.Errorf("%w: %s is a segmentation network already", ErrUnknown, g.Arch)
		}
		if err := segment(g, *e.Dilate, func(b *builder, x, input *graph.Node) {
			b.r, b.manifest = r, manifest
			b.segmentation(x, input, 0)
		}); err != nil {
			return err
		}
	}
	if err := addModules(g, r, manifest, e.Modules); err != nil {
		return err
	}
	out, err := g.StateDict()
	if err != nil {
		return err
	}
	for _, name := range r.Unused() {
		t, _ := sd.Get(name)
		if _, ok := out.Get(name); !ok {
			out.Set(name, t)
		}
	}
	for k, v := range sd.Meta {
		if _, ok := out.Meta[k]; !ok {
			out.Meta[k] = v
		}
	}
	*sd = *out
	return nil
}

// Bounds of what a file may ask for; graph has them too, but empty steps would take no
// tensors from the file.
const (
	mostModules = 16 // of a unit
	mostSteps   = 16 // of a module
)

// addModules adds modules, by the names of their units, with the tensors of a state dict.
func addModules(g *graph.Graph, r *graph.Reader, manifest *graph.Manifest, specs map[string][]graph.ModuleSpec) error {
	var units []string
	for unit := range specs {
		units = append(units, unit)
	}
	slices.Sort(units)
	for _, unit := range units {
		step := 0
		for i, spec := range specs[unit] {
			if len(spec.Steps) > mostSteps || i == mostModules {
				return fmt.Errorf("%w: more modules of %s than %d of %d steps", ErrUnknown, unit, mostModules, mostSteps)
			}
			m := &graph.Module{Place: spec.Place, Scale: spec.Scale}
			for _, s := range spec.Steps {
				part, err := moduleStep(r, manifest, graph.StepName(unit, step), s)
				if err != nil {
					return err
				}
				m.Steps = append(m.Steps, part)
				step++
			}
			if err := g.AddModule(unit, m); err != nil {
				return fmt.Errorf("%w: %w", ErrUnknown, err)
			}
		}
	}
	return nil
}

func moduleStep(r *graph.Reader, manifest *graph.Manifest, name string, s graph.StepSpec) (graph.ModuleStep, error) {
	st := graph.ModuleStep{ReLU: s.ReLU}
	channels := -1
	var err error
	if s.Conv != nil {
		if st.Chain, err = r.Chain(manifest, name, *s.Conv); err != nil {
			return st, err
		}
		channels = st.Chain.Out()
	}
	if !s.Norm {
		return st, nil
	}
	norm := name + graph.StepNorm
	if channels < 0 {
		shape := r.Shape(norm + ".weight")
		if len(shape) != 1 {
			return st, fmt.Errorf("%w: %s.weight has shape %v, want one dimension", graph.ErrShape, norm, shape)
		}
		channels = shape[0]
	}
	st.Norm, err = r.BatchNorm(norm, channels, 1e-5)
	return st, err
}

// SetSegmentation makes a residual network a segmentation network for the given number of
// classes, at most 255, whose last dilate stages are dilated (see Options). Neck and head
// are new and random; kernels, or the chains in their places, and batch norms are kept.
// The error wraps ErrUnknown; g is then as it was.
func SetSegmentation(g *graph.Graph, classes, dilate int, seed uint64) error {
	if classes < 1 || classes > 255 {
		return fmt.Errorf("%w: %d classes; want 1 to 255", ErrUnknown, classes)
	}
	return segment(g, dilate, func(b *builder, x, input *graph.Node) {
		b.rng = rand.New(rand.NewPCG(seed, 0x7365676d656e74))
		b.segmentation(x, input, classes)
	})
}

// DefaultDilate is how many stages of a segmentation network made of g dilate where nobody
// says: two, as in torchvision's, of a network for large images, one of three stages for
// small ones.
func DefaultDilate(g *graph.Graph) int {
	return min(2, max(len(stages(g))-2, 0))
}

// block is the name of a residual block's layer.
var block = regexp.MustCompile(`^layer([1-9]\d?)\.(\d{1,4})\.(conv([123])|(?:downsample|shortcut)\.0|shortcut)$`)

// stages are the blocks of each stage of a residual network.
func stages(g *graph.Graph) []int {
	var s []int
	for _, n := range g.Nodes {
		if m := block.FindStringSubmatch(n.Name); m != nil {
			stage, _ := strconv.Atoi(m[1])
			at, _ := strconv.Atoi(m[2])
			for len(s) < stage {
				s = append(s, 0)
			}
			s[stage-1] = max(s[stage-1], at+1)
		}
	}
	return s
}

// Dilated is how many of the last stages of a residual network dilate.
func Dilated(g *graph.Graph) int {
	d := 0
	for i := range stages(g) {
		n := g.Node(fmt.Sprintf("layer%d.0.conv1", i+1))
		short := g.Node(fmt.Sprintf("layer%d.0.conv2", i+1))
		if i == 0 || n == nil || n.Conv() == nil || short == nil || short.Conv() == nil {
			continue
		}
		_, a := n.Conv().Chain.Shape()
		_, b := short.Conv().Chain.Shape()
		if a.Stride[0] == 1 && b.Stride[0] == 1 {
			d++
		}
	}
	return d
}

// segment makes g a segmentation network: its body dilated, and behind it what head adds.
func segment(g *graph.Graph, dilate int, head func(b *builder, x, input *graph.Node)) error {
	c := resnetConfig{Blocks: stages(g), Dilate: dilate}
	if len(c.Blocks) == 0 {
		return fmt.Errorf("%w: %s is no residual network, of which segmentation networks are made", ErrUnknown, g.Arch)
	}
	if err := c.validateDilate(); err != nil {
		return err
	}
	out := g.Clone()
	c.Bottleneck = out.Node("layer1.0.conv3") != nil
	if n := out.Node("layer2.0.conv1"); n != nil && c.Bottleneck && n.Conv() != nil {
		_, geometry := n.Conv().Chain.Shape()
		c.StrideFirst = geometry.Stride[0] == 2
	}
	for _, n := range out.Nodes {
		m := block.FindStringSubmatch(n.Name)
		if m == nil {
			continue
		}
		stage, _ := strconv.Atoi(m[1])
		at, _ := strconv.Atoi(m[2])
		p := c.position(stage-1, at)
		if s, ok := n.Op.(*graph.Subsample); ok {
			own := *s
			own.Stride = [2]int{p.stride, p.stride}
			n.Op = &own
			continue
		}
		if n.Conv() == nil {
			continue
		}
		geometry := conv.Geometry{Stride: [2]int{p.stride, p.stride}}
		if m[4] != "" {
			i, _ := strconv.Atoi(m[4])
			steps := c.steps(p, 1, 1)
			if i > len(steps) {
				return fmt.Errorf("%w: %s has a convolution %s", ErrUnknown, g.Arch, n.Name)
			}
			geometry = steps[i-1].geometry
		}
		_, was := n.Conv().Chain.Shape()
		geometry.Groups = was.Groups
		if g.ModulesAt(n.Name) > 0 && was != geometry.Normal() {
			return fmt.Errorf("%w: %s has modules, made for its stride and dilation", ErrUnknown, n.Name)
		}
		chain, err := n.Conv().Chain.WithGeometry(geometry)
		if err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
		n.Op = &graph.Conv{Chain: chain}
	}
	// A classifier's end goes, from the mean over all pixels on; of a network that segments
	// neck and head.
	end := slices.IndexFunc(out.Nodes, func(n *graph.Node) bool {
		p, ok := n.Op.(*graph.Pool)
		return n.Name == neckName || ok && p.Adaptive == [2]int{1, 1}
	})
	if end < 0 || len(out.Nodes[end].In) != 1 {
		return fmt.Errorf("%w: %s ends neither in the mean over all pixels, as a classifier does, nor in %s, as a network that segments does", ErrUnknown, g.Arch, neckName)
	}
	x := out.Nodes[end].In[0]
	var input *graph.Node
	for _, n := range out.Nodes {
		if _, ok := n.Op.(*graph.Input); ok {
			input = n
			break
		}
	}
	out.Nodes = out.Nodes[:end]
	b := &builder{g: out, channels: map[*graph.Node]int{}}
	shapes, err := out.Shapes(out.Input)
	if err != nil {
		return err
	}
	for i, n := range out.Nodes {
		if len(shapes[i]) > 0 {
			b.channels[n] = shapes[i][0]
		}
	}
	head(b, x, input)
	if b.err != nil {
		return b.err
	}
	if err := out.Validate(); err != nil {
		return err
	}
	*g = *out
	return nil
}
