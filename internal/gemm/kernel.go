package gemm

import (
	"fmt"
	"sync"
)

// float is an element type.
type float interface{ float32 | float64 }

// kernel is the innermost code for one element type and instruction set, with
// the blocking made for it.
type kernel[T float] struct {
	name string

	// A tile of C has at most mr rows and nr columns.
	mr, nr int

	// A block of A has at most mc rows and kc columns and is meant for the
	// second-level cache; a panel of B of kc rows and nr columns is meant for
	// the first; a block of B has at most kc rows and nc columns.
	mc, kc, nc int

	// tile computes C = alpha·A·B + beta·C for m ≤ mr, n ≤ nr and k ≥ 1.
	// Element (i, p) of A is a[i·rsa + p·csa], element (p, j) of B is
	// b[p·rsb + j] and element (i, j) of C is c[i·ldc + j]. C is not read if
	// beta is 0.
	tile func(m, n, k int, a []T, rsa, csa int, b []T, rsb int, c []T, ldc int, alpha, beta T)

	// transpose copies the 4×k matrix src, of row stride lds, to the k×4
	// matrix dst, of row stride ldd.
	transpose func(k int, src []T, lds int, dst []T, ldd int)

	// stripsA copies k rows of panels·mr elements, lds apart, into panels of mr
	// columns, step apart: element (p, q·mr+i) goes to dst[q·step + p·mr + i].
	// stripsB does so with nr.
	stripsA, stripsB func(k int, src []T, lds int, dst []T, panels, step int)

	// peak runs n rounds of flops floating-point operations each, none of
	// which waits for another.
	peak  func(n int)
	flops int
}

// set is the kernel in use for an element type with the memory that its
// products share.
type set[T float] struct {
	kernel     *kernel[T]
	workspaces sync.Pool // of *workspace[T]
	jobs       sync.Pool // of *job[T]
	deepJobs   sync.Pool // of *deepJob[T]
}

// The kernels in use, chosen once at start-up.
var (
	set32 = set[float32]{kernel: best32()}
	set64 = set[float64]{kernel: best64()}
)

// workspace is the memory of one running product: a packed block of A and one
// of B.
type workspace[T float] struct{ a, b []T }

func (s *set[T]) workspace() *workspace[T] {
	if w, ok := s.workspaces.Get().(*workspace[T]); ok {
		return w
	}
	return new(workspace[T])
}

// grow returns buf with room for n elements, whose values do not matter. Sizes
// are rounded up so that a workspace settles after a few products.
func grow[T float](buf []T, n int) []T {
	if cap(buf) < n {
		const step = 4096
		buf = make([]T, (n+step-1)/step*step)
	}
	return buf[:n]
}

// view is an operand: element (i, j) is data[i·rs + j·cs]. One of the strides
// is 1.
type view[T float] struct {
	data   []T
	rs, cs int
}

// operand is the rows×cols operand of a matrix stored with rows ld apart, itself
// or transposed. It panics where the matrix does not fit: nothing below looks
// again.
func operand[T float](name string, rows, cols int, data []T, ld int, trans bool) view[T] {
	if trans {
		check(name, cols, rows, len(data), ld)
		return view[T]{data, 1, ld}
	}
	check(name, rows, cols, len(data), ld)
	return view[T]{data, ld, 1}
}

// check panics unless a rows×cols matrix with rows ld apart fits in n elements.
func check(name string, rows, cols, n, ld int) {
	if rows < 0 || cols < 0 || ld < cols {
		panic(fmt.Sprintf("gemm: %s is %d×%d with rows %d apart", name, rows, cols, ld))
	}
	if rows > 0 && cols > 0 && (n < cols || (n-cols)/max(ld, 1) < rows-1) {
		panic(fmt.Sprintf("gemm: %s is %d×%d with rows %d apart, in %d elements", name, rows, cols, ld, n))
	}
}

// at is the operand without its first i rows and j columns.
func (x view[T]) at(i, j int) view[T] {
	x.data = x.data[min(i*x.rs+j*x.cs, len(x.data)):]
	return x
}
