package peft

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/model"
)

// A LoKr whose rank is not below half of a factor's side is written with that factor
// multiplied out, since PEFT and LyCORIS have it whole.
func TestLoKrsAreWrittenAsThePackagesLayThemOut(t *testing.T) {
	for _, s := range []Spec{
		{Kind: LoKr, Shape: [4]int{12, 12, 3, 3}, Rank: []int{2}, Mid: true, Scale: .3},
		{Kind: LoKr, Shape: [4]int{8, 6, 3, 3}, Rank: []int{3}, Both: true},
		{Kind: LoKr, Shape: [4]int{8, 8, 3, 3}, Rank: []int{1}, Both: true, Scale: 2},
		{Kind: LoKr, Shape: [4]int{12, 8, 1, 1}, Rank: []int{2}, Split: [2]int{4, 4}, Both: true, Scale: .7},
	} {
		specs := []Spec{s}
		sd, a := base(t, specs), adapterOf(t, "", specs, seeded(3))
		a.Extra = nil
		config, tensors, err := EncodePEFT(a, "")
		if err != nil {
			t.Fatalf("%v: %v", s, err)
		}
		got, err := DecodePEFT(config, tensors, sitesOf(specs))
		if err != nil {
			t.Fatalf("%v: %v", s, err)
		}
		sameTensors(t, mergedWith(t, sd, got), mergedWith(t, sd, a), 2e-6)
		if s.Split != [2]int{} {
			continue // LyCORIS has no such factors
		}
		if tensors, err = EncodeLyCORIS(a, ""); err != nil {
			t.Fatalf("%v: %v", s, err)
		}
		if got, err = DecodeLyCORIS(tensors, sitesOf(specs), ""); err != nil {
			t.Fatalf("%v: %v", s, err)
		}
		sameTensors(t, mergedWith(t, sd, got), mergedWith(t, sd, a), 2e-6)
	}
	// One decompose_factor for all modules, where there is one.
	specs := []Spec{{Kind: LoKr, Shape: [4]int{8, 6, 3, 3}, Rank: []int{1}}, {Kind: LoKr, Shape: [4]int{12, 8, 3, 3}, Rank: []int{1}, Split: [2]int{2, 2}}}
	config, _, err := EncodePEFT(adapterOf(t, "", specs, seeded(3)), "")
	if err != nil || !strings.Contains(string(config), `"decompose_factor": 2`) {
		t.Errorf("%v: %s", err, config)
	}
}

func TestWhatLyCORISHasNoShapeFor(t *testing.T) {
	for name, s := range map[string]Spec{
		"split": {Kind: LoKr, Shape: [4]int{8, 6, 3, 3}, Split: [2]int{2, 3}},
		"core":  {Kind: LoHa, Shape: [4]int{8, 6, 1, 1}, Rank: []int{2}, Mid: true},
	} {
		a := adapterOf(t, "", []Spec{s}, seeded(1))
		a.Extra = nil
		if _, err := EncodeLyCORIS(a, ""); !errors.Is(err, ErrLossy) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A core of one tap is none: it becomes a LoCon.
	specs := []Spec{{Kind: Tucker2, Shape: [4]int{8, 6, 1, 1}, Rank: []int{2, 2}, Scale: .5}}
	sd, a := base(t, specs), adapterOf(t, "", specs, seeded(1))
	a.Extra = nil
	tensors, err := EncodeLyCORIS(a, "")
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(tensors.Names(), func(n string) bool { return strings.HasSuffix(n, "lora_mid.weight") }); i >= 0 {
		t.Errorf("it has %s", tensors.Names()[i])
	}
	got, err := DecodeLyCORIS(tensors, sitesOf(specs), "")
	if err != nil {
		t.Fatal(err)
	}
	sameTensors(t, mergedWith(t, sd, got), mergedWith(t, sd, a), 2e-6)
}

// LyCORIS writes a change of the bias beside every full change of a layer that has one.
func TestChangesOfBiasesMustBeZero(t *testing.T) {
	sites := []Site{{Name: "fc", Shape: [4]int{2, 1, 1, 1}, Linear: true}}
	for _, v := range []float32{0, 1} {
		sd := model.NewStateDict()
		sd.Set("lycoris_fc.diff", &model.Tensor{Shape: []int{2, 1}, Data: []float32{1, 2}})
		sd.Set("lycoris_fc.diff_b", &model.Tensor{Shape: []int{2}, Data: []float32{0, v}})
		if _, err := DecodeLyCORIS(sd, sites, ""); (err == nil) != (v == 0) || err != nil && !errors.Is(err, ErrLossy) {
			t.Errorf("%g: %v", v, err)
		}
	}
}

// PEFT loads modules whole, the count of batches included, and has the bias of a changed
// layer in the layer that it wraps.
func TestPEFTSavesModulesWhole(t *testing.T) {
	net := packagesBase()
	d, err := New(Spec{Kind: LoRA, Shape: [4]int{5, 12, 1, 1}, Rank: []int{2}})
	if err != nil {
		t.Fatal(err)
	}
	a := &Adapter{Modules: []Module{{Name: "fc", Linear: true, Delta: d}}, Extra: model.NewStateDict()}
	for _, name := range []string{"fc.bias", "bn1.bias"} {
		v, _ := net.Get(name)
		a.Extra.Set(name, v)
	}
	if _, _, err := EncodePEFT(a, ""); !errors.Is(err, ErrLossy) || !PartsOfNorms(a) {
		t.Errorf("a part of a norm: %v", err)
	}
	config, sd, err := EncodePEFT(Whole(a, net), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fc.base_layer.bias", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked"} {
		if _, ok := sd.Get(peftPrefix + name); !ok {
			t.Errorf("there is no %s", name)
		}
	}
	if sd.Len() != 8 || !strings.Contains(string(config), "lora_only") {
		t.Errorf("%q with %s", sd.Names(), config)
	}
	got, err := DecodePEFT(config, sd, recomputeSites)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := got.Extra.Get("fc.bias"); !ok || got.Extra.Len() != 6 {
		t.Errorf("read: %q", got.Extra.Names())
	}
}

// A module's pattern is its plain name, which all versions know, unless that is the end
// of another's.
func TestPatternsOfModules(t *testing.T) {
	modules := []Module{{Name: "conv1"}, {Name: "layer1.0.conv1"}}
	for name, want := range map[string]string{"conv1": "^conv1", "layer1.0.conv1": "layer1.0.conv1"} {
		if got := exact(name, modules); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
