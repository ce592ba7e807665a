package main

import (
	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/compress"
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
func (f *compressFlags) tune(cmd *cobra.Command, before, after *graph.Graph, validation dataset.Set, r *compressReport) (_ *graph.Graph, err error) {
	opt := compress.TuneOptions{Teacher: before, Validation: validation, Every: f.every, Resume: f.resume, Workers: f.threads}
	images := func(most int) (dataset.Set, error) {
		return dataset.Open(f.data, dataset.Options{Split: dataset.Train, Limit: most})
	}
	line := progressLine(cmd, "calibrate")
	if f.calibrate > 0 && !f.planning() {
		if opt.Calibrate, err = images(f.calibrate); err != nil {
			return nil, err
		}
		defer dataset.Close(opt.Calibrate)
		opt.Calibrated = func(done, total int) {
			if line.Update(done, total, "images"); done == total {
				line.Done()
			}
		}
	}
	if f.Epochs > 0 {
		if opt.Data, err = images(f.images); err != nil {
			return nil, err
		}
		defer dataset.Close(opt.Data)
		f.Seed = f.seed
		f.Recipe.Batch = f.dataFlags.batch
		if opt.Recipe, err = f.recipeFor(f.data, after); err != nil {
			return nil, err
		}
		opt.Checkpoint, opt.Log, _ = trainingFiles(f.out)
		if err := f.begin(opt.Checkpoint); err != nil {
			return nil, err
		}
		opt.Trained, opt.Scored = reports(cmd, "fine-tune", after.Segments())
	}
	net, epochs, err := compress.Tune(cmd.Context(), after, opt)
	line.Done()
	r.FineTuning = epochs
	return net, resumable(cmd.Context(), opt.Checkpoint, err)
}
