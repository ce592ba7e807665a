package zoo

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	kernels "github.com/lowrank-go/lowrank/internal/nhwc"
	"github.com/lowrank-go/lowrank/model"
)

// fixture is what families.py writes of a small network.
type fixture struct {
	t     *testing.T
	state *model.StateDict // the network's own
	all   *model.StateDict
	x     *conv.Map
}

func readFixture(t *testing.T, name string) *fixture {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "family_"+name+".safetensors.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	all, err := model.Read(bytes.NewReader(text), int64(len(text)), name+".safetensors")
	if err != nil {
		t.Fatal(err)
	}
	state := model.NewStateDict()
	for _, n := range all.Names() {
		if own, ok := strings.CutPrefix(n, "w."); ok {
			v, _ := all.Get(n)
			state.Set(own, v)
		}
	}
	out := &fixture{t: t, state: state, all: all}
	size, _ := all.Get("size")
	s := size.Data.([]int64)
	out.x = filled(int(s[0]), int(s[1]), int(s[2]), int(s[3]))
	return out
}

// filled is an input of N×C×H×W values in [-1, 1) of a hash of their places.
func filled(n, c, h, w int) *conv.Map {
	m := conv.NewMap(n, h, w, c)
	for i := range m.Data {
		v := uint32(i + 1)
		v = (v ^ v>>16) * 0x85ebca6b
		v = (v ^ v>>13) * 0xc2b2ae35
		v ^= v >> 16
		image, channel, pixel := i/(c*h*w), i/(h*w)%c, i%(h*w)
		m.Data[(image*h*w+pixel)*c+channel] = float32(float64(v>>8)/(1<<23) - 1)
	}
	return m
}

func (f *fixture) floats(name string) []float32 {
	f.t.Helper()
	v, ok := f.all.Get(name)
	if !ok {
		f.t.Fatalf("the fixture has no %s", name)
	}
	s, err := v.Float32s()
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

func largest(v []float32) float64 {
	m := 0.
	for _, x := range v {
		m = max(m, math.Abs(float64(x)))
	}
	return m
}

// near tells how far got is from want, in parts of scale.
func near(got, want []float32, scale float64) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	d := 0.
	for i, v := range got {
		if e := math.Abs(float64(v)-float64(want[i])) / scale; !(e <= d) {
			d = e
		}
	}
	return d
}

// tolerance is in parts of the largest value of a tensor. The portable kernels round each
// product, which those with fused multiplications do not.
var tolerance = map[string]float64{"portable": 2e-4, "avx2": 1e-4, "avx512": 1e-4}[kernels.Kernels()]

var fixtures = []struct {
	name, arch string
	head       string
}{
	{"vgg", "vgg11", "classifier.6"},
	{"vgg_bn", "vgg11_bn", "classifier.6"},
	{"vgg_cifar", "vgg11_cifar", "classifier"},
	{"vgg_cifar_plain", "vgg11_cifar", "classifier.6"},
	{"alexnet", "alexnet", "classifier.6"},
	{"squeezenet1_0", "squeezenet1_0", "classifier.1"},
	{"squeezenet1_1", "squeezenet1_1", "classifier.1"},
	{"mobilenet_v2", "mobilenet_v2", "classifier.1"},
	{"densenet", "densenet", "classifier"},
	{"mobilenet_v3_large", "mobilenet_v3_large", "classifier.3"},
	{"mobilenet_v3_small", "mobilenet_v3_small", "classifier.3"},
	{"efficientnet", "efficientnet", "classifier.1"},
	{"googlenet", "googlenet", "fc"},
	{"shufflenet", "shufflenet_v2", "fc"},
	{"unet", "unet", "outc.conv"},
	{"unet_bilinear", "unet", "outc.conv"},
	{"deeplabv3", "resnet-1-1-1-1", "classifier.4"},
}

func TestFamiliesRunAndTrainAsTorchvisions(t *testing.T) {
	for _, c := range fixtures {
		t.Run(c.name, func(t *testing.T) {
			f := readFixture(t, c.name)
			g, err := Load(f.state, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if g.Arch != c.arch || g.Head == nil || g.Head.Name != c.head {
				t.Errorf("it is %s with the head %v, want %s and %s", g.Arch, g.Head, c.arch, c.head)
			}
			f.runs(g)
			sd, err := g.StateDict()
			if err != nil {
				t.Fatal(err)
			}
			again, err := Load(sd, Options{})
			if err != nil {
				t.Fatal(err)
			}
			f.runs(again)
			f.trains(g)
		})
	}
}

// runs compares g's outputs in eval mode.
func (f *fixture) runs(g *graph.Graph) {
	f.t.Helper()
	p, err := g.Compile()
	if err != nil {
		f.t.Fatal(err)
	}
	out, err := p.Run(context.Background(), f.x, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	want := f.floats("y")
	if d := near(out[0].Data, want, largest(want)); !(d <= tolerance) {
		f.t.Errorf("the logits differ by %.2g of their largest", d)
	}
}

// trains compares a training step of g without dropout: loss, every gradient and every
// running statistic.
func (f *fixture) trains(g *graph.Graph) {
	f.t.Helper()
	g = g.Clone()
	for _, n := range g.Nodes {
		if _, ok := n.Op.(*graph.Dropout); ok {
			n.Op = &graph.Identity{}
		}
	}
	l, err := g.NewLearner(graph.LearnerOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	ctx := context.Background()
	logits, err := l.Forward(ctx, f.x, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	gradient, loss := crossEntropy(logits, l.Classes())
	v, _ := f.all.Get("loss")
	if want := v.Data.([]float64)[0]; !(math.Abs(loss-want) <= tolerance*want) {
		f.t.Errorf("the loss is %.7g, want %.7g", loss, want)
	}
	if err := l.Backward(ctx, gradient, 0); err != nil {
		f.t.Fatal(err)
	}
	got := map[string][]float32{}
	for _, p := range l.Params() {
		if got[p.Name], err = p.Export(p.Grad); err != nil {
			f.t.Fatal(err)
		}
	}
	most := 0.
	for _, n := range f.all.Names() {
		if strings.HasPrefix(n, "grad.") {
			most = max(most, largest(f.floats(n)))
		}
	}
	after, err := l.Net()
	if err != nil {
		f.t.Fatal(err)
	}
	sd, err := after.StateDict()
	if err != nil {
		f.t.Fatal(err)
	}
	worst := 0.
	checked := 0
	for _, n := range f.all.Names() {
		kind, name, _ := strings.Cut(n, ".")
		own := renamed(name)
		switch kind {
		case "grad":
			want := f.floats(n)
			// Small ones, as of a bias that a norm takes off again, are what is left of large
			// ones, with the rounding of those.
			scale := max(largest(want), most/100)
			d := near(got[own], want, scale)
			if !(d <= tolerance) {
				f.t.Errorf("the gradient of %s differs by %.2g of its largest", name, d)
			}
			worst = max(worst, d)
			delete(got, own)
		case "stat":
			v, ok := sd.Get(own)
			if !ok {
				f.t.Errorf("there is no %s", own)
				continue
			}
			s, err := v.Float32s()
			if err != nil {
				f.t.Fatal(err)
			}
			want := f.floats(n)
			if d := near(s, want, largest(want)); !(d <= tolerance) {
				f.t.Errorf("%s differs by %.2g of its largest", name, d)
			}
		default:
			continue
		}
		checked++
	}
	for n := range got {
		f.t.Errorf("PyTorch has no gradient of %s", n)
	}
	f.t.Logf("%d tensors, gradients within %.2g", checked, worst)
}

// renamed is what a tensor is called in the graph.
func renamed(name string) string {
	return strings.TrimPrefix(name, backbone)
}

// crossEntropy is the mean cross-entropy to labels 0, 1, 2, … modulo the classes, pixels in
// their order, and its gradient.
func crossEntropy(logits []float32, classes int) ([]float32, float64) {
	n := len(logits) / classes
	gradient := make([]float32, len(logits))
	loss := 0.
	for i := range n {
		row := logits[i*classes : (i+1)*classes]
		top := float64(slices.Max(row))
		sum := 0.
		for _, v := range row {
			sum += math.Exp(float64(v) - top)
		}
		label := i % classes
		loss += top + math.Log(sum) - float64(row[label])
		for j, v := range row {
			p := math.Exp(float64(v)-top) / sum
			if j == label {
				p--
			}
			gradient[i*classes+j] = float32(p / float64(n))
		}
	}
	return gradient, loss / float64(n)
}
