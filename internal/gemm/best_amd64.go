//go:build amd64 && !noasm && !purego && gc

package gemm

import "golang.org/x/sys/cpu"

func best32() *kernel[float32] { return candidates32()[0] }
func best64() *kernel[float64] { return candidates64()[0] }

// candidates32 lists the kernels that this machine can run, best first.
func candidates32() []*kernel[float32] {
	list := []*kernel[float32]{portable[float32]()}
	if hasAVX2() {
		list = append([]*kernel[float32]{{
			name: "avx2",
			mr:   6, nr: 16,
			mc: 192, kc: 256, nc: 1024,
			tile:      tileAVX2x32,
			transpose: transposeAVX32,
			stripsA:   strips(avx2StripsA32),
			stripsB:   strips(avx2StripsB32),
			peak:      avx2Peak32,
			flops:     2 * 12 * 8,
		}}, list...)
	}
	if hasAVX512() {
		list = append([]*kernel[float32]{{
			name: "avx512",
			mr:   12, nr: 32,
			mc: 192, kc: 256, nc: 1024,
			tile:      tileAVX512x32,
			transpose: transposeAVX32,
			stripsA:   strips(avx512StripsA32),
			stripsB:   strips(avx512StripsB32),
			peak:      avx512Peak32,
			flops:     2 * 12 * 16,
		}}, list...)
	}
	return list
}

// candidates64 lists the kernels that this machine can run, best first.
func candidates64() []*kernel[float64] {
	list := []*kernel[float64]{portable[float64]()}
	if hasAVX2() {
		list = append([]*kernel[float64]{{
			name: "avx2",
			mr:   6, nr: 8,
			mc: 192, kc: 256, nc: 1024,
			tile:      tileAVX2x64,
			transpose: transposeAVX64,
			stripsA:   strips(avx2StripsA64),
			stripsB:   strips(avx2StripsB64),
			peak:      avx2Peak64,
			flops:     2 * 12 * 4,
		}}, list...)
	}
	if hasAVX512() {
		list = append([]*kernel[float64]{{
			name: "avx512",
			mr:   12, nr: 16,
			mc: 192, kc: 256, nc: 1024,
			tile:      tileAVX512x64,
			transpose: transposeAVX64,
			stripsA:   strips(avx512StripsA64),
			stripsB:   strips(avx512StripsB64),
			peak:      avx512Peak64,
			flops:     2 * 12 * 8,
		}}, list...)
	}
	return list
}

func hasAVX2() bool { return cpu.X86.HasAVX2 && cpu.X86.HasFMA }

func hasAVX512() bool { return hasAVX2() && cpu.X86.HasAVX512F }

// The functions below choose the kernel of the tile's shape and hand it bare
// pointers. That the slices are long enough is the callers' duty.

func tileAVX2x32(m, n, k int, a []float32, rsa, csa int, b []float32, rsb int, c []float32, ldc int, alpha, beta float32) {
	avx2Tiles32[m-1][(n-1)/8](k, &a[0], rsa, csa, &b[0], rsb, &c[0], ldc, n, alpha, beta)
}

func tileAVX512x32(m, n, k int, a []float32, rsa, csa int, b []float32, rsb int, c []float32, ldc int, alpha, beta float32) {
	avx512Tiles32[m-1][(n-1)/16](k, &a[0], rsa, csa, &b[0], rsb, &c[0], ldc, n, alpha, beta)
}

func tileAVX2x64(m, n, k int, a []float64, rsa, csa int, b []float64, rsb int, c []float64, ldc int, alpha, beta float64) {
	avx2Tiles64[m-1][(n-1)/4](k, &a[0], rsa, csa, &b[0], rsb, &c[0], ldc, n, alpha, beta)
}

func tileAVX512x64(m, n, k int, a []float64, rsa, csa int, b []float64, rsb int, c []float64, ldc int, alpha, beta float64) {
	avx512Tiles64[m-1][(n-1)/8](k, &a[0], rsa, csa, &b[0], rsb, &c[0], ldc, n, alpha, beta)
}

func transposeAVX32(k int, src []float32, lds int, dst []float32, ldd int) {
	whole := k &^ 7
	if whole > 0 {
		avxTranspose32(whole/8, &src[0], lds, &dst[0], ldd)
	}
	if whole < k {
		transposeGo(k-whole, src[whole:], lds, dst[whole*ldd:], ldd)
	}
}

func transposeAVX64(k int, src []float64, lds int, dst []float64, ldd int) {
	whole := k &^ 3
	if whole > 0 {
		avxTranspose64(whole/4, &src[0], lds, &dst[0], ldd)
	}
	if whole < k {
		transposeGo(k-whole, src[whole:], lds, dst[whole*ldd:], ldd)
	}
}

// strips makes bare pointers of slices.
func strips[T float](f func(k int, src *T, lds int, dst *T, panels, step int)) func(k int, src []T, lds int, dst []T, panels, step int) {
	return func(k int, src []T, lds int, dst []T, panels, step int) {
		if k > 0 && panels > 0 {
			f(k, &src[0], lds, &dst[0], panels, step)
		}
	}
}
