package adapt

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
)

// trained is an adapter after two steps.
func trained(t testing.TB, b *graph.Graph, method Method, name string, layers ...string) (*Network, *peft.File) {
	t.Helper()
	return stepped(t, b, Options{Method: method, Classes: 3, Seed: uint64(len(name)), Layers: layers}, name)
}

// stepped is trained with all options.
func stepped(t testing.TB, b *graph.Graph, o Options, name string) (*Network, *peft.File) {
	t.Helper()
	n, err := New(b, o)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		step(t, n, .05)
	}
	sd, err := b.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	f, err := n.File(sd, name)
	if err != nil {
		t.Fatal(err)
	}
	return n, f
}

func TestTasksShareWhatTheyDoNotChange(t *testing.T) {
	b := base(t, "cifar_pad")
	one, f := trained(t, b, "cp", "one", "layer2*")
	two, g := trained(t, b, "lora", "two")
	sd, err := b.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	file, err := Stack(sd, f, g)
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := NewTasks(b, file, false)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(tasks.Names(), []string{"one", "two"}) {
		t.Fatalf("tasks %q", tasks.Names())
	}
	before := logits(t, b)
	nets := map[string]*graph.Graph{}
	for name, n := range map[string]*Network{"one": one, "two": two} {
		net, err := tasks.Switch(name)
		if err != nil {
			t.Fatal(err)
		}
		nets[name] = net
		want, err := n.Net()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(logits(t, net), logits(t, want)) {
			t.Errorf("%s: other logits than what was trained", name)
		}
		for i, s := range net.Sites() {
			if s.Linear {
				continue
			}
			_, changed := n.Changes[s.Name]
			own := &s.Chain.Stages[0].Weight[0] != &b.Sites()[i].Chain.Stages[0].Weight[0]
			if own != changed {
				t.Errorf("%s: %s has memory of its own: %v", name, s.Name, own)
			}
		}
	}
	if &nets["one"].Sites()[0].Chain.Stages[0].Weight[0] != &nets["two"].Sites()[0].Chain.Stages[0].Weight[0] {
		t.Error("two tasks have two stems")
	}
	if !slices.Equal(logits(t, tasks.Base()), before) {
		t.Error("the base has changed")
	}
	if _, err := tasks.Switch("three"); !errors.Is(err, ErrOption) {
		t.Errorf("no such task gave %v", err)
	}
}

func TestStacksHaveOneBase(t *testing.T) {
	b := base(t, "cifar_pad")
	_, one := trained(t, b, "cp", "one")
	_, two := trained(t, b, BN, "two")
	_, same := trained(t, b, Head, "two")
	other := b.Clone()
	other.Randomise(7)
	_, foreign := trained(t, other, "cp", "three")
	// Without the base: of adapters that replace the same tensors only.
	if _, err := Stack(nil, one, two); err != nil {
		t.Error(err)
	}
	if _, err := Stack(nil, one, foreign); !errors.Is(err, peft.ErrBase) {
		t.Errorf("two bases gave %v", err)
	}
	if _, err := Stack(nil, one, same); !errors.Is(err, ErrOption) {
		t.Errorf("other frozen tensors and no base gave %v", err)
	}
	sd, err := b.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Stack(sd, one, same); err != nil {
		t.Error(err)
	}
	if _, err := Stack(sd, one, foreign); !errors.Is(err, peft.ErrBase) {
		t.Errorf("two bases gave %v", err)
	}
	if _, err := Stack(sd, two, same); err == nil {
		t.Error("two tasks of one name are accepted")
	}
}

// The sum of the changes is the merged kernel less the base's, whatever their kinds.
func TestSumsAreWhatTheirPartsMerge(t *testing.T) {
	b := base(t, "cifar_pad")
	sd, err := b.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	for _, methods := range [][]Method{{"cp", "cp"}, {"cp", "tucker"}, {"lora", "residual-serial"}, {"loha", "loha"}, {"conv1d", "residual-parallel"}} {
		var parts []Part
		for i, m := range methods {
			_, f := trained(t, b, m, string(m))
			parts = append(parts, Part{f.Adapters[0], []float64{1.25, -.25}[i]})
		}
		want, _, err := Merge(sd, parts, ExtraMix)
		if err != nil {
			t.Fatalf("%s: %v", methods, err)
		}
		sum, _, err := Sum(t.Context(), sd, parts, ExtraMix, Rounding{})
		if err != nil {
			t.Fatalf("%s: %v", methods, err)
		}
		got, _, err := Merge(sd, []Part{{sum, 1}}, ExtraOnly)
		if err != nil {
			t.Fatalf("%s: %v", methods, err)
		}
		if d := distance(t, got, want); d > 1e-6 {
			t.Errorf("%s: the sum differs by %g", methods, d)
		}
		// Rounded to all there is it is the same; to rank 1 the error is told.
		for _, r := range []Rounding{{Rank: []int{1}}, {Energy: 1}, {Energy: .9}} {
			rounded, rows, err := Sum(t.Context(), sd, parts, ExtraMix, r)
			if err != nil {
				t.Fatalf("%s: %v", methods, err)
			}
			for i, m := range rounded.Modules {
				w, _ := kernelOf(sd, m.Name)
				exact, err := sum.Modules[i].Kernel(w)
				if err != nil {
					t.Fatal(err)
				}
				k, err := m.Kernel(w)
				if err != nil {
					t.Fatal(err)
				}
				n := norm(exact)
				for j := range k {
					exact[j] -= k[j]
				}
				if e := norm(exact) / n; e-rows[i].RelError > 1e-6 || rows[i].RelError-e > 1e-6 {
					t.Errorf("%s, %+v: %s: an error of %g is told as %g", methods, r, m.Name, e, rows[i].RelError)
				}
				if r.Energy == 1 && rows[i].RelError > 1e-5 {
					t.Errorf("%s: %s: all energy leaves an error of %g", methods, m.Name, rows[i].RelError)
				}
			}
		}
	}
}

// distance is the largest ‖a−b‖/‖b‖ of tensors.
func distance(t testing.TB, a, b *model.StateDict) float64 {
	t.Helper()
	d := 0.
	for _, name := range b.Names() {
		x, _ := a.Get(name)
		y, _ := b.Get(name)
		u, err := x.Float64s()
		if err != nil {
			t.Fatal(err)
		}
		v, err := y.Float64s()
		if err != nil {
			t.Fatal(err)
		}
		var num, den float64
		for i := range v {
			num += (u[i] - v[i]) * (u[i] - v[i])
			den += v[i] * v[i]
		}
		if num > 0 {
			d = max(d, math.Sqrt(num/den))
		}
	}
	return d
}
