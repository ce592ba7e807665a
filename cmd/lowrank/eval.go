package main

import (
	"fmt"
	"io"
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/adapt"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
)

type evalReport struct {
	Arch     string  `json:"arch"`
	Params   int     `json:"params"`
	MACs     int64   `json:"macs"`
	Accuracy float64 `json:"accuracy"`
	Top5     float64 `json:"top5"`
	Loss     float64 `json:"loss"`
	Correct  int     `json:"correct"`
	Samples  int     `json:"samples"`
	Seconds  float64 `json:"seconds"`
	// Mean and Std are what images are normalised by.
	Mean [3]float32 `json:"mean"`
	Std  [3]float32 `json:"std"`
	// Source says where in the file the network lay and what was left out.
	Source *model.Source `json:"source,omitempty"`
}

// segmentationReport is what eval prints with --json of a segmentation network.
type segmentationReport struct {
	Arch          string  `json:"arch"`
	Params        int     `json:"params"`
	MACs          int64   `json:"macs"`
	MIoU          float64 `json:"miou"`
	PixelAccuracy float64 `json:"pixel_accuracy"`
	// IoU has a value for each class, null for one that does not occur.
	IoU     []*float64 `json:"iou"`
	Loss    float64    `json:"loss"`
	Pixels  int64      `json:"pixels"`
	Samples int        `json:"samples"`
	Seconds float64    `json:"seconds"`
	// Mean and Std are what images are normalised by.
	Mean   [3]float32    `json:"mean"`
	Std    [3]float32    `json:"std"`
	Source *model.Source `json:"source,omitempty"`
}

// reportSegmentation prints the score of a segmentation network.
func (f *modelFlags) reportSegmentation(w io.Writer, path string, net *graph.Graph, set dataset.Set, s *eval.Score, seconds float64) error {
	r := segmentationReport{
		Arch: net.Arch, Params: net.Params(), MACs: net.MACs(), MIoU: s.MeanIoU(), PixelAccuracy: s.Accuracy(),
		Loss: s.Loss, Pixels: s.Pixels(), Samples: s.Samples, Seconds: seconds, Source: f.source(path),
		Mean: net.Preprocess.Mean, Std: net.Preprocess.Std,
	}
	rows := [][]string{
		{"network", fmt.Sprintf("%s for segmentation, %d classes", r.Arch, net.Classes())},
		{"parameters", count(r.Params)},
		{"MACs", count(r.MACs)},
		{"images", fmt.Sprintf("%d of %s in %.1f s", r.Samples, set.Name(), r.Seconds)},
		{"normalisation", normalisation(net.Preprocess)},
		{"mean IoU", fmt.Sprintf("%.2f %%", 100*r.MIoU)},
		{"pixel accuracy", fmt.Sprintf("%.2f %% of %s pixels", 100*r.PixelAccuracy, count(r.Pixels))},
		{"loss", fmt.Sprintf("%.4f", r.Loss)},
	}
	for c, v := range s.IoU() {
		if math.IsNaN(v) {
			r.IoU = append(r.IoU, nil)
			continue
		}
		r.IoU = append(r.IoU, &v)
		rows = append(rows, []string{"IoU of " + set.ClassName(c), fmt.Sprintf("%.2f %%", 100*v)})
	}
	if f.json {
		return printJSON(w, r)
	}
	f.tell(w, path)
	table(w, rows)
	return nil
}

func newEval() *cobra.Command {
	var mf modelFlags
	var df dataFlags
	var ff foreignFlags
	var adapter string
	var ef expectFlags
	var forceBase bool
	cmd := &cobra.Command{
		Use:   "eval [MODEL] [--adapter ADAPTER] [--data DATA]",
		Short: "Score a network on labelled images",
		Long: `Runs a residual network over labelled images and reports top-1 and top-5
accuracy, the mean cross-entropy, parameters and multiply-accumulates. MODEL is
a PyTorch checkpoint, a safetensors file, an output of compress or train, or, where
it is left out or "embedded", the network in the program, whose data are
glyphs:letters.

A segmentation network is scored on images with masks, by the mean over the classes
that occur of intersection over union, and by the share of the pixels that are
right; masks are brought to the size of the network's inputs, by the nearest pixel.

--adapter FILE, or FILE:NAME for one task of several, puts an adapter into the network
first, in memory; see lowrank merge.`,
		Example: `  lowrank eval
  lowrank eval resnet20.th --data cifar10:cifar-10-batches-bin
  lowrank eval small.safetensors --data folder:images.zip --json
  lowrank eval segments.safetensors --data glyphs:segments
  lowrank eval superres.onnx --input x.npy --expect y.npy
  lowrank eval embedded --adapter tasks.safetensors:digits --data glyphs:digits`,
		Args: atMost(1, "at most a model file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := argument(args)
			if adapter == "" && ef.input == "" {
				df.forModel(path)
			}
			switch {
			case ef.expect != "" && ef.input == "":
				return usagef("--expect needs --input")
			case ef.input != "" && df.data != "":
				return usagef("--input stands in place of --data")
			case ef.input != "":
				net, err := mf.adapted(path, adapter, &ff, forceBase)
				if err != nil {
					return err
				}
				return ef.compare(cmd, &mf, net)
			}
			if df.data == "" {
				return usagef("eval needs --data; see lowrank eval --help")
			}
			net, err := mf.adapted(path, adapter, &ff, forceBase)
			if err != nil {
				return err
			}
			set, done, err := df.open()
			if err != nil {
				return err
			}
			defer done()
			start := time.Now()
			score, err := evaluate(cmd, net, set, "eval", df.batch, mf.threads)
			if err != nil {
				return err
			}
			if score.Segments() {
				return mf.reportSegmentation(cmd.OutOrStdout(), path, net, set, &score, time.Since(start).Seconds())
			}
			r := evalReport{
				Arch: net.Arch, Params: net.Params(), MACs: net.MACs(),
				Accuracy: score.Accuracy(), Top5: score.Top5Accuracy(), Loss: score.Loss,
				Correct: score.Top1, Samples: score.Samples, Seconds: time.Since(start).Seconds(),
				Source: mf.source(path), Mean: net.Preprocess.Mean, Std: net.Preprocess.Std,
			}
			if mf.json {
				return printJSON(cmd.OutOrStdout(), r)
			}
			mf.tell(cmd.OutOrStdout(), path)
			table(cmd.OutOrStdout(), [][]string{
				{"network", fmt.Sprintf("%s, %d classes", r.Arch, net.Classes())},
				{"parameters", count(r.Params)},
				{"MACs", count(r.MACs)},
				{"images", fmt.Sprintf("%d of %s in %.1f s", r.Samples, set.Name(), r.Seconds)},
				{"normalisation", normalisation(net.Preprocess)},
				{"top-1", fmt.Sprintf("%.2f %% (%d)", 100*r.Accuracy, r.Correct)},
				{"top-5", fmt.Sprintf("%.2f %%", 100*r.Top5)},
				{"loss", fmt.Sprintf("%.4f", r.Loss)},
			})
			return nil
		},
	}
	mf.add(cmd)
	df.add(cmd)
	ff.add(cmd)
	ef.add(cmd)
	cmd.Flags().StringVar(&adapter, "adapter", "", "put this adapter, FILE or FILE:NAME, into the network")
	cmd.Flags().BoolVar(&forceBase, "force-base", false, "though it was made for another network")
	return cmd
}

// adapted is the network with the adapter in it, where one is named.
func (f *modelFlags) adapted(path, adapter string, ff *foreignFlags, force bool) (*graph.Graph, error) {
	if adapter == "" {
		return f.net(path)
	}
	t, err := f.target(path, force)
	if err != nil {
		return nil, err
	}
	a, err := t.adapter(adapter, ff)
	if err != nil {
		return nil, err
	}
	tasks, err := adapt.NewTasks(t.net, &peft.File{Adapters: []*peft.Adapter{a}}, true) // checked by then
	if err != nil {
		return nil, err
	}
	return tasks.Switch(a.Name)
}
