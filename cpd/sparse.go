package cpd

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/james-bowman/sparse"
)

// Sparse is a tensor as a list of entries.
type Sparse struct {
	// Shape is I_1, …, I_N.
	Shape []int
	// Index has N indices an entry, from 0, and Values a value: entry e is at
	// Index[e·N : (e+1)·N].
	Index  []int
	Values []float64
	// Weights, where not nil, has a weight for each entry, not negative, by which
	// its squared error counts. It is for Unknown.
	Weights []float64
	// Unknown tells what an entry that is not listed is: zero, and as good as any
	// other, or, with Unknown, not known at all. Entries that are listed twice are
	// added up in the first case, and an error in the second.
	Unknown bool
}

// Validate reports indices, values and weights that make no tensor; the error
// wraps ErrSettings and names the entry.
func (s *Sparse) Validate() error {
	order := len(s.Shape)
	if order < 2 {
		return fmt.Errorf("%w: a sparse tensor of order %d; want at least 2", ErrSettings, order)
	}
	size := uint64(1)
	for n, d := range s.Shape {
		if d < 1 {
			return fmt.Errorf("%w: shape %v: mode %d has size %d", ErrSettings, s.Shape, n, d)
		}
		high, low := bits.Mul64(size, uint64(d))
		if high != 0 || low > math.MaxInt {
			return fmt.Errorf("%w: shape %v has more than %d entries", ErrSettings, s.Shape, math.MaxInt)
		}
		size = low
	}
	if len(s.Index) != order*len(s.Values) || s.Weights != nil && len(s.Weights) != len(s.Values) {
		return fmt.Errorf("%w: %d indices and %d weights for %d values of a tensor of order %d", ErrSettings, len(s.Index), len(s.Weights), len(s.Values), order)
	}
	if s.Weights != nil && !s.Unknown {
		return fmt.Errorf("%w: weights for a sparse tensor whose other entries are zero, not unknown", ErrSettings)
	}
	for i, at := range s.Index {
		if n := i % order; at < 0 || at >= s.Shape[n] {
			return fmt.Errorf("%w: entry %d has index %d in mode %d of size %d", ErrSettings, i/order, at, n, s.Shape[n])
		}
	}
	for e, w := range s.Weights {
		if !(w >= 0) || math.IsInf(w, 1) {
			return fmt.Errorf("%w: entry %d at %v has weight %g", ErrSettings, e, s.at(e), w)
		}
	}
	for e, v := range s.Values {
		if v-v != 0 {
			return fmt.Errorf("%w: entry %d at %v is %g", ErrSettings, e, s.at(e), v)
		}
	}
	return nil
}

// at is the indices of an entry.
func (s *Sparse) at(e int) []int { n := len(s.Shape); return s.Index[e*n : (e+1)*n] }

// Unfold is the unfolding of a mode, I_n×(product of the others), the other modes in
// their order, the last fastest. Entries that are listed twice are added up. The
// error wraps ErrSettings.
func (s *Sparse) Unfold(mode int) (*sparse.CSR, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if mode < 0 || mode >= len(s.Shape) {
		return nil, fmt.Errorf("%w: mode %d of a tensor of order %d", ErrSettings, mode, len(s.Shape))
	}
	u, _ := s.unfold(mode, s.Values)
	return u, nil
}

// unfold is the unfolding of a tensor with other values, and the number of entries
// that share their place with an earlier one.
func (s *Sparse) unfold(mode int, values []float64) (*sparse.CSR, int) {
	others := 1
	for n, d := range s.Shape {
		if n != mode {
			others *= d
		}
	}
	column := make([]int, len(values))
	order := make([]int, len(values))
	for e := range values {
		order[e] = e
		for n, i := range s.at(e) {
			if n != mode {
				column[e] = column[e]*s.Shape[n] + i
			}
		}
	}
	row := func(e int) int { return s.Index[e*len(s.Shape)+mode] }
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(row(a), row(b)), cmp.Compare(column[a], column[b]))
	})
	start := make([]int, s.Shape[mode]+1)
	var ind []int
	var data []float64
	twice := 0
	for i, e := range order {
		if i > 0 && row(order[i-1]) == row(e) && column[order[i-1]] == column[e] {
			data[len(data)-1] += values[e]
			twice++
			continue
		}
		ind = append(ind, column[e])
		data = append(data, values[e])
		start[row(e)+1]++
	}
	for i := range s.Shape[mode] {
		start[i+1] += start[i]
	}
	return sparse.NewCSR(s.Shape[mode], others, start, ind, data), twice
}

// ALSSparse is ALS for a sparse tensor; a sweep takes time in proportion to its
// entries. Where others are zero that is O(R) an entry and mode, and an error
// below 1e-8 cannot be told from 0. Where they are unknown it is O(R²): every row of
// a factor has a least-squares problem of its own, with the entries known in that
// slice. RelError is then that of the known entries, weighted, and a row is zero
// where its slice has none. Compression and float32 are not for sparse tensors.
// Errors of x wrap ErrSettings.
func ALSSparse(ctx context.Context, x *Sparse, rank int, set *Settings) (*Result, error) {
	if x == nil {
		return nil, fmt.Errorf("%w: no tensor", ErrSettings)
	}
	if err := x.Validate(); err != nil {
		return nil, err
	}
	if err := carries(x.Shape, len(x.Values), rank); err != nil {
		return nil, err
	}
	s, many, err := set.complete(x.Shape, rank, 500)
	if err != nil {
		return nil, err
	}
	if s.Weights != nil {
		return nil, fmt.Errorf("%w: weights belong to the sparse tensor, not to the settings", ErrSettings)
	}
	a := &als{set: s, many: many, shape: slices.Clone(x.Shape), rank: rank, share: 1}
	if x.Unknown {
		a.x, a.norm, err = newKnown(s.Workers, x, rank)
	} else {
		a.x, a.norm, err = newCoordinates(s.Workers, x, rank)
	}
	if err != nil {
		return nil, err
	}
	return a.fit(ctx, (*als).start, (*als).iterate)
}
