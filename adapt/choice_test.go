package adapt

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/zoo"
)

// spent is what the changes of a network cost.
func spent(n *Network) (params, macs int64) {
	for _, s := range n.Base.Sites() {
		if d, ok := n.Changes[s.Name]; ok {
			spec := d.Spec()
			params += int64(d.Params())
			macs += spec.MACs(s.H, s.W)
		}
	}
	return params, macs
}

func TestABudgetIsNeverExceeded(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for _, file := range []string{"cifar_pad", "cifar_projection", "bottleneck", "basic"} {
		b := base(t, file)
		for name, m := range methods {
			if m.kind == "" || len(m.rank) == 0 || m.kind == peft.LoKr || m.kind == peft.LoHa {
				continue
			}
			for range 4 {
				o := Options{Method: name, Classes: 3, DoRA: rng.IntN(2) == 0, Learned: rng.IntN(2) == 0,
					Gradients: anyGradients(b), Choose: Choice{Of: []Source{"", Kernel, Gradient}[rng.IntN(3)]}}
				o.Choose.Params = int64(rng.IntN(6000)) + 1
				n, err := New(b, o)
				if err != nil {
					if !errors.Is(err, ErrOption) || !strings.Contains(err.Error(), "the least ranks") {
						t.Fatalf("%s: %v", name, err)
					}
				} else if p, _ := spent(n); p > o.Choose.Params {
					t.Errorf("%s, %s: %d parameters of %d", file, name, p, o.Choose.Params)
				}
				o.Choose.Params, o.Choose.MACs = 0, int64(rng.IntN(1<<18))+1
				n, err = New(b, o)
				if err != nil {
					if !errors.Is(err, ErrOption) {
						t.Fatalf("%s: %v", name, err)
					}
				} else if _, macs := spent(n); macs > o.Choose.MACs || macs == 0 {
					t.Errorf("%s, %s: %d MACs of %d", file, name, macs, o.Choose.MACs)
				}
			}
		}
	}
}

// The error of a budget that is too small tells the least, which is enough.
func TestTheLeastBudget(t *testing.T) {
	b := base(t, "cifar_pad")
	n, err := New(b, Options{Method: "tkdcpd", Rank: []int{1}, Classes: 3})
	if err != nil {
		t.Fatal(err)
	}
	params, macs := spent(n)
	for _, c := range []Choice{{Params: params}, {MACs: macs}} {
		n, err := New(b, Options{Method: "tkdcpd", Choose: c, Classes: 3})
		if err != nil {
			t.Fatal(err)
		}
		for name, d := range n.Changes {
			if slices.Max(d.Spec().Rank) > 1 {
				t.Errorf("%s: ranks %v", name, d.Spec().Rank)
			}
		}
		c.Params, c.MACs = max(0, c.Params-1), max(0, c.MACs-1)
		_, err = New(b, Options{Method: "tkdcpd", Choose: c, Classes: 3})
		if !errors.Is(err, ErrOption) {
			t.Fatalf("one less: %v", err)
		}
		t.Log(err)
	}
}

// withRank is made-up gradients of the given rank, and noise.
func withRank(n *graph.Graph, rank int, noise float64) map[string][]float32 {
	rng := rand.New(rand.NewPCG(3, 3))
	g := map[string][]float32{}
	for _, s := range n.Sites() {
		shape, _ := s.Chain.Shape()
		o, k := shape[0], shape[1]*shape[2]*shape[3]
		x := make([]float32, o*k)
		for range rank {
			u, v := make([]float64, o), make([]float64, k)
			for _, f := range [][]float64{u, v} {
				for i := range f {
					f[i] = rng.NormFloat64()
				}
			}
			for i := range x {
				x[i] += float32(u[i/k] * v[i%k])
			}
		}
		for i := range x {
			x[i] += float32(noise * rng.NormFloat64())
		}
		g[s.Name] = x
	}
	return g
}

// Of a gradient of rank 2 rules find 2, and a large budget spends no more.
func TestRanksOfAGradientAreFound(t *testing.T) {
	b, err := zoo.New("resnet20", 10, zoo.NewOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]Choice{"energy": {Rule: &peft.Rule{Energy: .999}}, "vbmf": {Rule: &peft.Rule{}}} {
		c.Of = Gradient
		n, err := New(b, Options{Method: "lora", Choose: c, Gradients: withRank(b, 2, .01), Classes: 3})
		if err != nil {
			t.Fatal(err)
		}
		for name, d := range n.Changes {
			if r := d.Spec().Rank[0]; r != 2 {
				t.Errorf("%s, %s: rank %d", what, name, r)
			}
		}
	}
	// Where two layers ask for much, they get what there is.
	g := withRank(b, 3, 0)
	for name, x := range g {
		if name != "layer1.0.conv1" && name != "layer3.2.conv2" {
			for i := range x {
				x[i] *= 1e-3
			}
		}
	}
	n, err := New(b, Options{Method: "lora", Choose: Choice{Params: 8500, Of: Gradient}, Gradients: g, Classes: 3})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"layer1.0.conv1", "layer3.2.conv2"} {
		if r := n.Changes[name].Spec().Rank[0]; r < 3 {
			t.Errorf("%s: rank %d", name, r)
		}
	}
}

func TestChosenRanksWithAStartAndAScale(t *testing.T) {
	b := base(t, "cifar_pad")
	n, err := New(b, Options{Method: "cp", Choose: Choice{Rule: &peft.Rule{Energy: .5}}, Start: FromKernel, Alpha: 4, Classes: 3})
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range n.Changes {
		s := d.Spec()
		if math.Abs(s.Scale*float64(s.Rank[0])-4) > 1e-9 || !s.Anchored {
			t.Errorf("%s: rank %v, scale %g, anchored %t", name, s.Rank, s.Scale, s.Anchored)
		}
	}
}

// A layer that no gradient reaches gets the least rank there is, and learns.
func TestLayersWithoutGradients(t *testing.T) {
	b := base(t, "cifar_pad")
	g := anyGradients(b)
	clear(g["layer1.0.conv1"])
	for _, method := range []Method{"lora", "cp", "tucker"} {
		for what, c := range map[string]Choice{"vbmf": {Rule: &peft.Rule{}}, "energy": {Rule: &peft.Rule{Energy: .9}}, "params": {Params: 2000}} {
			c.Of = Gradient
			n, err := New(b, Options{Method: method, Choose: c, Start: FromGradient, Gradients: g, Classes: 3})
			if err != nil {
				t.Fatalf("%s, %s: %v", method, what, err)
			}
			if r := n.Changes["layer1.0.conv1"].Spec().Rank; slices.Max(r) != 1 {
				t.Errorf("%s, %s: ranks %v", method, what, r)
			}
			step(t, n, .01)
			if got := moved(t, n); got != len(n.Changes) {
				t.Errorf("%s, %s: %d changes of %d move", method, what, got, len(n.Changes))
			}
		}
	}
}

func TestChoicesThatMakeNoSenseAreErrors(t *testing.T) {
	b := base(t, "cifar_pad")
	rule := &peft.Rule{}
	for what, o := range map[string]Options{
		"a rule and ranks":     {Method: "lora", Rank: []int{2}, Choose: Choice{Rule: rule}},
		"two budgets":          {Method: "lora", Choose: Choice{Params: 10000, MACs: 10000}},
		"a rule and a budget":  {Method: "lora", Choose: Choice{Rule: rule, Params: 10000}},
		"less than nothing":    {Method: "lora", Choose: Choice{Params: -1}},
		"an energy":            {Method: "lora", Choose: Choice{Rule: &peft.Rule{Energy: 2}}},
		"a source":             {Method: "lora", Choose: Choice{Rule: rule, Of: "loss"}},
		"a source of nothing":  {Method: "lora", Choose: Choice{Of: Gradient}},
		"no gradients":         {Method: "lora", Choose: Choice{Rule: rule, Of: Gradient}},
		"no start's gradients": {Method: "lora", Start: FromGradient},
		"gradients of others":  {Method: "lora", Start: FromGradient, Gradients: map[string][]float32{"layer1.0.conv1": make([]float32, 3)}},
		"no ranks":             {Method: "residual-serial", Choose: Choice{Rule: rule}},
		"no changes":           {Method: BN, Choose: Choice{Params: 1000}},
		"modules":              {Method: "bottleneck", Choose: Choice{Params: 1000}},
		"lokr":                 {Method: "lokr", Choose: Choice{Rule: rule}},
		"a budget of loha":     {Method: "loha", Choose: Choice{Params: 100000}},
		"no chain":             {Method: "lora-view", Choose: Choice{MACs: 1 << 40}},
		"a start":              {Method: "lora", Start: "pissa"},
		"a start of modules":   {Method: "bottleneck", Start: FromKernel},
		"a pattern":            {Method: "lora", Layers: []string{"layer1.*", "layer[2"}},
		"a pattern of nothing": {Method: "lora", Layers: []string{"layer1.*", "nothing"}},
	} {
		o.Classes = 3
		if _, err := New(b, o); !errors.Is(err, ErrOption) {
			t.Errorf("%s: %v", what, err)
		}
	}
	bad := anyGradients(b)
	bad["layer1.0.conv1"][2] = float32(math.NaN())
	if _, err := New(b, Options{Method: "lora", Start: FromGradient, Gradients: bad, Classes: 3}); !errors.Is(err, ErrOption) {
		t.Errorf("a gradient that is not finite: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewContext(ctx, b, Options{Method: "cp", Start: FromKernel, Classes: 3}); !errors.Is(err, context.Canceled) || errors.Is(err, ErrOption) {
		t.Errorf("cancelled: %v", err)
	}
}
