package resnet

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
)

// NewOptions are the choices of New beside the architecture; the zero value is the
// published network.
type NewOptions struct {
	// Seed is where the random weights come from.
	Seed uint64
	// Preprocess travels with the network; the zero value means ImageNet's or CIFAR's,
	// by the architecture.
	Preprocess dataset.Preprocess
	// StrideFirst: see Config.
	StrideFirst bool
	// Projection gives CIFAR networks 1×1 shortcuts with batch norms where the shape
	// changes, as ImageNet networks have them, in place of option A's.
	Projection bool
	// Segment makes a network with a class for every pixel, Dilate: see Config. Of
	// Dilate nil means DefaultDilate where Segment is set, else none.
	Segment bool
	Dilate  *int
	// ZeroGain begins with each block's last batch norm at zero, so that the blocks
	// are identities at first (Goyal et al. 2017).
	ZeroGain bool
}

// Architectures lists what New can build.
func Architectures() []string {
	var names []string
	for _, p := range published {
		names = append(names, p.name)
	}
	return names
}

// New is a published network for the given number of classes with random weights:
// normal ones of variance 2/(T·kh·kw) for convolutions (He et al. 2015, by the
// outputs), uniform ones within ±1/√S for weights and biases of the head, ones and
// zeros for the batch norms. The error wraps ErrUnknown.
func New(arch string, classes int, opt NewOptions) (*Net, error) {
	at := slices.IndexFunc(published, func(p publishedNet) bool { return p.name == arch })
	if at < 0 {
		return nil, fmt.Errorf("%w: architecture %q; want one of %v", ErrUnknown, arch, Architectures())
	}
	p := published[at]
	n := &Net{Config: Config{
		Arch: p.name, Blocks: slices.Clone(p.blocks), Bottleneck: p.bottleneck, CIFAR: p.cifar,
		PadShortcut: p.cifar && !opt.Projection, StrideFirst: opt.StrideFirst && p.bottleneck,
		Segment: opt.Segment, Classes: classes, Preprocess: opt.Preprocess,
	}}
	if opt.Segment {
		n.Dilate = n.DefaultDilate()
	}
	if opt.Dilate != nil {
		n.Dilate = *opt.Dilate
	}
	if err := errors.Join(n.validateClasses(classes), n.validateDilate(n.Dilate)); err != nil {
		return nil, err
	}
	width := 64
	n.Input = [2]int{224, 224}
	pre := dataset.ImageNet
	if p.cifar {
		width, n.Input, pre = 16, [2]int{32, 32}, dataset.CIFAR
	}
	if n.Preprocess == (dataset.Preprocess{}) {
		n.Preprocess = pre
	}
	if c := n.Preprocess.Crop; c[0] > 0 {
		n.Input = [2]int{c[1], c[0]}
	}
	rng := rand.New(rand.NewPCG(opt.Seed, 0x6c6f7772616e6b))
	g, taps := stem(p.cifar)
	n.Stem = newUnit("conv1", "bn1", 3, width, taps, g, rng)
	in := width
	for s, count := range p.blocks {
		var stage []*Block
		for i := range count {
			at := n.place(s, i)
			inner := width << s
			out := inner
			if p.bottleneck {
				out = 4 * inner
			}
			name := fmt.Sprintf("layer%d.%d", s+1, i)
			b := &Block{}
			from := in
			steps := n.Config.steps(at)
			for j, st := range steps {
				to := inner
				if j == len(steps)-1 {
					to = out
				}
				b.Units = append(b.Units, newUnit(fmt.Sprintf("%s.conv%d", name, j+1), fmt.Sprintf("%s.bn%d", name, j+1), from, to, st.taps, st.g, rng))
				from = to
			}
			if opt.ZeroGain {
				clear(b.Units[len(b.Units)-1].Norm.Weight)
			}
			if (in != out || at.stride != 1) && !n.PadShortcut {
				short := "downsample"
				if p.cifar {
					short = "shortcut"
				}
				b.Shortcut = newUnit(name+"."+short+".0", name+"."+short+".1", in, out, 1, at.shortcutGeometry(), rng)
			}
			in = out
			stage = append(stage, b)
		}
		n.Stages = append(n.Stages, stage)
	}
	if opt.Segment {
		n.newSegmentation(in, classes, rng)
		return n, nil
	}
	name := "fc"
	if p.cifar {
		name = "linear"
	}
	n.Head = newHead(name, in, classes, rng)
	return n, nil
}

// newUnit is a convolution of random weights and a batch norm.
func newUnit(name, norm string, in, out, taps int, g conv.Geometry, rng *rand.Rand) *Unit {
	k := &conv.Kernel{Shape: [4]int{out, in, taps, taps}, Weight: make([]float32, out*in*taps*taps), Geometry: g.Normal()}
	normal(k, rng)
	return &Unit{Name: name, Chain: conv.NewDense(k), Norm: newNorm(norm, out)}
}

// Randomise gives every convolution and batch norm of n random weights, as New does;
// chains become ordinary convolutions. Modules begin anew too, and add nothing at
// first. The head stays: see SetHead.
func (n *Net) Randomise(seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0x6c6f7772616e6b))
	for _, u := range n.all() {
		if u != n.Head {
			shape, g := u.Chain.Shape()
			modules := u.Modules
			*u = *newUnit(u.Name, u.Norm.Name, shape[1], shape[0], shape[2], g, rng)
			u.Modules = modules
			for _, m := range modules {
				m.randomise(rng)
			}
		}
	}
}

// newHead is a linear layer of random weights, or a 1×1 convolution.
func newHead(name string, in, classes int, rng *rand.Rand) *Unit {
	k := &conv.Kernel{Shape: [4]int{classes, in, 1, 1}, Weight: make([]float32, classes*in), Bias: make([]float32, classes), Geometry: conv.Geometry{}.Normal()}
	bound := 1 / math.Sqrt(float64(in))
	for _, v := range [][]float32{k.Weight, k.Bias} {
		for i := range v {
			v[i] = float32(bound * (2*rng.Float64() - 1))
		}
	}
	return &Unit{Name: name, Chain: conv.NewDense(k)}
}
