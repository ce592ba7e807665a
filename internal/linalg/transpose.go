package linalg

import "github.com/lowrank-go/lowrank/internal/parallel"

// Transpose writes the transpose of the m×n matrix a to b.
func Transpose(workers, m, n int, a []float64, lda int, b []float64, ldb int) {
	const tile = 16
	if m*n < 1<<16 {
		workers = 1
	}
	parallel.For(workers, (n+tile-1)/tile, func(block int) {
		j0 := block * tile
		j1 := min(j0+tile, n)
		for i0 := 0; i0 < m; i0 += tile {
			i1 := min(i0+tile, m)
			for j := j0; j < j1; j++ {
				dst := b[j*ldb+i0 : j*ldb+i1]
				at := i0*lda + j
				for i := range dst {
					dst[i] = a[at]
					at += lda
				}
			}
		}
	})
}
