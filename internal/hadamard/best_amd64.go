//go:build amd64 && !noasm && !purego && gc

package hadamard

import "golang.org/x/sys/cpu"

var fast = cpu.X86.HasAVX2 && cpu.X86.HasFMA

func multiply[T float](rows, n int, dst []T, ldd int, x []T, ldx int, y []T, ldy int) {
	if fast {
		switch dst := any(dst).(type) {
		case []float32:
			multiply32(rows, n, &dst[0], ldd, &any(x).([]float32)[0], ldx, &any(y).([]float32)[0], ldy)
		case []float64:
			multiply64(rows, n, &dst[0], ldd, &any(x).([]float64)[0], ldx, &any(y).([]float64)[0], ldy)
		}
		return
	}
	multiplyGo(rows, n, dst, ldd, x, ldx, y, ldy)
}

func multiplyAdd[T float](rows, n int, dst []T, ldd int, x []T, ldx int, y []T, ldy int) {
	if fast {
		switch dst := any(dst).(type) {
		case []float32:
			multiplyAdd32(rows, n, &dst[0], ldd, &any(x).([]float32)[0], ldx, &any(y).([]float32)[0], ldy)
		case []float64:
			multiplyAdd64(rows, n, &dst[0], ldd, &any(x).([]float64)[0], ldx, &any(y).([]float64)[0], ldy)
		}
		return
	}
	multiplyAddGo(rows, n, dst, ldd, x, ldx, y, ldy)
}
