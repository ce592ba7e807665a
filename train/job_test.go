package train

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/nn"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/zoo"
)

// stripes are images of 12×12 whose class shows in their colours, with noise.
type stripes struct {
	n, classes int
	label      func(i int) int // nil means i modulo classes
}

func (s stripes) Len() int               { return s.n }
func (s stripes) Classes() int           { return s.classes }
func (s stripes) ClassName(i int) string { return "" }
func (s stripes) Name() string           { return "stripes" }
func (s stripes) At(i int) (dataset.Image, int, error) {
	label := i % s.classes
	if s.label != nil {
		label = s.label(i)
	}
	rng := rand.New(rand.NewPCG(uint64(i), 3))
	m := dataset.Image{W: 12, H: 12, C: 3, Pix: make([]uint8, 12*12*3)}
	for p := range m.Pix {
		v := 128 + 60*math.Sin(float64(p%3*(label+1))+float64(p/36*label)) + 20*rng.NormFloat64()
		m.Pix[p] = uint8(min(max(v, 0), 255))
	}
	return m, label, nil
}

var preprocess = dataset.Preprocess{Mean: [3]float32{.5, .5, .5}, Std: [3]float32{.25, .25, .25}}

func small(t testing.TB) *graph.Graph {
	t.Helper()
	sd, err := model.ReadFile("../zoo/testdata/cifar_pad.pth")
	if err != nil {
		t.Fatal(err)
	}
	n, err := zoo.Load(sd, zoo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newLearner(t testing.TB, n *graph.Graph, opt graph.LearnerOptions) *graph.Learner {
	t.Helper()
	l, err := n.NewLearner(opt)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// values is everything that a learner has learnt.
func values(t testing.TB, l *graph.Learner) []float32 {
	t.Helper()
	sd, err := l.State()
	if err != nil {
		t.Fatal(err)
	}
	var all []float32
	for _, n := range sd.Names() {
		x, _ := sd.Get(n)
		if v, ok := x.Data.([]float32); ok {
			all = append(all, v...)
		}
	}
	return all
}

// program is what l has learnt so far, to be run on what preprocess gives.
func program(l *graph.Learner) (*graph.Program, error) {
	n, err := l.Net()
	if err != nil {
		return nil, err
	}
	n.Preprocess = preprocess
	return n.Compile()
}

func validator(l *graph.Learner, set dataset.Set) func(context.Context) (eval.Score, error) {
	return func(ctx context.Context) (eval.Score, error) {
		p, err := program(l)
		if err != nil {
			return eval.Score{}, err
		}
		return eval.Evaluate(ctx, p, set, eval.Options{})
	}
}

func TestANetworkLearnsAndTheLogSaysSo(t *testing.T) {
	data := stripes{n: 120, classes: 6}
	l := newLearner(t, small(t), graph.LearnerOptions{})
	log := filepath.Join(t.TempDir(), "log")
	job := &Job{Learner: l, Data: data, Preprocess: preprocess, Log: log, Validate: validator(l, data),
		Recipe: Recipe{Epochs: 8, Batch: 20, Rate: .05, Momentum: .9, Seed: 1}}
	epochs, err := job.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	last := epochs[len(epochs)-1]
	if last.Accuracy < .9 || *last.ValAccuracy < .9 || last.Loss > epochs[0].Loss/3 {
		t.Errorf("after %d epochs: %+v, validation %.3f", len(epochs), last, *last.ValAccuracy)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != 8 {
		t.Fatalf("%d lines of log for 8 epochs", len(lines))
	}
	var e Epoch
	if err := json.Unmarshal([]byte(lines[7]), &e); err != nil || e.Loss != last.Loss || *e.ValLoss != *last.ValLoss {
		t.Errorf("the log ends with %+v (%v)", e, err)
	}
}

// A run that is broken off at random steps, and goes on in a new process each time,
// gives the same bits as one that is not.
func TestResumingGivesTheSameBits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		recipe := Recipe{
			Epochs: 2, Batch: rapid.IntRange(5, 40).Draw(rt, "batch"), Optimiser: rapid.SampledFrom([]string{SGD, Adam, AdamW}).Draw(rt, "optimiser"),
			Decay: 1e-3, Warmup: 1, Clip: rapid.SampledFrom([]float64{0, 1}).Draw(rt, "clip"), Mixup: rapid.SampledFrom([]float64{0, .4}).Draw(rt, "mixup"),
			EMA: rapid.SampledFrom([]float64{0, .9}).Draw(rt, "ema"), Smoothing: .1, Augment: dataset.Augment{Pad: 2, Flip: true}, Seed: rapid.Uint64().Draw(rt, "seed"),
			Rate: .01, Kept: rapid.SampledFrom([]int{0, 2}).Draw(rt, "kept"), Teaching: .5,
		}
		data := stripes{n: 45, classes: 6 - recipe.Kept}
		net := small(t)
		job := Job{Data: data, Preprocess: preprocess, Recipe: recipe}
		if recipe.Kept > 0 {
			job.Teacher = teacher(t, net, recipe.Kept)
		}
		for _, u := range net.Sites() { // a factorised chain trains like any layer
			if u.Name == "layer2.0.conv1" {
				if err := net.Replace(u.Name, chain(u.Chain)); err != nil {
					t.Fatal(err)
				}
			}
		}
		checkResuming(t, rt, net, job, func(j *Job, l *graph.Learner) { j.Validate = validator(l, data) })
	})
}

// teacher is what n's first outputs are.
func teacher(t *testing.T, n *graph.Graph, outputs int) func(context.Context, *conv.Map, int) ([]float32, error) {
	t.Helper()
	first, err := n.SelectOutputs(0, outputs)
	if err != nil {
		t.Fatal(err)
	}
	p, err := first.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return p.Forward
}

// checkResuming runs a job on learners of net, in one go and broken off at random.
func checkResuming(t *testing.T, rt *rapid.T, net *graph.Graph, job Job, validate func(*Job, *graph.Learner)) {
	whole := newLearner(t, net, graph.LearnerOptions{})
	job.Learner, job.Workers = whole, 1
	validate(&job, whole)
	want, err := job.Run(t.Context())
	if err != nil {
		rt.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "checkpoint")
	os.Remove(path)
	var got []Epoch
	var l *graph.Learner
	for breaks := 0; ; breaks++ {
		ctx, cancel := context.WithCancel(t.Context())
		l = newLearner(t, net, graph.LearnerOptions{})
		left := rapid.IntRange(1, 9).Draw(rt, "steps")
		part := job
		part.Learner, part.Workers, part.Checkpoint, part.Resume = l, 2, path, true
		part.Progress = func(Progress) {
			if left--; left == 0 {
				cancel()
			}
		}
		validate(&part, l)
		got, err = part.Run(ctx)
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) {
			rt.Fatal(err)
		}
	}
	if !slices.Equal(values(t, l), values(t, whole)) {
		rt.Error("the weights differ")
	}
	for i, e := range got {
		if w := want[i]; e.Loss != w.Loss || e.Accuracy != w.Accuracy || *e.ValLoss != *w.ValLoss || e.Rate != w.Rate {
			rt.Errorf("epoch %d: %+v, want %+v", i+1, e, w)
		}
	}
}

// chain is an SVD-shaped chain of random weights in place of c.
func chain(c *conv.Chain) *conv.Chain {
	k := c.Stages[0]
	rng := rand.New(rand.NewPCG(4, 4))
	fill := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(rng.NormFloat64() / 3)
		}
		return v
	}
	return &conv.Chain{Kind: conv.SVD, Rank: []int{3}, Groups: 1, Stages: []*conv.Kernel{
		{Shape: [4]int{3, k.Shape[1], k.Shape[2], k.Shape[3]}, Weight: fill(3 * k.Shape[1] * k.Taps()), Geometry: k.Geometry},
		{Shape: [4]int{k.Out(), 3, 1, 1}, Weight: fill(3 * k.Out())},
	}}
}

func TestALossThatDivergesStopsTheRunAndKeepsTheCheckpoint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint")
	data := stripes{n: 60, classes: 6}
	l := newLearner(t, small(t), graph.LearnerOptions{})
	job := &Job{Learner: l, Data: data, Preprocess: preprocess, Checkpoint: path,
		Recipe: Recipe{Epochs: 30, Batch: 20, Rate: 1e30, Warmup: 29, Momentum: .9, Decay: 1}}
	// With batch norm weights may grow large before anything is infinite.
	_, err := job.Run(t.Context())
	if !errors.Is(err, ErrDiverged) {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(err.Error(), "epoch") {
		t.Errorf("%q does not say when", err)
	}
	if sd, err := model.ReadFile(path); err == nil {
		if err := sd.CheckFinite(); err != nil {
			t.Errorf("the checkpoint is %v", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestACheckpointOfAnotherJobIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint")
	data := stripes{n: 30, classes: 6}
	recipe := Recipe{Epochs: 1, Batch: 10}
	run := func(data dataset.Set, recipe Recipe) error {
		job := &Job{Learner: newLearner(t, small(t), graph.LearnerOptions{}), Data: data, Preprocess: preprocess, Checkpoint: path, Resume: true, Recipe: recipe}
		_, err := job.Run(t.Context())
		return err
	}
	if err := run(data, recipe); err != nil {
		t.Fatal(err)
	}
	other := recipe
	other.Decay = .5
	if err := run(data, other); !errors.Is(err, ErrOtherJob) || !strings.Contains(err.Error(), "decay was 0 and is 0.5") {
		t.Errorf("another decay gave %v", err)
	}
	what := &Job{Learner: newLearner(t, small(t), graph.LearnerOptions{}), Data: data, Preprocess: preprocess, Checkpoint: path, Resume: true, Recipe: recipe, What: "lora"}
	if _, err := what.Run(t.Context()); !errors.Is(err, ErrOtherJob) || !strings.Contains(err.Error(), "lora") {
		t.Errorf("another thing to train gave %v", err)
	}
	if err := run(stripes{n: 31, classes: 6}, recipe); !errors.Is(err, ErrOtherJob) {
		t.Errorf("other data gave %v", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// A flipped bit of a weight, which the format itself does not notice.
	for _, at := range []int{len(text) - 1, len(text) * 3 / 4, len(text) / 2} {
		bad := bytes.Clone(text)
		bad[at] ^= 1
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := run(data, recipe); !errors.Is(err, model.ErrCorrupt) {
			t.Errorf("a flipped bit at byte %d of %d gave %v", at, len(text), err)
		}
	}
	for _, n := range []int{0, 7, 100, len(text) / 2, len(text) - 1} {
		if err := os.WriteFile(path, text[:n], 0o644); err != nil {
			t.Fatal(err)
		}
		if err := run(data, recipe); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("a checkpoint cut to %d bytes gave %v", n, err)
		}
	}
}

func TestACheckpointThatCannotBeWrittenStopsTheRun(t *testing.T) {
	data := stripes{n: 30, classes: 6}
	job := &Job{Learner: newLearner(t, small(t), graph.LearnerOptions{}), Data: data, Preprocess: preprocess,
		Checkpoint: filepath.Join(t.TempDir(), "missing", "checkpoint"), Recipe: Recipe{Epochs: 1, Batch: 10}}
	if _, err := job.Run(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestBadDataAreErrors(t *testing.T) {
	run := func(data dataset.Set) error {
		job := &Job{Learner: newLearner(t, small(t), graph.LearnerOptions{}), Data: data, Preprocess: preprocess, Recipe: Recipe{Epochs: 1, Batch: 10}}
		_, err := job.Run(t.Context())
		return err
	}
	if err := run(stripes{n: 0, classes: 6}); !errors.Is(err, dataset.ErrEmpty) {
		t.Errorf("no images gave %v", err)
	}
	if err := run(stripes{n: 10, classes: 7}); !errors.Is(err, ErrRecipe) {
		t.Errorf("too many classes gave %v", err)
	}
	for _, bad := range []int{-1, 6} {
		err := run(stripes{n: 10, classes: 6, label: func(i int) int { return []int{0, bad}[i%2] }})
		if !errors.Is(err, dataset.ErrFormat) {
			t.Errorf("label %d gave %v", bad, err)
		}
	}
	frozen := &Job{Learner: newLearner(t, small(t), graph.LearnerOptions{Learn: func(*graph.Param) bool { return false }}), Data: stripes{n: 10, classes: 6}, Preprocess: preprocess, Recipe: Recipe{Epochs: 1}}
	if _, err := frozen.Run(t.Context()); !errors.Is(err, ErrRecipe) {
		t.Errorf("nothing to learn gave %v", err)
	}
}

func TestATeacherThatIsTheNetworkItselfTeachesNothing(t *testing.T) {
	data := stripes{n: 40, classes: 6}
	l := newLearner(t, small(t), graph.LearnerOptions{FixedNorms: true})
	before := values(t, l)
	teacher := newLearner(t, small(t), graph.LearnerOptions{FixedNorms: true})
	job := &Job{Learner: l, Data: data, Preprocess: preprocess, Recipe: Recipe{Epochs: 1, Batch: 10, Rate: .1, Teaching: 1},
		Teacher: teacher.Forward}
	if _, err := job.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, v := range values(t, l) {
		if math.Abs(float64(v-before[i])) > 1e-5 {
			t.Fatalf("value %d went from %g to %g", i, before[i], v)
		}
	}
}

func TestRecipesThatMakeNoSenseAreErrors(t *testing.T) {
	for name, r := range map[string]Recipe{
		"epochs": {Epochs: -1}, "batch": {Batch: -5}, "optimiser": {Optimiser: "lion"}, "schedule": {Schedule: "linear"},
		"rate": {Rate: math.NaN()}, "negative rate": {Rate: -1}, "momentum": {Momentum: 1}, "Nesterov": {Nesterov: true}, "decay": {Decay: -1},
		"warm-up": {Epochs: 2, Warmup: 3}, "smoothing": {Smoothing: 2}, "mixup": {Mixup: -1}, "clip": {Clip: math.NaN()}, "ema": {EMA: 1},
		"teaching": {Teaching: 1.5}, "temperature": {Temperature: -2}, "kept": {Kept: -1}, "pattern": {Groups: []Group{{Match: "["}}}, "group": {Groups: []Group{{Match: "*", Rate: -1}}},
		"augment": {Augment: dataset.Augment{Pad: -1}}, "milestone": {Milestones: []float64{math.NaN()}}, "gamma": {Gamma: math.Inf(1)},
	} {
		if err := r.Validate(); !errors.Is(err, ErrRecipe) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (Recipe{}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestRatesFollowTheSchedule(t *testing.T) {
	cosine := Recipe{Epochs: 11, Rate: 2, Warmup: 1}.withDefaults()
	steps := Recipe{Epochs: 10, Rate: 1, Schedule: Steps, Milestones: []float64{5, 7.5}}.withDefaults()
	for _, c := range []struct {
		r    Recipe
		step int
		want float64
	}{
		{cosine, 0, .02}, {cosine, 49, 1}, {cosine, 99, 2}, {cosine, 100, 2}, {cosine, 600, 1}, {cosine, 1100 - 1, 1 + math.Cos(math.Pi*.999)},
		{steps, 0, 1}, {steps, 499, 1}, {steps, 500, .1}, {steps, 749, .1}, {steps, 750, .01},
		{Recipe{Epochs: 1, Rate: 3, Schedule: Constant}.withDefaults(), 77, 3},
	} {
		if got := c.r.rate(c.step, 100); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%s: the rate of step %d is %g, want %g", c.r.Schedule, c.step, got, c.want)
		}
	}
}

func TestGroupsAndKindsChooseRateAndDecay(t *testing.T) {
	l := newLearner(t, small(t), graph.LearnerOptions{})
	r := Recipe{Decay: .1, Groups: []Group{{Match: "linear.*", Rate: 10, Decay: .3}}}.withDefaults()
	o := newOptimiser(&r, l.Params())
	for i, p := range o.params {
		rate, decay := 1., 0.
		switch {
		case strings.HasPrefix(p.Name, "linear."):
			rate, decay = 10, .3
		case p.Kind == graph.Weight:
			decay = .1
		}
		if o.rate[i] != rate || o.decay[i] != decay {
			t.Errorf("%s (%v): rate times %g, decay %g", p.Name, p.Kind, o.rate[i], o.decay[i])
		}
	}
}

func TestClippedGradientsHaveTheNorm(t *testing.T) {
	l := newLearner(t, small(t), graph.LearnerOptions{})
	r := Recipe{Clip: .5}
	var sum float64
	for _, p := range l.Params() {
		for i := range p.Grad {
			p.Grad[i] = float32(i%7) - 3
			sum += float64(p.Grad[i]) * float64(p.Grad[i])
		}
	}
	if n := gradientNorm(l.Params(), 2); math.Abs(n-math.Sqrt(sum)) > 1e-9*n {
		t.Errorf("norm %g, want %g", n, math.Sqrt(sum))
	}
	newOptimiser(&r, l.Params()).clip(2)
	if n := gradientNorm(l.Params(), 2); math.Abs(n-.5) > 1e-6 {
		t.Errorf("clipped to %g", n)
	}
}

// The gradient of the mixed loss is that of cross-entropy with mixed targets.
func TestMixedLabelsShareTheLoss(t *testing.T) {
	const n, classes, share = 3, 4, .7
	rng := rand.New(rand.NewPCG(8, 8))
	logits := make([]float32, n*classes)
	for i := range logits {
		logits[i] = float32(rng.NormFloat64())
	}
	a, b := []int{0, 3, 2}, []int{1, 3, 0}
	r := &run{second: make([]float32, len(logits))}
	g := make([]float32, len(logits))
	first := nn.CrossEntropy(g, logits, a, classes, 0, 1)
	loss := r.blend(g, first, nn.CrossEntropy(r.second, logits, b, classes, 0, 1), 1-share)
	var want float64
	for i := range n {
		var sum float64
		for _, v := range logits[i*classes : (i+1)*classes] {
			sum += math.Exp(float64(v))
		}
		for c, v := range logits[i*classes : (i+1)*classes] {
			target := 0.
			if a[i] == c {
				target += share
			}
			if b[i] == c {
				target += 1 - share
			}
			want -= target * (float64(v) - math.Log(sum)) / n
			if d := float64(g[i*classes+c]) - (math.Exp(float64(v))/sum-target)/n; math.Abs(d) > 1e-6 {
				t.Errorf("gradient %d of image %d is off by %g", c, i, d)
			}
		}
	}
	if math.Abs(loss-want) > 1e-6 {
		t.Errorf("loss %g, want %g", loss, want)
	}
}

// What lies below the head is the same in each epoch: looking at images once gives what
// looking at them each time does, and a run that was broken off goes on to the same bits.
func TestACacheChangesNothingButTheTime(t *testing.T) {
	data := stripes{n: 50, classes: 6}
	recipe := Recipe{Epochs: 3, Batch: 16, Rate: .1, Seed: 3}
	for _, from := range []string{"linear.", "layer3."} {
		opt := graph.LearnerOptions{FixedNorms: true, Learn: func(p *graph.Param) bool {
			return strings.HasPrefix(p.Name, from) || strings.HasPrefix(p.Name, "linear.")
		}}
		run := func(cache int64, path string, stop int) (*graph.Learner, error) {
			l := newLearner(t, small(t), opt)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			job := &Job{Learner: l, Data: data, Preprocess: preprocess, Recipe: recipe, Cache: cache, Checkpoint: path, Resume: true,
				Progress: func(Progress) {
					if stop--; stop == 0 {
						cancel()
					}
				}}
			_, err := job.Run(ctx)
			return l, err
		}
		plain, err := run(0, "", 0)
		if err != nil {
			t.Fatal(err)
		}
		cached, err := run(1<<30, "", 0)
		if err != nil {
			t.Fatal(err)
		}
		a, b := values(t, plain), values(t, cached)
		for i := range a {
			if math.Abs(float64(a[i]-b[i])) > 1e-5 {
				t.Fatalf("%s: value %d is %g, cached %g", from, i, a[i], b[i])
			}
		}
		path := filepath.Join(t.TempDir(), "checkpoint")
		if _, err := run(1<<30, path, 5); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		resumed, err := run(1<<30, path, 0)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(values(t, resumed), b) {
			t.Errorf("%s: a cached run that goes on gives other bits", from)
		}
		if few, err := run(8, "", 0); err != nil || !slices.Equal(values(t, few), a) { // too little memory
			t.Errorf("%s: without room for the cache: %v", from, err)
		}
	}
	job := &Job{Learner: newLearner(t, small(t), graph.LearnerOptions{}), Data: data, Preprocess: preprocess, Cache: 1, Recipe: Recipe{Epochs: 1, Mixup: 1}}
	if _, err := job.Run(t.Context()); !errors.Is(err, ErrRecipe) {
		t.Errorf("mixup with a cache gave %v", err)
	}
}
