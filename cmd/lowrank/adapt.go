package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/adapt"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/resnet"
	"github.com/lowrank-go/lowrank/train"
)

// adaptReport is what adapt prints with --json.
type adaptReport struct {
	Method          string        `json:"method"`
	Rank            []int         `json:"rank"`
	Norms           string        `json:"norms"`
	ParamsTrainable int           `json:"params_trainable"`
	ParamsBase      int           `json:"params_base"`
	AccuracyBefore  *float64      `json:"accuracy_before"`
	Accuracy        *float64      `json:"accuracy"`
	Samples         int           `json:"samples"`
	SecondsPerEpoch float64       `json:"seconds_per_epoch"`
	Epochs          []train.Epoch `json:"epochs"`
	Recipe          train.Recipe  `json:"recipe"`
	Output          string        `json:"output,omitempty"`
}

type adaptFlags struct {
	modelFlags
	recipeFlags
	data    string
	limit   int
	holdout float64
	method  string
	rank    []int
	opt     adapt.Options
	norms   string
	name    string
	out     string
	force   bool
}

func newAdapt() *cobra.Command {
	f := adaptFlags{recipeFlags: recipeFlags{Recipe: train.Recipe{Epochs: 10, Optimiser: train.Adam, Rate: .01, Warmup: 1}}}
	cmd := &cobra.Command{
		Use:   "adapt [MODEL] --data DATA --method METHOD -o ADAPTER",
		Short: "Adapt a frozen network to new data with few parameters",
		Long: `Freezes MODEL (the network in the program where it is left out), gives it a new head
for the classes of DATA, and trains what --method says beside it. ADAPTER is a
safetensors file of that alone, which lowrank merge and eval --adapter put together
with MODEL again.

Methods: ` + strings.Join(adapt.Methods(), ", ") + `.
Ranks (--rank) are one number, or as many as the kind has: tucker R_out,R_in, tkdcpd
R_out,R_in,R. Of bottleneck, it is how many times fewer channels there are inside.
residual-serial-bn, bottleneck and chapter are layers beside the convolutions, which
stay in the network that merge writes, and no changes of the kernels; --alpha is the
scale of what they add.

--norms says what becomes of the batch norms, which matters more than the method:
frozen-eval leaves them, affine trains their scales and shifts, stats-only takes the
new data's means and variances, affine+stats does both and is the default of most
methods.`,
		Example: `  lowrank adapt --data glyphs:digits --method cp --rank 16 -o digits.safetensors
  lowrank adapt resnet20.th --data idx:kmnist --method lora --rank 4 --epochs 5 --lr 0.01 -o kmnist.safetensors`,
		Args: atMost(1, "at most a model file"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, argument(args)) },
	}
	f.modelFlags.add(cmd)
	f.recipeFlags.add(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.data, "data", "", "labelled images; see lowrank eval --help")
	fl.IntVar(&f.limit, "limit", 0, "train on N images spread evenly over the data, 0 for all")
	fl.Float64Var(&f.holdout, "validation", 0, "validate on this share of the training images, held out, in place of the test split")
	fl.StringVar(&f.method, "method", "cp", "how to adapt")
	fl.IntSliceVar(&f.rank, "rank", nil, "ranks of the change of a kernel")
	fl.Float64Var(&f.opt.Alpha, "alpha", 0, "scale the change by alpha over its rank; 0 means by 1")
	fl.BoolVar(&f.opt.Stabilised, "stabilised", false, "by alpha over the root of its rank")
	fl.BoolVar(&f.opt.Learned, "learn-scale", false, "train the scale")
	fl.BoolVar(&f.opt.DoRA, "dora", false, "train the norms of the output channels apart")
	fl.Float64Var(&f.opt.Gain, "gain", 0, "how large the first step is; 0 means LoRA's 0.58")
	fl.Float64Var(&f.opt.Precondition, "precondition", 0, "precondition the factors' gradients with this damping, for instance 0.01; 0 for none")
	fl.StringVar(&f.norms, "norms", "", "batch norms: frozen-eval, stats-only, affine or affine+stats; by the method where left out")
	fl.StringArrayVar(&f.opt.Layers, "layers", nil, "change only convolutions whose name matches this pattern (repeatable)")
	fl.IntVar(&f.Epochs, "epochs", 10, "epochs to train")
	fl.IntVar(&f.Batch, "batch", 64, "images of a step")
	fl.Uint64Var(&f.Seed, "seed", 1, "seed of everything random")
	fl.StringVar(&f.name, "name", "", "the task's name in the file, for files of several")
	fl.StringVarP(&f.out, "output", "o", "", "file to write (safetensors)")
	fl.BoolVar(&f.force, "force", false, "overwrite an existing output")
	if err := fl.Set("optimiser", train.Adam); err != nil {
		panic(err)
	}
	fl.Lookup("optimiser").DefValue = train.Adam
	return cmd
}

func (f *adaptFlags) run(cmd *cobra.Command, path string) error {
	method, err := adapt.ParseMethod(f.method)
	if err != nil {
		return usageError{err}
	}
	if f.out == "" && !f.json {
		return usagef("adapt needs -o ADAPTER, or --json for the report alone")
	}
	if err := f.Recipe.Validate(); err != nil {
		return usageError{err}
	}
	if err := checkOutput(f.out, f.force); err != nil {
		return err
	}
	t := trainFlags{data: f.data, limit: f.limit, holdout: f.holdout}
	t.Seed = f.Seed
	data, validation, err := t.sets()
	if err != nil {
		return err
	}
	defer dataset.Close(data)
	defer dataset.Close(validation)
	base, err := f.net(path)
	if err != nil {
		return err
	}
	f.opt.Method, f.opt.Rank, f.opt.Norms = method, f.rank, peft.NormPolicy(f.norms)
	f.opt.Classes, f.opt.Seed, f.opt.Batch = data.Classes(), f.Seed, f.Batch
	n, err := adapt.New(base, f.opt)
	if errors.Is(err, adapt.ErrOption) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	job, err := f.job(cmd, "adapt", f.data, n.Base.Config, n.Learner, data, validation, f.threads)
	if err != nil {
		return err
	}
	setup, err := json.Marshal(n.Options)
	if err != nil {
		return err
	}
	job.Setup = string(setup)
	if job.Recipe.Augment == (dataset.Augment{}) {
		job.Cache = 2 << 30
	}
	if f.out != "" {
		job.Checkpoint, job.Log, _ = trainingFiles(f.out)
		if err := f.begin(job.Checkpoint); err != nil {
			return err
		}
	}
	r := adaptReport{Method: f.method, Rank: n.Options.Rank, Norms: string(n.Options.Norms), ParamsTrainable: n.Params(), ParamsBase: base.Params(),
		Samples: validation.Len(), Recipe: job.Recipe, Output: f.out}
	before, err := job.Validate(cmd.Context())
	if err != nil {
		return err
	}
	accuracy := before.Accuracy()
	r.AccuracyBefore = &accuracy
	start := time.Now()
	if r.Epochs, err = runJob(cmd.Context(), job); err != nil {
		return err
	}
	if k := len(r.Epochs); k > 0 {
		r.Accuracy = r.Epochs[k-1].ValAccuracy
		for _, e := range r.Epochs {
			r.SecondsPerEpoch += e.Seconds / float64(k)
		}
	}
	if f.out != "" {
		if err := f.write(n, base); err != nil {
			return err
		}
		if err := discard(job.Checkpoint); err != nil {
			return err
		}
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), r)
	}
	if r.Accuracy != nil {
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s trainable parameters of %s; top-1 %.2f %% of %d images (%.2f %% before), %.1f s an epoch, %.0f s in all\n",
			f.method, count(r.ParamsTrainable), count(r.ParamsBase), 100**r.Accuracy, r.Samples, 100**r.AccuracyBefore, r.SecondsPerEpoch, time.Since(start).Seconds())
	}
	if f.out != "" {
		fmt.Fprintf(cmd.OutOrStdout(), "wrote %s\n", f.out)
	}
	return nil
}

// write writes the adapter.
func (f *adaptFlags) write(n *adapt.Network, base *resnet.Net) error {
	sd, err := base.StateDict()
	if err != nil {
		return err
	}
	file, err := n.File(sd, f.name)
	if err != nil {
		return err
	}
	return file.Write(f.out)
}
