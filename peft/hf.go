package peft

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/lowrank-go/lowrank/internal/infile"
	"github.com/lowrank-go/lowrank/model"
)

// The files of a PEFT directory.
const (
	peftConfig  = "adapter_config.json"
	peftTensors = "adapter_model.safetensors"
)

// peftPrefix begins the name of every tensor of a PEFT adapter.
const peftPrefix = "base_model.model."

// ReadPEFT is Base.ReadPEFT where no more than the sites of the base is known.
func ReadPEFT(dir string, sites []Site) (*Adapter, error) {
	return Base{Sites: sites}.ReadPEFT(context.Background(), dir)
}

// ReadPEFT reads an adapter that Hugging Face's PEFT saved, the directory's
// adapter_config.json and adapter_model.safetensors, or the .bin of old versions, for the base:
// LoRA with and without DoRA, LoHa, LoKr, and modules_to_save, which become Extra. The
// batch-norm policy follows from which tensors those are. Errors wrap ErrFile, or
// ErrLossy for a LoRA of a kernel in groups, which PEFT runs but which is no change of
// the kernel.
//
// Where the adapter was started by PiSSA or OLoRA, PEFT has taken the start out of the
// base's kernel: the change is the learned product less the start's, which is computed
// again of the base, a LoRA of twice the rank. Starts that cannot be computed again
// (CorDA, LoftQ and others) are refused by name.
func (b Base) ReadPEFT(ctx context.Context, dir string) (*Adapter, error) {
	const mostConfig = 16 << 20
	config, err := infile.Read(ctx, filepath.Join(dir, peftConfig), mostConfig)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, peftTensors)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		path = filepath.Join(dir, "adapter_model.bin") // of versions before 0.7
	}
	sd, err := model.ReadOptions{}.ReadFile(ctx, path)
	if err != nil {
		return nil, err
	}
	a, err := b.DecodePEFT(config, sd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return a, nil
}

// baseLayer stands in the names of a changed layer's own tensors before the last part.
const baseLayer = ".base_layer."

// peftNames are PEFT's names of published tensors, behind the module's.
var peftNames = map[string]string{
	"lora_A.weight": pubDown, "lora_B.weight": pubUp, "lora_magnitude_vector": pubMagnitude,
}

// moduleMagnitude is what lora_magnitude_vector is called in a module's state.
const moduleMagnitude = "lora_magnitude_vector.weight"

// hadamardNames are the published names of LoHa and LoKr.
var hadamardNames = []string{
	"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
	"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
}

// DecodePEFT is Base.DecodePEFT where no more than the sites of the base is known.
func DecodePEFT(config []byte, sd *model.StateDict, sites []Site) (*Adapter, error) {
	return Base{Sites: sites}.DecodePEFT(config, sd)
}

// DecodePEFT is ReadPEFT for the content of the two files.
func (b Base) DecodePEFT(config []byte, sd *model.StateDict) (*Adapter, error) {
	c := hfConfig{R: 8} // PEFT's own default
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFile, peftConfig, err)
	}
	switch c.Type {
	case "LORA", "LOHA", "LOKR":
	default:
		return nil, fmt.Errorf("%w: %s: peft_type %s; this reads LORA, LOHA and LOKR", ErrFile, peftConfig, short(c.Type))
	}
	if c.FanInOut {
		return nil, fmt.Errorf("%w: %s: fan_in_fan_out, which no convolution has", ErrFile, peftConfig)
	}
	if err := c.compile(); err != nil {
		return nil, err
	}
	start, err := c.start()
	if err != nil {
		return nil, err
	}
	if err := sd.CheckFloat32(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	at := index(b.Sites)
	found := map[string]map[string]*model.Tensor{}
	biases := map[string]*model.Tensor{}
	a := &Adapter{Extra: model.NewStateDict()}
	var names []string
	adapter := "" // by which a file that save_pretrained did not write calls it
	for _, full := range sd.Names() {
		name, ok := strings.CutPrefix(full, peftPrefix)
		if !ok {
			return nil, fmt.Errorf("%w: tensor %s does not begin with %q", ErrFile, short(full), peftPrefix)
		}
		name, called := withoutAdapter(name)
		switch {
		case called != "" && adapter != "" && called != adapter:
			return nil, fmt.Errorf("%w: tensors of two adapters, %s and %s; save_pretrained writes them apart", ErrFile, short(adapter), short(called))
		case called != "":
			adapter = called
		}
		if name == "" { // the module that one of modules_to_save stands for
			continue
		}
		t, _ := sd.Get(full)
		module, param := splitPEFT(name)
		if param == "" {
			a.Extra.Set(strings.Replace(name, baseLayer, ".", 1), t)
			continue
		}
		if _, ok := at[module]; !ok {
			return nil, fmt.Errorf("%w: %s is of a module that the base does not have", ErrFile, short(full))
		}
		if param == "lora_B.bias" {
			biases[module] = t
			continue
		}
		if found[module] == nil {
			found[module] = map[string]*model.Tensor{}
			names = append(names, module)
		}
		found[module][param] = t
	}
	for _, name := range names {
		site := at[name]
		if c.DoRA && found[name][pubMagnitude] == nil {
			return nil, fmt.Errorf("%w: %s: use_dora by %s, but the file has no norms (lora_magnitude_vector) of it", ErrFile, name, peftConfig)
		}
		d, err := site.unpublish(found[name], func(rank int) (float64, error) { return c.scale(name, rank) })
		if err != nil {
			return nil, err
		}
		if bias := biases[name]; bias != nil {
			// It is behind the up factor, and scaled as that.
			if err := b.addBias(a.Extra, site, bias, d.Lambda(), "a bias of lora_B"); err != nil {
				return nil, err
			}
		}
		if start != nil {
			if d, err = b.lessStart(site, d, start); err != nil {
				return nil, err
			}
		}
		a.Modules = append(a.Modules, Module{name, site.Linear, d})
	}
	a.Norm = policyOf(a.Extra)
	if a.Extra.Len() == 0 {
		a.Extra = nil
	}
	return a, nil
}

// withoutAdapter takes out of a name that of the adapter, which PEFT puts behind a
// parameter or before its last part in a module's state and leaves out in files:
// "m.lora_A.default.weight". A name of the module that one of modules_to_save stands for
// becomes empty.
func withoutAdapter(name string) (short, adapter string) {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		switch {
		case p == "original_module":
			return "", ""
		case p == "modules_to_save" && i+2 < len(parts):
			return strings.Join(append(slices.Clone(parts[:i]), parts[i+2:]...), "."), parts[i+1]
		case !strings.HasPrefix(p, "lora_") && !slices.Contains(hadamardNames, p):
		case i+1 < len(parts) && parts[i+1] != "weight" && parts[i+1] != "bias":
			return strings.Join(append(slices.Clone(parts[:i+1]), parts[i+2:]...), "."), parts[i+1]
		}
	}
	return name, ""
}

// index finds sites by name.
func index(sites []Site) map[string]*Site {
	m := map[string]*Site{}
	for i := range sites {
		m[sites[i].Name] = &sites[i]
	}
	return m
}

// splitPEFT cuts a name into the module and a published name; "" where it is none.
func splitPEFT(name string) (module, param string) {
	for suffix, published := range peftNames {
		if m, ok := strings.CutSuffix(name, "."+suffix); ok {
			return m, published
		}
	}
	if m, ok := strings.CutSuffix(name, "."+moduleMagnitude); ok {
		return m, pubMagnitude
	}
	m, last := splitName(name)
	if slices.Contains(hadamardNames, last) || strings.HasPrefix(last, "lora_") {
		return m, last
	}
	if strings.HasSuffix(m, ".lora_A") || strings.HasSuffix(m, ".lora_B") { // a bias, which nothing here has
		m, first := splitName(m)
		return m, first + "." + last
	}
	return "", ""
}

// policyOf is the batch-norm policy that would leave such tensors.
func policyOf(extra *model.StateDict) NormPolicy {
	stats, affine := map[string]bool{}, false
	for _, name := range extra.Names() {
		if m, p := splitName(name); p == "running_mean" || p == "running_var" {
			stats[m] = true
		}
	}
	for _, name := range extra.Names() {
		m, p := splitName(name)
		_, last := splitName(m)
		norm := stats[m] || strings.HasPrefix(last, "bn") || strings.HasPrefix(last, "norm")
		affine = affine || norm && (p == "weight" || p == "bias")
	}
	switch {
	case affine && len(stats) > 0:
		return NormAffineStats
	case affine:
		return NormAffine
	case len(stats) > 0:
		return NormStats
	}
	return NormFrozen
}

// EncodePEFT is an adapter as the two files of PEFT: adapter_config.json and the
// tensors. LoHa and LoKr are such where all modules are; anything else becomes LoRA
// where that is exact (see Convert), of a rank that follows. A learned λ is saved as
// its value. base names the base model for PEFT's own loader; it may be empty.
//
// PEFT saves modules whole: of a batch norm Extra must have all tensors (see Whole). The
// factors of a LoKr of too high a rank are multiplied out, as PEFT has them.
//
// What PEFT cannot hold is an error that wraps ErrLossy: LoRA of kernels in groups,
// learned norms for some modules only, a LoKr whose factors PEFT would lay out
// otherwise, a part of a batch norm, an α that is not λ's to the bit, and the adapter's
// name and policy are not kept.
func EncodePEFT(a *Adapter, base string) ([]byte, *model.StateDict, error) {
	if err := a.exchangeable(); err != nil {
		return nil, nil, err
	}
	c := hfConfig{Type: "LORA", Bias: "none", Inference: true}
	if base != "" {
		c.Base = &base
	}
	kindsOf := map[Kind]bool{}
	for _, m := range a.Modules {
		if m.spec.Anchored { // becomes LoRA
			kindsOf[LoRA] = true
		}
		kindsOf[m.spec.Kind] = true
	}
	allowed := LoRA
	for kind, name := range map[Kind]string{LoHa: "LOHA", LoKr: "LOKR"} {
		if len(kindsOf) == 1 && kindsOf[kind] {
			c.Type, c.Bias, allowed = name, "", kind
		}
	}
	sd := model.NewStateDict()
	toPEFT := map[string]string{}
	for k, v := range peftNames {
		toPEFT[v] = k
	}
	var targets []string
	modules := slices.Clone(a.Modules)
	for i, m := range modules {
		modules[i].Delta = m.laidOut()
	}
	c.choices(modules)
	for i, m := range modules {
		d, tensors, err := m.publish(allowed)
		if err != nil {
			return nil, nil, err
		}
		rank := d.peftRank()
		al := alpha(d.Lambda(), rank, func(v float64) float64 { return v })
		if al == 0 {
			d = d.folded()
			m.Delta = d
			if d, tensors, err = m.publish(allowed); err != nil {
				return nil, nil, err
			}
			al = float64(rank)
		}
		if i == 0 {
			c.first(d, rank, al)
		}
		if err := c.fits(d); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", m.Name, err)
		}
		if rank != c.R {
			c.RankPattern = append(c.RankPattern, pattern{key: exact(m.Name, modules), value: float64(rank)})
		}
		if al != c.alphaValue() {
			c.AlphaPattern = append(c.AlphaPattern, pattern{key: exact(m.Name, modules), value: al})
		}
		targets = append(targets, regexp.QuoteMeta(m.Name))
		for _, t := range tensors {
			name, ok := toPEFT[t.name]
			if !ok {
				name = t.name
			}
			if t.name == pubMagnitude && !m.Linear {
				t.Shape = []int{1, t.Len(), 1, 1}
			}
			sd.Set(peftPrefix+m.Name+"."+name, t.Tensor)
		}
	}
	// A regular expression, because a list's entries match every name they end.
	var err error
	if c.Target, err = json.Marshal(strings.Join(targets, "|")); err != nil {
		return nil, nil, err
	}
	if err := c.saveModules(a, sd); err != nil {
		return nil, nil, err
	}
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, nil, err
	}
	return append(text, '\n'), sd, nil
}

// peftRank is the r that PEFT knows the change by; of a LoKr without ranks one that
// makes PEFT keep both factors whole.
func (c *Change[T]) peftRank() int {
	if len(c.spec.Rank) > 0 {
		return c.spec.Rank[0]
	}
	split := c.spec.split()
	return max(split[0], split[1], c.spec.Shape[0]/split[0], c.spec.Shape[1]/split[1])
}

// WritePEFT writes the directory that PEFT loads; see EncodePEFT. Each file is written
// atomically.
func WritePEFT(dir string, a *Adapter, base string) error {
	config, sd, err := EncodePEFT(a, base)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	if err := model.WriteSafetensors(filepath.Join(dir, peftTensors), sd); err != nil {
		return err
	}
	return model.WriteAtomic(filepath.Join(dir, peftConfig), func(w io.Writer) error {
		_, err := w.Write(config)
		return err
	})
}
