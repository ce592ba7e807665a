package compress

import (
	"context"
	"fmt"
	"time"

	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/train"
)

// TuneRecipe is how Tune trains where its options do not say: five epochs at a small rate,
// with a teacher for half of the loss.
var TuneRecipe = train.Recipe{Epochs: 5, Rate: .01, Momentum: .9, Decay: 1e-4, Warmup: .2, Teaching: .5, Temperature: 4}

// calibrateBatch is the number of images in the batches whose statistics norms get.
const calibrateBatch = 100

// TuneOptions say how Tune gets accuracy back. The zero value does nothing; Data alone
// trains by TuneRecipe.
type TuneOptions struct {
	// Calibrate, where not nil, are images, labelled or not, whose statistics the batch
	// norms get first; see graph.Calibrate.
	Calibrate dataset.Set
	// Data, where not nil, are the labelled images of the fine-tuning, by Recipe; one
	// without epochs is TuneRecipe, with Recipe's Seed and Augment.
	Data   dataset.Set
	Recipe train.Recipe
	// Teacher, where not nil, is the network as it was, whose outputs count for
	// Recipe.Teaching of the loss.
	Teacher *graph.Graph
	// Validation, where not nil, are the images that each epoch is scored on.
	Validation dataset.Set
	// Checkpoint, Every, Resume and Log are train.Job's: files of the run, where not "".
	Checkpoint string
	Every      time.Duration
	Resume     bool
	Log        string
	// Workers bounds the goroutines; 0 means GOMAXPROCS. It does not change the result.
	Workers int
	// Calibrated, Trained and Scored, where not nil, are told of progress: images of
	// Calibrate, steps, and the validation after each epoch.
	Calibrated func(done, total int)
	Trained    func(train.Progress)
	Scored     func(eval.Score)
}

// Tune gets back what compression cost: it gives the batch norms of a compressed network
// the statistics of images, and trains all of it with the network as it was for a teacher.
// It returns the network and the log of the epochs; g is left as it is. When the context
// ends the checkpoint has what was done. Errors wrap train.ErrRecipe for a recipe that makes
// no sense.
func Tune(ctx context.Context, g *graph.Graph, opt TuneOptions) (*graph.Graph, []train.Epoch, error) {
	if opt.Calibrate != nil {
		g = g.Clone()
		if err := graph.Calibrate(ctx, g, opt.Calibrate, calibrateBatch, opt.Workers, opt.Calibrated); err != nil {
			return nil, nil, err
		}
	}
	if opt.Data == nil {
		return g, nil, nil
	}
	recipe := opt.Recipe
	if recipe.Epochs == 0 {
		recipe = TuneRecipe
		recipe.Seed, recipe.Augment = opt.Recipe.Seed, opt.Recipe.Augment
	}
	if recipe.Batch == 0 && !eval.Small(g) {
		recipe.Batch = 32
	}
	learner, err := g.NewLearner(graph.LearnerOptions{})
	if err != nil {
		return nil, nil, err
	}
	job := &train.Job{
		Learner: learner, Data: opt.Data, Preprocess: g.Preprocess, Recipe: recipe,
		Checkpoint: opt.Checkpoint, Every: opt.Every, Resume: opt.Resume, Log: opt.Log,
		Progress: opt.Trained, Workers: opt.Workers,
	}
	if opt.Validation != nil {
		job.Validate = train.Validation(learner.Net, opt.Validation, eval.Options{Workers: opt.Workers}, opt.Scored)
	}
	if opt.Teacher != nil && recipe.Teaching > 0 {
		teacher, err := opt.Teacher.Compile()
		if err != nil {
			return nil, nil, fmt.Errorf("the teacher: %w", err)
		}
		job.Teacher = teacher.Forward
	}
	epochs, err := job.Run(ctx)
	if err != nil {
		return nil, epochs, err
	}
	out, err := learner.Net()
	return out, epochs, err
}
