package peft

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lowrank-go/lowrank/model"
)

// normTensors are those of a batch norm. PyTorch counts its batches too, and PEFT wants
// that count with the others; no network here needs it.
var normTensors = []string{"weight", "bias", "running_mean", "running_var"}

const batches = "num_batches_tracked"

// isNorm tells from the names of a module's tensors, or its own, that it is a batch norm.
func isNorm(module string, has func(param string) bool) bool {
	_, last := splitName(module)
	return has("running_mean") || has("running_var") || strings.HasPrefix(last, "bn") || strings.HasPrefix(last, "norm")
}

// missingOfNorms is the name of a tensor that Extra lacks of a batch norm of which it has
// others, "" where there is none.
func (a *Adapter) missingOfNorms() string {
	for _, name := range a.extras().Names() {
		m, _ := splitName(name)
		has := func(param string) bool { _, ok := a.Extra.Get(m + "." + param); return ok }
		if !isNorm(m, has) {
			continue
		}
		for _, param := range normTensors {
			if !has(param) {
				return m + "." + param
			}
		}
	}
	return ""
}

// PartsOfNorms reports an adapter that has some tensors of a batch norm and not all, so
// that PEFT's format needs the base's (see Whole).
func PartsOfNorms(a *Adapter) bool { return a.missingOfNorms() != "" }

// Whole is the adapter whose Extra has all tensors of a module where it has one, the
// others being the base's: PEFT saves and loads modules whole. Modules whose kernels are
// changed have their biases alone.
func Whole(a *Adapter, base *model.StateDict) *Adapter {
	if a.Extra == nil {
		return a
	}
	changed := map[string]bool{}
	for _, m := range a.Modules {
		changed[m.Name] = true
	}
	modules := map[string]bool{}
	out := *a
	out.Extra = model.NewStateDict()
	for _, name := range a.Extra.Names() {
		t, _ := a.Extra.Get(name)
		out.Extra.Set(name, t)
		m, _ := splitName(name)
		modules[m] = !changed[m]
	}
	for _, name := range base.Names() {
		m, _ := splitName(name)
		if _, ok := out.Extra.Get(name); !ok && modules[m] {
			t, _ := base.Get(name)
			out.Extra.Set(name, t)
		}
	}
	return &out
}

// saveModules puts Extra's tensors among a PEFT adapter's: modules whole, and biases of
// changed layers where PEFT has them.
func (c *hfConfig) saveModules(a *Adapter, sd *model.StateDict) error {
	changed := map[string]bool{}
	for _, m := range a.Modules {
		changed[m.Name] = true
	}
	for _, name := range a.extras().Names() {
		t, _ := a.Extra.Get(name)
		m, param := splitName(name)
		if changed[m] {
			if param != "bias" || c.Type != "LORA" {
				return fmt.Errorf("%w: PEFT has no place for %q beside a change of %s", ErrLossy, name, m)
			}
			c.Bias = "lora_only"
			name = m + baseLayer + param
		} else if !slices.Contains(c.Modules, m) {
			c.Modules = append(c.Modules, m)
		}
		sd.Set(peftPrefix+name, t)
	}
	if name := a.missingOfNorms(); name != "" {
		return fmt.Errorf("%w: PEFT saves batch norms whole, and there is no %q, which is the base network's (see Whole)", ErrLossy, name)
	}
	for _, m := range c.Modules {
		_, stats := sd.Get(peftPrefix + m + ".running_mean")
		_, counted := sd.Get(peftPrefix + m + "." + batches)
		if stats && !counted {
			sd.Set(peftPrefix+m+"."+batches, &model.Tensor{Data: []int64{0}})
		}
	}
	return nil
}
