package compress

import (
	"context"
	"errors"
	"fmt"
	"math"

	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/compress/chains"
	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/stability"
	"github.com/lowrank-go/lowrank/tkdcpd"
)

// tuckerCP is the Tucker-2 decomposition with a CPD of its core.
func tuckerCP(ctx context.Context, k *conv.Kernel, parts []*tensor.Dense, opt Options) (factorised, error) {
	shape := []int{k.Shape[0] / len(parts), k.Shape[1], k.Taps()}
	weights := len(k.Weight) / len(parts)
	set := tkdcpd.Settings{
		Fuse: tkdcpd.Cheaper, Plain: opt.Stability == 0, Corrected: opt.bound(), Workers: opt.Workers, Precision: opt.vbmf().Precision,
		Fit: cpd.Settings{Seed: opt.Seed, Tol: alsTol},
		EPC: stability.Settings{Factor: opt.factor(), Tol: epcTol, Slack: epcSlack},
	}
	likely := max(shape[0], shape[1]) / 2 // rank
	reason := noSignal
	switch opt.Rank.Rule {
	case VBMF:
		set.VBMF = true
	case Fixed:
		f := opt.Rank.Fixed
		set.Ranks, set.Rank = []int{f[0], f[len(f)/2]}, f[len(f)-1]
		likely = min(set.Rank, weights)
	case Energy:
		reason = fmt.Sprintf("no ranks that save anything keep %g of the energy", opt.Rank.Value)
		set.RelError, set.Params = math.Sqrt(1-opt.Rank.Value), weights-1
		if set.RelError == 0 {
			return factorised{reason: reason}, nil
		}
		likely = weights / 2 / (shape[0] + shape[1] + shape[2])
	case Ratio:
		reason = fmt.Sprintf("no ranks fit into %g of the weights", opt.Rank.Value)
		if set.Params = int(opt.Rank.Value * float64(weights)); set.Params == 0 {
			return factorised{reason: reason}, nil
		}
		likely = set.Params / (shape[0] + shape[1] + shape[2])
	}
	set.Fit.MaxSweeps, set.EPC.MaxSweeps = effort(shape[0], shape[1], shape[2], max(likely, 1))
	if opt.Rank.Rule == VBMF || opt.Rank.Rule == Fixed {
		// What these say may cost more than it saves.
		ranks, rank, err := tkdcpd.Choose(ctx, &set, parts...)
		switch {
		case errors.Is(err, tkdcpd.ErrRank):
			return factorised{reason: reason}, nil
		case err != nil:
			return factorised{}, err
		}
		dims := []int{ranks[0], ranks[1], shape[2]}
		if params := tkdcpd.Params(shape, dims, rank, set.Fuse); params >= weights {
			return factorised{reason: fmt.Sprintf("rank %v would need %d parameters, the kernel has %d", []int{ranks[0], ranks[1], rank}, params*len(parts), len(k.Weight))}, nil
		}
		set.VBMF, set.Ranks, set.Rank = false, ranks, rank
	}
	// Two thirds of the time are the fit's.
	set.Fit.Progress = func(_, sweep int, _ float64) { opt.tell(2. / 3 * float64(sweep) / float64(set.Fit.MaxSweeps)) }
	set.EPC.Progress = func(sweep int, _, _ float64) { opt.tell((2 + float64(sweep)/float64(set.EPC.MaxSweeps)) / 3) }
	results, err := tkdcpd.DecomposeAll(ctx, &set, parts...)
	switch {
	case errors.Is(err, tkdcpd.ErrRank):
		return factorised{reason: reason}, nil
	case err != nil:
		return factorised{}, err
	}
	var f factorised
	var decs []*tkdcpd.Tensor
	for i, r := range results {
		fit := &tkdcpd.Tensor{Core: r.Fit.Kruskal, Factors: r.Factors}
		f.before += fit.Merged().Sensitivity()
		f.after += r.Merged().Balanced().Sensitivity()
		if err := f.diagnose(parts[i], fit.Kruskal(), r.Kruskal()); err != nil {
			return factorised{}, err
		}
		decs = append(decs, &r.Tensor)
	}
	f.chain, err = chains.FromTKDCPD(k, decs)
	return f, err
}
