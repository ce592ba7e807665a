// Package ortest runs ONNX models in ONNX Runtime, from the npm package onnxruntime-node, so
// that tests can compare with it. Tests that use it are skipped where node or the package
// is absent; LOWRANK_ORT names the folder whose node_modules has the package.
package ortest

import (
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/ort"
)

//go:embed run.mjs
var script []byte

// Tensor is an output of a model.
type Tensor struct {
	Name string
	Dims []int
	Data []float32
}

// Dir is the folder whose node_modules has onnxruntime-node. The test is skipped where
// there is none.
func Dir(tb testing.TB) string {
	tb.Helper()
	cache, _ := os.UserCacheDir()
	for _, dir := range []string{os.Getenv("LOWRANK_ORT"), filepath.Join(cache, "lowrank", "ort")} {
		if dir == "" {
			continue
		}
		if _, err := ort.Find(dir); err == nil {
			return dir
		}
	}
	tb.Skip("node or onnxruntime-node is not installed; set LOWRANK_ORT to the folder where npm installed it")
	return ""
}

// Run runs the model in a file on the maps, which go to its inputs in order as N×C×H×W, and
// returns its outputs in order.
func Run(tb testing.TB, model string, inputs ...*conv.Map) []Tensor {
	tb.Helper()
	dir := Dir(tb)
	// The script must lie where node finds the package.
	path := filepath.Join(dir, "lowrank-ortest.mjs")
	if have, err := os.ReadFile(path); err != nil || string(have) != string(script) {
		if err := os.WriteFile(path, script, 0o666); err != nil {
			tb.Skipf("the script cannot be put beside onnxruntime-node: %v", err)
		}
	}
	work := tb.TempDir()
	type spec struct {
		File string `json:"file"`
		Dims []int  `json:"dims"`
	}
	var specs []spec
	for i, m := range inputs {
		data := make([]byte, 0, 4*len(m.Data))
		for n := range m.N {
			for c := range m.C {
				for p := range m.H * m.W {
					data = binary.LittleEndian.AppendUint32(data, math.Float32bits(m.Data[(n*m.H*m.W+p)*m.C+c]))
				}
			}
		}
		file := filepath.Join(work, "input"+string(rune('0'+i)))
		if err := os.WriteFile(file, data, 0o666); err != nil {
			tb.Fatal(err)
		}
		specs = append(specs, spec{file, []int{m.N, m.C, m.H, m.W}})
	}
	text, err := json.Marshal(specs)
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command("node", path, model, filepath.Join(work, "output"), string(text))
	out, err := cmd.Output()
	if err != nil {
		var said []byte
		if e, ok := err.(*exec.ExitError); ok {
			said = e.Stderr
		}
		tb.Fatalf("ONNX Runtime on %s: %v\n%s", model, err, said)
	}
	var tensors []Tensor
	if err := json.Unmarshal(out, &tensors); err != nil {
		tb.Fatalf("ONNX Runtime on %s: %v", model, err)
	}
	data, err := os.ReadFile(filepath.Join(work, "output"))
	if err != nil {
		tb.Fatal(err)
	}
	for i := range tensors {
		n := 1
		for _, d := range tensors[i].Dims {
			n *= d
		}
		tensors[i].Data = make([]float32, n)
		for j := range n {
			tensors[i].Data[j] = math.Float32frombits(binary.LittleEndian.Uint32(data))
			data = data[4:]
		}
	}
	return tensors
}
