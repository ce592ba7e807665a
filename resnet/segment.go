package resnet

import (
	"fmt"
	"math/rand/v2"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
)

// The names of torchvision's segmentation networks. This package writes the body's
// without the prefix, so that a layer has one name in both kinds of network.
const (
	backbone   = "backbone."
	classifier = "classifier."
	neckName   = classifier + "0"
	neckNorm   = classifier + "1"
	headName   = classifier + "4" // 2 and 3 are ReLU and dropout
)

var neckGeometry = conv.Geometry{Padding: [2]int{1, 1}}

// DefaultDilate is how many stages of a segmentation network dilate where nobody
// says: two, as in torchvision's, of a network for large images, one of three
// stages for 32×32.
func (c Config) DefaultDilate() int {
	if c.CIFAR {
		return 1
	}
	return 2
}

// maxDilate is all but the first of four stages. A convolution's input is copied with
// its padding, which doubles with each, so a file must not say any number.
const maxDilate = 3

// validateDilate refuses what Dilate cannot be.
func (c Config) validateDilate(dilate int) error {
	if most := min(len(c.Blocks)-1, maxDilate); dilate < 0 || dilate > most {
		return fmt.Errorf("%w: %d of %d stages dilated; want 0 to %d", ErrUnknown, dilate, len(c.Blocks), most)
	}
	return nil
}

// validateClasses refuses what Classes cannot be: a mask has a byte for a pixel.
func (c Config) validateClasses(classes int) error {
	most := 1 << 20
	if c.Segment {
		most = dataset.Ignore
	}
	if classes < 1 || classes > most {
		return fmt.Errorf("%w: %d classes; want 1 to %d", ErrUnknown, classes, most)
	}
	return nil
}

// newSegmentation gives n a neck and a head of random weights behind a map of in
// channels.
func (n *Net) newSegmentation(in, classes int, rng *rand.Rand) {
	inner := max(in/4, 1)
	n.Neck = newUnit(neckName, neckNorm, in, inner, 3, neckGeometry, rng)
	n.Head = newHead(headName, inner, classes, rng)
	n.Segment, n.Classes = true, classes
}

// SetSegmentation makes n a segmentation network for the given number of classes, at
// most 255, whose last dilate stages are dilated (see Config). Neck and head are new
// and random; kernels, or the chains in their places, and batch norms are kept. The
// error wraps ErrUnknown; n is then as it was.
func (n *Net) SetSegmentation(classes, dilate int, seed uint64) error {
	c := n.Config
	c.Segment, c.Dilate = true, dilate
	for _, err := range []error{c.validateClasses(classes), c.validateDilate(dilate)} {
		if err != nil {
			return err
		}
	}
	out := n.Clone()
	out.Config = c
	set := func(u *Unit, g conv.Geometry) error {
		if _, was := u.Chain.Shape(); len(u.Modules) > 0 && was != g.Normal() {
			return fmt.Errorf("%w: %s has modules, made for its stride and dilation", ErrUnknown, u.Name)
		}
		chain, err := u.Chain.WithGeometry(g)
		if err != nil {
			return fmt.Errorf("%s: %w", u.Name, err)
		}
		u.Chain = chain
		return nil
	}
	for s, stage := range out.Stages {
		for i, b := range stage {
			at := c.place(s, i)
			for j, st := range c.steps(at) {
				if err := set(b.Units[j], st.g); err != nil {
					return err
				}
			}
			if b.Shortcut != nil {
				if err := set(b.Shortcut, at.shortcutGeometry()); err != nil {
					return err
				}
			}
		}
	}
	last := out.Stages[len(out.Stages)-1]
	units := last[len(last)-1].Units
	out.newSegmentation(units[len(units)-1].Chain.Out(), classes, rand.New(rand.NewPCG(seed, 0x7365676d656e74)))
	*n = *out
	return nil
}
