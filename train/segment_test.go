package train

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/zoo"
)

// patches are images of 12×12 with another of the classes of stripes on the left and
// on the right, and a column between that is to be ignored.
type patches struct {
	stripes
	class func(i, x int) uint8 // nil means the above
}

func (p patches) at(i, x int) uint8 {
	switch {
	case p.class != nil:
		return p.class(i, x)
	case x == 6:
		return dataset.Ignore
	}
	return uint8((i + x/6*2) % p.classes)
}

func (p patches) At(i int) (dataset.Image, int, error) {
	m := dataset.Image{W: 12, H: 12, C: 3, Pix: make([]uint8, 12*12*3)}
	var whole []dataset.Image
	for c := range p.classes {
		w, _, err := stripes{n: p.n, classes: p.classes, label: func(int) int { return c }}.At(i)
		if err != nil {
			return m, 0, err
		}
		whole = append(whole, w)
	}
	for k := range m.Pix {
		m.Pix[k] = whole[int(p.at(i, k/3%12))%p.classes].Pix[k]
	}
	return m, 0, nil
}

func (p patches) MaskAt(i int) (dataset.Mask, error) {
	m := dataset.Mask{W: 12, H: 12, Class: make([]uint8, 12*12)}
	for k := range m.Class {
		m.Class[k] = p.at(i, k%12)
	}
	return m, nil
}

func segmenter(t testing.TB) *graph.Graph {
	t.Helper()
	n := small(t)
	if err := zoo.SetSegmentation(n, 6, 1, 5); err != nil {
		t.Fatal(err)
	}
	return n
}

func segmentValidator(l *graph.Learner, set dataset.Set) func(context.Context) (eval.Score, error) {
	return func(ctx context.Context) (eval.Score, error) {
		p, err := program(l)
		if err != nil {
			return eval.Score{}, err
		}
		return eval.Evaluate(ctx, p, set, eval.Options{})
	}
}

func TestASegmentationNetworkLearnsAndTheLogSaysSo(t *testing.T) {
	data := patches{stripes: stripes{n: 120, classes: 6}}
	l := newLearner(t, segmenter(t), graph.LearnerOptions{})
	log := filepath.Join(t.TempDir(), "log")
	job := &Job{Learner: l, Data: data, Preprocess: preprocess, Log: log, Validate: segmentValidator(l, data),
		Recipe: Recipe{Epochs: 20, Batch: 10, Rate: .05, Momentum: .9, Seed: 1}}
	epochs, err := job.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	last := epochs[len(epochs)-1]
	if last.Accuracy < .8 || *last.ValAccuracy < .8 || *last.ValMIoU < .65 || last.Loss > epochs[0].Loss/2 {
		t.Errorf("after %d epochs: %+v, validation %.3f, mean IoU %.3f", len(epochs), last, *last.ValAccuracy, *last.ValMIoU)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	var e Epoch
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &e); err != nil || e.ValMIoU == nil || *e.ValMIoU != *last.ValMIoU {
		t.Errorf("the log ends with %+v (%v)", e, err)
	}
}

func TestResumingSegmentationGivesTheSameBits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		recipe := Recipe{
			Epochs: 2, Batch: rapid.IntRange(3, 20).Draw(rt, "batch"), EMA: rapid.SampledFrom([]float64{0, .9}).Draw(rt, "ema"),
			Smoothing: rapid.SampledFrom([]float64{0, .1}).Draw(rt, "smoothing"), Augment: dataset.Augment{Pad: 2, Flip: true},
			Seed: rapid.Uint64().Draw(rt, "seed"), Rate: .01,
		}
		data := patches{stripes: stripes{n: 17, classes: 6}}
		checkResuming(t, rt, segmenter(t), Job{Data: data, Preprocess: preprocess, Recipe: recipe}, func(j *Job, l *graph.Learner) {
			j.Validate = segmentValidator(l, data)
		})
	})
}

func TestPixelsToIgnoreTeachNothing(t *testing.T) {
	l := newLearner(t, segmenter(t), graph.LearnerOptions{FixedNorms: true})
	before := values(t, l)
	data := patches{stripes: stripes{n: 20, classes: 6}, class: func(i, x int) uint8 { return dataset.Ignore }}
	job := &Job{Learner: l, Data: data, Preprocess: preprocess, Recipe: Recipe{Epochs: 1, Batch: 10, Rate: .1}, Validate: segmentValidator(l, data)}
	epochs, err := job.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if e := epochs[0]; e.Loss != 0 || e.Accuracy != 0 || *e.ValLoss != 0 || *e.ValMIoU != 0 {
		t.Errorf("%+v", e)
	}
	for i, v := range values(t, l) {
		if v != before[i] {
			t.Fatalf("value %d went from %g to %g", i, before[i], v)
		}
	}
}

func TestATeacherOfPixelsThatIsTheNetworkItselfTeachesNothing(t *testing.T) {
	l := newLearner(t, segmenter(t), graph.LearnerOptions{FixedNorms: true})
	before := values(t, l)
	teacher := newLearner(t, segmenter(t), graph.LearnerOptions{FixedNorms: true})
	job := &Job{Learner: l, Data: patches{stripes: stripes{n: 20, classes: 6}}, Preprocess: preprocess, Teacher: teacher.Forward,
		Recipe: Recipe{Epochs: 1, Batch: 10, Rate: .1, Teaching: 1}}
	if _, err := job.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, v := range values(t, l) {
		if math.Abs(float64(v-before[i])) > 1e-5 {
			t.Fatalf("value %d went from %g to %g", i, before[i], v)
		}
	}
}

func TestWhatASegmentationNetworkCannotLearnFromIsAnError(t *testing.T) {
	set := patches{stripes: stripes{n: 20, classes: 6}}
	bad := set
	bad.class = func(i, x int) uint8 { return uint8(x % 8) }
	for _, c := range []struct {
		data  dataset.Set
		mixup float64
		want  error
	}{{stripes{n: 20, classes: 6}, 0, ErrRecipe}, {set, .4, ErrRecipe}, {bad, 0, dataset.ErrFormat}} {
		job := &Job{Learner: newLearner(t, segmenter(t), graph.LearnerOptions{}), Data: c.data, Preprocess: preprocess, Recipe: Recipe{Epochs: 1, Mixup: c.mixup}}
		if _, err := job.Run(t.Context()); !errors.Is(err, c.want) {
			t.Errorf("%s with a mixup of %g gave %v", c.data.Name(), c.mixup, err)
		}
	}
	// Weights of the same shapes, but dilated otherwise.
	other := small(t)
	if err := zoo.SetSegmentation(other, 6, 2, 5); err != nil {
		t.Fatal(err)
	}
	sd, err := other.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	if err := newLearner(t, segmenter(t), graph.LearnerOptions{}).SetState(sd); err == nil || !errors.Is(err, conv.ErrShape) {
		t.Errorf("a state of another dilation gave %v", err)
	}
}
