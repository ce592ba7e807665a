package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/internal/tensorops"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/tucker"
	"github.com/lowrank-go/lowrank/vbmf"
)

type decomposeReport struct {
	Method      string    `json:"method"`
	Shape       []int     `json:"shape"`
	Rank        []int     `json:"rank"`
	Params      int       `json:"params"`
	RelError    float64   `json:"rel_error"`
	Sweeps      int       `json:"sweeps"`
	Status      string    `json:"status"`
	Seconds     float64   `json:"seconds"`
	Intensity   float64   `json:"intensity"`
	Sensitivity float64   `json:"sensitivity"`
	Errors      []float64 `json:"errors"`
	Output      string    `json:"output,omitempty"`
}

type decomposeFlags struct {
	method  string
	solver  string
	rank    string
	tol     float64
	modes   string
	init    string
	starts  int
	nonneg  string
	sweeps  int
	stop    float64
	tensor  string
	seed    uint64
	threads int
	out     string
	force   bool
	json    bool
}

func newDecompose() *cobra.Command {
	var f decomposeFlags
	cmd := &cobra.Command{
		Use:   "decompose TENSOR [-o OUT.npz]",
		Short: "Factorise one tensor",
		Long: `Factorises a tensor of any order from a .npy file, or from a file of several
with --tensor NAME (.npz, safetensors, a checkpoint).

Methods: cp is the canonical polyadic decomposition, tucker the Tucker
decomposition by HOSVD and HOOI. --solver is for cp: als, alternating least
squares, or lm, Levenberg-Marquardt, which needs far fewer iterations where
components are nearly collinear or the accuracy is to be high.

--rank is one number for cp; for tucker a comma list with a number for each
mode, or one number for all (cut to the sizes), or vbmf. --tol bounds the
relative error instead: tucker then takes the least ranks that keep it, cp the
smallest rank found by doubling and bisection.

OUT.npz holds, for cp, "weights" and "factor0", "factor1", … (rows by
components, columns of unit norm); for tucker "core" and the factors, none for
a mode that --modes leaves out.`,
		Example: `  lowrank decompose kernel.npy --method tucker --rank 8,8,3,3 -o factors.npz
  lowrank decompose data.npy --method cp --rank 3 --nonnegative all --json
  lowrank decompose resnet20.th --tensor module.layer3.0.conv1.weight --method tucker --modes 0,1 --tol 0.1 --json`,
		Args: exactly(1, "a file"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.method, "method", "cp", "cp or tucker")
	fl.StringVar(&f.rank, "rank", "", "R, a comma list, or vbmf (tucker)")
	fl.Float64Var(&f.tol, "tol", 0, "bound on the relative error, in place of --rank")
	fl.StringVar(&f.modes, "modes", "", "modes that tucker compresses, a comma list; all when empty")
	fl.StringVar(&f.solver, "solver", "als", "solver of cp: als or lm")
	fl.StringVar(&f.init, "init", "hosvd", "start of cp: hosvd or random")
	fl.IntVar(&f.starts, "starts", 0, "starts of cp, 0 for a default; the best result is kept, all but the first are random")
	fl.StringVar(&f.nonneg, "nonnegative", "", "modes whose factors cp keeps non-negative, a comma list or all")
	fl.IntVar(&f.sweeps, "sweeps", 0, "most sweeps, 0 for a default")
	fl.Float64Var(&f.stop, "stop", 0, "stop when a sweep lowers the relative error by less, 0 for a default")
	fl.StringVar(&f.tensor, "tensor", "", "name of the tensor in a file of several")
	fl.Uint64Var(&f.seed, "seed", 1, "seed of random starts")
	fl.IntVar(&f.threads, "threads", 0, "threads to use, 0 for all; results do not depend on it")
	fl.StringVarP(&f.out, "output", "o", "", "file to write (.npz)")
	fl.BoolVar(&f.force, "force", false, "overwrite an existing output")
	fl.BoolVar(&f.json, "json", false, "print one JSON object on standard output and nothing else there")
	return cmd
}

func (f *decomposeFlags) run(cmd *cobra.Command, path string) error {
	if (f.rank == "") == (f.tol == 0) {
		return usagef("decompose wants one of --rank and --tol")
	}
	if f.tol < 0 || f.tol >= 1 || math.IsNaN(f.tol) {
		return usagef("--tol %g; want a relative error above 0 and below 1", f.tol)
	}
	if f.out != "" && !strings.HasSuffix(f.out, ".npz") {
		return usagef("-o %s; factors are written as .npz", f.out)
	}
	if f.method != "cp" && f.method != "tucker" {
		return usagef("--method %q; want cp or tucker", f.method)
	}
	if f.solver != "als" && f.solver != "lm" {
		return usagef("--solver %q; want als or lm", f.solver)
	}
	if f.method != "cp" && f.solver != "als" {
		return usagef("--solver belongs to cp")
	}
	if f.nonneg != "" && (f.method != "cp" || f.solver != "als") {
		return usagef("--nonnegative belongs to cp with als")
	}
	if f.method == "cp" && f.modes != "" {
		return usagef("--modes belongs to tucker")
	}
	if err := checkOutput(f.out, f.force); err != nil {
		return err
	}
	x, err := f.read(path)
	if err != nil {
		return err
	}
	line := progressLine(cmd, f.method)
	defer line.Done()
	start := time.Now()
	r := decomposeReport{Method: f.method, Shape: x.Shape().Clone()}
	out := model.NewStateDict()
	if f.method == "cp" {
		err = f.cp(cmd.Context(), x, line.Update, &r, out)
	} else {
		err = f.tucker(cmd.Context(), x, line.Update, &r, out)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	line.Done()
	r.Seconds = time.Since(start).Seconds()
	if f.out != "" {
		if err := model.WriteNPZ(f.out, out); err != nil {
			return err
		}
		r.Output = f.out
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), r)
	}
	r.print(cmd)
	return nil
}

// read takes the tensor out of the file, in float64.
func (f *decomposeFlags) read(path string) (*tensor.Dense, error) {
	sd, err := model.ReadFile(path)
	if err != nil {
		return nil, err
	}
	name := f.tensor
	if name == "" {
		if sd.Len() != 1 {
			return nil, usagef("%s holds %d tensors; choose one with --tensor", path, sd.Len())
		}
		name = sd.Names()[0]
	}
	t, ok := sd.Get(name)
	if !ok {
		return nil, fmt.Errorf("%s: no tensor is called %q", path, name)
	}
	v, err := t.Float64s()
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", path, name, err)
	}
	if len(t.Shape) == 0 || t.Len() == 0 {
		return nil, fmt.Errorf("%s: %s has shape %v; want at least one dimension and one value", path, name, t.Shape)
	}
	return tensorops.Wrap(slices.Clone(t.Shape), v), nil
}

// numbers reads a comma list of whole numbers from low on.
func numbers(flag, s string, low int) ([]int, error) {
	var out []int
	for part := range strings.SplitSeq(s, ",") {
		v, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || v < low {
			return nil, usagef("%s %q; want whole numbers from %d on, separated by commas", flag, s, low)
		}
		out = append(out, v)
	}
	return out, nil
}

func (r *decomposeReport) print(cmd *cobra.Command) {
	total := 1
	for _, d := range r.Shape {
		total *= d
	}
	rows := [][]string{
		{"method", r.Method},
		{"shape", fmt.Sprint(r.Shape)},
		{"rank", fmt.Sprint(r.Rank)},
		{"parameters", fmt.Sprintf("%s of %s (%s fewer)", count(r.Params), count(total), times(total, r.Params))},
		{"relative error", fmt.Sprintf("%.10g", r.RelError)},
		{"sweeps", fmt.Sprintf("%d (%s)", r.Sweeps, r.Status)},
		{"intensity", fmt.Sprintf("%.6g", r.Intensity)},
		{"sensitivity", fmt.Sprintf("%.6g", r.Sensitivity)},
		{"seconds", fmt.Sprintf("%.2f", r.Seconds)},
	}
	if r.Output != "" {
		rows = append(rows, []string{"wrote", r.Output})
	}
	table(cmd.OutOrStdout(), rows)
}

func put(out *model.StateDict, name string, m *mat.Dense) {
	rows, cols := m.Dims()
	out.Set(name, &model.Tensor{Shape: []int{rows, cols}, Data: mat.DenseCopyOf(m).RawMatrix().Data})
}

func (f *decomposeFlags) cp(ctx context.Context, x *tensor.Dense, update func(int, int, string), r *decomposeReport, out *model.StateDict) error {
	set := cpd.Settings{Init: cpd.Init(f.init), Starts: f.starts, Seed: f.seed, MaxSweeps: f.sweeps, Tol: f.stop, Workers: f.threads}
	fit, limit := cpd.ALS, 500
	if f.solver == "lm" {
		fit, limit = cpd.LM, 200
	}
	if f.sweeps > 0 {
		limit = f.sweeps
	}
	set.Progress = func(start, sweep int, e float64) {
		update(sweep, limit, fmt.Sprintf("sweeps of start %d, error %.3g", start, e))
	}
	switch f.nonneg {
	case "":
	case "all":
		for n := range x.Shape() {
			set.NonNegative = append(set.NonNegative, n)
		}
	default:
		var err error
		if set.NonNegative, err = numbers("--nonnegative", f.nonneg, 0); err != nil {
			return err
		}
	}
	var best *cpd.Result
	var err error
	if f.rank != "" {
		ranks, err := numbers("--rank", f.rank, 1)
		if err != nil {
			return err
		}
		if len(ranks) != 1 {
			return usagef("--rank %s; cp takes one number", f.rank)
		}
		if best, err = fit(ctx, x, ranks[0], &set); err != nil {
			return err
		}
	} else if best, err = searchRank(ctx, x, f.tol, fit, &set); err != nil {
		return err
	}
	r.Rank, r.Params = []int{best.Rank()}, best.Params()
	r.RelError, r.Sweeps, r.Status, r.Errors = best.RelError, best.Sweeps, string(best.Status), best.Errors
	r.Intensity, r.Sensitivity = best.Intensity(), best.LeastSensitivity()
	out.Set("weights", &model.Tensor{Shape: []int{len(best.Weights)}, Data: best.Weights})
	for n, u := range best.Factors {
		put(out, fmt.Sprintf("factor%d", n), u)
	}
	return nil
}

// searchRank finds the smallest rank whose error is at most tol, by doubling
// and bisection.
func searchRank(ctx context.Context, x *tensor.Dense, tol float64, fit func(context.Context, *tensor.Dense, int, *cpd.Settings) (*cpd.Result, error), set *cpd.Settings) (*cpd.Result, error) {
	shape := x.Shape()
	// A sum of this many rank-1 tensors holds any tensor of the shape.
	most, longest := 1, 1
	for _, d := range shape {
		most *= d
		longest = max(longest, d)
	}
	most /= longest
	var best *cpd.Result
	lo, hi := 0, 1
	for {
		r, err := fit(ctx, x, hi, set)
		if err != nil {
			return nil, err
		}
		if r.RelError <= tol {
			best = r
			break
		}
		if hi >= most {
			return nil, fmt.Errorf("rank %d reaches a relative error of %.4g only, not %g; more --starts or --sweeps may", hi, r.RelError, tol)
		}
		lo, hi = hi, min(2*hi, most)
	}
	for hi-lo > 1 {
		mid := (lo + hi) / 2
		r, err := fit(ctx, x, mid, set)
		if err != nil {
			return nil, err
		}
		if r.RelError <= tol {
			best, hi = r, mid
		} else {
			lo = mid
		}
	}
	return best, nil
}

func (f *decomposeFlags) tucker(ctx context.Context, x *tensor.Dense, update func(int, int, string), r *decomposeReport, out *model.StateDict) error {
	set := tucker.Settings{RelError: f.tol, MaxSweeps: f.sweeps, Tol: f.stop, Workers: f.threads}
	limit := f.sweeps
	if limit == 0 {
		limit = 50
	}
	set.Progress = func(sweep int, e float64) { update(sweep, limit, fmt.Sprintf("sweeps, error %.3g", e)) }
	if f.modes != "" {
		var err error
		if set.Modes, err = numbers("--modes", f.modes, 0); err != nil {
			return err
		}
	}
	switch f.rank {
	case "":
	case "vbmf":
		modes := set.Modes
		if len(modes) == 0 {
			for n := range x.Shape() {
				modes = append(modes, n)
			}
		}
		for _, n := range modes {
			v, err := vbmf.Unfolding(x, n, &vbmf.Settings{Workers: f.threads})
			if err != nil {
				return err
			}
			if v.Rank == 0 {
				return fmt.Errorf("VBMF finds only noise in mode %d; choose a rank", n)
			}
			set.Ranks = append(set.Ranks, v.Rank)
		}
		set.Modes = modes
	default:
		var err error
		if set.Ranks, err = numbers("--rank", f.rank, 1); err != nil {
			return err
		}
	}
	t, err := tucker.HOOI(ctx, x, &set)
	if err != nil {
		return err
	}
	r.Rank, r.Params = t.Ranks(), t.Params()
	r.RelError, r.Sweeps, r.Status, r.Errors = t.RelError, t.Sweeps, string(t.Status), t.Errors
	// The components of a Tucker decomposition are the entries of its core.
	norm := t.Norm()
	r.Intensity = norm * norm
	r.Sensitivity = t.Sensitivity()
	shape, core, err := tensorops.View(t.Core)
	if err != nil {
		return err
	}
	out.Set("core", &model.Tensor{Shape: shape, Data: core})
	for n, u := range t.Factors {
		if u != nil {
			put(out, fmt.Sprintf("factor%d", n), u)
		}
	}
	return nil
}
