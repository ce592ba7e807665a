package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/adapt"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/usage"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/train"
)

type compareFlags struct {
	modelFlags
	recipeFlags
	data       []string
	methods    []string
	seeds      int
	rates      []float64
	tuneOn     int
	limit      int
	testLimit  int
	out        string
	force      bool
	candidates []candidate
	tasks      []task
}

func newCompare() *cobra.Command {
	f := compareFlags{recipeFlags: recipeFlags{Recipe: train.Recipe{Epochs: 5, Rate: .01, Warmup: .6}}}
	cmd := &cobra.Command{
		Use:   "compare [MODEL] --data DATA... -o OUTCOMES",
		Short: "Compare methods of adaptation on several tasks",
		Long: `Adapts MODEL (the network in the program where it is left out) to each DATA by each of
--methods with each of --seeds, and prints a table: accuracy on the test images (where
their pixels have classes the mean IoU), mean and standard deviation over seeds; the mean over tasks; the decathlon's score S, for
which full fine-tuning is the reference (Rebuffi et al. 2017); and, relative to full
fine-tuning, the trained parameters beside the head, the processor's time of an epoch
and the peak of memory.

A method may have ranks of its own, cp:8 or tkdcpd:8x8x16, and a task a name of its
own, kmnist=idx:DIR. With several --rates each method has the one that does best on a
quarter of the training images of the first --tune-on tasks, which is held out for
that; the runs for the table have all training images. A rate that was chosen once is
kept where neither --rates nor --lr is given.

OUTCOMES has a line of JSON for each run. --resume goes on from it: runs that are
there are not done again, and the table has all of it, also tasks of other models.
Without --data that table is all that is done.`,
		Example: `  lowrank compare --data glyphs:digits --data glyphs:shapes --methods head,bn,cp,full --limit 2000 -o outcomes.jsonl
  lowrank compare resnet20.th --data kmnist=idx:kmnist --methods cp:8,full --rates 0.003,0.01,0.03 --seeds 3 --limit 2000 --resume -o outcomes.jsonl
  lowrank compare --resume -o outcomes.jsonl`,
		Args: atMost(1, "at most a model file"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, argument(args)) },
	}
	f.modelFlags.add(cmd)
	f.recipeFlags.add(cmd)
	fl := cmd.Flags()
	fl.StringArrayVar(&f.data, "data", nil, "labelled images, or NAME=DATA; see lowrank eval --help (repeatable)")
	fl.StringSliceVar(&f.methods, "methods", []string{
		"head", "bias", "bn", "lora", "cp", "tucker", "tkdcpd", "residual-parallel", "residual-serial", "conv1d", "full", "lwf", "scratch",
	}, "methods, as lowrank adapt --help lists them, with ranks behind a colon")
	fl.IntVar(&f.seeds, "seeds", 1, "seeds, from 1")
	fl.Float64SliceVar(&f.rates, "rates", nil, "learning rates to choose from for each method, in place of --lr")
	fl.IntVar(&f.tuneOn, "tune-on", 0, "choose rates on the first N tasks only, 0 for all")
	fl.IntVar(&f.Epochs, "epochs", 5, "epochs to train")
	fl.IntVar(&f.Batch, "batch", 64, "images of a step")
	fl.IntVar(&f.limit, "limit", 0, "train on N images spread evenly over the data, 0 for all")
	fl.IntVar(&f.testLimit, "test-limit", 0, "test on N images spread evenly over the data, 0 for all")
	fl.StringVarP(&f.out, "output", "o", "", "file to write (lines of JSON)")
	fl.BoolVar(&f.force, "force", false, "overwrite an existing output")
	optimiser := fl.Lookup("optimiser")
	f.Optimiser, optimiser.DefValue = train.Adam, train.Adam
	augment := fl.Lookup("augment")
	f.augment, augment.DefValue = "none", "none"
	return cmd
}

// candidate is a method with its ranks.
type candidate struct {
	text   string
	method adapt.Method
	rank   []int
}

func parseCandidate(text string) (candidate, error) {
	name, list, ranked := strings.Cut(text, ":")
	m, err := adapt.ParseMethod(name)
	if err != nil {
		return candidate{}, err
	}
	c := candidate{text: text, method: m}
	if !ranked {
		return c, nil
	}
	for part := range strings.SplitSeq(list, "x") {
		r, err := strconv.Atoi(part)
		if err != nil || r < 1 {
			return c, fmt.Errorf("method %q: rank %q; want METHOD:RANK, or METHOD:RANKxRANK of several", text, part)
		}
		c.rank = append(c.rank, r)
	}
	return c, nil
}

// task is data under a name.
type task struct{ name, spec string }

func parseTask(text string) task {
	if name, spec, named := strings.Cut(text, "="); named && name != "" && !strings.ContainsAny(name, ":/,") {
		return task{name, spec}
	}
	return task{text, text}
}

func (f *compareFlags) check(cmd *cobra.Command) error {
	if f.out == "" {
		return usagef("compare needs -o OUTCOMES")
	}
	if len(f.data) == 0 && !f.resume {
		return usagef("compare needs --data, or --resume for the table of what there is")
	}
	for name, n := range map[string]int{"--limit": f.limit, "--test-limit": f.testLimit, "--tune-on": f.tuneOn} {
		if n < 0 {
			return usagef("%s %d; want a number from 0", name, n)
		}
	}
	if f.seeds < 1 {
		return usagef("--seeds %d; want a number from 1", f.seeds)
	}
	if len(f.rates) == 0 {
		f.rates = []float64{f.Rate}
	} else if cmd.Flags().Changed("lr") {
		return usagef("both --lr and --rates")
	}
	for _, rate := range f.rates {
		r := f.Recipe
		r.Rate = rate
		err := r.Validate()
		if err == nil {
			err = positive(rate)
		}
		if err != nil {
			return usageError{err}
		}
	}
	for _, text := range f.methods {
		c, err := parseCandidate(text)
		if err != nil {
			return usageError{err}
		}
		f.candidates = append(f.candidates, c)
	}
	for _, text := range f.data {
		t := parseTask(text)
		if slices.ContainsFunc(f.tasks, func(o task) bool { return o.name == t.name }) {
			return usagef("two tasks called %q", t.name)
		}
		f.tasks = append(f.tasks, t)
	}
	if f.resume {
		return nil
	}
	if _, err := os.Lstat(f.out); err == nil && !f.force {
		return fmt.Errorf("%s exists; --force overwrites it, and --resume goes on from it", f.out)
	}
	return checkOutput(f.out, f.force)
}

// openAll opens all data once, so that what is wrong with the last is known before the first
// is used.
func (f *compareFlags) openAll() error {
	for _, t := range f.tasks {
		for _, split := range []dataset.Split{dataset.Train, dataset.Test} {
			set, err := dataset.Open(t.spec, dataset.Options{Split: split})
			if err != nil {
				return err
			}
			if err := dataset.Close(set); err != nil {
				return err
			}
		}
	}
	return nil
}

func positive(rate float64) error {
	if !(rate > 0) {
		return fmt.Errorf("a rate of %g; want a number above 0", rate)
	}
	return nil
}

func (f *compareFlags) run(cmd *cobra.Command, path string) error {
	if err := f.check(cmd); err != nil {
		return err
	}
	var all outcomes
	if len(f.tasks) > 0 {
		// Each run writes the file anew: nobody else may in the meantime.
		unlock, err := model.Lock(f.out)
		if err != nil {
			return err
		}
		defer unlock()
	}
	if f.resume {
		var err error
		if all, err = readOutcomes(f.out); err != nil {
			return err
		}
		if err := model.RemoveTemporary(f.out); err != nil {
			return err
		}
	}
	if len(f.tasks) > 0 {
		if err := f.openAll(); err != nil {
			return err
		}
		base, err := f.net(path)
		if err != nil {
			return err
		}
		// Mistakes in ranks are found before the first run.
		for _, c := range f.candidates {
			_, err := adapt.New(base, adapt.Options{Method: c.method, Rank: c.rank, Classes: 2})
			if errors.Is(err, adapt.ErrOption) {
				return usageError{err}
			}
			if err != nil {
				return err
			}
		}
		settings, err := f.settings()
		if err != nil {
			return err
		}
		if slices.ContainsFunc(all, func(done outcome) bool { return done.Settings != settings }) {
			return fmt.Errorf("%s has runs with other settings (epochs, batch, images, optimiser, …): go on with those, or write another file", f.out)
		}
		c := &comparison{compareFlags: f, cmd: cmd, base: base, model: filepath.Base(path), all: all, settings: settings}
		if all, err = c.runs(); err != nil {
			return err
		}
	}
	table := tabulate(all, f.tasks, f.candidates)
	table.Source = f.source(path)
	if f.json {
		return printJSON(cmd.OutOrStdout(), table)
	}
	f.tell(cmd.OutOrStdout(), path)
	table.print(cmd.OutOrStdout())
	return nil
}

// comparison is a comparison at work.
type comparison struct {
	*compareFlags
	cmd   *cobra.Command
	base  *graph.Graph
	model string
	all   outcomes
	// settings identifies what all runs must have in common to be compared.
	settings string
}

// tuningSeed is of the runs that a rate is chosen by, and of what they hold out.
const tuningSeed = 1

// runs does every run that is missing: those that rates are chosen by, and then all
// tasks and methods with one seed after the other.
func (c *comparison) runs() (outcomes, error) {
	if len(c.rates) > 1 {
		tasks := c.tasks
		if c.tuneOn > 0 {
			tasks = tasks[:min(c.tuneOn, len(tasks))]
		}
		for _, m := range c.candidates {
			for _, t := range tasks {
				for _, rate := range c.rates {
					if err := c.ensure(t, m, tuningSeed, rate, validationSplit); err != nil {
						return nil, err
					}
				}
			}
		}
	}
	for seed := range uint64(c.seeds) {
		for _, t := range c.tasks {
			for _, m := range c.candidates {
				rate := c.rates[0]
				if chosen, tuned := c.all.rate(c.model, m.text); tuned && !c.cmd.Flags().Changed("lr") {
					rate = chosen
				}
				if err := c.ensure(t, m, seed+1, rate, testSplit); err != nil {
					return nil, err
				}
			}
		}
	}
	return c.all, nil
}

// ensure does a run unless it is there.
func (c *comparison) ensure(t task, m candidate, seed uint64, rate float64, split string) error {
	o := outcome{Model: c.model, Task: t.name, Method: m.text, Seed: seed, Rate: rate, Split: split, Settings: c.settings}
	if slices.ContainsFunc(c.all, func(done outcome) bool { return done.same(&o) }) {
		return nil
	}
	if err := c.once(&o, t, m); err != nil {
		switch ended := c.cmd.Context().Err() != nil; {
		case ended && len(c.all) == 0:
			return err
		case ended:
			return fmt.Errorf("%w (%w)", err, errResumable)
		}
		return fmt.Errorf("%s by %s: %w", t.name, m.text, err)
	}
	c.all = append(c.all, o)
	if err := c.all.write(c.out); err != nil {
		return err
	}
	fmt.Fprintf(c.cmd.ErrOrStderr(), "%s by %s, seed %d, rate %g: %.1f %% (%s)\n", t.name, m.text, seed, rate, 100*o.Accuracy, split)
	return nil
}

// settings is comparison's.
func (f *compareFlags) settings() (string, error) {
	r := f.Recipe
	r.Rate, r.Seed = 0, 0
	text, err := json.Marshal(struct {
		train.Recipe
		Augment     string
		Limit, Test int
	}{r, f.augment, f.limit, f.testLimit})
	return fmt.Sprintf("%.4x", sha256.Sum256(text)), err
}

// once does a run and completes its outcome.
func (c *comparison) once(o *outcome, t task, m candidate) error {
	ctx := c.cmd.Context()
	set, err := dataset.Open(t.spec, dataset.Options{Split: dataset.Train, Limit: c.limit})
	if err != nil {
		return err
	}
	defer dataset.Close(set)
	data, test := set, set
	if o.Split == validationSplit {
		data, test, err = dataset.HoldOut(set, .25, tuningSeed)
	} else if test, err = dataset.Open(t.spec, dataset.Options{Split: dataset.Test, Limit: c.testLimit}); err == nil {
		defer dataset.Close(test)
	}
	if err != nil {
		return err
	}
	if test.Len() == 0 {
		return fmt.Errorf("%w: nothing to measure with", dataset.ErrEmpty)
	}
	opt := adapt.Options{Method: m.method, Rank: m.rank, Classes: data.Classes(), Seed: o.Seed, Batch: c.Batch}
	_, opt.Segment = data.(dataset.Segmented)
	n, err := adapt.New(c.base, opt)
	if err != nil {
		return err
	}
	o.Params, o.Base = n.Params()-n.HeadParams(), c.base.Params()-c.base.Head.Conv().Chain.Params()
	f := c.recipeFlags
	f.Recipe.Rate, f.Recipe.Seed = o.Rate, o.Seed
	if f.Kept = n.Kept(); f.Kept > 0 {
		f.Teaching, f.Temperature = lwfTeaching, lwfTemperature
	}
	job, err := f.job(c.cmd, fmt.Sprintf("%s by %s", t.name, m.text), t.spec, n.Base, n.Learner, n.Net, data, test, c.threads)
	if err != nil {
		return err
	}
	if err := teach(job, c.base); err != nil {
		return err
	}
	job.Validate, job.Resume = nil, false
	if job.Recipe.Augment == (dataset.Augment{}) && job.Recipe.Mixup == 0 && job.Teacher == nil {
		job.Cache = 1 << 30
	}
	began := usage.CPU()
	o.Memory = usage.Peak(func() { _, err = job.Run(ctx) })
	if err != nil {
		return err
	}
	o.CPU = (usage.CPU() - began) / float64(max(job.Recipe.Epochs, 1))
	net, err := n.Net()
	if err != nil {
		return err
	}
	reached, err := evaluate(c.cmd, net, test, "test", 0, c.threads)
	o.Accuracy = reached.Figure()
	return err
}

// rate is the learning rate of a model's method: the one that did best on held-out
// images, the higher of equals, which is less likely to want more steps on another task;
// or, not tuned, that of its last run.
func (all outcomes) rate(model, method string) (rate float64, tuned bool) {
	sums := map[float64][]float64{}
	for _, o := range all {
		if o.Model != model || o.Method != method {
			continue
		}
		if o.Split == validationSplit {
			sums[o.Rate] = append(sums[o.Rate], o.Accuracy)
		} else if len(sums) == 0 {
			rate = o.Rate
		}
	}
	best := -1.
	for _, r := range slices.Sorted(maps.Keys(sums)) {
		if a := average(sums[r]); a >= best {
			best, rate, tuned = a, r, true
		}
	}
	return rate, tuned
}
