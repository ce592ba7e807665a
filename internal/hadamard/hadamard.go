// Package hadamard multiplies rows element by element: what a Khatri-Rao product,
// the second half of an MTTKRP, products of Gram matrices and the scaling of
// columns consist of. All of it waits for memory, so the products are vectors and
// nothing more.
package hadamard

import "slices"

//go:generate go run ./_gen

// float is an element type.
type float interface{ float32 | float64 }

// Multiply sets row i of dst to the product of rows i of x and y, for rows rows of
// n elements. Rows are ldd, ldx and ldy apart; 0 means the same row every time.
// Rows of dst must not overlap others of dst, x or y; the same row of x or y
// itself is allowed.
func Multiply[T float](rows, n int, dst []T, ldd int, x []T, ldx int, y []T, ldy int) {
	if rows <= 0 || n <= 0 {
		return
	}
	check(rows, n, dst, ldd)
	check(rows, n, x, ldx)
	check(rows, n, y, ldy)
	multiply(rows, n, dst, ldd, x, ldx, y, ldy)
}

// MultiplyAdd adds the product of rows i of x and y to row i of dst, in order: with
// ldd 0 it is the sum over the rows. See Multiply.
func MultiplyAdd[T float](rows, n int, dst []T, ldd int, x []T, ldx int, y []T, ldy int) {
	if rows <= 0 || n <= 0 {
		return
	}
	check(rows, n, dst, ldd)
	check(rows, n, x, ldx)
	check(rows, n, y, ldy)
	multiplyAdd(rows, n, dst, ldd, x, ldx, y, ldy)
}

// All writes the product of all matrices but those numbered in skip, each as long as
// out, to out: ones where none is left.
func All[T float](out []T, matrices [][]T, skip ...int) {
	n, count := len(out), 0
	var first []T
	for k, m := range matrices {
		switch {
		case slices.Contains(skip, k):
			continue
		case count == 0:
			first = m
		case count == 1:
			Multiply(1, n, out, 0, first, 0, m, 0)
		default:
			Multiply(1, n, out, 0, out, 0, m, 0)
		}
		count++
	}
	switch count {
	case 0:
		for i := range out {
			out[i] = 1
		}
	case 1:
		copy(out, first)
	}
}

// check panics where rows do not fit: nothing below looks again.
func check[T float](rows, n int, v []T, ld int) {
	if ld < 0 {
		panic("hadamard: rows a negative distance apart")
	}
	_ = v[(rows-1)*ld+n-1]
}

func multiplyGo[T float](rows, n int, dst []T, ldd int, x []T, ldx int, y []T, ldy int) {
	for i := range rows {
		d, a, b := dst[i*ldd:][:n], x[i*ldx:][:n], y[i*ldy:][:n]
		for c := range d {
			d[c] = a[c] * b[c]
		}
	}
}

func multiplyAddGo[T float](rows, n int, dst []T, ldd int, x []T, ldx int, y []T, ldy int) {
	for i := range rows {
		d, a, b := dst[i*ldd:][:n], x[i*ldx:][:n], y[i*ldy:][:n]
		for c := range d {
			d[c] += a[c] * b[c]
		}
	}
}
