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
	ranks := make([]int, len(mats))
	for i, m := range mats {
		r, err := m.rank(&spec, x, rule.Energy, len(mats))
		if err != nil {
			return nil, err
		}
		ranks[i] = r
	}
	switch {
	case cp:
		ranks = []int{slices.Max(ranks)}
	case spec.Kind == TKDCPD:
		ranks = append(ranks, slices.Max(ranks))
	case spec.Kind == LoRAView:
		ranks[0] = (ranks[0] + spec.Shape[2] - 1) / spec.Shape[2]
	}
	for i, r := range ranks {
		if rule.Most > 0 {
			ranks[i] = min(r, rule.Most)
		}
	}
	return ranks, nil
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
func (m *matricisation) spectra(s *Spec, x []float64) (values [][]float64, rows, cols int, err error) {
	groups := s.groups()
	shape := []int{s.Shape[0] / groups, s.Shape[1], s.Shape[2], s.Shape[3]}
	if m.whole {
		groups = 1
		rows = m.height
	} else {
		rows = 1
		for _, a := range m.perm[:m.rows] {
			rows *= shape[a]
		}
	}
	n := len(x) / groups
	cols = n / rows
	for g := range groups {
		a := x[g*n : (g+1)*n]
		if !m.whole {
			a = make([]float64, n)
			permute(a, x[g*n:(g+1)*n], shape, m.perm)
		}
		v := make([]float64, min(rows, cols))
		if err := linalg.SingularValues(0, rows, cols, a, cols, v); err != nil {
			return nil, 0, 0, fmt.Errorf("%w: %w", ErrSpec, err)
		}
		values = append(values, v)
	}
	return values, rows, cols, nil
}

// rank is at least 1. The shares of modes that all lose energy are equal.
func (m *matricisation) rank(s *Spec, x []float64, energy float64, modes int) (int, error) {
	values, rows, cols, err := m.spectra(s, x)
	if err != nil {
		return 0, err
	}
	rank := 1
	for _, v := range values {
		if energy == 0 {
			r, err := vbmf.Singular(v, rows, cols, &vbmf.Settings{Precision: 0x1p-23})
			if err != nil {
				return 0, fmt.Errorf("%w: %w", ErrSpec, err)
			}
			rank = max(rank, r.Rank)
			continue
		}
		rank = max(rank, keeping(v, (1-energy)/float64(modes)))
	}
	return rank, nil
}

// keeping is the number of the leading values whose tail has at most the given share
// of the sum of squares.
func keeping(v []float64, share float64) int {
	total := tensorops.Dot(v, v)
	tail, n := 0.0, len(v)
	for n > 0 && tail+v[n-1]*v[n-1] <= share*total {
		n--
		tail += v[n] * v[n]
	}
	return n
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
