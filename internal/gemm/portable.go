package gemm

import "runtime"

// The portable kernels, which any machine can run. Their tile of 2×4 is what
// the compiler keeps in registers on amd64 and arm64.

func portable[T float]() *kernel[T] {
	return &kernel[T]{
		name: "go",
		mr:   2, nr: 4,
		mc: 64, kc: 256, nc: 1024,
		tile:      tileGo[T],
		transpose: transposeGo[T],
		stripsA:   stripsGo[T](2),
		stripsB:   stripsGo[T](4),
		peak:      peakGo[T],
		flops:     2 * 8,
	}
}

func tileGo[T float](m, n, k int, a []T, rsa, csa int, b []T, rsb int, c []T, ldc int, alpha, beta T) {
	if m == 2 && n == 4 {
		tileGo2x4(k, a, rsa, csa, b, rsb, c, ldc, alpha, beta)
		return
	}
	for i := range m {
		for j := range n {
			var sum T
			for p := range k {
				sum += a[i*rsa+p*csa] * b[p*rsb+j]
			}
			if cij := &c[i*ldc+j]; beta == 0 {
				*cij = alpha * sum
			} else {
				*cij = alpha*sum + beta**cij
			}
		}
	}
}

func tileGo2x4[T float](k int, a []T, rsa, csa int, b []T, rsb int, c []T, ldc int, alpha, beta T) {
	var s00, s01, s02, s03, s10, s11, s12, s13 T
	ia, ib := 0, 0
	for range k {
		b := b[ib : ib+4 : ib+4]
		a0, a1 := a[ia], a[ia+rsa]
		s00 += a0 * b[0]
		s01 += a0 * b[1]
		s02 += a0 * b[2]
		s03 += a0 * b[3]
		s10 += a1 * b[0]
		s11 += a1 * b[1]
		s12 += a1 * b[2]
		s13 += a1 * b[3]
		ia += csa
		ib += rsb
	}
	row := c[0:4:4]
	if beta == 0 {
		row[0], row[1], row[2], row[3] = alpha*s00, alpha*s01, alpha*s02, alpha*s03
		row = c[ldc : ldc+4 : ldc+4]
		row[0], row[1], row[2], row[3] = alpha*s10, alpha*s11, alpha*s12, alpha*s13
		return
	}
	row[0] = alpha*s00 + beta*row[0]
	row[1] = alpha*s01 + beta*row[1]
	row[2] = alpha*s02 + beta*row[2]
	row[3] = alpha*s03 + beta*row[3]
	row = c[ldc : ldc+4 : ldc+4]
	row[0] = alpha*s10 + beta*row[0]
	row[1] = alpha*s11 + beta*row[1]
	row[2] = alpha*s12 + beta*row[2]
	row[3] = alpha*s13 + beta*row[3]
}

func transposeGo[T float](k int, src []T, lds int, dst []T, ldd int) {
	r0, r1, r2, r3 := src[:k], src[lds:lds+k], src[2*lds:2*lds+k], src[3*lds:3*lds+k]
	at := 0
	for p := range k {
		d := dst[at : at+4 : at+4]
		d[0], d[1], d[2], d[3] = r0[p], r1[p], r2[p], r3[p]
		at += ldd
	}
}

func stripsGo[T float](width int) func(k int, src []T, lds int, dst []T, panels, step int) {
	return func(k int, src []T, lds int, dst []T, panels, step int) {
		for p := range k {
			row := src[p*lds:]
			for q := range panels {
				copy(dst[q*step+p*width:][:width], row[q*width:])
			}
		}
	}
}

func peakGo[T float](n int) {
	var s0, s1, s2, s3, s4, s5, s6, s7 T
	x, y := T(n), T(0.5)
	for range n {
		s0 += x * y
		s1 += x * y
		s2 += x * y
		s3 += x * y
		s4 += x * y
		s5 += x * y
		s6 += x * y
		s7 += x * y
		y = -y
	}
	// Used, so that the work is not dropped.
	runtime.KeepAlive(s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7)
}
