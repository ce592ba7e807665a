package linalg

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestEigenSymSolvesTheEigenproblem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "n")
		lda, ldz := n+rapid.IntRange(0, 3).Draw(t, "gap"), n+rapid.IntRange(0, 3).Draw(t, "gap of z")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		full, a := make([]float64, n*n), make([]float64, n*lda)
		for i := range a {
			a[i] = 1e6 // above the diagonal and in the gaps nothing may be read
		}
		for i := range n {
			for j := range i + 1 {
				v := rng.NormFloat64()
				full[i*n+j], full[j*n+i], a[i*lda+j] = v, v, v
			}
		}
		b := slices.Clone(a)
		const mark = 12345
		w, z := make([]float64, n), slices.Repeat([]float64{mark}, n*ldz)
		if err := EigenSym(1, n, a, lda, w, z, ldz); err != nil {
			t.Fatal(err)
		}
		if !slices.IsSorted(w) {
			t.Fatalf("eigenvalues %v do not rise", w)
		}
		tol := 1e-13 * float64(n) * max(1, math.Abs(w[0]), math.Abs(w[n-1]))
		for k := range n {
			for i := range n {
				var s float64
				for j := range n {
					s += full[i*n+j] * z[j*ldz+k]
				}
				if d := math.Abs(s - w[k]*z[i*ldz+k]); d > tol {
					t.Fatalf("residual %g in row %d of pair %d", d, i, k)
				}
			}
			for l := range n {
				var s, want float64
				for j := range n {
					s += z[j*ldz+k] * z[j*ldz+l]
				}
				if k == l {
					want = 1
				}
				if math.Abs(s-want) > 1e-13*float64(n) {
					t.Fatalf("vectors %d and %d have product %g", k, l, s)
				}
			}
		}
		for i := range n {
			for _, v := range z[i*ldz+n : (i+1)*ldz] {
				if v != mark {
					t.Fatal("the gap between rows of z was written")
				}
			}
		}
		only := make([]float64, n)
		if err := EigenSym(1, n, b, lda, only, nil, 0); err != nil {
			t.Fatal(err)
		}
		for i, v := range only {
			if math.Abs(v-w[i]) > tol {
				t.Fatalf("eigenvalue %d is %g without vectors, %g with", i, v, w[i])
			}
		}
	})
}

// The second-difference matrix has the eigenvalues 2 − 2cos(kπ/(n+1)).
func TestEigenSymOfSecondDifferences(t *testing.T) {
	for _, n := range []int{1, 2, 17, 100} {
		a := make([]float64, n*n)
		for i := range n {
			a[i*n+i] = 2
			if i > 0 {
				a[i*n+i-1], a[(i-1)*n+i] = -1, -1
			}
		}
		w, z := make([]float64, n), make([]float64, n*n)
		if err := EigenSym(0, n, a, n, w, z, n); err != nil {
			t.Fatal(err)
		}
		for k, v := range w {
			if want := 2 - 2*math.Cos(float64(k+1)*math.Pi/float64(n+1)); math.Abs(v-want) > 1e-14*float64(n+4) {
				t.Errorf("n = %d: eigenvalue %d is %.17g, want %.17g", n, k, v, want)
			}
		}
	}
}

func TestEigenSymOfNothing(t *testing.T) {
	if err := EigenSym(1, 0, nil, 0, nil, nil, 0); err != nil {
		t.Error(err)
	}
}

func TestEigenSymRejectsNaNAndInfinity(t *testing.T) {
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		a := []float64{1, 0, bad, 1}
		if err := EigenSym(1, 2, a, 2, make([]float64, 2), make([]float64, 4), 2); !errors.Is(err, ErrNotFinite) {
			t.Errorf("%g: error %v, want one that wraps ErrNotFinite", bad, err)
		}
	}
}
