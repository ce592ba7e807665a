package peft

import (
	"context"
	"fmt"
	"slices"

	"github.com/lowrank-go/lowrank/model"
)

// Fit says how well a change represents what fine-tuning did to a kernel.
type Fit struct {
	Name string
	// Moved is ‖W − W₀‖/‖W₀‖, RelError ‖W − W₀ − λ·ΔW‖/‖W − W₀‖.
	Moved, RelError float64
}

// ExtractAdapter is the adapter that makes the network tuned of base, as far as its
// changes can: for every site whose kernel moved one fitted to the difference, of the
// description that spec gives for it (its shape and geometry are filled in; a Kind of
// "" leaves the kernel out) with ranks as Extract chooses them. Every other tensor that
// differs, of norms, biases and the head, becomes Extra as it is in tuned. The two must
// have the same tensors, of the same shapes but for those of a head; the errors wrap
// ErrBase, or are Extract's.
func ExtractAdapter(ctx context.Context, base, tuned *model.StateDict, sites []Site, spec func(Site) Spec, rule Rule) (*Adapter, []Fit, error) {
	a := &Adapter{Extra: model.NewStateDict()}
	var fits []Fit
	done := map[string]bool{}
	for _, site := range sites {
		s := spec(site)
		if s.Kind == "" {
			continue
		}
		s.Shape, s.Geometry = site.Shape, site.Geometry
		w0, err := kernelIn(base, site.Name, site.Shape)
		if err != nil {
			return nil, nil, err
		}
		w, err := kernelIn(tuned, site.Name, site.Shape)
		if err != nil {
			return nil, nil, fmt.Errorf("fine-tuned: %w", err)
		}
		done[site.Name+".weight"] = true
		moved := make([]float32, len(w))
		for i, v := range w {
			moved[i] = v - w0[i]
		}
		if norm(0, moved, nil) == 0 {
			continue
		}
		d, relError, err := Extract(ctx, s, moved, w0, rule)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", site.Name, err)
		}
		a.Modules = append(a.Modules, Module{site.Name, site.Linear, d})
		fits = append(fits, Fit{site.Name, relative(w, w0), relError})
	}
	for _, name := range tuned.Names() {
		t, _ := tuned.Get(name)
		was, ok := base.Get(name)
		switch {
		case done[name]:
		case !ok:
			return nil, nil, fmt.Errorf("%w: it has no tensor %q, the fine-tuned network has", ErrBase, name)
		case slices.Equal(was.Shape, t.Shape) && sameData(was, t):
		case !slices.Equal(was.Shape, t.Shape) && !isHead(name, was, t):
			return nil, nil, fmt.Errorf("%w: %q has shape %v, the fine-tuned network's %v", ErrBase, name, was.Shape, t.Shape)
		default:
			a.Extra.Set(name, t)
		}
	}
	a.Norm = policyOf(a.Extra)
	if a.Extra.Len() == 0 {
		a.Extra = nil
	}
	return a, fits, nil
}

// sameData compares elements; what is no number is not the same.
func sameData(a, b *model.Tensor) bool {
	x, err := a.Float64s()
	if err != nil {
		return false
	}
	y, err := b.Float64s()
	return err == nil && slices.Equal(x, y)
}
