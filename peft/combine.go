package peft

import (
	"fmt"

	"github.com/lowrank-go/lowrank/model"
)

// Combine is the adapter whose changes are Σᵢ weights[i] times those of adapters,
// exactly, by Sum: modules that several change must be of one kind there (see Convert),
// and ranks add up; Round lowers them again. Extra tensors cannot be added: two adapters
// that have one of a name, or one with a weight other than 1, are an error that wraps
// ErrLossy. The policy of batch norms must be the same.
func Combine(name string, weights []float64, adapters ...*Adapter) (*Adapter, error) {
	if len(weights) != len(adapters) || len(adapters) == 0 {
		return nil, fmt.Errorf("%w: %d weights for %d adapters", ErrSpec, len(weights), len(adapters))
	}
	type summand struct {
		weights []float64
		changes []*Delta
		linear  bool
	}
	sums := map[string]*summand{}
	out := &Adapter{Name: name, Norm: adapters[0].Norm}
	var order []string
	for i, a := range adapters {
		if err := a.Validate(); err != nil {
			return nil, err
		}
		if a.Norm != out.Norm {
			return nil, fmt.Errorf("%w: adapter %q has the batch-norm policy %q, %q has %q", ErrSpec, a.Name, a.Norm, adapters[0].Name, out.Norm)
		}
		for _, m := range a.Modules {
			s := sums[m.Name]
			if s == nil {
				s = &summand{linear: m.Linear}
				sums[m.Name] = s
				order = append(order, m.Name)
			}
			s.weights, s.changes = append(s.weights, weights[i]), append(s.changes, m.Delta)
		}
		for _, n := range a.extras().Names() {
			if out.Extra == nil {
				out.Extra = model.NewStateDict()
			}
			if _, twice := out.Extra.Get(n); twice || weights[i] != 1 {
				return nil, fmt.Errorf("%w: adapter %q, of weight %g, has its own %q, which cannot be mixed", ErrLossy, a.Name, weights[i], n)
			}
			t, _ := a.Extra.Get(n)
			out.Extra.Set(n, t)
		}
	}
	for _, n := range order {
		s := sums[n]
		if len(s.changes) == 1 && s.weights[0] == 1 {
			out.Modules = append(out.Modules, Module{n, s.linear, s.changes[0].Clone()})
			continue
		}
		d, err := Sum(s.weights, s.changes...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n, err)
		}
		out.Modules = append(out.Modules, Module{n, s.linear, d})
	}
	return out, nil
}
