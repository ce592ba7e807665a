package zoo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/realdata"
	"github.com/lowrank-go/lowrank/model"
)

// with is a state dict with other names.
func with(sd *model.StateDict, rename func(string) string) *model.StateDict {
	out := model.NewStateDict()
	for _, n := range sd.Names() {
		t, _ := sd.Get(n)
		if name := rename(n); name != "" {
			out.Set(name, t)
		}
	}
	return out
}

func TestOtherNamesOfTheSameNetworkLoad(t *testing.T) {
	old := strings.NewReplacer("norm1.", "norm.1.", "norm2.", "norm.2.", "conv1.", "conv.1.", "conv2.", "conv.2.")
	head := strings.NewReplacer("classifier.1.", "head.2.")
	other := strings.NewReplacer("classifier.1.", "my_own.last.")
	for _, c := range []struct {
		fixture string
		rename  func(string) string
	}{
		{"densenet", func(n string) string {
			if strings.Contains(n, "denselayer") {
				return old.Replace(n)
			}
			return n
		}},
		{"mobilenet_v2", func(n string) string { return "module." + n }},
		{"efficientnet", head.Replace},
		{"mobilenet_v2", other.Replace},
		{"googlenet", func(n string) string {
			if strings.HasPrefix(n, "aux") {
				return ""
			}
			return n
		}},
	} {
		f := readFixture(t, c.fixture)
		g, err := Load(with(f.state, c.rename), Options{})
		if err != nil {
			t.Errorf("%s: %v", c.fixture, err)
			continue
		}
		f.runs(g)
	}
}

// Exports fold batch norms into the convolutions before them, and their names are gone.
func TestNetworksWithFoldedNormsLoad(t *testing.T) {
	for _, name := range []string{"vgg_bn", "vgg_cifar", "mobilenet_v2", "densenet", "mobilenet_v3_small", "efficientnet", "googlenet", "shufflenet", "unet", "deeplabv3"} {
		f := readFixture(t, name)
		g, err := Load(f.state, Options{})
		if err != nil {
			t.Fatal(err)
		}
		sd, err := g.StateDict()
		if err != nil {
			t.Fatal(err)
		}
		clear(sd.Meta)
		norms := map[string]bool{}
		for _, s := range g.Sites() {
			if s.Norm == nil {
				continue
			}
			scale, shift := s.Norm.Op.(*graph.BatchNorm).Affine()
			k, err := s.Chain.Last().ScaleOutputs(scale, shift)
			if err != nil {
				t.Fatal(err)
			}
			sd.Set(s.Name+".weight", &model.Tensor{Shape: k.Shape[:], Data: k.Weight})
			sd.Set(s.Name+".bias", &model.Tensor{Shape: []int{len(k.Bias)}, Data: k.Bias})
			norms[s.Norm.Name] = true
		}
		folded := with(sd, func(n string) string {
			if norms[n[:strings.LastIndexByte(n, '.')]] {
				return ""
			}
			return n
		})
		back, err := Load(folded, Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		f.runs(back)
	}
}

func TestErrorsOfLoadNameTheTensor(t *testing.T) {
	for _, c := range []struct {
		fixture, tensor string
		shape           []int // nil to leave it out
		want            error
		says            string
	}{
		{"vgg", "classifier.3.weight", []int{9, 11}, graph.ErrShape, "classifier.3"},
		{"vgg", "classifier.0.weight", []int{10, 391}, graph.ErrShape, "classifier.0.weight"},
		{"vgg", "features.6.weight", []int{6, 5, 3, 3}, graph.ErrShape, "features.6"},
		{"vgg", "features.0.bias", []int{3}, graph.ErrShape, "features.0"},
		{"vgg_bn", "features.1.running_mean", []int{3}, graph.ErrShape, "features.1.running_mean"},
		{"alexnet", "features.3.weight", []int{6, 4, 3, 3}, graph.ErrShape, "features.3"},
		{"alexnet", "features.8.weight", nil, graph.ErrGraph, "features.8.weight"},
		{"squeezenet1_1", "features.3.expand3x3.weight", []int{4, 2, 3, 3}, graph.ErrShape, "features.3.expand3x3"},
		{"squeezenet1_1", "features.12.squeeze.weight", nil, ErrUnknown, "fire"},
		{"mobilenet_v2", "features.5.conv.2.weight", []int{7, 12, 1, 1}, graph.ErrShape, "features.5.conv.2"},
		{"mobilenet_v2", "features.17.conv.0.0.weight", nil, ErrUnknown, "16 blocks"},
		{"mobilenet_v2", "features.18.1.weight", nil, graph.ErrGraph, "features.18.1.weight"},
		{"densenet", "features.denseblock2.denselayer1.conv2.weight", []int{4, 7, 3, 3}, graph.ErrShape, "denseblock2.denselayer1.conv2"},
		{"densenet", "features.norm5.bias", nil, graph.ErrGraph, "features.norm5.bias"},
		{"mobilenet_v3_small", "features.1.block.1.fc2.weight", []int{5, 8, 1, 1}, graph.ErrShape, "features.1.block.1.fc2"},
		{"mobilenet_v3_large", "features.15.block.0.0.weight", nil, ErrUnknown, "14 blocks"},
		{"efficientnet", "features.3.0.block.1.0.weight", []int{8, 1, 4, 4}, graph.ErrShape, "features.3.0.block.1"},
		{"googlenet", "inception4c.branch2.1.conv.weight", []int{3, 3, 3, 3}, graph.ErrShape, "inception4c.branch2.1.conv"},
		{"googlenet", "fc.weight", nil, ErrUnknown, "fc.weight"},
		{"shufflenet", "stage3.1.branch2.0.weight", []int{6, 5, 1, 1}, graph.ErrShape, "stage3.1.branch2.0"},
		{"unet", "up2.up.weight", []int{5, 6, 2, 2}, graph.ErrShape, "up2.up.weight"},
		{"unet", "outc.conv.bias", []int{4}, graph.ErrShape, "outc.conv"},
		{"deeplabv3", "classifier.0.project.0.weight", []int{4, 19, 1, 1}, graph.ErrShape, "classifier.0.project.0"},
	} {
		f := readFixture(t, c.fixture)
		sd := with(f.state, func(n string) string {
			if n == c.tensor {
				return ""
			}
			return n
		})
		if sd.Len() == f.state.Len() {
			t.Fatalf("%s has no %s", c.fixture, c.tensor)
		}
		if c.shape != nil {
			n := 1
			for _, d := range c.shape {
				n *= d
			}
			sd.Set(c.tensor, &model.Tensor{Shape: c.shape, Data: make([]float32, n)})
		}
		_, err := Load(sd, Options{})
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s without a right %s: %v", c.fixture, c.tensor, err)
		}
	}
	f := readFixture(t, "shufflenet")
	f.state.Set("stage9.0.weight", &model.Tensor{Shape: []int{1}, Data: []float32{1}})
	if _, err := Load(f.state, Options{}); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "stage9.0.weight") {
		t.Errorf("a tensor too many: %v", err)
	}
}

// The weights and the three pairs of inputs and outputs are those of the ONNX model zoo,
// from MXNet.
func TestSqueezeNetHasItsReferenceOutputs(t *testing.T) {
	dir := realdata.Path(t, "squeezenet1.1")
	sd, err := model.ReadFile(dir + "/weights")
	if err != nil {
		t.Fatal(err)
	}
	g, err := Load(sd, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if g.Arch != "squeezenet1_1" || g.Params() != 1235496 {
		t.Errorf("it is %s of %d parameters", g.Arch, g.Params())
	}
	p, err := g.Compile()
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) *model.Tensor {
		sd, err := model.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		v, _ := sd.Get(sd.Names()[0])
		return v
	}
	for i := range 3 {
		in := read(fmt.Sprintf("%s/test_data_set/%d/input_0.npy", dir, i))
		values, err := in.Float32s()
		if err != nil {
			t.Fatal(err)
		}
		x := conv.NewMap(in.Shape[0], in.Shape[2], in.Shape[3], in.Shape[1])
		pixels := x.H * x.W
		for j, v := range values {
			x.Data[(j/(3*pixels)*pixels+j%pixels)*3+j/pixels%3] = v
		}
		got, err := p.Forward(context.Background(), x, 0)
		if err != nil {
			t.Fatal(err)
		}
		want, err := read(fmt.Sprintf("%s/test_data_set/%d/output_0.npy", dir, i)).Float32s()
		if err != nil {
			t.Fatal(err)
		}
		d := near(got, want, largest(want))
		if !(d <= tolerance) || math.IsNaN(d) {
			t.Errorf("output %d differs by %.2g of its largest", i, d)
		}
		t.Logf("output %d: within %.2g", i, d)
	}
}

// A state dict without one of its tensors, or with one of another shape, is never taken
// for a network, and no shape makes Load fail otherwise than by an error.
func TestStateDictsWithAWrongTensorAreRefused(t *testing.T) {
	for _, c := range fixtures {
		f := readFixture(t, c.name)
		for i, name := range f.state.Names() {
			v, _ := f.state.Get(name)
			if strings.HasPrefix(name, "aux") {
				continue
			}
			load := func(shape []int) error {
				sd := with(f.state, func(n string) string {
					if n == name {
						return ""
					}
					return n
				})
				if shape != nil {
					n := 1
					for _, d := range shape {
						n *= d
					}
					sd.Set(name, &model.Tensor{Shape: shape, Data: make([]float32, n)})
				}
				_, err := Load(sd, Options{})
				return err
			}
			// Convolutions and linear layers may have biases or not, and norms counts.
			if err := load(nil); err == nil && !strings.HasSuffix(name, ".bias") && !strings.HasSuffix(name, "num_batches_tracked") {
				t.Errorf("%s loads without %s", c.name, name)
			}
			shapes := [][]int{{}, {0}, {1, 2, 3, 4, 5}, {0, 0, 0, 0}}
			for d, n := range v.Shape {
				if d == 1 && n == 3 && len(v.Shape) == 4 && i == 0 {
					continue // images may have any channels
				}
				other := slices.Clone(v.Shape)
				other[d] += 1 + i%2
				shapes = append(shapes, other)
			}
			for _, s := range shapes[i%4:] {
				if err := load(s); err == nil {
					t.Errorf("%s loads with %s of %v in place of %v", c.name, name, s, v.Shape)
				}
			}
		}
	}
}
