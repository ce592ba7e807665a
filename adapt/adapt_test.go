package adapt

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/nn"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/zoo"
)

func base(t testing.TB, name string) *graph.Graph {
	t.Helper()
	sd, err := model.ReadFile(filepath.Join("..", "zoo", "testdata", name+".pth"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := zoo.Load(sd, zoo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// step is one step of plain gradient descent on made-up images, and the loss before it.
func step(t testing.TB, n *Network, rate float32) float64 {
	t.Helper()
	x := conv.NewMap(4, 16, 16, 3)
	for i := range x.Data {
		x.Data[i] = float32(i%17)/8 - 1
	}
	y, err := n.Learner.Forward(t.Context(), x, 2)
	if err != nil {
		t.Fatal(err)
	}
	labels := []int{0, 1, 2, 1}
	for i := range labels {
		labels[i] += n.Kept()
	}
	g := make([]float32, len(y))
	loss := nn.CrossEntropy(g, y, labels, n.Learner.Classes(), 0, 2)
	descend(t, n, g, rate)
	return loss
}

// descend is one step along the gradient of the outputs.
func descend(t testing.TB, n *Network, g []float32, rate float32) {
	t.Helper()
	if err := n.Learner.Backward(t.Context(), g, 2); err != nil {
		t.Fatal(err)
	}
	for _, p := range n.Learner.Params() {
		for i, v := range p.Grad {
			p.Value[i] -= rate * v
		}
	}
	n.Learner.Updated()
}

func logits(t testing.TB, n *graph.Graph) []float32 {
	t.Helper()
	p, err := n.Compile()
	if err != nil {
		t.Fatal(err)
	}
	x := conv.NewMap(2, 16, 16, 3)
	for i := range x.Data {
		x.Data[i] = float32(i%13)/6 - 1
	}
	y, err := p.Forward(t.Context(), x, 1)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(y)
}

func TestEveryMethodStartsAtTheNetworkAndChangesOnlyWhatItMay(t *testing.T) {
	for _, file := range []string{"cifar_pad", "bottleneck"} {
		lively := file == "cifar_pad" // the other's two channels are dead on these images
		for _, name := range Methods() {
			for _, norms := range append([]peft.NormPolicy{""}, Policies...) {
				b := base(t, file)
				n, err := New(b, Options{Method: Method(name), Classes: 3, Norms: norms, Seed: 1})
				if err != nil {
					t.Fatalf("%s, %s: %v", file, name, err)
				}
				start, err := n.Learner.Net()
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(logits(t, start), logits(t, n.Base)) {
					t.Errorf("%s, %s: does not start at the base", file, name)
				}
				if Method(name) != Scratch {
					for i, s := range n.Base.Sites()[:len(n.Base.Sites())-1] {
						if w := b.Sites()[i]; !slices.Equal(s.Chain.Stages[0].Weight, w.Chain.Stages[0].Weight) {
							t.Errorf("%s, %s: the base has another %s", file, name, s.Name)
						}
					}
				}
				for range 2 {
					step(t, n, .01)
				}
				after, err := n.Learner.Net()
				if err != nil {
					t.Fatal(err)
				}
				policy := n.Options.Norms
				for i, s := range after.Sites() {
					was := n.Base.Sites()[i]
					_, changes := n.Changes[s.Name]
					moves := changes || s.Linear || slices.Contains([]Method{Full, Scratch, LwF}, Method(name))
					if got := !slices.Equal(s.Chain.Stages[0].Weight, was.Chain.Stages[0].Weight); got != moves && (got || lively) {
						t.Errorf("%s, %s: %s changed: %v", file, name, s.Name, got)
					}
					if s.Norm == nil {
						continue
					}
					if got, want := !slices.Equal(s.Norm.BatchNorm().Mean, was.Norm.BatchNorm().Mean), policy == peft.NormStats || policy == peft.NormAffineStats; got != want && (got || lively) {
						t.Errorf("%s, %s, %s: statistics of %s changed: %v", file, name, policy, s.Norm.Name, got)
					}
					want := policy == peft.NormAffine || policy == peft.NormAffineStats || Method(name) == Bias
					if got := !slices.Equal(s.Norm.BatchNorm().Bias, was.Norm.BatchNorm().Bias); got != want && (got || lively) {
						t.Errorf("%s, %s, %s: shift of %s changed: %v", file, name, policy, s.Norm.Name, got)
					}
				}
			}
		}
	}
}

// The numbers are those of the formulas for the published networks.
func TestParametersAreTheFormulas(t *testing.T) {
	for _, c := range []struct {
		arch   string
		method Method
		rank   []int
		want   int
	}{
		{"resnet20", Head, nil, 0}, {"resnet20", Bias, nil, 688}, {"resnet20", BN, nil, 1376}, {"resnet18", BN, nil, 9600},
		{"resnet20", "lora", []int{4}, 25152 + 1376}, {"resnet18", "lora", []int{4}, 142848 + 9600},
		{"resnet20", "lora-view", []int{1}, 11664 + 1376}, {"resnet20", "cp", []int{16}, 23328 + 1376}, {"resnet18", "tucker", []int{8, 8}, 77824 + 9600},
		{"resnet20", "tucker", []int{8, 8}, 20736 + 1376}, {"resnet20", "tkdcpd", []int{8, 8, 16}, 17568 + 1376},
		{"resnet20", "residual-parallel", nil, 29696 + 1376}, {"resnet20", "residual-serial", nil, 32256 + 1376},
		// Σ O² + 2O, Σ C·k² + C/γ + O·C/γ + O, and Σ O·C·k + 3·O, of all but the stem.
		{"resnet20", "residual-serial-bn", nil, 32256 + 2*672 + 1376},
		{"resnet20", "bottleneck", []int{4}, 5616 + 156 + 7424 + 672 + 1376},
		{"resnet20", "chapter", nil, 89088 + 3*672 + 1376},
		{"resnet20", Full, nil, 269722 - 650},
	} {
		b, err := zoo.New(c.arch, 10, zoo.NewOptions{})
		if err != nil {
			t.Fatal(err)
		}
		n, err := New(b, Options{Method: c.method, Rank: c.rank, Classes: 10})
		if err != nil {
			t.Fatal(err)
		}
		total := -(b.Head.Conv().Chain.Params())
		for _, p := range n.Learner.Params() {
			total += p.Len()
		}
		if total != c.want {
			t.Errorf("%s, %s %v: %d parameters beside the head, want %d", c.arch, c.method, c.rank, total, c.want)
		}
	}
}

func TestOptionsThatMakeNoSenseAreErrors(t *testing.T) {
	b := base(t, "cifar_pad")
	for name, o := range map[string]Options{
		"method": {Method: "prompt"}, "rank": {Method: "lora", Rank: []int{0}}, "ranks": {Method: "tkdcpd", Rank: []int{1, 2}},
		"rank of none": {Method: BN, Rank: []int{3}}, "norms": {Method: BN, Norms: "frozen"}, "layers": {Method: "lora", Layers: []string{"nothing"}},
	} {
		o.Classes = 3
		if _, err := New(b, o); !errors.Is(err, ErrOption) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(b, Options{Method: Head}); !errors.Is(err, graph.ErrGraph) {
		t.Errorf("no classes gave %v", err)
	}
	if _, err := ParseMethod("lorra"); !errors.Is(err, ErrOption) {
		t.Errorf("got %v", err)
	}
}

func TestAnAdapterOnItsBaseIsTheAdaptedNetwork(t *testing.T) {
	for _, name := range Methods() {
		b := base(t, "cifar_pad")
		sd, err := b.StateDict()
		if err != nil {
			t.Fatal(err)
		}
		n, err := New(b, Options{Method: Method(name), Classes: 3, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			step(t, n, .01)
		}
		file, err := n.File(sd, "task")
		if err != nil {
			t.Fatal(err)
		}
		written, err := file.StateDict()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "adapter.safetensors")
		if err := model.WriteSafetensors(path, written); err != nil {
			t.Fatal(err)
		}
		back, err := peft.Read(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := back.Check(sd, false); err != nil {
			t.Fatal(err)
		}
		merged, _, err := Merge(sd, []Part{{back.Adapter("task"), 1}}, ExtraOnly)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		net, err := zoo.Load(merged, zoo.Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want, err := n.Net()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(logits(t, net), logits(t, want)) {
			t.Errorf("%s: the adapter on its base gives other logits", name)
		}
		// The base is untouched, and another is refused.
		w, _ := sd.Get("layer1.0.conv1.weight")
		w.Data.([]float32)[0]++
		if err := back.Check(sd, false); err == nil && !slices.Contains([]Method{Full, Scratch, LwF}, Method(name)) {
			t.Errorf("%s: another base is accepted", name)
		}
	}
}
