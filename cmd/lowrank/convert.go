package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/adapt"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/ranks"
)

// Formats of networks alone.
const (
	formatNPZ   = "npz"
	formatONNX  = "onnx"
	formatPT    = "pt"
	formatTorch = "torch"
)

var formats = []string{formatNative, formatPEFT, formatLyCORIS, formatLoralib, formatSafetensors, formatNPZ, formatONNX, formatPT, formatTorch}

// convertReport is what convert prints with --json.
type convertReport struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Tensors int    `json:"tensors"`
	// Exact: nothing was fitted or left out. RelError is the largest of the changes.
	Exact    bool         `json:"exact"`
	RelError float64      `json:"rel_error"`
	LeftOut  []string     `json:"left_out"`
	Alpha    float64      `json:"lora_alpha,omitempty"`
	Modules  []convertRow `json:"modules"`
	Output   string       `json:"output"`
	// Source says where in its file a network lay and what was left out.
	Source model.Source `json:"source,omitzero"`
}

type convertRow struct {
	Module   string  `json:"module"`
	From     string  `json:"from"`
	Kind     string  `json:"kind"`
	Rank     []int   `json:"rank"`
	Params   int     `json:"params"`
	Exact    bool    `json:"exact"`
	RelError float64 `json:"rel_error"`
}

type convertFlags struct {
	modelFlags
	typeFlag
	foreignFlags
	from, to, base, kind, rank, name string
	lossy, strip, dense, forceBase   bool
	out                              string
	force                            bool
}

func newConvert() *cobra.Command {
	var f convertFlags
	cmd := &cobra.Command{
		Use:   "convert IN -o OUT",
		Short: "Turn adapters and networks into other formats",
		Long: `Converts an adapter between this program's files (native), directories of Hugging
Face's PEFT (peft), LyCORIS and kohya files (lycoris) and state dicts of loralib
(loralib), or a network, a PyTorch checkpoint, ONNX model, .npz or directory of .npy files, to
safetensors (safetensors), .npz (npz) or a file of PyTorch's (pt) with every tensor
kept, to an ONNX model (onnx), or to a folder with a readable PyTorch module, its weights
and a training script for torchrun (torch). What IN is, is found by
looking; FILE:NAME is one task of a native file of several.

Native files are bound to a network, which other formats do not name: --base is the one
that a foreign adapter is for, the network in the program where it is left out.

A change that the target does not have becomes one of another kind where that is exact;
--kind asks for one. Where there is no exact way convert refuses and says why. With
--lossy it fits the change, of the ranks --rank says (R[,S[,T]] or energy=E) or
else of as much as the target can hold, leaves out tensors that it has no place for,
and tells the errors. What is written is read back and compared with IN either way.

--dense undoes a compression, but for what that lost: the tensors have the names and shapes
that they had before, so that what loads the original loads the file.

Of networks --strip takes away what training programs put around them: wrappers before
names ("module."), copies that follow the network, bookkeeping. float16 and bfloat16
stay what they are.`,
		Example: `  lowrank convert digits.safetensors --to peft -o digits-peft
  lowrank convert digits-peft --base embedded -o back.safetensors
  lowrank convert serial.safetensors --to lycoris --lossy -o lycoris.safetensors
  lowrank convert cp.safetensors --kind lora -o lora.safetensors
  lowrank convert resnet20.th --strip -o resnet20.safetensors
  lowrank convert small.safetensors -o small.onnx
  lowrank convert small.safetensors --to torch -o small
  lowrank convert small.safetensors --dense -o dense.pth`,
		Args: exactly(1, "an adapter or a network"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	f.modelFlags.addReading(cmd)
	f.typeFlag.add(cmd)
	f.foreignFlags.add(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.to, "to", "", "format to write: "+strings.Join(formats, ", ")+"; left out, native of adapters and safetensors of networks")
	fl.StringVar(&f.from, "from", "", "format of IN, where looking does not tell")
	fl.StringVar(&f.base, "base", "", "network that the adapter is for")
	fl.StringVar(&f.kind, "kind", "", "kind of change to make of all: lora, lora-view, spatial, cp, cp4, tucker2, tucker4, tkdcpd, lokr, parallel, series, axial, full")
	fl.StringVar(&f.rank, "rank", "", "of fits: "+ranks.Forms(convertRules...))
	fl.BoolVar(&f.lossy, "lossy", false, "fit what has no exact way, and leave out what has no place")
	fl.StringVar(&f.name, "name", "", "the task's name in a native file")
	fl.BoolVar(&f.strip, "strip", false, "of networks: take off prefixes such as module., and leave bookkeeping out")
	fl.BoolVar(&f.dense, "dense", false, "of networks: multiply chains of convolutions out to the convolutions that they equal, under the names that these had")
	fl.BoolVar(&f.forceBase, "force-base", false, "take --base for the adapter's though it is another")
	fl.StringVarP(&f.out, "output", "o", "", "file to write, for peft a directory")
	fl.BoolVar(&f.force, "force", false, "overwrite an existing output")
	return cmd
}

func (f *convertFlags) run(cmd *cobra.Command, argument string) error {
	for _, format := range []string{f.from, f.to} {
		if format != "" && !slices.Contains(formats, format) {
			return usagef("format %q; want one of %s", format, strings.Join(formats, ", "))
		}
	}
	if f.out == "" {
		return usagef("convert needs -o OUT")
	}
	if f.rank != "" && !f.lossy {
		return usagef("--rank is for fits: give --lossy too")
	}
	if err := checkName(f.name); err != nil {
		return err
	}
	if err := f.typeFlag.check(); err != nil {
		return err
	}
	check := checkOutput
	if f.to == formatPEFT || f.to == formatTorch {
		check = checkOutputDir
	} else if err := checkEnding(f.out, ".safetensors", ".npz", ".onnx", ".pt", ".pth"); err != nil {
		return err
	}
	if err := check(f.out, f.force); err != nil {
		return err
	}
	path, task := splitTask(argument)
	format, sd, err := adapterFormat(cmd.Context(), path, f.which)
	if err != nil {
		return err
	}
	if f.from != "" {
		format = f.from
	}
	r := &convertReport{From: format, To: f.to, Exact: true, LeftOut: []string{}, Modules: []convertRow{}, Output: f.out}
	if format == formatSafetensors || format == formatNPZ {
		err = f.network(path, sd, r)
	} else {
		err = f.adapter(cmd, path, task, r)
	}
	if errors.Is(err, adapt.ErrOption) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	return r.print(cmd, f.json)
}

// network converts a network, or any tensors.
func (f *convertFlags) network(path string, sd *model.StateDict, r *convertReport) error {
	if r.To == "" {
		r.To = formatSafetensors
		switch strings.ToLower(filepath.Ext(f.out)) {
		case ".npz":
			r.To = formatNPZ
		case ".onnx":
			r.To = formatONNX
		case ".pt", ".pth":
			r.To = formatPT
		}
	}
	if sd == nil {
		return fmt.Errorf("%s: a directory of PEFT's, no network", path)
	}
	if f.kind != "" || f.base != "" || f.lossy || f.name != "" {
		return usagef("%s is a network: --kind, --base, --lossy and --name are for adapters", path)
	}
	if f.strip {
		sd = model.Strip(sd)
	}
	r.Source = sd.Source
	var net *graph.Graph
	if f.dense || r.To == formatONNX || r.To == formatTorch {
		var err error
		if net, err = f.net(path); err != nil {
			return err
		}
	}
	if f.dense {
		var err error
		if net, err = net.Compose(); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if sd, err = net.StateDict(); err != nil {
			return err
		}
	}
	r.From, r.Tensors = "network", sd.Len() // which of its formats is not worth telling
	if f.dense || f.dtype != "keep" {
		if err := f.typeFlag.apply(sd, f.types[path]); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	switch r.To {
	case formatSafetensors:
		if err := checkEnding(f.out, ".safetensors"); err != nil {
			return err
		}
		return model.WriteSafetensors(f.out, sd)
	case formatNPZ:
		if err := checkEnding(f.out, ".npz"); err != nil {
			return err
		}
		return model.WriteNPZ(f.out, sd)
	}
	switch r.To {
	case formatPT:
		if err := checkEnding(f.out, ".pt", ".pth"); err != nil {
			return err
		}
		return model.WriteTorch(f.out, sd)
	case formatONNX, formatTorch:
		if r.To == formatTorch {
			return writeTorch(f.out, net, f.force)
		}
		if err := checkEnding(f.out, ".onnx"); err != nil {
			return err
		}
		sd, err := net.StateDict()
		if err != nil {
			return err
		}
		return writeONNX(f.out, sd, f.dtype == "float16")
	}
	return fmt.Errorf("%s: a network has no %s format: want safetensors, npz, onnx, pt or torch; lowrank extract makes an adapter of what fine-tuning changed", path, r.To)
}

// options are the choices of fits.
func (f *convertFlags) options() (adapt.ConvertOptions, error) {
	o := adapt.ConvertOptions{Lossy: f.lossy}
	if f.rank == "" {
		return o, nil
	}
	r, err := ranks.Parse(f.rank, convertRules...)
	o.Rank, o.Energy = r.Fixed, r.Keeps()
	return o, err
}

// convertRules are what --rank may be.
var convertRules = []ranks.Rule{ranks.Fixed, ranks.Energy, ranks.Error}

// adapter converts an adapter.
func (f *convertFlags) adapter(cmd *cobra.Command, path, task string, r *convertReport) error {
	if r.To == "" || r.To == formatSafetensors {
		r.To = formatNative
	}
	switch {
	case f.strip || f.dense || f.dtype != "keep":
		return usagef("%s is an adapter: --strip, --dense and --dtype are for networks", path)
	case f.name != "" && r.To != formatNative:
		return usagef("--name %s: %s files hold no names of tasks", f.name, r.To)
	}
	o, err := f.options()
	if err != nil {
		return err
	}
	if r.To != formatPEFT {
		if err := checkEnding(f.out, ".safetensors"); err != nil {
			return err
		}
	}
	file, t, err := f.open(path, r.From)
	if err != nil {
		return err
	}
	if task != "" || r.To != formatNative {
		a, err := adapt.Pick(file, task)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		file.Adapters = []*peft.Adapter{a}
	}
	if t == nil && (slices.ContainsFunc(file.Adapters, adapt.NeedsBase) || r.To == formatPEFT && slices.ContainsFunc(file.Adapters, peft.PartsOfNorms)) {
		if t, err = f.baseOf(file, path); err != nil {
			return err
		}
	}
	if t != nil {
		o.Base = t.sd
	}
	if f.kind != "" {
		for i, a := range file.Adapters {
			b, rows, err := adapt.ToKind(cmd.Context(), a, peft.Kind(f.kind), o)
			if err != nil {
				return f.refusal(path, err)
			}
			file.Adapters[i] = b
			r.add(rows)
		}
	}
	if f.name != "" {
		if len(file.Adapters) != 1 {
			return usagef("--name is for one adapter; %s has %d, say which as FILE:NAME", path, len(file.Adapters))
		}
		file.Adapters[0].Name = f.name
	}
	if r.To == formatNative {
		return f.native(path, file, t, r)
	}
	if err := f.foreign(cmd, file.Adapters[0], o, r); err != nil {
		return f.refusal(path, err)
	}
	return nil
}

// refusal says how a conversion that is not exact is had nevertheless.
func (f *convertFlags) refusal(path string, err error) error {
	if errors.Is(err, peft.ErrLossy) && !f.lossy {
		return fmt.Errorf("%s: %w (--lossy allows a fit)", path, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// open reads an adapter file and the network it is for, nil where nothing needs that.
func (f *convertFlags) open(path, format string) (*peft.File, *target, error) {
	if format == formatNative && f.base == "" {
		file, err := f.foreignFlags.read(path, format, peft.Base{})
		return file, nil, err
	}
	name := f.base
	if name == "" {
		name = embeddedName
	}
	t, err := f.target(name, f.forceBase)
	if err != nil {
		return nil, nil, err
	}
	file, err := f.foreignFlags.read(path, format, t.base())
	if err != nil {
		return nil, nil, err
	}
	if err := file.Check(t.sd, f.forceBase); err != nil {
		return nil, nil, fmt.Errorf("%s on %s: %w", path, t.path, err)
	}
	return file, t, nil
}

// baseOf is the network in the program, for an adapter that needs its base where none
// is named.
func (f *convertFlags) baseOf(file *peft.File, path string) (*target, error) {
	t, err := f.target(embeddedName, f.forceBase)
	if err != nil {
		return nil, err
	}
	if err := file.Check(t.sd, f.forceBase); err != nil {
		return nil, fmt.Errorf("%s depends on the kernels of its network (--base): %w", path, err)
	}
	return t, nil
}

// native writes this program's file.
func (f *convertFlags) native(path string, file *peft.File, t *target, r *convertReport) error {
	if file.Base == "" && t != nil {
		for _, a := range file.Adapters {
			// Merging finds what does not fit before it is written.
			if _, _, err := adapt.Merge(t.sd, []adapt.Part{{Adapter: a, Weight: 1}}, adapt.ExtraOnly); err != nil {
				return fmt.Errorf("%s on %s: %w", path, t.path, err)
			}
		}
		bound, err := adapt.Bind(t.sd, file.Adapters...)
		if err != nil {
			return err
		}
		bound.Meta, file = file.Meta, bound
	}
	sd, err := file.StateDict()
	if err != nil {
		return err
	}
	r.Tensors = sd.Len()
	if f.kind == "" {
		for _, a := range file.Adapters {
			r.keep(a)
		}
	}
	return model.WriteSafetensors(f.out, sd)
}

// foreign writes another program's files.
func (f *convertFlags) foreign(cmd *cobra.Command, a *peft.Adapter, o adapt.ConvertOptions, r *convertReport) error {
	var rows []adapt.Conversion
	var sd *model.StateDict
	var err error
	switch r.To {
	case formatPEFT:
		r.Tensors, rows, err = adapt.WritePEFT(cmd.Context(), f.out, a, o)
	case formatLyCORIS:
		sd, rows, r.LeftOut, err = adapt.LyCORIS(cmd.Context(), a, f.prefix, o)
	case formatLoralib:
		r.Alpha = f.alpha
		if m := a.Modules; !cmd.Flags().Changed("lora-alpha") && len(m) > 0 && len(m[0].Spec().Rank) > 0 {
			r.Alpha = m[0].Lambda() * float64(m[0].Spec().Rank[0])
		}
		sd, rows, err = adapt.Loralib(cmd.Context(), a, r.Alpha, o)
	default:
		return fmt.Errorf("an adapter has no %s format", r.To)
	}
	if err != nil {
		return err
	}
	r.LeftOut = append([]string{}, r.LeftOut...)
	r.add(rows)
	if r.To == formatPEFT {
		return nil
	}
	r.Tensors = sd.Len()
	return model.WriteSafetensors(f.out, sd)
}

// add adds rows; of a change that has one already, what it was stays.
func (r *convertReport) add(rows []adapt.Conversion) {
	for _, c := range rows {
		row := convertRow{c.Module, string(c.From), string(c.To), list(c.Rank), c.Params, c.Exact, c.RelError}
		i := slices.IndexFunc(r.Modules, func(x convertRow) bool { return x.Module == c.Module })
		if i < 0 {
			r.Modules = append(r.Modules, row)
			continue
		}
		was := r.Modules[i]
		// The errors of two steps add up to no more than their sum.
		row.From, row.Exact, row.RelError = was.From, was.Exact && row.Exact, was.RelError+row.RelError
		r.Modules[i] = row
	}
}

// keep adds rows of changes that stay what they are.
func (r *convertReport) keep(a *peft.Adapter) {
	for _, m := range a.Modules {
		s := m.Spec()
		r.Modules = append(r.Modules, convertRow{m.Name, string(s.Kind), string(s.Kind), list(s.Rank), s.Params(), true, 0})
	}
}

func (r *convertReport) print(cmd *cobra.Command, asJSON bool) error {
	r.Exact = len(r.LeftOut) == 0
	for _, m := range r.Modules {
		r.Exact = r.Exact && m.Exact
		r.RelError = max(r.RelError, m.RelError)
	}
	w := cmd.OutOrStdout()
	if asJSON {
		return printJSON(w, r)
	}
	if len(r.Modules) > 0 {
		rows := [][]string{{"module", "from", "kind", "rank", "params", "exact", "error"}}
		for _, m := range r.Modules {
			exact := "yes"
			if !m.Exact {
				exact = "no"
			}
			rows = append(rows, []string{m.Module, m.From, m.Kind, rankText(m.Rank), count(m.Params), exact, fmt.Sprintf("%.2g", m.RelError)})
		}
		table(w, rows)
		fmt.Fprintln(w)
	}
	if n := len(r.LeftOut); n > 0 {
		fmt.Fprintf(w, "left out: %d tensors that the format has no place for, such as %q\n", n, r.LeftOut[0])
	}
	if r.Alpha != 0 {
		fmt.Fprintf(w, "loralib must be given lora_alpha=%g\n", r.Alpha)
	}
	for _, line := range r.Source.Lines() {
		fmt.Fprintln(w, line)
	}
	fmt.Fprintf(w, "%s to %s, %d tensors; wrote %s\n", r.From, r.To, r.Tensors, r.Output)
	return nil
}
