package compress

import (
	"context"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/compress/chains"
	"github.com/lowrank-go/lowrank/conv"
)

// Candidate is one chain that a layer could become.
type Candidate struct {
	Method Method `json:"method"`
	Rank   []int  `json:"rank"`
	Params int    `json:"params"`
	MACs   int64  `json:"macs"`
	// MS is the time of one image in milliseconds, where it was measured.
	MS float64 `json:"ms,omitempty"`
	// Error is the relative error of the layer's outputs with statistics, of its weights
	// without.
	Error float64 `json:"error"`
	// Damage is what the plan expects that to do to the network's output.
	Damage float64 `json:"damage"`
}

// grid are the ranks below n that are tried: multiples of step, of half a step where those
// would be fewer than four, and no more than most of them, evenly.
func grid(n, step, most int) []int {
	if n < 4*step {
		step = max(step/2, 1)
	}
	count := (n - 1) / step
	var out []int
	for i := 1; i <= min(count, most); i++ {
		// Evenly over the multiples, the largest among them.
		r := step * int(math.Round(float64(i)*float64(count)/float64(min(count, most))))
		if len(out) == 0 || r > out[len(out)-1] {
			out = append(out, r)
		}
	}
	return out
}

// Ranks that are tried in each mode of each layer.
const (
	mostRanks  = 16
	mostTucker = 8
	cpRanks    = 6
)

// largestCP is the number of weights of the largest kernel that a plan tries CP on: it is
// fitted anew for every rank.
const largestCP = 1 << 16

// frame is a chain of a method and ranks with zeros for weights: what it costs.
func frame(k *conv.Kernel, m Method, ranks []int, bias bool) (*conv.Chain, error) {
	groups := max(k.Groups, 1)
	t, s := k.Out()/groups, k.Shape[1]
	empty := *k
	empty.Weight, empty.Bias = make([]float32, len(k.Weight)), nil
	if bias {
		empty.Bias = make([]float32, k.Out())
	}
	point := conv.Geometry{Groups: groups}.Normal()
	stage := func(out, in, h, w int, g conv.Geometry) *conv.Kernel {
		return &conv.Kernel{Shape: [4]int{out, in, h, w}, Weight: make([]float32, out*in*h*w), Geometry: g}
	}
	c := &conv.Chain{Groups: groups, Rank: ranks}
	switch m {
	case SVD, SVDIn, Spatial:
		fold, err := conv.NewFold(k, conv.Kind(m))
		if err != nil {
			return nil, err
		}
		var us, vs []*mat.Dense
		for range groups {
			us = append(us, mat.NewDense(fold.Rows, ranks[0], nil))
			vs = append(vs, mat.NewDense(fold.Cols, ranks[0], nil))
		}
		return chains.FromMatrix(&empty, conv.Kind(m), us, vs)
	case Tucker:
		c.Kind = conv.Tucker2
		c.Stages = []*conv.Kernel{stage(groups*ranks[1], s, 1, 1, point),
			stage(groups*ranks[0], ranks[1], k.Shape[2], k.Shape[3], k.Normal()), stage(k.Out(), ranks[0], 1, 1, point)}
	case CP:
		g := k.Normal()
		g.Groups = groups * ranks[0]
		c.Kind = conv.CP
		c.Stages = []*conv.Kernel{stage(groups*ranks[0], s, 1, 1, point),
			stage(groups*ranks[0], 1, k.Shape[2], k.Shape[3], g), stage(groups*t, ranks[0], 1, 1, point)}
	default:
		return nil, fmt.Errorf("%w: method %q has no place in a plan; want svd, svd-in, spatial, tucker or cp", ErrOption, m)
	}
	c.Last().Bias = empty.Bias
	return c, c.Validate()
}

// smaller tells whether a chain of a kernel costs less than the kernel in parameters or in
// multiply-accumulates. Budgets drop what does not help them.
func smaller(c *Candidate, params int, macs int64) bool {
	return c.Params < params || c.MACs < macs
}

// candidates are what a method can make of the layer at the grid's ranks, with their errors.
func (a *aware) candidates(ctx context.Context, t *Target, m Method, step int, opt Options) ([]Candidate, error) {
	var out []Candidate
	bias := a.moments != nil || a.k.Bias != nil
	params, macs := t.Chain.Params(), t.Chain.MACs(max(t.H, 1), max(t.W, 1))
	// offer keeps what is smaller; of that the error is asked for.
	offer := func(e func() (float64, error), ranks ...int) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c, err := frame(a.k, m, ranks, bias)
		if err != nil {
			return err
		}
		got := Candidate{Method: m, Rank: ranks, Params: c.Params(), MACs: c.MACs(max(t.H, 1), max(t.W, 1))}
		if !smaller(&got, params, macs) {
			return nil
		}
		if got.Error, err = e(); err != nil {
			return err
		}
		if got.Error < 1 {
			out = append(out, got)
		}
		return nil
	}
	built := func(ranks ...int) func() (float64, error) {
		return func() (float64, error) {
			c, err := a.build(ctx, m, ranks, opt)
			if err != nil {
				return 0, err
			}
			return a.outputError(c)
		}
	}
	switch m {
	case SVD, SVDIn, Spatial:
		fold, err := conv.NewFold(a.k, conv.Kind(m))
		if err != nil {
			return nil, err
		}
		for _, r := range grid(min(fold.Rows, fold.Cols), step, mostRanks) {
			e := built(r)
			switch {
			case m == SVD && a.moments != nil:
				e = func() (float64, error) { return a.dropped(r), nil }
			case a.full == nil && max(a.k.Groups, 1) == 1:
				e = func() (float64, error) {
					sp, err := a.fold(ctx, conv.Kind(m))
					if err != nil {
						return 0, err
					}
					var kept, lost float64
					for i, v := range sp.values {
						if i < r {
							kept += v * v
						} else {
							lost += v * v
						}
					}
					return math.Sqrt(lost / (kept + lost)), nil
				}
			}
			if err := offer(e, r); err != nil {
				return nil, err
			}
		}
	case Tucker:
		if max(a.k.Groups, 1) > 1 || a.ins > a.t*a.k.Taps() {
			return nil, nil
		}
		for _, in := range grid(a.ins, step, mostTucker) {
			for _, r := range grid(min(a.t, in*a.k.Taps()), step, mostTucker) {
				if err := offer(func() (float64, error) {
					_, reg, err := a.channelsTo(ctx, in)
					if err != nil {
						return 0, err
					}
					return reg.error(r), reg.spectrum()
				}, r, in); err != nil {
					return nil, err
				}
			}
			delete(a.regressions, in)
		}
	case CP:
		groups := max(a.k.Groups, 1)
		if len(a.k.Weight) > largestCP {
			return nil, nil
		}
		each := groups * (a.t/groups + a.ins + a.k.Taps())
		last := 0
		for i := range cpRanks {
			share := .15 * math.Pow(6, float64(i)/float64(cpRanks-1)) // to .9 of the weights
			r := max(int(share*float64(len(a.k.Weight))/float64(each))/step*step, min(step, 4))
			if r == last {
				continue
			}
			last = r
			if err := offer(built(r), r); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// fold is the spectrum of the white kernel as a kind of matrix.
func (a *aware) fold(ctx context.Context, kind conv.Kind) (*spectrum, error) {
	if sp := a.folds[kind]; sp != nil {
		return sp, nil
	}
	all, err := spectra(ctx, a.white, kind, a.workers, math.MaxInt)
	if err != nil {
		return nil, err
	}
	a.folds[kind] = all[0]
	return all[0], nil
}

// channelsTo is the first stage of a Tucker-2 chain, to the first R1 components of the
// white kernel's input channels, and the regression of the outputs on its patches.
func (a *aware) channelsTo(ctx context.Context, r1 int) (*conv.Kernel, *regression, error) {
	sp, err := a.fold(ctx, conv.SVDIn)
	if err != nil {
		return nil, nil, err
	}
	first := &conv.Kernel{Shape: [4]int{r1, a.ins, 1, 1}, Weight: make([]float32, r1*a.ins), Geometry: conv.Geometry{}.Normal()}
	for r := range r1 {
		for s := range a.ins {
			first.Weight[r*a.ins+s] = float32(sp.vectors[s*sp.known+r])
		}
	}
	out := first
	if a.root != nil {
		out = a.channels(first, a.inverse)
	}
	reg := a.regressions[r1]
	if reg == nil {
		from := out
		if a.full == nil {
			from = first
		}
		if reg, err = a.regress([]*conv.Kernel{from}, a.k.Shape[2], a.k.Shape[3]); err != nil {
			return nil, nil, err
		}
		if err := reg.spectrum(); err != nil {
			return nil, nil, err
		}
		a.regressions[r1] = reg
	}
	return out, reg, nil
}

// build is the chain of a method and ranks, without its bias put right.
func (a *aware) build(ctx context.Context, m Method, ranks []int, opt Options) (*conv.Chain, error) {
	for i, r := range ranks {
		if most := []int{len(a.k.Weight), a.ins}[i]; m == CP && r > most || m == Tucker && r > []int{a.t, a.ins}[i] {
			return nil, fmt.Errorf("%w: %s of rank %v of a kernel of %v", ErrOption, m, ranks, a.k.Shape)
		}
	}
	if fold, err := conv.NewFold(a.k, conv.Kind(m)); err == nil && ranks[0] > min(fold.Rows, fold.Cols) {
		return nil, fmt.Errorf("%w: %s of rank %v of a kernel of %v", ErrOption, m, ranks, a.k.Shape)
	}
	switch {
	case m == SVD && a.moments != nil:
		return a.svd(ranks[0])
	case max(a.k.Groups, 1) == 1 && (m == SVD || m == SVDIn || m == Spatial):
		sp, err := a.fold(ctx, conv.Kind(m))
		if err != nil {
			return nil, err
		}
		u, v := sp.factors(ranks[0])
		c, err := chains.FromMatrix(a.white, conv.Kind(m), []*mat.Dense{u}, []*mat.Dense{v})
		if err != nil {
			return nil, err
		}
		return a.fit(c)
	case m == Tucker:
		first, reg, err := a.channelsTo(ctx, ranks[1])
		if err != nil {
			return nil, err
		}
		defer delete(a.regressions, ranks[1])
		return reg.tucker(first, ranks[0])
	}
	opt.Method, opt.Rank, opt.Always = m, Rank{Rule: Fixed, Fixed: slices.Clone(ranks)}, true
	if m == CP {
		opt.Stability = DefaultStability
	}
	f, err := factorise(ctx, a.white, opt)
	if err != nil {
		return nil, err
	}
	if f.reason != "" {
		return nil, fmt.Errorf("%s of rank %v: %s", m, ranks, f.reason)
	}
	return a.fit(f.chain)
}
