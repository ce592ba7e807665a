package adapt

import (
	"errors"
	"math"
	"testing"

	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/zoo"
)

// What was trained as a low-rank change is found again, whatever the kind.
func TestExtractionFindsWhatHasThatRank(t *testing.T) {
	b := base(t, "cifar_pad")
	sd, err := b.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	for method, rank := range map[Method][]int{"lora": {2}, "tucker": {2, 3}, "spatial": {1}, "residual-serial": nil, "conv1d-dense": nil, "full-change": nil} {
		n, err := New(b, Options{Method: method, Rank: rank, Classes: 3, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			step(t, n, .05)
		}
		tuned, err := n.Net()
		if err != nil {
			t.Fatal(err)
		}
		e, err := Extract(t.Context(), b, tuned, ExtractOptions{Method: method, Rank: rank})
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		// The difference of the kernels is rounded to the precision of their sum.
		if e.RelError > 1e-3 || len(e.Changes) != len(n.Changes) {
			t.Errorf("%s: relative error %g in %d kernels of %d", method, e.RelError, len(e.Changes), len(n.Changes))
		}
		if e.Adapter.Norm != n.Options.Norms {
			t.Errorf("%s: batch norms %s, want %s", method, e.Adapter.Norm, n.Options.Norms)
		}
		merged, _, err := Merge(sd, []Part{{e.Adapter, 1}}, ExtraOnly)
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		got, err := zoo.Load(merged, zoo.Options{})
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		want := logits(t, tuned)
		for i, v := range logits(t, got) {
			if math.Abs(float64(v-want[i])) > 1e-4 {
				t.Errorf("%s: logit %d is %g, the fine-tuned network's %g", method, i, v, want[i])
			}
		}
	}
}

func TestBudgetsAreKept(t *testing.T) {
	b, tuned := base(t, "bottleneck"), base(t, "bottleneck")
	tuned.Randomise(3)
	for _, method := range []Method{"lora", "lora-view", "tucker", "tkdcpd"} {
		last := math.Inf(1)
		for _, budget := range []int64{10, 200, 1000, 1 << 20} {
			e, err := Extract(t.Context(), b, tuned, ExtractOptions{Method: method, Budget: budget})
			if err != nil {
				t.Fatal(err)
			}
			if n := int64(e.Adapter.Params()); n > budget {
				t.Errorf("%s: a budget of %d gives %d parameters", method, budget, n)
			}
			if e.RelError > last {
				t.Errorf("%s: a budget of %d loses %g, a smaller one %g", method, budget, e.RelError, last)
			}
			last = e.RelError
			for _, c := range e.Changes {
				if skipped := c.Rank[0] == 0; skipped != (c.RelError == 1) {
					t.Errorf("%s, %s: rank %v with an error of %g", method, c.Module, c.Rank, c.RelError)
				}
			}
		}
		if last > 1e-5 && method != "tkdcpd" { // whose CP has no more terms than the larger mode
			t.Errorf("%s: all ranks lose %g", method, last)
		}
	}
}

func TestWhatCannotBeExtractedIsAnError(t *testing.T) {
	b, tuned := base(t, "cifar_pad"), base(t, "cifar_pad")
	tuned.Randomise(3)
	for name, c := range map[string]struct {
		base *graph.Graph
		opt  ExtractOptions
		want error
	}{
		"method":               {b, ExtractOptions{Method: "prompt"}, ErrOption},
		"no kernels":           {b, ExtractOptions{Method: BN}, ErrOption},
		"ranks":                {b, ExtractOptions{Method: "lora", Rank: []int{1, 2}}, ErrOption},
		"budget":               {b, ExtractOptions{Method: "loha", Budget: 100}, ErrOption},
		"another architecture": {base(t, "basic"), ExtractOptions{Method: "lora"}, peft.ErrBase},
		"another shape":        {base(t, "cifar_projection"), ExtractOptions{Method: "lora"}, peft.ErrBase},
	} {
		if _, err := Extract(t.Context(), c.base, tuned, c.opt); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	same, err := Extract(t.Context(), b, b, ExtractOptions{Method: "lora", Rank: []int{1}})
	if err != nil || len(same.Changes) > 0 || same.Adapter.Extra.Len() > 0 || same.RelError != 0 {
		t.Errorf("nothing to extract gave %+v, %v", same, err)
	}
}
