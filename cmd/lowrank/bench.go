package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/ort"
	"github.com/lowrank-go/lowrank/onnx"
	"github.com/lowrank-go/lowrank/onnx/onnxgraph"
	"github.com/lowrank-go/lowrank/onnx/rewrite"
)

// Runtimes that bench times networks in.
const (
	runtimeOwn  = "own"
	runtimeONNX = "onnxruntime"
)

type benchFlags struct {
	modelFlags
	runtime string
	ort     string
	seconds float64
	size    int
}

func newBench() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench [MODEL...]",
		Short: "Time networks side by side, here or in ONNX Runtime",
		Long: `Times one image through networks that have the same inputs and outputs, and says how far the
others' outputs are from the first one's. The networks run in turns. Of each the least
wall time is reported, which other programs on the machine can only raise, and the median
of processor time, which they disturb least.

--runtime own times them in this program. --runtime onnxruntime times ONNX models, and
other networks as the ONNX models that convert would make of them, in npm's
onnxruntime-node, run by the node program:

  npm install onnxruntime-node

It is looked for in --ort DIR, or in NODE_PATH and the node_modules of this folder and
those above it. Where an ONNX model's initializers are inputs too, the runtime cannot prepare
them. Such a first model is timed as it is and without them, and gains are over the
quicker of both.`,
		Example: `  lowrank bench resnet18.pth small.safetensors
  lowrank bench net.onnx small.onnx --runtime onnxruntime --ort ~/ort`,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	f.modelFlags.addReading(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.runtime, "runtime", "", "what runs the models: own or onnxruntime; left out, onnxruntime where --ort is given, else own")
	fl.StringVar(&f.ort, "ort", "", "folder where onnxruntime-node is installed")
	fl.IntVar(&f.threads, "threads", 1, "threads to use")
	fl.Float64Var(&f.seconds, "seconds", 2, "how long each model is timed")
	fl.IntVar(&f.size, "input-size", rewrite.DefaultSize, "what dimensions of inputs that an ONNX model leaves open are, but for the first, which is 1")
	return cmd
}

// benchReport is what bench prints with --json.
type benchReport struct {
	Runtime string        `json:"runtime"`
	Threads int           `json:"threads"`
	Models  []benchResult `json:"models"`
}

type benchResult struct {
	ort.Outcome
	// Cleaned is set for the first model without the inputs that are initializers.
	Cleaned bool `json:"cleaned,omitempty"`
	// Gain and CPUGain are how many times quicker than the first model a model is.
	Gain    float64 `json:"gain"`
	CPUGain float64 `json:"cpu_gain"`
}

func (f *benchFlags) run(cmd *cobra.Command, paths []string) error {
	if f.runtime == "" {
		f.runtime = runtimeOwn
		if f.ort != "" {
			f.runtime = runtimeONNX
		}
	}
	switch {
	case f.runtime != runtimeOwn && f.runtime != runtimeONNX:
		return usagef("--runtime %q; want own or onnxruntime", f.runtime)
	case f.runtime == runtimeOwn && f.ort != "":
		return usagef("--ort is for --runtime onnxruntime")
	case f.threads < 1 || f.size < 1 || !(f.seconds > 0) || math.IsInf(f.seconds, 1):
		return usagef("--threads %d, --input-size %d, --seconds %g; want numbers above 0", f.threads, f.size, f.seconds)
	}
	if len(paths) == 0 {
		paths = []string{embeddedName}
	}
	measure := f.own
	if f.runtime == runtimeONNX {
		measure = f.inONNXRuntime
	}
	models, err := measure(cmd.Context(), paths)
	if err != nil {
		return err
	}
	base := models[0]
	if len(models) > 1 && models[1].Cleaned && models[1].Min < base.Min {
		base = models[1]
	}
	for i := range models {
		models[i].Gain, models[i].CPUGain = base.Min/models[i].Min, base.CPU/models[i].CPU
	}
	r := benchReport{Runtime: f.runtime, Threads: f.threads, Models: models}
	if f.json {
		return printJSON(cmd.OutOrStdout(), r)
	}
	rows := [][]string{{"model", "ms", "gain", "CPU ms", "gain", "difference", "runs"}}
	for i, m := range r.Models {
		name := filepath.Base(m.Model)
		if m.Cleaned {
			name += ", cleaned"
		}
		diff, top := 0.0, 0.0
		for _, o := range m.Outputs {
			diff, top = max(diff, o.Diff), max(top, o.Top)
		}
		row := []string{name, fmt.Sprintf("%.2f", m.Min), fmt.Sprintf("%.2fx", m.Gain), fmt.Sprintf("%.2f", m.CPU), fmt.Sprintf("%.2fx", m.CPUGain),
			fmt.Sprintf("%.2g of %.3g", diff, top), fmt.Sprint(m.Runs)}
		if i == 0 {
			row[5] = "-"
		}
		rows = append(rows, row)
	}
	table(cmd.OutOrStdout(), rows)
	return nil
}

// own times networks in this program.
func (f *benchFlags) own(ctx context.Context, paths []string) ([]benchResult, error) {
	var programs []*graph.Program
	var models []benchResult
	var first []graph.Tensor
	for i, path := range paths {
		net, err := f.net(path)
		if err != nil {
			return nil, err
		}
		p, err := net.Compile()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if i > 0 && !slices.Equal(programs[0].Graph().Input, net.Input) {
			return nil, fmt.Errorf("%s takes images of %v, %s of %v; want the same (--image says which size)", path, net.Input, paths[0], programs[0].Graph().Input)
		}
		h, w, c := net.Input.Layout()
		x := conv.NewMap(1, h, w, c)
		rng := rand.New(rand.NewPCG(1, 2))
		for j := range x.Data {
			x.Data[j] = float32(rng.NormFloat64())
		}
		outs, err := p.Run(ctx, x, f.threads)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if i == 0 {
			first = outs
		}
		m := benchResult{Outcome: ort.Outcome{Model: path, Inputs: map[string][]int{"image": {1, c, h, w}}}}
		if m.Outputs, err = differences(net, outs, first); err != nil {
			return nil, fmt.Errorf("%s beside %s: %w", path, paths[0], err)
		}
		programs, models = append(programs, p), append(models, m)
	}
	budget := time.Duration(f.seconds * float64(len(programs)) * float64(time.Second))
	timings, err := eval.Latency(ctx, programs, 1, f.threads, budget)
	if err != nil {
		return nil, err
	}
	for i, t := range timings {
		models[i].Min, models[i].CPU, models[i].Runs = ms(t.Min), ms(t.CPU), t.Runs
	}
	return models, nil
}

// differences compares a network's outputs with the first network's.
func differences(net *graph.Graph, got, want []graph.Tensor) ([]ort.Output, error) {
	if len(got) != len(want) {
		return nil, fmt.Errorf("%d outputs; want %d", len(got), len(want))
	}
	var outs []ort.Output
	for i, t := range got {
		if !slices.Equal(t.Shape, want[i].Shape) {
			return nil, fmt.Errorf("output %d has shape %v; want %v", i, t.Shape, want[i].Shape)
		}
		o := ort.Output{Name: net.Outputs[i].Name, Dims: t.Shape}
		for j, v := range t.Data {
			o.Diff = max(o.Diff, math.Abs(float64(v)-float64(want[i].Data[j])))
			o.Top = max(o.Top, math.Abs(float64(want[i].Data[j])))
		}
		outs = append(outs, o)
	}
	return outs, nil
}

// inONNXRuntime times networks there, those of other formats as the ONNX models that
// convert makes of them.
func (f *benchFlags) inONNXRuntime(ctx context.Context, paths []string) ([]benchResult, error) {
	rt, err := ort.Find(f.ort)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lowrank-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	// Sizes that models leave open: networks of ours leave rows and columns so.
	rows, cols := f.size, f.size
	var models, names []string
	for i, path := range paths {
		file := path
		if !isONNXName(path) {
			net, err := f.net(path)
			if err != nil {
				return nil, err
			}
			file = filepath.Join(dir, fmt.Sprintf("%d-%s.onnx", i, strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))))
			if err := onnxgraph.WriteFile(file, net, onnxgraph.ExportOptions{}); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			if i == 0 {
				rows, cols, _ = net.Input.Layout()
			}
		}
		models, names = append(models, file), append(names, path)
	}
	cleaned := ""
	if isONNXName(paths[0]) {
		if cleaned, err = cleanedCopy(paths[0], dir); err != nil {
			return nil, err
		}
	}
	if cleaned != "" {
		models = append([]string{models[0], cleaned}, models[1:]...)
		names = append([]string{names[0], names[0]}, names[1:]...)
	}
	got, err := rt.Run(ctx, ort.Request{Models: models, Size: rows, Columns: cols, Threads: f.threads, Seconds: f.seconds})
	if err != nil {
		return nil, err
	}
	results := make([]benchResult, len(got))
	for i, o := range got {
		o.Model = names[i]
		results[i] = benchResult{Outcome: o, Cleaned: cleaned != "" && i == 1}
	}
	return results, nil
}

// cleanedCopy writes a model without inputs that are initializers too into dir, and
// returns its path, "" where it has none.
func cleanedCopy(path, dir string) (string, error) {
	m, err := onnx.Open(path)
	if err != nil {
		return "", err
	}
	defer m.Close()
	n, err := rewrite.Clean(m, true)
	if err != nil || n == 0 {
		return "", err
	}
	out := filepath.Join(dir, filepath.Base(path))
	return out, m.WriteFile(out)
}
