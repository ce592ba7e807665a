package adapt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
)

// ConvertOptions say how changes become others.
type ConvertOptions struct {
	// Base is the network that the adapter is for. Only NeedsBase adapters need it.
	Base *model.StateDict
	// Lossy allows fits where there is no exact way, of Rank, or else of what Energy
	// keeps of a change's square; with neither of as much as the kind can hold.
	Lossy  bool
	Rank   []int
	Energy float64
}

// Conversion is what became of one change.
type Conversion struct {
	Module   string
	From, To peft.Kind
	Rank     []int
	Params   int
	// Exact: no fit was needed. RelError is measured either way: of exact ones it is
	// rounding.
	Exact    bool
	RelError float64
}

// NeedsBase reports whether an adapter's changes are functions of the kernels.
func NeedsBase(a *peft.Adapter) bool {
	return slices.ContainsFunc(a.Modules, func(m peft.Module) bool {
		s := m.Spec()
		return s.DoRA || s.Kind == peft.Series
	})
}

// kernel is the base's kernel of a module, nil where there is no base.
func (o *ConvertOptions) kernel(module string) ([]float32, error) {
	if o.Base == nil {
		return nil, nil
	}
	return kernelOf(o.Base, module)
}

// ToKind is the adapter with changes of another kind; of 1×1 kernels, in whose taps there
// is nothing to factorise, the kinds that do become LoRA. Where that is not exact
// and no fit is allowed the error wraps peft.ErrLossy.
func ToKind(ctx context.Context, a *peft.Adapter, kind peft.Kind, o ConvertOptions) (*peft.Adapter, []Conversion, error) {
	var rows []Conversion
	out, err := each(a, func(m peft.Module) (*peft.Delta, error) {
		s := m.Spec()
		to := method{kind: kind}.spec(s.Shape, s.Geometry)
		to.DoRA = s.DoRA
		if to.Kind == peft.Axial {
			to.Axes = "hw"
		}
		base, err := o.kernel(m.Name)
		if err != nil {
			return nil, err
		}
		d, exact, err := o.convert(ctx, m.Delta, to, base)
		if err != nil {
			return nil, err
		}
		row, err := compare(m, d, base)
		row.Exact = exact
		rows = append(rows, row)
		return d, err
	})
	return out, rows, err
}

// each is the adapter with other changes.
func each(a *peft.Adapter, change func(peft.Module) (*peft.Delta, error)) (*peft.Adapter, error) {
	out := *a
	out.Modules = nil
	for _, m := range a.Modules {
		d, err := change(m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Name, err)
		}
		out.Modules = append(out.Modules, peft.Module{Name: m.Name, Linear: m.Linear, Delta: d})
	}
	return &out, nil
}

// convert goes the exact way, or fits where that is allowed.
func (o *ConvertOptions) convert(ctx context.Context, d *peft.Delta, to peft.Spec, base []float32) (*peft.Delta, bool, error) {
	out, _, err := peft.Convert(ctx, d, to, base, nil)
	if err == nil {
		return out, true, nil
	}
	if !errors.Is(err, peft.ErrLossy) || !o.Lossy {
		return nil, false, err
	}
	rule := &peft.Rule{Energy: o.Energy}
	switch {
	case o.Rank != nil:
		if to.Rank, err = ranksFor(to, o.Rank); err != nil {
			return nil, false, err
		}
		rule = nil
	case o.Energy > 0:
	case to.Kind == peft.CP || to.Kind == peft.CP4 || to.Kind == peft.TKDCPD:
		return nil, false, fmt.Errorf("%w: a fit of %s needs a rank or an energy", ErrOption, to.Kind)
	default:
		rule.Energy = 1 // all that singular values keep, but for rounding
	}
	out, _, err = peft.Convert(ctx, d, to, base, rule)
	return out, false, err
}

// ranksFor are the ranks asked for, as spec's kind has them.
func ranksFor(spec peft.Spec, asked []int) ([]int, error) {
	for name, m := range methods {
		if m.kind == spec.Kind {
			r, err := m.ranks(asked, name)
			if err != nil {
				return nil, err
			}
			return m.rankOf(spec, r), nil
		}
	}
	return nil, fmt.Errorf("%w: kind %q", ErrOption, spec.Kind)
}

// compare is the row of a change and what it became.
func compare(was peft.Module, is *peft.Delta, base []float32) (Conversion, error) {
	s := is.Spec()
	c := Conversion{Module: was.Name, From: was.Spec().Kind, To: s.Kind, Rank: s.Rank, Params: s.Params()}
	want, err := was.Kernel(base)
	if err != nil {
		return c, err
	}
	got, err := is.Kernel(base)
	if err != nil {
		return c, err
	}
	n := norm(want)
	for i, v := range want {
		got[i] -= v
	}
	if d := norm(got); d > 0 {
		c.RelError = d
		if n > 0 {
			c.RelError = d / n
		}
	}
	return c, nil
}

// format is a file format of another program.
type format struct {
	// Encode writes an adapter and reports with an error that wraps peft.ErrLossy what
	// the format cannot hold; Decode reads that back for the given sites.
	Encode func(*peft.Adapter) error
	Decode func([]peft.Site) (*peft.Adapter, error)
	// Exact are the kinds that a change may become where the format does not have it,
	// and Fit the one that it is fitted by.
	Exact []peft.Kind
	Fit   peft.Kind
	// Alpha, where it is not 0, makes the λ of every change Alpha over its rank.
	Alpha float64
	// Bare: there is no place for tensors that stand in place of the base's.
	Bare bool
}

// encode writes an adapter in a format, by the least that makes it fit: as it is, with
// changes of other kinds where that is exact, and with fits where that is allowed. It
// reads the result back, and tells what became of each change. left are the names of
// tensors that had to be left out, which is a loss too.
func (f *format) encode(ctx context.Context, a *peft.Adapter, o ConvertOptions) (rows []Conversion, left []string, err error) {
	original := a
	if f.Bare && a.Extra != nil && o.Lossy {
		bare := *a
		left, bare.Extra = a.Extra.Names(), nil
		a = &bare
	}
	if f.Alpha != 0 {
		if a, err = each(a, func(m peft.Module) (*peft.Delta, error) { return rescaled(m.Delta, f.Alpha) }); err != nil {
			return nil, nil, err
		}
	}
	fitted := map[string]bool{}
	err = f.Encode(a)
	for _, way := range f.ways(ctx, o, fitted) {
		if !errors.Is(err, peft.ErrLossy) {
			break
		}
		if a, err = way(a); err != nil {
			return nil, nil, err
		}
		err = f.Encode(a)
	}
	if err != nil {
		return nil, nil, err
	}
	back, err := f.Decode(modulesSites(original))
	if err != nil {
		return nil, nil, fmt.Errorf("what was written does not read: %w", err)
	}
	became := map[string]*peft.Delta{}
	for _, m := range back.Modules {
		became[m.Name] = m.Delta
	}
	for _, m := range original.Modules {
		base, err := o.kernel(m.Name)
		if err != nil {
			return nil, nil, err
		}
		row, err := compare(m, became[m.Name], base)
		if err != nil {
			return nil, nil, err
		}
		row.Exact = !fitted[m.Name]
		rows = append(rows, row)
	}
	return rows, left, nil
}

// ways are what is tried where the format does not hold an adapter, the least first.
func (f *format) ways(ctx context.Context, o ConvertOptions, fitted map[string]bool) []func(*peft.Adapter) (*peft.Adapter, error) {
	exactly := o
	exactly.Lossy = false
	// convert makes kind of the modules that want it, where it can.
	convert := func(a *peft.Adapter, o ConvertOptions, kind peft.Kind, dora bool, wants func(peft.Module) bool) (*peft.Adapter, error) {
		return each(a, func(m peft.Module) (*peft.Delta, error) {
			if !wants(m) {
				return m.Delta, nil
			}
			base, err := o.kernel(m.Name)
			if err != nil {
				return nil, err
			}
			s := m.Spec()
			d, exact, err := o.convert(ctx, m.Delta, peft.Spec{Kind: kind, Shape: s.Shape, Geometry: s.Geometry, DoRA: dora && s.DoRA}, base)
			if errors.Is(err, peft.ErrLossy) {
				return m.Delta, nil // as it is: the error will be the format's
			}
			if err != nil {
				return nil, err
			}
			fitted[m.Name] = fitted[m.Name] || !exact
			if f.Alpha != 0 {
				return rescaled(d, f.Alpha)
			}
			return d, nil
		})
	}
	unfit := func(m peft.Module) bool {
		return errors.Is(f.Encode(&peft.Adapter{Modules: []peft.Module{m}}), peft.ErrLossy)
	}
	all := func(peft.Module) bool { return true }
	var ways []func(*peft.Adapter) (*peft.Adapter, error)
	for _, kind := range f.Exact {
		for _, which := range []func(peft.Module) bool{unfit, all} {
			ways = append(ways, func(a *peft.Adapter) (*peft.Adapter, error) { return convert(a, exactly, kind, true, which) })
		}
	}
	if o.Lossy && f.Fit != "" {
		dora := func(m peft.Module) bool { return m.Spec().DoRA }
		for _, which := range []func(peft.Module) bool{unfit, dora} {
			ways = append(ways, func(a *peft.Adapter) (*peft.Adapter, error) { return convert(a, o, f.Fit, false, which) })
		}
	}
	return ways
}

// modulesSites are the sites that an adapter changes.
func modulesSites(a *peft.Adapter) []peft.Site {
	var sites []peft.Site
	for _, m := range a.Modules {
		s := m.Spec()
		sites = append(sites, peft.Site{Name: m.Name, Shape: s.Shape, Geometry: s.Geometry, Linear: m.Linear})
	}
	return sites
}

// rescaled is the same change with λ = alpha/rank, the rest of λ being multiplied into a
// factor; the change as it is where it has no such form.
func rescaled(d *peft.Delta, alpha float64) (*peft.Delta, error) {
	s := d.Spec()
	if len(s.Rank) == 0 || !s.Anchored && d.Lambda() == peft.AlphaOverRank(alpha, s.Rank[0], false) {
		return d, nil
	}
	flat, err := peft.Sum([]float64{1}, d) // anchors and λ become factors
	if errors.Is(err, peft.ErrLossy) {
		return d, nil
	}
	if err != nil {
		return nil, err
	}
	s = flat.Spec()
	s.Scale = peft.AlphaOverRank(alpha, s.Rank[0], false)
	if flat, err = peft.Sum([]float64{1 / s.Scale}, flat); err != nil {
		return nil, err
	}
	out, err := peft.New(s)
	if err != nil {
		return nil, err
	}
	for i, f := range out.Factors() {
		copy(f.Value, flat.Factors()[i].Value)
	}
	return out, nil
}

// WritePEFT writes an adapter as a directory of Hugging Face's PEFT, and returns the
// number of its tensors. A new directory appears with both its files or not at all; in
// one that is there each file is replaced. Modules of which the adapter has some tensors
// are completed with the base's, where there is a base: PEFT saves them whole.
func WritePEFT(ctx context.Context, dir string, a *peft.Adapter, o ConvertOptions) (tensors int, rows []Conversion, err error) {
	var ready *peft.Adapter
	var config []byte
	var sd *model.StateDict
	if o.Base != nil {
		a = peft.Whole(a, o.Base)
	}
	f := format{Exact: []peft.Kind{peft.LoRA}, Fit: peft.LoRA}
	f.Encode = func(a *peft.Adapter) (err error) {
		ready = a
		config, sd, err = peft.EncodePEFT(a, "")
		return err
	}
	f.Decode = func(sites []peft.Site) (*peft.Adapter, error) { return peft.DecodePEFT(config, sd, sites) }
	if rows, _, err = f.encode(ctx, a, o); err != nil {
		return 0, nil, err
	}
	return sd.Len(), rows, writeDir(dir, func(dir string) error { return peft.WritePEFT(dir, ready, "") })
}

// writeDir makes a directory at once, where there is none yet.
func writeDir(dir string, write func(string) error) (err error) {
	if _, err := os.Stat(dir); err == nil {
		return write(dir)
	}
	dir = filepath.Clean(dir)
	tmp := filepath.Join(filepath.Dir(dir), fmt.Sprintf(".%s.%d.%d.tmp", filepath.Base(dir), os.Getpid(), rand.Uint32()))
	if err := os.Mkdir(tmp, 0o777); err != nil { // as the umask has it
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(tmp) // the error that matters is the first
		}
	}()
	if err := write(tmp); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// LyCORIS is an adapter as a LyCORIS file. left are the tensors that it cannot hold,
// which are left out where loss is allowed.
func LyCORIS(ctx context.Context, a *peft.Adapter, prefix string, o ConvertOptions) (sd *model.StateDict, rows []Conversion, left []string, err error) {
	f := format{Exact: []peft.Kind{peft.Full}, Fit: peft.Full, Bare: true}
	f.Encode = func(a *peft.Adapter) (err error) { sd, err = peft.EncodeLyCORIS(a, prefix); return err }
	f.Decode = func(sites []peft.Site) (*peft.Adapter, error) { return peft.DecodeLyCORIS(sd, sites, prefix) }
	rows, left, err = f.encode(ctx, a, o)
	return sd, rows, left, err
}

// Loralib is an adapter as a state dict of loralib, for layers that are given alpha.
func Loralib(ctx context.Context, a *peft.Adapter, alpha float64, o ConvertOptions) (sd *model.StateDict, rows []Conversion, err error) {
	f := format{Fit: peft.LoRAView, Alpha: alpha}
	f.Encode = func(a *peft.Adapter) (err error) { sd, err = peft.EncodeLoralib(a, alpha); return err }
	f.Decode = func(sites []peft.Site) (*peft.Adapter, error) { return peft.DecodeLoralib(sd, sites, alpha) }
	rows, _, err = f.encode(ctx, a, o)
	return sd, rows, err
}
