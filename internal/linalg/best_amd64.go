//go:build amd64 && !noasm && !purego && gc

package linalg

import "golang.org/x/sys/cpu"

// candidates lists the kernels that this machine can run, best first.
func candidates() []kernels {
	list := []kernels{portable()}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		list = append([]kernels{assembly("avx2", 4, 4, avx2Symv, avx2Dots, avx2Axpys, avx2SolveT8, avx2Solve8)}, list...)
		if cpu.X86.HasAVX512F {
			list = append([]kernels{assembly("avx512", 8, 16, avx512Symv, avx512Dots, avx512Axpys, avx512SolveT8, avx512Solve8)}, list...)
		}
	}
	return list
}

// assembly checks that slices are long enough before it makes bare pointers of
// them.
func assembly(name string, lanes, columns int,
	symv func(vectors int, a *float64, lda int, x, y, sums *float64),
	dots func(eights int, a *float64, lda int, x, sums *float64),
	axpys func(eights int, factors, a *float64, lda int, y *float64),
	solveT, solve func(turns int, u *float64, ldu int, inverse, x *float64, ldx int),
) kernels {
	return kernels{
		name: name, lanes: lanes, columns: columns,
		symv: func(n int, a []float64, lda int, x, y, sums []float64) {
			_, _, _, _ = a[(lanes-1)*lda+n-1], x[n-1], y[n-1], sums[lanes-1]
			symv(n/lanes, &a[0], lda, &x[0], &y[0], &sums[0])
		},
		dots: func(n int, a []float64, lda int, x, sums []float64) {
			if n == 0 {
				clear(sums[:4])
				return
			}
			_, _, _ = a[3*lda+n-1], x[n-1], sums[3]
			dots(n/8, &a[0], lda, &x[0], &sums[0])
		},
		axpys: func(n int, factors, a []float64, lda int, y []float64) {
			if n == 0 {
				return
			}
			_, _, _ = factors[3], a[3*lda+n-1], y[n-1]
			axpys(n/8, &factors[0], &a[0], lda, &y[0])
		},
		solve: func(trans bool, n int, u []float64, ldu int, inverse, x []float64, ldx int) {
			if n == 0 {
				return
			}
			_, _, _ = u[7*ldu+7], inverse[7], x[7*ldx+n-1]
			if trans {
				solveT(n/columns, &u[0], ldu, &inverse[0], &x[0], ldx)
			} else {
				solve(n/columns, &u[0], ldu, &inverse[0], &x[0], ldx)
			}
		},
	}
}
