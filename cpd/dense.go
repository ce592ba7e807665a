package cpd

import (
	"github.com/lowrank-go/lowrank/internal/tensorops"
)

// dense is a tensor in memory, which it does not change.
type dense struct {
	workers, rank int
	shape         []int
	data          []float64
	scale         float64 // data·scale has unit norm
	tree          *tensorops.Tree[float64]
	single        *single // multiplies in place of tree, where not nil
}

// single is a copy of a tensor of unit norm, and what it is multiplied with, in
// float32.
type single struct {
	data []float32
	u    [][]float32
	tree *tensorops.Tree[float32]
	m    []float64
}

func newDense(workers int, shape []int, data []float64, norm float64, rank int) *dense {
	d := &dense{workers: workers, rank: rank, shape: shape}
	d.data, d.scale = tensorops.Unit(data, norm)
	d.tree = tensorops.NewTree[float64](workers, shape, rank)
	return d
}

// narrow makes products ones in float32; widen ends that.
func (d *dense) narrow() {
	s := &single{data: make([]float32, len(d.data)), tree: tensorops.NewTree[float32](d.workers, d.shape, d.rank)}
	for i, v := range d.data {
		s.data[i] = float32(v * d.scale)
	}
	longest := 0
	for _, size := range d.shape {
		s.u = append(s.u, make([]float32, size*d.rank))
		longest = max(longest, size)
	}
	s.m = make([]float64, longest*d.rank)
	d.single = s
}

func (d *dense) widen() { d.single = nil }

func (d *dense) each(u [][]float64, f func(n int, m []float64) error) error {
	if s := d.single; s != nil {
		for n := range u {
			narrow(s.u[n], u[n])
		}
		return s.tree.Each(s.data, s.u, func(n int, m []float32) error {
			wide := s.m[:len(m)]
			for i, v := range m {
				wide[i] = float64(v)
			}
			err := f(n, wide)
			narrow(s.u[n], u[n])
			return err
		})
	}
	return d.tree.Each(d.data, u, func(n int, m []float64) error {
		if d.scale != 1 {
			for i := range m {
				m[i] *= d.scale
			}
		}
		return f(n, m)
	})
}

func narrow(to []float32, from []float64) {
	for i, v := range from {
		to[i] = float32(v)
	}
}

// distance takes the factors along: the first one's units change.
func (d *dense) distance(u [][]float64) float64 {
	for i := range u[0] {
		u[0][i] /= d.scale
	}
	return d.scale * tensorops.KruskalDistance(d.workers, d.shape, d.data, u, d.rank)
}

func (d *dense) gram(n int) []float64 {
	g := tensorops.Gram(d.workers, d.shape, d.data, n)
	for i := range g {
		g[i] *= d.scale * d.scale
	}
	return g
}
