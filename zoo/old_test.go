package zoo

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/resnet"
)

func randomMap(seed uint64, n, h, w, c int) *conv.Map {
	rng := rand.New(rand.NewPCG(seed, 1))
	m := conv.NewMap(n, h, w, c)
	for i := range m.Data {
		m.Data[i] = float32(rng.NormFloat64())
	}
	return m
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// far is how far two slices are apart, relatively; 0 means to the bit.
func far(a, b []float32) float64 {
	if len(a) != len(b) {
		return 1e9
	}
	if slices.Equal(a, b) {
		return 0
	}
	var d, n float64
	for i := range a {
		d += (float64(a[i]) - float64(b[i])) * (float64(a[i]) - float64(b[i]))
		n += float64(b[i]) * float64(b[i])
	}
	return max(d/max(n, 1e-12), 1e-30)
}

// apart is the largest difference: of what a batch norm takes away it is rounding alone.
func apart(a, b []float32) float64 {
	var d float64
	for i := range a {
		d = max(d, math.Abs(float64(a[i]-b[i])))
	}
	return d
}

type both struct {
	name string
	old  *resnet.Net
	g    *graph.Graph
	tol  float64 // squared and relative, of programs
	seg  bool
	// grad is of learners' gradients.
	grad float64
}

var inputs = [][3]int{{3, 32, 32}, {1, 32, 32}, {3, 29, 35}, {1, 37, 26}}

func (b *both) programs(t *testing.T) {
	t.Helper()
	if b.old.MACs() != b.g.MACs() || b.old.Params() != b.g.Params() {
		t.Errorf("%s: macs %d %d params %d %d", b.name, b.old.MACs(), b.g.MACs(), b.old.Params(), b.g.Params())
	}
	o, n := b.old.Sites(), b.g.Sites()
	if len(o) != len(n) {
		t.Fatalf("%s: %d sites, %d", b.name, len(o), len(n))
	}
	for i, s := range o {
		if s.Name != n[i].Name || s.H != n[i].H || s.W != n[i].W || s.Linear != n[i].Linear || (s.Norm == nil) != (n[i].Norm == nil) || s.Norm != nil && s.Norm.Name != n[i].Norm.Name {
			t.Errorf("%s: site %d is %s %d %d, %s %d %d", b.name, i, s.Name, s.H, s.W, n[i].Name, n[i].H, n[i].W)
		}
	}
	p, q := must[*resnet.Program](t)(b.old.Compile()), must[*graph.Program](t)(b.g.Compile())
	for i, s := range inputs {
		x := randomMap(uint64(i), s[0], s[1], s[2], 3)
		want := must[[]float32](t)(p.Forward(t.Context(), x, 2))
		got := must[[]float32](t)(q.Forward(t.Context(), x, 1+i%2))
		if d := far(got, want); d > b.tol {
			t.Errorf("%s %v: logits differ by %g", b.name, s, d)
		}
	}
}

// sameState compares tensors of two state dicts.
func sameState(t *testing.T, name string, a, b *model.StateDict, tol float64) {
	t.Helper()
	na, nb := slices.Sorted(slices.Values(a.Names())), slices.Sorted(slices.Values(b.Names()))
	if !slices.Equal(na, nb) {
		t.Errorf("%s: tensors %v\n%v", name, na, nb)
		return
	}
	for _, n := range na {
		x, _ := a.Get(n)
		y, _ := b.Get(n)
		if !slices.Equal(x.Shape, y.Shape) {
			t.Errorf("%s: %s %v %v", name, n, x.Shape, y.Shape)
		}
		switch v := x.Data.(type) {
		case []float32:
			if d := far(y.Data.([]float32), v); d > tol {
				t.Errorf("%s: %s differs by %g", name, n, d)
			}
		case []int64:
			if !slices.Equal(v, y.Data.([]int64)) {
				t.Errorf("%s: %s differs: %v %v", name, n, v, y.Data)
			}
		}
	}
}

type learning struct {
	name         string
	fixed, norms bool
	learn        func(name, unit string, module bool) bool
	adapt        int
}

func (b *both) learners(t *testing.T, c learning) {
	t.Helper()
	name := fmt.Sprintf("%s/%s fixed %v norms %v adapt %d", b.name, c.name, c.fixed, c.norms, c.adapt)
	makeOld := func() *resnet.Learner {
		oo := resnet.LearnerOptions{FixedNorms: c.fixed, ModuleNorms: c.norms}
		if c.learn != nil {
			oo.Learn = func(p *resnet.Param) bool { return c.learn(p.Name, p.Unit, p.Module) }
		}
		if c.adapt > 0 {
			oo.Adapt = oldAdaptions(7, c.adapt)
		}
		return must[*resnet.Learner](t)(b.old.NewLearner(oo))
	}
	makeNew := func() *graph.Learner {
		oo := graph.LearnerOptions{FixedNorms: c.fixed, ModuleNorms: c.norms}
		if c.learn != nil {
			oo.Learn = func(p *graph.Param) bool { return c.learn(p.Name, p.Unit, p.Module) }
		}
		if c.adapt > 0 {
			oo.Adapt = newAdaptions(7, c.adapt)
		}
		return must[*graph.Learner](t)(b.g.NewLearner(oo))
	}
	ol, nl := makeOld(), makeNew()
	ctx := t.Context()
	compare := func(ol *resnet.Learner, nl *graph.Learner, name string, tolerance float64) {
		by := map[string]*graph.Param{}
		for _, p := range nl.Params() {
			by[p.Name] = p
		}
		if len(by) != len(ol.Params()) {
			t.Errorf("%s: %d params, %d", name, len(by), len(ol.Params()))
		}
		var largest float32
		for _, p := range ol.Params() {
			for _, g := range p.Grad {
				largest = max(largest, g, -g)
			}
		}
		for _, p := range ol.Params() {
			q := by[p.Name]
			if q == nil || q.Unit != p.Unit || q.Kind.String() != p.Kind.String() || q.Module != p.Module || q.Len() != p.Len() {
				t.Errorf("%s: %s: %+v", name, p.Name, q)
				continue
			}
			if d := far(q.Grad, p.Grad); d > tolerance && !(tolerance > 0 && apart(q.Grad, p.Grad) < 1e-5*float64(largest)) {
				t.Errorf("%s: gradient of %s differs by %g", name, p.Name, d)
			}
			if d := far(q.Value, p.Value); d > tolerance {
				t.Errorf("%s: %s differs by %g", name, p.Name, d)
			}
		}
	}
	pass := func(ol *resnet.Learner, nl *graph.Learner, i int, s [3]int, name string, tolerance float64) {
		x := randomMap(uint64(i)+9, s[0], s[1], s[2], 3)
		want := must[[]float32](t)(ol.Forward(ctx, x, 2))
		got := must[[]float32](t)(nl.Forward(ctx, x, 1+i%2))
		if d := far(got, want); d > tolerance {
			t.Errorf("%s pass %d: logits differ by %g", name, i, d)
		}
		g := randomMap(4, 1, 1, 1, len(want)).Data
		check(t, ol.Backward(ctx, slices.Clone(g), 2))
		check(t, nl.Backward(ctx, slices.Clone(g), 1+i%2))
		compare(ol, nl, fmt.Sprintf("%s pass %d", name, i), tolerance)
		if a, b := ol.Diverged(), nl.Diverged(); a != "" || b != "" {
			t.Errorf("%s: diverged %q %q", name, a, b)
		}
	}
	step := func(ol *resnet.Learner, nl *graph.Learner) {
		for _, p := range ol.Params() {
			for i, g := range p.Grad {
				p.Value[i] -= 1e-5 * g
			}
		}
		for _, p := range nl.Params() {
			for i, g := range p.Grad {
				p.Value[i] -= 1e-5 * g
			}
		}
		ol.Updated()
		nl.Updated()
	}
	sizes := inputs
	if b.grad > 0 {
		// Gradients before a batch norm of a few values are rounding alone.
		sizes = [][3]int{{3, 64, 64}, {2, 61, 67}}
	}
	for i, s := range sizes {
		pass(ol, nl, i, s, name, b.grad)
		if b.grad == 0 {
			step(ol, nl)
		}
	}
	if a, b := len(ol.Statistics()), len(nl.Statistics()); a != b {
		t.Errorf("%s: %d statistics, %d", name, a, b)
	}
	if ol.Cacheable() && !nl.Cacheable() { // points between blocks are found now, too
		t.Errorf("%s: cacheable %v %v", name, ol.Cacheable(), nl.Cacheable())
	}
	if nl.Cacheable() {
		s := sizes[len(sizes)/2]
		x := randomMap(77, s[0], s[1], s[2], 3)
		must[[]float32](t)(ol.Forward(ctx, randomMap(3, 1, 32, 32, 3), 1))
		want := slices.Clone(must[[]float32](t)(ol.Forward(ctx, x, 2)))
		f := must[*conv.Map](t)(nl.Features(ctx, x, 2))
		f = &conv.Map{N: f.N, H: f.H, W: f.W, C: f.C, Data: slices.Clone(f.Data)}
		must[[]float32](t)(nl.Forward(ctx, randomMap(3, 1, 32, 32, 3), 1))
		y := must[[]float32](t)(nl.ForwardFeatures(ctx, f, 2))
		if d := far(y, want); d > b.grad {
			t.Errorf("%s: features give others by %g", name, d)
		}
		if b.seg {
			t.Errorf("%s: cacheable", name)
		}
		g := randomMap(4, 1, 1, 1, len(want)).Data
		check(t, ol.Backward(ctx, slices.Clone(g), 2))
		check(t, nl.Backward(ctx, slices.Clone(g), 2))
		compare(ol, nl, name+" features", b.grad)
	}
	if c.adapt == 0 || c.adapt < 5 {
		on, nn := must[*resnet.Net](t)(ol.Net()), must[*graph.Graph](t)(nl.Net())
		a, b2 := must[*model.StateDict](t)(on.StateDict()), must[*model.StateDict](t)(nn.StateDict())
		sameState(t, name+" net", a, b2, b.grad)
	}
	a, b2 := must[*model.StateDict](t)(ol.State()), must[*model.StateDict](t)(nl.State())
	sameState(t, name+" state", a, b2, b.grad)
	// On from the states, of the old one too.
	for i, sd := range []*model.StateDict{b2, a} {
		oo, no := makeOld(), makeNew()
		check(t, oo.SetState(a))
		if err := no.SetState(sd); err != nil {
			t.Errorf("%s: state %d: %v", name, i, err)
			continue
		}
		pass(oo, no, 1, sizes[len(sizes)/2], name+" from its state", b.grad)
		if i == 0 {
			x := randomMap(8, 2, 32, 32, 3)
			u, v := makeNew(), makeNew()
			check(t, u.SetState(b2))
			check(t, v.SetState(b2))
			if !slices.Equal(must[[]float32](t)(u.Forward(ctx, x, 1)), must[[]float32](t)(v.Forward(ctx, x, 2))) {
				t.Errorf("%s: not reproducible", name)
			}
		}
	}
}

func oldChain(rng *rand.Rand, c *conv.Chain, kind int) *conv.Chain {
	k := c.Stages[0]
	fill := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(rng.NormFloat64() / 4)
		}
		return v
	}
	if kind%2 == 1 {
		return &conv.Chain{Kind: conv.SVD, Rank: []int{3}, Groups: 1, Stages: []*conv.Kernel{
			{Shape: [4]int{3, k.Shape[1], k.Shape[2], k.Shape[3]}, Weight: fill(3 * k.Shape[1] * k.Taps()), Geometry: k.Geometry},
			{Shape: [4]int{k.Out(), 3, 1, 1}, Weight: fill(3 * k.Out()), Bias: k.Bias},
		}}
	}
	return &conv.Chain{Kind: conv.Tucker2, Rank: []int{3, 2}, Groups: 1, Stages: []*conv.Kernel{
		{Shape: [4]int{2, k.Shape[1], 1, 1}, Weight: fill(2 * k.Shape[1])},
		{Shape: [4]int{3, 2, k.Shape[2], k.Shape[3]}, Weight: fill(6 * k.Taps()), Geometry: k.Geometry},
		{Shape: [4]int{k.Out(), 3, 1, 1}, Weight: fill(3 * k.Out()), Bias: k.Bias},
	}}
}

// parameters of adaptions, of both kinds of learner.
type delta struct {
	kind            int
	rank, outs, ins int
	av, ag, bv, bg  []float32
}

func (d *delta) Materialise(dst, base []float32) {
	if d.kind%2 == 0 { // series
		n := len(base) / d.outs
		for o := range d.outs {
			for p := range d.outs {
				for i := range n {
					dst[o*n+i] += d.av[o*d.outs+p] * base[p*n+i]
				}
			}
		}
		return
	}
	for o := range d.outs {
		for r := range d.rank {
			for i := range d.ins {
				dst[o*d.ins+i] += d.bv[o*d.rank+r] * d.av[r*d.ins+i]
			}
		}
	}
}

func (d *delta) Pull(g, base []float32) {
	clear(d.ag)
	clear(d.bg)
	if d.kind%2 == 0 {
		n := len(base) / d.outs
		for o := range d.outs {
			for p := range d.outs {
				for i := range n {
					d.ag[o*d.outs+p] += g[o*n+i] * base[p*n+i]
				}
			}
		}
		return
	}
	for o := range d.outs {
		for r := range d.rank {
			for i := range d.ins {
				d.bg[o*d.rank+r] += g[o*d.ins+i] * d.av[r*d.ins+i]
				d.ag[r*d.ins+i] += g[o*d.ins+i] * d.bv[o*d.rank+r]
			}
		}
	}
}

// kinds: 1 product materialised, 2 series materialised, 3 parallel, 4 serial, 5 parallel
// and serial without a change of the kernel.
func newDelta(rng *rand.Rand, kind int, k *conv.Kernel) *delta {
	outs, ins := k.Shape[0], k.Shape[1]*k.Taps()
	d := &delta{kind: kind, rank: 3, outs: outs, ins: ins}
	fill := func(n int) ([]float32, []float32) {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(rng.NormFloat64() / 32)
		}
		return v, make([]float32, n)
	}
	if kind%2 == 0 {
		d.av, d.ag = fill(outs * outs)
	} else {
		d.av, d.ag = fill(3 * ins)
		d.bv, d.bg = fill(3 * outs)
	}
	return d
}

func (d *delta) chain(k *conv.Kernel) *conv.Chain {
	if d.kind%2 == 0 {
		return conv.NewDense(&conv.Kernel{Shape: [4]int{d.outs, d.outs, 1, 1}, Weight: make([]float32, d.outs*d.outs)})
	}
	return &conv.Chain{Kind: conv.SVD, Rank: []int{3}, Groups: 1, Stages: []*conv.Kernel{
		{Shape: [4]int{3, k.Shape[1], k.Shape[2], k.Shape[3]}, Weight: make([]float32, len(d.av)), Geometry: k.Geometry},
		{Shape: [4]int{d.outs, 3, 1, 1}, Weight: make([]float32, len(d.bv))},
	}}
}

func (d *delta) load(i int, w []float32)  { copy(w, [][]float32{d.av, d.bv}[i]) }
func (d *delta) store(i int, g []float32) { copy([][]float32{d.ag, d.bg}[i], g) }

func oldAdaptions(seed uint64, kind int) func(u *resnet.Unit) (*resnet.Adaption, error) {
	return func(u *resnet.Unit) (*resnet.Adaption, error) {
		k := u.Chain.Stages[0]
		if u.Chain.Kind != conv.Dense || k.Taps() == 1 && kind < 4 && u.Norm != nil {
			return nil, nil
		}
		rng := rand.New(rand.NewPCG(seed, uint64(len(u.Name))))
		one := func(kind int) (*delta, []*resnet.Param) {
			d := newDelta(rng, kind, k)
			ps := []*resnet.Param{{Name: fmt.Sprint(u.Name, ".a", kind), Value: d.av, Grad: d.ag}}
			if kind%2 == 1 {
				ps = append(ps, &resnet.Param{Name: fmt.Sprint(u.Name, ".b", kind), Value: d.bv, Grad: d.bg})
			}
			return d, ps
		}
		branch := func(d *delta) *resnet.Branch { return &resnet.Branch{Chain: d.chain(k), Load: d.load, Store: d.store} }
		d, ps := one(kind)
		a := &resnet.Adaption{Params: ps, Delta: d}
		switch kind {
		case 3:
			a.Parallel = branch(d)
		case 4:
			a.Serial = branch(d)
		case 5:
			e, more := one(2)
			a.Delta, a.Parallel, a.Serial, a.Params = nil, branch(d), branch(e), append(ps, more...)
			a.Precondition = func() { d.ag[0] *= 2 }
		}
		return a, nil
	}
}

func newAdaptions(seed uint64, kind int) func(s graph.Site) (*graph.Adaption, error) {
	return func(u graph.Site) (*graph.Adaption, error) {
		k := u.Chain.Stages[0]
		if u.Chain.Kind != conv.Dense || k.Taps() == 1 && kind < 4 && u.Norm != nil {
			return nil, nil
		}
		rng := rand.New(rand.NewPCG(seed, uint64(len(u.Name))))
		one := func(kind int) (*delta, []*graph.Param) {
			d := newDelta(rng, kind, k)
			ps := []*graph.Param{{Name: fmt.Sprint(u.Name, ".a", kind), Value: d.av, Grad: d.ag}}
			if kind%2 == 1 {
				ps = append(ps, &graph.Param{Name: fmt.Sprint(u.Name, ".b", kind), Value: d.bv, Grad: d.bg})
			}
			return d, ps
		}
		branch := func(d *delta) *graph.Branch { return &graph.Branch{Chain: d.chain(k), Load: d.load, Store: d.store} }
		d, ps := one(kind)
		a := &graph.Adaption{Params: ps, Delta: d}
		switch kind {
		case 3:
			a.Parallel = branch(d)
		case 4:
			a.Serial = branch(d)
		case 5:
			e, more := one(2)
			a.Delta, a.Parallel, a.Serial, a.Params = nil, branch(d), branch(e), append(ps, more...)
			a.Precondition = func() { d.ag[0] *= 2 }
		}
		return a, nil
	}
}

var oldFixtures = []struct {
	name   string
	first  bool
	dilate int // of those that segment
}{{"basic", false, -1}, {"bottleneck", false, -1}, {"bottleneck_v1", true, -1}, {"cifar_pad", false, -1}, {"cifar_projection", false, -1},
	{"fcn_basic", false, 2}, {"fcn_bottleneck", false, 2}, {"fcn_cifar", false, 1}}

func pairs(t *testing.T) []*both {
	var all []*both
	for _, f := range oldFixtures {
		sd := must[*model.StateDict](t)(model.ReadFile(filepath.Join("testdata", f.name+".pth")))
		old := must[*resnet.Net](t)(resnet.Load(sd, resnet.Options{StrideFirst: f.first}))
		g := must[*graph.Graph](t)(Load(sd, Options{StrideFirst: f.first}))
		all = append(all, &both{name: f.name, old: old, g: g, seg: f.dilate >= 0})
	}
	return all
}

func (b *both) clone(name string) *both {
	c := *b
	c.old, c.g, c.name = b.old.Clone(), b.g.Clone(), b.name+" "+name
	return &c
}

func (b *both) compress(t *testing.T, every int) *both {
	c := b.clone(fmt.Sprintf("compressed %d", every))
	rng := rand.New(rand.NewPCG(1, uint64(every)))
	for i, s := range c.old.Sites() {
		if i%every == 0 && s.Chain.Kind == conv.Dense {
			chain := oldChain(rng, s.Chain, i)
			check(t, c.old.Replace(s.Name, chain))
			check(t, c.g.Replace(s.Name, chain))
		}
	}
	return c
}

func toGraph(m *resnet.Module) *graph.Module {
	out := &graph.Module{Place: graph.Place(m.Place), Scale: m.Scale}
	for _, s := range m.Steps {
		st := graph.ModuleStep{Chain: s.Chain, ReLU: s.ReLU}
		if n := s.Norm; n != nil {
			st.Norm = &graph.BatchNorm{Weight: n.Weight, Bias: n.Bias, Mean: n.Mean, Var: n.Var, Batches: n.Batches, Eps: n.Eps}
		}
		out.Steps = append(out.Steps, st)
	}
	return out
}

// modules gives units modules of all kinds, with random weights.
func (b *both) modules(t *testing.T, kind int) *both {
	c := b.clone(fmt.Sprintf("modules %d", kind))
	rng := rand.New(rand.NewPCG(3, uint64(kind)))
	for i, s := range c.old.Sites() {
		if s.Norm == nil || kind > 0 && kind < 5 && i%2 == 1 {
			continue
		}
		k := kind
		if kind == 0 {
			k = 1 + i%4
		}
		_, g := s.Chain.Shape()
		outs, in := s.Chain.Out(), s.Chain.In()
		one := func(out, in, taps int, g conv.Geometry, bias bool) *conv.Chain {
			return graph.NewConv([4]int{out, in, taps, taps}, g, bias)
		}
		norm := func(n int) *resnet.Norm {
			m := graph.NewBatchNorm(n)
			return &resnet.Norm{Weight: m.Weight, Bias: m.Bias, Mean: m.Mean, Var: m.Var, Batches: m.Batches, Eps: m.Eps}
		}
		var ms []*resnet.Module
		switch k {
		case 1:
			ms = []*resnet.Module{resnet.ResidualSerial(s.Unit)}
		case 2:
			ms = []*resnet.Module{resnet.Bottleneck(s.Unit, 4, rng)}
		case 3:
			ms = []*resnet.Module{resnet.Chapter(s.Unit, 0, .5, rng)}
		case 4, 5:
			ms = []*resnet.Module{
				{Place: resnet.Serial, Scale: .25, Steps: []*resnet.Step{
					{Unit: &resnet.Unit{Chain: one(outs, outs, 1, conv.Geometry{}, true)}, ReLU: true},
					{Unit: &resnet.Unit{Chain: one(outs, 1, 3, conv.Geometry{Padding: [2]int{1, 1}, Groups: outs}, false), Norm: norm(outs)}}}},
				{Place: resnet.Parallel, Scale: -.5, Steps: []*resnet.Step{{Unit: &resnet.Unit{Chain: one(outs, in, 1, conv.Geometry{Stride: g.Stride}, false), Norm: norm(outs)}}}},
				{Place: resnet.After, Scale: 2, Steps: []*resnet.Step{{Unit: &resnet.Unit{Chain: one(outs, in, 1, conv.Geometry{Stride: g.Stride}, true)}}}},
			}
			if k == 5 { // two of each
				ms = append(ms, resnet.ResidualSerial(s.Unit), resnet.Bottleneck(s.Unit, 2, rng), resnet.Chapter(s.Unit, 0, 1, rng))
			}
		}
		for _, m := range ms {
			for _, st := range m.Steps {
				if st.Chain != nil {
					for _, w := range [][]float32{st.Chain.Stages[0].Weight, st.Chain.Stages[0].Bias} {
						for i := range w {
							w[i] = float32(rng.NormFloat64() / 4)
						}
					}
				}
				if n := st.Norm; n != nil {
					for i := range n.Weight {
						n.Weight[i], n.Bias[i] = float32(rng.NormFloat64()), float32(rng.NormFloat64()/2)
						n.Mean[i], n.Var[i] = float32(rng.NormFloat64()/2), float32(.5+rng.Float64())
					}
				}
			}
			check(t, c.old.AddModule(s.Name, m))
			check(t, c.g.AddModule(s.Name, toGraph(m)))
		}
	}
	return c
}

func prefix(p string) func(string, string, bool) bool {
	return func(n, _ string, _ bool) bool { return strings.HasPrefix(n, p) }
}

func modules(_, _ string, m bool) bool { return m }

func TestOldAndNewRunAndLearnToTheBit(t *testing.T) {
	none := func(string, string, bool) bool { return false }
	odd := func(n, _ string, _ bool) bool { return len(n)%3 == 0 }
	for _, b := range pairs(t) {
		for _, b := range []*both{b, b.compress(t, 1), b.compress(t, 3)} {
			b.programs(t)
			sameState(t, b.name, must[*model.StateDict](t)(b.old.StateDict()), must[*model.StateDict](t)(b.g.StateDict()), 0)
			for _, fixed := range []bool{false, true} {
				for name, l := range map[string]func(string, string, bool) bool{"all": nil, "none": none, "odd": odd, "layer2": prefix("layer2"), "layer3.0": prefix("layer3.0"),
					"head": prefix(b.old.Head.Name), "neck": prefix("classifier.0"), "conv1": prefix("conv1"), "bn1": prefix("bn1"), "short": func(n, _ string, _ bool) bool {
						return strings.Contains(n, "downsample") || strings.Contains(n, "shortcut")
					}} {
					b.learners(t, learning{name: name, fixed: fixed, learn: l})
				}
			}
		}
	}
}

func TestOldAndNewAdaptToTheBit(t *testing.T) {
	for _, b := range pairs(t) {
		for _, b := range []*both{b, b.compress(t, 3)} {
			for kind := 1; kind <= 5; kind++ {
				for _, fixed := range []bool{false, true} {
					b.learners(t, learning{name: "adapt", fixed: fixed, adapt: kind, learn: func(string, string, bool) bool { return false }})
					b.learners(t, learning{name: "adapt and norms", fixed: fixed, adapt: kind, learn: func(n, u string, _ bool) bool { return strings.Contains(n, "bn") || u == b.old.Head.Name && kind < 4 }})
				}
			}
		}
	}
}

func TestOldAndNewModules(t *testing.T) {
	for _, b := range pairs(t) {
		for _, kind := range []int{0, 1, 2, 3, 4} {
			c := b.modules(t, kind)
			c.tol, c.grad = 1e-12, 1e-10
			for _, c := range []*both{c, c.compress(t, 3)} {
				c.programs(t)
				old := must[*model.StateDict](t)(c.old.StateDict())
				sameState(t, c.name, old, must[*model.StateDict](t)(c.g.StateDict()), 0)
				loaded := c.clone("loaded")
				loaded.g = must[*graph.Graph](t)(Load(old, Options{}))
				loaded.programs(t)
				again := c.clone("loaded anew")
				again.g = must[*graph.Graph](t)(Load(must[*model.StateDict](t)(c.g.StateDict()), Options{}))
				again.programs(t)
				for _, fixed := range []bool{false, true} {
					for _, norms := range []bool{false, true} {
						if norms && !fixed {
							continue
						}
						c.learners(t, learning{name: "all", fixed: fixed, norms: norms})
						c.learners(t, learning{name: "modules", fixed: fixed, norms: norms, learn: modules})
						c.learners(t, learning{name: "modules above", fixed: fixed, norms: norms, learn: func(n, u string, m bool) bool { return m && u > "layer2" }})
						c.learners(t, learning{name: "none", fixed: fixed, norms: norms, learn: func(string, string, bool) bool { return false }})
						c.learners(t, learning{name: "adapt", fixed: fixed, norms: norms, adapt: 3, learn: modules})
					}
				}
			}
		}
	}
}

type grey struct{ n, w, h, classes int }

func (s grey) Len() int               { return s.n }
func (s grey) Classes() int           { return s.classes }
func (s grey) ClassName(i int) string { return fmt.Sprint(i) }
func (s grey) Name() string           { return "noise" }
func (s grey) At(i int) (dataset.Image, int, error) {
	rng := rand.New(rand.NewPCG(uint64(i), 1))
	m := dataset.Image{W: s.w, H: s.h, C: 3, Pix: make([]uint8, s.w*s.h*3)}
	for p := range m.Pix {
		m.Pix[p] = uint8(rng.IntN(256))
	}
	return m, i % s.classes, nil
}

type greyMasks struct{ grey }

func (s greyMasks) MaskAt(i int) (dataset.Mask, error) {
	rng := rand.New(rand.NewPCG(uint64(i), 2))
	m := dataset.Mask{W: s.w, H: s.h, Class: make([]uint8, s.w*s.h)}
	for p := range m.Class {
		if m.Class[p] = uint8(rng.IntN(s.classes + 1)); int(m.Class[p]) == s.classes {
			m.Class[p] = dataset.Ignore
		}
	}
	return m, nil
}

func TestOldAndNewCalibrateEvaluateAndEdit(t *testing.T) {
	for _, b := range pairs(t) {
		pre := dataset.Preprocess{Mean: [3]float32{.5, .5, .5}, Std: [3]float32{.3, .3, .3}}
		b.old.Preprocess, b.g.Preprocess = pre, pre
		for i, b := range []*both{b, b.compress(t, 2), b.modules(t, 0)} {
			set := grey{11, 33, 30, b.old.Classes}
			if i == 2 {
				b.tol, b.grad = 1e-12, 1e-10
			}
			c := b.clone("calibrated")
			check(t, resnet.Calibrate(t.Context(), c.old, set, 4, 2, nil))
			check(t, graph.Calibrate(t.Context(), c.g, set, 4, 2, nil))
			sameState(t, c.name, must[*model.StateDict](t)(c.old.StateDict()), must[*model.StateDict](t)(c.g.StateDict()), b.grad)
			c.programs(t)
			p, q := must[*resnet.Program](t)(c.old.Compile()), must[*graph.Program](t)(c.g.Compile())
			if b.seg {
				x := must[resnet.SegmentationScore](t)(resnet.EvaluateSegmentation(t.Context(), p, greyMasks{set}, resnet.EvalOptions{Batch: 4}))
				y := must[eval.Score](t)(eval.Evaluate(t.Context(), q, greyMasks{set}, eval.Options{Batch: 4}))
				if x.MeanIoU() != y.MeanIoU() || i < 2 && x.Loss != y.Loss || x.PixelAccuracy() != y.Accuracy() || x.Samples != y.Samples {
					t.Errorf("%s: %+v %+v", c.name, x, y)
				}
			} else {
				x := must[resnet.Score](t)(resnet.Evaluate(t.Context(), p, set, resnet.EvalOptions{Batch: 4}))
				y := must[eval.Score](t)(eval.Evaluate(t.Context(), q, set, eval.Options{Batch: 4}))
				if !slices.Equal(x.Correct, y.Correct) || i < 2 && x.Loss != y.Loss || x.Top1 != y.Top1 || x.Top5 != y.Top5 || x.Samples != y.Samples {
					t.Errorf("%s: %+v %+v", c.name, x, y)
				}
			}
			if i != 1 {
				e := b.clone("extended")
				check(t, e.old.ExtendHead(3, 5))
				check(t, e.g.ExtendHead(3, 5))
				e.programs(t)
				s := e.clone("selected")
				s.old, s.g = must[*resnet.Net](t)(e.old.Outputs(2, 6)), must[*graph.Graph](t)(e.g.SelectOutputs(2, 6))
				s.programs(t)
			}
			h := b.clone("headed")
			check(t, h.old.SetHead(9, 5))
			check(t, h.g.SetHead(9, 5))
			h.programs(t)
			if !strings.Contains(b.name, "projection") && strings.Contains(b.name, "cifar") && i < 2 {
				h.old.Randomise(3)
				h.g.Randomise(3)
				h.programs(t)
				sameState(t, h.name+" random", must[*model.StateDict](t)(h.old.StateDict()), must[*model.StateDict](t)(h.g.StateDict()), 0)
			}
			if i == 2 && !b.seg {
				continue
			}
			for dilate := range len(b.old.Blocks) {
				s := b.clone(fmt.Sprintf("segmented %d", dilate))
				a, e := s.old.SetSegmentation(7, dilate, 3), SetSegmentation(s.g, 7, dilate, 3)
				if b.seg && e != nil {
					// Only classifiers become segmentation networks now.
					continue
				}
				if (a == nil) != (e == nil) {
					t.Errorf("%s: %v, %v", s.name, a, e)
					continue
				}
				s.seg = true
				s.programs(t)
				s.learners(t, learning{name: "all"})
				s.learners(t, learning{name: "layer3", fixed: true, learn: prefix("layer3")})
				s.old = must[*resnet.Net](t)(resnet.Load(must[*model.StateDict](t)(s.old.StateDict()), resnet.Options{}))
				l := s.clone("loaded")
				l.g = must[*graph.Graph](t)(Load(must[*model.StateDict](t)(s.old.StateDict()), Options{}))
				l.programs(t)
				l.g = must[*graph.Graph](t)(Load(must[*model.StateDict](t)(s.g.StateDict()), Options{}))
				l.programs(t)
				if Dilated(s.g) != dilate {
					t.Errorf("%s: dilated is %d", s.name, Dilated(s.g))
				}
			}
		}
	}
}

func TestOldAndNewExtend(t *testing.T) {
	for _, b := range pairs(t) {
		mods := b.modules(t, 0)
		var dilate *int
		seg := mods.clone("extension")
		if !b.seg {
			d := 0
			dilate = &d
			check(t, seg.old.SetSegmentation(5, d, 2))
		}
		full := must[*model.StateDict](t)(seg.old.StateDict())
		for _, described := range []bool{false, true} {
			base := must[*model.StateDict](t)(b.old.StateDict())
			if described {
				base = must[*model.StateDict](t)(b.g.StateDict())
			}
			ext := Extension{Modules: map[string][]graph.ModuleSpec{}, Dilate: dilate}
			for unit, specs := range mods.old.ModuleSpecs() {
				for _, s := range specs {
					g := graph.ModuleSpec{Place: graph.Place(s.Place), Scale: s.Scale}
					for _, st := range s.Steps {
						g.Steps = append(g.Steps, graph.StepSpec{Conv: st.Conv, Norm: st.Norm, ReLU: st.ReLU})
					}
					ext.Modules[unit] = append(ext.Modules[unit], g)
				}
			}
			for _, n := range full.Names() {
				if _, ok := base.Get(n); !ok {
					v, _ := full.Get(n)
					base.Set(n, v)
				}
			}
			if err := Extend(base, ext); err != nil {
				t.Errorf("%s, described %v: %v", b.name, described, err)
				continue
			}
			e := seg.clone("extended")
			e.tol = 1e-12
			e.g = must[*graph.Graph](t)(Load(base, Options{}))
			e.programs(t)
		}
	}
}

func TestOldAndNewAgreeToTheBit(t *testing.T) {
	d1 := 1
	for _, c := range []struct {
		arch string
		opt  resnet.NewOptions
	}{{"resnet20", resnet.NewOptions{Seed: 1}}, {"resnet20", resnet.NewOptions{Seed: 2, Projection: true}}, {"resnet18", resnet.NewOptions{Seed: 3}},
		{"resnet50", resnet.NewOptions{Seed: 4}}, {"resnet50", resnet.NewOptions{Seed: 4, StrideFirst: true, ZeroGain: true}},
		{"resnet20", resnet.NewOptions{Seed: 5, Segment: true, Dilate: &d1}}, {"resnet18", resnet.NewOptions{Seed: 5, Segment: true}}} {
		old := must[*resnet.Net](t)(resnet.New(c.arch, 10, c.opt))
		g := must[*graph.Graph](t)(New(c.arch, 10, NewOptions{Seed: c.opt.Seed, Projection: c.opt.Projection, StrideFirst: c.opt.StrideFirst, ZeroGain: c.opt.ZeroGain, Segment: c.opt.Segment, Dilate: c.opt.Dilate}))
		b := &both{name: c.arch, old: old, g: g, seg: c.opt.Segment}
		b.programs(t)
		sd := must[*model.StateDict](t)(old.StateDict())
		b.g = must[*graph.Graph](t)(Load(sd, Options{}))
		b.programs(t)
		b.g = must[*graph.Graph](t)(Load(must[*model.StateDict](t)(b.g.StateDict()), Options{}))
		b.programs(t)
		b.g = g
		if c.arch == "resnet50" {
			continue
		}
		for _, fixed := range []bool{false, true} {
			b.learners(t, learning{name: "all", fixed: fixed})
			b.learners(t, learning{name: "some", fixed: fixed, learn: func(n, _ string, _ bool) bool { return n == "layer2.0.conv1.weight" || n == "layer3.0.bn1.weight" }})
		}
	}
}
