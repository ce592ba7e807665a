package linalg

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/internal/gemm"
)

// orthogonal is a random orthogonal matrix, a product of reflectors.
func orthogonal(rng *rand.Rand, n int) []float64 {
	q := make([]float64, n*n)
	for i := range n {
		q[i*n+i] = 1
	}
	for range min(n, 12) {
		v := normal(rng, n)
		var square float64
		for _, x := range v {
			square += x * x
		}
		w := product(false, n, 1, n, q, n, v, 1)
		for i := range n {
			for j := range n {
				q[i*n+j] -= 2 / square * w[i] * v[j]
			}
		}
	}
	return q
}

// spectra are eigenvalues that are hard in some way.
func spectra(n int) map[string][]float64 {
	m := map[string][]float64{}
	add := func(name string, f func(i int) float64) {
		v := make([]float64, n)
		for i := range v {
			v[i] = f(i)
		}
		m[name] = v
	}
	rng := rand.New(rand.NewPCG(uint64(n), 0))
	add("random", func(int) float64 { return rng.NormFloat64() })
	add("arithmetic", func(i int) float64 { return float64(i + 1) })
	add("equal", func(int) float64 { return 1 })
	add("zero", func(int) float64 { return 0 })
	add("two values", func(i int) float64 { return float64(i % 2) })
	add("one large", func(i int) float64 {
		if i == 0 {
			return 1
		}
		return 1e-16
	})
	add("one small", func(i int) float64 {
		if i == 0 {
			return 1e-16
		}
		return 1
	})
	add("clusters", func(i int) float64 { return float64(i/8) + 1e-13*float64(i%8) })
	add("graded", func(i int) float64 { return math.Pow(10, -30*float64(i)/float64(n)) })
	add("both signs", func(i int) float64 { return math.Pow(-0.9, float64(i)) })
	add("low rank", func(i int) float64 {
		if i < n/4 {
			return rng.Float64()
		}
		return 0
	})
	add("huge", func(i int) float64 { return 1e300 * rng.Float64() })
	add("tiny", func(i int) float64 { return 1e-300 * rng.Float64() })
	return m
}

// checkEigen holds eigenpairs against the matrix: the residual and the loss of
// orthogonality shall be small multiples of n·ε.
func checkEigen(t *testing.T, n, r int, a, w, z []float64) {
	t.Helper()
	top := largest(a)
	if top == 0 {
		top = 1
	}
	scale := math.Ldexp(1, -math.Ilogb(top))
	az := make([]float64, n*r)
	scaled := make([]float64, n*n)
	for i, v := range a {
		scaled[i] = v * scale
	}
	gemm.Float64(1, false, false, n, r, n, 1, scaled, n, z, r, 0, az, r)
	norm := 0.0
	for _, v := range w {
		norm = max(norm, math.Abs(v)*scale)
	}
	for i := range az {
		az[i] -= z[i] * w[i%r] * scale
	}
	tol := 2e-16 * float64(n+20)
	if e := largest(az); !(e <= tol*max(norm, 1e-3)) {
		t.Errorf("residual %g, norm %g, of order %d", e, norm, n)
	}
	g := make([]float64, r*r)
	gemm.Float64(1, true, false, r, r, n, 1, z, r, z, r, 0, g, r)
	for i := range r {
		g[i*r+i]--
	}
	if e := largest(g); !(e <= tol) {
		t.Errorf("loss of orthogonality %g of order %d", e, n)
	}
}

func TestEigenSymOfHardSpectra(t *testing.T) {
	onEveryKernel(t, func(t *testing.T) {
		sizes := []int{2, 5, 16, 17, 33, 64, 100, 131, 200}
		if testing.Short() {
			sizes = []int{17, 50}
		}
		for _, n := range sizes {
			q := orthogonal(rand.New(rand.NewPCG(uint64(n), 1)), n)
			for name, values := range spectra(n) {
				t.Run(fmt.Sprintf("%s/%d", name, n), func(t *testing.T) {
					qd := slices.Clone(q)
					for i := range qd {
						qd[i] *= values[i%n]
					}
					a := make([]float64, n*n)
					gemm.Float64(1, false, true, n, n, n, 1, qd, n, q, n, 0, a, n)
					for i := range n {
						for j := range i {
							a[j*n+i] = a[i*n+j]
						}
					}
					want := slices.Clone(values)
					slices.Sort(want)
					w, z := make([]float64, n), make([]float64, n*n)
					if err := EigenSym(2, n, a, n, w, z, n); err != nil {
						t.Fatal(err)
					}
					checkEigen(t, n, n, a, w, z)
					norm := max(math.Abs(want[0]), math.Abs(want[n-1]))
					only := make([]float64, n)
					if err := EigenSym(1, n, a, n, only, nil, 0); err != nil {
						t.Fatal(err)
					}
					for i, v := range want {
						if math.Abs(w[i]-v) > 4e-16*float64(n+10)*norm || math.Abs(only[i]-v) > 4e-16*float64(n+10)*norm {
							t.Fatalf("eigenvalue %d is %g, alone %g, want %g", i, w[i], only[i], v)
						}
					}
					r := (n + 2) / 3
					top := make([]float64, n)
					u, got, err := EigenTop(1, n, a, n, top, func(w []float64) int { return r })
					if err != nil || got != r {
						t.Fatalf("%d vectors, %v, want %d", got, err, r)
					}
					checkEigen(t, n, r, a, top[:r], u)
					slices.Reverse(top)
					if !slices.Equal(top, w) {
						t.Error("EigenTop's eigenvalues differ from EigenSym's")
					}
				})
			}
		}
	})
}

// Wilkinson's matrix has pairs of eigenvalues that agree to working precision;
// glued together, clusters of them.
func TestEigenSymOfGluedWilkinsonMatrices(t *testing.T) {
	for _, glue := range []float64{0, 1e-14, 1e-8, 1} {
		const block, copies = 21, 6
		n := block * copies
		a := make([]float64, n*n)
		for i := range n {
			a[i*n+i] = math.Abs(float64(i%block - block/2))
			if i > 0 {
				a[i*n+i-1] = 1
				if i%block == 0 {
					a[i*n+i-1] = glue
				}
				a[(i-1)*n+i] = a[i*n+i-1]
			}
		}
		w, z := make([]float64, n), make([]float64, n*n)
		if err := EigenSym(1, n, a, n, w, z, n); err != nil {
			t.Fatal(err)
		}
		checkEigen(t, n, n, a, w, z)
	}
}

func TestEigenSymDoesNotDependOnWorkers(t *testing.T) {
	const n = 300
	b := normal(rand.New(rand.NewPCG(1, 0)), n*n)
	a := make([]float64, n*n)
	gemm.Gram64(1, false, n, n, 1, b, n, 0, a, n)
	var first, firstW []float64
	for _, workers := range []int{1, 2, 3, 0} {
		w, z := make([]float64, n), make([]float64, n*n)
		if err := EigenSym(workers, n, a, n, w, z, n); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first, firstW = z, w
			checkEigen(t, n, n, a, w, z)
		}
		if !slices.Equal(z, first) || !slices.Equal(w, firstW) {
			t.Errorf("%d workers give another result", workers)
		}
	}
}

func TestEigenTopOfNone(t *testing.T) {
	w := make([]float64, 3)
	z, r, err := EigenTop(1, 3, []float64{2, 0, 0, 0, 3, 0, 0, 0, 1}, 3, w, func([]float64) int { return -1 })
	if len(z) != 0 || r != 0 || err != nil || !slices.Equal(w, []float64{3, 2, 1}) {
		t.Errorf("%v, %d, %v, %v", z, r, err, w)
	}
	if _, r, err := EigenTop(1, 0, nil, 0, nil, func([]float64) int { return 1 }); r != 0 || err != nil {
		t.Errorf("of an empty matrix: %d, %v", r, err)
	}
}

func BenchmarkEigenSym(b *testing.B) {
	for _, n := range []int{16, 64, 128, 256, 512, 1024} {
		rng := rand.New(rand.NewPCG(1, 0))
		a := normal(rng, n*n)
		w, z := make([]float64, n), make([]float64, n*n)
		for _, c := range []struct {
			name string
			z    []float64
		}{{"vectors", z}, {"values", nil}} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				for b.Loop() {
					if err := EigenSym(1, n, a, n, w, c.z, n); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
