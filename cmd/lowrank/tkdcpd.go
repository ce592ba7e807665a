package main

import (
	"context"
	"errors"
	"fmt"
	"math"

	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/model/factors"
	"github.com/lowrank-go/lowrank/ranks"
	"github.com/lowrank-go/lowrank/stability"
	"github.com/lowrank-go/lowrank/tkdcpd"
)

func (f *decomposeFlags) tkdcpd(ctx context.Context, x *tensor.Dense, update func(int, int, string), r *decomposeReport, out *model.StateDict) error {
	modes, err := f.compressed()
	if err != nil {
		return err
	}
	set := tkdcpd.Settings{
		Modes: modes, RelError: f.tol, VBMF: f.rule.Rule == ranks.VBMF, Precision: f.precision, Workers: f.threads,
		Fit:   cpd.Settings{Init: cpd.Init(f.init), Starts: f.starts, Seed: f.seed, MaxSweeps: f.sweeps, Tol: f.stop},
		Plain: f.stability == "none",
	}
	if f.correction > 1 {
		set.EPC.Factor = f.correction
	} else {
		set.Corrected = f.correction
	}
	if energy := f.rule.Keeps(); energy > 0 {
		set.RelError = math.Sqrt(1 - energy)
	}
	if set.RelError > 0 {
		set.Share = .25
	}
	if len(modes) == 0 {
		set.Modes = []int{0, 1}
	}
	switch given, n := f.rule.Fixed, len(set.Modes); len(given) {
	case 0:
	case 1, n + 1: // one is for all
		set.Ranks, set.Rank = given[:max(len(given)-1, 1)], given[len(given)-1]
	default:
		return usagef("--rank %s; want one number, or %d for the modes and then that of the CPD", f.rank, n)
	}
	limit := 500
	if f.sweeps > 0 {
		limit = f.sweeps
	}
	set.Fit.Progress = func(_, sweep int, e float64) { update(sweep, limit, fmt.Sprintf("sweeps, error %.3g", e)) }
	set.EPC.Progress = func(sweep int, s, _ float64) {
		update(sweep, 500, fmt.Sprintf("sweeps of correction, sensitivity %.3g", s))
	}
	d, err := tkdcpd.Decompose(ctx, x, &set)
	if d == nil {
		return err
	}
	for _, n := range set.Modes {
		r.Rank = append(r.Rank, d.Core.Shape()[n])
	}
	r.Rank, r.Params = append(r.Rank, d.Core.Rank()), d.Params()
	r.RelError, r.Sweeps, r.Status, r.Vanished = d.RelError, d.Fit.Sweeps, string(d.Fit.Status), d.Fit.Vanished
	// Errors of the core, relative to the tensor.
	whole := func(e float64) float64 {
		return math.Hypot(d.TuckerError, e*math.Sqrt(1-d.TuckerError*d.TuckerError))
	}
	for _, e := range d.Fit.Errors {
		r.Errors = append(r.Errors, whole(e))
	}
	r.Intensity, r.Sensitivity = d.Core.Intensity(), d.Balanced().Sensitivity()
	if d.Correction != nil {
		fit := &tkdcpd.Tensor{Core: d.Fit.Kruskal, Factors: d.Factors}
		r.Before = &stability.State{RelError: whole(d.Fit.RelError), Intensity: d.Fit.Intensity(), Sensitivity: fit.Balanced().Sensitivity()}
	}
	return errors.Join(err, factors.PutTKDCPD(out, &d.Tensor))
}
