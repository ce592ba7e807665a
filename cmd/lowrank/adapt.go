package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/adapt"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/ranks"
	"github.com/lowrank-go/lowrank/train"
)

// adaptReport is what adapt prints with --json.
type adaptReport struct {
	Method string `json:"method"`
	// Rank is null where --rank chose ranks by what kernels are: Modules has them.
	Rank            []int         `json:"rank"`
	Start           string        `json:"start"`
	Norms           string        `json:"norms"`
	ParamsTrainable int           `json:"params_trainable"`
	ParamsBase      int           `json:"params_base"`
	AccuracyBefore  *float64      `json:"accuracy_before"`
	Accuracy        *float64      `json:"accuracy"` // of pixels where there is a mean IoU
	MIoUBefore      *float64      `json:"miou_before,omitempty"`
	MIoU            *float64      `json:"miou,omitempty"`
	Samples         int           `json:"samples"`
	SecondsPerEpoch float64       `json:"seconds_per_epoch"`
	Epochs          []train.Epoch `json:"epochs"`
	// Source says where in its file the network lay and what was left out.
	Source *model.Source `json:"source,omitempty"`
	Recipe train.Recipe  `json:"recipe"`
	// Modules are the changes of kernels, in the network's order.
	Modules []moduleRow `json:"modules"`
	Output  string      `json:"output,omitempty"`
}

type adaptFlags struct {
	modelFlags
	recipeFlags
	data    string
	limit   int
	holdout float64
	method  string
	rank    string
	rankOf  string
	start   string
	opt     adapt.Options
	norms   string
	name    string
	out     string
	force   bool
}

func newAdapt() *cobra.Command {
	f := adaptFlags{recipeFlags: recipeFlags{Recipe: train.Recipe{Epochs: 10, Optimiser: train.Adam, Rate: .01, Warmup: 1, Teaching: lwfTeaching, Temperature: lwfTemperature}}}
	cmd := &cobra.Command{
		Use:   "adapt [MODEL] --data DATA --method METHOD -o ADAPTER",
		Short: "Adapt a frozen network to new data with few parameters",
		Long: `Freezes MODEL (the network in the program where it is left out), gives it a new head
for the classes of DATA, and trains what --method says beside it. ADAPTER is a
safetensors file of that alone, which lowrank merge and eval --adapter put together
with MODEL again.

Methods: ` + strings.Join(adapt.Methods(), ", ") + `.
--rank is

  R[,S[,T]]     the same everywhere: one number, or as many as the kind has, tucker
                R_out,R_in, tkdcpd R_out,R_in,R; of bottleneck, how many times fewer
                channels there are inside
  vbmf          for each kernel what analytic variational Bayes tells from noise
  energy=0.9    for each kernel what keeps this share of its square
  error=0.3     for each kernel what has at most this relative error
  params=N      at most N trained values beside the head and norms, at least rank 1
                everywhere, the rest where it keeps most for its cost
  macs=N        the same for the operations of the chains on one image

of --rank-of: the frozen kernel, or the gradient of the loss in it, which tells what the
data ask of it. The gradient is a mean over 512 images, with the head of a linear
discriminant analysis.

--start says where factors come from: random, kernel (its leading components, PiSSA),
minor (its minor ones, MiLoRA), subspace (of the kernel) or gradient (the directions in
which the loss falls fastest, LoRA-GA). The network is at first what it was, whatever the
start; kernel and minor cost more time a step.

residual-serial-bn, bottleneck and chapter are layers beside the convolutions, which
stay in the network that merge writes, and no changes of the kernels; --alpha is the
scale of what they add.
lwf (learning without forgetting) trains everything, the new head beside the old one,
whose outputs on the new images are held to those that MODEL gives them (--teaching,
--temperature); its --lr is 0.001 by default. ADAPTER is two then: that of DATA, and
ADAPTER:before, with MODEL's own classes in the network as it has become.

On images with masks (pairs:DIR, glyphs:segments) a classifier becomes a segmentation
network, with a new neck and head that every method trains; see lowrank train.

--norms says what becomes of the batch norms, which matters more than the method:
frozen-eval leaves them, affine trains their scales and shifts, stats-only takes the
new data's means and variances, affine+stats does both and is the default of most
methods.`,
		Example: `  lowrank adapt --data glyphs:digits --method cp --rank 16 -o digits.safetensors
  lowrank adapt resnet20.th --data idx:kmnist --method lora --rank 4 --epochs 5 --lr 0.01 -o kmnist.safetensors
  lowrank adapt --data glyphs:digits --method lora --rank params=10000 --rank-of gradient --start gradient -o digits.safetensors`,
		Args: atMost(1, "at most a model file"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, argument(args)) },
	}
	f.modelFlags.add(cmd)
	f.recipeFlags.add(cmd)
	f.addTeaching(cmd, "of lwf: ")
	fl := cmd.Flags()
	fl.StringVar(&f.data, "data", "", "labelled images; see lowrank eval --help")
	fl.IntVar(&f.limit, "limit", 0, "train on N images spread evenly over the data, 0 for all")
	fl.Float64Var(&f.holdout, "validation", 0, "validate on this share of the training images, held out, in place of the test split")
	fl.StringVar(&f.method, "method", "cp", "how to adapt")
	fl.StringVar(&f.rank, "rank", "", "how the ranks of changes of kernels are chosen: "+ranks.Forms(adaptRules...)+"; by the method where left out")
	fl.StringVar(&f.rankOf, "rank-of", "", "what all but given ranks look at: kernel (the default) or gradient")
	fl.StringVar(&f.start, "start", string(adapt.Random), "where factors come from: random, kernel, minor, subspace or gradient")
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
	if err := f.forMethod(cmd, method); err != nil {
		return err
	}
	if err := f.Recipe.Validate(); err != nil {
		return usageError{err}
	}
	if err := f.readRank(); err != nil {
		return err
	}
	if err := checkEnding(f.out, ".safetensors"); err != nil {
		return err
	}
	if err := checkOutput(f.out, f.force || f.resume && unfinished(f.out)); err != nil {
		return err
	}
	if err := checkTraining(f.out, f.resume, f.force, false); err != nil {
		return err
	}
	if err := checkName(f.name); err != nil {
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
	f.opt.Method, f.opt.Start, f.opt.Norms = method, adapt.Start(f.start), peft.NormPolicy(f.norms)
	f.opt.Classes, f.opt.Seed, f.opt.Batch = data.Classes(), f.Seed, f.Batch
	if _, f.opt.Segment = data.(dataset.Segmented); !f.opt.Segment && f.dilate != autoDilate {
		return usagef("--dilate is for segmentation networks, and the pixels of %s have no classes", data.Name())
	}
	opt, err := f.options()
	if err != nil {
		return err
	}
	f.opt.Dilate = opt.Dilate
	n, err := f.network(cmd.Context(), base, data)
	if err != nil {
		return err
	}
	f.Kept = n.Kept()
	job, err := f.job(cmd, "adapt", f.data, n.Base, n.Learner, n.Net, data, validation, f.threads)
	if err != nil {
		return err
	}
	if err := teach(job, base); err != nil {
		return err
	}
	job.What = n.Options.String()
	if job.Recipe.Augment == (dataset.Augment{}) && job.Teacher == nil {
		job.Cache = 2 << 30
	}
	if f.out != "" {
		job.Checkpoint, job.Log, _ = trainingFiles(f.out)
		if err := f.begin(job.Checkpoint); err != nil {
			return err
		}
	}
	r := adaptReport{Method: f.method, Rank: n.Options.Rank, Start: f.start, Norms: string(n.Options.Norms), ParamsTrainable: n.Params(), ParamsBase: base.Params(),
		Samples: validation.Len(), Recipe: job.Recipe, Modules: []moduleRow{}, Output: f.out, Source: f.source(path)}
	for _, s := range n.Base.Sites() {
		if d, ok := n.Changes[s.Name]; ok {
			r.Modules = append(r.Modules, rowOf(s.Name, d))
		}
	}
	if r.AccuracyBefore, r.MIoUBefore, err = validate(cmd.Context(), job); err != nil {
		return err
	}
	start := time.Now()
	if r.Epochs, err = runJob(cmd.Context(), job); err != nil {
		return err
	}
	if k := len(r.Epochs); k > 0 {
		r.Accuracy, r.MIoU = r.Epochs[k-1].ValAccuracy, r.Epochs[k-1].ValMIoU
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
	f.tell(cmd.OutOrStdout(), path)
	if r.Accuracy != nil {
		what, figure, was := "top-1", *r.Accuracy, *r.AccuracyBefore
		if r.MIoU != nil {
			what, figure, was = "mean IoU", *r.MIoU, *r.MIoUBefore
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s trainable parameters of %s; %s %.2f %% of %d images (%.2f %% before), %.1f s an epoch, %.0f s in all\n",
			f.method, count(r.ParamsTrainable), count(r.ParamsBase), what, 100*figure, r.Samples, 100*was, r.SecondsPerEpoch, time.Since(start).Seconds())
	}
	if f.out != "" {
		fmt.Fprintf(cmd.OutOrStdout(), "wrote %s\n", f.out)
	}
	return nil
}

// validate is what a job's network reaches before its first step.
func validate(ctx context.Context, job *train.Job) (accuracy, miou *float64, err error) {
	s, err := job.Validate(ctx)
	if s.Segments() {
		miou = new(s.MeanIoU())
	}
	return new(s.Accuracy()), miou, err
}

// adaptRules are what --rank may be, those that look at kernels after the first.
var adaptRules = []ranks.Rule{ranks.Fixed, ranks.VBMF, ranks.Energy, ranks.Error, ranks.Params, ranks.MACs}

// readRank reads --rank and --rank-of.
func (f *adaptFlags) readRank() error {
	c := &f.opt.Choose
	c.Of = adapt.Source(f.rankOf)
	if f.rank != "" {
		r, err := ranks.Parse(f.rank, adaptRules...)
		if err != nil {
			return err
		}
		switch r.Rule {
		case ranks.Fixed:
			f.opt.Rank = r.Fixed
		case ranks.Params:
			c.Params, err = whole(r)
		case ranks.MACs:
			c.MACs, err = whole(r)
		default:
			c.Rule = &peft.Rule{Energy: r.Keeps()}
		}
		if err != nil {
			return err
		}
	}
	if c.Of != "" && c.Params == 0 && c.MACs == 0 && c.Rule == nil {
		return usagef("--rank-of %s goes with --rank %s", f.rankOf, ranks.Forms(adaptRules[1:]...))
	}
	return nil
}

// network is base, prepared.
func (f *adaptFlags) network(ctx context.Context, base *graph.Graph, data dataset.Set) (n *adapt.Network, err error) {
	if f.opt.ByGradient() {
		f.opt.Gradients, err = adapt.Gradients(ctx, base, data, f.opt, 0, f.threads)
	}
	if err == nil {
		n, err = adapt.NewContext(ctx, base, f.opt)
	}
	if errors.Is(err, adapt.ErrOption) {
		return nil, usageError{err}
	}
	return n, err
}

// write writes the adapter.
func (f *adaptFlags) write(n *adapt.Network, base *graph.Graph) error {
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
