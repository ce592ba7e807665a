package peft

import (
	"fmt"
	"strings"

	"github.com/lowrank-go/lowrank/model"
)

// LyCORISPrefix begins the names of tensors of LyCORIS for networks that it does not
// know.
const LyCORISPrefix = "lycoris"

// lycorisNames are the names of LyCORIS, which kohya's scripts share, for published tensors.
var lycorisNames = map[string]string{
	"lora_up.weight": pubUp, "lora_down.weight": pubDown, "lora_mid.weight": pubMid,
	"diff": pubDiff, "dora_scale": pubMagnitude,
}

// flatName is a module's name in such a file. Dots and underscores become one: it is
// undone by looking among the sites, never by splitting.
func flatName(prefix, module string) string {
	return prefix + "_" + strings.ReplaceAll(module, ".", "_")
}

// DecodeLyCORIS is Base.DecodeLyCORIS where no more than the sites of the base is known.
func DecodeLyCORIS(sd *model.StateDict, sites []Site, prefix string) (*Adapter, error) {
	return Base{Sites: sites}.DecodeLyCORIS(sd, prefix)
}

// DecodeLyCORIS reads the tensors of a LyCORIS or kohya file: LoCon (LoRA) with and
// without a mid (Tucker2), LoHa, LoKr, full changes, and DoRA's norms of outputs or, as
// whole changes, of inputs. λ is α/rank, and 1 where there is no α or it is 0, and for a
// LoKr whose factors are both whole. Changes of biases and norms become Extra tensors,
// the base's with the change in them.
// prefix is what the names begin with; where it is empty, it is found: what all names
// begin with so that modules of the base follow.
// Errors wrap ErrFile, and ErrLossy for a LoCon of a kernel in groups, and, where the
// base's tensors are not at hand, for what adds to them.
func (b Base) DecodeLyCORIS(sd *model.StateDict, prefix string) (*Adapter, error) {
	if err := sd.CheckFloat32(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	if prefix == "" {
		var err error
		if prefix, err = b.lycorisPrefix(sd); err != nil {
			return nil, err
		}
	}
	byName := map[string]*Site{}
	for i, s := range b.Sites {
		name := flatName(prefix, s.Name)
		if other := byName[name]; other != nil {
			return nil, fmt.Errorf("%w: %s and %s have one name in such a file", ErrFile, s.Name, other.Name)
		}
		byName[name] = &b.Sites[i]
	}
	others := map[string]string{} // modules of the base that are no sites: norms
	for _, m := range b.modules() {
		others[flatName(prefix, m)] = m
	}
	a := &Adapter{Norm: NormFrozen, Extra: model.NewStateDict()}
	found := map[string]map[string]*model.Tensor{}
	alphas := map[string]float64{}
	norms := map[string]*model.Tensor{}
	var names []string
	for _, full := range sd.Names() {
		module, param, _ := strings.Cut(full, ".")
		t, _ := sd.Get(full)
		if param == "w_norm" || param == "b_norm" {
			to := map[string]string{"w_norm": ".weight", "b_norm": ".bias"}[param]
			name, ok := others[module]
			if !ok && b.State == nil {
				return nil, fmt.Errorf("%w: %s changes a norm, whose values are the base's and not in the file", ErrLossy, short(full))
			}
			if !ok {
				return nil, fmt.Errorf("%w: %s changes a norm that the base does not have", ErrFile, short(full))
			}
			if err := b.addTo(a.Extra, name+to, t, 1, short(full)); err != nil {
				return nil, err
			}
			continue
		}
		if byName[module] == nil {
			return nil, fmt.Errorf("%w: %s is of a module that the base does not have", ErrFile, short(full))
		}
		if what := Algorithm(param); what != "" {
			return nil, fmt.Errorf("%w: %s is of %s, which is not read; LoCon, LoHa, LoKr, full and norm are", ErrFile, short(full), what)
		}
		if param == "diff_b" {
			// LyCORIS writes one for each layer that has a bias, trained or not.
			if err := b.addBias(a.Extra, byName[module], t, 1, short(full)); err != nil {
				return nil, err
			}
			continue
		}
		if found[module] == nil {
			found[module] = map[string]*model.Tensor{}
			names = append(names, module)
		}
		if param == "alpha" {
			v, err := t.Float64s()
			if err != nil || len(v) != 1 {
				return nil, fmt.Errorf("%w: %s has shape %v, want one number", ErrFile, short(full), t.Shape)
			}
			alphas[module] = v[0]
			continue
		}
		if p, ok := lycorisNames[param]; ok {
			param = p
		}
		if shape := byName[module].Shape; param == pubMagnitude && (len(t.Shape) == 0 || t.Shape[0] != shape[0] || t.Len() != shape[0]) {
			// Versions before 3.2 took norms of the input channels.
			if len(t.Shape) < 2 || t.Shape[0] != 1 || t.Shape[1] != shape[1] || t.Len() != shape[1] {
				return nil, fmt.Errorf("%w: %s has shape %v, want norms of %d outputs or %d inputs", ErrFile, short(full), t.Shape, shape[0], shape[1])
			}
			norms[module] = t
			continue
		}
		found[module][param] = t
	}
	for _, name := range names {
		site := byName[name]
		d, err := site.unpublish(found[name], func(rank int) (float64, error) {
			if al := alphas[name]; al != 0 && rank > 0 { // 0 means none to LyCORIS too
				return AlphaOverRank(al, rank, false), nil
			}
			return 1, nil
		})
		if err != nil {
			return nil, err
		}
		if m := norms[name]; m != nil {
			if d, err = b.inputNorms(site, d, m); err != nil {
				return nil, err
			}
		}
		a.Modules = append(a.Modules, Module{site.Name, site.Linear, d})
	}
	if a.Extra.Len() == 0 {
		a.Extra = nil
	} else {
		a.Norm = policyOf(a.Extra)
	}
	return a, nil
}

// modules lists the modules of the base's tensors.
func (b Base) modules() []string {
	if b.State == nil {
		return nil
	}
	var list []string
	seen := map[string]bool{}
	for _, name := range b.State.Names() {
		if m, _ := splitName(name); m != "" && !seen[m] {
			seen[m] = true
			list = append(list, m)
		}
	}
	return list
}

// lycorisPrefix finds what the names in a file begin with.
func (b Base) lycorisPrefix(sd *model.StateDict) (string, error) {
	modules := b.modules()
	for _, s := range b.Sites {
		modules = append(modules, s.Name)
	}
	flat := map[string]bool{}
	for _, m := range modules {
		flat[flatName("", m)] = true
	}
	fits := func(prefix string) bool {
		for _, full := range sd.Names() {
			module, _, _ := strings.Cut(full, ".")
			rest, ok := strings.CutPrefix(module, prefix)
			if !ok || !flat[rest] {
				return false
			}
		}
		return true
	}
	if sd.Len() == 0 || fits(LyCORISPrefix) {
		return LyCORISPrefix, nil
	}
	first, _, _ := strings.Cut(sd.Names()[0], ".")
	for i := len(first) - 1; i > 0; i-- { // the shortest rest that is a module
		if first[i] == '_' && flat[first[i:]] && fits(first[:i]) {
			return first[:i], nil
		}
	}
	// What is wrong is told by the names that begin as usual, or else here.
	common := first
	for _, full := range sd.Names() {
		for !strings.HasPrefix(full, common) {
			common = common[:len(common)-1]
		}
	}
	for _, p := range []string{LyCORISPrefix, "lora_unet", "lora"} {
		if strings.HasPrefix(common, p+"_") {
			return p, nil
		}
	}
	return "", fmt.Errorf("%w: %s is of a module that the base does not have, whatever its names' prefix is", ErrFile, short(sd.Names()[0]))
}

// EncodeLyCORIS is an adapter as the tensors of a LyCORIS file: LoRA, Tucker2 of equal
// ranks, LoHa, LoKr and Full as they are, anything else as LoRA where that is exact
// (see Convert). λ is kept as α in float32 where it is that to the bit, and otherwise
// multiplied into a factor. Extra tensors and LoRA of kernels in groups have no place in
// such a file: the error wraps ErrLossy. The adapter's name and policy are not kept.
func EncodeLyCORIS(a *Adapter, prefix string) (*model.StateDict, error) {
	if prefix == "" {
		prefix = LyCORISPrefix
	}
	if err := a.Validate(); err != nil {
		return nil, err
	}
	if n := a.extras().Len(); n > 0 {
		return nil, fmt.Errorf("%w: the format has no place for %d tensors such as %q", ErrLossy, n, a.Extra.Names()[0])
	}
	names := map[string]string{}
	for k, v := range lycorisNames {
		names[v] = k
	}
	sd := model.NewStateDict()
	for _, m := range a.Modules {
		allowed := []Kind{LoRA, LoHa, LoKr, Full}
		s := m.spec
		core := s.Shape[2]*s.Shape[3] > 1 // LyCORIS has no core of one tap
		if s.Kind == Tucker2 && s.Rank[0] == s.Rank[1] && core {
			allowed = append(allowed, Tucker2)
		}
		if s.Mid && !core && !s.Anchored {
			return nil, fmt.Errorf("%w: %s: a core of taps of a kernel of %v, which LyCORIS does not have", ErrLossy, m.Name, s.Shape)
		}
		if s.Kind == LoKr && !s.Anchored {
			if err := s.lycorisFits(); err != nil {
				return nil, fmt.Errorf("%s: %w", m.Name, err)
			}
			m.Delta = m.laidOut()
		}
		d, tensors, err := m.publish(allowed...)
		if err != nil {
			return nil, err
		}
		var al float64
		if len(d.spec.Rank) > 0 {
			al = alpha(d.Lambda(), d.spec.Rank[0], func(v float64) float64 { return float64(float32(v)) })
		}
		if al == 0 && d.Lambda() != 1 {
			m.Delta = d.folded()
			if d, tensors, err = m.publish(allowed...); err != nil {
				return nil, err
			}
			if len(d.spec.Rank) > 0 {
				al = float64(d.spec.Rank[0])
			}
		}
		if al == 0 && d.spec.Kind == LoKr {
			al = 1 // whole factors have no scale, but LyCORIS wants to see one
		}
		key := flatName(prefix, m.Name)
		if _, ok := sd.Get(key + ".alpha"); ok {
			return nil, fmt.Errorf("%w: %s has the name of another module in such a file", ErrLossy, m.Name)
		}
		for _, t := range tensors {
			name, ok := names[t.name]
			if !ok {
				name = t.name
			}
			if t.name == pubMagnitude {
				t.Shape = []int{t.Len(), 1, 1, 1}
				if m.Linear {
					t.Shape = t.Shape[:2]
				}
			}
			sd.Set(key+"."+name, t.Tensor)
		}
		if al != 0 {
			sd.Set(key+".alpha", &model.Tensor{Data: []float32{float32(al)}})
		}
	}
	return sd, nil
}
