package zoo

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
)

// product is the change B·A of a T×(S·k²) kernel: what LoRA is.
type product struct {
	rank, outs, ins int
	a, b            *graph.Param
}

func (d product) Materialise(dst, _ []float32) {
	for o := range d.outs {
		for r := range d.rank {
			for i := range d.ins {
				dst[o*d.ins+i] += d.b.Value[o*d.rank+r] * d.a.Value[r*d.ins+i]
			}
		}
	}
}

func (d product) Pull(g, _ []float32) {
	clear(d.a.Grad)
	clear(d.b.Grad)
	for o := range d.outs {
		for r := range d.rank {
			for i := range d.ins {
				d.b.Grad[o*d.rank+r] += g[o*d.ins+i] * d.a.Value[r*d.ins+i]
				d.a.Grad[r*d.ins+i] += g[o*d.ins+i] * d.b.Value[o*d.rank+r]
			}
		}
	}
}

// series is the change α ×₁ W.
type series struct {
	outs int
	a    *graph.Param
}

func (d series) Materialise(dst, base []float32) {
	n := len(base) / d.outs
	for o := range d.outs {
		for p := range d.outs {
			for i := range n {
				dst[o*n+i] += d.a.Value[o*d.outs+p] * base[p*n+i]
			}
		}
	}
}

func (d series) Pull(g, base []float32) {
	clear(d.a.Grad)
	n := len(base) / d.outs
	for o := range d.outs {
		for p := range d.outs {
			for i := range n {
				d.a.Grad[o*d.outs+p] += g[o*n+i] * base[p*n+i]
			}
		}
	}
}

func randomParam(rng *rand.Rand, name string, n int) *graph.Param {
	p := &graph.Param{Name: name, Value: make([]float32, n), Grad: make([]float32, n)}
	for i := range p.Value {
		p.Value[i] = float32(rng.NormFloat64() / 4)
	}
	return p
}

// adaptions gives every 3×3 convolution a change, as branches or materialised.
func adaptions(seed uint64, serial, branches bool) func(s graph.Site) (*graph.Adaption, error) {
	rng := rand.New(rand.NewPCG(seed, 0))
	return func(u graph.Site) (*graph.Adaption, error) {
		k := u.Chain.Stages[0]
		if k.Taps() == 1 {
			return nil, nil
		}
		outs, ins, rank := k.Shape[0], k.Shape[1]*k.Taps(), 3
		if serial {
			d := series{outs, randomParam(rng, u.Name+".alpha", outs*outs)}
			a := &graph.Adaption{Params: []*graph.Param{d.a}, Delta: d}
			if branches {
				a.Serial = &graph.Branch{
					Chain: conv.NewDense(&conv.Kernel{Shape: [4]int{outs, outs, 1, 1}, Weight: make([]float32, outs*outs)}),
					Load:  func(_ int, w []float32) { copy(w, d.a.Value) },
					Store: func(_ int, g []float32) { copy(d.a.Grad, g) },
				}
			}
			return a, nil
		}
		d := product{rank, outs, ins, randomParam(rng, u.Name+".a", rank*ins), randomParam(rng, u.Name+".b", outs*rank)}
		a := &graph.Adaption{Params: []*graph.Param{d.a, d.b}, Delta: d}
		if branches {
			params := []*graph.Param{d.a, d.b}
			a.Parallel = &graph.Branch{
				Chain: &conv.Chain{Kind: conv.SVD, Rank: []int{rank}, Groups: 1, Stages: []*conv.Kernel{
					{Shape: [4]int{rank, k.Shape[1], k.Shape[2], k.Shape[3]}, Weight: make([]float32, rank*ins), Geometry: k.Geometry},
					{Shape: [4]int{outs, rank, 1, 1}, Weight: make([]float32, outs*rank)},
				}},
				Load:  func(i int, w []float32) { copy(w, params[i].Value) },
				Store: func(i int, g []float32) { copy(params[i].Grad, g) },
			}
		}
		return a, nil
	}
}

func TestBranchesAndMaterialisedChangesAreTheSame(t *testing.T) {
	for _, f := range resnets {
		for _, serial := range []bool{false, true} {
			for _, fixed := range []bool{false, true} {
				net := residual(t, f.name, f.opt)
				x, _ := reference(t, f.name)
				frozen := func(p *graph.Param) bool { return p.Unit == net.Head.Name || p.Kind == graph.Gain && !fixed }
				a := learner(t, net, graph.LearnerOptions{FixedNorms: fixed, Learn: frozen, Adapt: adaptions(1, serial, false)})
				b := learner(t, net, graph.LearnerOptions{FixedNorms: fixed, Learn: frozen, Adapt: adaptions(1, serial, true)})
				pass(t, a, x, 2)
				pass(t, b, x, 1)
				for _, l := range []*graph.Learner{a, b} {
					for _, p := range l.Params() { // a step, after which weights are stale
						for i, g := range p.Grad {
							p.Value[i] -= .01 * g
						}
					}
					l.Updated()
				}
				if la, lb := pass(t, a, x, 2), pass(t, b, x, 2); math.Abs(la-lb) > 1e-4*la {
					t.Errorf("%s, serial %v, fixed %v: loss %g materialised, %g by branches", f.name, serial, fixed, la, lb)
				}
				for i, p := range a.Params() {
					q := b.Params()[i]
					if d := relative(q.Grad, p.Grad); p.Name != q.Name || d > 1e-3 {
						t.Errorf("%s, serial %v, fixed %v: gradient of %s differs by %.2g", f.name, serial, fixed, p.Name, d)
					}
				}
				// A third learner goes on from the state of the second.
				state, err := b.State()
				if err != nil {
					t.Fatal(err)
				}
				c := learner(t, net, graph.LearnerOptions{FixedNorms: fixed, Learn: frozen, Adapt: adaptions(2, serial, true)})
				if err := c.SetState(state); err != nil {
					t.Fatal(err)
				}
				if lb, lc := pass(t, b, x, 2), pass(t, c, x, 2); lb != lc {
					t.Errorf("%s, serial %v, fixed %v: loss %g, from its state %g", f.name, serial, fixed, lb, lc)
				}
				if !fixed {
					continue
				}
				// Merged, the network gives what the learner gives.
				want, err := b.Forward(t.Context(), x, 2)
				if err != nil {
					t.Fatal(err)
				}
				merged, err := b.Net()
				if err != nil {
					t.Fatal(err)
				}
				if d := relative(logits(t, merged, x, 2), want); d > 1e-4 {
					t.Errorf("%s, serial %v: the merged network differs by %.2g", f.name, serial, d)
				}
			}
		}
	}
}

func TestTheBaseOfAnAdaptionStaysAsItIs(t *testing.T) {
	net := residual(t, "cifar_pad", Options{})
	var before [][]float32
	for _, s := range net.Sites() {
		before = append(before, slices.Clone(s.Chain.Stages[0].Weight))
	}
	l := learner(t, net, graph.LearnerOptions{Learn: func(p *graph.Param) bool { return false }, Adapt: adaptions(1, false, false)})
	step := stepper(t, l, randomMap(1, 4, 16, 16, 3), 2)
	for range 3 {
		step()
	}
	for i, s := range net.Sites() {
		if !slices.Equal(s.Chain.Stages[0].Weight, before[i]) {
			t.Errorf("%s changed", s.Name)
		}
	}
	if _, err := net.NewLearner(graph.LearnerOptions{Adapt: func(graph.Site) (*graph.Adaption, error) { return &graph.Adaption{}, nil }}); !errors.Is(err, conv.ErrShape) {
		t.Errorf("an empty adaption gave %v", err)
	}
}
