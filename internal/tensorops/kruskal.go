package tensorops

import (
	"math"

	"github.com/lowrank-go/lowrank/internal/gemm"
	"github.com/lowrank-go/lowrank/internal/parallel"
)

// Kruskal multiplies out Σ_c Π_n u_n[i_n,c], for factors of I_n×r, row-major.
func Kruskal(workers int, shape []int, factors [][]float64, r int) []float64 {
	h := Split(shape)
	left, right := Product(shape[:h]), Product(shape[h:])
	out := make([]float64, left*right)
	gemm.Float64(workers, false, true, left, right, r, 1, KhatriRao(workers, nil, shape[:h], factors[:h], r), r,
		KhatriRao(workers, nil, shape[h:], factors[h:], r), r, 0, out, right)
	return out
}

// KruskalDistance is ‖X − Σ_c Π_n u_n[i_n,c]‖ for X of the shape, without
// multiplying out more than a block at a time. Squares must not overflow.
func KruskalDistance(workers int, shape []int, data []float64, factors [][]float64, r int) float64 {
	const high, wide = 256, 512 // of a block
	h := Split(shape)
	left, right := Product(shape[:h]), Product(shape[h:])
	a, b := KhatriRao(workers, nil, shape[:h], factors[:h], r), KhatriRao(workers, nil, shape[h:], factors[h:], r)
	// The blocks depend on the shape alone, and so does the order of the sum.
	rows, columns := min(left, high), min(right, wide)
	if rows < high {
		columns = min(right, high*wide/rows)
	} else if columns < wide {
		rows = min(left, high*wide/columns)
	}
	down, across := (left+rows-1)/rows, (right+columns-1)/columns
	sums := make([]float64, down*across)
	parallel.For(workers, len(sums), func(i int) {
		i0, j0 := i/across*rows, i%across*columns
		m, n := min(rows, left-i0), min(columns, right-j0)
		block := make([]float64, m*n)
		gemm.Float64(1, false, true, m, n, r, 1, a[i0*r:], r, b[j0*r:], r, 0, block, n)
		for k := range m {
			row := block[k*n : (k+1)*n]
			var sum float64
			for j, v := range data[(i0+k)*right+j0:][:n] {
				d := v - row[j]
				sum += d * d
			}
			sums[i] += sum
		}
	})
	var sum float64
	for _, v := range sums {
		sum += v
	}
	return math.Sqrt(sum)
}

// Split is where a dimension tree divides the modes: into [0,h) and [h,N), both
// non-empty for orders above 1, with the least sum of the two products, which
// is what the partial MTTKRPs and the Khatri-Rao products of the halves take.
func Split(shape []int) int {
	best, least := 0, 0
	for h := 1; h < len(shape); h++ {
		if s := Product(shape[:h]) + Product(shape[h:]); best == 0 || s < least {
			best, least = h, s
		}
	}
	if best == 0 {
		return len(shape)
	}
	return best
}
