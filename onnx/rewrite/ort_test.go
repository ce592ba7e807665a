package rewrite

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/compress"
	"github.com/lowrank-go/lowrank/internal/ort"
	"github.com/lowrank-go/lowrank/internal/realdata"
	"github.com/lowrank-go/lowrank/onnx"
)

// runtime is ONNX Runtime, from LOWRANK_ORT or where node finds it.
func runtime(t *testing.T) *ort.Runtime {
	t.Helper()
	r, err := ort.Find(os.Getenv("LOWRANK_ORT"))
	if err != nil {
		t.Skipf("%v; LOWRANK_ORT may name the folder", err)
	}
	return r
}

// Whole networks of exact chains, run by ONNX Runtime, give what the originals give.
func TestExactChainsOfRealNetworksChangeNoOutput(t *testing.T) {
	rt := runtime(t)
	files, err := filepath.Glob(filepath.Join(realdata.Path(t, "onnx"), "*.onnx"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no models: %v", err)
	}
	for _, path := range files {
		for _, method := range []compress.Method{compress.SVD, compress.SVDIn, compress.Spatial} {
			name := strings.TrimSuffix(filepath.Base(path), ".onnx")
			t.Run(name+"/"+string(method), func(t *testing.T) {
				m, err := onnx.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				r, err := Compress(t.Context(), m, Options{Options: compress.Options{Method: method, Rank: compress.Rank{Rule: compress.Energy, Value: 1}, Always: true}})
				if err != nil {
					t.Fatal(err)
				}
				chains := 0
				for _, l := range r.Layers {
					if l.Reason == "" {
						chains++
					}
				}
				out := filepath.Join(t.TempDir(), "out.onnx")
				if err := m.WriteFile(out); err != nil {
					t.Fatal(err)
				}
				if chains == 0 && !strings.HasPrefix(name, "light_") {
					t.Error("no chains")
				}
				size := 224
				if name == "ppocrv4_det" {
					size = 320
				}
				got, err := rt.Run(t.Context(), ort.Request{Models: []string{path, out, path}, Levels: []string{"", "", "disabled"}, Size: size, Threads: 1})
				if err != nil {
					t.Fatal(err)
				}
				for i, o := range got[1].Outputs {
					// Some networks lose more than that by the runtime's own fusions.
					bound := max(1e-4*max(o.Top, 1), 2*got[2].Outputs[i].Diff)
					if o.Diff > bound {
						t.Errorf("output %s %v differs by %g, above %g; the largest is %g", o.Name, o.Dims, o.Diff, bound, o.Top)
					}
				}
				t.Logf("%d of %d layers, %d outputs", chains, len(r.Layers), len(got[1].Outputs))
			})
		}
	}
}
