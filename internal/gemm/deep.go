package gemm

import "github.com/lowrank-go/lowrank/internal/parallel"

// Products of few rows and columns over a long k have too few tiles of C for
// several workers. They are cut along k into slices whose number depends on the
// shape alone, and the slices' sums are added in order, so that the result does
// not depend on the number of workers either.

const (
	// A product is cut along k if C has at most deepArea elements and k passes
	// 2·deepSlice.
	deepArea  = 4096
	deepSlice = 4096
	deepMost  = 32
)

// depthSlices is the number of slices into which a product is cut along k.
func depthSlices(m, n, k int) int {
	if m > deepArea || n > deepArea || m*n > deepArea || k < 2*deepSlice {
		return 1
	}
	return min(k/deepSlice, deepMost)
}

// deepJob is a product cut along k.
type deepJob[T float] struct {
	set     *set[T]
	m, n, k int
	slice   int
	alpha   T
	a, b    view[T]
	sums    []T // slices × m × n
	run     func(i int)
}

func (j *deepJob[T]) doSlice(i int) {
	p, area := i*j.slice, j.m*j.n
	j.set.block(j.m, j.n, min(j.slice, j.k-p), j.alpha, j.a.at(0, p), j.b.at(p, 0), 0, j.sums[i*area:(i+1)*area], j.n)
}

func multiplyDeep[T float](s *set[T], workers, slices, m, n, k int, alpha T, a, b view[T], beta T, c []T, ldc int) {
	j, ok := s.deepJobs.Get().(*deepJob[T])
	if !ok {
		j = &deepJob[T]{set: s}
		j.run = j.doSlice
	}
	j.m, j.n, j.k, j.alpha, j.a, j.b = m, n, k, alpha, a, b
	j.slice = ceil(ceil(k, slices), 64) * 64
	slices = ceil(k, j.slice)
	j.sums = grow(j.sums, slices*m*n)
	if 2*float64(m)*float64(n)*float64(k) < 2*minFlops {
		workers = 1
	}
	parallel.For(workers, slices, j.run)

	total := j.sums[:m*n]
	for i := 1; i < slices; i++ {
		for q, v := range j.sums[i*m*n : (i+1)*m*n] {
			total[q] += v
		}
	}
	for i := range m {
		row := c[i*ldc : i*ldc+n]
		part := total[i*n : (i+1)*n]
		if beta == 0 {
			copy(row, part)
			continue
		}
		for q, v := range part {
			row[q] = v + beta*row[q]
		}
	}
	j.a, j.b = view[T]{}, view[T]{}
	s.deepJobs.Put(j)
}
