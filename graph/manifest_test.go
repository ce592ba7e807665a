package graph

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/model"
)

// ramp is 1, 2, … n.
func ramp(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(i + 1)
	}
	return v
}

func chain(t *testing.T, kind conv.Kind) *conv.Chain {
	k := func(shape [4]int, g conv.Geometry, bias bool) *conv.Kernel {
		var b []float32
		if bias {
			b = ramp(shape[0])
		}
		x, err := conv.NewKernel(shape, ramp(shape[0]*shape[1]*shape[2]*shape[3]), b, g)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	c := &conv.Chain{Kind: kind, Groups: 1}
	switch kind {
	case conv.Dense:
		c.Stages = []*conv.Kernel{k([4]int{4, 3, 3, 3}, conv.Geometry{Padding: [2]int{1, 1}}, true)}
	case conv.SVD:
		c.Rank = []int{2}
		c.Stages = []*conv.Kernel{k([4]int{2, 3, 3, 3}, conv.Geometry{Stride: [2]int{2, 2}}, false), k([4]int{4, 2, 1, 1}, conv.Geometry{}, true)}
	case conv.Tucker2:
		c.Rank = []int{2, 2}
		c.Stages = []*conv.Kernel{k([4]int{2, 3, 1, 1}, conv.Geometry{}, false), k([4]int{2, 2, 3, 3}, conv.Geometry{Padding: [2]int{1, 1}}, false), k([4]int{4, 2, 1, 1}, conv.Geometry{}, true)}
	case conv.CP:
		c.Rank = []int{2}
		c.Stages = []*conv.Kernel{k([4]int{2, 3, 1, 1}, conv.Geometry{}, false), k([4]int{2, 1, 3, 3}, conv.Geometry{Groups: 2}, false), k([4]int{4, 2, 1, 1}, conv.Geometry{}, false)}
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestChainsSurviveTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	for _, kind := range []conv.Kind{conv.Dense, conv.SVD, conv.Tucker2, conv.CP} {
		want := chain(t, kind)
		sd := model.NewStateDict()
		m := &Manifest{Network: json.RawMessage(`{"arch":"x"}`)}
		m.Store(sd, "conv", want)
		if err := m.Write(sd); err != nil {
			t.Fatal(err)
		}
		if err := model.WriteSafetensors(path, sd); err != nil {
			t.Fatal(err)
		}
		back, err := model.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if m, err = ReadManifest(back); err != nil {
			t.Fatal(err)
		}
		if string(m.Network) != `{"arch":"x"}` {
			t.Errorf("%s: network %s", kind, m.Network)
		}
		spec := m.Chain("conv")
		if kind == conv.Dense {
			if spec != nil {
				t.Errorf("a dense chain came back as %v", spec)
			}
			if w, _ := back.Get("conv.weight"); fmt.Sprint(w.Shape, w.Data) != fmt.Sprint(want.Stages[0].Shape, want.Stages[0].Weight) {
				t.Errorf("a dense kernel came back as %v", w)
			}
			continue
		}
		used := map[string]bool{}
		got, err := spec.Load(back, "conv", func(n string) { used[n] = true })
		if err != nil {
			t.Fatal(err)
		}
		if len(used) != back.Len() {
			t.Errorf("%s: used %v of %v", kind, used, back.Names())
		}
		if got.Kind != kind || fmt.Sprint(got.Rank) != fmt.Sprint(want.Rank) || len(got.Stages) != len(want.Stages) {
			t.Errorf("%s came back as %s of rank %v with %d stages", kind, got.Kind, got.Rank, len(got.Stages))
		}
		for i, s := range got.Stages {
			w := want.Stages[i]
			if s.Shape != w.Shape || s.Normal() != w.Normal() || fmt.Sprint(s.Weight, s.Bias) != fmt.Sprint(w.Weight, w.Bias) {
				t.Errorf("%s: stage %d differs", kind, i)
			}
		}
	}
}

func TestDamagedManifestsAreErrors(t *testing.T) {
	if m, err := ReadManifest(model.NewStateDict()); m != nil || err != nil {
		t.Errorf("no manifest: %v, %v", m, err)
	}
	for text, kind := range map[string]error{
		`{"format":99}`: model.ErrUnsupported, `{`: model.ErrCorrupt, `[]`: model.ErrCorrupt,
		`{"format":1,"chains":{"c":null}}`:                 model.ErrCorrupt,
		`{"format":1,"chains":{"c":{"kind":"cp"}}}`:        model.ErrCorrupt,
		`{"format":1,"chains":{"c":{"kind":"cp","stages":`: model.ErrCorrupt,
	} {
		sd := model.NewStateDict()
		sd.Meta[model.ManifestKey] = text
		if _, err := ReadManifest(sd); !errors.Is(err, kind) || !strings.Contains(err.Error(), "lowrank") {
			t.Errorf("%s: %v", text, err)
		}
	}
	for name, damage := range map[string]func(sd *model.StateDict, s *ChainSpec){
		"a missing tensor": func(sd *model.StateDict, _ *ChainSpec) { sd.Delete("c.1.weight") },
		"a flat tensor": func(sd *model.StateDict, _ *ChainSpec) {
			sd.Set("c.1.weight", &model.Tensor{Shape: []int{1}, Data: []float32{1}})
		},
		"integers":            func(sd *model.StateDict, _ *ChainSpec) { x, _ := sd.Get("c.1.weight"); x.Data = make([]int64, x.Len()) },
		"stages out of order": func(_ *model.StateDict, s *ChainSpec) { s.Stages[0], s.Stages[1] = s.Stages[1], s.Stages[0] },
		"an unknown kind":     func(_ *model.StateDict, s *ChainSpec) { s.Kind = "other" },
		"a rank too many":     func(_ *model.StateDict, s *ChainSpec) { s.Rank = []int{2, 2} },
		"a negative stride":   func(_ *model.StateDict, s *ChainSpec) { s.Stages[1].Stride = [2]int{-1, 1} },
	} {
		sd, m := model.NewStateDict(), new(Manifest)
		m.Store(sd, "c", chain(t, conv.CP))
		damage(sd, m.Chains["c"])
		if _, err := m.Chains["c"].Load(sd, "c", nil); !errors.Is(err, model.ErrCorrupt) && !errors.Is(err, model.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
