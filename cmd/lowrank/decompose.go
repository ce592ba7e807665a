package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/internal/bisect"
	"github.com/lowrank-go/lowrank/internal/chart"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/model/factors"
	"github.com/lowrank-go/lowrank/ranks"
	"github.com/lowrank-go/lowrank/stability"
	"github.com/lowrank-go/lowrank/tucker"
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
	// Vanished is the number of components that explain nothing, though something is
	// left to explain.
	Vanished int `json:"vanished,omitempty"`
	// Before is the fit before --stability.
	Before *stability.State `json:"before,omitempty"`
	Output string           `json:"output,omitempty"`
	Plot   string           `json:"plot,omitempty"`
}

type decomposeFlags struct {
	method  string
	solver  string
	rank    string
	rule    ranks.Rank // of rank, where no bound on the error came of it
	tol     float64
	modes   string
	init    string
	starts  int
	nonneg  string
	weights string
	sweeps  int
	stop    float64
	target  float64
	limit   time.Duration
	plot    string
	epc     float64
	tensor  string
	// stability is none, epc or epc=V; correction is what it says: a factor of the
	// fit's error above 1, a relative error below, 0 for none.
	stability  string
	correction float64
	// precision is the rounding of the tensor's elements, 0 for float64's.
	precision float64
	seed      uint64
	threads   int
	out       string
	force     bool
	json      bool
}

func newDecompose() *cobra.Command {
	var f decomposeFlags
	cmd := &cobra.Command{
		Use:   "decompose TENSOR [-o OUT.npz]",
		Short: "Factorise one tensor",
		Long: `Factorises a tensor of any order from a .npy file, or from a file of several
with --tensor NAME (.npz, safetensors, a checkpoint).

Methods: cp is the canonical polyadic decomposition, tucker the Tucker
decomposition by HOSVD and HOOI, tkdcpd a Tucker decomposition of the first two
modes, or of --modes, with a cp of its core, corrected as with --stability epc. --solver is for cp: als, alternating least
squares, or lm, Levenberg-Marquardt, which needs far fewer iterations where
components are nearly collinear or the accuracy is to be high.

--rank is one number for cp; for tucker a comma list with a number for each
mode, or one number for all (cut to the sizes); for tkdcpd the numbers of tucker
and then that of cp, or one for all. vbmf (not of cp) tells signal from noise,
energy=E keeps a share E of the squared norm, and error=E, or --tol E, bounds the
relative error: tucker takes the least ranks that keep it, cp the smallest rank
found by doubling and bisection; in tkdcpd a quarter of its square is tucker's.

--nonnegative all keeps every entry from falling below zero, for data that are
amounts; cp also takes a list of modes. --weights names a tensor of the same
shape, by which the squared error of each entry counts in cp; 0 means that the
entry is not known, and it may then be NaN.

--starts is the number of starts of cp and, with given ranks, of tucker; the best
result counts, and all but the first are random, from --seed. Components that
vanish are tried again.

--stability epc makes cp as little sensitive as 1.01 times its error allows, so
that components do not cancel each other. epc=V with V above 1 is another factor;
with V below 1 it is the relative error itself. tkdcpd is corrected so unless it is
none.

An interrupt, --time or --target ends the fit early, and the best so far is
written.

OUT.npz holds, for cp, "weights" and "factor0", "factor1", … (rows by
components, columns of unit norm); for tucker "core" and the factors, none for
a mode that --modes leaves out; for tkdcpd those factors, and "weights", "core0",
"core1", … of the cp of the core. --plot draws the error after each sweep.`,
		Example: `  lowrank decompose kernel.npy --method tucker --rank 8,8,3,3 -o factors.npz
  lowrank decompose data.npy --method cp --rank 3 --nonnegative all --json
  lowrank decompose resnet20.th --tensor module.layer3.0.conv1.weight --method tucker --modes 0,1 --tol 0.1 --json`,
		Args: exactly(1, "a file"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.method, "method", "cp", "cp, tucker or tkdcpd")
	fl.StringVar(&f.rank, "rank", "", "how ranks are chosen: "+ranks.Forms(decomposeRules...))
	fl.Float64Var(&f.tol, "tol", 0, "bound on the relative error, in place of --rank")
	fl.StringVar(&f.modes, "modes", "", "modes that tucker or tkdcpd compresses, a comma list; all, or 0,1, when empty")
	fl.StringVar(&f.solver, "solver", "als", "solver of cp: als or lm")
	fl.StringVar(&f.init, "init", "hosvd", "first start: hosvd or random")
	fl.IntVar(&f.starts, "starts", 0, "starts of cp and of tucker with given ranks, 0 for a default; the best result is kept, all but the first are random")
	fl.StringVar(&f.nonneg, "nonnegative", "", "modes whose factors are kept non-negative, all or, for cp, a comma list")
	fl.StringVar(&f.weights, "weights", "", "file of the entries' weights for cp (.npy); 0 is an unknown entry")
	fl.Float64Var(&f.target, "target", 0, "stop cp at this relative error")
	fl.DurationVar(&f.limit, "time", 0, "stop cp after this time, such as 30s")
	fl.StringVar(&f.stability, "stability", "", "for cp and tkdcpd: none, epc, or epc=V; make factors as little sensitive as V times the error of the fit allows, 1.01 by default, or, with V below 1, as a relative error of V does")
	fl.Float64Var(&f.epc, "epc", 0, "the V of --stability epc=V")
	fl.StringVar(&f.plot, "plot", "", "file for a plot of the error after each sweep ("+strings.Join(chart.Formats, ", ")+")")
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

// decomposeRules are what --rank may be.
var decomposeRules = []ranks.Rule{ranks.Fixed, ranks.VBMF, ranks.Energy, ranks.Error}

// decomposition fills in the report and the factors.
type decomposition func(ctx context.Context, x *tensor.Dense, update func(int, int, string), r *decomposeReport, out *model.StateDict) error

func (f *decomposeFlags) run(cmd *cobra.Command, path string) error {
	if (f.rank == "") == (f.tol == 0) {
		return usagef("decompose wants one of --rank and --tol")
	}
	if f.tol < 0 || f.tol >= 1 || math.IsNaN(f.tol) {
		return usagef("--tol %g; want a relative error above 0 and below 1", f.tol)
	}
	if f.rank != "" {
		rules := decomposeRules
		if f.method == "cp" {
			rules = []ranks.Rule{ranks.Fixed, ranks.Energy, ranks.Error}
		}
		var err error
		if f.rule, err = ranks.Parse(f.rank, rules...); err != nil {
			return err
		}
		switch keeps := f.rule.Keeps(); {
		case keeps == 1:
			return usagef("--rank %s; want a share below 1", f.rank)
		case f.rule.Rule == ranks.Error:
			f.tol, f.rule = f.rule.Value, ranks.Rank{}
		case f.method == "cp" && keeps > 0:
			f.tol, f.rule = math.Sqrt(1-keeps), ranks.Rank{}
		}
	}
	if f.out != "" && !strings.HasSuffix(f.out, ".npz") {
		return usagef("-o %s; factors are written as .npz", f.out)
	}
	if f.method != "cp" && f.method != "tucker" && f.method != "tkdcpd" {
		return usagef("--method %q; want cp, tucker or tkdcpd", f.method)
	}
	if f.solver != "als" && f.solver != "lm" {
		return usagef("--solver %q; want als or lm", f.solver)
	}
	if f.method != "cp" && f.solver != "als" {
		return usagef("--solver belongs to cp")
	}
	if f.nonneg != "" && (f.solver != "als" || f.method == "tkdcpd") {
		return usagef("--nonnegative belongs to tucker and to cp with als")
	}
	if f.nonneg != "" && f.method == "tucker" && f.nonneg != "all" {
		return usagef("--nonnegative %s; tucker takes all", f.nonneg)
	}
	if f.weights != "" && (f.method != "cp" || f.solver != "als") {
		return usagef("--weights belongs to cp with als")
	}
	if f.epc != 0 {
		if f.stability != "" {
			return usagef("--epc and --stability are the same; want one of them")
		}
		f.stability = fmt.Sprintf("epc=%g", f.epc)
	}
	if f.stability != "" {
		var err error
		if f.correction, err = parseStability(f.stability); err != nil {
			return err
		}
		if f.correction != 0 && (f.method == "tucker" || f.nonneg != "" || f.weights != "") {
			return usagef("--stability %s is for tkdcpd, and for cp without --nonnegative and --weights", f.stability)
		}
	}
	if f.method != "cp" && (f.target != 0 || f.limit != 0) {
		return usagef("--target and --time belong to cp")
	}
	if f.plot != "" && !slices.Contains(chart.Formats, strings.ToLower(filepath.Ext(f.plot))) {
		return usagef("--plot %s; want a name that ends in %s", f.plot, strings.Join(chart.Formats, ", "))
	}
	if f.method == "cp" && f.modes != "" {
		return usagef("--modes belongs to tucker and tkdcpd")
	}
	for _, out := range []string{f.out, f.plot} {
		if err := checkOutput(out, f.force); err != nil {
			return err
		}
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
	err = map[string]decomposition{"cp": f.cp, "tucker": f.tucker, "tkdcpd": f.tkdcpd}[f.method](cmd.Context(), x, line.Update, &r, out)
	line.Done()
	if err != nil && out.Len() == 0 {
		return fmt.Errorf("%s: %w", path, err)
	}
	r.Seconds = time.Since(start).Seconds()
	if err := f.write(&r, out); err != nil {
		return err
	}
	if f.json {
		if err := printJSON(cmd.OutOrStdout(), r); err != nil {
			return err
		}
	} else {
		r.print(cmd)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errBestSoFar, err)
	}
	return nil
}

// write writes the factors and the plot.
func (f *decomposeFlags) write(r *decomposeReport, out *model.StateDict) error {
	if f.out != "" {
		if err := model.WriteNPZ(f.out, out); err != nil {
			return err
		}
		r.Output = f.out
	}
	if f.plot == "" {
		return nil
	}
	c := &chart.Chart{
		Title: fmt.Sprintf("%s of %v, rank %v", r.Method, r.Shape, r.Rank), XLabel: "sweep", YLabel: "relative error",
		LogY: true, Lines: []chart.Line{{Y: r.Errors}},
	}
	for i := range r.Errors {
		// Those of tucker begin with the start's.
		c.Lines[0].X = append(c.Lines[0].X, float64(i+1-len(r.Errors)+r.Sweeps))
	}
	b, err := c.Draw(f.plot)
	if err != nil {
		return err
	}
	if err := model.WriteAtomic(f.plot, func(w io.Writer) error { _, err := w.Write(b); return err }); err != nil {
		return err
	}
	r.Plot = f.plot
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
	if t, ok := sd.Get(name); ok {
		f.precision = precision(t.DType())
	}
	return dense(sd, path, name)
}

func dense(sd *model.StateDict, path, name string) (*tensor.Dense, error) {
	t, ok := sd.Get(name)
	if !ok {
		for _, l := range sd.Source.LeftOut {
			if l.Name == name {
				return nil, fmt.Errorf("%s: %q is not read: %s", path, name, l.Reason)
			}
		}
		return nil, fmt.Errorf("%s: no tensor is called %q", path, name)
	}
	x, err := t.Dense()
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", path, name, err)
	}
	return x, nil
}

// precision is the relative rounding of elements of a type, 0 where that is float64's.
func precision(d model.DType) float64 {
	switch d {
	case model.F32:
		return 0x1p-23
	case model.F16:
		return 0x1p-10
	case model.BF16:
		return 0x1p-7
	}
	return 0
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
	}
	if r.Vanished > 0 {
		rows = append(rows, []string{"", fmt.Sprintf("%d components explain nothing; more --starts or another --seed may find more", r.Vanished)})
	}
	if r.Before != nil {
		rows = append(rows, []string{"before --epc", fmt.Sprintf("error %.6g, intensity %.6g, sensitivity %.6g", r.Before.RelError, r.Before.Intensity, r.Before.Sensitivity)})
	}
	rows = append(rows, []string{"seconds", fmt.Sprintf("%.2f", r.Seconds)})
	for _, out := range []string{r.Output, r.Plot} {
		if out != "" {
			rows = append(rows, []string{"wrote", out})
		}
	}
	table(cmd.OutOrStdout(), rows)
}

func (f *decomposeFlags) cp(ctx context.Context, x *tensor.Dense, update func(int, int, string), r *decomposeReport, out *model.StateDict) error {
	set := cpd.Settings{Init: cpd.Init(f.init), Starts: f.starts, Seed: f.seed, MaxSweeps: f.sweeps, Tol: f.stop, Workers: f.threads, Target: f.target, MaxTime: f.limit}
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
	if f.weights != "" {
		sd, err := model.ReadFile(f.weights)
		if err != nil {
			return err
		}
		if sd.Len() != 1 {
			return usagef("--weights %s holds %d tensors; want one", f.weights, sd.Len())
		}
		if set.Weights, err = dense(sd, f.weights, sd.Names()[0]); err != nil {
			return err
		}
	}
	var best *cpd.Result
	var err error
	if f.rank != "" && f.tol == 0 {
		if len(f.rule.Fixed) != 1 {
			return usagef("--rank %s; cp takes one number", f.rank)
		}
		best, err = fit(ctx, x, f.rule.Fixed[0], &set)
	} else {
		best, err = searchRank(ctx, x, f.tol, fit, &set)
	}
	if best == nil {
		return err
	}
	r.Vanished = best.Vanished
	if f.correction > 0 && err == nil {
		if err = f.correct(ctx, x, update, best, r); err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	r.Rank, r.Params = []int{best.Rank()}, best.Params()
	r.RelError, r.Sweeps, r.Status, r.Errors = best.RelError, best.Sweeps, string(best.Status), best.Errors
	r.Intensity, r.Sensitivity = best.Intensity(), best.LeastSensitivity()
	factors.PutKruskal(out, &best.Kruskal)
	return err
}

// correct makes a fit less sensitive.
func (f *decomposeFlags) correct(ctx context.Context, x *tensor.Dense, update func(int, int, string), fit *cpd.Result, r *decomposeReport) error {
	const limit = 500
	set := stability.Settings{MaxSweeps: limit, Workers: f.threads, Progress: func(sweep int, s, _ float64) {
		update(sweep, limit, fmt.Sprintf("sweeps of correction, sensitivity %.3g", s))
	}}
	if f.correction > 1 {
		set.Factor = f.correction
	} else {
		set.Bound = f.correction
	}
	e, err := stability.EPC(ctx, x, &fit.Kruskal, &set)
	if e == nil {
		return err
	}
	r.Before = &e.Before
	fit.Kruskal, fit.RelError = *e.Arranged(), e.After.RelError
	return err
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
	enough := *set
	enough.Target = max(set.Target, tol)
	set = &enough
	var best *cpd.Result
	least := 1.
	rank, err := bisect.Least(1, most, func(rank int) (bool, error) {
		r, err := fit(ctx, x, rank, set)
		if err != nil {
			return false, err
		}
		least = min(least, r.RelError)
		if r.RelError > tol {
			return false, nil
		}
		best = r
		return true, nil
	})
	if err == nil && rank == 0 {
		err = fmt.Errorf("rank %d reaches a relative error of %.4g only, not %g; more --starts or --sweeps may", most, least, tol)
	}
	return best, err
}

// compressed are the modes of --modes, nil for a default.
func (f *decomposeFlags) compressed() ([]int, error) {
	if f.modes == "" {
		return nil, nil
	}
	return numbers("--modes", f.modes, 0)
}

func (f *decomposeFlags) tucker(ctx context.Context, x *tensor.Dense, update func(int, int, string), r *decomposeReport, out *model.StateDict) error {
	set := tucker.Settings{RelError: f.tol, MaxSweeps: f.sweeps, Tol: f.stop, Workers: f.threads,
		Starts: f.starts, Init: tucker.Init(f.init), Seed: f.seed, Precision: f.precision}
	limit := f.sweeps
	if limit == 0 {
		limit = 50
	}
	set.Progress = func(sweep int, e float64) { update(sweep, limit, fmt.Sprintf("sweeps, error %.3g", e)) }
	var err error
	if set.Modes, err = f.compressed(); err != nil {
		return err
	}
	set.Ranks, set.Energy, set.VBMF = f.rule.Fixed, f.rule.Keeps(), f.rule.Rule == ranks.VBMF
	fit := tucker.HOOI
	if f.nonneg != "" {
		fit = tucker.NonNegative
	}
	t, err := fit(ctx, x, &set)
	if t == nil {
		return err
	}
	r.Rank, r.Params = t.Ranks(), t.Params()
	r.RelError, r.Sweeps, r.Status, r.Errors = t.RelError, t.Sweeps, string(t.Status), t.Errors
	// The components of a Tucker decomposition are the entries of its core.
	norm := t.Norm()
	r.Intensity = norm * norm
	r.Sensitivity = t.Sensitivity()
	if err := factors.PutTucker(out, &t.Tucker); err != nil {
		return err
	}
	return err
}
