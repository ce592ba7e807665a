// Package gemm is the dense matrix product, in float32 and float64, for
// row-major matrices:
//
//	C = α·op(A)·op(B) + β·C
//
// It follows the scheme of BLIS (Van Zee and van de Geijn 2015): blocks of A
// and B are copied into the order that the innermost loop reads them in, so
// that one micro-kernel, a tile of C held in registers, serves every transpose
// and every size. The micro-kernels are assembly for AVX2 and FMA where the
// processor has them, and Go elsewhere or with the build tags noasm or purego.
//
// Every element of C is one sum over k in a fixed order, whichever goroutine
// computes it: results do not depend on the number of workers. The error of an
// element is at most about k·ε·Σ|a||b|. NaN and infinities propagate, except
// that α = 0 leaves A and B unread and β = 0 leaves C unread, as in BLAS.
package gemm

import (
	"fmt"
	"sync"

	"github.com/lowrank-go/lowrank/internal/parallel"
)

//go:generate go run ./_gen

// Rows of a tile, of both types.
const mr = 6

// Block sizes: a block of A (mc×kc) stays in the second-level cache of a core,
// a panel of B (kc×nr) in the first, a block of B (kc×nc) in the third.
const (
	kc = 256
	mc = 32 * mr
	nc = 2048
)

// small is the number of multiply-adds below which copying does not pay, and
// parallelWork that below which another goroutine does not.
const (
	small        = 8 * 8 * 8
	parallelWork = 1 << 21
)

// operand is a matrix in either order: element (i, j) is at i·row + j·col.
type operand[T float32 | float64] struct {
	data     []T
	row, col int
}

func newOperand[T float32 | float64](name string, trans bool, rows, cols int, data []T, ld int) operand[T] {
	if trans {
		check(name, cols, rows, len(data), ld)
		return operand[T]{data, 1, ld}
	}
	check(name, rows, cols, len(data), ld)
	return operand[T]{data, ld, 1}
}

// check panics where a stored rows×cols matrix does not fit: nothing below
// looks again.
func check(name string, rows, cols, n, ld int) {
	if rows < 0 || cols < 0 || ld < cols {
		panic(fmt.Sprintf("gemm: %s is %d×%d with rows %d apart", name, rows, cols, ld))
	}
	if rows > 0 && cols > 0 && n < (rows-1)*ld+cols {
		panic(fmt.Sprintf("gemm: %s is %d×%d with rows %d apart and has %d elements", name, rows, cols, ld, n))
	}
}

// Float32 computes C = alpha·op(A)·op(B) + beta·C with op(A) m×k, op(B) k×n and
// C m×n; op transposes where transA or transB is set. lda, ldb and ldc are the
// distances between rows of the matrices as stored. C must not overlap A or B.
// workers bounds the goroutines, 0 meaning GOMAXPROCS. Sizes that do not fit
// panic.
func Float32(workers int, transA, transB bool, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
	product(workers, transA, transB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, 16, tile32)
}

// Float64 is Float32 in float64.
func Float64(workers int, transA, transB bool, m, n, k int, alpha float64, a []float64, lda int, b []float64, ldb int, beta float64, c []float64, ldc int) {
	product(workers, transA, transB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, 8, tile64)
}

func product[T float32 | float64](workers int, transA, transB bool, m, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int,
	nr int, tile func(k int, a, b, c []T, ldc int)) {
	oa := newOperand("A", transA, m, k, a, lda)
	ob := newOperand("B", transB, k, n, b, ldb)
	check("C", m, n, len(c), ldc)
	if m == 0 || n == 0 {
		return
	}
	scale(m, n, beta, c, ldc)
	if k == 0 || alpha == 0 {
		return
	}
	if m*n*k <= small {
		naive(m, n, k, alpha, oa, ob, c, ldc)
		return
	}
	p := &job[T]{a: oa, b: ob, k: k, alpha: alpha, c: c, ldc: ldc, nr: nr, tile: tile}
	workers = min(parallel.Workers(workers), 1+m*n*k/parallelWork)
	if workers == 1 {
		p.run(0, m, 0, n)
		return
	}
	// Whole tiles of rows, or of columns where there are more of them.
	if m >= n || m >= 4*mr*workers {
		split(workers, m, mr, func(lo, hi int) { p.run(lo, hi, 0, n) })
	} else {
		split(workers, n, nr, func(lo, hi int) { p.run(0, m, lo, hi) })
	}
}

// split divides [0,n) into at most parts ranges of whole units.
func split(parts, n, unit int, f func(lo, hi int)) {
	units := (n + unit - 1) / unit
	parts = min(parts, units)
	parallel.For(parts, parts, func(i int) {
		f(i*units/parts*unit, min((i+1)*units/parts*unit, n))
	})
}

// scale multiplies C by beta.
func scale[T float32 | float64](m, n int, beta T, c []T, ldc int) {
	if beta == 1 {
		return
	}
	for i := range m {
		row := c[i*ldc : i*ldc+n]
		if beta == 0 {
			clear(row)
			continue
		}
		for j := range row {
			row[j] *= beta
		}
	}
}

// naive adds alpha·A·B to C.
func naive[T float32 | float64](m, n, k int, alpha T, a, b operand[T], c []T, ldc int) {
	for i := range m {
		row := c[i*ldc : i*ldc+n]
		for p := range k {
			v := alpha * a.data[i*a.row+p*a.col]
			for j := range row {
				row[j] += v * b.data[p*b.row+j*b.col]
			}
		}
	}
}

// job is a product; run computes a part of C.
type job[T float32 | float64] struct {
	a, b  operand[T]
	k     int
	alpha T
	c     []T
	ldc   int
	nr    int
	tile  func(k int, a, b, c []T, ldc int)
}

// buffers are the packed blocks of one goroutine.
type buffers[T float32 | float64] struct {
	a, b []T
	edge [mr * 16]T
}

var (
	pool32 = sync.Pool{New: func() any { return new(buffers[float32]) }}
	pool64 = sync.Pool{New: func() any { return new(buffers[float64]) }}
)

func pool[T float32 | float64]() *sync.Pool {
	var zero T
	if _, ok := any(zero).(float32); ok {
		return &pool32
	}
	return &pool64
}

func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// run adds alpha·A·B to rows [i0,i1) and columns [j0,j1) of C.
func (p *job[T]) run(i0, i1, j0, j1 int) {
	buf := pool[T]().Get().(*buffers[T])
	defer pool[T]().Put(buf)
	// Blocks of k of nearly equal size, all but the last a multiple of 4.
	blocks := (p.k + kc - 1) / kc
	step := min(((p.k+blocks-1)/blocks+3)&^3, p.k)
	for jc := j0; jc < j1; jc += nc {
		cols := min(nc, j1-jc)
		panels := (cols + p.nr - 1) / p.nr
		for pc := 0; pc < p.k; pc += step {
			depth := min(step, p.k-pc)
			buf.b = grow(buf.b, panels*p.nr*depth)
			pack(buf.b, p.b.data, p.b.col, p.b.row, jc, pc, cols, depth, p.nr, 1)
			for ic := i0; ic < i1; ic += mc {
				rows := min(mc, i1-ic)
				strips := (rows + mr - 1) / mr
				buf.a = grow(buf.a, strips*mr*depth)
				pack(buf.a, p.a.data, p.a.row, p.a.col, ic, pc, rows, depth, mr, p.alpha)
				for jr := range panels {
					b := buf.b[jr*p.nr*depth:]
					width := min(p.nr, cols-jr*p.nr)
					for ir := range strips {
						a := buf.a[ir*mr*depth:]
						height := min(mr, rows-ir*mr)
						at := (ic+ir*mr)*p.ldc + jc + jr*p.nr
						if height == mr && width == p.nr {
							p.tile(depth, a, b, p.c[at:], p.ldc)
							continue
						}
						// A tile that sticks out is added through a buffer.
						edge := buf.edge[:mr*p.nr]
						clear(edge)
						p.tile(depth, a, b, edge, p.nr)
						for i := range height {
							row := p.c[at+i*p.ldc:][:width]
							for j := range row {
								row[j] += edge[i*p.nr+j]
							}
						}
					}
				}
			}
		}
	}
}

// pack copies count×depth elements, scaled, into strips of width elements of
// the first index for each of the second; the last strip is filled with zeros.
// Element (i, p) is at i·across + p·along, counted from (first, from).
func pack[T float32 | float64](dst, src []T, across, along, first, from, count, depth, width int, alpha T) {
	for s := 0; s < count; s += width {
		w := min(width, count-s)
		strip := dst[s*depth : (s+width)*depth]
		base := (first+s)*across + from*along
		if w < width {
			clear(strip)
		}
		if across == 1 {
			for p := range depth {
				row := src[base+p*along:][:w]
				out := strip[p*width:][:w]
				if alpha == 1 {
					copy(out, row)
					continue
				}
				for i, v := range row {
					out[i] = alpha * v
				}
			}
			continue
		}
		for i := range w {
			line := src[base+i*across:]
			if along == 1 {
				line = line[:depth]
				for p, v := range line {
					strip[p*width+i] = alpha * v
				}
				continue
			}
			for p := range depth {
				strip[p*width+i] = alpha * line[p*along]
			}
		}
	}
}

// tileGo is what the micro-kernels do: add the product of a k×6 and a k×nr
// packed strip to a 6×nr tile of C.
func tileGo[T float32 | float64](nr, k int, a, b, c []T, ldc int) {
	for i := range mr {
		row := c[i*ldc:][:nr]
		var acc [16]T
		for p := range k {
			v := a[p*mr+i]
			line := b[p*nr:][:nr]
			for j, x := range line {
				acc[j] += v * x
			}
		}
		for j := range row {
			row[j] += acc[j]
		}
	}
}

// gramBlock is the size of the square blocks that a Gram matrix is computed in.
const gramBlock = 96

// Gram32 computes C = alpha·A·Aᵀ + beta·C for A n×k, or alpha·Aᵀ·A + beta·C for
// A k×n where trans is set. Both triangles are written, the blocks above the
// diagonal as copies of those below. See Float32.
func Gram32(workers int, trans bool, n, k int, alpha float32, a []float32, lda int, beta float32, c []float32, ldc int) {
	gram(workers, trans, n, k, alpha, a, lda, beta, c, ldc, Float32)
}

// Gram64 is Gram32 in float64.
func Gram64(workers int, trans bool, n, k int, alpha float64, a []float64, lda int, beta float64, c []float64, ldc int) {
	gram(workers, trans, n, k, alpha, a, lda, beta, c, ldc, Float64)
}

func gram[T float32 | float64](workers int, trans bool, n, k int, alpha T, a []T, lda int, beta T, c []T, ldc int,
	mul func(workers int, transA, transB bool, m, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int)) {
	newOperand("A", trans, n, k, a, lda)
	check("C", n, n, len(c), ldc)
	blocks := (n + gramBlock - 1) / gramBlock
	if n*n*k < parallelWork {
		workers = 1
	}
	parallel.For(workers, blocks*(blocks+1)/2, func(t int) {
		// Pair t of the lower triangle, row by row.
		bi := 0
		for (bi+1)*(bi+2)/2 <= t {
			bi++
		}
		bj := t - bi*(bi+1)/2
		i, j := bi*gramBlock, bj*gramBlock
		rows, cols := min(gramBlock, n-i), min(gramBlock, n-j)
		ai, aj := a[min(i*lda, len(a)):], a[min(j*lda, len(a)):]
		if trans {
			ai, aj = a[min(i, len(a)):], a[min(j, len(a)):]
		}
		mul(1, trans, !trans, rows, cols, k, alpha, ai, lda, aj, lda, beta, c[i*ldc+j:], ldc)
		if bi == bj {
			return
		}
		for r := range rows {
			for q := range cols {
				c[(j+q)*ldc+i+r] = c[(i+r)*ldc+j+q]
			}
		}
	})
	// Within a diagonal block, products commute but their order of rounding
	// does not: make it symmetric to the bit.
	for i := range n {
		for j := range i {
			c[j*ldc+i] = c[i*ldc+j]
		}
	}
}
