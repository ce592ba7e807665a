package resnet

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/internal/nn"
)

// Config says what a state dict cannot: it travels with a saved network as
// JSON.
type Config struct {
	// Arch is the published name where there is one ("resnet18", "resnet20"),
	// or "resnet-" and the blocks of each stage.
	Arch string `json:"arch"`
	// Blocks is the number of residual blocks of each stage.
	Blocks []int `json:"blocks"`
	// Bottleneck is set for 1×1, 3×3, 1×1 blocks, unset for 3×3, 3×3.
	Bottleneck bool `json:"bottleneck"`
	// CIFAR is set for the 3×3 stem without pooling of 32×32 networks, unset
	// for 7×7 with stride 2 and a max-pool.
	CIFAR bool `json:"cifar"`
	// PadShortcut is set for option A shortcuts: every second pixel, and zero
	// channels on both sides.
	PadShortcut bool `json:"pad_shortcut"`
	// StrideFirst puts a bottleneck's stride into its first 1×1 convolution
	// (the paper's "v1"); unset it is in the 3×3 ("v1.5", torchvision's).
	// Nothing in a checkpoint tells the two apart.
	StrideFirst bool `json:"stride_first,omitempty"`
	// Dilate is how many of the last stages keep the resolution of their input and
	// dilate in place of striding, fewer than all and at most three: each doubles the dilation of the
	// 3×3 convolutions, from its second block on (torchvision's
	// replace_stride_with_dilation, which is for bottlenecks; blocks of two 3×3
	// convolutions follow the same rule, both convolutions alike).
	Dilate int `json:"dilate,omitempty"`
	// Segment is set for a network with a class for every pixel: behind the stages
	// come a neck and a 1×1 convolution, whose logits are resized bilinearly to the
	// size of the input (Long et al. 2015, as torchvision's fcn_resnet50; the dropout
	// before the last convolution is left out).
	Segment bool `json:"segment,omitempty"`
	// Classes is the number of outputs, of the image or of each pixel.
	Classes int `json:"classes"`
	// Input is the height and width that sizes and costs are stated for; the
	// network runs on others too.
	Input [2]int `json:"input"`
	// Preprocess makes an input of an image.
	Preprocess dataset.Preprocess `json:"preprocess"`
}

// Norm is a batch norm in eval mode: y = (x − Mean)/√(Var + Eps)·Weight + Bias,
// for each channel.
type Norm struct {
	Name                    string
	Weight, Bias, Mean, Var []float32
	// Batches is the num_batches_tracked buffer, where there was one.
	Batches *int64
	Eps     float64
}

// Unit is a convolution, or a chain in its place, and the batch norm behind it, with
// what stands beside them.
type Unit struct {
	// Name is the convolution's in the state dict, "layer1.0.conv1".
	Name  string
	Chain *conv.Chain
	Norm  *Norm // nil for the linear head
	// Modules add to what the unit computes. There are none at the head.
	Modules []*Module
}

// Block is a residual block: its units in order, with ReLU between, and a
// shortcut that is added before the last ReLU.
type Block struct {
	Units []*Unit
	// Shortcut is a projection; nil for the identity, or for option A where
	// the shape changes.
	Shortcut *Unit
}

// Net is a residual network with its weights.
type Net struct {
	Config
	Stem   *Unit
	Stages [][]*Block
	// Neck is a 3×3 convolution to a quarter of the channels, of a segmentation
	// network; nil for others.
	Neck *Unit
	// Head is the linear layer, a 1×1 convolution on a 1×1 map, or of a
	// segmentation network the 1×1 convolution on the neck's.
	Head *Unit
}

// Site is a convolution in its place: what it is and how large its input is
// when the network runs at Config.Input.
type Site struct {
	*Unit
	// Linear is set for the head, unless that is a convolution on a map.
	Linear bool
	// H, W is the size of the input map.
	H, W int
}

// Sites lists the convolutions and the head in execution order; a projection
// shortcut stands behind the units of its block. Modules' convolutions are not among
// them.
func (n *Net) Sites() []Site {
	var sites []Site
	at := func(u *Unit, h, w int) (int, int) {
		sites = append(sites, Site{Unit: u, H: h, W: w})
		return u.Chain.OutputSize(h, w)
	}
	h, w := at(n.Stem, n.Input[0], n.Input[1])
	if !n.CIFAR {
		h, w = nn.PoolSize(h), nn.PoolSize(w)
	}
	for _, stage := range n.Stages {
		for _, b := range stage {
			bh, bw := h, w
			for _, u := range b.Units {
				bh, bw = at(u, bh, bw)
			}
			if b.Shortcut != nil {
				at(b.Shortcut, h, w)
			}
			h, w = bh, bw
		}
	}
	if n.Neck == nil {
		return append(sites, Site{Unit: n.Head, Linear: true, H: 1, W: 1})
	}
	h, w = at(n.Neck, h, w)
	return append(sites, Site{Unit: n.Head, H: h, W: w})
}

// Params is the number of trainable parameters: weights, biases and the batch
// norms' scales and shifts. The norms' running statistics are not among them.
func (n *Net) Params() int {
	p := 0
	for _, s := range n.Sites() {
		p += s.params()
	}
	return p
}

// MACs is the number of multiply-accumulates of the convolutions, modules' among
// them, and the head for one image of Config.Input.
func (n *Net) MACs() int64 {
	var m int64
	for _, s := range n.Sites() {
		m += s.macs(s.H, s.W)
	}
	return m
}

// Clone returns a network with its own units and modules. The chains and norms themselves
// are shared: they are replaced, never written to.
func (n *Net) Clone() *Net {
	out := &Net{Config: n.Config, Stem: n.Stem.clone(), Neck: n.Neck.clone(), Head: n.Head.clone()}
	for _, stage := range n.Stages {
		var blocks []*Block
		for _, b := range stage {
			c := &Block{Shortcut: b.Shortcut.clone()}
			for _, u := range b.Units {
				c.Units = append(c.Units, u.clone())
			}
			blocks = append(blocks, c)
		}
		out.Stages = append(out.Stages, blocks)
	}
	return out
}

// Replace puts chain in the place of the convolution called name. The chain
// must equal a convolution of the same channels, stride, padding, dilation and
// groups.
func (n *Net) Replace(name string, chain *conv.Chain) error {
	for _, s := range n.Sites() {
		if s.Name != name {
			continue
		}
		if err := chain.Validate(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		h, w := s.Chain.OutputSize(s.H, s.W)
		ch, cw := chain.OutputSize(s.H, s.W)
		if chain.In() != s.Chain.In() || chain.Out() != s.Chain.Out() || ch != h || cw != w {
			return fmt.Errorf("%s: %w: the chain maps %d channels to %d×%d×%d, the convolution %d to %d×%d×%d", name, conv.ErrShape,
				chain.In(), chain.Out(), ch, cw, s.Chain.In(), s.Chain.Out(), h, w)
		}
		// Sizes alone do not tell a dilated convolution from another.
		_, got := chain.Shape()
		if _, want := s.Chain.Shape(); got.Dilation != want.Dilation {
			return fmt.Errorf("%s: %w: the chain has a dilation of %v, the convolution of %v", name, conv.ErrShape, got.Dilation, want.Dilation)
		}
		s.Unit.Chain = chain
		return nil
	}
	return fmt.Errorf("resnet: no convolution is called %q", name)
}
