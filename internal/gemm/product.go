package gemm

import (
	"github.com/lowrank-go/lowrank/internal/parallel"
)

// multiply computes C = alpha·A·B + beta·C for an m×k operand A and a k×n
// operand B.
func multiply[T float](s *set[T], workers, m, n, k int, alpha T, a, b view[T], beta T, c []T, ldc int) {
	check("C", m, n, len(c), ldc)
	if m == 0 || n == 0 {
		return
	}
	if k == 0 || alpha == 0 {
		scale(m, n, beta, c, ldc)
		return
	}
	if k <= s.kernel.kc && m*n <= tiny && b.cs == 1 && k*b.rs <= tiny {
		s.kernel.sweep(m, n, k, s.kernel.height(m), alpha, a, b, false, false, beta, c, ldc)
		return
	}
	if slices := depthSlices(m, n, k); slices > 1 {
		multiplyDeep(s, workers, slices, m, n, k, alpha, a, b, beta, c, ldc)
		return
	}
	parts := partsFor(workers, 2*float64(m)*float64(n)*float64(k))
	if parts == 1 {
		s.block(m, n, k, alpha, a, b, beta, c, ldc)
		return
	}
	j := s.job()
	j.m, j.n, j.k, j.alpha, j.a, j.b, j.beta, j.c, j.ldc = m, n, k, alpha, a, b, beta, c, ldc
	j.rows, j.cols = grid(parts, m, n, s.kernel.mr, s.kernel.nr)
	j.across = ceil(n, j.cols)
	parallel.For(workers, ceil(m, j.rows)*j.across, j.tile)
	s.release(j)
}

// tiny is the size of a C and of a B that are not worth preparations.
const tiny = 2048

// minFlops is the least work that pays for a second goroutine.
const minFlops = 1 << 20

// partsFor is the number of parts into which work is cut for a number of
// workers: one a worker, and several where the parts stay large, so that a
// worker that is held up holds up the others less.
func partsFor(workers int, flops float64) int {
	if workers == 1 || flops < 2*minFlops {
		return 1
	}
	workers = min(parallel.Workers(workers), int(flops/minFlops))
	if workers > 1 && flops > 128*minFlops*float64(workers) {
		return 4 * workers
	}
	return workers
}

// grid cuts an m×n matrix into at least parts blocks of equal size, multiples of
// a tile, where it is large enough, and returns that size. Of the grids it takes
// the one whose blocks read least of A and B.
func grid(parts, m, n, mr, nr int) (rows, cols int) {
	best := -1
	down, across := ceil(m, mr), ceil(n, nr)
	for r := 1; r <= min(parts, down); r++ {
		x := min(ceil(parts, r), across)
		h, w := ceil(down, r)*mr, ceil(across, x)*nr
		// The slowest worker's share of C counts in full, what is read per
		// element of it a little.
		rounds := ceil(ceil(m, h)*ceil(n, w), parts)
		cost := rounds*h*w*8 + (h+w)*64
		if best < 0 || cost < best {
			best, rows, cols = cost, h, w
		}
	}
	return rows, cols
}

func ceil(a, b int) int { return (a + b - 1) / b }

// job is a product spread over workers in blocks of C, numbered along rows.
type job[T float] struct {
	set         *set[T]
	m, n, k     int
	alpha, beta T
	a, b        view[T]
	c           []T
	ldc         int

	rows, cols, across int // height and width of blocks and blocks in a row

	// doBlock and doBand as values, made once, for they cost an allocation.
	tile, band func(i int)
}

func (s *set[T]) job() *job[T] {
	if j, ok := s.jobs.Get().(*job[T]); ok {
		return j
	}
	j := &job[T]{set: s}
	j.tile, j.band = j.doBlock, j.doBand
	return j
}

// release keeps the job for reuse, without the caller's memory.
func (s *set[T]) release(j *job[T]) {
	j.a, j.b, j.c = view[T]{}, view[T]{}, nil
	s.jobs.Put(j)
}

func (j *job[T]) doBlock(i int) {
	r, q := i/j.across*j.rows, i%j.across*j.cols
	j.set.block(min(j.rows, j.m-r), min(j.cols, j.n-q), j.k, j.alpha, j.a.at(r, 0), j.b.at(0, q), j.beta, j.c[r*j.ldc+q:], j.ldc)
}

// block computes C = alpha·A·B + beta·C on the caller's goroutine.
func (s *set[T]) block(m, n, k int, alpha T, a, b view[T], beta T, c []T, ldc int) {
	kr := s.kernel
	packA, packB := kr.packing(m, n, k, b)
	kc, height := depth(k, kr.kc), kr.height(m)
	if !packA && !packB {
		for p := 0; p < k; p += kc {
			kr.sweep(m, n, min(kc, k-p), height, alpha, a.at(0, p), b.at(p, 0), false, false, beta, c, ldc)
			beta = 1
		}
		return
	}
	w := s.workspace()
	mc, nc := m, n
	if packA {
		mc = min(m, kr.mc)
		w.a = grow(w.a, ceil(mc, height)*height*kc)
	}
	if packB {
		nc = min(n, kr.nc)
		w.b = grow(w.b, ceil(nc, kr.nr)*kr.nr*kc)
	}
	for j := 0; j < n; j += nc {
		nj := min(nc, n-j)
		betaP := beta
		for p := 0; p < k; p += kc {
			kp := min(kc, k-p)
			bp := b.at(p, j)
			if packB {
				pack(kr, w.b, kr.nr, bp.t(), nj, kp)
				bp.data = w.b
			}
			for i := 0; i < m; i += mc {
				mi := min(mc, m-i)
				ap := a.at(i, p)
				if packA {
					pack(kr, w.a, height, ap, mi, kp)
					ap.data = w.a
				}
				kr.sweep(mi, nj, kp, height, alpha, ap, bp, packA, packB, betaP, c[i*ldc+j:], ldc)
			}
			betaP = 1
		}
	}
	s.workspaces.Put(w)
}

// packing decides whether to pack the operands. Packing A pays where several
// panels of B pass over it. B must be packed if its columns are not contiguous;
// else it pays where several panels of A pass over it, unless it fits in the
// first-level cache as it is, and where its rows lie so far apart that they
// crowd into a few sets of the cache.
func (kr *kernel[T]) packing(m, n, k int, b view[T]) (packA, packB bool) {
	packA = n > 2*kr.nr
	switch {
	case b.cs != 1:
		packB = true
	case k*b.rs <= kr.kc*kr.nr:
	case m > 2*kr.mr:
		packB = true
	default:
		packB = m > kr.mr/4 && k > 8 && n > kr.nr && b.rs > 512
	}
	return packA, packB
}

// depth is the number of columns of A taken at a time: k cut into parts of equal
// size, at most most.
func depth(k, most int) int {
	return (ceil(k, ceil(k, most)) + 7) &^ 7
}

// height is the number of rows of tiles: mr, or less where a few rows are to be
// shared out evenly. Eight are better off as twice four than as six and two.
func (kr *kernel[T]) height(m int) int {
	if m > 2*kr.mr {
		return kr.mr
	}
	return ceil(m, ceil(m, kr.mr))
}

// sweep computes C = alpha·A·B + beta·C tile by tile, of that height, where packed
// operands lie in panels. k is at most a block's depth.
func (kr *kernel[T]) sweep(m, n, k, height int, alpha T, a, b view[T], packedA, packedB bool, beta T, c []T, ldc int) {
	// Distances from a panel to the next.
	da, db := a.rs*height, kr.nr
	if packedA {
		da, a.rs, a.cs = k*height, 1, height
	}
	if packedB {
		db, b.rs = k*kr.nr, kr.nr
	}
	for j := 0; j < n; j += kr.nr {
		w := min(kr.nr, n-j)
		bj := b.data[j/kr.nr*db:]
		for i := 0; i < m; i += height {
			kr.tile(min(height, m-i), w, k, a.data[i/height*da:], a.rs, a.cs, bj, b.rs, c[i*ldc+j:], ldc, alpha, beta)
		}
	}
}

// scale computes C = beta·C.
func scale[T float](m, n int, beta T, c []T, ldc int) {
	for i := range m {
		row := c[i*ldc : i*ldc+n]
		switch beta {
		case 0:
			clear(row)
		case 1:
			return
		default:
			for j := range row {
				row[j] *= beta
			}
		}
	}
}
