package linalg

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// onEveryKernel runs a test with each set of kernels that this machine can run.
func onEveryKernel(t *testing.T, f func(t *testing.T)) {
	defer func(k kernels) { kern = k }(kern)
	for _, kern = range candidates() {
		t.Run(kern.name, f)
	}
}

func normal(rng *rand.Rand, n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = rng.NormFloat64()
	}
	return v
}

// product is op(A)·B by the definition; A is m×k, or k×m with trans.
func product(trans bool, m, n, k int, a []float64, lda int, b []float64, ldb int) []float64 {
	c := make([]float64, m*n)
	for i := range m {
		for p := range k {
			v := 0.0
			if trans {
				v = a[p*lda+i]
			} else {
				v = a[i*lda+p]
			}
			for j := range n {
				c[i*n+j] += v * b[p*ldb+j]
			}
		}
	}
	return c
}

func largest(v []float64) float64 {
	m := 0.0
	for _, x := range v {
		if x = math.Abs(x); x > m || x != x {
			m = x
		}
	}
	return m
}

// definite is a symmetric positive definite matrix whose lower triangle is NaN,
// and the whole matrix.
func definite(rng *rand.Rand, n, lda int) (a, full []float64) {
	b := normal(rng, n*n)
	full = product(true, n, n, n, b, n, b, n)
	a = slices.Repeat([]float64{math.NaN()}, n*lda)
	for i := range n {
		full[i*n+i] += 0.1
		copy(a[i*lda+i:i*lda+n], full[i*n+i:(i+1)*n])
	}
	return a, full
}

// upper is U with zeros below the diagonal.
func upper(n int, a []float64, lda int) []float64 {
	u := make([]float64, n*n)
	for i := range n {
		copy(u[i*n+i:(i+1)*n], a[i*lda+i:])
	}
	return u
}

func TestCholeskyFactorises(t *testing.T) {
	onEveryKernel(t, func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			n := rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(41, 200)).Draw(t, "n")
			lda := n + rapid.IntRange(0, 3).Draw(t, "gap")
			rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
			a, full := definite(rng, n, lda)
			if err := Cholesky(rapid.IntRange(1, 3).Draw(t, "workers"), n, a, lda); err != nil {
				t.Fatal(err)
			}
			for i := range n {
				for _, v := range a[i*lda+n : (i+1)*lda] {
					if !math.IsNaN(v) {
						t.Fatal("the gap between rows was written")
					}
				}
			}
			u := upper(n, a, lda)
			got := product(true, n, n, n, u, n, u, n)
			for i, v := range got {
				got[i] = v - full[i]
			}
			if e := largest(got); !(e <= 4e-16*float64(n+4)*largest(full)) {
				t.Fatalf("‖UᵀU − A‖ is %g, ‖A‖ is %g", e, largest(full))
			}
			m := rapid.IntRange(0, 40).Draw(t, "m")
			ldx := m + rapid.IntRange(0, 3).Draw(t, "gap of x")
			y := normal(rng, n*ldx)
			for _, trans := range []bool{false, true} {
				x := slices.Clone(y)
				SolveUpper(1, trans, n, m, a, lda, x, ldx)
				back := product(trans, n, m, n, u, n, x, max(ldx, 1))
				for i := range n {
					for j := range ldx {
						if j >= m {
							if x[i*ldx+j] != y[i*ldx+j] {
								t.Fatal("the gap between rows of x was written")
							}
							continue
						}
						// Row-wise backward error: |U|·|x| bounds it.
						var bound float64
						for p := range n {
							f := u[i*n+p]
							if trans {
								f = u[p*n+i]
							}
							bound += math.Abs(f * x[p*ldx+j])
						}
						if d := math.Abs(back[i*m+j] - y[i*ldx+j]); !(d <= 4e-16*float64(n+4)*bound) {
							t.Fatalf("trans %v: residual %g at %d,%d, bound %g", trans, d, i, j, bound)
						}
					}
				}
			}
		})
	})
}

func TestSolveCholeskySolves(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	const n, m = 150, 530
	a, full := definite(rng, n, n)
	want := normal(rng, n*m)
	x := product(false, n, m, n, full, n, want, m)
	if err := Cholesky(0, n, a, n); err != nil {
		t.Fatal(err)
	}
	one := slices.Clone(x)
	SolveCholesky(1, n, m, a, n, one, m)
	SolveCholesky(3, n, m, a, n, x, m)
	if !slices.Equal(one, x) {
		t.Error("the result depends on the number of workers")
	}
	for i := range x {
		if math.Abs(x[i]-want[i]) > 1e-7 {
			t.Fatalf("element %d is %g, want %g", i, x[i], want[i])
		}
	}
}

func TestCholeskyRejectsWhatIsNotPositive(t *testing.T) {
	for _, n := range []int{1, 7, 20, 100} {
		for _, bad := range []float64{0, -1, math.NaN(), math.Inf(1)} {
			for _, at := range []int{0, n / 2, n - 1} {
				a := make([]float64, n*n)
				for i := range n {
					a[i*n+i] = 1
				}
				a[at*n+at] = bad
				if err := Cholesky(1, n, a, n); !errors.Is(err, ErrNotPositive) {
					t.Errorf("n = %d, pivot %d is %g: error %v", n, at, bad, err)
				}
			}
		}
	}
}

func BenchmarkCholesky(b *testing.B) {
	for _, n := range []int{16, 64, 128, 256, 512, 1024} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a := slices.Repeat([]float64{0.01}, n*n)
			for i := range n {
				a[i*n+i] = float64(n)
			}
			u := make([]float64, n*n)
			for b.Loop() {
				copy(u, a)
				if err := Cholesky(1, n, u, n); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(n)*float64(n)/3*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GFLOP/s")
		})
	}
}
