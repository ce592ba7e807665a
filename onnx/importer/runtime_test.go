package importer

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/lowrank-go/lowrank/internal/realdata"
	"github.com/lowrank-go/lowrank/onnx"
)

// random is the input that testdata/ort.mjs makes.
func random(dims []int) *tensor {
	n := 1
	for _, d := range dims {
		n *= d
	}
	t := &tensor{dims, make([]float32, n)}
	x := uint32(12345)
	for i := range t.data {
		x = (x*1103515245 + 12345) & 0x7fffffff
		t.data[i] = float32(float64(x)/0x7fffffff*2 - 1)
	}
	return t
}

// runtimeOutputs are ONNX Runtime's.
func runtimeOutputs(t *testing.T, path string, dims []int) []*tensor {
	t.Helper()
	modules := os.Getenv("LOWRANK_ORT")
	if modules == "" {
		t.Skip("set LOWRANK_ORT to a folder where `npm install onnxruntime-node` was run, to compare with ONNX Runtime")
	}
	shape, err := json.Marshal(dims)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", filepath.Join("testdata", "ort.mjs"), modules, path, string(shape))
	cmd.Stderr = os.Stderr
	b, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []struct {
		Dims []int
		Data string
	}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	var out []*tensor
	for _, o := range all {
		raw, err := base64.StdEncoding.DecodeString(o.Data)
		if err != nil {
			t.Fatal(err)
		}
		v := &tensor{o.Dims, make([]float32, len(raw)/4)}
		for i := range v.data {
			v.data[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		out = append(out, v)
	}
	return out
}

func TestNetworksOfRealModelsEqualONNXRuntime(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(realdata.Path(t, "onnx"), "*.onnx"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			m, err := onnx.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			g, err := Network(m, Options{Input: [2]int{64, 96}})
			if err != nil {
				t.Fatal(err)
			}
			dims := []int{1}
			if len(g.Nodes) > 1 && isNHWC(g) {
				dims = append(dims, g.Input[1], g.Input[2], g.Input[0])
			} else {
				dims = append(dims, g.Input...)
			}
			if path, err = filepath.Abs(path); err != nil {
				t.Fatal(err)
			}
			want := runtimeOutputs(t, path, dims)
			got, err := run(g, random(dims))
			if err != nil {
				t.Fatal(err)
			}
			for i, w := range want {
				d := worst(got[i], w)
				if !(d <= 1e-4) {
					t.Errorf("output %d differs by %.2g of its largest value", i, d)
				}
				t.Logf("%v: %.2g", w.dims, d)
			}
		})
	}
}
