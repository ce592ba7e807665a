package compress

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/compress/chains"
	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/gemm"
	"github.com/lowrank-go/lowrank/internal/linalg"
	"github.com/lowrank-go/lowrank/ranks"
)

// aware is a kernel in one group, as a T×D matrix W whose columns are ordered S×kh×kw, with
// what is known of its inputs x. Errors are those of the outputs, E‖(W−Ŵ)(x−E x)‖²: the
// means are taken care of by the bias.
//
// With the D×D covariance Σ of x the error is ‖(W−Ŵ)·Σ^½‖². Where that is not known, the
// S×S covariance of the channels stands for it, as if pixels of a patch had nothing to do
// with each other; and without moments the identity.
type aware struct {
	k           *conv.Kernel
	moments     *Moments // nil: nothing is known
	workers     int
	t, ins, d   int
	w           []float64 // T×D
	full        []float64 // Σ, or nil
	root        []float64 // H, the symmetric root of the channels' covariance, or nil
	inverse     []float64 // H⁻¹
	white       *conv.Kernel
	total       float64   // ‖W·Σ^½‖²
	values      []float64 // of the outputs' covariance, falling
	vectors     []float64 // T×T, of the outputs' covariance
	inputs      []float64 // S×S, left singular vectors of the white kernel's input unfolding
	folds       map[conv.Kind]*spectrum
	regressions map[int]*regression // by R1
}

// Covariances are shrunk to their mean variance by this share, so that they have inverses.
const shrinkage = 1e-4

// fewest is how many positions a covariance of D×D must have been collected at, as a
// multiple of D; of fewer it is not used.
const fewest = 2

func newAware(ctx context.Context, k *conv.Kernel, m *Moments, workers int) (*aware, error) {
	a := &aware{k: k, moments: m, workers: workers, t: k.Out(), ins: k.Shape[1], d: k.Shape[1] * k.Taps(), w: doubles(k.Weight), white: k,
		folds: map[conv.Kind]*spectrum{}, regressions: map[int]*regression{}}
	if m == nil {
		a.total = k.Norm() * k.Norm()
		return a, nil
	}
	taps := k.Taps()
	channel := slices.Clone(m.Channel)
	for i := range a.ins {
		for j := range a.ins {
			for p := range taps {
				channel[i*a.ins+j] -= m.Mean[i*taps+p] * m.Mean[j*taps+p] / float64(taps)
			}
		}
	}
	if !shrink(channel, a.ins) {
		return nil, errors.New("its inputs are constant on the images of the statistics")
	}
	var err error
	if a.root, a.inverse, err = roots(ctx, workers, channel, a.ins); err != nil {
		return nil, err
	}
	a.white = a.channels(k, a.root)
	output := make([]float64, a.t*a.t)
	if m.Full != nil && m.Count >= int64(fewest*a.d) {
		a.full = centred(m.Full, m.Mean)
		shrink(a.full, a.d)
		gemmInto(workers, output, a.times(a.w, a.t), a.w, a.t, a.t, a.d)
	} else {
		mean := make([]float64, a.t)
		for i := range mean {
			mean[i] = dot(a.w[i*a.d:(i+1)*a.d], m.Mean)
		}
		output = centred(m.Output, mean)
	}
	for i := range a.t {
		a.total += output[i*a.t+i]
	}
	if !(a.total > 0) {
		return nil, errors.New("its outputs are constant on the images of the statistics")
	}
	a.values = make([]float64, a.t)
	a.vectors, _, err = linalg.EigenTopContext(ctx, workers, a.t, output, a.t, a.values, func([]float64) int { return a.t })
	if a.full == nil {
		// The errors of chains that are no projections are told in the channels' norm.
		a.total = a.white.Norm() * a.white.Norm()
	}
	return a, err
}

// shrink adds a share of the mean variance to the diagonal; false if that is 0.
func shrink(c []float64, n int) bool {
	var trace float64
	for i := range n {
		trace += c[i*n+i]
	}
	for i := range n {
		c[i*n+i] += shrinkage * trace / float64(n)
	}
	return trace > 0
}

// centred is a second moment less that of the means.
func centred(moment, mean []float64) []float64 {
	n := len(mean)
	out := make([]float64, n*n)
	for i := range n {
		for j := range n {
			out[i*n+j] = moment[i*n+j] - mean[i]*mean[j]
		}
	}
	return out
}

// roots are the symmetric square root of a positive definite matrix and its inverse.
func roots(ctx context.Context, workers int, c []float64, n int) (root, inverse []float64, err error) {
	w, z := make([]float64, n), make([]float64, n*n)
	if err := linalg.EigenSymContext(ctx, workers, n, c, n, w, z, n); err != nil {
		return nil, nil, err
	}
	for _, power := range []float64{.5, -.5} {
		scaled, out := make([]float64, n*n), make([]float64, n*n)
		floor := w[n-1] * 1e-12
		for i := range n {
			for j := range n {
				scaled[i*n+j] = z[i*n+j] * math.Pow(max(w[j], floor), power)
			}
		}
		gemmInto(workers, out, scaled, z, n, n, n)
		root, inverse = inverse, out
	}
	return root, inverse, nil
}

// gemmInto is dst = a·bᵀ for a of m×k and b of n×k.
func gemmInto(workers int, dst, a, b []float64, m, n, k int) {
	gemm.Float64(workers, false, true, m, n, k, 1, a, k, b, k, 0, dst, n)
}

func dot(a, b []float64) (s float64) {
	for i, v := range a {
		s += v * b[i]
	}
	return s
}

// times is rows×D values times Σ.
func (a *aware) times(x []float64, rows int) []float64 {
	out := make([]float64, rows*a.d)
	gemm.Float64(a.workers, false, false, rows, a.d, a.d, 1, x, a.d, a.full, a.d, 0, out, a.d)
	return out
}

// channels is a kernel whose input channels are mixed by a symmetric matrix.
func (a *aware) channels(k *conv.Kernel, by []float64) *conv.Kernel {
	out := *k
	out.Weight = make([]float32, len(k.Weight))
	n, taps := k.Shape[1], k.Taps()
	row := make([]float64, n*taps)
	for t := range k.Out() {
		clear(row)
		for i := range n {
			for j := range n {
				for p := range taps {
					row[j*taps+p] += float64(k.Weight[(t*n+i)*taps+p]) * by[i*n+j]
				}
			}
		}
		for i, v := range row {
			out.Weight[t*n*taps+i] = float32(v)
		}
	}
	return &out
}

// error is the error of a chain's outputs relative to what the kernel's vary by.
func (a *aware) error(c *conv.Chain) (float64, error) {
	k, err := c.Kernel()
	if err != nil {
		return 0, err
	}
	if k.Shape != a.k.Shape {
		return 0, fmt.Errorf("%w: a chain of shape %v for a kernel of %v", conv.ErrShape, k.Shape, a.k.Shape)
	}
	diff := *k
	diff.Weight = make([]float32, len(k.Weight))
	delta := make([]float64, len(k.Weight))
	for i, v := range k.Weight {
		delta[i] = a.w[i] - float64(v)
		diff.Weight[i] = float32(delta[i])
	}
	var e float64
	switch {
	case a.full != nil:
		e = dot(a.times(delta, a.t), delta)
	case a.root != nil:
		n := a.channels(&diff, a.root).Norm()
		e = n * n
	default:
		e = dot(delta, delta)
	}
	return math.Sqrt(max(e, 0) / a.total), nil
}

// factorise applies the method and the rank rule of opt to the kernel as its inputs see it.
func (a *aware) factorise(ctx context.Context, opt Options) (factorised, error) {
	var f factorised
	var err error
	if opt.Method == SVD || a.k.Pointwise() {
		f, err = a.principal(ctx, opt)
	} else {
		f, err = factorise(ctx, a.white, opt)
		if err != nil || f.reason != "" {
			return f, err
		}
		f.chain, err = a.fit(f.chain)
	}
	if err != nil || f.reason != "" {
		return f, err
	}
	if f.chain, err = a.biased(f.chain); err != nil {
		return f, err
	}
	f.output, err = a.outputError(f.chain)
	return f, err
}

// outputError is error, and for projections of the outputs, whose error is known without
// the full covariance, that.
func (a *aware) outputError(c *conv.Chain) (float64, error) {
	if a.full == nil && a.moments != nil && c.Kind == conv.SVD {
		return a.dropped(c.Rank[0]), nil
	}
	return a.error(c)
}

// dropped is the relative error of the projection on the outputs' first components.
func (a *aware) dropped(rank int) float64 {
	var kept, lost float64
	for i, v := range a.values {
		if i < rank {
			kept += max(v, 0)
		} else {
			lost += max(v, 0)
		}
	}
	return math.Sqrt(lost / (kept + lost))
}

// principal is the decomposition of the outputs into principal components (Zhang et al.
// 2016): of all chains kh×kw S→R, 1×1 R→T the one of the least output error.
func (a *aware) principal(ctx context.Context, opt Options) (factorised, error) {
	f := factorised{method: SVD}
	n := min(a.t, a.d)
	rank := 0
	switch opt.Rank.Rule {
	case VBMF:
		out, _, err := VBMFRanks(ctx, a.k, opt.vbmf())
		if err != nil {
			return f, err
		}
		if rank = out; rank == 0 {
			return factorised{reason: noSignal}, nil
		}
	case Fixed:
		rank = opt.Rank.Fixed[0]
	case Ratio:
		if rank = ranks.OfProduct(a.t, a.d, opt.Rank.Value); rank == 0 {
			return factorised{reason: fmt.Sprintf("no rank fits into %g of the weights", opt.Rank.Value)}, nil
		}
	case Energy:
		for rank = 1; rank < n; rank++ {
			if e := a.dropped(rank); e*e <= 1-opt.Rank.Value {
				break
			}
		}
	}
	if rank >= n && !opt.Always {
		return factorised{reason: fmt.Sprintf("rank %d is full", n)}, nil
	}
	var err error
	f.chain, err = a.svd(min(rank, n))
	return f, err
}

// svd is the chain of the projection of the outputs on their first components.
func (a *aware) svd(rank int) (*conv.Chain, error) {
	u, v := mat.NewDense(a.t, rank, nil), mat.NewDense(a.d, rank, nil)
	for i := range a.t {
		for r := range rank {
			u.Set(i, r, a.vectors[i*a.t+r])
		}
	}
	gemm.Float64(a.workers, true, false, a.d, rank, a.t, 1, a.w, a.d, u.RawMatrix().Data, rank, 0, v.RawMatrix().Data, rank)
	return chains.FromMatrix(a.k, conv.SVD, []*mat.Dense{u}, []*mat.Dense{v})
}

// fit makes a chain for the white kernel one for the kernel itself: the whitening is taken
// out of its first stage, and where Σ is known the last stage, of a Tucker-2 chain the last
// two together, are what regression of the kernel's outputs on the stages' before gives.
func (a *aware) fit(c *conv.Chain) (*conv.Chain, error) {
	out := *c
	out.Stages = slices.Clone(c.Stages)
	if a.root != nil {
		out.Stages[0] = a.channels(c.Stages[0], a.inverse)
	}
	if a.full == nil {
		return &out, nil
	}
	if c.Kind == conv.Tucker2 && len(c.Stages) == 3 {
		r, err := a.regress(out.Stages[:1], a.k.Shape[2], a.k.Shape[3])
		if err != nil {
			return nil, err
		}
		return r.tucker(out.Stages[0], c.Rank[0])
	}
	last := *out.Last()
	if len(out.Stages) == 1 || max(last.Groups, 1) > 1 {
		return &out, nil
	}
	r, err := a.regress(out.Stages[:len(out.Stages)-1], last.Shape[2], last.Shape[3])
	if err != nil {
		return nil, err
	}
	last.Weight = singles(r.m)
	out.Stages[len(out.Stages)-1] = &last
	return &out, nil
}

func singles(v []float64) []float32 {
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = float32(x)
	}
	return out
}

// regression is of a kernel's outputs on the features that a stage sees.
type regression struct {
	a *aware
	n int
	// m is T×n, the coefficients; squares, n×n, the features' covariance.
	m, squares []float64
	// values and vectors, T×T, are of the covariance of what the regression predicts.
	values, vectors []float64
}

// regress regresses the outputs on the h×w patches of what the stages before give:
// M = W·Σ·Eᵀ·(E·Σ·Eᵀ)⁻¹, E being the linear map from a patch of the inputs to one of the
// features. Without Σ the stages are those of the white kernel, whose inputs are white.
func (a *aware) regress(stages []*conv.Kernel, h, w int) (*regression, error) {
	head, err := (&conv.Chain{Kind: conv.Dense, Groups: 1, Stages: stages}).Kernel()
	if err != nil {
		return nil, err
	}
	kh, kw := a.k.Shape[2], a.k.Shape[3]
	n := head.Out() * h * w
	e := make([]float64, n*a.d)
	at := 0
	for r := range head.Out() {
		for s := range a.ins {
			for y := range head.Shape[2] {
				for x := range head.Shape[3] {
					v := float64(head.Weight[at])
					at++
					for ly := range h {
						for lx := range w {
							e[((r*h+ly)*w+lx)*a.d+(s*kh+y+ly)*kw+x+lx] = v
						}
					}
				}
			}
		}
	}
	r := &regression{a: a, n: n, squares: make([]float64, n*n)}
	right := make([]float64, n*a.t) // E·Σ·Wᵀ
	es, target := e, a.w
	if a.full != nil {
		es = a.times(e, n)
	} else {
		target = doubles(a.white.Weight)
	}
	gemmInto(a.workers, r.squares, es, e, n, n, a.d)
	gemmInto(a.workers, right, es, target, n, a.t, a.d)
	var trace float64
	for i := range n {
		trace += r.squares[i*n+i]
	}
	// Features that depend on each other need a ridge; 1e-10 of the mean costs nothing.
	for ridge := 1e-10; ; ridge *= 100 {
		u := slices.Clone(r.squares)
		for i := range n {
			u[i*n+i] += ridge * trace / float64(n)
		}
		err := linalg.Cholesky(a.workers, n, u, n)
		if err == nil {
			linalg.SolveCholesky(a.workers, n, a.t, u, n, right, a.t)
			break
		}
		if ridge > 1e-3 || !(trace > 0) {
			return nil, err
		}
	}
	r.m = make([]float64, a.t*n)
	linalg.Transpose(a.workers, n, a.t, right, a.t, r.m, n)
	return r, nil
}

// spectrum computes the components of what the regression predicts.
func (r *regression) spectrum() error {
	if r.values != nil {
		return nil
	}
	t, n, workers := r.a.t, r.n, r.a.workers
	ms, c := make([]float64, t*n), make([]float64, t*t)
	gemm.Float64(workers, false, false, t, n, n, 1, r.m, n, r.squares, n, 0, ms, n)
	gemmInto(workers, c, ms, r.m, t, t, n)
	r.values = make([]float64, t)
	var err error
	r.vectors, _, err = linalg.EigenTop(workers, t, c, t, r.values, func([]float64) int { return t })
	return err
}

// error is the relative error of the best chain of R2 outputs of the core.
func (r *regression) error(rank int) float64 {
	kept := 0.0
	for _, v := range r.values[:rank] {
		kept += max(v, 0)
	}
	return math.Sqrt(max(1-kept/r.a.total, 0))
}

// tucker is, for a first stage Vᵀ, the Tucker-2 chain of the least error: reduced-rank
// regression, U the first components of what the regression predicts, the core UᵀM.
func (r *regression) tucker(first *conv.Kernel, rank int) (*conv.Chain, error) {
	if err := r.spectrum(); err != nil {
		return nil, err
	}
	a := r.a
	point := conv.Geometry{}.Normal()
	core := &conv.Kernel{Shape: [4]int{rank, first.Out(), a.k.Shape[2], a.k.Shape[3]}, Geometry: a.k.Normal()}
	c := &conv.Chain{Kind: conv.Tucker2, Rank: []int{rank, first.Out()}, Groups: 1, Stages: []*conv.Kernel{first, core}}
	if rank >= a.t {
		core.Weight = singles(r.m)
	} else {
		u, g := make([]float64, a.t*rank), make([]float64, rank*r.n)
		for i := range a.t {
			copy(u[i*rank:(i+1)*rank], r.vectors[i*a.t:])
		}
		gemm.Float64(a.workers, true, false, rank, r.n, a.t, 1, u, rank, r.m, r.n, 0, g, r.n)
		core.Weight = singles(g)
		c.Stages = append(c.Stages, &conv.Kernel{Shape: [4]int{a.t, rank, 1, 1}, Weight: singles(u), Geometry: point})
	}
	c.Last().Bias = a.k.Bias
	return c, c.Validate()
}

// biased is a chain whose bias makes the mean of its outputs that of the kernel's.
func (a *aware) biased(c *conv.Chain) (*conv.Chain, error) {
	if a.moments == nil {
		return c, nil
	}
	k, err := c.Kernel()
	if err != nil {
		return nil, err
	}
	last := *c.Last()
	last.Bias = make([]float32, a.t)
	for i := range a.t {
		var b float64
		if a.k.Bias != nil {
			b = float64(a.k.Bias[i])
		}
		for j, v := range k.Weight[i*a.d : (i+1)*a.d] {
			b += (a.w[i*a.d+j] - float64(v)) * a.moments.Mean[j]
		}
		last.Bias[i] = float32(b)
	}
	out := *c
	out.Stages = append(slices.Clone(c.Stages[:len(c.Stages)-1]), &last)
	return &out, nil
}
