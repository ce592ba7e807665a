package peft

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lowrank-go/lowrank/model"
)

// DecodeLoralib is Base.DecodeLoralib where no more than the sites of the base is known.
func DecodeLoralib(sd *model.StateDict, sites []Site, alpha float64) (*Adapter, error) {
	return Base{Sites: sites}.DecodeLoralib(sd, alpha)
}

// DecodeLoralib reads what loralib's lora_state_dict returns, lora_A and lora_B of
// convolutions and linear layers; other tensors, of
// biases and of what else was saved with them, become Extra. The file has no α: λ is
// alpha over each module's rank. A convolution becomes LoRAView, which of a 1×1 kernel
// is LoRA. Of a whole checkpoint, where the convolution of a changed layer is called
// X.conv, the kernels of changed layers must be the base's, and are left out. Errors wrap
// ErrFile, and ErrBase for kernels that are not.
func (b Base) DecodeLoralib(sd *model.StateDict, alpha float64) (*Adapter, error) {
	if err := sd.CheckFloat32(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	at := index(b.Sites)
	a := &Adapter{Extra: model.NewStateDict()}
	r := newReader(sd)
	for _, name := range sd.Names() {
		t, _ := sd.Get(name)
		module, param := splitName(name)
		if !strings.HasPrefix(param, "lora_") {
			if inner, ok := strings.CutSuffix(module, ".conv"); ok && at[inner] != nil && at[module] == nil {
				module, name = inner, inner+"."+param
			}
			if _, changed := sd.Get(module + ".lora_A"); changed && param == "weight" {
				if err := b.sameKernel(module, t); err != nil {
					return nil, err
				}
				continue
			}
			a.Extra.Set(name, t)
			continue
		}
		if param != "lora_A" {
			continue // with its A
		}
		site := at[module]
		if site == nil {
			return nil, fmt.Errorf("%w: %q is of a module that the base does not have", ErrFile, name)
		}
		k := site.Shape[2]
		if len(t.Shape) != 2 || t.Shape[0]%k != 0 || t.Shape[0] == 0 {
			return nil, fmt.Errorf("%w: %q has shape %v, want %d rows for each unit of rank", ErrFile, name, t.Shape, k)
		}
		rank := t.Shape[0] / k
		spec := Spec{Kind: LoRAView, Shape: site.Shape, Geometry: site.Geometry, Rank: []int{rank}, Scale: AlphaOverRank(alpha, rank, false)}
		if spec.Scale == 0 {
			return nil, fmt.Errorf("%w: %s: a scale of 0", ErrFile, module)
		}
		if err := spec.Validate(); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrFile, module, err)
		}
		if n := spec.Params(); n != r.elements(module+".lora_") {
			return nil, fmt.Errorf("%w: %s: a %s of rank %d has %d values, the file %d", ErrFile, module, spec.Kind, rank, n, r.elements(module+".lora_"))
		}
		d, err := New(spec)
		if err != nil {
			return nil, err
		}
		for _, f := range d.net.factors {
			if err := r.copyTo(f.Value, module+".lora_"+f.Name, f.Shape); err != nil {
				return nil, err
			}
		}
		a.Modules = append(a.Modules, Module{module, site.Linear, d})
	}
	for _, name := range sd.Names() {
		if _, param := splitName(name); strings.HasPrefix(param, "lora_") && !r.used[name] {
			return nil, fmt.Errorf("%w: tensor %q is of nothing that is known", ErrFile, name)
		}
	}
	a.Norm = policyOf(a.Extra)
	if a.Extra.Len() == 0 {
		a.Extra = nil
	}
	return a, nil
}

// sameKernel reports a kernel beside a change that is not the base's. Where the base is not
// at hand it cannot be told.
func (b Base) sameKernel(module string, t *model.Tensor) error {
	if b.State == nil {
		return fmt.Errorf("%w: the kernel of %s stands beside its change, and the base's is not at hand", ErrLossy, module)
	}
	was, ok := b.State.Get(module + ".weight")
	if ok {
		x, err := was.Float32s()
		if err != nil {
			return err
		}
		y, err := t.Float32s()
		if err != nil {
			return err
		}
		ok = slices.Equal(x, y)
	}
	if !ok {
		return fmt.Errorf("%w: the kernel of %s in the file, beside its change, is not the base's (loralib merges the change into it in eval mode)", ErrBase, module)
	}
	return nil
}

// EncodeLoralib is an adapter of LoRAView changes as loralib's state dict. Other kinds,
// and a module whose λ·rank is not alpha, which loralib is told apart, are errors that
// wrap ErrLossy; a LoRA of a 1×1 kernel is a LoRAView.
func EncodeLoralib(a *Adapter, alpha float64) (*model.StateDict, error) {
	if err := a.exchangeable(); err != nil {
		return nil, err
	}
	sd := model.NewStateDict()
	for _, m := range a.Modules {
		up, down := m.Factor("B"), m.Factor("A")
		if s := m.spec; s.Kind == LoRA && s.Shape[2]*s.Shape[3]*s.groups() == 1 {
			up, down = m.Factor("up"), m.Factor("down")
		}
		if up == nil || m.spec.DoRA || m.spec.Anchored {
			return nil, fmt.Errorf("%w: %s: loralib has no %s, norms or anchors", ErrLossy, m.Name, m.spec.Kind)
		}
		if want := AlphaOverRank(alpha, m.spec.Rank[0], false); m.Lambda() != want {
			return nil, fmt.Errorf("%w: %s: λ is %g, loralib's would be %g", ErrLossy, m.Name, m.Lambda(), want)
		}
		rows := m.spec.Rank[0] * m.spec.Shape[2]
		sd.Set(m.Name+".lora_A", &model.Tensor{Shape: []int{rows, len(down.Value) / rows}, Data: down.Value})
		sd.Set(m.Name+".lora_B", &model.Tensor{Shape: []int{len(up.Value) / rows, rows}, Data: up.Value})
	}
	for _, name := range a.extras().Names() {
		t, _ := a.Extra.Get(name)
		sd.Set(name, t)
	}
	return sd, nil
}
