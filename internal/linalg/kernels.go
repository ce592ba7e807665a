package linalg

//go:generate go run ./_gen

// kernels are the innermost loops. Rows are lda apart; lengths are multiples of
// eight, and so are the offsets of what they are called on, within rows that are
// padded with zeros.
type kernels struct {
	name string

	// lanes is the height of symv's blocks.
	lanes int

	// symv takes rows i to i+lanes-1 of a symmetric matrix from column i on, n
	// columns, and the vectors x and y from element i on. The diagonal block is
	// there as a whole. It writes the rows' products with x to sums, and adds the
	// products of the transposed rows behind the diagonal block with x to y.
	symv func(n int, a []float64, lda int, x, y, sums []float64)

	// dots writes the products of four rows of n elements with x to sums.
	dots func(n int, a []float64, lda int, x, sums []float64)

	// axpys adds four rows of n elements times their factors to y.
	axpys func(n int, factors, a []float64, lda int, y []float64)

	// columns is the number of columns that solve takes at a time.
	columns int

	// solve replaces the 8×n matrix x, n a multiple of columns, by the solution
	// of U·Y = X or, with trans, Uᵀ·Y = X, for an upper triangular U, 8×8, the
	// reciprocals of whose diagonal are given.
	solve func(trans bool, n int, u []float64, ldu int, inverse, x []float64, ldx int)
}

// kern is the set in use, chosen at start-up.
var kern = candidates()[0]

func portable() kernels {
	return kernels{
		name: "go", lanes: 4, columns: 1,
		symv: func(n int, a []float64, lda int, x, y, sums []float64) {
			var s0, s1, s2, s3 float64
			r0, r1, r2, r3 := a[:n], a[lda:][:n], a[2*lda:][:n], a[3*lda:][:n]
			x, y = x[:n], y[:n]
			x0, x1, x2, x3 := x[0], x[1], x[2], x[3]
			for j, v := range x {
				s0 += r0[j] * v
				s1 += r1[j] * v
				s2 += r2[j] * v
				s3 += r3[j] * v
				if j >= 4 {
					y[j] += x0*r0[j] + x1*r1[j] + x2*r2[j] + x3*r3[j]
				}
			}
			sums[0], sums[1], sums[2], sums[3] = s0, s1, s2, s3
		},
		dots: func(n int, a []float64, lda int, x, sums []float64) {
			var s0, s1, s2, s3 float64
			r0, r1, r2, r3 := a[:n], a[lda:][:n], a[2*lda:][:n], a[3*lda:][:n]
			for j, v := range x[:n] {
				s0 += r0[j] * v
				s1 += r1[j] * v
				s2 += r2[j] * v
				s3 += r3[j] * v
			}
			sums[0], sums[1], sums[2], sums[3] = s0, s1, s2, s3
		},
		axpys: func(n int, factors, a []float64, lda int, y []float64) {
			f0, f1, f2, f3 := factors[0], factors[1], factors[2], factors[3]
			r0, r1, r2, r3 := a[:n], a[lda:][:n], a[2*lda:][:n], a[3*lda:][:n]
			y = y[:n]
			for j := range y {
				y[j] += f0*r0[j] + f1*r1[j] + f2*r2[j] + f3*r3[j]
			}
		},
		solve: func(trans bool, n int, u []float64, ldu int, inverse, x []float64, ldx int) {
			for step := range 8 {
				i := step
				if !trans {
					i = 7 - step
				}
				xi := x[i*ldx:][:n]
				for c := range xi {
					xi[c] *= inverse[i]
				}
				for t := step + 1; t < 8; t++ {
					j, f := t, 0.0
					if trans {
						f = u[i*ldu+j]
					} else {
						j = 7 - t
						f = u[j*ldu+i]
					}
					for c, v := range x[j*ldx:][:n] {
						x[j*ldx+c] = v - f*xi[c]
					}
				}
			}
		},
	}
}

// allDots writes the products of rows rows with x to sums, whose length is rows
// rounded up to a multiple of four; so many rows there must be.
func allDots(rows, n int, a []float64, lda int, x, sums []float64) {
	for r := 0; r < rows; r += 4 {
		kern.dots(n, a[r*lda:], lda, x, sums[r:r+4])
	}
}

// allAxpys adds rows times factors to y. Rows are rounded up to a multiple of
// four; further factors must be there and 0.
func allAxpys(rows, n int, factors, a []float64, lda int, y []float64) {
	for r := 0; r < rows; r += 4 {
		kern.axpys(n, factors[r:r+4], a[r*lda:], lda, y)
	}
}

// up8 rounds up, down8 down, to a multiple of eight.
func up8(n int) int   { return (n + 7) &^ 7 }
func down8(n int) int { return n &^ 7 }
