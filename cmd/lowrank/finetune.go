package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/train"
)

// tuneFlags are what compress does to get accuracy back.
type tuneFlags struct {
	recipeFlags
	calibrate int
	images    int
}

func (f *tuneFlags) add(cmd *cobra.Command) {
	f.Recipe = train.Recipe{Rate: .01, Decay: 1e-4, Warmup: .2, Teaching: .5, Temperature: 4}
	f.recipeFlags.add(cmd)
	f.addTeaching(cmd, "")
	fl := cmd.Flags()
	fl.IntVar(&f.Epochs, "finetune", 0, "train the compressed network for this many epochs")
	fl.IntVar(&f.images, "finetune-images", 0, "of an epoch: N images spread evenly over the training split, 0 for all")
	fl.IntVar(&f.calibrate, "calibrate", 0, "give batch norms the statistics of N training images")
}

func (f *tuneFlags) tuning() bool { return f.Epochs > 0 || f.calibrate > 0 }

func (f *tuneFlags) check(data, out string) error {
	if f.calibrate < 0 || f.images < 0 {
		return usagef("--calibrate %d, --finetune-images %d; want numbers of images", f.calibrate, f.images)
	}
	if err := f.Recipe.Validate(); err != nil {
		return usageError{err}
	}
	switch {
	case !f.tuning():
	case data == "":
		return usagef("--finetune and --calibrate need --data")
	case f.Epochs > 0 && out == "":
		return usagef("--finetune needs -o OUT, beside which its checkpoint lies")
	}
	return nil
}

// tune calibrates and fine-tunes the compressed network, which it returns. The checkpoint
// stays until that is written.
func (f *compressFlags) tune(cmd *cobra.Command, before, after *graph.Graph, validation dataset.Set, r *compressReport) (*graph.Graph, error) {
	const batch = 100
	if f.calibrate > 0 && !f.planning() {
		set, err := dataset.Open(f.data, dataset.Options{Split: dataset.Train, Limit: f.calibrate})
		if err != nil {
			return nil, err
		}
		line := progressLine(cmd, "calibrate")
		err = graph.Calibrate(cmd.Context(), after, set, batch, f.threads, func(done, total int) { line.Update(done, total, "images") })
		line.Done()
		if err := errors.Join(err, dataset.Close(set)); err != nil {
			return nil, err
		}
	}
	if f.Epochs == 0 {
		return after, nil
	}
	set, err := dataset.Open(f.data, dataset.Options{Split: dataset.Train, Limit: f.images})
	if err != nil {
		return nil, err
	}
	defer dataset.Close(set)
	learner, err := after.NewLearner(graph.LearnerOptions{})
	if err != nil {
		return nil, err
	}
	f.Seed = f.seed
	f.Recipe.Batch = f.dataFlags.batch
	job, err := f.job(cmd, "fine-tune", f.data, after, learner, learner.Net, set, validation, f.threads)
	if err != nil {
		return nil, err
	}
	if err := teach(job, before); err != nil {
		return nil, err
	}
	job.Checkpoint, job.Log, _ = trainingFiles(f.out)
	if err := f.begin(job.Checkpoint); err != nil {
		return nil, err
	}
	if r.FineTuning, err = runJob(cmd.Context(), job); err != nil {
		return nil, err
	}
	return learner.Net()
}
