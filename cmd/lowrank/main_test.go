package main

import (
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lowrank-go/lowrank/internal/realdata"
	"github.com/lowrank-go/lowrank/model"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"lowrank": func() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs testdata/script. In them $NETS holds small networks with
// random weights, $FILES what testdata/make.py made, $IMAGES a folder of images in six classes, $REAL the real
// data (scripts that need it are skipped where it is absent), and the command
// json FILE KEY… wants FILE to hold one JSON object with these keys, and the
// value where KEY=VALUE, or about that where KEY~VALUE.
func TestScripts(t *testing.T) {
	nets, err := filepath.Abs("../../zoo/testdata")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	images := t.TempDir()
	makeImages(t, images)
	var real string
	t.Run("real data", func(t *testing.T) { real = realdata.Path(t) })
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("NETS", nets)
			e.Setenv("FILES", files)
			e.Setenv("IMAGES", images)
			e.Setenv("REAL", real)
			return makeFiles(e.WorkDir)
		},
		Condition: func(cond string) (bool, error) {
			if cond == "real" {
				return real != "", nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"json": checkJSON},
	})
}

func checkJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: json FILE KEY…")
	}
	var v map[string]any
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &v); err != nil {
		ts.Fatalf("%s is not one JSON object: %v", args[0], err)
	}
	for _, key := range args[1:] {
		key, want, has := strings.Cut(key, "=")
		key, about, near := strings.Cut(key, "~")
		var at any = v
		for part := range strings.SplitSeq(key, "/") {
			switch x := at.(type) {
			case map[string]any:
				var ok bool
				if at, ok = x[part]; !ok {
					ts.Fatalf("no key %q", key)
				}
			case []any:
				var i int
				if _, err := fmt.Sscan(part, &i); err != nil || i >= len(x) {
					ts.Fatalf("no element %q of %q", part, key)
				}
				at = x[i]
			default:
				ts.Fatalf("no key %q", key)
			}
		}
		if want, err := strconv.ParseFloat(about, 64); near {
			if got, ok := at.(float64); err != nil || !ok || math.Abs(got-want) > 5e-4 {
				ts.Fatalf("%s is %v, want about %s", key, at, about)
			}
		}
		if text, _ := json.Marshal(at); has && string(text) != want {
			ts.Fatalf("%s is %s, want %s", key, text, want)
		}
	}
}

// makeImages writes six folders of three 20×20 images each.
func makeImages(t *testing.T, dir string) {
	rng := rand.New(rand.NewPCG(1, 1))
	for c := range 6 {
		sub := filepath.Join(dir, fmt.Sprintf("class%d", c))
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			m := image.NewNRGBA(image.Rect(0, 0, 32, 32))
			for p := range 32 * 32 {
				m.SetNRGBA(p%32, p/32, color.NRGBA{uint8(rng.IntN(256)), uint8(40 * c), uint8(rng.IntN(256)), 255})
			}
			f, err := os.Create(filepath.Join(sub, fmt.Sprintf("%d.png", i)))
			if err != nil {
				t.Fatal(err)
			}
			if err := png.Encode(f, m); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// makeFiles writes tensors and damaged models into dir.
func makeFiles(dir string) error {
	rng := rand.New(rand.NewPCG(2, 2))
	a, b, c := make([]float64, 6*2), make([]float64, 5*2), make([]float64, 4*2)
	for _, f := range [][]float64{a, b, c} {
		for i := range f {
			f[i] = rng.NormFloat64()
		}
	}
	x := make([]float64, 6*5*4)
	for i := range x {
		for r := range 2 {
			x[i] += a[i/20*2+r] * b[i/4%5*2+r] * c[i%4*2+r]
		}
	}
	if err := model.WriteNPY(filepath.Join(dir, "rank2.npy"), &model.Tensor{Shape: []int{6, 5, 4}, Data: x}); err != nil {
		return err
	}
	x[7] = 0
	x[7] /= x[7]
	if err := model.WriteNPY(filepath.Join(dir, "nan.npy"), &model.Tensor{Shape: []int{6, 5, 4}, Data: x}); err != nil {
		return err
	}
	known := make([]float64, len(x))
	for i := range known {
		if known[i] = 1; i == 7 {
			known[i] = 0
		}
	}
	if err := model.WriteNPY(filepath.Join(dir, "known.npy"), &model.Tensor{Shape: []int{6, 5, 4}, Data: known}); err != nil {
		return err
	}
	cyclic, huge := make([]float64, 27), make([]float64, 27)
	cyclic[5], cyclic[15], cyclic[19] = 1, 1, 1 // (0,1,2) and its rotations
	for i := range huge {
		huge[i] = 1e200 * rng.NormFloat64()
	}
	for name, x := range map[string][]float64{"cyclic.npy": cyclic, "huge.npy": huge} {
		if err := model.WriteNPY(filepath.Join(dir, name), &model.Tensor{Shape: []int{3, 3, 3}, Data: x}); err != nil {
			return err
		}
	}
	loose := model.NewStateDict()
	w := make([]float32, 12*8*9)
	for i := range w {
		w[i] = float32(i/72+1) * float32(i/9%8+1) * float32(i%9+1)
	}
	loose.Set("block.weight", &model.Tensor{Shape: []int{12, 8, 3, 3}, Data: w})
	if err := model.WriteSafetensors(filepath.Join(dir, "loose.safetensors"), loose); err != nil {
		return err
	}
	loose.Set("depthwise.weight", &model.Tensor{Shape: []int{96, 1, 3, 3}, Data: w})
	loose.Set("grouped.weight", &model.Tensor{Shape: []int{24, 4, 3, 3}, Data: w})
	return model.WriteSafetensors(filepath.Join(dir, "unclear.safetensors"), loose)
}
