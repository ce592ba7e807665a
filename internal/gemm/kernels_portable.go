//go:build !(amd64 && gc && !noasm && !purego)

package gemm

func tile32(k int, a, b, c []float32, ldc int) { tileGo(16, k, a, b, c, ldc) }

func tile64(k int, a, b, c []float64, ldc int) { tileGo(8, k, a, b, c, ldc) }
