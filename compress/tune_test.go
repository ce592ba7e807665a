package compress

import (
	"errors"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/train"
	"github.com/lowrank-go/lowrank/zoo"
)

// tensors are all values of a network, by name.
func tensors(t *testing.T, g *graph.Graph) map[string][]float32 {
	t.Helper()
	sd, err := g.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]float32{}
	for _, name := range sd.Names() {
		x, _ := sd.Get(name)
		if !x.IsFloat() { // counters of batches
			continue
		}
		v, err := x.Float32s()
		if err != nil {
			t.Fatal(err)
		}
		out[name] = slices.Clone(v)
	}
	return out
}

func sameTensors(a, b map[string][]float32) bool {
	if len(a) != len(b) {
		return false
	}
	for name, v := range a {
		if !slices.Equal(v, b[name]) {
			return false
		}
	}
	return true
}

// Tune is a calibration and a job with the network as it was for a teacher, to the bit, and
// leaves the compressed network as it is.
func TestTuneIsCalibrationAndAJobWithATeacher(t *testing.T) {
	before, err := zoo.New("resnet20", 10, zoo.NewOptions{Seed: 1, Preprocess: dataset.Glyphs})
	if err != nil {
		t.Fatal(err)
	}
	small, _, err := Network(t.Context(), before, Options{Method: SVD})
	if err != nil {
		t.Fatal(err)
	}
	images := images(t, "glyphs:digits", 24)
	was := tensors(t, small)
	if same, epochs, err := Tune(t.Context(), small, TuneOptions{}); err != nil || epochs != nil || !sameTensors(tensors(t, same), was) {
		t.Fatalf("nothing to do changes the network: %v, %v", epochs, err)
	}
	recipe := train.Recipe{Epochs: 1, Batch: 8, Rate: .01, Momentum: .9, Teaching: .5, Seed: 3}
	scores, steps, calibrated := 0, 0, 0
	got, epochs, err := Tune(t.Context(), small, TuneOptions{Calibrate: images, Data: images, Recipe: recipe, Teacher: before, Validation: images,
		Calibrated: func(done, _ int) { calibrated = done }, Trained: func(train.Progress) { steps++ }, Scored: func(eval.Score) { scores++ }})
	if err != nil {
		t.Fatal(err)
	}
	if !sameTensors(tensors(t, small), was) {
		t.Error("the compressed network has changed")
	}
	if calibrated != 24 || steps != 3 || scores != 1 || len(epochs) != 1 || epochs[0].ValLoss == nil {
		t.Errorf("told of %d images, %d steps and %d scores, %d epochs", calibrated, steps, scores, len(epochs))
	}

	want := small.Clone()
	if err := graph.Calibrate(t.Context(), want, images, calibrateBatch, 0, nil); err != nil {
		t.Fatal(err)
	}
	only, _, err := Tune(t.Context(), small, TuneOptions{Calibrate: images})
	if err != nil || !sameTensors(tensors(t, only), tensors(t, want)) {
		t.Errorf("calibration alone differs from graph.Calibrate (%v)", err)
	}
	learner, err := want.NewLearner(graph.LearnerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	teacher, err := before.Compile()
	if err != nil {
		t.Fatal(err)
	}
	job := &train.Job{Learner: learner, Data: images, Preprocess: want.Preprocess, Recipe: recipe, Teacher: teacher.Forward}
	if _, err := job.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want, err = learner.Net(); err != nil {
		t.Fatal(err)
	}
	if !sameTensors(tensors(t, got), tensors(t, want)) {
		t.Error("tuning differs from the job")
	}

	// Without a recipe it is TuneRecipe, and one that makes no sense is an error.
	if _, epochs, err = Tune(t.Context(), small, TuneOptions{Data: images}); err != nil || len(epochs) != TuneRecipe.Epochs {
		t.Errorf("%d epochs (%v), want %d", len(epochs), err, TuneRecipe.Epochs)
	}
	if _, _, err = Tune(t.Context(), small, TuneOptions{Data: images, Recipe: train.Recipe{Epochs: 1, Rate: -1}}); !errors.Is(err, train.ErrRecipe) {
		t.Errorf("error %v", err)
	}
}
