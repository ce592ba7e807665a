package peft

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/model"
)

// Geometry that formats do not hold comes from the sites.
var padded3 = conv.Geometry{Padding: [2]int{1, 1}}

func numbers(shape ...int) *model.Tensor {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return &model.Tensor{Shape: shape, Data: gaussian[float32](n, seeded(uint64(n)))}
}

func value(t *model.Tensor, index ...int) float64 {
	i := 0
	for a, x := range index {
		i = i*t.Shape[a] + x
	}
	return float64(t.Data.([]float32)[i])
}

// conv2 is the weight of two convolutions in a row, b (1×1) after a.
func conv2(b, a *model.Tensor, scale float64) []float32 {
	var out []float32
	for o := range b.Shape[0] {
		for c := range a.Shape[1] {
			for h := range a.Shape[2] {
				for w := range a.Shape[3] {
					var s float64
					for r := range b.Shape[1] {
						s += value(b, o, r, 0, 0) * value(a, r, c, h, w)
					}
					out = append(out, float32(scale*s))
				}
			}
		}
	}
	return out
}

func TestAPEFTDirectoryOfAnother(t *testing.T) {
	sites := []Site{{Name: "conv1", Shape: [4]int{6, 3, 3, 3}, Geometry: padded3}, {Name: "layer1.0.conv1", Shape: [4]int{5, 4, 3, 3}, Geometry: padded3}, {Name: "fc", Shape: [4]int{7, 5, 1, 1}, Linear: true}}
	sd := model.NewStateDict()
	a1, b1, a2, b2 := numbers(2, 3, 3, 3), numbers(6, 2, 1, 1), numbers(3, 4, 3, 3), numbers(5, 3, 1, 1)
	sd.Set("base_model.model.conv1.lora_A.weight", a1)
	sd.Set("base_model.model.conv1.lora_B.weight", b1)
	sd.Set("base_model.model.layer1.0.conv1.lora_A.weight", a2)
	sd.Set("base_model.model.layer1.0.conv1.lora_B.weight", b2)
	sd.Set("base_model.model.fc.lora_A.weight", numbers(2, 5))
	sd.Set("base_model.model.fc.lora_B.weight", numbers(7, 2))
	sd.Set("base_model.model.bn1.running_mean", numbers(6))
	sd.Set("base_model.model.bn1.weight", numbers(6))
	config := `{"peft_type":"LORA","r":2,"lora_alpha":8,"use_rslora":true,"target_modules":["conv1","fc"],
		"rank_pattern":{"layer1.0.conv1":3},"alpha_pattern":{"layer\\d\\.\\d\\.conv1":5},"some_new_field":{"x":1},"bias":"none"}`
	a, err := DecodePEFT([]byte(config), sd, sites)
	if err != nil {
		t.Fatal(err)
	}
	if d := distance(kernelOf(t, a.Modules[0].Delta, nil), conv2(b1, a1, 8/math.Sqrt(2))); d > 1e-6 {
		t.Errorf("conv1: relative difference %g", d)
	}
	if d := distance(kernelOf(t, a.Modules[1].Delta, nil), conv2(b2, a2, 5/math.Sqrt(3))); d > 1e-6 {
		t.Errorf("layer1: relative difference %g", d)
	}
	if a.Norm != NormAffineStats || a.Extra.Len() != 2 || a.Modules[1].Spec().Padding != padded3.Padding {
		t.Errorf("policy %s, extra %v", a.Norm, a.Extra.Names())
	}
	bad := func(name, config string, change func(sd *model.StateDict, sites []Site)) {
		c := model.NewStateDict()
		for _, n := range sd.Names() {
			v, _ := sd.Get(n)
			c.Set(n, v)
		}
		s := slices.Clone(sites)
		if change != nil {
			change(c, s)
		}
		if _, err := DecodePEFT([]byte(config), c, s); !errors.Is(err, ErrFile) && !errors.Is(err, ErrLossy) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	bad("json", "{", nil)
	bad("type", `{"peft_type":"IA3"}`, nil)
	bad("rank", strings.Replace(config, `"r":2`, `"r":4`, 1), nil)
	bad("pattern", strings.Replace(config, `layer\\d`, `(`, 1), nil)
	bad("alpha", strings.Replace(config, `:8`, `:0`, 1), nil)
	bad("unknown module", config, func(_ *model.StateDict, s []Site) { s[0].Name = "stem" })
	bad("shape", config, func(_ *model.StateDict, s []Site) { s[0].Shape[2] = 1 })
	bad("groups", config, func(_ *model.StateDict, s []Site) { s[1].Geometry.Groups = 5 })
	bad("missing", config, func(sd *model.StateDict, _ []Site) { sd.Delete("base_model.model.conv1.lora_A.weight") })
	bad("bias", config, func(sd *model.StateDict, _ []Site) { sd.Set("base_model.model.conv1.lora_B.bias", numbers(6)) })
	bad("prefix", config, func(sd *model.StateDict, _ []Site) { sd.Set("conv1.weight", numbers(6)) })
	bad("fan", strings.Replace(config, `"r":2`, `"r":2,"fan_in_fan_out":true`, 1), nil)
}

func TestTargetsMatchAsPEFTDoes(t *testing.T) {
	for _, c := range []struct {
		target, module string
		want           bool
	}{
		{`["conv1","conv2"]`, "conv1", true},
		{`["conv1","conv2"]`, "layer1.0.conv1", true},
		{`["conv1"]`, "myconv1", false},
		{`["0.conv1"]`, "layer1.0.conv1", true},
		{`"layer\\d\\.\\d+\\.conv\\d"`, "layer1.0.conv1", true},
		{`"layer\\d\\.\\d+\\.conv\\d"`, "conv1", false},
		{`"conv1"`, "layer1.0.conv1", false},
	} {
		if got, err := MatchTarget(json.RawMessage(c.target), c.module); err != nil || got != c.want {
			t.Errorf("%s on %s: %t, %v", c.target, c.module, got, err)
		}
	}
	for module, want := range map[string]float64{"conv1": 3, "layer1.conv1": 3, "myconv1": 1, "conv12": 1} {
		if got, err := (ordered{{key: "conv1", value: 3}}).of(module, 1); err != nil || got != want {
			t.Errorf("pattern conv1 on %s: %g, %v", module, got, err)
		}
	}
	for _, bad := range []string{`"("`, `3`} {
		if _, err := MatchTarget(json.RawMessage(bad), "x"); !errors.Is(err, ErrFile) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// groups1 are the cases that a format of whole kernels may hold.
func groups1(kinds ...Kind) []Spec {
	var specs []Spec
	for i, s := range cases() {
		if s.groups() == 1 && slices.Contains(kinds, s.Kind) {
			s.Scale = []float64{0, 2, 0.3, 1. / 3}[i%4]
			s.Learned = i%2 == 0
			specs = append(specs, s)
		}
	}
	return specs
}

func TestPEFTRoundTrips(t *testing.T) {
	lokr := func(rank []int, split [2]int) Spec {
		return Spec{Kind: LoKr, Shape: [4]int{8, 6, 3, 3}, Geometry: padded3, Rank: rank, Split: split, Scale: 0.7}
	}
	for name, specs := range map[string][]Spec{
		"LORA":     groups1(LoRA, CP, CP4, Tucker2, Tucker4, TKDCPD, Spatial, LoRAView),
		"LOHA":     {{Kind: LoHa, Shape: [4]int{6, 4, 3, 3}, Geometry: padded3, Rank: []int{2}, Scale: 0.3}, {Kind: LoHa, Shape: [4]int{6, 4, 1, 1}, Rank: []int{3}}},
		"LOHA mid": {{Kind: LoHa, Shape: [4]int{6, 4, 3, 3}, Geometry: padded3, Rank: []int{2}, Mid: true}},
		"LOKR":     {lokr(nil, [2]int{}), lokr([]int{1}, [2]int{})},
		"LOKR 2":   {lokr(nil, [2]int{2, 2})},
		"DoRA":     {{Kind: LoRA, Shape: [4]int{6, 4, 3, 3}, Rank: []int{2}, DoRA: true, Scale: 3}, {Kind: CP, Shape: [4]int{6, 4, 1, 1}, Rank: []int{2}, DoRA: true, Learned: true}},
	} {
		sd, a := base(t, specs), adapterOf(t, "", specs, seeded(3))
		dir := t.TempDir()
		if err := WritePEFT(dir, a, "my/base"); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		first := content(t, dir)
		got, err := ReadPEFT(dir, sitesOf(specs))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		sameTensors(t, mergedWith(t, sd, got), mergedWith(t, sd, a), 2e-6)
		if got.Norm != NormAffineStats {
			t.Errorf("%s: policy %s", name, got.Norm)
		}
		if err := WritePEFT(dir, got, "my/base"); err != nil {
			t.Fatal(err)
		}
		for file, text := range content(t, dir) {
			if !bytes.Equal(text, first[file]) {
				t.Errorf("%s: written again %s differs:\n%s\n%s", name, file, first[file], text)
			}
		}
		// The target names these modules and no others that end like them.
		var c hfConfig
		if err := json.Unmarshal(first[peftConfig], &c); err != nil {
			t.Fatal(err)
		}
		for _, m := range a.Modules {
			in, err := MatchTarget(c.Target, m.Name)
			out, err2 := MatchTarget(c.Target, "x."+m.Name)
			if err != nil || err2 != nil || !in || out {
				t.Errorf("%s: target %s on %s", name, c.Target, m.Name)
			}
		}
	}
}

// The stem's rank and scale are not those of modules whose names end as its does.
func TestPEFTPatternsAreOfOneModule(t *testing.T) {
	var a Adapter
	var sites []Site
	for i, name := range []string{"layer1.0.conv1", "conv1", "layer2.0.conv1"} {
		s := Site{Name: name, Shape: [4]int{6, 4, 3, 3}}
		d, err := New(Spec{Kind: LoRA, Shape: s.Shape, Rank: []int{i + 1}, Scale: float64(i + 2)})
		if err != nil {
			t.Fatal(err)
		}
		sites, a.Modules = append(sites, s), append(a.Modules, Module{Name: name, Delta: d})
	}
	config, sd, err := EncodePEFT(&a, "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodePEFT(config, sd, sites)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range got.Modules {
		if m.Lambda() != float64(i+2) || m.Spec().Rank[0] != i+1 {
			t.Errorf("%s: λ %g, rank %v", m.Name, m.Lambda(), m.Spec().Rank)
		}
	}
}

func content(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	m := map[string][]byte{}
	for _, name := range []string{peftConfig, peftTensors} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		m[name] = text
	}
	return m
}

func TestWhatPEFTCannotHold(t *testing.T) {
	shape := [4]int{8, 6, 3, 3}
	for name, specs := range map[string][]Spec{
		"groups":   {{Kind: LoRA, Shape: [4]int{8, 3, 3, 3}, Geometry: conv.Geometry{Groups: 2}, Rank: []int{2}}},
		"full":     {{Kind: Full, Shape: shape}},
		"series":   {{Kind: Series, Shape: shape}},
		"mixed":    {{Kind: LoRA, Shape: shape, Rank: []int{1}, DoRA: true}, {Kind: LoRA, Shape: shape, Rank: []int{1}}},
		"split":    {{Kind: LoKr, Shape: shape, Split: [2]int{4, 3}}},
		"core":     {{Kind: LoHa, Shape: [4]int{8, 6, 1, 1}, Rank: []int{2}, Mid: true}},
		"factors":  {{Kind: LoKr, Shape: shape, Rank: []int{1}}, {Kind: LoKr, Shape: shape, Rank: []int{1}, Split: [2]int{1, 1}}},
		"mid":      {{Kind: LoHa, Shape: shape, Rank: []int{2}, Mid: true}, {Kind: LoHa, Shape: shape, Rank: []int{2}}},
		"both":     {{Kind: LoKr, Shape: [4]int{36, 36, 3, 3}, Rank: []int{1}, Both: true}, {Kind: LoKr, Shape: [4]int{36, 36, 3, 3}, Rank: []int{1}}},
		"dora":     {{Kind: LoHa, Shape: shape, Rank: []int{1}, DoRA: true}},
		"parallel": {{Kind: Parallel, Shape: shape}},
	} {
		if _, _, err := EncodePEFT(adapterOf(t, "", specs, seeded(1)), ""); !errors.Is(err, ErrLossy) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestALyCORISFileOfAnother(t *testing.T) {
	sites := []Site{{Name: "layer1.0.conv1", Shape: [4]int{6, 4, 3, 3}}, {Name: "layer1.0.conv2", Shape: [4]int{5, 4, 3, 3}}, {Name: "a", Shape: [4]int{4, 4, 3, 3}}}
	sd := model.NewStateDict()
	up, down, mid := numbers(6, 2, 1, 1), numbers(2, 4, 1, 1), numbers(2, 2, 3, 3)
	sd.Set("lycoris_layer1_0_conv1.lora_up.weight", up)
	sd.Set("lycoris_layer1_0_conv1.lora_down.weight", down)
	sd.Set("lycoris_layer1_0_conv1.lora_mid.weight", mid)
	sd.Set("lycoris_layer1_0_conv1.alpha", &model.Tensor{Data: []float32{1}})
	u2, d2 := numbers(5, 3, 1, 1), numbers(3, 4, 3, 3)
	sd.Set("lycoris_layer1_0_conv2.lora_up.weight", u2)
	sd.Set("lycoris_layer1_0_conv2.lora_down.weight", d2)
	one, two := numbers(2, 2), numbers(2, 2, 3, 3)
	sd.Set("lycoris_a.lokr_w1", one)
	sd.Set("lycoris_a.lokr_w2", two)
	sd.Set("lycoris_a.alpha", &model.Tensor{Data: []float32{1e10}})
	a, err := DecodeLyCORIS(sd, sites, "")
	if err != nil {
		t.Fatal(err)
	}
	// up after mid after down.
	inner := &model.Tensor{Shape: []int{2, 4, 3, 3}}
	for i := range 2 {
		for c := range 4 {
			for x := range 9 {
				var s float64
				for j := range 2 {
					s += value(mid, i, j, x/3, x%3) * value(down, j, c, 0, 0)
				}
				inner.Data = append(toFloats(inner.Data), float32(s))
			}
		}
	}
	if d := distance(kernelOf(t, a.Modules[0].Delta, nil), conv2(up, inner, 0.5)); d > 1e-6 {
		t.Errorf("with a mid: relative difference %g", d)
	}
	if d := distance(kernelOf(t, a.Modules[1].Delta, nil), conv2(u2, d2, 1)); d > 1e-6 {
		t.Errorf("without alpha: relative difference %g", d)
	}
	var kron []float32
	for o := range 4 {
		for c := range 4 {
			for x := range 9 {
				kron = append(kron, float32(value(one, o/2, c/2)*value(two, o%2, c%2, x/3, x%3)))
			}
		}
	}
	if d := distance(kernelOf(t, a.Modules[2].Delta, nil), kron); d > 1e-6 {
		t.Errorf("lokr: relative difference %g", d)
	}
	for name, change := range map[string]func(*model.StateDict, []Site){
		"module":    func(sd *model.StateDict, _ []Site) { sd.Set("lycoris_b.diff", numbers(1)) },
		"ambiguous": func(_ *model.StateDict, s []Site) { s[2].Name = "layer1_0_conv2" },
		"alpha":     func(sd *model.StateDict, _ []Site) { sd.Set("lycoris_a.alpha", numbers(2)) },
		"axis":      func(sd *model.StateDict, _ []Site) { sd.Set("lycoris_a.dora_scale", numbers(1, 4, 1, 1)) },
		"unknown":   func(sd *model.StateDict, _ []Site) { sd.Set("lycoris_a.b1", numbers(4)) },
		"none":      func(sd *model.StateDict, _ []Site) { sd.Delete("lycoris_a.lokr_w1") },
		"groups":    func(_ *model.StateDict, s []Site) { s[1].Geometry.Groups = 5 },
	} {
		c, s := model.NewStateDict(), slices.Clone(sites)
		for _, n := range sd.Names() {
			v, _ := sd.Get(n)
			c.Set(n, v)
		}
		change(c, s)
		if _, err := DecodeLyCORIS(c, s, ""); !errors.Is(err, ErrFile) && !errors.Is(err, ErrLossy) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func toFloats(v any) []float32 {
	f, _ := v.([]float32)
	return f
}

func TestLyCORISRoundTrips(t *testing.T) {
	specs := groups1(LoRA, CP, CP4, Tucker2, Tucker4, TKDCPD, Spatial, LoRAView, LoHa, LoKr, Full)
	specs = append(specs, Spec{Kind: Tucker2, Shape: [4]int{6, 4, 3, 3}, Rank: []int{3, 3}, Scale: 0.7}, Spec{Kind: LoHa, Shape: [4]int{6, 4, 3, 3}, Rank: []int{3}, DoRA: true}, Spec{Kind: LoRA, Shape: [4]int{6, 4, 1, 1}, Rank: []int{3}, DoRA: true, Scale: 0.1})
	specs = append(specs, Spec{Kind: Full, Shape: [4]int{6, 2, 3, 3}, Geometry: conv.Geometry{Groups: 2}}, Spec{Kind: LoHa, Shape: [4]int{6, 2, 3, 3}, Geometry: conv.Geometry{Groups: 2}, Rank: []int{2}})
	sd, a := base(t, specs), adapterOf(t, "", specs, seeded(3))
	if _, err := EncodeLyCORIS(a, ""); !errors.Is(err, ErrLossy) {
		t.Errorf("extra tensors: %v", err)
	}
	a.Extra = nil
	first, err := EncodeLyCORIS(a, "lora_unet")
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeLyCORIS(first, sitesOf(specs), "lora_unet")
	if err != nil {
		t.Fatal(err)
	}
	sameTensors(t, mergedWith(t, sd, got), mergedWith(t, sd, a), 2e-6)
	second, err := EncodeLyCORIS(got, "lora_unet")
	if err != nil {
		t.Fatal(err)
	}
	same(t, first, second)
	for _, s := range []Spec{{Kind: Series, Shape: [4]int{4, 4, 1, 1}}, {Kind: LoRA, Rank: []int{1}, Shape: [4]int{4, 2, 1, 1}, Geometry: conv.Geometry{Groups: 2}}} {
		a := adapterOf(t, "", []Spec{s}, seeded(1))
		a.Extra = nil
		if _, err := EncodeLyCORIS(a, ""); !errors.Is(err, ErrLossy) {
			t.Errorf("%s: %v", s.Kind, err)
		}
	}
}

// same compares two state dicts as files.
func same(t *testing.T, a, b *model.StateDict) {
	t.Helper()
	dir := t.TempDir()
	var text [2][]byte
	for i, sd := range []*model.StateDict{a, b} {
		path := filepath.Join(dir, "x.safetensors")
		if err := model.WriteSafetensors(path, sd); err != nil {
			t.Fatal(err)
		}
		var err error
		if text[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(text[0], text[1]) {
		t.Error("written again the file differs")
	}
}

func TestLoralibRoundTrips(t *testing.T) {
	specs := []Spec{
		{Kind: LoRAView, Shape: [4]int{6, 4, 3, 3}, Rank: []int{2}, Scale: 2},
		{Kind: LoRAView, Shape: [4]int{6, 2, 3, 3}, Geometry: conv.Geometry{Groups: 2}, Rank: []int{4}, Scale: 1},
		{Kind: LoRA, Shape: [4]int{6, 4, 1, 1}, Rank: []int{1}, Scale: 4},
	}
	sd, a := base(t, specs), adapterOf(t, "", specs, seeded(3))
	first, err := EncodeLoralib(a, 4)
	if err != nil {
		t.Fatal(err)
	}
	if x, _ := first.Get(moduleName(1) + ".lora_A"); !slices.Equal(x.Shape, []int{12, 12}) {
		t.Errorf("shape %v", x.Shape)
	}
	got, err := DecodeLoralib(first, sitesOf(specs), 4)
	if err != nil {
		t.Fatal(err)
	}
	sameTensors(t, mergedWith(t, sd, got), mergedWith(t, sd, a), 1e-6)
	second, err := EncodeLoralib(got, 4)
	if err != nil {
		t.Fatal(err)
	}
	same(t, first, second)
	if _, err := EncodeLoralib(a, 3); !errors.Is(err, ErrLossy) {
		t.Errorf("alpha: %v", err)
	}
	if _, err := EncodeLoralib(adapterOf(t, "", cases()[3:4], seeded(1)), 3); !errors.Is(err, ErrLossy) {
		t.Errorf("kind: %v", err)
	}
	key := moduleName(0) + ".lora_"
	for name, change := range map[string]func(*model.StateDict){
		"no A":   func(sd *model.StateDict) { sd.Delete(key + "A") },
		"no B":   func(sd *model.StateDict) { sd.Delete(key + "B") },
		"rows":   func(sd *model.StateDict) { sd.Set(key+"A", numbers(5, 12)) },
		"shape":  func(sd *model.StateDict) { sd.Set(key+"A", numbers(6, 11)) },
		"module": func(sd *model.StateDict) { sd.Set("x.lora_A", numbers(3, 3)) },
		"other":  func(sd *model.StateDict) { sd.Set(key+"C", numbers(3, 3)) },
	} {
		c := model.NewStateDict()
		for _, n := range first.Names() {
			v, _ := first.Get(n)
			c.Set(n, v)
		}
		change(c)
		if _, err := DecodeLoralib(c, sitesOf(specs), 4); !errors.Is(err, ErrFile) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := DecodeLoralib(first, sitesOf(specs), 0); !errors.Is(err, ErrFile) {
		t.Errorf("no alpha: %v", err)
	}
}

// fuzzed reads bytes as a file of every format; whatever is read can be written.
func FuzzPublishedFormats(f *testing.F) {
	specs := []Spec{{Kind: LoRA, Shape: [4]int{4, 2, 3, 3}, Rank: []int{1}}, {Kind: LoKr, Shape: [4]int{4, 2, 3, 3}}, {Kind: LoHa, Shape: [4]int{4, 2, 1, 1}, Rank: []int{1}}}
	var config []byte
	dir := f.TempDir()
	seed := func(sd *model.StateDict, err error) {
		if err != nil {
			f.Fatal(err)
		}
		path := filepath.Join(dir, "x.safetensors")
		if err := model.WriteSafetensors(path, sd); err != nil {
			f.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(config, text)
	}
	a := adapterOf(f, "", specs, seeded(1))
	a.Extra = nil
	seed(EncodeLyCORIS(a, ""))
	view := adapterOf(f, "", []Spec{{Kind: LoRAView, Shape: [4]int{4, 2, 3, 3}, Rank: []int{1}}}, seeded(1))
	seed(EncodeLoralib(view, 1))
	for i := range specs {
		one := &Adapter{Modules: a.Modules[i : i+1]}
		c, sd, err := EncodePEFT(one, "b")
		config = c
		seed(sd, err)
	}
	f.Fuzz(func(t *testing.T, config, text []byte) {
		sd, err := model.ReadSafetensors(bytes.NewReader(text), int64(len(text)))
		if err != nil {
			return
		}
		sites := sitesOf(specs)
		if a, err := DecodePEFT(config, sd, sites); err == nil {
			if _, _, err := EncodePEFT(a, ""); err != nil && !errors.Is(err, ErrLossy) {
				t.Errorf("PEFT: %v", err)
			}
		}
		if a, err := DecodeLyCORIS(sd, sites, ""); err == nil {
			if _, err := EncodeLyCORIS(a, ""); err != nil && !errors.Is(err, ErrLossy) {
				t.Errorf("LyCORIS: %v", err)
			}
		}
		if a, err := DecodeLoralib(sd, sites, 1); err == nil {
			if _, err := EncodeLoralib(a, 1); err != nil && !errors.Is(err, ErrLossy) {
				t.Errorf("loralib: %v", err)
			}
		}
	})
}
