// Package ort runs models in ONNX Runtime, as npm's onnxruntime-node has it, through the
// node program: to compare a rewritten model with its original, and to time both where
// others run them. Nothing of it is linked in.
package ort

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrAbsent is wrapped where node or onnxruntime-node is not on the machine.
var ErrAbsent = errors.New("ONNX Runtime is not here")

// Runtime is where node and the package are.
type Runtime struct {
	node    string
	modules string // the folder node_modules
}

const pkg = "onnxruntime-node"

// Find looks for onnxruntime-node in dir, its node_modules, the folders of NODE_PATH, and
// the node_modules of the working folder and those above it. dir may be empty.
func Find(dir string) (*Runtime, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	var folders []string
	if dir != "" {
		folders = []string{dir, filepath.Join(dir, "node_modules")}
	} else {
		folders = filepath.SplitList(os.Getenv("NODE_PATH"))
		at, err := os.Getwd()
		if err != nil {
			return nil, err
		}
		for ; ; at = filepath.Dir(at) {
			folders = append(folders, filepath.Join(at, "node_modules"))
			if at == filepath.Dir(at) {
				break
			}
		}
	}
	for _, f := range folders {
		if _, err := os.Stat(filepath.Join(f, pkg, "package.json")); err == nil {
			return &Runtime{node, f}, nil
		}
	}
	where := "NODE_PATH and node_modules"
	if dir != "" {
		where = dir
	}
	return nil, fmt.Errorf("%w: no %s in %s; `npm install %s` fetches it", ErrAbsent, pkg, where, pkg)
}

//go:embed ort.cjs
var script string

// Request says what to run.
type Request struct {
	// Models are files; all are given the same inputs.
	Models []string `json:"models"`
	// Size stands for dimensions of inputs that a model leaves open, but for the first,
	// which is 1.
	Size int `json:"size"`
	// Columns stands for the fourth dimension in place of Size, where it is not 0.
	Columns int `json:"columns"`
	// Threads is the number of threads within an operator.
	Threads int `json:"threads"`
	// Seconds of timing for each model; 0 runs each once.
	Seconds float64 `json:"seconds"`
	// Levels of the runtime's graph optimisations, one a model: disabled, basic, extended or
	// all, which is the default.
	Levels []string `json:"levels,omitempty"`
}

// Outcome is what became of a model.
type Outcome struct {
	Model string `json:"model"`
	// Outputs are compared with those of the first model.
	Outputs []Output `json:"outputs"`
	// Milliseconds of one run: the least wall time and the median of processor time, of
	// runs that take turns with those of the other models.
	Min  float64 `json:"min_ms"`
	CPU  float64 `json:"cpu_ms"`
	Runs int     `json:"runs"`
	// Inputs are the shapes that were given.
	Inputs map[string][]int `json:"inputs"`
}

// Output is one of a model's results.
type Output struct {
	Name string `json:"name"`
	Dims []int  `json:"dims"`
	// Diff is the largest difference from the first model's, Top the largest value there.
	Diff float64 `json:"diff"`
	Top  float64 `json:"top"`
}

// Run runs the models.
func (r *Runtime) Run(ctx context.Context, q Request) ([]Outcome, error) {
	for i, path := range q.Models {
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		q.Models[i] = abs
	}
	in, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, r.node, "--input-type=commonjs", "-e", script)
	cmd.Env = append(os.Environ(), "NODE_PATH="+r.modules)
	cmd.Stdin = bytes.NewReader(in)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		text := strings.TrimSpace(errs.String())
		if i := strings.Index(text, "Error: "); i >= 0 {
			text, _, _ = strings.Cut(text[i+len("Error: "):], "\n")
		}
		return nil, fmt.Errorf("ONNX Runtime: %w: %s", err, text)
	}
	var answer []Outcome
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		return nil, fmt.Errorf("ONNX Runtime's answer: %w", err)
	}
	return answer, nil
}
