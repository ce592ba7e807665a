package adapt

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/zoo"
)

func TestApplyMakesTheAdaptedNetworkOfAFile(t *testing.T) {
	for _, base := range []*graph.Graph{base(t, "cifar_pad"), base(t, "basic")} {
		sd, err := base.StateDict()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range Methods() {
			n, a := stepped(t, base, Options{Method: Method(name), Classes: 3, Seed: 1}, "")
			other, b := stepped(t, base, Options{Method: "lora", Norms: peft.NormFrozen, Classes: 4, Seed: 2}, "other")
			file, err := peft.NewFile(sd, nil, a.Adapters[0], b.Adapters[0])
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "adapters.safetensors")
			if err := file.Write(path); err != nil {
				t.Fatal(err)
			}
			if file, err = peft.Read(path); err != nil {
				t.Fatal(err)
			}
			again, err := file.StateDict()
			if err != nil {
				t.Fatal(err)
			}
			written, err := model.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if again.Meta[peft.MetaKey] != written.Meta[peft.MetaKey] {
				t.Errorf("%s: read and written again the file says something else", name)
			}
			for task, n := range map[string]*Network{"": n, "other": other} {
				got, err := Apply(base, file, []string{task}, nil)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				want, err := n.Net()
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(logits(t, got), logits(t, want)) {
					t.Errorf("%s, adapter %q: other logits", name, task)
				}
			}
		}
	}
}

func TestWhatCannotBeAppliedIsAnError(t *testing.T) {
	base := base(t, "cifar_pad")
	sd, err := base.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	_, fa := stepped(t, base, Options{Method: "bottleneck", Norms: peft.NormFrozen, Classes: 3, Seed: 1, Layers: []string{"layer1.*"}}, "a")
	_, fb := stepped(t, base, Options{Method: "chapter", Norms: peft.NormFrozen, Classes: 3, Seed: 2, Layers: []string{"layer[12].0.conv1"}}, "b")
	_, fc := stepped(t, base, Options{Method: "residual-serial-bn", Norms: peft.NormFrozen, Classes: 3, Seed: 2, Layers: []string{"layer3.*"}}, "c")
	a, b, c := fa.Adapters[0], fb.Adapters[0], fc.Adapters[0]
	// Heads cannot be mixed either.
	for _, x := range []*peft.Adapter{b, c} {
		for _, name := range slices.Clone(x.Extra.Names()) {
			if !strings.Contains(name, ".adapter.") {
				x.Extra.Delete(name)
			}
		}
	}
	file, err := peft.NewFile(sd, nil, a, b, c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Apply(base, file, nil, nil); !errors.Is(err, peft.ErrLossy) || !strings.Contains(err.Error(), "layer1.0.conv1") {
		t.Errorf("two at one unit: %v", err)
	}
	if _, err := Apply(base, file, []string{"c"}, []float64{.5}); !errors.Is(err, peft.ErrLossy) {
		t.Errorf("a weight: %v", err)
	}
	if _, err := Apply(base, file, []string{"d"}, nil); !errors.Is(err, ErrOption) {
		t.Errorf("a name: %v", err)
	}
	if _, err := Apply(base, file, nil, []float64{1}); err == nil {
		t.Error("too few weights are accepted")
	}
	// The same by parts: Merge, Sum and Tasks.
	for how, want := range map[string]int{ExtraOnly: 2, ExtraMix: 2, ExtraNone: 0, "1": 2} {
		parts := []Part{{c, 1}}
		merged, _, err := Merge(sd, parts, how)
		if err != nil {
			t.Fatalf("%q: %v", how, err)
		}
		net, err := zoo.Load(merged, zoo.Options{})
		if err != nil {
			t.Fatalf("%q: %v", how, err)
		}
		sum, _, err := Sum(t.Context(), sd, parts, how, Rounding{})
		if err != nil {
			t.Fatalf("%q: %v", how, err)
		}
		sums, err := Apply(base, &peft.File{Adapters: []*peft.Adapter{sum}}, nil, nil)
		if err != nil {
			t.Fatalf("%q: %v", how, err)
		}
		if unitsWithModules(net) != want || !slices.Equal(logits(t, net), logits(t, sums)) {
			t.Errorf("%q: modules at %d units, want %d, or another sum", how, unitsWithModules(net), want)
		}
	}
	for _, parts := range [][]Part{{{c, .5}}, {{a, 1}, {b, 1}}} {
		for _, how := range []string{ExtraOnly, ExtraMix} {
			if _, _, err := Merge(sd, parts, how); !errors.Is(err, peft.ErrLossy) {
				t.Errorf("%q: merged, %v", how, err)
			}
			if _, _, err := Sum(t.Context(), sd, parts, how, Rounding{}); !errors.Is(err, peft.ErrLossy) {
				t.Errorf("%q: added up, %v", how, err)
			}
		}
	}
	tasks, err := NewTasks(base, file, false)
	if err != nil {
		t.Fatal(err)
	}
	if net, err := tasks.Switch("c"); err != nil || unitsWithModules(net) != 2 {
		t.Errorf("switched: %v", err)
	}
	both, err := Apply(base, file, []string{"a", "c"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if unitsWithModules(both) != 4 {
		t.Errorf("modules at %d units, want 4", unitsWithModules(both))
	}
	if _, err := New(both, Options{Method: "chapter", Classes: 3}); !errors.Is(err, ErrOption) {
		t.Errorf("modules beside modules: %v", err)
	}
	if _, err := New(base, Options{Method: "chapter", Classes: 3, DoRA: true}); !errors.Is(err, ErrOption) {
		t.Errorf("DoRA: %v", err)
	}
	broken := *c
	for _, text := range []string{`[]`, `{"modules":{"layer3.0.conv1":[{}]}}`, `{"modules":{"nowhere":[]}}`, `{}`, `{"dilate":1}`, `{"more":1}`} {
		broken.Added = []byte(text)
		if f, err := peft.NewFile(sd, nil, &broken); err != nil {
			t.Fatal(err)
		} else if _, err := Apply(base, f, nil, nil); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
	if _, _, err := peft.EncodePEFT(c, ""); !errors.Is(err, peft.ErrLossy) {
		t.Errorf("in another program's format: %v", err)
	}
	// A network that was adapted is adapted again, with its modules frozen.
	again, err := New(both, Options{Method: "lora", Classes: 3})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range again.Learner.Params() {
		if p.Module && p.Kind != graph.Gain && p.Kind != graph.Shift {
			t.Errorf("%s learns", p.Name)
		}
	}
}

func TestModulesBeginAtTheBaseAndLearnUnderAnyPolicy(t *testing.T) {
	for _, name := range []Method{"residual-serial-bn", "bottleneck", "chapter"} {
		for _, norms := range Policies {
			b := base(t, "cifar_projection")
			n, err := New(b, Options{Method: name, Norms: norms, Classes: 3, Seed: 1, Alpha: 1, Layers: []string{"*.conv?"}})
			if err != nil {
				t.Fatal(err)
			}
			bare := b.Clone()
			if err := bare.SetHead(3, 1); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(logits(t, n.Base), logits(t, bare)) {
				t.Errorf("%s, %s: does not begin at the base", name, norms)
			}
			before := map[string][]float32{}
			for _, p := range n.Learner.Params() {
				before[p.Name] = slices.Clone(p.Value)
			}
			first := step(t, n, .05)
			for range 60 {
				step(t, n, .05)
			}
			// On the base's statistics there is less to learn: the images are much alike.
			most := .6
			if norms == peft.NormFrozen || norms == peft.NormAffine {
				most = .97
			}
			if last := step(t, n, .05); !(last < most*first) {
				t.Errorf("%s, %s: the loss went from %g to %g", name, norms, first, last)
			}
			for _, p := range n.Learner.Params() {
				if p.Module && slices.Equal(p.Value, before[p.Name]) {
					t.Errorf("%s, %s: %s does not learn", name, norms, p.Name)
				}
			}
		}
	}
}

// unitsWithModules is at how many convolutions a network has an adapter's own layers.
func unitsWithModules(g *graph.Graph) int {
	n := 0
	for _, s := range g.Sites() {
		if g.ModulesAt(s.Name) > 0 {
			n++
		}
	}
	return n
}
