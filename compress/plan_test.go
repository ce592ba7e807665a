package compress

import (
	"errors"
	"math"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/lowrank-go/lowrank/zoo/letters"
)

// random is a plan of made-up layers.
func random(seed uint64) *Planned {
	rng := rand.New(rand.NewPCG(seed, 7))
	p := &Planned{Params: 100 + rng.IntN(100), MACs: int64(1000 + rng.IntN(1000)), MS: 1 + rng.Float64()}
	for range 1 + rng.IntN(8) {
		s := PlannedSite{Params: 50 + rng.IntN(1000), MACs: int64(500 + rng.IntN(5000)), MS: .1 + rng.Float64()}
		for range rng.IntN(7) {
			s.Candidates = append(s.Candidates, Candidate{Method: SVD, Rank: []int{1}, Params: 1 + rng.IntN(1200), MACs: int64(1 + rng.IntN(6000)),
				MS: 1.2 * rng.Float64(), Damage: rng.ExpFloat64()})
		}
		p.Params, p.MACs, p.MS = p.Params+s.Params, p.MACs+s.MACs, p.MS+s.MS
		p.Sites = append(p.Sites, s)
	}
	return p
}

func TestAChoiceNeverExceedsItsBudgetsNorMakesALayerDearer(t *testing.T) {
	kept := 0
	for seed := range uint64(300) {
		p := random(seed)
		budgets := []Budget{{Metric: MACs, Value: .4 + .6*float64(seed%7)/7, Share: true}}
		switch seed % 3 {
		case 1:
			budgets = append(budgets, Budget{Metric: Params, Value: .7, Share: true})
		case 2:
			budgets = []Budget{{Metric: MS, Value: .8 * p.MS, Share: false}}
		}
		c, err := p.Choose(budgets)
		if errors.Is(err, ErrBudget) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		kept++
		for _, b := range budgets {
			if got, most := costIn(b.Metric, c.Params, c.MACs, c.MS), b.Of(p.total(b.Metric)); got > most*(1+1e-12) {
				t.Errorf("seed %d: %v: %g of %g", seed, b, got, most)
			}
			for i, at := range c.Picks {
				if s := &p.Sites[i]; at >= 0 && s.Candidates[at].cost(b.Metric) > s.cost(b.Metric) {
					t.Errorf("seed %d: layer %d becomes dearer in %s", seed, i, b.Metric)
				}
			}
		}
	}
	if kept < 100 {
		t.Errorf("only %d budgets could be kept", kept)
	}
	if _, err := random(1).Choose([]Budget{{Metric: MACs, Value: 1e-9, Share: true}}); !errors.Is(err, ErrBudget) {
		t.Errorf("an impossible budget gives %v", err)
	}
}

func TestAPlanIsBuiltAsPromisedAndAgainFromItsFile(t *testing.T) {
	g := lettersNet(t)
	set := images(t, letters.Data, 24)
	stats, err := Collect(t.Context(), g, set, CollectOptions{Full: 300})
	if err != nil {
		t.Fatal(err)
	}
	opt := PlanOptions{Methods: []Method{SVD, SVDIn, Spatial, Tucker}, Step: 8, Statistics: stats, Images: set, Layers: []string{"layer*"}}
	p, err := Plan(t.Context(), g, opt)
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.Choose([]Budget{{Metric: MACs, Value: .6, Share: true}})
	if err != nil {
		t.Fatal(err)
	}
	out, results, err := p.Build(t.Context(), g, c, stats, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if out.MACs() != c.MACs || out.Params() != c.Params || float64(c.MACs) > .6*float64(g.MACs()) {
		t.Errorf("%d MACs and %d parameters, promised %d and %d", out.MACs(), out.Params(), c.MACs, c.Params)
	}
	for i, r := range results {
		if c.Picks[i] < 0 {
			if r.Reason == "" || r.MACsAfter != r.MACsBefore {
				t.Errorf("%s stays without a reason", r.Name)
			}
			continue
		}
		if want := p.Sites[i].Candidates[c.Picks[i]].Error; !(math.Abs(r.OutputError-want) < 1e-3*(1+want)) {
			t.Errorf("%s: error %g, promised %g", r.Name, r.OutputError, want)
		}
	}
	if r := results[0]; r.Name != "conv1" || r.Reason != "not chosen" {
		t.Errorf("the first layer: %+v", r)
	}
	path := filepath.Join(t.TempDir(), "plan.json")
	if err := p.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	q, err := ReadPlan(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := q.Choose([]Budget{{Metric: MACs, Value: .6, Share: true}})
	if err != nil || !reflect.DeepEqual(again, c) {
		t.Errorf("from the file the choice is another, or %v", err)
	}
	if _, _, err := q.Build(t.Context(), g, again, nil, Options{}); !errors.Is(err, ErrPlan) {
		t.Errorf("without its statistics: %v", err)
	}
	// Data-aware chains of equal cost do less to the network.
	opt.Statistics = nil
	free, err := Plan(t.Context(), g, opt)
	if err != nil {
		t.Fatal(err)
	}
	d, err := free.Choose([]Budget{{Metric: MACs, Value: .6, Share: true}})
	if err != nil {
		t.Fatal(err)
	}
	plain, _, err := free.Build(t.Context(), g, d, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	test := images(t, letters.Data, 200)
	a, err := Divergence(t.Context(), g, out, test, 0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Divergence(t.Context(), g, plain, test, 0)
	if err != nil || !(a < b) {
		t.Errorf("divergence with data %g, without %g, %v", a, b, err)
	}
}

func TestBadPlansAreRefused(t *testing.T) {
	for _, s := range []string{"", "{}", "[]", `{"params":1,"macs":1,"sites":[{"name":"a","candidates":[{"method":"svd","rank":[]}]}]}`,
		`{"params":1,"macs":1,"sites":[{"name":"a","candidates":[{"method":"tucker","rank":[1],"params":1}]}]}`,
		`{"params":1,"macs":1,"sites":[{"name":"a","candidates":[{"method":"svd","rank":[-4],"params":1}]}]}`} {
		if _, err := ParsePlan([]byte(s)); !errors.Is(err, ErrPlan) {
			t.Errorf("%s gives %v", s, err)
		}
	}
}

func FuzzParsePlan(f *testing.F) {
	f.Add([]byte(`{"params":10,"macs":10,"sites":[{"name":"a","params":5,"macs":5,"candidates":[{"method":"svd","rank":[1],"params":2,"macs":2,"damage":1}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePlan(data)
		if err != nil || len(p.Sites) > 6 {
			return
		}
		if c, err := p.Choose([]Budget{{Metric: MACs, Value: .5, Share: true}}); err == nil && float64(c.MACs) > .5*float64(p.MACs)+1 {
			t.Errorf("%d of %d", c.MACs, p.MACs)
		}
	})
}
