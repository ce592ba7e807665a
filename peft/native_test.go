package peft

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/model"
)

// network is a small base: kernels for all cases, a norm and a head.
func base(t testing.TB, specs []Spec) *model.StateDict {
	t.Helper()
	rng := seeded(40)
	sd := model.NewStateDict()
	for i, s := range specs {
		sd.Set(moduleName(i)+".weight", &model.Tensor{Shape: slices.Clone(s.Shape[:]), Data: gaussian[float32](s.kernelLen(), rng)})
	}
	for _, p := range []string{"weight", "bias", "running_mean", "running_var"} {
		sd.Set("bn1."+p, &model.Tensor{Shape: []int{4}, Data: gaussian[float32](4, rng)})
	}
	sd.Set("bn1.num_batches_tracked", &model.Tensor{Data: []int64{7}})
	sd.Set("fc.weight", &model.Tensor{Shape: []int{10, 4}, Data: gaussian[float32](40, rng)})
	return sd
}

func moduleName(i int) string {
	return "layer1." + string(rune('a'+i%26)) + string(rune('a'+i/26)) + ".conv1"
}

func sitesOf(specs []Spec) []Site {
	var sites []Site
	for i, s := range specs {
		sites = append(sites, Site{Name: moduleName(i), Shape: s.Shape, Geometry: s.Geometry, Linear: s.Shape[2]*s.Shape[3] == 1})
	}
	return sites
}

func adapterOf(t testing.TB, name string, specs []Spec, rng *rand.Rand) *Adapter {
	t.Helper()
	a := &Adapter{Name: name, Norm: NormAffineStats, Extra: model.NewStateDict()}
	for i, s := range sitesOf(specs) {
		d, err := New(specs[i])
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range d.Factors() {
			fill(f.Value, rng)
		}
		a.Modules = append(a.Modules, Module{s.Name, s.Linear, d})
	}
	for _, p := range []string{"weight", "bias", "running_mean", "running_var"} {
		a.Extra.Set("bn1."+p, &model.Tensor{Shape: []int{4}, Data: gaussian[float32](4, rng)})
	}
	a.Extra.Set("bn1.num_batches_tracked", &model.Tensor{Data: []int64{99}})
	a.Extra.Set("fc.weight", &model.Tensor{Shape: []int{3, 4}, Data: gaussian[float32](12, rng)})
	return a
}

// merged is the base with an adapter, kernel by kernel.
func mergedWith(t testing.TB, sd *model.StateDict, a *Adapter) *model.StateDict {
	t.Helper()
	m, err := Add(sd, []float64{1}, a)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// sameTensors reports the first difference of two state dicts above tol.
func sameTensors(t testing.TB, got, want *model.StateDict, tol float64) {
	t.Helper()
	for _, name := range want.Names() {
		w, _ := want.Get(name)
		g, ok := got.Get(name)
		if !ok || !slices.Equal(g.Shape, w.Shape) {
			t.Fatalf("%s is missing or of another shape", name)
		}
		a, err := g.Float64s()
		if err != nil {
			t.Fatal(err)
		}
		b, err := w.Float64s()
		if err != nil {
			t.Fatal(err)
		}
		if d := distance(a, b); d > tol || math.IsNaN(d) {
			t.Errorf("%s: relative difference %g", name, d)
		}
	}
}

func allWrapped() []Spec {
	var specs []Spec
	for _, s := range cases() {
		specs = append(specs, wrapped(s)...)
	}
	return specs
}

func TestFilesAreReadAsWritten(t *testing.T) {
	specs := allWrapped()
	sd, rng := base(t, specs), seeded(41)
	one, two := adapterOf(t, "digits", specs, rng), adapterOf(t, "letters", specs[:9], rng)
	for i, m := range two.Modules {
		if i%2 == 0 {
			m.Anchor()
			for _, f := range m.Factors() {
				fill(f.Value, rng)
			}
		}
	}
	two.Extra, two.Norm = nil, NormFrozen
	frozen := []string{"bn1.weight", moduleName(0) + ".weight"}
	f, err := NewFile(sd, frozen, one, two)
	if err != nil {
		t.Fatal(err)
	}
	f.Meta = map[string]string{"author": "nobody"}
	path := filepath.Join(t.TempDir(), "a.safetensors")
	if err := f.Write(path); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Check(sd, false); err != nil {
		t.Error(err)
	}
	if got.Meta["author"] != "nobody" || got.Adapter("digits").Norm != NormAffineStats || got.Adapter("letters").Extra != nil || got.Adapter("x") != nil {
		t.Errorf("read %+v", got)
	}
	for _, a := range []*Adapter{one, two} {
		sameTensors(t, mergedWith(t, sd, got.Adapter(a.Name)), mergedWith(t, sd, a), 0)
	}
	if err := got.Write(path); err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("written again the file differs")
	}
	keys, err := f.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := keys.Get("digits/" + moduleName(0) + ".lora.up"); !ok {
		t.Errorf("names: %v", keys.Names()[:4])
	}
}

func TestFilesForAnotherBase(t *testing.T) {
	specs := cases()[:2]
	sd, a := base(t, specs), adapterOf(t, "", specs, seeded(1))
	f, err := NewFile(sd, []string{"bn1.weight"}, a)
	if err != nil {
		t.Fatal(err)
	}
	other := base(t, specs)
	w, _ := other.Get("bn1.weight")
	v, err := w.Float32s()
	if err != nil {
		t.Fatal(err)
	}
	v[0] = math.Nextafter32(v[0], 9)
	if err := f.Check(other, false); !errors.Is(err, ErrBase) {
		t.Errorf("one bit: %v", err)
	}
	if err := f.Check(other, true); err != nil {
		t.Errorf("forced: %v", err)
	}
	other.Set(moduleName(1)+".weight", &model.Tensor{Shape: []int{6, 4, 3, 1}, Data: make([]float32, 72)})
	if err := f.Check(other, true); !errors.Is(err, ErrBase) || !strings.Contains(err.Error(), "[6 4 3 1]") {
		t.Errorf("shape: %v", err)
	}
	other.Delete(moduleName(1) + ".weight")
	if _, err := Add(other, []float64{1}, a); !errors.Is(err, ErrBase) {
		t.Errorf("missing: %v", err)
	}
	if _, err := NewFile(sd, []string{"nothing"}, a); !errors.Is(err, ErrBase) {
		t.Errorf("frozen: %v", err)
	}
}

func TestMergesLeaveTheBaseAlone(t *testing.T) {
	specs := cases()[:12]
	sd, rng := base(t, specs), seeded(2)
	a, b := adapterOf(t, "a", specs, rng), adapterOf(t, "b", specs[:3], rng)
	b.Extra = nil
	hash, err := Hash(sd, sd.Names())
	if err != nil {
		t.Fatal(err)
	}
	m, err := Add(sd, []float64{1, -2}, a, b)
	if err != nil {
		t.Fatal(err)
	}
	if now, err := Hash(sd, sd.Names()); err != nil || now != hash {
		t.Errorf("the base is another: %v", err)
	}
	for i, s := range specs {
		w, _ := sd.Get(moduleName(i) + ".weight")
		want := slices.Clone(w.Data.([]float32))
		for j, v := range kernelOf(t, a.Modules[i].Delta, w.Data.([]float32)) {
			want[j] += v
		}
		if i < 3 {
			for j, v := range kernelOf(t, b.Modules[i].Delta, w.Data.([]float32)) {
				want[j] -= 2 * v
			}
		}
		got, _ := m.Get(moduleName(i) + ".weight")
		if d := distance(got.Data.([]float32), want); d > 1e-6 {
			t.Errorf("%s: relative difference %g", s.title(), d)
		}
	}
	if fc, _ := m.Get("fc.weight"); !slices.Equal(fc.Shape, []int{3, 4}) {
		t.Errorf("the head has shape %v", fc.Shape)
	}
	if _, err := Add(sd, []float64{0.5}, a); !errors.Is(err, ErrLossy) {
		t.Errorf("half a head: %v", err)
	}
	if _, err := Add(sd, []float64{1}, a, b); !errors.Is(err, ErrSpec) {
		t.Errorf("weights: %v", err)
	}
	a.Extra.Set("bn1.weight", &model.Tensor{Shape: []int{5}, Data: make([]float32, 5)})
	if _, err := Add(sd, []float64{1}, a); !errors.Is(err, ErrBase) {
		t.Errorf("norm of 5: %v", err)
	}
}

func TestFilesThatContradictThemselves(t *testing.T) {
	specs := []Spec{{Kind: LoRA, Shape: [4]int{4, 4, 3, 3}, Rank: []int{2}, Geometry: conv.Geometry{Padding: [2]int{1, 1}}}}
	fresh := func() *model.StateDict {
		f := &File{Adapters: []*Adapter{adapterOf(t, "", specs, seeded(1))}}
		sd, err := f.StateDict()
		if err != nil {
			t.Fatal(err)
		}
		return sd
	}
	up := moduleName(0) + ".lora.up"
	for name, change := range map[string]func(*model.StateDict){
		"no metadata": func(sd *model.StateDict) { delete(sd.Meta, MetaKey) },
		"metadata":    func(sd *model.StateDict) { sd.Meta[MetaKey] = "{" },
		"format":      func(sd *model.StateDict) { sd.Meta[MetaKey] = `{"format":2}` },
		"missing":     func(sd *model.StateDict) { sd.Delete(up) },
		"extra":       func(sd *model.StateDict) { sd.Delete("fc.weight") },
		"more":        func(sd *model.StateDict) { sd.Set("x", &model.Tensor{Data: []float32{1}}) },
		"shape":       func(sd *model.StateDict) { sd.Set(up, &model.Tensor{Shape: []int{2, 4}, Data: make([]float32, 8)}) },
		"type":        func(sd *model.StateDict) { sd.Set(up, &model.Tensor{Shape: []int{4, 2}, Data: make([]int64, 8)}) },
		"NaN":         func(sd *model.StateDict) { v, _ := sd.Get(up); v.Data.([]float32)[0] = float32(math.NaN()) },
		"kind": func(sd *model.StateDict) {
			sd.Meta[MetaKey] = strings.ReplaceAll(sd.Meta[MetaKey], `"lora"`, `"lorra"`)
		},
		"rank": func(sd *model.StateDict) {
			sd.Meta[MetaKey] = strings.ReplaceAll(sd.Meta[MetaKey], `"rank":[2]`, `"rank":[60000]`)
		},
		"groups": func(sd *model.StateDict) {
			sd.Meta[MetaKey] = strings.ReplaceAll(sd.Meta[MetaKey], `"groups":1`, `"groups":3`)
		},
		"policy": func(sd *model.StateDict) {
			sd.Meta[MetaKey] = strings.ReplaceAll(sd.Meta[MetaKey], "affine+stats", "x")
		},
		"module twice": func(sd *model.StateDict) { sd.Meta[MetaKey] = twice(sd.Meta[MetaKey]) },
	} {
		sd := fresh()
		if _, err := FromStateDict(sd); err != nil {
			t.Fatal(err)
		}
		change(sd)
		if f, err := FromStateDict(sd); !errors.Is(err, ErrFile) {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
	a := adapterOf(t, "a/b", specs, seeded(1))
	for _, f := range []*File{{Adapters: []*Adapter{a}}, {Adapters: []*Adapter{{Name: "x"}, {Name: "x"}}}, {Adapters: []*Adapter{{Modules: []Module{{Name: "m"}}}}}} {
		if _, err := f.StateDict(); !errors.Is(err, ErrFile) {
			t.Errorf("error %v", err)
		}
	}
}

// twice repeats the list of modules' first element.
func twice(meta string) string {
	at := strings.Index(meta, `"modules":[`) + len(`"modules":[`)
	end := at + strings.Index(meta[at:], "}}") + 2
	return meta[:end] + "," + meta[at:end] + meta[end:]
}

func FuzzRead(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, "a.safetensors")
	file := &File{Adapters: []*Adapter{adapterOf(f, "a", cases()[:5], seeded(1)), adapterOf(f, "b", cases()[20:22], seeded(1))}}
	if err := file.Write(path); err != nil {
		f.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		sd, err := model.ReadSafetensors(bytes.NewReader(text), int64(len(text)))
		if err != nil {
			return
		}
		a, err := FromStateDict(sd)
		if err != nil {
			return
		}
		again, err := a.StateDict()
		if err != nil {
			t.Fatalf("read but not written: %v", err)
		}
		if _, err := FromStateDict(again); err != nil {
			t.Fatalf("written but not read: %v", err)
		}
	})
}
