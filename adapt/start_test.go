package adapt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/train"
)

// anyGradients are made-up gradients of all kernels.
func anyGradients(n *graph.Graph) map[string][]float32 {
	rng := rand.New(rand.NewPCG(1, 2))
	g := map[string][]float32{}
	for _, s := range n.Sites() {
		x := make([]float32, len(s.Chain.Stages[0].Weight))
		for i := range x {
			x[i] = float32(rng.NormFloat64())
		}
		g[s.Name] = x
	}
	return g
}

// moved are the kernels whose change is another than zero.
func moved(t *testing.T, n *Network) int {
	t.Helper()
	count := 0
	for _, s := range n.Base.Sites() {
		if d, ok := n.Changes[s.Name]; ok {
			k, err := d.Kernel(s.Chain.Stages[0].Weight)
			if err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(k, func(v float32) bool { return v != 0 }) {
				count++
			}
		}
	}
	return count
}

// Whatever the start, the network is what it was to the bit, every change moves with the
// first step, and what is written is what was trained.
func TestEveryStartIsTheNetworkAndLearns(t *testing.T) {
	b := base(t, "cifar_pad")
	sd, err := b.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Methods() {
		m := methods[Method(name)]
		for i, start := range Starts {
			o := Options{Method: Method(name), Start: start, Gradients: anyGradients(b), Classes: 3, Seed: 1,
				DoRA: name == "lora" && i%2 == 0, Learned: name == "cp", Alpha: 3}
			n, err := New(b, o)
			if start != Random && (m.kind == "" || m.rank == nil || m.kind == peft.LoKr && start == FromMinor) {
				if !errors.Is(err, ErrOption) {
					t.Errorf("%s from %s: %v", name, start, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s from %s: %v", name, start, err)
			}
			first, err := n.Learner.Net()
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(logits(t, first), logits(t, n.Base)) || moved(t, n) > 0 {
				t.Errorf("%s from %s: does not start at the base", name, start)
			}
			for _, d := range n.Changes {
				if want := start == FromKernel || start == FromMinor; d.Spec().Anchored != want {
					t.Errorf("%s from %s: anchored %t", name, start, !want)
				}
			}
			step(t, n, .01)
			if got := moved(t, n); got != len(n.Changes) {
				t.Errorf("%s from %s: %d changes of %d move", name, start, got, len(n.Changes))
			}
			step(t, n, .01)
			file, err := n.File(sd, "task")
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "adapter.safetensors")
			if err := file.Write(path); err != nil {
				t.Fatal(err)
			}
			back, err := peft.Read(path)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Apply(b, back, []string{back.Adapters[0].Name}, nil)
			if err != nil {
				t.Fatal(err)
			}
			want, err := n.Net()
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(logits(t, got), logits(t, want)) {
				t.Errorf("%s from %s: the adapter on its base gives other logits", name, start)
			}
		}
	}
}

func TestStartsDiffer(t *testing.T) {
	b := base(t, "cifar_pad")
	seen := map[string]Start{}
	for _, start := range Starts {
		n, err := New(b, Options{Method: "lora", Rank: []int{1}, Start: start, Gradients: anyGradients(b), Classes: 3})
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprint(n.Changes["layer2.0.conv2"].Factor("down").Value)
		if other, ok := seen[text]; ok {
			t.Errorf("%s starts as %s", start, other)
		}
		seen[text] = start
	}
}

// The first step from a gradient of rank 2 goes where that does.
func TestAStartFromTheGradientOfTheLossFollowsIt(t *testing.T) {
	b := base(t, "cifar_pad")
	along := func(start Start) float64 {
		o := Options{Method: "lora", Rank: []int{1}, Norms: peft.NormFrozen, Start: start, Classes: 3, Seed: 3}
		n, err := New(b, Options{Method: "full-change", Norms: peft.NormFrozen, Classes: 3, Seed: 3})
		if err != nil {
			t.Fatal(err)
		}
		step(t, n, 0) // the same head: the same gradients
		o.Gradients = map[string][]float32{}
		for name, d := range n.Changes {
			o.Gradients[name] = slices.Clone(d.Factor("diff").Grad)
		}
		if n, err = New(b, o); err != nil {
			t.Fatal(err)
		}
		step(t, n, .01)
		sum := 0.
		for name, d := range n.Changes {
			k, err := d.Kernel(nil)
			if err != nil {
				t.Fatal(err)
			}
			dot := 0.
			for i, g := range o.Gradients[name] {
				dot -= float64(g) * float64(k[i])
			}
			if scale := norm(k) * norm(o.Gradients[name]); scale > 0 {
				sum += dot / scale / float64(len(n.Changes))
			}
		}
		return sum
	}
	if seen, blind := along(FromGradient), along(Random); seen < .7 || blind > .5 {
		t.Errorf("cosines %g from the gradient, %g at random", seen, blind)
	}
}

func glyphs(t *testing.T) dataset.Set {
	t.Helper()
	set, err := dataset.Open("glyphs:digits,train=160,test=10", dataset.Options{Split: dataset.Train})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// A run that is broken off, and goes on in another process that computes its starts and
// ranks anew, ends where one that is not does; one that starts elsewhere is another's.
func TestARunFromADecompositionResumesToTheSame(t *testing.T) {
	b, set := base(t, "cifar_pad"), glyphs(t)
	for _, start := range []Start{FromKernel, FromGradient} {
		o := Options{Method: "tucker", Start: start, Choose: Choice{Params: 300, Of: Gradient}, Classes: 10, Seed: 5, Batch: 40}
		job := func(workers int) *train.Job {
			var err error
			if o.Gradients, err = Gradients(t.Context(), b, set, o, 80, workers); err != nil {
				t.Fatal(err)
			}
			n, err := New(b, o)
			if err != nil {
				t.Fatal(err)
			}
			return &train.Job{Learner: n.Learner, Data: set, Preprocess: b.Preprocess, What: n.Options.String(), Workers: workers,
				Recipe: train.Recipe{Epochs: 2, Batch: 40, Rate: .01, Optimiser: train.Adam, Seed: 5}}
		}
		state := func(j *train.Job) *model.StateDict {
			sd, err := j.Learner.State()
			if err != nil {
				t.Fatal(err)
			}
			return sd
		}
		whole := job(1)
		if _, err := whole.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "checkpoint")
		ctx, cancel := context.WithCancel(t.Context())
		broken := job(2)
		broken.Checkpoint = path
		broken.Progress = func(p train.Progress) {
			if p.Epoch == 2 {
				cancel()
			}
		}
		if _, err := broken.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		again := job(3)
		again.Checkpoint, again.Resume = path, true
		if _, err := again.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		want, got := state(whole), state(again)
		for _, name := range want.Names() {
			x, _ := want.Get(name)
			if y, ok := got.Get(name); !ok || !reflect.DeepEqual(x.Data, y.Data) {
				t.Errorf("from %s: %s is another", start, name)
			}
		}
		o.Start = FromSubspace
		other := job(1)
		other.Checkpoint, other.Resume = path, true
		if _, err := other.Run(t.Context()); !errors.Is(err, train.ErrOtherJob) {
			t.Errorf("another start goes on from the checkpoint: %v", err)
		}
	}
}
