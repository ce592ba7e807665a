package zoo

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/nn"
	"github.com/lowrank-go/lowrank/model"
)

func randomMap(seed uint64, n, h, w, c int) *conv.Map {
	rng := rand.New(rand.NewPCG(seed, 1))
	m := conv.NewMap(n, h, w, c)
	for i := range m.Data {
		m.Data[i] = float32(rng.NormFloat64())
	}
	return m
}

// stepper is a training step on random data.
func stepper(tb testing.TB, l *graph.Learner, x *conv.Map, workers int) func() {
	classes := l.Classes()
	labels := make([]int, x.N)
	for i := range labels {
		labels[i] = i % classes
	}
	sgd := nn.SGD{Rate: .01, Momentum: .9, Decay: 1e-4}
	velocity := make([][]float32, len(l.Params()))
	for i, p := range l.Params() {
		velocity[i] = make([]float32, len(p.Value))
	}
	g := make([]float32, x.N*classes)
	return func() {
		y, err := l.Forward(tb.Context(), x, workers)
		if err != nil {
			tb.Fatal(err)
		}
		nn.CrossEntropy(g, y, labels, classes, 0, workers)
		if err := l.Backward(tb.Context(), g, workers); err != nil {
			tb.Fatal(err)
		}
		for i, p := range l.Params() {
			sgd.Step(p.Value, velocity[i], p.Grad, workers)
		}
		l.Updated()
	}
}

func BenchmarkStep(b *testing.B) {
	for _, c := range []struct {
		arch                 string
		classes, batch, size int
	}{{"resnet20", 10, 128, 32}, {"resnet18", 1000, 8, 224}} {
		n, err := New(c.arch, c.classes, NewOptions{})
		if err != nil {
			b.Fatal(err)
		}
		for _, only := range []string{"all", "head", "norms"} {
			b.Run(fmt.Sprintf("%s/%s", c.arch, only), func(b *testing.B) {
				l, err := n.NewLearner(graph.LearnerOptions{FixedNorms: only == "head", Learn: func(p *graph.Param) bool {
					return only == "all" || p.Unit == n.Head.Name || only == "norms" && p.Kind >= graph.Gain
				}})
				if err != nil {
					b.Fatal(err)
				}
				step := stepper(b, l, randomMap(1, c.batch, c.size, c.size, 3), 2)
				step()
				for b.Loop() {
					step()
				}
				b.ReportMetric(float64(c.batch*b.N)/b.Elapsed().Seconds(), "images/s")
			})
		}
	}
}

// step is the fixture of a backward pass of PyTorch in float64.
func stepFixture(t *testing.T, name string) (*conv.Map, *model.StateDict) {
	t.Helper()
	x, _ := reference(t, name)
	sd, err := model.ReadFile(filepath.Join("testdata", name+"_step.npz"))
	if err != nil {
		t.Fatal(err)
	}
	return x, sd
}

// pass runs a learner forwards and backwards with the fixtures' labels.
func pass(t testing.TB, l *graph.Learner, x *conv.Map, workers int) float64 {
	t.Helper()
	y, err := l.Forward(t.Context(), x, workers)
	if err != nil {
		t.Fatal(err)
	}
	classes := l.Classes()
	labels := make([]int, x.N)
	for i := range labels {
		labels[i] = i % classes
	}
	g := make([]float32, len(y))
	loss := nn.CrossEntropy(g, y, labels, classes, .1, workers)
	if err := l.Backward(t.Context(), g, workers); err != nil {
		t.Fatal(err)
	}
	return loss
}

func relative(got, want []float32) float64 {
	return distance(got, want) / max(distance(want, make([]float32, len(want))), 1e-6)
}

func distance(a, b []float32) float64 {
	var d float64
	for i, v := range b {
		d += (float64(a[i]) - float64(v)) * (float64(a[i]) - float64(v))
	}
	return math.Sqrt(d)
}

func learner(t testing.TB, n *graph.Graph, opt graph.LearnerOptions) *graph.Learner {
	t.Helper()
	l, err := n.NewLearner(opt)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// stageOf is the stage of a chain that a weight is of.
func stageOf(t testing.TB, p *graph.Param) int {
	t.Helper()
	var stage int
	if _, err := fmt.Sscanf(p.Name, p.Unit+".%d.weight", &stage); err != nil {
		t.Fatalf("%s: %v", p.Name, err)
	}
	return stage
}

func exported(t testing.TB, p *graph.Param, values []float32) []float32 {
	t.Helper()
	v, err := p.Export(values)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// compareStep compares a learner after a pass with PyTorch's: the loss, every gradient
// and, of norms that are not fixed, every statistic.
func compareStep(t *testing.T, l *graph.Learner, loss float64, want *model.StateDict, mode string) {
	t.Helper()
	compareStepAbove(t, l, loss, want, mode, 0)
}

// compareStepAbove is compareStep where the norm of a gradient's difference may be floor
// whatever the gradient is: of what a batch norm takes away again it is rounding alone.
func compareStepAbove(t *testing.T, l *graph.Learner, loss float64, want *model.StateDict, mode string, floor float64) {
	t.Helper()
	w, _ := want.Get(mode + "loss")
	if v := w.Data.([]float64)[0]; math.Abs(loss-v) > 1e-5*v {
		t.Errorf("loss %g, PyTorch has %g", loss, v)
	}
	grads := 0
	for _, n := range want.Names() {
		if strings.HasPrefix(n, mode+"grad.") {
			grads++
		}
	}
	if grads != len(l.Params()) {
		t.Errorf("%d parameters, PyTorch has %d", len(l.Params()), grads)
	}
	for _, p := range l.Params() {
		w, ok := want.Get(mode + "grad." + p.Name)
		if !ok {
			t.Errorf("PyTorch has no %s", p.Name)
			continue
		}
		got, want := exported(t, p, p.Grad), w.Data.([]float32)
		if d := relative(got, want); d > 1e-4 && (floor == 0 || distance(got, want) > floor) {
			t.Errorf("gradient of %s differs by %.2g", p.Name, d)
		}
	}
	after, err := l.Net()
	if err != nil {
		t.Fatal(err)
	}
	sd, err := after.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range want.Names() {
		stat, ok := strings.CutPrefix(n, "stat.")
		if !ok || mode != "" {
			continue
		}
		w, _ := want.Get(n)
		got, _ := sd.Get(stat)
		if d := relative(got.Data.([]float32), w.Data.([]float32)); d > 1e-5 {
			t.Errorf("%s differs by %.2g", stat, d)
		}
	}
}

func TestLossGradientsAndStatisticsEqualPyTorch(t *testing.T) {
	for _, f := range resnets {
		for _, fixed := range []bool{false, true} {
			mode := ""
			if fixed {
				mode = "fixed_"
			}
			t.Run(mode+f.name, func(t *testing.T) {
				net := residual(t, f.name, f.opt)
				x, want := stepFixture(t, f.name)
				l := learner(t, net, graph.LearnerOptions{FixedNorms: fixed})
				pass(t, l, x, 2) // the maps are reused
				l = learner(t, net, graph.LearnerOptions{FixedNorms: fixed})
				loss := pass(t, l, x, 2)
				compareStep(t, l, loss, want, mode)
			})
		}
	}
}

// A chain is linear in each stage: the gradient of a stage in a direction is the
// dense kernel's in what the chain is with the direction in the stage's place.
func TestGradientsOfChainsFollowFromTheKernels(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for _, f := range resnets {
		net := residual(t, f.name, f.opt)
		dense := net.Clone()
		chains := map[string]*conv.Chain{}
		for _, s := range net.Sites() {
			c := randomChain(rng, s.Chain)
			chains[s.Name] = c
			k, err := c.Kernel()
			if err != nil {
				t.Fatal(err)
			}
			for n, c := range map[*graph.Graph]*conv.Chain{net: c, dense: conv.NewDense(k)} {
				if err := n.Replace(s.Name, c); err != nil {
					t.Fatal(err)
				}
			}
		}
		x, _ := reference(t, f.name)
		l, d := learner(t, net, graph.LearnerOptions{FixedNorms: true}), learner(t, dense, graph.LearnerOptions{FixedNorms: true})
		if a, b := pass(t, l, x, 2), pass(t, d, x, 2); math.Abs(a-b) > 1e-4*b {
			t.Errorf("%s: loss %g, of the dense network %g", f.name, a, b)
		}
		kernels := map[string][]float32{}
		for _, p := range d.Params() {
			kernels[p.Name] = exported(t, p, p.Grad)
		}
		for _, p := range l.Params() {
			if p.Kind != graph.Weight {
				if e := relative(exported(t, p, p.Grad), kernels[strings.ReplaceAll(p.Name, ".2.bias", ".bias")]); e > 1e-3 {
					t.Errorf("%s: gradient of %s differs by %.2g", f.name, p.Name, e)
				}
				continue
			}
			c := *chains[p.Unit]
			stage := stageOf(t, p)
			direction := *c.Stages[stage]
			direction.Weight = make([]float32, len(direction.Weight))
			for i := range direction.Weight {
				direction.Weight[i] = float32(rng.NormFloat64())
			}
			c.Stages = slices.Clone(c.Stages)
			c.Stages[stage] = &direction
			k, err := c.Kernel()
			if err != nil {
				t.Fatal(err)
			}
			var got, want, size float64
			for i, v := range exported(t, p, p.Grad) {
				got += float64(v) * float64(direction.Weight[i])
			}
			for i, v := range kernels[p.Unit+".weight"] {
				want += float64(v) * float64(k.Weight[i])
				size += math.Abs(float64(v) * float64(k.Weight[i]))
			}
			if math.Abs(got-want) > 1e-3*size+1e-6 {
				t.Errorf("%s: derivative of %s in a direction is %g, by the kernel %g", f.name, p.Name, got, want)
			}
		}
	}
}

func TestWhatLearnsHasTheGradientsOfTheWholeNetwork(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := resnets[rapid.IntRange(0, len(resnets)-1).Draw(rt, "net")]
		fixed := rapid.Bool().Draw(rt, "fixed")
		net := residual(t, f.name, f.opt)
		x, _ := reference(t, f.name)
		all := learner(t, net, graph.LearnerOptions{FixedNorms: fixed})
		pass(t, all, x, 2)
		chance := rapid.SampledFrom([]float64{.02, .1, .5, .9}).Draw(rt, "chance")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		some := learner(t, net, graph.LearnerOptions{FixedNorms: fixed, Learn: func(*graph.Param) bool { return rng.Float64() < chance }})
		before, err := some.Net()
		if err != nil {
			t.Fatal(err)
		}
		workers := rapid.IntRange(1, 3).Draw(rt, "workers")
		pass(t, some, x, workers)
		pass(t, some, x, workers)
		if !fixed { // the statistics of the second pass do not matter to gradients
			pass(t, all, x, 2)
		}
		want := map[string][]float32{}
		for _, p := range all.Params() {
			want[p.Name] = exported(t, p, p.Grad)
		}
		for _, p := range some.Params() {
			got := exported(t, p, p.Grad)
			// Folding rounds differently.
			if !fixed && !slices.Equal(got, want[p.Name]) || relative(got, want[p.Name]) > 1e-4 {
				rt.Errorf("%s: gradient of %s differs by %.2g", f.name, p.Name, relative(got, want[p.Name]))
			}
		}
		// Nothing but statistics changes without a step.
		after, err := some.Net()
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range after.Sites() {
			b := before.Sites()[i]
			for j, k := range s.Chain.Stages {
				if !slices.Equal(k.Weight, b.Chain.Stages[j].Weight) {
					rt.Errorf("%s changed", s.Name)
				}
			}
			if s.Norm != nil && fixed && !slices.Equal(s.Norm.BatchNorm().Mean, b.Norm.BatchNorm().Mean) {
				rt.Errorf("%s: statistics changed", s.Name)
			}
		}
	})
}

func TestLossFallsAndResultsDoNotDependOnWorkers(t *testing.T) {
	n, err := New("resnet20", 10, NewOptions{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	x := randomMap(1, 16, 32, 32, 3)
	var first []float32
	for _, workers := range []int{1, 3} {
		l := learner(t, n, graph.LearnerOptions{})
		step := stepper(t, l, x, workers)
		begin := pass(t, l, x, workers)
		for range 5 {
			step()
		}
		if end := pass(t, l, x, workers); end > .9*begin {
			t.Errorf("loss %g after five steps, %g before", end, begin)
		}
		var all []float32
		for _, p := range l.Params() {
			all = append(all, p.Value...)
		}
		if first == nil {
			first = all
		} else if !slices.Equal(all, first) {
			t.Error("weights depend on the number of workers")
		}
	}
}

func TestNewNetworksAreThePublishedOnes(t *testing.T) {
	for arch, params := range map[string]int{"resnet18": 11689512, "resnet34": 21797672, "resnet50": 25557032} {
		n, err := New(arch, 1000, NewOptions{})
		if err != nil || n.Params() != params {
			t.Errorf("%s has %d parameters (%v), want %d", arch, n.Params(), err, params)
		}
	}
	for arch, params := range map[string]int{"resnet20": 269722, "resnet32": 464154, "resnet44": 658586, "resnet56": 853018} {
		n, err := New(arch, 10, NewOptions{Seed: 5, ZeroGain: true})
		if err != nil || n.Params() != params {
			t.Errorf("%s has %d parameters (%v), want %d", arch, n.Params(), err, params)
		}
		sd, err := n.StateDict()
		if err != nil {
			t.Fatal(err)
		}
		delete(sd.Meta, model.ManifestKey)
		back, err := Load(sd, Options{})
		if err != nil || back.Arch != arch || back.Params() != params {
			t.Errorf("%s comes back as %v (%v)", arch, back, err)
		}
	}
	if _, err := New("vgg", 10, NewOptions{}); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown architecture gave %v", err)
	}
	if _, err := New("resnet20", 0, NewOptions{}); !errors.Is(err, ErrUnknown) {
		t.Errorf("no classes gave %v", err)
	}
}

func TestFeaturesOnTheWayGiveWhatForwardGives(t *testing.T) {
	for _, f := range resnets {
		net := residual(t, f.name, f.opt)
		x, _ := reference(t, f.name)
		for _, from := range []string{"linear", "fc", "layer3", "layer2.0.conv2", "bn1"} {
			l := learner(t, net, graph.LearnerOptions{FixedNorms: true, Learn: func(p *graph.Param) bool { return strings.HasPrefix(p.Name, from) }})
			if len(l.Params()) == 0 {
				continue
			}
			if l.Cacheable() != (from != "bn1") {
				t.Errorf("%s, %s: cacheable is %v", f.name, from, l.Cacheable())
			}
			if !l.Cacheable() {
				continue
			}
			pass(t, l, x, 2)
			var want [][]float32
			for _, p := range l.Params() {
				want = append(want, slices.Clone(p.Grad))
			}
			kept, err := l.Features(t.Context(), x, 2)
			if err != nil {
				t.Fatal(err)
			}
			kept = &conv.Map{N: kept.N, H: kept.H, W: kept.W, C: kept.C, Data: slices.Clone(kept.Data)}
			// Another image in between.
			if _, err := l.Forward(t.Context(), randomMap(2, 1, x.H, x.W, 3), 1); err != nil {
				t.Fatal(err)
			}
			y, err := l.ForwardFeatures(t.Context(), kept, 2)
			if err != nil {
				t.Fatal(err)
			}
			labels := make([]int, x.N)
			for i := range labels {
				labels[i] = i % net.Classes()
			}
			g := make([]float32, len(y))
			nn.CrossEntropy(g, y, labels, net.Classes(), .1, 2)
			if err := l.Backward(t.Context(), g, 2); err != nil {
				t.Fatal(err)
			}
			for i, p := range l.Params() {
				if !slices.Equal(p.Grad, want[i]) {
					t.Errorf("%s, %s: gradient of %s differs by %.2g", f.name, from, p.Name, relative(p.Grad, want[i]))
				}
			}
		}
	}
}
