package zoo

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/realdata"
	"github.com/lowrank-go/lowrank/model"
)

// resnets were made by testdata/make.py with PyTorch.
var resnets = []struct {
	name    string
	opt     Options
	blocks  []int
	bottle  bool
	pad     bool
	classes int
}{
	{"basic", Options{}, []int{1, 2, 1, 1}, false, false, 7},
	{"bottleneck", Options{}, []int{2, 1, 1, 1}, true, false, 5},
	{"bottleneck_v1", Options{StrideFirst: true}, []int{1, 1, 1, 1}, true, false, 5},
	{"cifar_pad", Options{}, []int{1, 2, 1}, false, true, 6},
	{"cifar_projection", Options{}, []int{1, 1, 2}, false, false, 6},
}

func residual(t *testing.T, name string, opt Options) *graph.Graph {
	t.Helper()
	sd, err := model.ReadFile(filepath.Join("testdata", name+".pth"))
	if err != nil {
		t.Fatal(err)
	}
	net, err := Load(sd, opt)
	if err != nil {
		t.Fatal(err)
	}
	return net
}

// reference is the input, as NHWC, and PyTorch's logits.
func reference(t *testing.T, name string) (*conv.Map, []float32) {
	t.Helper()
	sd, err := model.ReadFile(filepath.Join("testdata", name+".npz"))
	if err != nil {
		t.Fatal(err)
	}
	x, _ := sd.Get("x")
	y, _ := sd.Get("y")
	n, c, h, w := x.Shape[0], x.Shape[1], x.Shape[2], x.Shape[3]
	m := conv.NewMap(n, h, w, c)
	for i := range n {
		for k := range c {
			for p := range h * w {
				m.Data[(i*h*w+p)*c+k] = x.Data.([]float32)[(i*c+k)*h*w+p]
			}
		}
	}
	return m, y.Data.([]float32)
}

func logits(t *testing.T, net *graph.Graph, x *conv.Map, workers int) []float32 {
	t.Helper()
	p, err := net.Compile()
	if err != nil {
		t.Fatal(err)
	}
	// Twice: the second run reuses the maps of the first.
	if _, err := p.Forward(t.Context(), x, workers); err != nil {
		t.Fatal(err)
	}
	y, err := p.Forward(t.Context(), x, workers)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(y)
}

func TestForwardEqualsPyTorch(t *testing.T) {
	for _, f := range resnets {
		t.Run(f.name, func(t *testing.T) {
			net := residual(t, f.name, f.opt)
			if !slices.Equal(stages(net), f.blocks) || bottle(net) != f.bottle || pads(net) != f.pad || net.Classes() != f.classes {
				t.Fatalf("recognised as\n%v", net)
			}
			x, want := reference(t, f.name)
			got := logits(t, net, x, 2)
			if len(got) != len(want) {
				t.Fatalf("%d logits, want %d", len(got), len(want))
			}
			for i, v := range want {
				if math.Abs(float64(got[i]-v)) > 2e-5*(1+math.Abs(float64(v))) {
					t.Errorf("logit %d is %g, PyTorch has %g", i, got[i], v)
				}
			}
			if one := logits(t, net, x, 1); !slices.Equal(one, got) {
				t.Error("one worker and two give different logits")
			}
		})
	}
}

func TestStrideFirstMattersToABottleneck(t *testing.T) {
	x, want := reference(t, "bottleneck_v1")
	got := logits(t, residual(t, "bottleneck_v1", Options{}), x, 1)
	var diff float64
	for i, v := range want {
		diff = max(diff, math.Abs(float64(got[i]-v)))
	}
	if diff < 1e-3 {
		t.Errorf("v1 weights run as v1.5 give v1's logits within %g", diff)
	}
}

// bottle tells whether a network's blocks are bottlenecks, pads whether its shortcuts pad.
func bottle(g *graph.Graph) bool { return g.Node("layer1.0.conv3") != nil }

func pads(g *graph.Graph) bool {
	return slices.ContainsFunc(g.Nodes, func(n *graph.Node) bool { _, ok := n.Op.(*graph.Subsample); return ok })
}

// randomChain replaces the kernel by a Tucker-2 shaped chain of random weights.
func randomChain(rng *rand.Rand, c *conv.Chain) *conv.Chain {
	k := c.Stages[0]
	fill := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(rng.NormFloat64() / 4)
		}
		return v
	}
	return &conv.Chain{Kind: conv.Tucker2, Rank: []int{3, 2}, Groups: 1, Stages: []*conv.Kernel{
		{Shape: [4]int{2, k.Shape[1], 1, 1}, Weight: fill(2 * k.Shape[1])},
		{Shape: [4]int{3, 2, k.Shape[2], k.Shape[3]}, Weight: fill(6 * k.Taps()), Geometry: k.Geometry},
		{Shape: [4]int{k.Out(), 3, 1, 1}, Weight: fill(3 * k.Out()), Bias: k.Bias},
	}}
}

// reload is net by way of a file, which knows what options say of others.
func reload(t *testing.T, net *graph.Graph) *graph.Graph {
	t.Helper()
	sd, err := net.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "net.safetensors")
	if err := model.WriteSafetensors(path, sd); err != nil {
		t.Fatal(err)
	}
	if sd, err = model.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	back, err := Load(sd, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return back
}

func TestANetworkSurvivesItsFile(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, f := range resnets {
		t.Run(f.name, func(t *testing.T) {
			net := residual(t, f.name, f.opt)
			for _, s := range net.Sites() {
				if s.Name == "layer2.0.conv2" || s.Name == "layer3.0.downsample.0" || s.Linear {
					if err := net.Replace(s.Name, randomChain(rng, s.Chain)); err != nil {
						t.Fatal(err)
					}
				}
			}
			back := reload(t, net)
			if back.Params() != net.Params() || back.MACs() != net.MACs() || back.Arch != net.Arch {
				t.Errorf("%s of %d parameters came back as %s of %d", net.Arch, net.Params(), back.Arch, back.Params())
			}
			x, _ := reference(t, f.name)
			if !slices.Equal(logits(t, net, x, 1), logits(t, back, x, 1)) {
				t.Error("the network that came back gives other logits")
			}
			if n := back.Node("bn1").BatchNorm().Batches; n == nil || *n != *net.Node("bn1").BatchNorm().Batches {
				t.Error("num_batches_tracked was lost")
			}
		})
	}
}

func TestChainsRunLikeTheKernelsTheyEqual(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	net := residual(t, "bottleneck", Options{})
	before, err := net.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range net.Sites() {
		if err := net.Replace(s.Name, randomChain(rng, s.Chain)); err != nil {
			t.Fatal(err)
		}
	}
	multiplied, err := net.Compose()
	if err != nil {
		t.Fatal(err)
	}
	after, err := multiplied.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(after.Names(), before.Names()) {
		t.Errorf("multiplied out, the tensors are %q; want %q", after.Names(), before.Names())
	}
	x, _ := reference(t, "bottleneck")
	got, want := logits(t, net, x, 2), logits(t, multiplied, x, 2)
	for i := range want {
		if math.Abs(float64(got[i]-want[i])) > 1e-4*(1+math.Abs(float64(want[i]))) {
			t.Errorf("logit %d is %g, with the multiplied kernels %g", i, got[i], want[i])
		}
	}
}

func TestLoadNamesWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(sd *model.StateDict)
		want   error
		words  string
	}{
		{"empty", func(sd *model.StateDict) {
			for _, n := range slices.Clone(sd.Names()) {
				sd.Delete(n)
			}
		}, ErrUnknown, "no tensors"},
		{"missing tensor", func(sd *model.StateDict) { sd.Delete("layer2.0.bn1.running_var") }, ErrUnknown, "layer2.0.bn1.running_var"},
		{"missing head", func(sd *model.StateDict) { sd.Delete("linear.weight") }, ErrUnknown, "linear.weight"},
		{"extra tensor", func(sd *model.StateDict) {
			sd.Set("aux.weight", &model.Tensor{Shape: []int{1}, Data: []float32{1}})
		}, ErrUnknown, "aux.weight"},
		{"wrong channels", func(sd *model.StateDict) {
			sd.Set("layer1.0.conv2.weight", &model.Tensor{Shape: []int{4, 3, 3, 3}, Data: make([]float32, 108)})
		}, conv.ErrShape, "layer1.0.conv2"},
		{"wrong taps", func(sd *model.StateDict) {
			sd.Set("layer1.0.conv2.weight", &model.Tensor{Shape: []int{4, 4, 5, 5}, Data: make([]float32, 400)})
		}, conv.ErrShape, "layer1.0.conv2"},
		{"wrong dimensions", func(sd *model.StateDict) {
			sd.Set("layer1.0.conv2.weight", &model.Tensor{Shape: []int{144}, Data: make([]float32, 144)})
		}, conv.ErrShape, "layer1.0.conv2"},
		{"short norm", func(sd *model.StateDict) {
			sd.Set("bn1.weight", &model.Tensor{Shape: []int{3}, Data: make([]float32, 3)})
		}, conv.ErrShape, "bn1.weight"},
		{"negative variance", func(sd *model.StateDict) {
			sd.Set("bn1.running_var", &model.Tensor{Shape: []int{4}, Data: []float32{1, 1, -1, 1}})
		}, ErrUnknown, "bn1: running_var"},
		{"integer weights", func(sd *model.StateDict) {
			sd.Set("linear.bias", &model.Tensor{Shape: []int{6}, Data: make([]int64, 6)})
		}, nil, "linear.bias"},
		{"stage lost", func(sd *model.StateDict) {
			for _, n := range slices.Clone(sd.Names()) {
				if strings.HasPrefix(n, "layer3.") {
					sd.Delete(n)
				}
			}
		}, ErrUnknown, "2 stages"},
		{"bad manifest", func(sd *model.StateDict) { sd.Meta[model.ManifestKey] = "{" }, model.ErrCorrupt, "manifest"},
		{"hostile manifest", func(sd *model.StateDict) {
			sd.Meta[model.ManifestKey] = `{"format":1,"network":{"blocks":[1000000000],"input":[32,32]}}`
		}, ErrUnknown, "blocks"},
		{"future manifest", func(sd *model.StateDict) { sd.Meta[model.ManifestKey] = `{"format":9}` }, model.ErrUnsupported, "format 9"},
		{"chain without tensors", func(sd *model.StateDict) {
			sd.Meta[model.ManifestKey] = `{"format":1,"chains":{"conv1":{"kind":"svd","stages":[{}]}}}`
		}, model.ErrCorrupt, "conv1.0.weight"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sd, err := model.ReadFile("testdata/cifar_pad.pth")
			if err != nil {
				t.Fatal(err)
			}
			c.damage(sd)
			_, err = Load(sd, Options{})
			if err == nil {
				t.Fatal("no error")
			}
			if c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("error %q does not wrap %q", err, c.want)
			}
			if c.name != "bad manifest" && !strings.Contains(err.Error(), c.words) {
				t.Errorf("error %q does not mention %q", err, c.words)
			}
		})
	}
}

func TestReplaceRefusesAnotherShape(t *testing.T) {
	net := residual(t, "cifar_pad", Options{})
	chain := net.Node("conv1").Conv().Chain
	if err := net.Replace("layer2.0.conv1", chain); !errors.Is(err, conv.ErrShape) {
		t.Errorf("a chain of other channels gave %v", err)
	}
	if err := net.Replace("nowhere", chain); err == nil {
		t.Error("an unknown name gave no error")
	}
}

func TestForwardStopsWhenTheContextIsDone(t *testing.T) {
	p, err := residual(t, "cifar_pad", Options{}).Compile()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Forward(ctx, conv.NewMap(1, 16, 16, 3), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := p.Forward(t.Context(), conv.NewMap(1, 16, 16, 4), 1); !errors.Is(err, conv.ErrShape) {
		t.Errorf("an input of four channels gave %v", err)
	}
}

func score(t *testing.T, checkpoint, data string) (*graph.Graph, eval.Score) {
	t.Helper()
	sd, err := model.ReadFile(realdata.Path(t, "checkpoints", checkpoint))
	if err != nil {
		t.Fatal(err)
	}
	net, err := Load(sd, Options{})
	if err != nil {
		t.Fatal(err)
	}
	set, err := dataset.Open(data, dataset.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.Compile()
	if err != nil {
		t.Fatal(err)
	}
	s, err := eval.Evaluate(t.Context(), p, set, eval.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return net, s
}

func TestCIFARCheckpointsReachTheirAccuracy(t *testing.T) {
	data := "cifar10:" + realdata.Path(t, "cifar10")
	for _, c := range []struct {
		file, arch      string
		params, correct int
	}{
		{"resnet20-12fca82f.th", "resnet20", 269722, 915},
		{"resnet32-d509ac18.th", "resnet32", 464154, 928},
	} {
		net, s := score(t, c.file, data)
		if net.Arch != c.arch || net.Params() != c.params || !pads(net) {
			t.Errorf("%s is %s with %d parameters, want %s with %d", c.file, net.Arch, net.Params(), c.arch, c.params)
		}
		if s.Samples != 1000 || s.Top1 < c.correct-1 || s.Top1 > c.correct+1 {
			t.Errorf("%s: %d of %d correct, want %d of 1000 within one", c.file, s.Top1, s.Samples, c.correct)
		}
	}
}

func TestImageNetCheckpointReachesItsAccuracy(t *testing.T) {
	if testing.Short() {
		t.Skip("500 images of 224×224: not in short mode")
	}
	net, s := score(t, "resnet18_imagenet_hybrid.pth", "folder:"+realdata.Path(t, "imagenet_sample_500.zip"))
	if net.Arch != "resnet18" || net.Params() != 11689512 || net.MACs() != 1814073344 {
		t.Errorf("%s with %d parameters and %d MACs, want resnet18, 11689512 and 1814073344", net.Arch, net.Params(), net.MACs())
	}
	if s.Samples != 500 || math.Abs(s.Accuracy()-0.760) > 0.002001 || math.Abs(s.Top5Accuracy()-0.902) > 0.002001 {
		t.Errorf("top-1 %.3f, top-5 %.3f of %d, want 0.760 and 0.902 of 500", s.Accuracy(), s.Top5Accuracy(), s.Samples)
	}
}
