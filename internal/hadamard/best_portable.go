//go:build !amd64 || noasm || purego || !gc

package hadamard

func multiply[T float](rows, n int, dst []T, ldd int, x []T, ldx int, y []T, ldy int) {
	multiplyGo(rows, n, dst, ldd, x, ldx, y, ldy)
}

func multiplyAdd[T float](rows, n int, dst []T, ldd int, x []T, ldx int, y []T, ldy int) {
	multiplyAddGo(rows, n, dst, ldd, x, ldx, y, ldy)
}
