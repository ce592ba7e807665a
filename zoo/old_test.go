package zoo

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/resnet"
)

func randomMap(n, h, w, c int, seed uint64) *conv.Map {
	rng := rand.New(rand.NewPCG(seed, 1))
	m := conv.NewMap(n, h, w, c)
	for i := range m.Data {
		m.Data[i] = float32(rng.NormFloat64())
	}
	return m
}

func TestOldAndNewAgreeToTheBit(t *testing.T) {
	ctx := context.Background()
	d1 := 1
	for _, c := range []struct {
		arch string
		opt  resnet.NewOptions
	}{{"resnet20", resnet.NewOptions{Seed: 1}}, {"resnet20", resnet.NewOptions{Seed: 2, Projection: true}}, {"resnet18", resnet.NewOptions{Seed: 3}},
		{"resnet50", resnet.NewOptions{Seed: 4}}, {"resnet50", resnet.NewOptions{Seed: 4, StrideFirst: true, ZeroGain: true}},
		{"resnet20", resnet.NewOptions{Seed: 5, Segment: true, Dilate: &d1}}, {"resnet18", resnet.NewOptions{Seed: 5, Segment: true}}} {
		old, err := resnet.New(c.arch, 10, c.opt)
		if err != nil {
			t.Fatal(err)
		}
		g, err := New(c.arch, 10, NewOptions{Seed: c.opt.Seed, Projection: c.opt.Projection, StrideFirst: c.opt.StrideFirst, ZeroGain: c.opt.ZeroGain, Segment: c.opt.Segment, Dilate: c.opt.Dilate})
		if err != nil {
			t.Fatal(err)
		}
		if old.MACs() != g.MACs() || old.Params() != g.Params() {
			t.Errorf("%s: macs %d %d params %d %d", c.arch, old.MACs(), g.MACs(), old.Params(), g.Params())
		}
		sd, err := old.StateDict()
		if err != nil {
			t.Fatal(err)
		}
		g1, err := Load(sd, Options{})
		if err != nil {
			t.Fatal(err)
		}
		sd2, err := g1.StateDict()
		if err != nil {
			t.Fatal(err)
		}
		g2, err := Load(sd2, Options{})
		if err != nil {
			t.Fatal(err)
		}
		side := 32
		if c.arch != "resnet20" {
			side = 64
		}
		x := randomMap(3, side, side, 3, 9)
		p, err := old.Compile()
		if err != nil {
			t.Fatal(err)
		}
		want, err := p.Forward(ctx, x, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i, net := range []*graph.Graph{g, g1, g2} {
			q, err := net.Compile()
			if err != nil {
				t.Fatal(err)
			}
			got, err := q.Forward(ctx, x, 0)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s %d: logits differ", c.arch, i)
			}
		}
		for _, fixed := range []bool{false, true} {
			for mode := range 4 {
				name := func(p string) bool {
					switch mode {
					case 1:
						return p[:5] == "layer" && p[5] >= '2'
					case 2:
						return p == old.Head.Name+".weight"
					case 3:
						return p == "layer2.0.conv1.weight" || p == "layer3.0.bn1.weight"
					}
					return true
				}
				ol, err := old.NewLearner(resnet.LearnerOptions{FixedNorms: fixed, Learn: func(p *resnet.Param) bool { return name(p.Name) }})
				if err != nil {
					t.Fatal(err)
				}
				nl, err := g.NewLearner(graph.LearnerOptions{FixedNorms: fixed, Learn: func(p *graph.Param) bool { return name(p.Name) }})
				if err != nil {
					t.Fatal(err)
				}
				for range 2 {
					a, err := ol.Forward(ctx, x, 0)
					if err != nil {
						t.Fatal(err)
					}
					b, err := nl.Forward(ctx, x, 0)
					if err != nil {
						t.Fatal(err)
					}
					if !slices.Equal(a, b) {
						t.Errorf("%s fixed %v mode %d: learner logits differ", c.arch, fixed, mode)
					}
					gr := randomMap(1, 1, 1, len(a), 4).Data
					if err := ol.Backward(ctx, slices.Clone(gr), 0); err != nil {
						t.Fatal(err)
					}
					if err := nl.Backward(ctx, slices.Clone(gr), 0); err != nil {
						t.Fatal(err)
					}
				}
				by := map[string]*graph.Param{}
				for _, p := range nl.Params() {
					by[p.Name] = p
				}
				if len(by) != len(ol.Params()) {
					t.Errorf("%s: %d params, %d", c.arch, len(by), len(ol.Params()))
				}
				for _, p := range ol.Params() {
					if q := by[p.Name]; q == nil || !slices.Equal(p.Grad, q.Grad) || q.Unit != p.Unit || q.Kind.String() != p.Kind.String() {
						t.Errorf("%s fixed %v mode %d: gradient of %s differs", c.arch, fixed, mode, p.Name)
						break
					}
				}
				s1, s2 := ol.Statistics(), nl.Statistics()
				_ = s1
				_ = s2
				if ol.Cacheable() != nl.Cacheable() {
					t.Logf("%s fixed %v mode %d: cacheable %v %v", c.arch, fixed, mode, ol.Cacheable(), nl.Cacheable())
				}
			}
		}
	}
}
