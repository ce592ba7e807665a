package compress

import (
	"context"
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/compress/chains"
	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/internal/bisect"
	"github.com/lowrank-go/lowrank/internal/gemm"
	"github.com/lowrank-go/lowrank/internal/linalg"
	"github.com/lowrank-go/lowrank/internal/tensorops"
	"github.com/lowrank-go/lowrank/ranks"
	"github.com/lowrank-go/lowrank/stability"
	"github.com/lowrank-go/lowrank/tucker"
	"github.com/lowrank-go/lowrank/vbmf"
)

// Sweeps of the alternating algorithms on a kernel. Kernels have no exact rank: later
// sweeps gain little.
const (
	hooiSweeps   = 20
	searchSweeps = 60 // while the rank of a CP is searched
)

// Tolerances of the alternating algorithms, in their objectives' units.
const alsTol, epcTol, epcSlack = 1e-6, 1e-4, 1e-3

// effort is the sweeps that a CP of rank r of a T×S×P kernel gets, and those of its
// correction: fewer the more one costs, by the root of the cost. The kernels of 512×512×9
// then take most of the time of a network, but not all, and smaller ones come nearer to
// their best.
func effort(t, s, p, r int) (als, epc int) {
	const dearest = 1e10 // operations of a sweep
	work := float64(r) * (2*float64(t*s*p) + 4*float64(r)*float64(t+s+p))
	scale := math.Sqrt(dearest / max(work, 1))
	sweeps := func(least, most float64) int { return int(max(least, min(least*scale, most))) }
	return sweeps(20, 300), sweeps(5, 200)
}

// factorised is a chain in place of a kernel, or the reason for none.
type factorised struct {
	chain         *conv.Chain
	method        Method
	before, after float64 // sensitivities
	// Of cp and tkdcpd, before and after the correction.
	intensity, degeneracy, cosine [2]float64
	reason                        string
	// output is the relative error of the outputs, where statistics tell it.
	output float64
}

// diagnose adds a group's CPDs, before and after the correction, to the report.
func (f *factorised) diagnose(x *tensor.Dense, before, after *cpd.Kruskal) error {
	for i, k := range []*cpd.Kruskal{before, after} {
		r, err := stability.Diagnose(x, k)
		if err != nil {
			return err
		}
		f.intensity[i] += r.Intensity
		f.cosine[i] = min(f.cosine[i], r.Cosine)
		if d := r.Degeneracy; d-d == 0 {
			f.degeneracy[i] = max(f.degeneracy[i], d)
		}
	}
	return nil
}

// factorise applies opt's method and rank rule to one kernel, group by group
// with the same ranks in each.
func factorise(ctx context.Context, k *conv.Kernel, opt Options) (factorised, error) {
	method := opt.Method
	if k.Pointwise() {
		method = SVD
	}
	var f factorised
	var err error
	switch method {
	case Tucker:
		f, err = tucker2(ctx, k, groups(k), opt)
	case CP, Separable:
		f, err = canonical(ctx, k, method, opt)
	case TKDCPD:
		f, err = tuckerCP(ctx, k, groups(k), opt)
	default:
		f, err = matrix(ctx, k, conv.Kind(method), opt)
	}
	f.method = method
	if err == nil && f.chain != nil {
		// Rounding apart, the chain must do what its kernel does.
		var dev float64
		if dev, err = f.chain.Verify(opt.Seed); err == nil && !(dev <= 1e-3) {
			f.reason = fmt.Sprintf("the chain's output would differ from its kernel's by %.2g of the largest value: weights of %.2g are too near the ends of float32", dev, largest(k.Weight))
		}
	}
	return f, err
}

// groups are the tensors of a kernel's groups.
func groups(k *conv.Kernel) []*tensor.Dense {
	parts := make([]*tensor.Dense, max(k.Groups, 1))
	for g := range parts {
		parts[g] = k.Group(g)
	}
	return parts
}

// largest is the largest magnitude.
func largest(v []float32) (top float64) {
	for _, x := range v {
		top = max(top, math.Abs(float64(x)))
	}
	return top
}

// noSignal is the reason of a VBMF rank of 0.
const noSignal = "VBMF finds only noise"

// factor and bound are the two meanings of Stability, 0 for the other.
func (opt *Options) factor() float64 {
	if opt.Stability > 1 {
		return opt.Stability
	}
	return 0
}

func (opt *Options) bound() float64 {
	if opt.Stability < 1 {
		return opt.Stability
	}
	return 0
}

// single is the precision of a kernel's weights.
const single = 0x1p-23

func (opt *Options) vbmf() *vbmf.Settings {
	return &vbmf.Settings{Workers: opt.Workers, Precision: max(opt.Precision, single)}
}

// VBMFRanks are the VBMF ranks of the output and input unfoldings of a kernel,
// the larger over its groups. The precision of the weights is that of float32 where the
// settings do not say a coarser one.
func VBMFRanks(ctx context.Context, k *conv.Kernel, set *vbmf.Settings) (out, in int, err error) {
	with := vbmf.Settings{}
	if set != nil {
		with = *set
	}
	with.Precision = max(with.Precision, single)
	for g := range max(k.Groups, 1) {
		if k.Pointwise() { // both unfoldings are one matrix
			r, err := matrixRank(ctx, k, g, &with)
			if err != nil {
				return 0, 0, err
			}
			out, in = max(out, r), max(in, r)
			continue
		}
		if ctx.Err() != nil {
			return 0, 0, context.Cause(ctx)
		}
		x := k.Group(g)
		for mode, r := range []*int{&out, &in} {
			v, err := vbmf.Unfolding(x, mode, &with)
			if err != nil {
				return 0, 0, err
			}
			*r = max(*r, v.Rank)
		}
	}
	return out, in, nil
}

// matrixRank is the VBMF rank of a group of a 1×1 kernel, whose weights may be many: they
// are not copied.
func matrixRank(ctx context.Context, k *conv.Kernel, group int, set *vbmf.Settings) (int, error) {
	rows, cols := k.Shape[0]/max(k.Groups, 1), k.Shape[1]
	g, n, err := gram(ctx, set.Workers, rows, cols, k.Weight[group*rows*cols:][:rows*cols])
	if err != nil {
		return 0, err
	}
	w := make([]float64, n)
	if err := linalg.EigenSymContext(ctx, set.Workers, n, g, n, w, nil, n); err != nil {
		return 0, err
	}
	r, err := vbmf.Gram(w, rows, cols, set)
	return r.Rank, err
}

// tucker2 is the Tucker-2 decomposition over the channel modes.
func tucker2(ctx context.Context, k *conv.Kernel, parts []*tensor.Dense, opt Options) (factorised, error) {
	t, s, p := k.Shape[0]/len(parts), k.Shape[1], k.Taps()
	var ranks []int
	switch opt.Rank.Rule {
	case VBMF:
		out, in, err := VBMFRanks(ctx, k, opt.vbmf())
		if err != nil {
			return factorised{}, err
		}
		if out == 0 || in == 0 {
			return factorised{reason: noSignal}, nil
		}
		ranks = []int{out, in}
	case Fixed:
		ranks = []int{opt.Rank.Fixed[0], opt.Rank.Fixed[len(opt.Rank.Fixed)-1]}
	case Energy:
		if opt.Rank.Value == 1 {
			return factorised{reason: "all of the energy asks for full rank"}, nil
		}
		ranks = []int{1, 1}
		for _, x := range parts {
			r, err := tucker.HOOI(ctx, x, &tucker.Settings{Modes: []int{0, 1}, RelError: math.Sqrt(1 - opt.Rank.Value),
				MaxSweeps: hooiSweeps, Workers: opt.Workers})
			if err != nil {
				return factorised{}, err
			}
			ranks[0], ranks[1] = max(ranks[0], r.Ranks()[0]), max(ranks[1], r.Ranks()[1])
			if len(parts) == 1 && ranks[0] < t && ranks[1] < s {
				return tuckerChain(k, []*tucker.Result{r})
			}
		}
	case Ratio:
		var err error
		if ranks, err = ratioRanks(ctx, parts, t, s, p, opt); err != nil {
			return factorised{}, err
		}
		if ranks == nil {
			return factorised{reason: fmt.Sprintf("no ranks fit into %g of the weights", opt.Rank.Value)}, nil
		}
	}
	// What the core's unfoldings can have.
	ranks[0], ranks[1] = min(ranks[0], t), min(ranks[1], s)
	ranks[0] = min(ranks[0], ranks[1]*p)
	ranks[1] = min(ranks[1], ranks[0]*p)
	var modes, chosen []int
	for m, full := range []int{t, s} {
		if ranks[m] < full {
			modes = append(modes, m)
			chosen = append(chosen, ranks[m])
		}
	}
	if len(modes) == 0 {
		return factorised{reason: fmt.Sprintf("rank %d,%d is full", ranks[0], ranks[1])}, nil
	}
	var results []*tucker.Result
	for _, x := range parts {
		r, err := tucker.HOOI(ctx, x, &tucker.Settings{Modes: modes, Ranks: chosen, MaxSweeps: hooiSweeps, Workers: opt.Workers})
		if err != nil {
			return factorised{}, err
		}
		results = append(results, r)
	}
	return tuckerChain(k, results)
}

// tuckerChain is the chain of the groups' decompositions.
func tuckerChain(k *conv.Kernel, results []*tucker.Result) (f factorised, err error) {
	var parts []*tucker.Tucker
	for _, r := range results {
		parts = append(parts, &r.Tucker)
		f.before += r.Sensitivity()
	}
	f.after = f.before
	f.chain, err = chains.FromTucker(k, parts)
	return f, err
}

// ratioRanks are the ranks of the largest energy, in the truncated HOSVD, of
// all whose Tucker-2 decomposition has at most the given share of the weights;
// nil if none has.
func ratioRanks(ctx context.Context, parts []*tensor.Dense, t, s, p int, opt Options) ([]int, error) {
	energy, err := coreEnergy(ctx, parts, t, s, p, opt.Workers)
	if err != nil {
		return nil, err
	}
	budget := opt.Rank.Value * float64(t*s*p)
	var best []int
	most := -1.0
	above := make([]float64, s) // energy of columns up to j in the rows so far
	for i := range t {
		var row float64
		for j := range s {
			row += energy[i*s+j]
			above[j] += row
			params := s*(j+1) + p*(i+1)*(j+1) + t*(i+1)
			// A mode of full rank needs no factor.
			if j+1 == s {
				params -= s * s
			}
			if i+1 == t {
				params -= t * t
			}
			if float64(params) <= budget && above[j] > most {
				most, best = above[j], []int{i + 1, j + 1}
			}
		}
	}
	return best, nil
}

// coreEnergy is, for each output and input component of the HOSVD, t×s, the squared norm
// of the core's taps there, summed over the groups.
func coreEnergy(ctx context.Context, parts []*tensor.Dense, t, s, p, workers int) ([]float64, error) {
	energy := make([]float64, t*s)
	for _, x := range parts {
		r, err := tucker.HOSVD(ctx, x, &tucker.Settings{Modes: []int{0, 1}, Ranks: []int{t, s}, Workers: workers})
		if err != nil {
			return nil, err
		}
		shape, core, err := tensorops.View(r.Core)
		if err != nil {
			return nil, err
		}
		// Ranks may have been cut to what the unfoldings have.
		for i, v := range core {
			energy[i/p/shape[1]*s+i/p%shape[1]] += v * v
		}
	}
	return energy, nil
}

// canonical is the CP decomposition, of method CP with the taps as one mode, of
// Separable with two.
func canonical(ctx context.Context, k *conv.Kernel, method Method, opt Options) (factorised, error) {
	parts := groups(k)
	t, s, p := k.Shape[0]/len(parts), k.Shape[1], k.Taps()
	each := t + s + p
	chain := chains.FromCP
	if method == Separable {
		each = t + s + k.Shape[2] + k.Shape[3]
		chain = chains.FromSeparable
		for _, x := range parts {
			if err := x.Reshape(t, s, k.Shape[2], k.Shape[3]); err != nil {
				return factorised{}, err
			}
		}
	}
	als := func(x *tensor.Dense, rank, sweeps int) (*cpd.Result, error) {
		return cpd.ALS(ctx, x, rank, &cpd.Settings{Seed: opt.Seed, MaxSweeps: sweeps, Tol: alsTol, Workers: opt.Workers,
			Progress: func(_, sweep int, _ float64) { opt.tell(2. / 3 * float64(sweep) / float64(sweeps)) }})
	}
	rank := 0
	switch opt.Rank.Rule {
	case VBMF:
		out, in, err := VBMFRanks(ctx, k, opt.vbmf())
		if err != nil {
			return factorised{}, err
		}
		if out == 0 || in == 0 {
			return factorised{reason: noSignal}, nil
		}
		rank = max(out, in)
	case Fixed:
		rank = min(opt.Rank.Fixed[0], t*s*p)
	case Ratio:
		if rank = ranks.OfSum(t*s*p, each, opt.Rank.Value); rank == 0 {
			return factorised{reason: fmt.Sprintf("no rank fits into %g of the weights", opt.Rank.Value)}, nil
		}
	case Energy:
		// The error falls with the rank: bisect below the rank that would
		// save nothing.
		bound := math.Sqrt(1 - opt.Rank.Value)
		fits := func(r int) (bool, error) {
			sweeps, _ := effort(t, s, p, r)
			for _, x := range parts {
				res, err := als(x, r, min(searchSweeps, sweeps))
				if err != nil {
					return false, err
				}
				if res.RelError > bound {
					return false, nil
				}
			}
			return true, nil
		}
		most := max((t*s*p-1)/each, 1)
		var err error
		if rank, err = bisect.Least(most, most, fits); err != nil {
			return factorised{}, err
		}
		if rank == 0 {
			return factorised{reason: fmt.Sprintf("even rank %d, the largest that saves anything, keeps less than %g of the energy", most, opt.Rank.Value)}, nil
		}
	}
	if params := len(parts) * rank * each; params >= len(k.Weight) && !opt.Always {
		return factorised{reason: fmt.Sprintf("rank %d would need %d parameters, the kernel has %d", rank, params, len(k.Weight))}, nil
	}
	var f factorised
	var decs []*cpd.Kruskal
	sweeps, corrections := effort(t, s, p, rank)
	for _, x := range parts {
		r, err := als(x, rank, sweeps)
		if err != nil {
			return factorised{}, err
		}
		f.before += r.Sensitivity()
		fit := &r.Kruskal
		if opt.Stability > 0 {
			if r, err = stable(ctx, x, r, corrections, opt); err != nil {
				return factorised{}, err
			}
		}
		decs = append(decs, &r.Kruskal)
		f.after += r.LeastSensitivity()
		if err := f.diagnose(x, fit, &r.Kruskal); err != nil {
			return factorised{}, err
		}
	}
	var err error
	f.chain, err = chain(k, decs)
	return f, err
}

// stable is the error-preserving correction of a fit, with the error that the option
// or, for ranks by energy, the rule allows.
func stable(ctx context.Context, x *tensor.Dense, r *cpd.Result, sweeps int, opt Options) (*cpd.Result, error) {
	set := stability.Settings{Factor: opt.factor(), Bound: opt.bound(), Tol: epcTol, Slack: epcSlack, MaxSweeps: sweeps, Workers: opt.Workers}
	if opt.Rank.Rule == Energy {
		bound := max(r.RelError*opt.factor(), opt.bound())
		bound = min(bound, max(math.Sqrt(1-opt.Rank.Value), r.RelError))
		set.Factor, set.Bound = 0, max(bound, 1e-6)
	}
	e, err := stability.EPC(ctx, x, &r.Kruskal, &set)
	if err != nil {
		return nil, err
	}
	return &cpd.Result{Kruskal: e.Kruskal, RelError: e.After.RelError}, nil
}

// matrix is the singular value decomposition of the matrix that a kind of chain is the
// product of.
func matrix(ctx context.Context, k *conv.Kernel, kind conv.Kind, opt Options) (factorised, error) {
	spectra, err := spectra(ctx, k, kind, opt.Workers, opt.most(k, kind))
	if err != nil {
		return factorised{}, err
	}
	t, q := spectra[0].t, spectra[0].q
	n := min(t, q)
	rank := 0
	switch opt.Rank.Rule {
	case VBMF:
		if rank, err = values(spectra).Signal(opt.vbmf()); err != nil {
			return factorised{}, err
		}
		if rank == 0 {
			return factorised{reason: noSignal}, nil
		}
	case Fixed:
		rank = opt.Rank.Fixed[0]
	case Ratio:
		if rank = ranks.OfProduct(t, q, opt.Rank.Value); rank == 0 {
			return factorised{reason: fmt.Sprintf("no rank fits into %g of the weights", opt.Rank.Value)}, nil
		}
	case Energy:
		rank = values(spectra).Keeping(1 - opt.Rank.Value)
	}
	if rank >= n && !opt.Always {
		return factorised{reason: fmt.Sprintf("rank %d is full", n)}, nil
	}
	rank = min(rank, n)
	var f factorised
	var us, vs []*mat.Dense
	for _, sp := range spectra {
		u, v := sp.factors(rank)
		us, vs = append(us, u), append(vs, v)
		var sum, square float64
		for _, s := range sp.values[:rank] {
			sum += s
			square += s * s
		}
		// Noise on U passes through V and the other way round: with all of
		// the scale in V, and with half in each.
		f.before += float64(t)*square + float64(q*rank)
		f.after += float64(t+q) * sum
	}
	f.chain, err = chains.FromMatrix(k, kind, us, vs)
	return f, err
}

// most is the number of singular vectors that the rank may ask for.
func (opt *Options) most(k *conv.Kernel, kind conv.Kind) int {
	switch opt.Rank.Rule {
	case Fixed:
		return opt.Rank.Fixed[0]
	case Ratio:
		if fold, err := conv.NewFold(k, kind); err == nil {
			return max(ranks.OfProduct(fold.Rows, fold.Cols, opt.Rank.Value), 1)
		}
	}
	return math.MaxInt
}

// spectra are the decompositions of a kernel's groups, with at most so many vectors.
func spectra(ctx context.Context, k *conv.Kernel, kind conv.Kind, workers, vectors int) ([]*spectrum, error) {
	fold, err := conv.NewFold(k, kind)
	if err != nil {
		return nil, err
	}
	var out []*spectrum
	for g := range max(k.Groups, 1) {
		sp, err := newSpectrum(ctx, fold.Group(g), fold.Rows, fold.Cols, workers, vectors)
		if err != nil {
			return nil, err
		}
		out = append(out, sp)
	}
	return out, nil
}

// spectrum is the singular value decomposition of a t×q matrix, through the
// Gram matrix of its smaller side: singular values below 1e-8 of the largest
// are not exact, which float32 weights cannot tell.
type spectrum struct {
	t, q    int
	workers int
	data    []float64
	values  []float64 // falling
	vectors []float64 // n×known, column i belongs to value i
	known   int
	left    bool // vectors are left ones
}

func newSpectrum(ctx context.Context, data []float64, t, q, workers, vectors int) (sp *spectrum, err error) {
	sp = &spectrum{t: t, q: q, workers: workers, data: data, left: t <= q}
	g, n, err := gram(ctx, workers, t, q, data)
	if err != nil {
		return nil, err
	}
	w := make([]float64, n)
	if sp.vectors, sp.known, err = linalg.EigenTopContext(ctx, workers, n, g, n, w, func([]float64) int { return vectors }); err != nil {
		return nil, err
	}
	for i, v := range w {
		w[i] = math.Sqrt(max(v, 0))
	}
	sp.values = w
	return sp, nil
}

// values are the singular values of all groups.
func values(all []*spectrum) ranks.Spectra {
	out := ranks.Spectra{Rows: all[0].t, Cols: all[0].q}
	for _, sp := range all {
		out.Values = append(out.Values, sp.values)
	}
	return out
}

// factors are U (t×r) and V (q×r) of the best approximation U·Vᵀ of rank r,
// the columns of both having the square root of the singular value as norm.
func (sp *spectrum) factors(r int) (u, v *mat.Dense) {
	n := len(sp.values)
	known := mat.NewDense(n, r, nil)
	for i := range n {
		for c := range r {
			known.Set(i, c, sp.vectors[i*sp.known+c])
		}
	}
	rows, depth := sp.t, sp.q
	if sp.left {
		rows, depth = sp.q, sp.t
	}
	other := mat.NewDense(rows, r, nil)
	gemm.Float64(sp.workers, sp.left, false, rows, r, depth, 1, sp.data, sp.q, known.RawMatrix().Data, r, 0, other.RawMatrix().Data, r)
	// known has unit columns, other singular values as norms.
	scale := func(m *mat.Dense, power float64) {
		rows, _ := m.Dims()
		for c := range r {
			if sp.values[c] == 0 {
				continue
			}
			f := math.Pow(sp.values[c], power)
			for i := range rows {
				m.Set(i, c, m.At(i, c)*f)
			}
		}
	}
	scale(known, 0.5)
	scale(other, -0.5)
	if sp.left {
		return known, other
	}
	return other, known
}
