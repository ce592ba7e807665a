package peft

import (
	"flag"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/model"
)

var writeRecompute = flag.Bool("recompute.write", false, "write testdata/recompute again, for testdata/recompute.py")

const recomputeDir = "testdata/recompute"

// recomputeSites are the layers of the network of testdata/recompute.
var recomputeSites = []Site{
	{Name: "layer1.0.conv1", Shape: [4]int{8, 6, 3, 3}, Geometry: conv.Geometry{Padding: [2]int{1, 1}}},
	{Name: "layer1.0.conv2", Shape: [4]int{8, 8, 3, 3}, Geometry: conv.Geometry{Padding: [2]int{1, 1}}},
	{Name: "layer2.0.conv1", Shape: [4]int{12, 8, 3, 3}, Geometry: conv.Geometry{Stride: [2]int{2, 2}, Padding: [2]int{1, 1}}},
	{Name: "layer2.0.conv2", Shape: [4]int{12, 12, 3, 3}, Geometry: conv.Geometry{Padding: [2]int{1, 1}}},
	{Name: "layer2.0.downsample.0", Shape: [4]int{12, 8, 1, 1}, Geometry: conv.Geometry{Stride: [2]int{2, 2}}},
	{Name: "fc", Shape: [4]int{5, 12, 1, 1}, Linear: true},
}

func recomputeBase(rng *rand.Rand) *model.StateDict {
	sd := model.NewStateDict()
	for _, s := range recomputeSites {
		n := s.Shape[0] * s.Shape[1] * s.Shape[2] * s.Shape[3]
		w := make([]float32, n)
		for i := range w {
			w[i] = float32(rng.NormFloat64())
		}
		sd.Set(s.Name+".weight", &model.Tensor{Shape: s.shape(s.Shape[:]...), Data: w})
	}
	return sd
}

// recomputeCases are the adapters that are written: by name, a change for some sites.
// Names that end in .safetensors are LyCORIS files, others directories of PEFT's.
var recomputeCases = map[string][]Spec{
	"peft-lora": {{Kind: LoRA, Rank: []int{3}, Scale: .5}, {Kind: CP, Rank: []int{4}, Scale: 2}, {Kind: TKDCPD, Rank: []int{3, 4, 5}}, {Kind: Tucker4, Rank: []int{2, 3, 2, 3}, Scale: .3},
		{Kind: LoRA, Rank: []int{2}, Scale: 1. / 3}, {Kind: LoRA, Rank: []int{1}}},
	"peft-dora": {{Kind: LoRA, Rank: []int{3}, Scale: .5, DoRA: true}, {Kind: Tucker2, Rank: []int{2, 2}, DoRA: true}, {Kind: Spatial, Rank: []int{2}, DoRA: true}, {Kind: LoRAView, Rank: []int{1}, DoRA: true},
		{Kind: LoRA, Rank: []int{2}, DoRA: true}, {Kind: LoRA, Rank: []int{1}, DoRA: true}},
	"peft-loha": {{Kind: LoHa, Rank: []int{3}, Scale: .5}, {Kind: LoHa, Rank: []int{2}}},
	"peft-lokr": {{Kind: LoKr, Rank: []int{1}, Scale: 2}, {Kind: LoKr, Rank: []int{1}}},
	"lycoris.safetensors": {{Kind: LoRA, Rank: []int{3}, Scale: .5}, {Kind: Tucker2, Rank: []int{3, 3}, Scale: 2}, {Kind: LoHa, Rank: []int{2}, Mid: true, Scale: .1}, {Kind: LoKr, Rank: []int{2}, Mid: true},
		{Kind: Full}, {Kind: LoRA, Rank: []int{2}, DoRA: true, Scale: 3}},
	"lycoris-whole.safetensors": {{Kind: LoKr, Scale: .7}, {Kind: LoKr, Rank: []int{1}, Split: [2]int{4, 2}}, {Kind: Spatial, Rank: []int{2}}, {Kind: LoRAView, Rank: []int{1}, Scale: .3}},
}

func recomputeAdapter(t testing.TB, rng *rand.Rand, specs []Spec) *Adapter {
	a := &Adapter{}
	for i, s := range specs {
		site := recomputeSites[i]
		s.Shape, s.Geometry = site.Shape, site.Geometry
		d, err := New(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range d.Factors() {
			for j := range f.Value {
				f.Value[j] = float32(rng.NormFloat64()) / 2
				if f.Name == "magnitude" {
					f.Value[j] = 1 + float32(math.Abs(float64(f.Value[j])))
				}
			}
		}
		a.Modules = append(a.Modules, Module{site.Name, site.Linear, d})
	}
	return a
}

// The merged kernels of files that this package wrote are those that a program in NumPy
// and PyTorch, which knows only the published formulas, computes from them; and files
// that that program wrote in the published layouts merge to the kernels that it has.
// testdata/recompute.py is the program; it ran once, over what -recompute.write left.
func TestRecomputedByOthers(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	base := recomputeBase(rng)
	if *writeRecompute {
		if err := os.RemoveAll(recomputeDir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(recomputeDir, "ours"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := model.WriteSafetensors(filepath.Join(recomputeDir, "base.safetensors"), base); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(recomputeCases)) {
		path := filepath.Join(recomputeDir, "ours", name)
		a := recomputeAdapter(t, rng, recomputeCases[name])
		if *writeRecompute {
			writeAs(t, path, a)
			continue
		}
		// What is written today is what was written then, so that the program's
		// numbers still speak for it; tensors may have come since.
		again := filepath.Join(t.TempDir(), name)
		writeAs(t, again, a)
		stillThere(t, name, tensorsOf(t, again), tensorsOf(t, path))
	}
	if *writeRecompute {
		t.Log("now run python3 recompute.py recompute in testdata")
		return
	}
	written, err := model.ReadFile(filepath.Join(recomputeDir, "base.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	stillThere(t, "base", base, written)
	checkRecomputed(t, base)
}

func checkRecomputed(t *testing.T, base *model.StateDict) {
	expected, err := model.ReadFile(filepath.Join(recomputeDir, "expected.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	merged := map[string]*model.StateDict{}
	cases := 0
	for _, full := range expected.Names() {
		side, rest, _ := strings.Cut(full, "/")
		name, tensor, _ := strings.Cut(rest, "/")
		key := side + "/" + name
		if merged[key] == nil {
			cases++
			out, err := Add(base, []float64{1}, readAs(t, filepath.Join(recomputeDir, side, name)))
			if err != nil {
				t.Fatalf("%s: %v", key, err)
			}
			merged[key] = out
		}
		got, ok := merged[key].Get(tensor)
		if !ok {
			t.Fatalf("%s: no tensor %q", key, tensor)
		}
		x, err := got.Float64s()
		if err != nil {
			t.Fatal(err)
		}
		e, _ := expected.Get(full)
		want, err := e.Float64s()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Shape, e.Shape) {
			t.Fatalf("%s: shape %v, want %v", full, got.Shape, e.Shape)
		}
		var num, den float64
		for i, v := range want {
			num += (x[i] - v) * (x[i] - v)
			den += v * v
		}
		if r := math.Sqrt(num / den); !(r < 5e-7) {
			t.Errorf("%s: differs by %g", full, r)
		}
	}
	if cases != len(recomputeCases)+5 {
		t.Errorf("%d cases, want those of ours, %d, and 5 of theirs", cases, len(recomputeCases))
	}
}

func writeAs(t *testing.T, path string, a *Adapter) {
	t.Helper()
	if !strings.HasSuffix(path, ".safetensors") {
		if err := WritePEFT(path, a, ""); err != nil {
			t.Fatal(err)
		}
		return
	}
	sd, err := EncodeLyCORIS(a, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := model.WriteSafetensors(path, sd); err != nil {
		t.Fatal(err)
	}
}

func readAs(t *testing.T, path string) *Adapter {
	t.Helper()
	var a *Adapter
	var err error
	if strings.HasSuffix(path, ".safetensors") {
		a, err = DecodeLyCORIS(tensorsOf(t, path), recomputeSites, "")
	} else {
		a, err = ReadPEFT(path, recomputeSites)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func tensorsOf(t *testing.T, path string) *model.StateDict {
	t.Helper()
	if !strings.HasSuffix(path, ".safetensors") {
		path = filepath.Join(path, peftTensors)
	}
	sd, err := model.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sd
}

func stillThere(t *testing.T, name string, now, then *model.StateDict) {
	t.Helper()
	for _, n := range then.Names() {
		was, _ := then.Get(n)
		is, ok := now.Get(n)
		if !ok || !slices.Equal(was.Shape, is.Shape) || !reflect.DeepEqual(was.Data, is.Data) {
			t.Errorf("%s: %q is not written as it was", name, n)
		}
	}
}
