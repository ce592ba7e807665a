package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/lowrank-go/lowrank/adapt"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/resnet"
	"github.com/lowrank-go/lowrank/train"
)

// task is data to adapt to, and the network to adapt.
type task struct {
	name, checkpoint, data string
}

// tasks of the comparison. Paths are below the folder of -data.
var tasks = []task{
	{"digits", "", "glyphs:digits,train=2000,test=1000"},
	{"shapes", "", "glyphs:shapes,train=2000,test=1000"},
	{"inverted", "", "glyphs:inverted,train=2000,test=1000"},
	{"mnist", "checkpoints/resnet20-12fca82f.th", "idx:mnist"},
	{"kmnist", "checkpoints/resnet20-12fca82f.th", "idx:kmnist"},
	{"omniglot", "checkpoints/resnet20-12fca82f.th", "folder:omniglot/images_background_small1.zip,holdout=0.25"},
	{"cifar-jpeg", "checkpoints/resnet20-12fca82f.th", "folder:cifar10_jpg_train.zip,holdout=0.1"},
}

// The methods; one with a rank other than its own has it behind a colon.
var adaptMethods = []adapt.Method{
	adapt.Head, adapt.Bias, adapt.BN, "lora", "cp", "tucker", "tkdcpd", "residual-parallel", "residual-serial", "conv1d",
	"cp:8", adapt.Full, adapt.Scratch, "residual-serial-bn", "bottleneck", "chapter", "lora-view", "loha", "lokr",
}

// extra are methods that are run last.
const extra = 6

// outcome is a run, as a line of JSON.
type outcome struct {
	Task     string  `json:"task"`
	Method   string  `json:"method"`
	Seed     uint64  `json:"seed"`
	Rate     float64 `json:"rate"`
	Params   int     `json:"params"` // trained, beside the head
	Base     int     `json:"base"`   // of the network, beside the head
	Accuracy float64 `json:"accuracy"`
	CPU      float64 `json:"cpu_seconds"` // an epoch
	Memory   float64 `json:"memory_mib"`  // the process's peak
}

// What every run has: 2000 images, 5 epochs of batches of 64, Adam, no augmentation.
const (
	adaptImages = 2000
	adaptTests  = 1000
	adaptEpochs = 5
	adaptBatch  = 64
	adaptRate   = 1e-2
)

// adapts adapts a network to each task by each method and prints the table. Each run's
// outcome is a line of the file -out, and those that are there are not run again.
func adapts(o options) error {
	done, err := outcomes(o.out)
	if err != nil {
		return err
	}
	for round := range 2 * o.seeds {
		seed, methods := uint64(round%o.seeds)+1, adaptMethods[:len(adaptMethods)-extra]
		if round >= o.seeds {
			methods = adaptMethods
		}
		for _, t := range tasks {
			for _, m := range methods {
				if !strings.Contains(t.name+" "+string(m), o.only) || slices.ContainsFunc(done, func(d outcome) bool {
					return d.Task == t.name && d.Method == string(m) && d.Seed == seed
				}) {
					continue
				}
				r, err := adaptOnce(o, t, m, seed)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", t.name, m, err)
				}
				done = append(done, *r)
				if err := appendLine(o.out, r); err != nil {
					return err
				}
				fmt.Fprintf(os.Stderr, "%s %s %d: %.1f %%\n", t.name, m, seed, 100*r.Accuracy)
			}
		}
	}
	return adaptTable(done)
}

func outcomes(path string) ([]outcome, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []outcome
	for s := bufio.NewScanner(f); s.Scan(); {
		var r outcome
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, r)
	}
	return all, nil
}

func appendLine(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	return errors.Join(err, f.Close())
}

func adaptOnce(o options, t task, m adapt.Method, seed uint64) (*outcome, error) {
	ctx := context.Background()
	base, err := resnet.Embedded()
	if t.checkpoint != "" {
		var sd *model.StateDict
		if sd, err = model.ReadFile(filepath.Join(o.data, t.checkpoint)); err != nil {
			return nil, err
		}
		base, err = resnet.Load(sd, resnet.Options{})
	}
	if err != nil {
		return nil, err
	}
	spec := t.data
	if kind, path, _ := strings.Cut(spec, ":"); kind != "glyphs" {
		spec = kind + ":" + filepath.Join(o.data, path)
	}
	data, err := dataset.Open(spec, dataset.Options{Split: dataset.Train, Limit: adaptImages})
	if err != nil {
		return nil, err
	}
	defer dataset.Close(data)
	test, err := dataset.Open(spec, dataset.Options{Split: dataset.Test, Limit: adaptTests})
	if err != nil {
		return nil, err
	}
	defer dataset.Close(test)
	opt := adapt.Options{Method: m, Classes: data.Classes(), Seed: seed, Batch: adaptBatch}
	if name, rank, ok := strings.Cut(string(m), ":"); ok {
		r, err := strconv.Atoi(rank)
		if err != nil {
			return nil, err
		}
		opt.Method, opt.Rank = adapt.Method(name), []int{r}
	}
	n, err := adapt.New(base, opt)
	if err != nil {
		return nil, err
	}
	job := &train.Job{
		Learner: n.Learner, Data: data, Preprocess: n.Base.Preprocess, Workers: o.threads, Cache: 1 << 30,
		Recipe: train.Recipe{Epochs: adaptEpochs, Batch: adaptBatch, Optimiser: train.Adam, Rate: adaptRate, Warmup: .6, Seed: seed},
	}
	r := &outcome{Task: t.name, Method: string(m), Seed: seed, Rate: adaptRate, Base: base.Params() - base.Head.Chain.Params()}
	head := n.Base.Head.Chain.Params()
	r.Params = n.Params() - head
	began := cpuSeconds()
	var failed error
	r.Memory = peakMemory(func() { _, failed = job.Run(ctx) })
	if failed != nil {
		return nil, failed
	}
	r.CPU = (cpuSeconds() - began) / adaptEpochs
	net, err := n.Net()
	if err != nil {
		return nil, err
	}
	p, err := net.Compile()
	if err != nil {
		return nil, err
	}
	score, err := resnet.Evaluate(ctx, p, test, resnet.EvalOptions{Workers: o.threads})
	r.Accuracy = score.Accuracy()
	return r, err
}

// adaptTable prints, for each method, the mean over seeds and the spread (the greatest
// less the least, where there are several) of the accuracy on each task, the mean over
// tasks, the decathlon score with full fine-tuning for reference, and the costs relative
// to it.
func adaptTable(all []outcome) error {
	of := func(task, method string) (accuracies, cpu, memory []float64, params, base int) {
		for _, r := range all {
			if r.Task == task && r.Method == method {
				accuracies = append(accuracies, 100*r.Accuracy)
				cpu, memory = append(cpu, r.CPU), append(memory, r.Memory)
				params, base = r.Params, r.Base
			}
		}
		return
	}
	fmt.Print("| method | parameters |")
	for _, t := range tasks {
		fmt.Printf(" %s |", t.name)
	}
	fmt.Print(" mean | S | CPU time | memory |\n| --- | ---: |" + strings.Repeat(" ---: |", len(tasks)+4) + "\n")
	for _, m := range adaptMethods {
		row, share := "", 0.
		var means, reference []float64
		var times, memories mean
		for _, t := range tasks {
			a, cpu, memory, params, base := of(t.name, string(m))
			fa, fcpu, fmemory, _, _ := of(t.name, string(adapt.Full))
			if len(a) == 0 || len(fa) == 0 {
				row += " |"
				continue
			}
			share = 100 * float64(params) / float64(base)
			cell := fmt.Sprintf(" %.1f", average(a))
			if len(a) > 1 {
				cell += fmt.Sprintf(" (%.1f)", slices.Max(a)-slices.Min(a))
			}
			row += cell + " |"
			means, reference = append(means, average(a)/100), append(reference, average(fa)/100)
			times.add(median(cpu)/median(fcpu), t.name)
			memories.add(median(memory)/median(fmemory), t.name)
		}
		if len(means) == 0 {
			continue
		}
		s := ""
		if len(means) == len(tasks) {
			v, err := peft.DecathlonScore(means, reference)
			if err != nil {
				return err
			}
			s = fmt.Sprintf("%.0f", v)
		}
		fmt.Printf("| `%s` | %.1f %% |%s %.1f | %s | %.2f | %.2f |\n", m, share, row, 100*average(means), s,
			math.Exp(times.logs/float64(times.n)), math.Exp(memories.logs/float64(memories.n)))
	}
	return nil
}

func average(v []float64) float64 {
	var s float64
	for _, x := range v {
		s += x
	}
	return s / float64(len(v))
}
