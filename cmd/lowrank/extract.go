package main

import (
	"errors"
	"fmt"
	"math"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/adapt"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/ranks"
)

// extractReport is what extract prints with --json.
type extractReport struct {
	Method string `json:"method"`
	Rank   string `json:"rank"`
	// ParamsFull are the values of the kernels that differ, Params those of their
	// low-rank changes, and ExtraValues those of the other tensors that differ.
	ParamsFull  int         `json:"params_full"`
	Params      int         `json:"params"`
	ExtraValues int         `json:"extra_values"`
	RelError    float64     `json:"rel_error"`
	Norms       string      `json:"norms"`
	Modules     []changeRow `json:"modules"`
	Output      string      `json:"output,omitempty"`
	// Source and SourceBase say where in their files the networks lay and what was left out.
	Source     *model.Source `json:"source,omitempty"`
	SourceBase *model.Source `json:"source_base,omitempty"`
}

type extractFlags struct {
	modelFlags
	method string
	rank   string
	params int64
	most   int
	name   string
	out    string
	force  bool
}

// extractRules are what --rank may be.
var extractRules = []ranks.Rule{ranks.Fixed, ranks.VBMF, ranks.Energy, ranks.Error, ranks.Params}

// whole is a rule's one budget, a number.
func whole(r ranks.Rank) (int64, error) {
	b := r.Budgets[0]
	if len(r.Budgets) > 1 || b.Share && b.Value != 1 || b.Value != math.Trunc(b.Value) || b.Value > 1<<53 {
		return 0, usagef("rank %q; want %s=N with a number from 1", r, b.Metric)
	}
	return int64(b.Value), nil
}

func newExtract() *cobra.Command {
	var f extractFlags
	cmd := &cobra.Command{
		Use:   "extract BASE FINETUNED --method METHOD --rank R -o ADAPTER",
		Short: "Make an adapter of what fine-tuning changed",
		Long: `Compares a network that was fine-tuned in full with the one it came from, and writes
an adapter: a low-rank change for each kernel that differs, fitted to the difference,
and the other tensors that differ (head, batch norms) whole. The head may have other
classes. Either network may be "embedded", the one in the program.

--method is one of adapt that changes kernels. --rank is

  vbmf          what analytic variational Bayes tells from noise
  energy=0.9    this share of each change's square is kept
  error=0.3     each change has at most this relative error
  R[,S[,T]]     the same ranks everywhere, lowered to what a kernel has
  params=N      N parameters spread over all layers so that the most is kept, for kinds
                with ranks but loha and lokr; --params N is the same

The report tells the relative error of each fit.`,
		Example: `  lowrank extract resnet20.th tuned.safetensors --method lora --rank 4 -o tuned-adapter.safetensors
  lowrank extract embedded tuned.safetensors --method tucker --rank energy=0.9 -o a.safetensors
  lowrank extract embedded tuned.safetensors --method lora --params 10000 -o a.safetensors`,
		Args: exactly(2, "two networks, the base and the fine-tuned one"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], args[1]) },
	}
	f.modelFlags.addReading(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.method, "method", "lora", "kind of change; see lowrank adapt --help")
	fl.StringVar(&f.rank, "rank", "energy=0.9", "how ranks are chosen: "+ranks.Forms(extractRules...))
	fl.IntVar(&f.most, "max-rank", 0, "of vbmf and energy=E: no rank above this, 0 for no bound")
	fl.Int64Var(&f.params, "params", 0, "parameters of all changes together, in place of --rank")
	fl.StringVar(&f.name, "name", "", "the task's name in the file")
	fl.StringVarP(&f.out, "output", "o", "", "file to write (safetensors)")
	fl.BoolVar(&f.force, "force", false, "overwrite an existing output")
	return cmd
}

func (f *extractFlags) run(cmd *cobra.Command, basePath, tunedPath string) error {
	opt := adapt.ExtractOptions{Method: adapt.Method(f.method), Budget: f.params}
	rank, err := ranks.Parse(f.rank, extractRules...)
	if err != nil {
		return err
	}
	if f.params < 0 || f.params > 0 && cmd.Flags().Changed("rank") {
		return usagef("--params takes a number of parameters, in place of --rank")
	}
	if rank.Budgets != nil {
		if opt.Budget, err = whole(rank); err != nil {
			return err
		}
	}
	opt.Rank, opt.Rule = rank.Fixed, peft.Rule{Energy: rank.Keeps(), Most: f.most}
	switch {
	case f.most < 0 || f.most > 0 && opt.Rank != nil:
		return usagef("--max-rank bounds the ranks of vbmf and energy=E")
	case f.out == "" && !f.json:
		return usagef("extract needs -o ADAPTER, or --json for the report alone")
	}
	if err := checkName(f.name); err != nil {
		return err
	}
	if err := checkEnding(f.out, ".safetensors"); err != nil {
		return err
	}
	if err := checkOutput(f.out, f.force); err != nil {
		return err
	}
	base, err := f.target(basePath, false)
	if err != nil {
		return err
	}
	tuned, err := f.net(tunedPath)
	if err != nil {
		return err
	}
	line := progressLine(cmd, "extract")
	opt.Progress = func(done, total int, name string) { line.Update(done, total, name) }
	e, err := adapt.Extract(cmd.Context(), base.net, tuned, opt)
	line.Done()
	switch {
	case errors.Is(err, adapt.ErrOption):
		return usageError{err}
	case errors.Is(err, peft.ErrBase):
		return fmt.Errorf("%s and %s: %w", basePath, tunedPath, err)
	case err != nil:
		return err
	}
	r := extractReport{Method: f.method, Rank: f.rank, Params: e.Adapter.Params(), ExtraValues: e.Adapter.Extra.Elements(), RelError: e.RelError,
		Norms: string(e.Adapter.Norm), Modules: changeRows(e.Changes), Output: f.out, Source: f.source(tunedPath), SourceBase: f.source(basePath)}
	if opt.Budget > 0 {
		r.Rank = fmt.Sprintf("params=%d", opt.Budget)
	}
	for _, c := range e.Changes {
		t, _ := base.sd.Get(c.Module + ".weight") // it was compared
		r.ParamsFull += t.Len()
	}
	if f.out != "" {
		e.Adapter.Name = f.name
		file, err := adapt.Bind(base.sd, e.Adapter)
		if err != nil {
			return err
		}
		if err := file.Write(f.out); err != nil {
			return err
		}
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), r)
	}
	w := cmd.OutOrStdout()
	f.tell(w, basePath)
	f.tell(w, tunedPath)
	table(w, cells(r.Modules))
	fmt.Fprintf(w, "\n%s parameters for %s kernel weights (%s), and %s values of other tensors; relative error %.3g\n",
		count(r.Params), count(r.ParamsFull), times(r.ParamsFull, r.Params), count(r.ExtraValues), r.RelError)
	if f.out != "" {
		fmt.Fprintf(w, "wrote %s\n", f.out)
	}
	return nil
}
