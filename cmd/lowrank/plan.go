package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/compress"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/ranks"
)

// planFlags are what compress plans a whole network by.
type planFlags struct {
	budget  string
	maxDrop string
	stats   string
	plan    string
}

func (f *planFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.budget, "budget", "", "what the whole network may cost, in place of --rank: macs=0.33, params=0.3 (shares up to 1, or numbers), ms=5 or ms=60%; several with commas")
	fl.StringVar(&f.maxDrop, "max-drop", "", "find the smallest budget that loses at most this many points of top-1 on --data, or, as kl=V, whose answers on the images of --calibrate differ by V nats")
	fl.StringVar(&f.stats, "stats", "", "file of the statistics of --calibrate: read if it is there, else written")
	fl.StringVar(&f.plan, "plan", "", "file of the plan: read if it is there, else written; another budget then costs little")
}

func (f *planFlags) planning() bool { return f.budget != "" || f.maxDrop != "" }

// tuning tells whether the compressed network is changed after. A plan's images are for its
// statistics, which put the biases right: norms calibrated on them too lost 3.6 points of
// ResNet-20 at half of the operations.
func (f *compressFlags) tuning() bool {
	return f.Epochs > 0 || f.calibrate > 0 && !f.planning()
}

// checkPlan reports flags that do not go together.
func (f *compressFlags) checkPlan() error {
	fl := f.modelFlags.cmd.Flags()
	if !f.planning() {
		if f.stats != "" || f.plan != "" {
			return usagef("--stats and --plan need --budget or --max-drop")
		}
		return nil
	}
	if fl.Changed("rank") && f.budget != f.rank || fl.Changed("stability") {
		return usagef("--budget and --max-drop choose the ranks; --rank and --stability choose them too")
	}
	if f.kernels {
		return usagef("--budget and --max-drop need a network; --kernels reads loose kernels")
	}
	if _, err := f.budgets(); err != nil {
		return err
	}
	_, _, err := f.drop()
	return err
}

// budgets are those of the flag, or multiply-accumulates alone for --max-drop.
func (f *planFlags) budgets() ([]compress.Budget, error) {
	if f.budget == "" {
		return []compress.Budget{{Metric: compress.MACs, Value: 1, Share: true}}, nil
	}
	return ranks.ParseBudgets(f.budget)
}

// drop is what --max-drop allows: points of top-1, or nats.
func (f *compressFlags) drop() (most float64, nats bool, err error) {
	if f.maxDrop == "" {
		return 0, false, nil
	}
	text, nats := strings.CutPrefix(f.maxDrop, "kl=")
	most, err = strconv.ParseFloat(text, 64)
	if err != nil || !(most >= 0) || math.IsInf(most, 1) {
		return 0, false, usagef("--max-drop %q; want points of top-1 from 0, such as 0.5, or kl=V", f.maxDrop)
	}
	if nats && f.calibrate == 0 {
		return 0, false, usagef("--max-drop kl=V compares answers on the images of --calibrate N")
	}
	if !nats && f.data == "" {
		return 0, false, usagef("--max-drop in points needs labelled images, --data; kl=V needs none")
	}
	return most, nats, nil
}

// planReport is what was planned, for --json and the report.
type planReport struct {
	Budget string `json:"budget"`
	// Images is how many unlabelled images the statistics are of, Probes how many measured
	// the damage.
	Images int     `json:"images"`
	Probes int     `json:"probes"`
	Damage float64 `json:"damage"`
	// PredictedMS is the time that a budget of milliseconds promised.
	PredictedMS float64 `json:"predicted_ms,omitempty"`
	// Tries are the budgets that --max-drop tried.
	Tries []planTry `json:"tries,omitempty"`
}

type planTry struct {
	Budget string `json:"budget"`
	// Drop is the points of top-1 lost, or the divergence in nats; Error is the standard
	// error of the points.
	Drop  float64 `json:"drop"`
	Error float64 `json:"error,omitempty"`
}

// probeImages is how many images measure the damage: fewer of large ones, of which each takes
// as long as dozens of small ones.
func probeImages(g *graph.Graph) int {
	if eval.Small(g) {
		return 128
	}
	return 32
}

// planned compresses by a plan.
func (f *compressFlags) planned(cmd *cobra.Command, before *graph.Graph, set dataset.Set, opt compress.Options, r *compressReport) (*graph.Graph, []compress.Result, error) {
	ctx := cmd.Context()
	r.Plan = &planReport{}
	var images dataset.Set
	if f.calibrate > 0 {
		var err error
		if images, err = dataset.Open(f.data, dataset.Options{Split: dataset.Train, Limit: f.calibrate}); err != nil {
			return nil, nil, err
		}
		defer func() { _ = dataset.Close(images) }()
	}
	stats, err := f.statistics(cmd, before, images)
	if err != nil {
		return nil, nil, err
	}
	if stats != nil {
		r.Plan.Images = stats.Images
	}
	p, err := f.planFor(cmd, before, images, stats, opt)
	if err != nil {
		return nil, nil, err
	}
	r.Plan.Probes = p.Images
	budgets, err := f.budgets()
	if err != nil {
		return nil, nil, err
	}
	for _, b := range budgets {
		if b.Metric == compress.MS && p.MS == 0 {
			line := progressLine(cmd, "times")
			err := p.Time(ctx, before, f.threads, line.Update)
			line.Done()
			if err != nil {
				return nil, nil, err
			}
			if f.plan != "" {
				if err := p.WriteFile(f.plan); err != nil {
					return nil, nil, err
				}
			}
		}
	}
	build := func(budgets []compress.Budget) (*graph.Graph, []compress.Result, error) {
		c, err := p.Choose(budgets)
		if err != nil {
			return nil, nil, err
		}
		var names []string
		for _, b := range budgets {
			names = append(names, b.String())
		}
		r.Plan.Budget, r.Plan.Damage, r.Plan.PredictedMS = strings.Join(names, ","), c.Damage, c.MS
		return p.Build(ctx, before, c, stats, opt)
	}
	if f.maxDrop == "" {
		return build(budgets)
	}
	return f.bisect(ctx, before, set, images, budgets, build, r.Plan)
}

// statistics reads or collects the statistics; nil where there are none.
func (f *compressFlags) statistics(cmd *cobra.Command, g *graph.Graph, images dataset.Set) (*compress.Statistics, error) {
	if f.stats != "" {
		s, err := compress.ReadStatistics(f.stats)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return s, err
		}
		if images == nil {
			return nil, usagef("there is no %s yet, and no --calibrate N to collect statistics by", f.stats)
		}
	}
	if images == nil {
		return nil, nil
	}
	line := progressLine(cmd, "statistics")
	defer line.Done()
	s, err := compress.Collect(cmd.Context(), g, images, compress.CollectOptions{
		Seed: f.seed, Workers: f.threads, Progress: func(done, total int) { line.Update(done, total, "images") }})
	if err == nil && f.stats != "" {
		err = s.WriteFile(f.stats)
	}
	return s, err
}

// planFor reads or makes the plan.
func (f *compressFlags) planFor(cmd *cobra.Command, g *graph.Graph, images dataset.Set, s *compress.Statistics, opt compress.Options) (*compress.Planned, error) {
	if f.plan != "" {
		p, err := compress.ReadPlan(f.plan)
		if err == nil || !errors.Is(err, os.ErrNotExist) {
			return p, err
		}
	}
	po := compress.PlanOptions{Layers: f.layers, Statistics: s, Seed: f.seed, Workers: f.threads}
	if opt.Method != compress.Auto {
		po.Methods = []compress.Method{opt.Method}
	}
	if images != nil {
		few, err := dataset.Sample(images, min(probeImages(g), images.Len()))
		if err != nil {
			return nil, err
		}
		po.Images = few
	}
	line := progressLine(cmd, "plan")
	po.Progress = line.Update
	p, err := compress.Plan(cmd.Context(), g, po)
	line.Done()
	if err == nil && f.plan != "" {
		err = p.WriteFile(f.plan)
	}
	return p, err
}

// tries is how many budgets --max-drop tries.
const tries = 7

// bisect finds the smallest share of the first budget's metric that keeps --max-drop; the
// network that it returns was itself measured.
func (f *compressFlags) bisect(ctx context.Context, before *graph.Graph, set, images dataset.Set, budgets []compress.Budget,
	build func([]compress.Budget) (*graph.Graph, []compress.Result, error), r *planReport) (*graph.Graph, []compress.Result, error) {
	most, nats, err := f.drop()
	if err != nil {
		return nil, nil, err
	}
	opt := eval.Options{Batch: f.batch, Workers: f.threads}
	score := func(g *graph.Graph) (eval.Score, error) {
		p, err := g.Compile()
		if err != nil {
			return eval.Score{}, err
		}
		return eval.Evaluate(ctx, p, set, opt)
	}
	var own eval.Score
	if !nats {
		if own, err = score(before); err != nil {
			return nil, nil, err
		}
	}
	measure := func(g *graph.Graph) (t planTry, err error) {
		if nats {
			t.Drop, err = compress.Divergence(ctx, before, g, images, f.threads)
			return t, err
		}
		s, err := score(g)
		if err != nil {
			return t, err
		}
		t.Drop = 100 * (own.Figure() - s.Figure())
		t.Error = 100 * pairedError(own.Correct, s.Correct)
		return t, nil
	}
	low, high := 0.0, 1.0 // the share: too small, good
	var best *graph.Graph
	var results []compress.Result
	kept := *r
	for i := range tries {
		share := (low + high) / 2
		if i == 0 && f.budget != "" && budgets[0].Share {
			share = budgets[0].Value
		}
		now := append([]compress.Budget{{Metric: budgets[0].Metric, Value: math.Round(share*1000) / 1000, Share: true}}, budgets[1:]...)
		g, res, err := build(now)
		if errors.Is(err, compress.ErrBudget) {
			low = share
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		t, err := measure(g)
		if err != nil {
			return nil, nil, err
		}
		t.Budget = r.Budget
		kept.Tries = append(kept.Tries, t)
		if t.Drop <= most {
			tried := kept.Tries
			kept = *r
			kept.Tries = tried
			best, results, high = g, res, share
		} else {
			low = share
		}
	}
	*r = kept
	if best == nil {
		return nil, nil, fmt.Errorf("no budget of %d tried loses at most --max-drop %s", len(kept.Tries), f.maxDrop)
	}
	return best, results, nil
}

// pairedError is the standard error of the difference of two accuracies on the same images
// (McNemar): only images that one gets right and the other wrong count.
func pairedError(a, b []bool) float64 {
	var gained, lost float64
	for i := range a {
		switch {
		case a[i] && !b[i]:
			lost++
		case b[i] && !a[i]:
			gained++
		}
	}
	n := float64(max(len(a), 1))
	return math.Sqrt(max(gained+lost-(gained-lost)*(gained-lost)/n, 0)) / n
}

func (r *planReport) print(w io.Writer) {
	if r == nil {
		return
	}
	by := "weights alone"
	if r.Images > 0 {
		by = fmt.Sprintf("the outputs on %d unlabelled images", r.Images)
	}
	fmt.Fprintf(w, "Planned for %s by %s; expected damage %.3g", r.Budget, by, r.Damage)
	if r.Probes > 0 {
		fmt.Fprintf(w, " nats (layers measured on %d images)", r.Probes)
	}
	fmt.Fprintln(w)
	if r.PredictedMS > 0 {
		fmt.Fprintf(w, "Predicted time of one image: %.3g ms\n", r.PredictedMS)
	}
	for _, t := range r.Tries {
		if t.Error > 0 {
			fmt.Fprintf(w, "  %s: %+.2f points, standard error %.2f\n", t.Budget, -t.Drop, t.Error)
		} else {
			fmt.Fprintf(w, "  %s: drop %.4g\n", t.Budget, t.Drop)
		}
	}
	fmt.Fprintln(w)
}
