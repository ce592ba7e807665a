package linalg

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"
)

func TestQRFactorises(t *testing.T) {
	onEveryKernel(t, func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			n := rapid.OneOf(rapid.IntRange(0, 20), rapid.IntRange(21, 100)).Draw(t, "n")
			m := n + rapid.IntRange(0, 60).Draw(t, "more rows")
			lda, ldq, ldr := n+rapid.IntRange(0, 3).Draw(t, "gap"), n+rapid.IntRange(0, 3).Draw(t, "gap of q"), n+1
			rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
			a := normal(rng, m*lda)
			if n > 0 && rapid.Bool().Draw(t, "defective") {
				c, d := rng.IntN(n), rng.IntN(n)
				for i := range m {
					a[i*lda+c] = a[i*lda+d]
					a[i*lda] = 0
				}
			}
			keep := slices.Clone(a)
			q, r := slices.Repeat([]float64{7}, m*ldq), slices.Repeat([]float64{7}, n*ldr)
			QR(rapid.IntRange(1, 3).Draw(t, "workers"), m, n, a, lda, q, ldq, r, ldr)
			qr := product(false, m, n, n, q, max(ldq, 1), r, ldr)
			for i := range m {
				for j := range n {
					qr[i*n+j] -= keep[i*lda+j]
				}
				for _, v := range q[i*ldq+n : (i+1)*ldq] {
					if v != 7 {
						t.Fatal("the gap between rows of q was written")
					}
				}
			}
			if e := largest(qr); !(e <= 1e-15*float64(m+10)) {
				t.Fatalf("‖QR − A‖ is %g", e)
			}
			g := product(true, n, n, m, q, max(ldq, 1), q, max(ldq, 1))
			for i := range n {
				g[i*n+i]--
				if v := largest(r[i*ldr : i*ldr+i]); v != 0 {
					t.Fatalf("R has %g below its diagonal", v)
				}
			}
			if e := largest(g); !(e <= 2e-16*float64(m+10)) {
				t.Fatalf("loss of orthogonality %g", e)
			}
		})
	})
}

func TestSingularValuesMatchGonum(t *testing.T) {
	onEveryKernel(t, func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			m := rapid.OneOf(rapid.IntRange(1, 20), rapid.IntRange(21, 100)).Draw(t, "m")
			n := rapid.OneOf(rapid.IntRange(1, 20), rapid.IntRange(21, 100)).Draw(t, "n")
			rank := rapid.IntRange(0, min(m, n)).Draw(t, "rank")
			lda := n + rapid.IntRange(0, 3).Draw(t, "gap")
			rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
			scale := rapid.SampledFrom([]float64{1, 1e-290, 1e290}).Draw(t, "scale")
			low := product(false, m, n, rank, normal(rng, m*rank), max(rank, 1), normal(rng, rank*n), n)
			a := make([]float64, m*lda)
			for i := range m {
				copy(a[i*lda:], low[i*n:(i+1)*n])
			}
			var f mat.SVD
			if !f.Factorize(mat.NewDense(m, n, low), mat.SVDNone) {
				t.Skip("gonum does not converge")
			}
			want := f.Values(nil)
			for i := range a {
				a[i] *= scale
			}
			keep := slices.Clone(a)
			s := make([]float64, min(m, n))
			if err := SingularValues(rapid.IntRange(1, 3).Draw(t, "workers"), m, n, a, lda, s); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(a, keep) {
				t.Fatal("the matrix has changed")
			}
			for i, v := range s {
				if math.Abs(v/scale-want[i]) > 1e-15*float64(m+n+10)*want[0] {
					t.Fatalf("singular value %d is %g, want %g; the largest is %g", i, v/scale, want[i], want[0])
				}
			}
		})
	})
}

func TestSingularValuesOfNothingAndOfNaN(t *testing.T) {
	if err := SingularValues(1, 0, 3, nil, 3, nil); err != nil {
		t.Error(err)
	}
	if err := SingularValues(1, 1, 2, []float64{1, math.NaN()}, 2, make([]float64, 1)); err == nil {
		t.Error("NaN passes")
	}
}

func BenchmarkQR(b *testing.B) {
	for _, s := range [][2]int{{512, 512}, {512, 128}, {4608, 512}} {
		b.Run(fmt.Sprintf("%dx%d", s[0], s[1]), func(b *testing.B) {
			m, n := s[0], s[1]
			a := normal(rand.New(rand.NewPCG(1, 0)), m*n)
			c, q := make([]float64, m*n), make([]float64, m*n)
			for b.Loop() {
				copy(c, a)
				QR(1, m, n, c, n, q, n, nil, 0)
			}
		})
	}
}

func BenchmarkSingularValues(b *testing.B) {
	for _, s := range [][2]int{{512, 4608}, {512, 512}, {128, 128}} {
		b.Run(fmt.Sprintf("%dx%d", s[0], s[1]), func(b *testing.B) {
			m, n := s[0], s[1]
			a, v := normal(rand.New(rand.NewPCG(1, 0)), m*n), make([]float64, min(m, n))
			for b.Loop() {
				if err := SingularValues(1, m, n, a, n, v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
