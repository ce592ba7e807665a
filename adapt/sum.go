package adapt

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"

	"github.com/lowrank-go/lowrank/internal/tensorops"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
)

// Part is an adapter and its weight among others.
type Part struct {
	*peft.Adapter
	Weight float64
}

// What Merge and Sum do with tensors that stand in place of the base's, the head and
// those of batch norms; a number, from "1", takes those of that part alone.
const (
	// ExtraOnly takes each from the one adapter that has it, if its weight is 1, and
	// refuses where two have it or another weight.
	ExtraOnly = ""
	// ExtraNone keeps the base's.
	ExtraNone = "none"
	// ExtraMix is t₀ + Σ wᵢ·(tᵢ − t₀), the same sum as that of the changes, t₀ being
	// the base's; with weights that add up to 1 the base's does not count, and may be
	// of another shape. Counters of batches are the largest.
	ExtraMix = "mix"
)

// Change is what an adapter, or a sum of some, does to one kernel.
type Change struct {
	Module string
	// Adapter is its name, "" for a sum.
	Adapter string
	Kind    peft.Kind
	Rank    []int
	Params  int
	// Relative is ‖w·λΔW‖/‖W₀‖, w being the part's weight.
	Relative float64
	// RelError is what rounding or a fit cost, relative to the change; 0 where
	// there was none.
	RelError float64
}

// kernelOf is the base's kernel of a module.
func kernelOf(base *model.StateDict, module string) ([]float32, error) {
	t, ok := base.Get(module + ".weight")
	if !ok {
		return nil, fmt.Errorf("%w: it has no tensor %q", peft.ErrBase, module+".weight")
	}
	return t.Float32s()
}

// describe is the row of a module whose kernel in the base is w.
func describe(m peft.Module, adapter string, weight float64, w []float32) (Change, error) {
	k, err := m.Kernel(w)
	if err != nil {
		return Change{}, fmt.Errorf("%s: %w", m.Name, err)
	}
	s := m.Spec()
	c := Change{Module: m.Name, Adapter: adapter, Kind: s.Kind, Rank: s.Rank, Params: s.Params()}
	if n := norm(w); n > 0 {
		c.Relative = max(weight, -weight) * norm(k) / n
	}
	return c, nil
}

func norm(x []float32) float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return tensorops.Norm(y)
}

// Merge is a copy of the base's state dict with the parts in it, exactly: the changes of
// the kernels added up as peft.Add says, tensors in place of the base's as extra says (see
// ExtraOnly), and the adapters' own layers in the network's description. The rows tell what each part does to each kernel.
func Merge(base *model.StateDict, parts []Part, extra string) (*model.StateDict, []Change, error) {
	rest, owners, err := extras(base, parts, extra)
	if err != nil {
		return nil, nil, err
	}
	weights := []float64{1}
	adapters := []*peft.Adapter{{Extra: rest}}
	for _, p := range parts {
		bare := *p.Adapter
		bare.Extra = nil
		weights, adapters = append(weights, p.Weight), append(adapters, &bare)
	}
	out, err := peft.Add(base, weights, adapters...)
	if err != nil {
		return nil, nil, err
	}
	if err := addLayers(out, owners...); err != nil {
		return nil, nil, err
	}
	var rows []Change
	for _, p := range parts {
		for _, m := range p.Modules {
			w, err := kernelOf(base, m.Name)
			if err != nil {
				return nil, nil, err
			}
			row, err := describe(m, p.Name, p.Weight, w)
			if err != nil {
				return nil, nil, err
			}
			rows = append(rows, row)
		}
	}
	return out, rows, nil
}

// extras are the tensors that stand in place of the base's, and the adapters they are of.
func extras(base *model.StateDict, parts []Part, how string) (*model.StateDict, []*peft.Adapter, error) {
	owners, err := placed(parts, how)
	if err != nil {
		return nil, nil, err
	}
	t, err := chosenExtras(base, parts, how)
	return t, owners, err
}

// chosenExtras are extras' tensors.
func chosenExtras(base *model.StateDict, parts []Part, how string) (*model.StateDict, error) {
	out := model.NewStateDict()
	switch how {
	case ExtraNone:
		return out, nil
	case ExtraMix:
		return mixed(base, parts)
	case ExtraOnly:
		for _, p := range parts {
			if p.Extra == nil {
				continue
			}
			for _, name := range p.Extra.Names() {
				if _, twice := out.Get(name); twice || p.Weight != 1 {
					return nil, fmt.Errorf("%w: adapter %q, of weight %g, has its own %q: say whether extra tensors are mixed, left out or one adapter's", peft.ErrLossy, p.Name, p.Weight, name)
				}
				t, _ := p.Extra.Get(name)
				out.Set(name, t)
			}
		}
		return out, nil
	}
	i, err := strconv.Atoi(how)
	if err != nil || i < 1 || i > len(parts) {
		return nil, fmt.Errorf("%w: extra tensors %q; want %s, %s or a number from 1 to %d", ErrOption, how, ExtraMix, ExtraNone, len(parts))
	}
	if x := parts[i-1].Extra; x != nil {
		return x, nil
	}
	return out, nil
}

func mixed(base *model.StateDict, parts []Part) (*model.StateDict, error) {
	out := model.NewStateDict()
	for _, p := range parts {
		if p.Extra == nil {
			continue
		}
		for _, name := range p.Extra.Names() {
			if _, done := out.Get(name); done {
				continue
			}
			t, err := mix(base, parts, name)
			if err != nil {
				return nil, err
			}
			out.Set(name, t)
		}
	}
	return out, nil
}

// mix is t₀ + Σ wᵢ·(tᵢ − t₀) of the tensors called name.
func mix(base *model.StateDict, parts []Part, name string) (*model.Tensor, error) {
	was, inBase := base.Get(name)
	var ts []*model.Tensor
	var ws []float64
	rest := 1.
	for _, p := range parts {
		if p.Extra != nil {
			if t, ok := p.Extra.Get(name); ok {
				ts, ws = append(ts, t), append(ws, p.Weight)
				rest -= p.Weight
			}
		}
	}
	if max(rest, -rest) > 1e-12 {
		if !inBase {
			return nil, fmt.Errorf("%w: %q is in adapters whose weights add up to %g, and not in the base", peft.ErrLossy, name, 1-rest)
		}
		ts, ws = append(ts, was), append(ws, rest)
	}
	if _, isInt := ts[0].Data.([]int64); isInt {
		return largest(ts, name)
	}
	sum := make([]float64, ts[0].Len())
	for i, t := range ts {
		v, err := t.Float64s()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if !slices.Equal(t.Shape, ts[0].Shape) {
			return nil, fmt.Errorf("%w: %q has shapes %v and %v, which cannot be mixed", peft.ErrLossy, name, ts[0].Shape, t.Shape)
		}
		for j, x := range v {
			sum[j] += ws[i] * x
		}
	}
	out := make([]float32, len(sum))
	for i, v := range sum {
		out[i] = float32(v)
	}
	return &model.Tensor{Shape: ts[0].Shape, Data: out}, nil
}

// largest is the counter that is largest.
func largest(ts []*model.Tensor, name string) (*model.Tensor, error) {
	best := ts[0]
	for _, t := range ts {
		v, ok := t.Data.([]int64)
		if !ok || len(v) != 1 {
			return nil, fmt.Errorf("%w: %q of %s of shape %v cannot be mixed", peft.ErrLossy, name, t.DType(), t.Shape)
		}
		if v[0] > best.Data.([]int64)[0] {
			best = t
		}
	}
	return best, nil
}

// Rounding says which ranks the changes of a sum are brought down to: Rank where it is
// set (one number serves for all of a kind), else what keeps the share Energy of
// ‖ΔW‖²; with neither they stay as they are, and the sum is exact.
type Rounding struct {
	Rank   []int
	Energy float64
}

// Sum is one adapter that does what the parts do together. Changes of one kind are
// concatenated; others become LoRA where that is exact and are kept whole where it is
// not. Then they are rounded, a whole one to LoRA. base is the network they are for.
func Sum(ctx context.Context, base *model.StateDict, parts []Part, extra string, r Rounding) (*peft.Adapter, []Change, error) {
	rest, owners, err := extras(base, parts, extra)
	if err != nil {
		return nil, nil, err
	}
	out := &peft.Adapter{Norm: peft.NormFrozen}
	e, err := added(owners)
	if err != nil {
		return nil, nil, err
	}
	if out.Added, err = encode(e); err != nil {
		return nil, nil, err
	}
	if rest.Len() > 0 {
		out.Extra, out.Norm = rest, parts[0].Norm
		if slices.ContainsFunc(parts, func(p Part) bool { return p.Norm != out.Norm }) {
			out.Norm = "" // no single policy leaves such tensors
		}
	}
	var order []peft.Module
	weights := map[string][]float64{}
	changes := map[string][]*peft.Delta{}
	for _, p := range parts {
		for _, m := range p.Modules {
			if weights[m.Name] == nil {
				order = append(order, m)
			}
			weights[m.Name], changes[m.Name] = append(weights[m.Name], p.Weight), append(changes[m.Name], m.Delta)
		}
	}
	var rows []Change
	for _, m := range order {
		w, err := kernelOf(base, m.Name)
		if err != nil {
			return nil, nil, err
		}
		if m.Delta, err = sum(ctx, weights[m.Name], changes[m.Name], w); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", m.Name, err)
		}
		relError := 0.
		if m.Delta, relError, err = r.round(ctx, m.Delta, w); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", m.Name, err)
		}
		row, err := describe(m, "", 1, w)
		if err != nil {
			return nil, nil, err
		}
		row.RelError = relError
		out.Modules, rows = append(out.Modules, m), append(rows, row)
	}
	return out, rows, nil
}

func sum(ctx context.Context, weights []float64, changes []*peft.Delta, base []float32) (*peft.Delta, error) {
	if len(changes) == 1 && weights[0] == 1 {
		return changes[0].Clone(), nil
	}
	if d, err := peft.Sum(weights, changes...); err == nil {
		return d, nil
	}
	for _, kind := range []peft.Kind{peft.LoRA, peft.Full} {
		var same []*peft.Delta
		for _, c := range changes {
			d, _, err := peft.Convert(ctx, c, peft.Spec{Kind: kind}, base, nil)
			if errors.Is(err, peft.ErrLossy) {
				break
			}
			if err != nil {
				return nil, err
			}
			same = append(same, d)
		}
		if len(same) == len(changes) {
			return peft.Sum(weights, same...)
		}
	}
	return nil, fmt.Errorf("%w: the changes have no sum", peft.ErrLossy)
}

// round is the change with ranks that r allows, and what that costs.
func (r *Rounding) round(ctx context.Context, d *peft.Delta, base []float32) (*peft.Delta, float64, error) {
	s := d.Spec()
	if r.Rank == nil && r.Energy == 0 || len(s.Rank) == 0 && s.Kind != peft.Full {
		return d, 0, nil
	}
	if s.Kind == peft.Full {
		to := peft.Spec{Kind: peft.LoRA, Rank: r.Rank}
		if len(r.Rank) > 1 {
			to.Rank = r.Rank[:1]
		}
		if to.Rank != nil {
			to.Rank = []int{min(to.Rank[0], most(s))}
		}
		d, how, err := peft.Convert(ctx, d, to, base, &peft.Rule{Energy: r.Energy})
		if err != nil {
			return nil, 0, err
		}
		return d, how.RelError, nil
	}
	if r.Rank == nil {
		return peft.Round(ctx, d, nil, base, &peft.Rule{Energy: r.Energy})
	}
	rank := r.Rank
	if len(rank) == 1 {
		rank = slices.Repeat(rank, len(s.Rank))
	}
	if len(rank) != len(s.Rank) {
		return nil, 0, fmt.Errorf("%w: rank %v; %s has %d", ErrOption, r.Rank, s.Kind, len(s.Rank))
	}
	rank = slices.Clone(rank)
	for i := range rank {
		rank[i] = min(rank[i], s.Rank[i])
	}
	if slices.Equal(rank, s.Rank) {
		return d, 0, nil
	}
	return peft.Round(ctx, d, rank, base, nil)
}

// most is the largest rank that a group of a kernel can have as a matrix of outputs by
// the rest.
func most(s peft.Spec) int {
	return min(s.Shape[0]/max(s.Groups, 1), s.Shape[1]*s.Shape[2]*s.Shape[3])
}

// Bind is a file of adapters for a base: all that none of them replaces must be the same,
// bit for bit, wherever they are applied.
func Bind(base *model.StateDict, adapters ...*peft.Adapter) (*peft.File, error) {
	var frozen []string
	for _, name := range base.Names() {
		if !slices.ContainsFunc(adapters, func(a *peft.Adapter) bool {
			if a.Extra == nil {
				return false
			}
			_, ok := a.Extra.Get(name)
			return ok
		}) {
			frozen = append(frozen, name)
		}
	}
	return peft.NewFile(base, frozen, adapters...)
}

// replaced are the tensors of after that are not base's, but for those called in except.
func replaced(base, after *model.StateDict, except map[string]bool) *model.StateDict {
	out := model.NewStateDict()
	for _, name := range after.Names() {
		t, _ := after.Get(name)
		if was, ok := base.Get(name); !except[name] && !(ok && reflect.DeepEqual(was, t)) {
			out.Set(name, t)
		}
	}
	return out
}
