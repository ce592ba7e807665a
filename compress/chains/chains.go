// Package chains makes decompositions chains of convolutions: of the Tucker, CP, Tucker
// with CP and matrix decompositions of a kernel's groups, the [conv.Chain] that stands in
// the kernel's place. The table of stages and costs is in package conv's comment.
//
// The decompositions are those of the tensors that [conv.Kernel.Group] gives
// ([FromTucker], [FromCP], [FromTKDCPD]), of the four axes apart ([FromSeparable]), or of
// the matrices of [conv.NewFold] ([FromMatrix]). Package compress makes them of whole
// networks.
package chains

import (
	"fmt"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/conv"
)

func checkParts(k *conv.Kernel, n int) error {
	if err := k.Validate(); err != nil {
		return err
	}
	if n != max(k.Groups, 1) {
		return fmt.Errorf("%w: %d decompositions for a kernel of %d groups", conv.ErrShape, n, max(k.Groups, 1))
	}
	return nil
}

func checkFactor(m *mat.Dense, rows, rank, group int, what string) error {
	if r, c := m.Dims(); r != rows || c != rank {
		return fmt.Errorf("%w: group %d: %s factor is %d×%d, want %d×%d", conv.ErrShape, group, what, r, c, rows, rank)
	}
	return nil
}

// stacked gathers the weights of a stage group after group, rounding them.
type stacked []float32

func (s *stacked) add(v []float64) {
	for _, x := range v {
		*s = append(*s, float32(x))
	}
}

func (s *stacked) addMatrix(m *mat.Dense) {
	r, _ := m.Dims()
	for i := range r {
		s.add(m.RawRowView(i))
	}
}

func (s *stacked) addTransposed(m *mat.Dense) {
	r, c := m.Dims()
	for j := range c {
		for i := range r {
			*s = append(*s, float32(m.At(i, j)))
		}
	}
}
