package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/chart"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/train"
	"github.com/lowrank-go/lowrank/zoo"
)

// trainReport is what train prints with --json.
type trainReport struct {
	Arch     string        `json:"arch"`
	Params   int           `json:"params"`
	MACs     int64         `json:"macs"`
	Recipe   train.Recipe  `json:"recipe"`
	Accuracy *float64      `json:"accuracy"` // of pixels where there is a mean IoU
	MIoU     *float64      `json:"miou,omitempty"`
	Loss     *float64      `json:"loss"`
	Samples  int           `json:"samples"`
	Seconds  float64       `json:"seconds"`
	Output   string        `json:"output,omitempty"`
	Epochs   []train.Epoch `json:"epochs"`
	// Source says where in its file the network lay and what was left out.
	Source *model.Source `json:"source,omitempty"`
}

// recipeFlags are the flags of every command that trains.
type recipeFlags struct {
	train.Recipe
	augment string
	resume  bool
	every   time.Duration
}

func (f *recipeFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.Optimiser, "optimiser", train.SGD, "sgd, adam or adamw")
	fl.Float64Var(&f.Rate, "lr", f.Rate, "learning rate at its peak; 0 means 0.1 for sgd, 0.001 for the others")
	fl.Float64Var(&f.Momentum, "momentum", .9, "momentum of sgd")
	fl.BoolVar(&f.Nesterov, "nesterov", false, "Nesterov's momentum")
	fl.Float64Var(&f.Decay, "decay", f.Decay, "weight decay, of weights only unless --decay-all")
	fl.BoolVar(&f.DecayAll, "decay-all", false, "decay biases and batch norms too")
	fl.Float64Var(&f.Warmup, "warmup", f.Warmup, "epochs in which the rate rises from 0")
	fl.StringVar(&f.Schedule, "schedule", train.Cosine, "of the rate: cosine, steps or constant")
	fl.Float64SliceVar(&f.Milestones, "milestones", nil, "epochs at which --schedule steps multiplies the rate by --gamma")
	fl.Float64Var(&f.Gamma, "gamma", .1, "what the rate is multiplied by at a milestone")
	fl.Float64Var(&f.Smoothing, "smoothing", 0, "label smoothing")
	fl.Float64Var(&f.Mixup, "mixup", 0, "mix images and labels by shares from Beta(V, V)")
	fl.Float64Var(&f.Clip, "clip", 0, "greatest norm of the gradient, 0 for none")
	fl.Float64Var(&f.EMA, "ema", 0, "train an average of the weights with this decay a step")
	fl.StringVar(&f.augment, "augment", "auto", "auto, none, or a list of crop (shifts by 4 pixels), resized-crop and flip; auto flips nothing but photographs")
	fl.DurationVar(&f.every, "checkpoint-every", time.Minute, "write the checkpoint this often, beside after each epoch")
	fl.BoolVar(&f.resume, "resume", false, "go on from the checkpoint, if there is one")
}

// sets are the images that a run trains on and is validated with.
func (f *trainFlags) sets() (data, validation dataset.Set, err error) {
	if f.data == "" {
		return nil, nil, usagef("train needs --data")
	}
	if f.limit < 0 {
		return nil, nil, usagef("--limit %d; want a number of images, or 0 for all", f.limit)
	}
	if !(f.holdout >= 0 && f.holdout < 1) {
		return nil, nil, usagef("--validation %g; want a share of at least 0 and below 1", f.holdout)
	}
	if data, err = dataset.Open(f.data, dataset.Options{Split: dataset.Train, Limit: f.limit}); err != nil {
		return nil, nil, err
	}
	if f.holdout > 0 {
		return dataset.HoldOut(data, f.holdout, f.Seed)
	}
	validation, err = dataset.Open(f.data, dataset.Options{Split: dataset.Test})
	return data, validation, err
}

// trainingFiles are where a run keeps what is not its result.
func trainingFiles(out string) (checkpoint, log, curve string) {
	stem := strings.TrimSuffix(out, filepath.Ext(out))
	return stem + ".checkpoint", stem + ".jsonl", stem + ".svg"
}

// begin discards the checkpoint of an earlier run, unless this one goes on from it.
func (f *recipeFlags) begin(checkpoint string) error {
	if f.resume {
		return nil
	}
	return discard(checkpoint)
}

// discard removes a checkpoint, if it is there.
func discard(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// runJob runs a job; where it was interrupted and can go on, its error says so.
func runJob(ctx context.Context, job *train.Job) ([]train.Epoch, error) {
	epochs, err := job.Run(ctx)
	return epochs, resumable(ctx, job.Checkpoint, err)
}

// resumable says of a run's error whether the run was interrupted and can go on.
func resumable(ctx context.Context, checkpoint string, err error) error {
	if err != nil && ctx.Err() != nil && checkpoint != "" {
		return fmt.Errorf("%w (%w)", err, errResumable)
	}
	return err
}

// drawCurve draws a run's losses.
func drawCurve(path, title string, epochs []train.Epoch) error {
	c := chart.Chart{Title: title, XLabel: "epoch", YLabel: "loss", LogY: true, Lines: []chart.Line{{Name: "training"}, {Name: "validation"}}}
	for _, e := range epochs {
		c.Lines[0].X, c.Lines[0].Y = append(c.Lines[0].X, float64(e.Epoch)), append(c.Lines[0].Y, e.Loss)
		if e.ValLoss != nil {
			c.Lines[1].X, c.Lines[1].Y = append(c.Lines[1].X, float64(e.Epoch)), append(c.Lines[1].Y, *e.ValLoss)
		}
	}
	b, err := c.Draw(path)
	if err != nil {
		return err
	}
	return model.WriteAtomic(path, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

type trainFlags struct {
	modelFlags
	recipeFlags
	arch    string
	data    string
	limit   int
	holdout float64
	project bool
	zero    bool
	out     string
	force   bool
}

func newTrain() *cobra.Command {
	f := trainFlags{recipeFlags: recipeFlags{Recipe: train.Recipe{Epochs: 20, Decay: 5e-4, Warmup: 1}}}
	cmd := &cobra.Command{
		Use:   "train [MODEL] --data DATA -o OUT",
		Short: "Train a residual network",
		Long: `Trains a residual network on labelled images: one of --arch with random weights,
or MODEL from where it is. OUT is a safetensors file. Beside it, with other
endings, lie the checkpoint (.checkpoint) from which --resume goes on exactly
where the run was, the log (.jsonl, a line an epoch) and the curve of the losses
(.svg). The run is validated on the test split, or on --validation S, a share of
the training images that is held out.

On images with masks (pairs:DIR, glyphs:segments) it trains a segmentation network,
with a class for every pixel: the network with its last stages dilated in place of
striding (--dilate) and torchvision's fully convolutional head without the dropout.
MODEL may be a classifier, whose convolutions are kept.

Results depend on the seed and on nothing else: not on --threads, and not on how
often a run was interrupted.`,
		Example: `  lowrank train --arch resnet20 --data glyphs:letters --epochs 10 -o letters.safetensors
  lowrank train --arch resnet20 --data cifar10:cifar-10-batches-bin --epochs 100 --validation 0.1 -o cifar.safetensors
  lowrank train --arch resnet20 --data glyphs:segments --epochs 10 -o segments.safetensors
  lowrank train small.safetensors --data folder:photos --epochs 3 --lr 0.01 -o tuned.safetensors`,
		Args: atMost(1, "at most a model file"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	f.modelFlags.add(cmd)
	f.recipeFlags.add(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.arch, "arch", "", "network to train from random weights: "+strings.Join(zoo.Architectures(), ", "))
	fl.StringVar(&f.data, "data", "", "labelled images; see lowrank eval --help")
	fl.IntVar(&f.Epochs, "epochs", 20, "epochs to train")
	fl.IntVar(&f.Batch, "batch", 128, "images of a step")
	fl.Float64Var(&f.holdout, "validation", 0, "validate on this share of the training images, held out, in place of the test split")
	fl.IntVar(&f.limit, "limit", 0, "train on N images spread evenly over the data, 0 for all")
	fl.BoolVar(&f.project, "projection", false, "with --arch: 1×1 shortcuts in CIFAR networks in place of padding")
	fl.BoolVar(&f.zero, "zero-gain", false, "with --arch: begin with each block's last batch norm at zero")
	fl.Uint64Var(&f.Seed, "seed", 1, "seed of everything random")
	fl.StringVarP(&f.out, "output", "o", "", "file to write (safetensors)")
	fl.BoolVar(&f.force, "force", false, "overwrite an existing output")
	return cmd
}

func (f *trainFlags) run(cmd *cobra.Command, args []string) error {
	if f.out == "" {
		return usagef("train needs -o OUT")
	}
	if (f.arch == "") == (len(args) == 0) {
		return usagef("train needs either --arch or a model file")
	}
	if err := f.Recipe.Validate(); err != nil {
		return usageError{err}
	}
	if err := checkEnding(f.out, ".safetensors"); err != nil {
		return err
	}
	if err := checkOutput(f.out, f.force || f.resume && unfinished(f.out)); err != nil {
		return err
	}
	if err := checkTraining(f.out, f.resume, f.force, true); err != nil {
		return err
	}
	data, validation, err := f.sets()
	if err != nil {
		return err
	}
	defer dataset.Close(data)
	defer dataset.Close(validation)
	net, err := f.network(args, data)
	if err != nil {
		return err
	}
	learner, err := net.NewLearner(graph.LearnerOptions{})
	if err != nil {
		return err
	}
	checkpoint, log, curve := trainingFiles(f.out)
	if err := f.begin(checkpoint); err != nil {
		return err
	}
	start := time.Now()
	job, err := f.job(cmd, "train", f.data, net, learner, learner.Net, data, validation, f.threads)
	if err != nil {
		return err
	}
	job.Checkpoint, job.Log = checkpoint, log
	epochs, err := runJob(cmd.Context(), job)
	if err != nil {
		return err
	}
	if net, err = learner.Net(); err != nil {
		return err
	}
	sd, err := net.StateDict()
	if err != nil {
		return err
	}
	if err := model.WriteSafetensors(f.out, sd); err != nil {
		return err
	}
	if len(epochs) > 0 {
		if err := drawCurve(curve, fmt.Sprintf("%s on %s", net.Arch, data.Name()), epochs); err != nil {
			return err
		}
	}
	if err := discard(checkpoint); err != nil {
		return err
	}
	r := trainReport{Arch: net.Arch, Params: net.Params(), MACs: net.MACs(), Recipe: job.Recipe, Samples: validation.Len(),
		Seconds: time.Since(start).Seconds(), Output: f.out, Epochs: epochs, Source: f.source(argument(args))}
	if n := len(epochs); n > 0 {
		r.Accuracy, r.MIoU, r.Loss = epochs[n-1].ValAccuracy, epochs[n-1].ValMIoU, epochs[n-1].ValLoss
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), r)
	}
	f.tell(cmd.OutOrStdout(), argument(args))
	if r.Accuracy != nil {
		reached := fmt.Sprintf("top-1 %.2f %%", 100**r.Accuracy)
		if r.MIoU != nil {
			reached = fmt.Sprintf("mean IoU %.2f %%, pixels %.2f %%", 100**r.MIoU, 100**r.Accuracy)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s of %d images, loss %.4f, after %d epochs (%.0f s); wrote %s\n",
			r.Arch, reached, r.Samples, *r.Loss, len(epochs), r.Seconds, f.out)
	}
	return nil
}

// network is the network to train on data.
func (f *trainFlags) network(args []string, data dataset.Set) (*graph.Graph, error) {
	_, segment := data.(dataset.Segmented)
	opt, err := f.options()
	if err != nil {
		return nil, err
	}
	if opt.Dilate != nil && !segment {
		return nil, usagef("--dilate is for segmentation networks, and the pixels of %s have no classes", data.Name())
	}
	if f.arch != "" {
		net, err := zoo.New(f.arch, data.Classes(), zoo.NewOptions{
			Seed: f.Seed, Preprocess: preprocessFor(f.data), StrideFirst: f.strideFirst, Projection: f.project, ZeroGain: f.zero,
			Segment: segment, Dilate: opt.Dilate,
		})
		if err != nil {
			return nil, err
		}
		return net, f.norm.apply(&net.Preprocess)
	}
	net, err := f.net(args[0])
	if err != nil {
		return nil, err
	}
	switch {
	case segment && !net.Segments():
		dilate := zoo.DefaultDilate(net)
		if opt.Dilate != nil {
			dilate = *opt.Dilate
		}
		return net, zoo.SetSegmentation(net, data.Classes(), dilate, f.Seed)
	case net.Segments() && !segment:
		return nil, fmt.Errorf("%w: %s is a segmentation network, and the pixels of %s have no classes", graph.ErrTask, args[0], data.Name())
	case segment && opt.Dilate != nil && *opt.Dilate != zoo.Dilated(net):
		return nil, fmt.Errorf("--dilate %d: %s was trained with %d stages dilated", *opt.Dilate, args[0], zoo.Dilated(net))
	case net.Classes() != data.Classes():
		return net, net.SetHead(data.Classes(), f.Seed)
	}
	return net, nil
}

// job is the job of the flags; learnt makes the network to validate.
func (f *recipeFlags) job(cmd *cobra.Command, what, spec string, g *graph.Graph, l *graph.Learner, learnt func() (*graph.Graph, error), data, validation dataset.Set, threads int) (*train.Job, error) {
	recipe, err := f.recipeFor(spec, g)
	if err != nil {
		return nil, err
	}
	trained, scored := reports(cmd, what, g.Segments())
	return &train.Job{
		Learner: l, Data: data, Preprocess: g.Preprocess, Recipe: recipe, Resume: f.resume, Every: f.every, Workers: threads,
		Progress: trained, Validate: train.Validation(learnt, validation, eval.Options{Workers: threads}, scored),
	}, nil
}

// recipeFor is the recipe of the flags for a network and data.
func (f *recipeFlags) recipeFor(spec string, g *graph.Graph) (train.Recipe, error) {
	recipe := f.Recipe
	var err error
	recipe.Augment, err = parseAugment(f.augment, spec, eval.Small(g))
	if recipe.Batch == 0 && !eval.Small(g) {
		recipe.Batch = 32 // of large images
	}
	return recipe, err
}

// reports are what tells of a run's steps and of its validations.
func reports(cmd *cobra.Command, what string, segments bool) (func(train.Progress), func(eval.Score)) {
	line := progressLine(cmd, what)
	right := "top-1"
	if segments {
		right = "pixels"
	}
	trained := func(p train.Progress) {
		line.Update((p.Epoch-1)*p.Steps+p.Step, p.Epochs*p.Steps, fmt.Sprintf("epoch %d of %d, loss %.3f, %s %.1f %%, %.0f images/s",
			p.Epoch, p.Epochs, p.Loss, right, 100*p.Accuracy, p.Rate))
	}
	scored := func(s eval.Score) {
		line.Done()
		reached := fmt.Sprintf("top-1 %.2f %%", 100*s.Accuracy())
		if s.Segments() {
			reached = fmt.Sprintf("mean IoU %.2f %%, pixels %.2f %%", 100*s.MeanIoU(), 100*s.Accuracy())
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "validation: %s, loss %.4f\n", reached, s.Loss)
	}
	return trained, scored
}

// preprocessFor is how a new network sees images.
func preprocessFor(spec string) dataset.Preprocess {
	if strings.HasPrefix(spec, "glyphs:") {
		return dataset.Glyphs
	}
	return dataset.Preprocess{} // the architecture's
}

// parseAugment reads --augment for data and a network, on small images or not.
func parseAugment(text, spec string, small bool) (dataset.Augment, error) {
	var a dataset.Augment
	photographs := !strings.HasPrefix(spec, "glyphs:") && !strings.HasPrefix(spec, "idx:")
	switch text {
	case "none", "":
		return a, nil
	case "auto":
		if small {
			return dataset.Augment{Pad: 4, Flip: photographs}, nil
		}
		return dataset.Augment{Area: dataset.ImageNetAugment.Area, Flip: photographs}, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		switch part {
		case "crop":
			a.Pad = 4
		case "resized-crop":
			a.Area = dataset.ImageNetAugment.Area
		case "flip":
			a.Flip = true
		default:
			return a, usagef("augmentation %q in %q; want auto, none, or some of crop, resized-crop and flip", part, text)
		}
	}
	return a, nil
}
