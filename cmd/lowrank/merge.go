package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/adapt"
	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/zoo"
)

// mergeReport is what merge prints with --json.
type mergeReport struct {
	Model   string    `json:"model"`
	Weights []float64 `json:"weights"`
	// Extra are the tensors of the output in place of the model's own.
	Extra   int         `json:"extra"`
	Classes int         `json:"classes,omitempty"`
	Modules []changeRow `json:"modules"`
	Output  string      `json:"output,omitempty"`
	// Source says where in its file the network lay and what was left out.
	Source *model.Source `json:"source,omitempty"`
}

type mergeFlags struct {
	modelFlags
	typeFlag
	foreignFlags
	weights   []float64
	subtract  bool
	extra     string
	asAdapter bool
	round     []int
	energy    float64
	name      string
	forceBase bool
	out       string
	force     bool
}

func newMerge() *cobra.Command {
	var f mergeFlags
	cmd := &cobra.Command{
		Use:   "merge MODEL ADAPTER... -o OUT",
		Short: "Put adapters into a network, or add them up",
		Long: `Writes MODEL with the adapters in its kernels, a network that costs what MODEL costs
and that every other command reads. The first argument is always the network; the
word "embedded" is the one in the program. An ADAPTER is a FILE of adapt, extract,
stack or convert, or FILE:NAME for one task of a file of several; a PEFT directory
or a LyCORIS or loralib file serves too.

Of several adapters the changes of the kernels are added up, each with its weight
(--weights), exactly. Tensors that stand in place of the network's, the head and
those of batch norms, cannot be added: --extra says what becomes of them where two
adapters have one, or a weight is not 1. mix takes the same weighted sum of them,
none keeps the network's, and a number those of that adapter.

--subtract negates the weights. From a merged network it takes an adapter out again,
to rounding; that network is not the adapter's base, so --force-base must be given,
and what the adapter replaced stays (--extra none, the default here).

--as-adapter writes the sum as one adapter for MODEL. --round R or --energy E brings
its ranks down, and the report says what that costs in each kernel.

An adapter is bound to the network it was made for, of which it knows the SHA-256.
--force-base takes another whose kernels have the same shapes. Files of other programs
name no network: there the shapes alone are checked.`,
		Example: `  lowrank merge embedded digits.safetensors -o digits-net.safetensors
  lowrank merge resnet20.th tasks.safetensors:kmnist -o kmnist.safetensors
  lowrank merge embedded a.safetensors b.safetensors --weights 0.5,0.5 --extra mix -o both.safetensors
  lowrank merge embedded a.safetensors b.safetensors --extra 1 --as-adapter --round 8 -o sum.safetensors
  lowrank merge digits-net.safetensors digits.safetensors --subtract --force-base -o without.safetensors`,
		Args: atLeast(2, "a network and at least one adapter"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], args[1:]) },
	}
	f.modelFlags.addReading(cmd)
	f.typeFlag.add(cmd)
	f.foreignFlags.add(cmd)
	fl := cmd.Flags()
	fl.Float64SliceVar(&f.weights, "weights", nil, "a weight for each adapter; 1 where left out")
	fl.BoolVar(&f.subtract, "subtract", false, "negate the weights")
	fl.StringVar(&f.extra, "extra", "", "tensors in place of the network's: mix, none, or the number of the adapter whose are taken; left out, each is taken where only one adapter has it")
	fl.BoolVar(&f.asAdapter, "as-adapter", false, "write the sum as an adapter")
	fl.IntSliceVar(&f.round, "round", nil, "with --as-adapter: ranks to round the sum to")
	fl.Float64Var(&f.energy, "energy", 0, "with --as-adapter: round to the ranks that keep this share of each change's square")
	fl.StringVar(&f.name, "name", "", "with --as-adapter: the task's name in the file")
	fl.BoolVar(&f.forceBase, "force-base", false, "take MODEL for the adapters' base though it is another")
	fl.StringVarP(&f.out, "output", "o", "", "file to write (safetensors)")
	fl.BoolVar(&f.force, "force", false, "overwrite an existing output")
	return cmd
}

func (f *mergeFlags) check(adapters int) error {
	switch {
	case f.out == "" && !f.json:
		return usagef("merge needs -o OUT, or --json for the report alone")
	case f.weights != nil && len(f.weights) != adapters:
		return usagef("%d weights for %d adapters", len(f.weights), adapters)
	case !f.asAdapter && (f.round != nil || f.energy != 0 || f.name != ""):
		return usagef("--round, --energy and --name are for adapters: give --as-adapter too")
	case f.round != nil && f.energy != 0:
		return usagef("either --round or --energy")
	case f.energy < 0 || f.energy > 1 || f.energy != f.energy:
		return usagef("--energy %g; want a share above 0 and at most 1", f.energy)
	}
	for _, r := range f.round {
		if r < 1 {
			return usagef("--round %v; want ranks from 1", f.round)
		}
	}
	for _, w := range f.weights {
		if w-w != 0 {
			return usagef("--weights %v; want finite numbers", f.weights)
		}
	}
	if err := f.typeFlag.check(); err != nil {
		return err
	}
	if err := checkName(f.name); err != nil {
		return err
	}
	if err := checkEnding(f.out, ".safetensors"); err != nil {
		return err
	}
	return checkOutput(f.out, f.force)
}

func (f *mergeFlags) run(cmd *cobra.Command, path string, arguments []string) error {
	if err := f.check(len(arguments)); err != nil {
		return err
	}
	t, err := f.target(path, f.forceBase)
	if err != nil {
		return err
	}
	r := mergeReport{Model: path, Output: f.out, Source: f.source(path)}
	var parts []adapt.Part
	for i, argument := range arguments {
		a, err := t.adapter(argument, &f.foreignFlags)
		if err != nil {
			return err
		}
		w := 1.
		if f.weights != nil {
			w = f.weights[i]
		}
		if f.subtract {
			w = -w
			if err := f.subtractable(a); err != nil {
				return fmt.Errorf("%s: %w", argument, err)
			}
		}
		parts = append(parts, adapt.Part{Adapter: a, Weight: w})
		r.Weights = append(r.Weights, w)
	}
	if f.subtract && f.extra == adapt.ExtraOnly {
		f.extra = adapt.ExtraNone
	}
	if f.asAdapter {
		err = f.sum(cmd, t, parts, &r)
	} else {
		err = f.merge(t, parts, &r)
	}
	if errors.Is(err, adapt.ErrOption) {
		return usageError{err}
	}
	if errors.Is(err, peft.ErrLossy) && f.extra == adapt.ExtraOnly {
		return fmt.Errorf("%w (see --extra)", err)
	}
	if err != nil {
		return err
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), r)
	}
	f.tell(cmd.OutOrStdout(), path)
	table(cmd.OutOrStdout(), cells(r.Modules))
	fmt.Fprintf(cmd.OutOrStdout(), "\n%d other tensors in place of the network's\n", r.Extra)
	if f.out != "" {
		fmt.Fprintf(cmd.OutOrStdout(), "wrote %s\n", f.out)
	}
	return nil
}

// subtractable reports an adapter that cannot be taken out of what may be a merged
// network: one whose change is a function of the kernel that it was made for.
func (f *mergeFlags) subtractable(a *peft.Adapter) error {
	if !f.forceBase {
		return nil
	}
	for _, m := range a.Modules {
		if s := m.Spec(); s.DoRA || s.Kind == peft.Series {
			return fmt.Errorf("%w: the change of %s depends on the kernel it was made for, and is subtracted from that alone", peft.ErrLossy, m.Name)
		}
	}
	return nil
}

func (f *mergeFlags) merge(t *target, parts []adapt.Part, r *mergeReport) error {
	sd, changes, err := adapt.Merge(t.sd, parts, f.extra)
	if err != nil {
		return err
	}
	r.Modules, r.Extra = changeRows(changes), differing(t.sd, sd, changes)
	net, err := zoo.Load(sd, zoo.Options{})
	switch {
	case errors.Is(err, zoo.ErrUnknown), errors.Is(err, conv.ErrShape):
		return fmt.Errorf("the adapters do not leave a network: %w", err)
	case err != nil:
		return err
	}
	r.Classes = net.Classes()
	if f.out == "" {
		return nil
	}
	if sd, err = net.StateDict(); err != nil {
		return err
	}
	if err := sd.CheckFinite(); err != nil {
		return err
	}
	if err := f.typeFlag.apply(sd, f.types[t.path]); err != nil {
		return err
	}
	return model.WriteSafetensors(f.out, sd)
}

// differing counts the tensors of after that are not base's, but for changed kernels.
func differing(base, after *model.StateDict, changes []adapt.Change) int {
	changed := map[string]bool{}
	for _, c := range changes {
		changed[c.Module+".weight"] = true
	}
	n := 0
	for _, name := range after.Names() {
		t, _ := after.Get(name)
		if was, ok := base.Get(name); !changed[name] && !(ok && was == t) {
			n++
		}
	}
	return n
}

func (f *mergeFlags) sum(cmd *cobra.Command, t *target, parts []adapt.Part, r *mergeReport) error {
	a, changes, err := adapt.Sum(cmd.Context(), t.sd, parts, f.extra, adapt.Rounding{Rank: f.round, Energy: f.energy})
	if err != nil {
		return err
	}
	a.Name = f.name
	r.Modules = changeRows(changes)
	if a.Extra != nil {
		r.Extra = a.Extra.Len()
	}
	if f.out == "" {
		return nil
	}
	file, err := adapt.Bind(t.sd, a)
	if err != nil {
		return err
	}
	return file.Write(f.out)
}
