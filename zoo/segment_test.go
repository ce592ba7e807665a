package zoo

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/nn"
	"github.com/lowrank-go/lowrank/model"
)

// segmenters were made by testdata/segment.py with PyTorch.
var segmenters = []struct {
	name            string
	dilate, classes int
	cifar, bottle   bool
}{
	{"fcn_basic", 2, 5, false, false},
	{"fcn_bottleneck", 2, 4, false, true},
	{"fcn_cifar", 1, 6, true, false},
}

// nhwc is values of N×C×H×W with the channels innermost.
func nhwc(v []float32, n, c, h, w int) []float32 {
	out := make([]float32, len(v))
	for i := range n {
		for k := range c {
			for p := range h * w {
				out[(i*h*w+p)*c+k] = v[(i*c+k)*h*w+p]
			}
		}
	}
	return out
}

func TestSegmentationForwardEqualsPyTorch(t *testing.T) {
	for _, f := range segmenters {
		t.Run(f.name, func(t *testing.T) {
			net := residual(t, f.name, Options{})
			small := net.Node("maxpool") == nil
			if !net.Segments() || Dilated(net) != f.dilate || net.Classes() != f.classes || small != f.cifar || bottle(net) != f.bottle || pads(net) != f.cifar {
				t.Fatalf("recognised as\n%v", net)
			}
			x, y := reference(t, f.name)
			want := nhwc(y, x.N, f.classes, x.H, x.W)
			got := logits(t, net, x, 2)
			if len(got) != len(want) {
				t.Fatalf("%d logits, want %d", len(got), len(want))
			}
			for i, v := range want {
				if math.Abs(float64(got[i]-v)) > 2e-5*(1+math.Abs(float64(v))) {
					t.Fatalf("logit %d is %g, PyTorch has %g", i, got[i], v)
				}
			}
			if one := logits(t, net, x, 1); !slices.Equal(one, got) {
				t.Error("one worker and two give different logits")
			}
			// Names cannot tell the dilation.
			other := logits(t, residual(t, f.name, Options{Dilate: new(int)}), x, 1)
			if relative(other, want) < 1e-3 {
				t.Error("without dilation the logits are the same")
			}
		})
	}
}

// masks are the labels of a fixture.
func masks(t *testing.T, sd *model.StateDict) []uint8 {
	t.Helper()
	l, ok := sd.Get("labels")
	if !ok {
		t.Fatal("no labels")
	}
	var out []uint8
	for _, v := range l.Data.([]int64) {
		out = append(out, uint8(v))
	}
	return out
}

// passPixels runs a learner forwards and backwards.
func passPixels(t testing.TB, l *graph.Learner, x *conv.Map, labels []uint8, workers int) float64 {
	t.Helper()
	y, err := l.Forward(t.Context(), x, workers)
	if err != nil {
		t.Fatal(err)
	}
	g := make([]float32, len(y))
	loss, _ := nn.PixelCrossEntropy(g, y, labels, dataset.Ignore, l.Classes(), .1, workers)
	if err := l.Backward(t.Context(), g, workers); err != nil {
		t.Fatal(err)
	}
	return loss
}

func TestSegmentationGradientsAndStatisticsEqualPyTorch(t *testing.T) {
	for _, f := range segmenters {
		for _, fixed := range []bool{false, true} {
			mode := ""
			if fixed {
				mode = "fixed_"
			}
			t.Run(mode+f.name, func(t *testing.T) {
				net := residual(t, f.name, Options{})
				x, want := stepFixture(t, f.name)
				labels := masks(t, want)
				l := learner(t, net, graph.LearnerOptions{FixedNorms: fixed})
				loss := passPixels(t, l, x, labels, 2)
				compareStep(t, l, loss, want, mode)
				// The maps are reused.
				first := slices.Clone(l.Params()[0].Grad)
				if passPixels(t, l, x, labels, 1); !fixed && !slices.Equal(l.Params()[0].Grad, first) {
					t.Error("a second pass gives another gradient")
				}
			})
		}
	}
}

func TestPartsOfASegmentationNetworkLearnAsInTheWhole(t *testing.T) {
	for _, f := range segmenters {
		net := residual(t, f.name, Options{})
		x, sd := stepFixture(t, f.name)
		labels := masks(t, sd)
		for _, fixed := range []bool{false, true} {
			all := learner(t, net, graph.LearnerOptions{FixedNorms: fixed})
			passPixels(t, all, x, labels, 2)
			want := map[string][]float32{}
			for _, p := range all.Params() {
				want[p.Name] = exported(t, p, p.Grad)
			}
			for _, prefix := range []string{"classifier.4", "classifier.4.bias", "classifier.1", "classifier.0", "classifier", "layer3.1", "layer2", "conv1"} {
				some := learner(t, net, graph.LearnerOptions{FixedNorms: fixed, Learn: func(p *graph.Param) bool { return strings.HasPrefix(p.Name, prefix) }})
				passPixels(t, some, x, labels, 1)
				if len(some.Params()) == 0 {
					t.Errorf("%s: nothing is called %s", f.name, prefix)
				}
				for _, p := range some.Params() {
					if d := relative(exported(t, p, p.Grad), want[p.Name]); d > 1e-4 { // folding rounds differently
						t.Errorf("%s: gradient of %s differs by %.2g where %s alone learns", f.name, p.Name, d, prefix)
					}
				}
			}
		}
		l := learner(t, net, graph.LearnerOptions{})
		y, err := l.Forward(t.Context(), x, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Backward(t.Context(), y[1:], 1); !errors.Is(err, conv.ErrShape) {
			t.Errorf("a gradient too short gave %v", err)
		}
	}
}

func TestReplaceRefusesAnotherDilation(t *testing.T) {
	net := residual(t, "fcn_cifar", Options{})
	chain, err := net.Node("layer3.1.conv1").Conv().Chain.WithGeometry(conv.Geometry{Padding: [2]int{1, 1}})
	if err != nil {
		t.Fatal(err)
	}
	if err := net.Replace("layer3.1.conv1", chain); !errors.Is(err, conv.ErrShape) || !strings.Contains(err.Error(), "dilation") {
		t.Errorf("got %v", err)
	}
}

func TestASegmentationNetworkSurvivesItsFile(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for _, f := range segmenters {
		net := residual(t, f.name, Options{})
		dense := net.Params()
		for _, s := range net.Sites() {
			if strings.HasPrefix(s.Name, "layer3") || strings.HasPrefix(s.Name, "classifier") {
				if s.Linear {
					t.Errorf("%s is linear", s.Name)
				}
				if err := net.Replace(s.Name, randomChain(rng, s.Chain)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if net.Params() == dense {
			t.Error("no layer was replaced")
		}
		back := reload(t, net)
		if back.Params() != net.Params() || back.MACs() != net.MACs() || Dilated(back) != f.dilate || !back.Segments() {
			t.Errorf("%s: this came back:\n%v", f.name, back)
		}
		x, _ := reference(t, f.name)
		if !slices.Equal(logits(t, net, x, 1), logits(t, back, x, 1)) {
			t.Errorf("%s: the network that came back gives other logits", f.name)
		}
		// The learner runs the chains as the program does.
		l := learner(t, net, graph.LearnerOptions{FixedNorms: true})
		y, err := l.Forward(t.Context(), x, 2)
		if err != nil {
			t.Fatal(err)
		}
		if e := relative(y, logits(t, net, x, 1)); e > 1e-4 {
			t.Errorf("%s: learner and program differ by %g", f.name, e)
		}
	}
}

func TestSetSegmentationKeepsKernelsAndSetsTheDilation(t *testing.T) {
	for _, f := range segmenters {
		want := residual(t, f.name, Options{})
		got := residual(t, f.name, Options{Dilate: new(int)}) // strided
		if err := SetSegmentation(got, f.classes+1, f.dilate, 3); err != nil {
			t.Fatal(err)
		}
		neck, wanted := got.Node("classifier.0"), want.Node("classifier.0")
		if got.Classes() != f.classes+1 || got.Head.Conv().Chain.Out() != f.classes+1 || neck.Conv().Chain.Out() != wanted.Conv().Chain.Out() {
			t.Errorf("%s: %d classes, head of %d", f.name, got.Classes(), got.Head.Conv().Chain.Out())
		}
		neck.Op, got.Node("classifier.1").Op, got.Head.Op = wanted.Op, want.Node("classifier.1").Op, want.Head.Op
		x, _ := reference(t, f.name)
		if !slices.Equal(logits(t, got, x, 1), logits(t, want, x, 1)) {
			t.Errorf("%s: not the network with the dilation", f.name)
		}
	}
}

func TestAClassifierBecomesASegmentationNetworkWithItsChains(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for _, f := range resnets {
		net := residual(t, f.name, f.opt)
		for _, s := range net.Sites() {
			if !s.Linear {
				if err := net.Replace(s.Name, randomChain(rng, s.Chain)); err != nil {
					t.Fatal(err)
				}
			}
		}
		for dilate := range len(f.blocks) {
			seg := net.Clone()
			if err := SetSegmentation(seg, 9, dilate, 1); err != nil {
				t.Fatal(err)
			}
			if net.Segments() || net.Node("classifier.0") != nil {
				t.Fatal("the network it was cloned from changed")
			}
			x, _ := reference(t, f.name)
			got := logits(t, seg, x, 2)
			if len(got) != x.N*x.H*x.W*9 {
				t.Fatalf("%s: %d logits", f.name, len(got))
			}
			// The multiplied kernels, dilated by hand, do the same.
			dense, err := seg.Compose()
			if err != nil {
				t.Fatal(err)
			}
			if e := relative(logits(t, dense, x, 1), got); e > 1e-4 {
				t.Errorf("%s dilated by %d: chains and kernels differ by %g", f.name, dilate, e)
			}
			back := reload(t, seg)
			if !slices.Equal(logits(t, back, x, 1), got) {
				t.Errorf("%s dilated by %d came back as another", f.name, dilate)
			}
		}
	}
}

func TestNewSegmentationNetworks(t *testing.T) {
	n, err := New("resnet20", 6, NewOptions{Segment: true, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	// 64 to 16 channels, 3×3, with a norm, and 16 to 6 with biases.
	classifier, err := New("resnet20", 6, NewOptions{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if want := classifier.Params() - (64*6 + 6) + 64*16*9 + 2*16 + 16*6 + 6; n.Params() != want || Dilated(n) != 1 {
		t.Errorf("%d parameters, want %d, dilation %d", n.Params(), want, Dilated(n))
	}
	last := n.Sites()[len(n.Sites())-1]
	if last.H != 16 || last.W != 16 || last.Linear {
		t.Errorf("the head runs on %d×%d", last.H, last.W)
	}
	// torchvision states 35,322,218 parameters for its fcn_resnet50 of 21 classes, of
	// which these are the auxiliary head's.
	const auxiliary = 1024*256*9 + 2*256 + 256*21 + 21
	n, err = New("resnet50", 21, NewOptions{Segment: true})
	if err != nil || n.Params() != 35322218-auxiliary {
		t.Errorf("resnet50 has %d parameters (%v)", n.Params(), err)
	}
	for _, dilate := range []int{-1, 3} {
		if _, err := New("resnet20", 6, NewOptions{Segment: true, Dilate: &dilate}); !errors.Is(err, ErrUnknown) {
			t.Errorf("%d stages dilated gave %v", dilate, err)
		}
		if err := SetSegmentation(classifier, 6, dilate, 1); !errors.Is(err, ErrUnknown) || classifier.Segments() {
			t.Errorf("%d stages dilated gave %v", dilate, err)
		}
	}
	for _, classes := range []int{0, 256} {
		if err := SetSegmentation(classifier, classes, 1, 1); !errors.Is(err, ErrUnknown) {
			t.Errorf("%d classes gave %v", classes, err)
		}
	}
}

func TestLoadNamesWhatIsWrongWithASegmentationNetwork(t *testing.T) {
	three := 3
	for _, c := range []struct {
		name   string
		opt    Options
		damage func(sd *model.StateDict)
		words  string
	}{
		{"all stages", Options{Dilate: &three}, func(*model.StateDict) {}, "3 of 3 stages"},
		{"no head", Options{}, func(sd *model.StateDict) { sd.Delete("classifier.4.weight") }, `"classifier.4.weight"`},
		{"no norm", Options{}, func(sd *model.StateDict) { sd.Delete("classifier.1.weight") }, `"classifier.1.weight"`},
		{"more", Options{}, func(sd *model.StateDict) {
			sd.Set("head.weight", &model.Tensor{Shape: []int{1}, Data: []float32{1}})
		}, `no place for "head.weight"`},
		{"hostile", Options{}, func(sd *model.StateDict) {
			sd.Meta[model.ManifestKey] = `{"format":1,"network":{"blocks":[1,1,2],"cifar":true,"input":[32,32],"segment":true,"dilate":-1}}`
		}, "-1 of 3 stages"},
		{"hostile size", Options{}, func(sd *model.StateDict) {
			sd.Meta[model.ManifestKey] = `{"format":1,"network":{"blocks":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"input":[32,32],"segment":true,"dilate":15}}`
		}, "15 of 16 stages"},
	} {
		sd, err := model.ReadFile("testdata/fcn_cifar.pth")
		if err != nil {
			t.Fatal(err)
		}
		c.damage(sd)
		if _, err := Load(sd, c.opt); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
