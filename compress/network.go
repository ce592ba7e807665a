package compress

import (
	"context"
	"fmt"
	"strings"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
)

// Sites are the targets of a network.
func Sites(n *graph.Graph) []Target {
	var targets []Target
	for _, s := range n.Sites() {
		targets = append(targets, Target{Name: s.Name, Chain: s.Chain, Linear: s.Linear, H: s.H, W: s.W})
	}
	return targets
}

// Network is g with its convolutions factorised, and what became of each. g is left as it
// is; what was not replaced is shared.
func Network(ctx context.Context, g *graph.Graph, opt Options) (*graph.Graph, []Result, error) {
	results, err := Layers(ctx, Sites(g), opt)
	if err != nil {
		return nil, nil, err
	}
	out := g.Clone()
	for _, r := range results {
		if r.Reason != "" {
			continue
		}
		if err := out.Replace(r.Name, r.Chain); err != nil {
			return nil, nil, err
		}
	}
	return out, results, nil
}

// weightSuffixes are what names of weights end with, and the names of the
// biases beside them.
var weightSuffixes = []struct{ weight, bias string }{
	{".weight", ".bias"},
	{"_weight", "_bias"},
	{"", ""},
}

// Kernels are the targets of a state dict whose network is not known: every
// floating-point tensor of four dimensions, taken as a convolution in one
// group, and every weight of two, taken as a linear layer. A name's ".weight"
// or "_weight" is dropped, a bias beside it belongs to the target. Geometry and
// map sizes are not known: a kernel of several taps and one input channel, which is a
// depthwise one in all likelihood, must be left alone, and one whose input channels no
// other tensor of the file has is noted as one that may be in groups. It is an error if
// there are none.
func Kernels(sd *model.StateDict) ([]Target, error) {
	var targets []Target
	// The numbers of channels that tensors put out.
	channels := map[int]bool{}
	for _, name := range sd.Names() {
		if t, _ := sd.Get(name); len(t.Shape) > 0 {
			channels[t.Shape[0]] = true
		}
	}
	for _, name := range sd.Names() {
		t, _ := sd.Get(name)
		if !t.IsFloat() || len(t.Shape) != 4 && len(t.Shape) != 2 || t.Len() == 0 {
			continue
		}
		base, bias, suffixed := split(name)
		if len(t.Shape) == 2 && !suffixed {
			continue
		}
		shape := [4]int{t.Shape[0], t.Shape[1], 1, 1}
		copy(shape[2:], t.Shape[2:])
		w, err := t.Float32s()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		var b []float32
		if bt, ok := sd.Get(bias); ok && suffixed && len(bt.Shape) == 1 && bt.Shape[0] == shape[0] && bt.IsFloat() {
			if b, err = bt.Float32s(); err != nil {
				return nil, fmt.Errorf("%s: %w", bias, err)
			}
		}
		k, err := conv.NewKernel(shape, w, b, conv.Geometry{})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		target := Target{Name: base, Chain: conv.NewDense(k), Linear: len(t.Shape) == 2}
		switch {
		case k.Taps() == 1:
		case shape[1] == 1 && shape[0] > 1:
			target.Reason = "one input channel: depthwise, as far as the file tells, and no chain in one group is that"
		case len(targets) > 0 && !channels[shape[1]]:
			target.Note = fmt.Sprintf("taken as a convolution in one group, though no other tensor has %d channels: in groups it is another one", shape[1])
		}
		targets = append(targets, target)
	}
	if len(targets) == 0 {
		return nil, fmt.Errorf("%w: no floating-point tensor has four dimensions, as a convolution kernel has", model.ErrFormat)
	}
	return targets, nil
}

func split(name string) (base, bias string, suffixed bool) {
	for _, s := range weightSuffixes {
		if b, ok := strings.CutSuffix(name, s.weight); ok && b != "" {
			return b, b + s.bias, s.weight != ""
		}
	}
	return name, "", false
}

// StoreKernels is sd with the compressed targets of Kernels replaced by their
// stages, as graph.Manifest describes. The stage of more than one tap (the
// first, where all are 1×1) is the one that takes the stride, padding and
// dilation of the convolution, which the file does not know.
func StoreKernels(sd *model.StateDict, results []Result) (*model.StateDict, error) {
	chains := map[string]*conv.Chain{}
	for _, r := range results {
		if r.Reason == "" {
			chains[r.Name] = r.Chain
		}
	}
	out := model.NewStateDict()
	for k, v := range sd.Meta {
		out.Meta[k] = v
	}
	manifest := graph.Manifest{GeometryUnknown: true}
	dropped := map[string]bool{}
	for _, name := range sd.Names() {
		base, bias, _ := split(name)
		c, ok := chains[base]
		if !ok {
			continue
		}
		manifest.Store(out, base, c)
		dropped[name] = true
		if c.Last().Bias != nil {
			dropped[bias] = true
		}
	}
	for _, name := range sd.Names() {
		if !dropped[name] {
			t, _ := sd.Get(name)
			out.Set(name, t)
		}
	}
	return out, manifest.Write(out)
}
