package tensorops

import (
	"math"

	"github.com/lowrank-go/lowrank/internal/gemm"
	"github.com/lowrank-go/lowrank/internal/parallel"
)

// KhatriRao is the column-wise Kronecker product of factors of sizes[i]×r
// (row-major), the last index fastest: (product of sizes)×r. Of no factors it
// is one row of ones; of one it is that factor itself, not a copy.
func KhatriRao(sizes []int, factors [][]float64, r int) []float64 {
	if len(factors) == 0 {
		out := make([]float64, r)
		for i := range out {
			out[i] = 1
		}
		return out
	}
	out := factors[0][:sizes[0]*r]
	for f := 1; f < len(factors); f++ {
		u, rows := factors[f], len(out)/r
		next := make([]float64, rows*sizes[f]*r)
		for a := range rows {
			for b := range sizes[f] {
				dst, x, y := next[(a*sizes[f]+b)*r:][:r], out[a*r:][:r], u[b*r:][:r]
				for c := range dst {
					dst[c] = x[c] * y[c]
				}
			}
		}
		out = next
	}
	return out
}

// Kruskal multiplies out Σ_c Π_n u_n[i_n,c], for factors of I_n×r, row-major.
func Kruskal(workers int, shape []int, factors [][]float64, r int) []float64 {
	h := Split(shape)
	left, right := Product(shape[:h]), Product(shape[h:])
	out := make([]float64, left*right)
	gemm.Float64(workers, false, true, left, right, r, 1, KhatriRao(shape[:h], factors[:h], r), r,
		KhatriRao(shape[h:], factors[h:], r), r, 0, out, right)
	return out
}

// KruskalDistance is ‖X − Σ_c Π_n u_n[i_n,c]‖ for X of the shape, without
// multiplying out more than a block at a time. Squares must not overflow.
func KruskalDistance(workers int, shape []int, data []float64, factors [][]float64, r int) float64 {
	const values = 1 << 17 // of a block
	h := Split(shape)
	left, right := Product(shape[:h]), Product(shape[h:])
	a, b := KhatriRao(shape[:h], factors[:h], r), KhatriRao(shape[h:], factors[h:], r)
	// Blocks of rows, and of columns where a row alone is larger: their number
	// depends on the shape alone, and so does the order of the sum.
	columns := min(right, values)
	rows := max(values/columns, 1)
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

// PartialMTTKRP contracts one half of the modes with its factors: for the left
// half kept it is X·KR(right), (product of shape[:h])×r; for the right half
// kept Xᵀ·KR(left), (product of shape[h:])×r.
func PartialMTTKRP(workers int, shape []int, data []float64, h int, keepLeft bool, factors [][]float64, r int) []float64 {
	left, right := Product(shape[:h]), Product(shape[h:])
	if keepLeft {
		out := make([]float64, left*r)
		gemm.Float64(workers, false, false, left, r, right, 1, data, right, KhatriRao(shape[h:], factors[h:], r), r, 0, out, r)
		return out
	}
	out := make([]float64, right*r)
	gemm.Float64(workers, true, false, right, r, left, 1, data, right, KhatriRao(shape[:h], factors[:h], r), r, 0, out, r)
	return out
}

// FinishMTTKRP contracts a partial MTTKRP over sizes (a half's modes) with the
// factors of all of them but n: sizes[n]×r.
func FinishMTTKRP(sizes []int, partial []float64, factors [][]float64, n, r int) []float64 {
	if len(sizes) == 1 {
		return partial
	}
	before := KhatriRao(sizes[:n], factors[:n], r)
	after := KhatriRao(sizes[n+1:], factors[n+1:], r)
	left, right := len(before)/r, len(after)/r
	out := make([]float64, sizes[n]*r)
	for l := range left {
		bl := before[l*r:][:r]
		for i := range sizes[n] {
			dst := out[i*r:][:r]
			rows := partial[(l*sizes[n]+i)*right*r:][:right*r]
			switch {
			case n == len(sizes)-1: // nothing comes after
				multiplyAdd(dst, rows, bl)
			case n == 0: // nothing comes before
				for k := range right {
					multiplyAdd(dst, rows[k*r:][:r], after[k*r:][:r])
				}
			default:
				for k := range right {
					p, ak := rows[k*r:][:r], after[k*r:][:r]
					for c := range dst {
						dst[c] += p[c] * bl[c] * ak[c]
					}
				}
			}
		}
	}
	return out
}

// multiplyAdd adds x∘y to dst.
func multiplyAdd(dst, x, y []float64) {
	x, y = x[:len(dst)], y[:len(dst)]
	for c := range dst {
		dst[c] += x[c] * y[c]
	}
}

// MTTKRP is the matricised tensor times Khatri-Rao product of mode n,
// I_n×r: X_(n) times the Khatri-Rao product of all factors but the n-th, which
// is never formed as a whole.
func MTTKRP(workers int, shape []int, data []float64, factors [][]float64, n, r int) []float64 {
	h := Split(shape)
	partial := PartialMTTKRP(workers, shape, data, h, n < h, factors, r)
	if n < h {
		return FinishMTTKRP(shape[:h], partial, factors[:h], n, r)
	}
	return FinishMTTKRP(shape[h:], partial, factors[h:], n-h, r)
}
