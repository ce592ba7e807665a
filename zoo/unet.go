package zoo

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
)

func init() {
	families = append(families, family{names: []string{"unet"}, is: isUNet, build: (*builder).uNet})
}

func isUNet(r *graph.Reader) bool {
	return has(r, "inc.double_conv.0") && has(r, "outc.conv")
}

// uNet builds the U-Net (Ronneberger et al. 2015) of the common PyTorch port, with padding
// and batch norms, or that of a state dict, of any widths and depth. Maps are made larger
// by transposed convolutions, or bilinearly where a state dict has none. The sides of
// images must be multiples of 2 to the power of the depth, 16.
func (b *builder) uNet(string) error {
	b.g.Arch = "unet"
	depth := 4
	if !b.random() {
		depth = b.count(func(i int) string { return fmt.Sprintf("down%d.maxpool_conv.1.double_conv.0", i+1) })
	}
	x := b.start(b.images("inc.double_conv.0"), [2]int{256, 256}, dataset.Preprocess{Resize: 256, Crop: [2]int{256, 256}})
	const width = 64
	x = b.double("inc", x, width)
	skips := []*graph.Node{x}
	for i := range depth {
		name := fmt.Sprintf("down%d.maxpool_conv", i+1)
		x = b.maxPool(name+".0", x, 2, 2, 0, false)
		x = b.double(name+".1", x, width<<(i+1))
		skips = append(skips, x)
	}
	for i := range depth {
		name := fmt.Sprintf("up%d", i+1)
		skip := skips[depth-1-i]
		if b.random() || b.r.Has(name+".up.weight") {
			x = b.transposed(name+".up", x, b.channels[x]/2, 2)
		} else {
			x = b.add(name+".up", &graph.Resize{Scale: [2]float64{2, 2}, Coordinates: "align_corners"}, b.channels[x], x)
		}
		x = b.concat(name+".concat", skip, x)
		x = b.double(name+".conv", x, width<<(depth-1-i))
	}
	x = b.conv("outc.conv", x, square(b.classes, 1, 1, 0).last())
	b.finish(x, x)
	if n := b.channels[x]; b.err == nil && n > dataset.Ignore {
		b.fail("%w: %d classes; want 1 to %d", ErrUnknown, n, dataset.Ignore)
	}
	return b.err
}

// double adds two convolutions of 3×3 taps with norms and ReLU.
func (b *builder) double(name string, x *graph.Node, out int) *graph.Node {
	for i := range 2 {
		at := func(k int) string { return fmt.Sprintf("%s.double_conv.%d", name, 3*i+k) }
		x = b.conv(at(0), x, square(out, 3, 1, 1))
		x = b.norm(at(1), x)
		x = b.relu(at(2), x)
	}
	return x
}

// transposed adds a transposed convolution of k×k taps and a stride of k, with biases.
func (b *builder) transposed(name string, x *graph.Node, out, k int) *graph.Node {
	if b.err != nil {
		return x
	}
	in := b.channels[x]
	g := conv.Geometry{Stride: [2]int{k, k}}.Normal()
	shape := [4]int{in, out, k, k}
	weight, bias := make([]float32, in*out*k*k), make([]float32, out)
	if b.random() {
		if b.rng != nil {
			graph.SetNormal(&conv.Kernel{Shape: shape, Weight: weight, Geometry: g}, b.rng)
		}
	} else {
		w, s, err := b.r.Floats(name+".weight", 4)
		if err != nil {
			b.fail("%s: %w", b.arch(), err)
			return x
		}
		if s[0] != in || s[2] != k || s[3] != k {
			b.fail("%w: %s.weight has shape %v; %s wants %d channels in and %d×%d taps there", graph.ErrShape, name, s, b.arch(), in, k, k)
			return x
		}
		weight, shape, bias = w, [4]int(s), nil
		if b.r.Has(name + ".bias") {
			if bias, _, err = b.r.Floats(name+".bias", 1); err != nil {
				b.fail("%s: %w", b.arch(), err)
				return x
			}
		}
	}
	t, err := graph.NewConvTranspose(shape, weight, bias, g, [2]int{})
	if err != nil {
		b.fail("%s: %w", name, err)
		return x
	}
	return b.add(name, t, shape[1], x)
}
