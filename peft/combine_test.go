package peft

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/model"
)

func TestCombinedAdaptersMergeLikeTheirSum(t *testing.T) {
	var specs []Spec
	for _, s := range cases() {
		if s.Kind != LoHa && s.Kind != LoKr {
			specs = append(specs, s)
		}
	}
	rng := seeded(50)
	sd := base(t, specs)
	a, b := adapterOf(t, "a", specs, rng), adapterOf(t, "b", specs[3:], rng)
	a.Extra, b.Extra = nil, nil
	b.Modules = b.Modules[:0]
	for i, m := range adapterOf(t, "", specs, rng).Modules {
		if i%2 == 0 {
			b.Modules = append(b.Modules, m)
		}
	}
	c, err := Combine("c", []float64{2, -1}, a, b)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Merge(sd, []float64{2, -1}, a, b)
	if err != nil {
		t.Fatal(err)
	}
	sameTensors(t, mergedWith(t, sd, c), want, 1e-5)

	b.Norm = NormFrozen
	if _, err := Combine("c", []float64{1, 1}, a, b); !errors.Is(err, ErrSpec) {
		t.Errorf("policies: %v", err)
	}
	a.Extra = model.NewStateDict()
	a.Extra.Set("fc.weight", &model.Tensor{Data: []float32{1}})
	if one, err := Combine("c", []float64{1}, a); err != nil || one.Extra.Len() != 1 {
		t.Errorf("one adapter: %v", err)
	}
	if _, err := Combine("c", []float64{2}, a); !errors.Is(err, ErrLossy) {
		t.Errorf("twice a head: %v", err)
	}
	if _, err := Combine("c", []float64{2}); !errors.Is(err, ErrSpec) {
		t.Errorf("none: %v", err)
	}
	loha := adapterOf(t, "", []Spec{{Kind: LoHa, Shape: [4]int{2, 2, 1, 1}, Rank: []int{1}}}, rng)
	loha.Extra = nil
	if _, err := Combine("c", []float64{1, 1}, loha, loha); !errors.Is(err, ErrLossy) {
		t.Errorf("LoHa: %v", err)
	}
}

// What an adapter did to a network is found again, all of it where the ranks are.
func TestAdaptersAreExtractedFromFineTunedNetworks(t *testing.T) {
	var specs []Spec
	for _, s := range cases() {
		if s.Kind == Tucker2 || s.Kind == LoRA {
			specs = append(specs, s)
		}
	}
	sd := base(t, specs)
	a := adapterOf(t, "", specs, seeded(51))
	tuned := mergedWith(t, sd, a)
	sites := sitesOf(specs)
	got, fits, err := ExtractAdapter(context.Background(), sd, tuned, sites, func(s Site) Spec {
		if s.Name == sites[1].Name {
			return Spec{} // it is in Extra then
		}
		return Spec{Kind: LoRA}
	}, Rule{Energy: 1 - 1e-10})
	if err != nil {
		t.Fatal(err)
	}
	if len(fits) != len(specs)-1 || fits[0].RelError > 1e-4 || fits[0].Moved <= 0 {
		t.Errorf("fits %+v", fits)
	}
	if got.Norm != NormAffineStats || got.Modules[0].Spec().Rank[0] != specs[0].Rank[0] {
		t.Errorf("policy %s, %v", got.Norm, got.Modules[0].Spec())
	}
	if _, ok := got.Extra.Get(sites[1].Name + ".weight"); !ok {
		t.Error("a kernel without a change is not in Extra")
	}
	sameTensors(t, mergedWith(t, sd, got), tuned, 1e-4)

	same, fits, err := ExtractAdapter(context.Background(), sd, sd, sites, func(Site) Spec { return Spec{Kind: CP} }, Rule{})
	if err != nil || len(fits) != 0 || len(same.Modules) != 0 || same.Extra != nil {
		t.Errorf("nothing moved: %+v, %v", same, err)
	}
	wrong := slices.Clone(sites)
	wrong[0].Shape[0]++
	if _, _, err := ExtractAdapter(context.Background(), sd, tuned, wrong, func(Site) Spec { return Spec{Kind: CP} }, Rule{}); !errors.Is(err, ErrBase) {
		t.Errorf("shape: %v", err)
	}
	tuned.Set("bn1.bias", &model.Tensor{Shape: []int{9}, Data: make([]float32, 9)})
	if _, _, err := ExtractAdapter(context.Background(), sd, tuned, sites, func(Site) Spec { return Spec{} }, Rule{}); !errors.Is(err, ErrBase) {
		t.Errorf("norm: %v", err)
	}
	tuned.Set("new", &model.Tensor{Data: []float32{1}})
	if _, _, err := ExtractAdapter(context.Background(), sd, tuned, sites, func(Site) Spec { return Spec{} }, Rule{}); !errors.Is(err, ErrBase) {
		t.Errorf("new tensor: %v", err)
	}
}
