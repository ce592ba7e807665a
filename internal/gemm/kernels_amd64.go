//go:build amd64 && gc && !noasm && !purego

package gemm

import "golang.org/x/sys/cpu"

var accelerated = cpu.X86.HasAVX2 && cpu.X86.HasFMA

//go:noescape
func kernel6x16AVX2(k int, a, b, c *float32, ldc int)

//go:noescape
func kernel6x8AVX2(k int, a, b, c *float64, ldc int)

func tile32(k int, a, b, c []float32, ldc int) {
	if !accelerated {
		tileGo(16, k, a, b, c, ldc)
		return
	}
	_, _, _ = a[k*mr-1], b[k*16-1], c[(mr-1)*ldc+15]
	kernel6x16AVX2(k, &a[0], &b[0], &c[0], 4*ldc)
}

func tile64(k int, a, b, c []float64, ldc int) {
	if !accelerated {
		tileGo(8, k, a, b, c, ldc)
		return
	}
	_, _, _ = a[k*mr-1], b[k*8-1], c[(mr-1)*ldc+7]
	kernel6x8AVX2(k, &a[0], &b[0], &c[0], 8*ldc)
}
