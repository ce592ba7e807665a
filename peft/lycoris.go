package peft

import (
	"fmt"
	"slices"
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

// DecodeLyCORIS reads the tensors of a LyCORIS or kohya file, for a base with the given
// sites: LoCon (LoRA) with and without a mid (Tucker2), LoHa, LoKr, full changes, and
// DoRA's norms of outputs. λ is α/rank, and 1 where there is no α or it is 0, and for a
// LoKr whose factors are both whole. Changes of biases are taken where they are zero.
// prefix is what the names begin with, LyCORISPrefix if empty.
// Errors wrap ErrFile, and ErrLossy for a LoCon of a kernel in groups and a
// change of a bias.
func DecodeLyCORIS(sd *model.StateDict, sites []Site, prefix string) (*Adapter, error) {
	if prefix == "" {
		prefix = LyCORISPrefix
	}
	if err := sd.CheckFinite(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	byName := map[string]*Site{}
	for i, s := range sites {
		name := flatName(prefix, s.Name)
		if other := byName[name]; other != nil {
			return nil, fmt.Errorf("%w: %s and %s have one name in such a file", ErrFile, s.Name, other.Name)
		}
		byName[name] = &sites[i]
	}
	a := &Adapter{Norm: NormFrozen}
	found := map[string]map[string]*model.Tensor{}
	alphas := map[string]float64{}
	var names []string
	for _, full := range sd.Names() {
		module, param, _ := strings.Cut(full, ".")
		if byName[module] == nil {
			return nil, fmt.Errorf("%w: %q is of a module that the base does not have", ErrFile, full)
		}
		t, _ := sd.Get(full)
		if found[module] == nil {
			found[module] = map[string]*model.Tensor{}
			names = append(names, module)
		}
		if param == "alpha" {
			v, err := t.Float64s()
			if err != nil || len(v) != 1 {
				return nil, fmt.Errorf("%w: %q has shape %v, want one number", ErrFile, full, t.Shape)
			}
			alphas[module] = v[0]
			continue
		}
		if param == "diff_b" {
			// LyCORIS writes one for each layer that has a bias, trained or not.
			v, err := t.Float64s()
			if err != nil || slices.ContainsFunc(v, func(x float64) bool { return x != 0 }) {
				return nil, fmt.Errorf("%w: %q changes a bias, whose values are the base's and not in the file", ErrLossy, full)
			}
			continue
		}
		if p, ok := lycorisNames[param]; ok {
			param = p
		}
		if o := byName[module].Shape[0]; param == pubMagnitude && (len(t.Shape) == 0 || t.Shape[0] != o) {
			// Versions before 3.2 took norms of the input channels.
			return nil, fmt.Errorf("%w: %q has shape %v, want norms of %d outputs", ErrFile, full, t.Shape, o)
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
		a.Modules = append(a.Modules, Module{site.Name, site.Linear, d})
	}
	return a, nil
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
