package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/compress"
	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/parallel"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/onnx"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/vbmf"
	"github.com/lowrank-go/lowrank/zoo"
)

type inspectLayer struct {
	Name         string `json:"name"`
	Kind         string `json:"kind"`
	Shape        []int  `json:"shape"`
	Stride       []int  `json:"stride"`
	Padding      []int  `json:"padding"`
	ExtraPadding []int  `json:"extra_padding,omitempty"` // more at the end, unless none
	Groups       int    `json:"groups"`
	Params       int    `json:"params"`
	MACs         *int64 `json:"macs"`
	VBMFRanks    []int  `json:"vbmf_ranks"`
	Compressible bool   `json:"compressible"`
	Reason       string `json:"reason"`
}

type inspectReport struct {
	// Arch and MACs are null where the file is not a known network; Note then
	// says why.
	Arch   *string        `json:"arch"`
	Note   string         `json:"note,omitempty"`
	Params int            `json:"params"`
	MACs   *int64         `json:"macs"`
	Layers []inspectLayer `json:"layers"`
	// Source says where in the file the network lay and what was left out.
	Source *model.Source `json:"source,omitempty"`
}

func newInspect() *cobra.Command {
	var mf modelFlags
	var noVBMF bool
	var graphOnly bool
	cmd := &cobra.Command{
		Use:   "inspect [MODEL]",
		Short: "Show a network's layers and what can be compressed",
		Long: `Lists the convolutions and linear layers of a network with their shapes,
parameters, multiply-accumulates, and the ranks that analytic variational Bayes
finds in their unfoldings (output mode, input mode), and says what can be
compressed and why the rest can't. MODEL is a PyTorch checkpoint, a safetensors
file, an output of compress or train, a .npz file, or a .npy file or directory of
them; or, where it is left out or "embedded", the network in the program.
Where the network is not known its kernels are listed without costs.

Of an adapter file it lists the adapters: kinds and ranks of their changes, what
becomes of the batch norms, the tensors that stand in place of the network's, and
the SHA-256 of what the network must have.`,
		Example: `  lowrank inspect
  lowrank inspect resnet20.th
  lowrank inspect model.safetensors --json
  lowrank inspect digits-adapter.safetensors`,
		Args: atMost(1, "at most a model file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt, err := mf.options()
			if err != nil {
				return err
			}
			path := argument(args)
			var sd *model.StateDict
			var net *graph.Graph
			if isONNXName(path) {
				if net, err = mf.onnxNet(path); err != nil && !errors.Is(err, graph.ErrUnsupported) && !errors.Is(err, onnx.ErrUnsupported) {
					return err
				}
			}
			if net == nil {
				if sd, err = mf.readNetwork(path); err != nil {
					return err
				}
			} else if sd, err = net.StateDict(); err != nil {
				return err
			}
			if _, ok := sd.Meta[peft.MetaKey]; ok {
				file, err := peft.FromStateDict(sd)
				if err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
				return printAdapters(cmd, file, mf.json)
			}
			var r inspectReport
			var targets []compress.Target
			if net == nil {
				net, err = zoo.Load(sd, opt)
			}
			if graphOnly && net != nil {
				_, err := fmt.Fprint(cmd.OutOrStdout(), net)
				return err
			}
			switch {
			case err == nil:
				macs := net.MACs()
				r.Arch, r.Params, r.MACs = &net.Arch, net.Params(), &macs
				targets = compress.Sites(net)
			case errors.Is(err, zoo.ErrUnknown):
				r.Note, r.Params = sd.Source.Explain(err).Error(), sd.Elements()
				var kerr error
				if targets, kerr = compress.Kernels(sd); kerr != nil {
					return fmt.Errorf("%s: %w; %w", path, err, kerr)
				}
			default:
				return fmt.Errorf("%s: %w", path, err)
			}
			line := progressLine(cmd, "layers")
			if r.Layers, err = inspectAll(cmd.Context(), targets, net != nil, !noVBMF, mf.threads, line.Part); err != nil {
				return err
			}
			line.Done()
			r.Source = mf.source(path)
			if mf.json {
				return printJSON(cmd.OutOrStdout(), r)
			}
			mf.tell(cmd.OutOrStdout(), path)
			r.print(cmd)
			return nil
		},
	}
	mf.add(cmd)
	cmd.Flags().BoolVar(&graphOnly, "graph", false, "print the network's nodes, with the shapes of what they give, and nothing else")
	cmd.Flags().BoolVar(&noVBMF, "no-vbmf", false, "leave out the VBMF ranks, which take most of the time")
	return cmd
}

// inspectAll inspects layers at the same time, the large ones first; part tells the share
// of the work that is done.
func inspectAll(ctx context.Context, targets []compress.Target, known, ranks bool, threads int, part func(float64, string)) ([]inspectLayer, error) {
	cost, order, total := make([]float64, len(targets)), make([]int, len(targets)), 0.
	for i, t := range targets {
		shape, _ := t.Chain.Shape()
		rows, cols := float64(shape[0]), float64(shape[1]*shape[2]*shape[3])
		least := min(rows, cols)
		// A Gram matrix, and the eigenvalues of the larger one of two.
		order[i], cost[i] = i, rows*cols*least+4*least*least*least
		total += cost[i]
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(cost[j], cost[i]) })
	layers, errs := make([]inspectLayer, len(targets)), make([]error, len(targets))
	var mu sync.Mutex
	var done float64
	part(0, "")
	parallel.For(threads, len(order), func(n int) {
		i := order[n]
		if errs[i] = context.Cause(ctx); errs[i] != nil {
			return
		}
		layers[i], errs[i] = inspect(ctx, targets[i], known, ranks, threads)
		mu.Lock()
		defer mu.Unlock()
		done += cost[i]
		part(done/total, targets[i].Name)
	})
	for i, err := range errs {
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			return nil, fmt.Errorf("%s: %w", targets[i].Name, err)
		}
	}
	return layers, nil
}

func inspect(ctx context.Context, t compress.Target, known, ranks bool, threads int) (inspectLayer, error) {
	shape, g := t.Chain.Shape()
	l := inspectLayer{Name: t.Name, Kind: "conv", Shape: shape[:], Stride: g.Stride[:], Padding: g.Padding[:],
		Groups: g.Groups, Params: t.Chain.Params(), VBMFRanks: []int{}}
	if g.Extra != [2]int{} {
		l.ExtraPadding = g.Extra[:]
	}
	switch {
	case t.Chain.Kind != conv.Dense:
		l.Kind = string(t.Chain.Kind)
	case t.Linear:
		l.Kind = "linear"
		l.Shape = shape[:2]
	}
	if known {
		macs := t.Chain.MACs(t.H, t.W)
		l.MACs = &macs
	}
	k, err := t.Chain.Kernel()
	if err != nil {
		return l, err
	}
	l.Compressible, l.Reason = compress.Compressible(k)
	if t.Reason != "" {
		l.Compressible, l.Reason = false, t.Reason
	}
	if !l.Compressible || !ranks {
		return l, nil
	}
	l.Reason = t.Note
	out, in, err := compress.VBMFRanks(ctx, k, &vbmf.Settings{Workers: threads})
	if err != nil {
		return l, err
	}
	l.VBMFRanks = []int{out, in}
	if out == 0 || in == 0 {
		l.Reason = "VBMF finds only noise"
	}
	return l, nil
}

func (r *inspectReport) print(cmd *cobra.Command) {
	w := cmd.OutOrStdout()
	if r.Arch != nil {
		fmt.Fprintf(w, "%s: %s parameters, %s MACs\n\n", *r.Arch, count(r.Params), count(*r.MACs))
	} else {
		fmt.Fprintf(w, "%s\n%s values\n\n", r.Note, count(r.Params))
	}
	rows := [][]string{{"layer", "kind", "shape", "stride", "params", "MACs", "VBMF ranks", "note"}}
	for _, l := range r.Layers {
		shape := fmt.Sprint(l.Shape[0])
		for _, d := range l.Shape[1:] {
			shape += fmt.Sprintf("x%d", d)
		}
		macs, stride := "-", "-"
		if l.MACs != nil {
			macs = count(*l.MACs)
			stride = fmt.Sprintf("%dx%d", l.Stride[0], l.Stride[1])
		}
		note := l.Reason
		if l.Groups > 1 {
			note = fmt.Sprintf("%d groups; %s", l.Groups, note)
		}
		rows = append(rows, []string{l.Name, l.Kind, shape, stride, count(l.Params), macs, rankText(l.VBMFRanks), note})
	}
	table(w, rows)
}
