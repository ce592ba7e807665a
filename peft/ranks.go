package peft

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/internal/bisect"
	"github.com/lowrank-go/lowrank/internal/linalg"
	"github.com/lowrank-go/lowrank/internal/tensorops"
	"github.com/lowrank-go/lowrank/ranks"
	"github.com/lowrank-go/lowrank/vbmf"
)

// Rule chooses ranks for a kernel.
type Rule struct {
	// Energy is the share of ‖ΔW‖² to keep, above 0 and at most 1; 0 means that
	// variational Bayes tells signal from noise (Nakajima et al. 2013).
	Energy float64
	// Most bounds every rank; 0 is no bound.
	Most int
}

// ChooseRanks are the ranks of spec's kind for a kernel: a ΔW, a gradient or W₀
// itself. They come from the singular values of the kernel's matricisations, of which
// each kind has its own: outputs by the rest for LoRA, its view for LoRAView (whose
// rank is a k-th of the matrix's), (O·k)×(C·k) for Spatial, and one for each compressed
// mode of Tucker2, Tucker4 and TKDCPD. By energy the discarded shares of all modes
// add up to at most 1 − Energy, which bounds the squared error of the fit. CP has no
// matricisation: by energy its rank is the least whose fit keeps it, as far as
// alternating least squares find one, otherwise the larger of the first two modes', as
// is the rank of TKDCPD's CP. LoKr and LoHa have that of LoRA for theirs, which
// says little. Of a kernel in groups all groups have one rank, the largest.
//
// The error wraps ErrSpec.
func ChooseRanks(ctx context.Context, spec Spec, kernel []float32, rule Rule) ([]int, error) {
	if rule.Energy < 0 || rule.Energy > 1 || rule.Energy != rule.Energy || rule.Most < 0 {
		return nil, fmt.Errorf("%w: energy %g, at most rank %d; want an energy from 0 to 1", ErrSpec, rule.Energy, rule.Most)
	}
	k, ok := kinds[spec.Kind]
	if !ok {
		return nil, fmt.Errorf("%w: kind %q", ErrSpec, spec.Kind)
	}
	if k.ranks == 0 {
		return nil, nil
	}
	// A description with ranks of 1 is what the rest needs to be valid for.
	spec.Rank = slices.Repeat([]int{1}, k.ranks)
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if len(kernel) != spec.kernelLen() {
		return nil, fmt.Errorf("%w: a kernel of %v has %d weights, got %d", ErrSpec, spec.Shape, spec.kernelLen(), len(kernel))
	}
	x := widen[float64](kernel)
	cp := spec.Kind == CP || spec.Kind == CP4
	if cp && rule.Energy > 0 {
		r, err := cpRank(ctx, &spec, x, rule)
		return []int{r}, err
	}
	mats := spec.matricisations()
	found := make([]int, len(mats))
	for i, m := range mats {
		r, err := m.rank(&spec, x, rule.Energy, len(mats))
		if err != nil {
			return nil, err
		}
		found[i] = r
	}
	switch {
	case cp:
		found = []int{slices.Max(found)}
	case spec.Kind == TKDCPD:
		found = append(found, slices.Max(found))
	case spec.Kind == LoRAView:
		found[0] = (found[0] + spec.Shape[2] - 1) / spec.Shape[2]
	}
	for i, r := range found {
		if rule.Most > 0 {
			found[i] = min(r, rule.Most)
		}
	}
	return found, nil
}

// matricisation is a group of a kernel, of the given shape, with its axes permuted,
// the first rows of them being the rows.
type matricisation struct {
	perm   []int
	rows   int
	whole  bool // the kernel at once, its memory being the matrix
	height int  // where whole
}

func (s *Spec) matricisations() []matricisation {
	mode := func(n int) matricisation {
		perm := []int{n}
		for i := range 4 {
			if i != n {
				perm = append(perm, i)
			}
		}
		return matricisation{perm: perm, rows: 1}
	}
	switch s.Kind {
	case LoRAView:
		return []matricisation{{whole: true, height: s.Shape[0] / s.groups() * s.Shape[2]}}
	case Spatial:
		return []matricisation{{perm: []int{0, 2, 1, 3}, rows: 2}}
	case CP, CP4, Tucker2, TKDCPD:
		return []matricisation{mode(0), mode(1)}
	case Tucker4:
		return []matricisation{mode(0), mode(1), mode(2), mode(3)}
	}
	return []matricisation{mode(0)}
}

// spectra are the singular values, falling, of each group's matrix, and its size.
func (m *matricisation) spectra(s *Spec, x []float64) (ranks.Spectra, error) {
	groups, rows := s.groups(), 1
	shape := []int{s.Shape[0] / groups, s.Shape[1], s.Shape[2], s.Shape[3]}
	if m.whole {
		groups = 1
		rows = m.height
	} else {
		for _, a := range m.perm[:m.rows] {
			rows *= shape[a]
		}
	}
	n := len(x) / groups
	out := ranks.Spectra{Rows: rows, Cols: n / rows}
	for g := range groups {
		a := x[g*n : (g+1)*n]
		if !m.whole {
			a = make([]float64, n)
			permute(a, x[g*n:(g+1)*n], shape, m.perm)
		}
		v := make([]float64, min(rows, out.Cols))
		if err := linalg.SingularValues(0, rows, out.Cols, a, out.Cols, v); err != nil {
			return ranks.Spectra{}, fmt.Errorf("%w: %w", ErrSpec, err)
		}
		out.Values = append(out.Values, v)
	}
	return out, nil
}

// rank is at least 1. The shares of modes that all lose energy are equal.
func (m *matricisation) rank(s *Spec, x []float64, energy float64, modes int) (int, error) {
	spectra, err := m.spectra(s, x)
	if err != nil {
		return 0, err
	}
	if energy > 0 {
		return spectra.Keeping((1 - energy) / float64(modes)), nil
	}
	rank, err := spectra.Signal(&vbmf.Settings{Precision: 0x1p-23})
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrSpec, err)
	}
	return max(rank, 1), nil
}

// searchSweeps bounds the sweeps while a rank of CP is searched.
const searchSweeps = 60

func cpRank(ctx context.Context, s *Spec, x []float64, rule Rule) (int, error) {
	n := len(x) / s.groups()
	target := math.Sqrt(1 - rule.Energy)
	shape := []int{s.Shape[0] / s.groups(), s.Shape[1], s.Shape[2], s.Shape[3]}
	if s.Kind == CP {
		shape = []int{shape[0], shape[1], shape[2] * shape[3]}
	}
	// No tensor needs more components than entries without its largest mode.
	most := tensorops.Product(shape) / slices.Max(shape)
	if rule.Most > 0 {
		most = min(most, rule.Most)
	}
	rank := 1
	for g := range s.groups() {
		part := x[g*n : (g+1)*n]
		if tensorops.Norm(part) == 0 {
			continue
		}
		t := tensorops.Wrap(shape, part)
		r, err := bisect.Least(rank, most, func(r int) (bool, error) {
			if r == most {
				return true, nil // the most there is, be it enough or not
			}
			f, err := cpd.ALS(ctx, t, r, &cpd.Settings{MaxSweeps: searchSweeps, Target: target})
			if err != nil {
				return false, err
			}
			return f.RelError <= target, nil
		})
		if err != nil {
			return 0, err
		}
		rank = max(rank, r)
	}
	return rank, nil
}

// NewLayer is the layer of a kernel, with the parameters of the change for its cost: for
// LoRA, LoRAView, Spatial and the kinds of Tucker the matricisations of ChooseRanks, for
// CP that of outputs by the rest alone, whose leading R components hold at least what R
// terms of a CP can. Of a kernel in groups the values are the root sums of squares over
// the groups, which all have one rank. Of LoRAView a unit of rank is k values together.
// For a budget of multiply-accumulates put Spec.MACs in place of the cost. The error wraps
// ErrSpec.
func NewLayer(spec Spec, kernel []float32) (ranks.Layer, error) {
	k, ok := kinds[spec.Kind]
	if !ok || k.ranks == 0 || spec.Kind == LoHa {
		return ranks.Layer{}, fmt.Errorf("%w: %s has no rank of singular values", ErrSpec, spec.Kind)
	}
	spec.Rank = slices.Repeat([]int{1}, k.ranks)
	if err := spec.Validate(); err != nil {
		return ranks.Layer{}, err
	}
	if len(kernel) != spec.kernelLen() {
		return ranks.Layer{}, fmt.Errorf("%w: a kernel of %v has %d weights, got %d", ErrSpec, spec.Shape, spec.kernelLen(), len(kernel))
	}
	mats, unit := spec.matricisations(), 1
	switch spec.Kind {
	case CP, CP4:
		mats = mats[:1]
	case LoRAView:
		unit = spec.Shape[2]
	}
	l := ranks.Layer{Tied: spec.Kind == TKDCPD, Cost: func(rank []int) int64 {
		s := spec
		s.Rank = rank
		return int64(s.Params())
	}}
	x := widen[float64](kernel)
	for _, m := range mats {
		spectra, err := m.spectra(&spec, x)
		if err != nil {
			return ranks.Layer{}, err
		}
		var total []float64
		for at := 0; at < len(spectra.Values[0]); at += unit {
			var part []float64
			for _, v := range spectra.Values {
				part = append(part, v[at:min(at+unit, len(v))]...)
			}
			total = append(total, norm(0, part, nil))
		}
		l.Singular = append(l.Singular, total)
	}
	return l, nil
}
