package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/compress"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/ranks"
	"github.com/lowrank-go/lowrank/train"
	"github.com/lowrank-go/lowrank/zoo"
)

// compressReport is what compress prints with --json. Fields that need a known
// network or data are null without.
type compressReport struct {
	Arch          *string  `json:"arch"`
	Method        string   `json:"method"`
	Rank          string   `json:"rank"`
	Stability     string   `json:"stability"`
	ParamsBefore  int      `json:"params_before"`
	ParamsAfter   int      `json:"params_after"`
	MACsBefore    *int64   `json:"macs_before"`
	MACsAfter     *int64   `json:"macs_after"`
	LatencyBefore *float64 `json:"latency_ms_before"`
	LatencyAfter  *float64 `json:"latency_ms_after"`
	// Measure is "miou" for segmentation networks, whose accuracies below are mean
	// intersections over union.
	Measure        string   `json:"measure,omitempty"`
	AccuracyBefore *float64 `json:"accuracy_before"`
	// AccuracyCompressed is before calibration and fine-tuning, AccuracyAfter after.
	AccuracyCompressed *float64          `json:"accuracy_compressed,omitempty"`
	AccuracyAfter      *float64          `json:"accuracy_after"`
	Samples            int               `json:"samples"`
	FineTuning         []train.Epoch     `json:"finetuning,omitempty"`
	Seconds            float64           `json:"seconds"`
	Output             string            `json:"output,omitempty"`
	Layers             []compress.Result `json:"layers"`
	Plan               *planReport       `json:"plan,omitempty"`
	// Source says where in its file the network lay and what was left out.
	Source  *model.Source `json:"source,omitempty"`
	correct [3]int
	graph   bool // the file says how its layers are used
}

type compressFlags struct {
	modelFlags
	typeFlag
	dataFlags
	tuneFlags
	planFlags
	onnxFlags
	method    string
	stability string
	rank      string
	layers    []string
	kernels   bool
	seed      uint64
	out       string
	force     bool
}

func newCompress() *cobra.Command {
	var f compressFlags
	cmd := &cobra.Command{
		Use:   "compress [MODEL] -o OUT",
		Short: "Replace convolutions by chains of smaller ones",
		Long: `Factorises the convolutions of a trained network and writes a smaller network.
MODEL is a PyTorch checkpoint (.pth, .pt, .th), a safetensors file, or an output
of an earlier compress, or, where it is left out or "embedded", the network in the
program, whose data are glyphs:letters; OUT is a safetensors file from which the network is
rebuilt, its factors under the names of an nn.Sequential of Conv2d.

Ranks (--rank):
  vbmf          by analytic variational Bayes on the unfoldings
  energy=E      the fewest parameters that keep a share E of each kernel's
                squared norm
  error=E       the fewest parameters of a relative error of at most E
  ratio=Q       the best fit with at most a share Q of each kernel's weights
  R[,S[,T]]     the same rank everywhere; for tucker also R_out,R_in, for
                tkdcpd R_out,R_in,R
  params=V, macs=V, ms=V
                what the whole network may cost: the same as --budget

tkdcpd is tucker with a cp of its core. By energy and ratio it tries several
ranks of the channels, none of them reduced among these, and takes the best.

--stability epc corrects cp and tkdcpd: of all factors of the rank whose error
is at most 1.01 times that of the fit it takes the least sensitive, so that
components do not cancel each other and the network can be fine-tuned. epc=V
with V above 1 is another factor; with V below 1 it is the relative error that
each kernel may have. It is the default of tkdcpd.

A layer that would not get smaller, or would need more multiply-accumulates,
stays as it is, and the report says why. With --data the accuracy is measured
before and after, on its test split; of a segmentation network that is the mean
IoU over the classes.

--calibrate N gives the batch norms of the compressed network the statistics of N
training images. --finetune EPOCHS trains all of it on the training split, with the
outputs of the network as it was for a teacher (--teaching). The checkpoint of that
lies beside OUT, and --resume goes on from it.`,
		Example: `  lowrank compress -o small.safetensors
  lowrank compress resnet20.th --method tucker --rank energy=0.9 -o small.safetensors
  lowrank compress resnet18.pth --rank vbmf --layers 'layer3.*' --layers 'layer4.*' \
      --data folder:images.zip -o small.safetensors
  lowrank compress resnet20.th --method tkdcpd --rank ratio=0.3 --data cifar10:cifar-10-batches-bin \
      --finetune 5 -o small.safetensors`,
		Args: atMost(1, "at most a model file"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, argument(args)) },
	}
	f.modelFlags.add(cmd)
	f.typeFlag.add(cmd)
	f.dataFlags.add(cmd)
	f.tuneFlags.add(cmd)
	f.planFlags.add(cmd)
	f.onnxFlags.add(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.method, "method", "auto", "auto (tkdcpd), tucker, cp, tkdcpd or svd; 1×1 convolutions are always factorised by svd")
	fl.StringVar(&f.rank, "rank", compress.DefaultRank.String(), "how ranks are chosen: "+ranks.Forms())
	fl.StringVar(&f.stability, "stability", "", "for cp and tkdcpd: none, epc, or epc=V; make factors as little sensitive as V times the error of the fit allows, 1.01 by default, or, with V below 1, as a relative error of V does")
	fl.StringArrayVar(&f.layers, "layers", nil, "compress only layers whose name matches this pattern (repeatable; * matches anything); linear layers only so")
	fl.BoolVar(&f.kernels, "kernels", false, "treat the file as loose convolution kernels, not as a network")
	fl.Uint64Var(&f.seed, "seed", 1, "seed of random starts")
	fl.StringVarP(&f.out, "output", "o", "", "file to write: .safetensors, or .onnx")
	fl.BoolVar(&f.force, "force", false, "overwrite an existing output")
	return cmd
}

func (f *compressFlags) run(cmd *cobra.Command, path string) error {
	if !f.kernels {
		f.dataFlags.forModel(path)
	}
	method, err := compress.ParseMethod(f.method)
	if err != nil {
		return err
	}
	rank, err := ranks.Parse(f.rank)
	if err != nil {
		return err
	}
	if rank.Budgets != nil {
		if f.planning() {
			return usagef("--rank %s is a budget; --budget and --max-drop are another", f.rank)
		}
		f.budget, rank = f.rank, compress.DefaultRank
	}
	if f.stability == "" {
		f.stability = "none"
		if method == compress.TKDCPD || method == compress.Auto {
			f.stability = "epc"
		}
	}
	stability, err := parseStability(f.stability)
	if err != nil {
		return err
	}
	if stability == 0 {
		stability = compress.NoStability
	}
	if f.out == "" && !f.json {
		return usagef("compress needs -o OUT, or --json for the report alone")
	}
	if f.kernels && isONNXName(f.out) {
		return usagef("loose kernels are no network, of which an ONNX model could be made")
	}
	if f.kernels && f.data != "" {
		return usagef("--data needs a network; --kernels reads loose kernels")
	}
	if err := f.tuneFlags.check(f.data, f.out); err != nil {
		return err
	}
	if err := f.checkPlan(); err != nil {
		return err
	}
	if err := f.typeFlag.check(); err != nil {
		return err
	}
	if err := checkEnding(f.out, ".safetensors", ".onnx"); err != nil {
		return err
	}
	if err := checkOutput(f.out, f.force || f.resume && unfinished(f.out)); err != nil {
		return err
	}
	if isONNXName(f.out) && isONNXName(path) && f.data == "" && !f.tuning() && !f.planning() {
		return f.onnx(cmd, path, compress.Options{Method: compress.Method(f.method), Rank: rank, Layers: f.layers, Stability: stability, Seed: f.seed, Workers: f.threads})
	}
	if f.Epochs > 0 {
		if err := checkTraining(f.out, f.resume, f.force, false); err != nil {
			return err
		}
	}
	opt := compress.Options{Method: method, Rank: rank, Layers: f.layers, Stability: stability, Seed: f.seed, Workers: f.threads}
	line := progressLine(cmd, "layers")
	opt.Share = line.Part
	start := time.Now()
	r := &compressReport{Method: f.method, Rank: rank.String(), Stability: f.stability}
	var out *model.StateDict
	if f.kernels {
		out, err = f.loose(cmd.Context(), path, opt, r)
	} else {
		out, err = f.network(cmd, path, opt, r)
	}
	line.Done()
	if err != nil {
		return err
	}
	if err := f.typeFlag.apply(out, f.types[path]); err != nil {
		return err
	}
	r.Seconds, r.Source = time.Since(start).Seconds(), f.source(path)
	if f.out != "" {
		if isONNXName(f.out) {
			err = writeONNX(f.out, out, f.dtype == "float16")
		} else {
			err = model.WriteSafetensors(f.out, out)
		}
		if err != nil {
			return err
		}
		if f.Epochs > 0 {
			checkpoint, _, _ := trainingFiles(f.out)
			if err := discard(checkpoint); err != nil {
				return err
			}
		}
		r.Output = f.out
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), r)
	}
	f.tell(cmd.OutOrStdout(), path)
	r.print(cmd)
	return nil
}

// parseStability reads none, epc and epc=V: a factor of the fit's error above 1, or the
// relative error below; 0 for none.
func parseStability(s string) (float64, error) {
	switch {
	case s == "none":
		return 0, nil
	case s == "epc":
		return compress.DefaultStability, nil
	}
	text, ok := strings.CutPrefix(s, "epc=")
	v, err := strconv.ParseFloat(text, 64)
	if !ok || err != nil || !(v > 0) || v == 1 || math.IsInf(v, 1) {
		return 0, usagef("stability %q; want none, epc, or epc=V with a factor V above 1 of the fit's error, or a relative error V below 1", s)
	}
	return v, nil
}

// loose compresses the kernels of a file that is not a known network.
func (f *compressFlags) loose(ctx context.Context, path string, opt compress.Options, r *compressReport) (*model.StateDict, error) {
	sd, err := f.readNetwork(path)
	if err != nil {
		return nil, err
	}
	targets, err := compress.Kernels(sd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if r.Layers, err = compress.Layers(ctx, targets, opt); err != nil {
		return nil, err
	}
	out, err := compress.StoreKernels(sd, r.Layers)
	if err != nil {
		return nil, err
	}
	r.ParamsBefore, r.ParamsAfter = sd.Elements(), out.Elements()
	return out, nil
}

// network compresses a known network and measures it.
func (f *compressFlags) network(cmd *cobra.Command, path string, opt compress.Options, r *compressReport) (*model.StateDict, error) {
	before, err := f.net(path)
	if err != nil {
		if errors.Is(err, zoo.ErrUnknown) {
			return nil, fmt.Errorf("%w (--kernels factorises the convolution kernels of any file)", err)
		}
		return nil, err
	}
	r.Arch = &before.Arch
	// The data come first: what is wrong with them is known before the work begins.
	var set dataset.Set
	score := func(net *graph.Graph, what string, correct *int, accuracy **float64) error {
		if set == nil {
			return nil
		}
		s, err := evaluate(cmd, net, set, what, f.batch, f.threads)
		if err == nil {
			a := s.Figure()
			*accuracy, *correct, r.Samples = &a, s.Top1, s.Samples
		}
		return err
	}
	if f.data != "" {
		var done func()
		if set, done, err = f.dataFlags.open(); err != nil {
			return nil, err
		}
		defer done()
		if before.Segments() {
			r.Measure = "miou"
		}
	}
	if err := score(before, "eval before", &r.correct[0], &r.AccuracyBefore); err != nil {
		return nil, err
	}
	var after *graph.Graph
	var layers []compress.Result
	if f.planning() {
		after, layers, err = f.planned(cmd, before, set, opt, r)
	} else if err = f.forecast(cmd, before, opt); err == nil {
		after, layers, err = compress.Network(cmd.Context(), before, opt)
	}
	if err != nil {
		return nil, err
	}
	r.Layers = layers
	r.ParamsBefore, r.ParamsAfter = before.Params(), after.Params()
	mb, ma := before.MACs(), after.MACs()
	r.MACsBefore, r.MACsAfter = &mb, &ma
	if f.tuning() {
		if err := score(after, "eval compressed", &r.correct[2], &r.AccuracyCompressed); err != nil {
			return nil, err
		}
		if after, err = f.tune(cmd, before, after, set, r); err != nil {
			return nil, err
		}
	}
	if err := score(after, "eval after", &r.correct[1], &r.AccuracyAfter); err != nil {
		return nil, err
	}
	if err := f.latency(cmd.Context(), before, after, r); err != nil {
		return nil, err
	}
	return after.StateDict()
}

// forecast says before the work where the network will be no faster.
func (f *compressFlags) forecast(cmd *cobra.Command, before *graph.Graph, opt compress.Options) error {
	planned, ok, err := compress.Outline(before, opt)
	if err != nil || !ok {
		return err
	}
	t, err := f.times(cmd.Context(), before, planned, 300*time.Millisecond)
	if err == nil && float64(t[1].Min) > .97*float64(t[0].Min) {
		cmd.PrintErrf("lowrank: as planned the network gets smaller, but no faster on this machine: an image takes %.2f ms, and took %.2f\n", ms(t[1].Min), ms(t[0].Min))
	}
	return err
}

// latency times one image through both networks, in turn.
func (f *compressFlags) latency(ctx context.Context, before, after *graph.Graph, r *compressReport) error {
	t, err := f.times(ctx, before, after, 2*time.Second)
	if err != nil {
		return err
	}
	b, a := ms(t[0].Min), ms(t[1].Min)
	r.LatencyBefore, r.LatencyAfter = &b, &a
	return nil
}

// times is how long an image takes in both networks, measured for about a budget.
func (f *compressFlags) times(ctx context.Context, before, after *graph.Graph, budget time.Duration) ([]eval.Timing, error) {
	var programs []*graph.Program
	for _, net := range []*graph.Graph{before, after} {
		p, err := net.Compile()
		if err != nil {
			return nil, err
		}
		programs = append(programs, p)
	}
	return eval.Latency(ctx, programs, 1, f.threads, budget)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// speed says how many times faster something has become, or slower.
func speed(times float64) string {
	switch {
	case times >= 1.005:
		return fmt.Sprintf("%.2fx faster", times)
	case times > 0.995:
		return "no faster"
	}
	return fmt.Sprintf("%.2fx slower", 1/times)
}

func (r *compressReport) print(cmd *cobra.Command) {
	w := cmd.OutOrStdout()
	r.Plan.print(w)
	head := []string{"layer", "method", "rank", "error", "params", "", "MACs", ""}
	corrected := r.Stability != "none" && r.Plan == nil
	if corrected {
		head = append(head, "sensitivity", "intensity")
	}
	rows := [][]string{head}
	for _, l := range r.Layers {
		if l.Reason != "" {
			rows = append(rows, []string{l.Name, "-", "-", "-", count(l.ParamsBefore), "", "", l.Reason})
			continue
		}
		row := []string{l.Name, l.Method, rankText(l.Rank), fmt.Sprintf("%.4f", cmp.Or(l.OutputError, l.RelError)),
			count(l.ParamsBefore) + " -> " + count(l.ParamsAfter), times(l.ParamsBefore, l.ParamsAfter), "-", ""}
		if l.MACsBefore > 0 {
			row[6], row[7] = count(l.MACsBefore)+" -> "+count(l.MACsAfter), times(l.MACsBefore, l.MACsAfter)
		}
		if corrected {
			row = append(row, fmt.Sprintf("%.3g -> %.3g", l.SensitivityBefore, l.SensitivityAfter), fmt.Sprintf("%.3g -> %.3g", l.IntensityBefore, l.IntensityAfter))
		}
		rows = append(rows, row)
	}
	table(w, rows)
	fmt.Fprintln(w)
	for _, l := range r.Layers {
		if l.Note != "" && l.Reason == "" {
			fmt.Fprintf(w, "%s: %s\n", l.Name, l.Note)
		}
	}
	if r.Arch == nil && !r.graph {
		fmt.Fprint(w, "Strides, paddings and groups are not in the file: every kernel was taken as a convolution in one group.\nA kernel in groups must stay as it is; --layers chooses.\n\n")
	}
	rows = [][]string{{"", "before", "after", ""},
		{"parameters", count(r.ParamsBefore), count(r.ParamsAfter), times(r.ParamsBefore, r.ParamsAfter) + " fewer"}}
	if r.MACsBefore != nil {
		rows = append(rows, []string{"MACs", count(*r.MACsBefore), count(*r.MACsAfter), times(*r.MACsBefore, *r.MACsAfter) + " fewer"})
	}
	if r.LatencyBefore != nil {
		rows = append(rows, []string{"one image", fmt.Sprintf("%.2f ms", *r.LatencyBefore), fmt.Sprintf("%.2f ms", *r.LatencyAfter),
			speed(*r.LatencyBefore / *r.LatencyAfter)})
	}
	measure := "top-1"
	change := func(at int, _ float64) string {
		return fmt.Sprintf("%+d of %d images", r.correct[at]-r.correct[0], r.Samples)
	}
	if r.Measure == "miou" {
		measure = "mean IoU"
		change = func(_ int, now float64) string {
			return fmt.Sprintf("%+.2f points, %d images", 100*(now-*r.AccuracyBefore), r.Samples)
		}
	}
	if a := r.AccuracyCompressed; a != nil {
		rows = append(rows, []string{measure + " as compressed", "", fmt.Sprintf("%.2f %%", 100**a), change(2, *a)})
	}
	if r.AccuracyBefore != nil {
		rows = append(rows, []string{measure, fmt.Sprintf("%.2f %%", 100**r.AccuracyBefore), fmt.Sprintf("%.2f %%", 100**r.AccuracyAfter), change(1, *r.AccuracyAfter)})
	}
	table(w, rows)
	if r.Output != "" {
		fmt.Fprintf(w, "\nwrote %s (%.1f s)\n", r.Output, r.Seconds)
	}
}
