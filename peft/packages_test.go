package peft

import (
	"encoding/json"
	"flag"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/model"
)

var writePackages = flag.Bool("packages.write", false, "keep what the packages write in testdata/packages/theirs")

const packagesDir = "testdata/packages"

// loralibAlpha is the α of testdata/packages/theirs.py, which loralib's files lack.
const loralibAlpha = 3

// packagesBase is the network of testdata/packages/smallnet.py.
func packagesBase() *model.StateDict {
	rng := rand.New(rand.NewPCG(7, 7))
	sd := recomputeBase(rng)
	for _, name := range []string{"bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var", "fc.bias"} {
		w := make([]float32, 6)
		if name == "fc.bias" {
			w = w[:5]
		}
		for i := range w {
			w[i] = float32(rng.NormFloat64())
			if name == "bn1.running_var" {
				w[i] = .5 + float32(math.Abs(float64(w[i])))
			}
		}
		sd.Set(name, &model.Tensor{Shape: []int{len(w)}, Data: w})
	}
	return sd
}

// packagesCases are the adapters that the packages are given, beside recomputeCases.
var packagesCases = map[string][]Spec{
	"peft-head": {{Kind: LoRA, Rank: []int{2}}},
	"peft-lokr-factor": {{Kind: LoKr, Rank: []int{1}, Split: [2]int{2, 2}, Scale: 3}, {Kind: LoKr, Rank: []int{1}, Split: [2]int{2, 2}},
		{Kind: LoKr, Rank: []int{1}, Split: [2]int{2, 2}}},
	"peft-lokr-effective":       {{Kind: LoKr, Rank: []int{1}, Mid: true}, {Kind: LoKr, Rank: []int{1}, Mid: true, Scale: .3}},
	"peft-lokr-whole":           {{Kind: LoKr, Scale: 2}, {Kind: LoKr}, {Kind: LoKr, Scale: .1}},
	"peft-loha-effective":       {{Kind: LoHa, Rank: []int{2}, Mid: true, Scale: .5}, {Kind: LoHa, Rank: []int{3}, Mid: true}},
	"lycoris-dora.safetensors":  {{Kind: LoRA, Rank: []int{3}, DoRA: true, Scale: .5}, {Kind: LoHa, Rank: []int{2}, DoRA: true}, {Kind: LoKr, Rank: []int{1}, DoRA: true, Scale: 2}, {Kind: Tucker2, Rank: []int{2, 2}, DoRA: true}, {Kind: LoRA, Rank: []int{1}, DoRA: true}, {Kind: LoRA, Rank: []int{2}, DoRA: true}},
	"lycoris-core.safetensors":  {{Kind: LoKr, Rank: []int{1}, Mid: true, Scale: .5}, {Kind: LoKr, Rank: []int{1}, Mid: true}},
	"lycoris-small.safetensors": {{Kind: LoKr, Rank: []int{1}, Scale: .5}, {Kind: LoHa, Rank: []int{2}, Mid: true, Scale: .3}, {Kind: LoKr, Rank: []int{1}, Both: true}, {Kind: LoKr, Scale: .7}, {Kind: Full}, {Kind: LoHa, Rank: []int{2}}},
	"loralib.safetensors": {{Kind: LoRAView, Rank: []int{2}, Scale: 1.5}, {Kind: LoRAView, Rank: []int{2}, Scale: 1.5}, {Kind: LoRAView, Rank: []int{2}, Scale: 1.5},
		{Kind: LoRAView, Rank: []int{2}, Scale: 1.5}, {Kind: LoRA, Rank: []int{2}, Scale: 1.5}, {Kind: LoRA, Rank: []int{2}, Scale: 1.5}},
}

func writePackageCase(t *testing.T, path string, a *Adapter) {
	t.Helper()
	if !strings.HasPrefix(filepath.Base(path), "loralib") {
		writeAs(t, path, a)
		return
	}
	sd, err := EncodeLoralib(a, loralibAlpha)
	if err != nil {
		t.Fatal(err)
	}
	if err := model.WriteSafetensors(path, sd); err != nil {
		t.Fatal(err)
	}
}

func readPackageCase(t *testing.T, path string) *Adapter {
	t.Helper()
	if !strings.HasPrefix(filepath.Base(path), "loralib") {
		return readAs(t, path)
	}
	sd, err := model.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	a, err := DecodeLoralib(sd, recomputeSites, loralibAlpha)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// The packages themselves, PEFT, LyCORIS and loralib, load what this package wrote and
// compute with it what it computed, and it reads what they write.
//
// LOWRANK_PACKAGES lists the folders of their sources, as PYTHONPATH does; PYTHON is the
// interpreter, python3 where it is not set. With -packages.write their files are kept,
// for TestReadsPackages.
func TestPackages(t *testing.T) {
	sources := os.Getenv("LOWRANK_PACKAGES")
	if sources == "" {
		t.Skip("LOWRANK_PACKAGES does not name the folders of the packages' sources, such as peft/src:LyCORIS:LoRA")
	}
	dir := t.TempDir()
	base := packagesBase()
	if err := model.WriteSafetensors(filepath.Join(dir, "base.safetensors"), base); err != nil {
		t.Fatal(err)
	}
	cases := maps.Clone(recomputeCases)
	maps.Copy(cases, packagesCases)
	rng := rand.New(rand.NewPCG(8, 8))
	for _, sub := range []string{"ours", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		a := recomputeAdapter(t, rng, cases[name])
		if name == "peft-head" {
			a.Extra = model.NewStateDict()
			for _, n := range []string{"bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var", "fc.weight", "fc.bias"} {
				w, _ := base.Get(n)
				data := slices.Clone(w.Data.([]float32))
				for i := range data {
					data[i] += rng.Float32()
				}
				a.Extra.Set(n, &model.Tensor{Shape: w.Shape, Data: data})
			}
		}
		writePackageCase(t, filepath.Join(dir, "ours", name), a)
		merged, err := Add(base, []float64{1}, a)
		if err != nil {
			t.Fatal(err)
		}
		if err := model.WriteSafetensors(filepath.Join(dir, "merged", name+".safetensors"), merged); err != nil {
			t.Fatal(err)
		}
	}
	report := runPackages(t, dir, sources)
	for package_, version := range report.Versions {
		t.Logf("%s %s", package_, version)
	}
	for side, results := range map[string]map[string]map[string]float64{"ours": report.Ours, "theirs": report.Theirs} {
		for _, name := range slices.Sorted(maps.Keys(results)) {
			t.Logf("%s/%s: %v", side, name, results[name])
			for what, d := range results[name] {
				limit := 2e-6
				if !(d < limit) {
					t.Errorf("%s/%s: %s differ by %g", side, name, what, d)
				}
			}
		}
	}
	checkPackages(t, filepath.Join(dir, "theirs"), filepath.Join(dir, "expected.safetensors"))
	if *writePackages && !t.Failed() {
		keepPackages(t, dir)
	}
}

type packagesReport struct {
	Versions     map[string]string
	Ours, Theirs map[string]map[string]float64
}

func runPackages(t *testing.T, dir, sources string) *packagesReport {
	t.Helper()
	python := os.Getenv("PYTHON")
	if python == "" {
		python = "python3"
	}
	cmd := exec.Command(python, filepath.Join(packagesDir, "check.py"), dir)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+sources, "PYTHONDONTWRITEBYTECODE=1", "OMP_NUM_THREADS=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var report packagesReport
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	return &report
}

// Files that PEFT, LyCORIS and loralib wrote, of random values, merge to the kernels by
// which the packages' own layers computed.
func TestReadsPackages(t *testing.T) {
	checkPackages(t, filepath.Join(packagesDir, "theirs"), filepath.Join(packagesDir, "expected.safetensors"))
}

func checkPackages(t *testing.T, dir, expectedFile string) {
	t.Helper()
	expected, err := model.ReadFile(expectedFile)
	if err != nil {
		t.Fatal(err)
	}
	base := packagesBase()
	merged := map[string]*model.StateDict{}
	worst := 0.
	for _, full := range expected.Names() {
		i := strings.LastIndex(full, "/")
		name, tensor := full[:i], full[i+1:]
		if merged[name] == nil {
			out, err := Add(base, []float64{1}, readPackageCase(t, filepath.Join(dir, name)))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			merged[name] = out
			for _, n := range out.Names() {
				was, _ := base.Get(n)
				is, _ := out.Get(n)
				if _, ok := expected.Get(name + "/" + n); !ok && was != nil && !slices.Equal(was.Data.([]float32), is.Data.([]float32)) {
					t.Errorf("%s: %s changes here and not there", name, n)
				}
			}
		}
		got, ok := merged[name].Get(tensor)
		if !ok {
			t.Fatalf("%s: no tensor %q", name, tensor)
		}
		want, _ := expected.Get(full)
		if !slices.Equal(got.Shape, want.Shape) {
			t.Fatalf("%s: shape %v, want %v", full, got.Shape, want.Shape)
		}
		r := relative(got.Data.([]float32), want.Data.([]float32))
		worst = max(worst, r)
		if !(r < 2e-6) {
			t.Errorf("%s: differs by %g", full, r)
		}
	}
	t.Logf("%d adapters, at most %.2g apart", len(merged), worst)
}

// keepPackages takes what the packages wrote into the test data.
func keepPackages(t *testing.T, dir string) {
	if err := os.RemoveAll(filepath.Join(packagesDir, "theirs")); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		if err != nil || e.IsDir() || !strings.HasPrefix(rel, "theirs") && rel != "expected.safetensors" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		to := filepath.Join(packagesDir, rel)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, data, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}
