package graph

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lowrank-go/lowrank/conv"
)

// Shape is the shape of one element of a batch, in PyTorch's and ONNX's order: {C, H, W}
// for a map, {C} for a vector, {C, L} for a sequence, any other list for a tensor.
//
// In memory the channels of maps and of sequences are innermost: {C, H, W} is a
// [conv.Map] of H×W×C and {C, L} one of 1×L×C. {C} is one of 1×1×C. Tensors of more
// dimensions lie in their own order, row-major, as one of 1×1×(their length).
type Shape []int

// Len is the number of values of one element.
func (s Shape) Len() int {
	n := 1
	for _, d := range s {
		n *= d
	}
	return n
}

// String is the shape as it is printed: 64×56×56.
func (s Shape) String() string {
	if len(s) == 0 {
		return "scalar"
	}
	text := make([]string, len(s))
	for i, d := range s {
		text[i] = fmt.Sprint(d)
	}
	return strings.Join(text, "×")
}

// Equal reports whether two shapes are the same.
func (s Shape) Equal(o Shape) bool { return slices.Equal(s, o) }

// Layout is the rows, columns and channels of the [conv.Map] that holds such tensors.
func (s Shape) Layout() (h, w, c int) {
	switch len(s) {
	case 1:
		return 1, 1, s[0]
	case 2:
		return 1, s[1], s[0]
	case 3:
		return s[1], s[2], s[0]
	}
	return 1, 1, s.Len()
}

// Strides are the distances in memory between neighbours along each dimension.
func (s Shape) Strides() []int {
	switch len(s) {
	case 2:
		return []int{1, s[0]}
	case 3:
		return []int{1, s[2] * s[0], s[0]}
	}
	return rowMajor(s)
}

// rowMajor are the strides of a tensor whose last dimension is innermost.
func rowMajor(s []int) []int {
	strides := make([]int, len(s))
	n := 1
	for i := len(s) - 1; i >= 0; i-- {
		strides[i] = n
		n *= s[i]
	}
	return strides
}

// resize gives m the shape of a batch of n tensors of s.
func (s Shape) resize(m *conv.Map, n int) *conv.Map {
	h, w, c := s.Layout()
	return m.Resize(n, h, w, c)
}

// holds reports a map that does not hold tensors of s.
func (s Shape) holds(m *conv.Map) error {
	if h, w, c := s.Layout(); m.H != h || m.W != w || m.C != c {
		return fmt.Errorf("%w: a map of %d×%d and %d channels for %v", ErrShape, m.H, m.W, m.C, s)
	}
	return nil
}

// mostValues bounds the values of one tensor: what a file declares must not be able to
// ask for more memory than any network needs.
const mostValues = 1 << 28

// check reports a shape that no value can have.
func (s Shape) check() error {
	n := 1
	for _, d := range s {
		if d < 1 {
			return fmt.Errorf("%w: %v has a dimension below 1", ErrShape, s)
		}
		if n > mostValues/d {
			return fmt.Errorf("%w: %v has more than %d values", ErrShape, s, mostValues)
		}
		n *= d
	}
	return nil
}
