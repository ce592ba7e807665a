package compress

import (
	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/compress/chains"
	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/ranks"
)

// Outline is g with chains of the ranks that Network will choose, but of other weights:
// what it will cost can be measured before the work begins. ok is false where the method
// and the rule do not tell the ranks ahead.
func Outline(g *graph.Graph, opt Options) (out *graph.Graph, ok bool, err error) {
	if err := opt.complete(); err != nil {
		return nil, false, err
	}
	if opt.Rank.Rule != Ratio || opt.Method == Tucker {
		return nil, false, nil
	}
	targets := Sites(g)
	chosen, err := choose(targets, opt.Layers)
	if err != nil {
		return nil, false, err
	}
	out = g.Clone()
	for i, t := range targets {
		if !chosen[i] {
			continue
		}
		k, err := t.Chain.Kernel()
		if err != nil {
			return nil, false, err
		}
		if fits, _ := Compressible(k); !fits || t.Reason != "" {
			continue
		}
		c, err := outline(k, opt)
		switch {
		case err != nil:
			return nil, false, err
		case c == nil || c.Params() >= t.Chain.Params() || t.H > 0 && c.MACs(t.H, t.W) > t.Chain.MACs(t.H, t.W):
			continue
		}
		if err := out.Replace(t.Name, c); err != nil {
			return nil, false, err
		}
	}
	return out, true, nil
}

// outline is a chain for a kernel as large as a ratio allows, nil where none is. That of
// TKDCPD is CP's, which it comes to unless the channels' ranks are low.
func outline(k *conv.Kernel, opt Options) (*conv.Chain, error) {
	groups := max(k.Groups, 1)
	dims := []int{k.Shape[0] / groups, k.Shape[1], k.Taps()}
	kind := conv.Kind(opt.Method)
	switch {
	case k.Pointwise():
		kind = conv.SVD
	case opt.Method == Separable:
		dims = []int{dims[0], dims[1], k.Shape[2], k.Shape[3]}
	}
	size, each := 1, 0
	for _, d := range dims {
		size, each = size*d, each+d
	}
	constant := func(rows, cols int) *mat.Dense {
		m := mat.NewDense(rows, cols, nil)
		m.Apply(func(i, j int, _ float64) float64 { return float64((i+j)%7-3) / 100 }, m)
		return m
	}
	if k.Pointwise() || opt.Method != CP && opt.Method != TKDCPD && opt.Method != Separable {
		fold, err := conv.NewFold(k, kind)
		if err != nil {
			return nil, err
		}
		rank := ranks.OfProduct(fold.Rows, fold.Cols, opt.Rank.Value)
		if rank == 0 {
			return nil, nil
		}
		var u, v []*mat.Dense
		for range groups {
			u, v = append(u, constant(fold.Rows, rank)), append(v, constant(fold.Cols, rank))
		}
		return chains.FromMatrix(k, kind, u, v)
	}
	rank := ranks.OfSum(size, each, opt.Rank.Value)
	if rank == 0 {
		return nil, nil
	}
	var parts []*cpd.Kruskal
	for range groups {
		p := &cpd.Kruskal{}
		for _, d := range dims {
			p.Factors = append(p.Factors, constant(d, rank))
		}
		parts = append(parts, p)
	}
	if opt.Method == Separable {
		return chains.FromSeparable(k, parts)
	}
	return chains.FromCP(k, parts)
}

// work tells how much of the work on some targets is done.
type work struct {
	opt     *Options
	targets []Target
	cost    []float64 // of each target, as a share of all
	before  float64   // what the targets before the one at hand cost
	at      int
	most    float64
}

// newWork estimates what each target costs, and makes opt.step tell of it.
func newWork(targets []Target, chosen []bool, opt *Options) *work {
	w := &work{opt: opt, targets: targets, cost: make([]float64, len(targets))}
	var total float64
	for i, t := range targets {
		w.cost[i] = 1e6
		if chosen[i] {
			w.cost[i] += cost(t, opt)
		}
		total += w.cost[i]
	}
	for i := range w.cost {
		w.cost[i] /= total
	}
	opt.step = func(done float64) { w.tell(w.before + done*w.cost[w.at]) }
	return w
}

// tell says how far the fit of the target at hand is.
func (opt *Options) tell(done float64) {
	if opt.step != nil {
		opt.step(done)
	}
}

// begin says that target i is next.
func (w *work) begin(i int) {
	w.before = 0
	for _, c := range w.cost[:i] {
		w.before += c
	}
	if w.at = i; i == len(w.targets) {
		w.at, w.before = i-1, 1
	}
	w.tell(w.before)
}

// tell reports a share that never falls: some fits are begun several times.
func (w *work) tell(share float64) {
	if w.most = max(w.most, share); w.opt.Share != nil && len(w.targets) > 0 {
		w.opt.Share(min(w.most, 1), w.targets[w.at].Name)
	}
}

// cost is about the number of operations of a target's factorisation.
func cost(t Target, opt *Options) float64 {
	shape, g := t.Chain.Shape()
	groups := max(g.Groups, 1)
	rows, in, taps := shape[0]/groups, shape[1], shape[2]*shape[3]
	n, m := float64(min(rows, in*taps)), float64(max(rows, in*taps))
	svd := float64(groups) * (n*n*m + 10*n*n*n)
	if taps == 1 || opt.Method != CP && opt.Method != TKDCPD && opt.Method != Separable {
		return svd
	}
	share := .5
	if opt.Rank.Rule == Ratio {
		share = opt.Rank.Value
	}
	r := max(int(share*float64(rows*in*taps)/float64(rows+in+taps)), 1)
	als, epc := effort(rows, in, taps, r)
	sweep := float64(r) * (2*float64(rows*in*taps) + 4*float64(r)*float64(rows+in+taps))
	return svd + float64(groups)*sweep*(float64(als)+2*float64(epc))
}
