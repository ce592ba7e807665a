package adapt

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/zoo"
)

// Apply is a copy of base with adapters of a file in it, whatever their methods: changes
// of kernels are merged, each times its weight, the network is extended by modules or
// for segmentation, and other tensors stand in place of the base's. names are the
// adapters', nil for all; weights nil are ones. The error wraps peft.ErrBase for another
// base, and peft.ErrLossy for what cannot be mixed: extensions, or tensors in place of
// others, of two adapters or with another weight than 1.
func Apply(base *graph.Graph, file *peft.File, names []string, weights []float64) (*graph.Graph, error) {
	adapters := file.Adapters
	if names != nil {
		adapters = nil
		for _, name := range names {
			a := file.Adapter(name)
			if a == nil {
				return nil, fmt.Errorf("%w: the file has no adapter %q", ErrOption, name)
			}
			adapters = append(adapters, a)
		}
	}
	if weights == nil {
		for range adapters {
			weights = append(weights, 1)
		}
	}
	if len(weights) != len(adapters) {
		return nil, fmt.Errorf("%w: %d weights for %d adapters", ErrOption, len(weights), len(adapters))
	}
	sd, err := base.StateDict()
	if err != nil {
		return nil, err
	}
	if err := file.Check(sd, false); err != nil {
		return nil, err
	}
	parts := make([]Part, len(adapters))
	for i, a := range adapters {
		parts[i] = Part{a, weights[i]}
	}
	return load(sd, parts...)
}

// unweighted reports an adapter that extends the network and has another weight than 1.
func unweighted(a *peft.Adapter, weight float64) error {
	if len(a.Added) > 0 && weight != 1 {
		return fmt.Errorf("%w: adapter %q has layers of its own, which are not linear: its weight %g is not 1", peft.ErrLossy, a.Name, weight)
	}
	return nil
}

// load is the network of a state dict with parts in it.
func load(sd *model.StateDict, parts ...Part) (*graph.Graph, error) {
	merged, _, err := Merge(sd, parts, ExtraOnly)
	if err != nil {
		return nil, err
	}
	return zoo.Load(merged, zoo.Options{})
}

// addLayers adds the adapters' own layers to the network description in sd, whose tensors
// are there already. The error wraps peft.ErrLossy where two adapters have modules at one
// unit, or both make a segmentation network.
func addLayers(sd *model.StateDict, adapters ...*peft.Adapter) error {
	e, err := added(adapters)
	if err != nil {
		return err
	}
	if err := zoo.Extend(sd, e); err != nil {
		return err
	}
	for _, a := range adapters {
		if a.Extra == nil {
			continue
		}
		for _, name := range a.Extra.Names() {
			if _, ok := sd.Get(name); !ok {
				return fmt.Errorf("%w: adapter %q has its own %q, for which a segmentation network has no place", peft.ErrLossy, a.Name, name)
			}
		}
	}
	return nil
}

// placed are the adapters whose extra tensors are used, as ExtraOnly and its like say.
// Extensions have some of these tensors: they cannot be mixed.
func placed(parts []Part, how string) ([]*peft.Adapter, error) {
	if i, err := strconv.Atoi(how); err == nil && i >= 1 && i <= len(parts) {
		return []*peft.Adapter{parts[i-1].Adapter}, nil
	}
	var all []*peft.Adapter
	for _, p := range parts {
		if how == ExtraNone {
			continue
		}
		if err := unweighted(p.Adapter, p.Weight); err != nil {
			return nil, err
		}
		all = append(all, p.Adapter)
	}
	_, err := added(all)
	return all, err
}

// Extension is what an adapter extends its network by.
func Extension(a *peft.Adapter) (zoo.Extension, error) {
	return added([]*peft.Adapter{a})
}

// added are the extensions of adapters, together.
func added(adapters []*peft.Adapter) (zoo.Extension, error) {
	owner := map[string]string{}
	all := zoo.Extension{Modules: map[string][]graph.ModuleSpec{}}
	for _, a := range adapters {
		if len(a.Added) == 0 {
			continue
		}
		var e zoo.Extension
		d := json.NewDecoder(bytes.NewReader(a.Added))
		d.DisallowUnknownFields()
		if err := d.Decode(&e); err != nil {
			return all, fmt.Errorf("%w: adapter %q: how it extends the network: %w", peft.ErrFile, a.Name, err)
		}
		for unit, specs := range e.Modules {
			if other, ok := owner[unit]; ok {
				return all, fmt.Errorf("%w: adapters %q and %q both have modules at %s", peft.ErrLossy, other, a.Name, unit)
			}
			owner[unit], all.Modules[unit] = a.Name, specs
		}
		if e.Dilate != nil {
			if all.Dilate != nil {
				return all, fmt.Errorf("%w: adapters %q and %q both make a segmentation network", peft.ErrLossy, owner[""], a.Name)
			}
			owner[""], all.Dilate = a.Name, e.Dilate
		}
	}
	return all, nil
}

// encode is an extension as adapters hold it, nil for none.
func encode(e zoo.Extension) (json.RawMessage, error) {
	if len(e.Modules) == 0 && e.Dilate == nil {
		return nil, nil
	}
	return json.Marshal(e)
}
