package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/internal/ort"
	"github.com/lowrank-go/lowrank/onnx"
	"github.com/lowrank-go/lowrank/onnx/rewrite"
)

type benchFlags struct {
	runtime string
	ort     string
	threads int
	seconds float64
	size    int
	json    bool
}

func newBench() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench MODEL.onnx [OTHER.onnx...] --runtime onnxruntime",
		Short: "Time ONNX models where others run them",
		Long: `Times ONNX models, which have the same inputs and outputs, in ONNX Runtime, and says how
far the others' outputs are from the first one's. The runtime is npm's onnxruntime-node,
run by the node program:

  npm install onnxruntime-node

It is looked for in --ort DIR, or in NODE_PATH and the node_modules of this folder and
those above it. The models run in turns; of each the least wall time is reported and the
median of processor time, which other programs on the machine disturb least.

Where a model's initializers are inputs too the runtime cannot prepare them. Such a first
model is timed as it is and without them, and gains are over the quicker of both.`,
		Example: `  lowrank compress net.onnx --rank ratio=0.4 --clean -o small.onnx
  lowrank bench net.onnx small.onnx --runtime onnxruntime --ort ~/ort`,
		Args: atLeast(1, "one or more ONNX models"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.runtime, "runtime", "onnxruntime", "what runs the models: onnxruntime")
	fl.StringVar(&f.ort, "ort", "", "folder where onnxruntime-node is installed")
	fl.IntVar(&f.threads, "threads", 1, "threads to use")
	fl.Float64Var(&f.seconds, "seconds", 2, "how long each model is timed")
	fl.IntVar(&f.size, "input-size", rewrite.DefaultSize, "what dimensions of inputs that a model leaves open are, but for the first, which is 1")
	fl.BoolVar(&f.json, "json", false, "print one JSON object on standard output and nothing else there")
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
	switch {
	case f.runtime != "onnxruntime":
		return usagef("--runtime %q; want onnxruntime", f.runtime)
	case f.threads < 1 || f.size < 1 || !(f.seconds > 0):
		return usagef("--threads %d, --input-size %d, --seconds %g; want numbers above 0", f.threads, f.size, f.seconds)
	}
	rt, err := ort.Find(f.ort)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lowrank-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cleaned, err := cleanedCopy(paths[0], dir)
	if err != nil {
		return err
	}
	models := []string{paths[0]}
	if cleaned != "" {
		models = append(models, cleaned)
	}
	models = append(models, paths[1:]...)
	got, err := rt.Run(cmd.Context(), ort.Request{Models: models, Size: f.size, Threads: f.threads, Seconds: f.seconds})
	if err != nil {
		return err
	}
	base := got[0]
	if cleaned != "" && got[1].Min < base.Min {
		base = got[1]
	}
	r := benchReport{Runtime: f.runtime, Threads: f.threads}
	for i, o := range got {
		b := benchResult{Outcome: o, Gain: base.Min / o.Min, CPUGain: base.CPU / o.CPU}
		if b.Cleaned = cleaned != "" && i == 1; b.Cleaned {
			b.Model = got[0].Model
		}
		r.Models = append(r.Models, b)
	}
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
