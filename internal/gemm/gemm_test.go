package gemm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

type element interface{ float32 | float64 }

const guard = 12345.5

// matrix is a rows×cols matrix with rows ld apart, in a slice that ends with
// its last element, and the guard value between the rows.
func matrix[T element](rng *rand.Rand, rows, cols, ld int) []T {
	if rows == 0 || cols == 0 {
		return nil
	}
	v := make([]T, (rows-1)*ld+cols)
	for i := range v {
		v[i] = guard
		if i%ld < cols {
			v[i] = T(rng.NormFloat64())
		}
	}
	return v[:len(v):len(v)]
}

func at[T element](v []T, ld, i, j int, trans bool) float64 {
	if trans {
		i, j = j, i
	}
	return float64(v[i*ld+j])
}

func checkProduct[T element](t *rapid.T, eps float64,
	mul func(workers int, ta, tb bool, m, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int)) {
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	size := func(name string) int {
		if rapid.Bool().Draw(t, name+" large") {
			return rapid.IntRange(17, 70).Draw(t, name)
		}
		return rapid.IntRange(0, 17).Draw(t, name)
	}
	m, n, k := size("m"), size("n"), size("k")
	if rapid.IntRange(0, 9).Draw(t, "deep") == 0 {
		k = rapid.IntRange(250, 600).Draw(t, "k deep")
	}
	ta, tb := rapid.Bool().Draw(t, "ta"), rapid.Bool().Draw(t, "tb")
	stored := func(rows, cols int, trans bool) (int, int) {
		if trans {
			return cols, rows
		}
		return rows, cols
	}
	ar, ac := stored(m, k, ta)
	br, bc := stored(k, n, tb)
	lda, ldb, ldc := ac+rapid.IntRange(0, 5).Draw(t, "lda"), bc+rapid.IntRange(0, 5).Draw(t, "ldb"), n+rapid.IntRange(0, 5).Draw(t, "ldc")
	a, b, c := matrix[T](rng, ar, ac, lda), matrix[T](rng, br, bc, ldb), matrix[T](rng, m, n, ldc)
	alpha := rapid.SampledFrom([]T{1, 0, -2.5}).Draw(t, "alpha")
	beta := rapid.SampledFrom([]T{0, 1, 0.5}).Draw(t, "beta")
	got := append([]T(nil), c...)
	if beta == 0 {
		for i := range got {
			if i%ldc < n {
				got[i] = T(math.NaN())
			}
		}
	}
	mul(rapid.IntRange(1, 3).Draw(t, "workers"), ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, got, ldc)
	for i, v := range got {
		if i%ldc >= n && v != guard {
			t.Fatalf("element %d between the rows was written", i)
		}
	}
	for i := range m {
		for j := range n {
			want, mass := 0.0, 0.0
			for p := range k {
				v := at(a, lda, i, p, ta) * at(b, ldb, p, j, tb)
				want += v
				mass += math.Abs(v)
			}
			want *= float64(alpha)
			mass *= math.Abs(float64(alpha))
			if beta != 0 {
				want += float64(beta) * float64(c[i*ldc+j])
				mass += math.Abs(float64(beta) * float64(c[i*ldc+j]))
			}
			if d := math.Abs(float64(got[i*ldc+j]) - want); !(d <= eps*float64(k+3)*mass) {
				t.Fatalf("%d×%d×%d: element %d,%d is %g, want %g", m, n, k, i, j, got[i*ldc+j], want)
			}
		}
	}
}

func TestFloat64EqualsTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { checkProduct(t, 0x1p-52, Float64) })
}

func TestFloat32EqualsTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { checkProduct(t, 0x1p-23, Float32) })
}

// TestEveryKernelEqualsTheDefinition also tries those that this machine passes
// over for a better one.
func TestEveryKernelEqualsTheDefinition(t *testing.T) {
	for _, kr := range candidates32() {
		t.Run("float32 "+kr.name, func(t *testing.T) {
			s := &set[float32]{kernel: kr}
			rapid.Check(t, func(t *rapid.T) {
				checkProduct(t, 0x1p-23, func(workers int, ta, tb bool, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
					multiply(s, workers, m, n, k, alpha, operand("A", m, k, a, lda, ta), operand("B", k, n, b, ldb, tb), beta, c, ldc)
				})
			})
		})
	}
	for _, kr := range candidates64() {
		t.Run("float64 "+kr.name, func(t *testing.T) {
			s := &set[float64]{kernel: kr}
			rapid.Check(t, func(t *rapid.T) {
				checkProduct(t, 0x1p-52, func(workers int, ta, tb bool, m, n, k int, alpha float64, a []float64, lda int, b []float64, ldb int, beta float64, c []float64, ldc int) {
					multiply(s, workers, m, n, k, alpha, operand("A", m, k, a, lda, ta), operand("B", k, n, b, ldb, tb), beta, c, ldc)
				})
			})
		})
	}
}

// TestLargeAndThinShapesEqualTheDefinition reaches the paths that random sizes
// are too small for: several blocks of each kind, and products cut along k.
func TestLargeAndThinShapesEqualTheDefinition(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	for _, s := range [][3]int{{5, 3, 9001}, {13, 33, 20000}, {300, 1100, 40}, {3, 2100, 300}, {16, 1500, 300}, {400, 7, 530}, {1, 700, 9000}, {1, 1, 8192}} {
		m, n, k := s[0], s[1], s[2]
		for _, trans := range [][2]bool{{false, false}, {true, false}, {false, true}, {true, true}} {
			lda, ldb := k, n
			if trans[0] {
				lda = m
			}
			if trans[1] {
				ldb = k
			}
			a, b := matrix[float64](rng, m*k/lda, lda, lda), matrix[float64](rng, k*n/ldb, ldb, ldb)
			c := matrix[float64](rng, m, n, n)
			got := append([]float64(nil), c...)
			Float64(2, trans[0], trans[1], m, n, k, 1.5, a, lda, b, ldb, -0.5, got, n)
			for range 500 {
				i, j := rng.IntN(m), rng.IntN(n)
				sum, mass := 0.0, 0.0
				for p := range k {
					v := at(a, lda, i, p, trans[0]) * at(b, ldb, p, j, trans[1])
					sum += v
					mass += math.Abs(v)
				}
				want := 1.5*sum - 0.5*c[i*n+j]
				if math.Abs(got[i*n+j]-want) > 0x1p-52*float64(k)*mass+1e-15 {
					t.Fatalf("%v %v: element %d,%d is %g, want %g", s, trans, i, j, got[i*n+j], want)
				}
			}
		}
	}
}

func TestResultsDoNotDependOnWorkers(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for _, s := range [][3]int{{200, 300, 500}, {9, 2000, 700}, {700, 9, 800}, {97, 97, 97}, {20, 30, 40000}} {
		m, n, k := s[0], s[1], s[2]
		a, b := matrix[float64](rng, m, k, k), matrix[float64](rng, k, n, n)
		want := make([]float64, m*n)
		Float64(1, false, false, m, n, k, 1, a, k, b, n, 0, want, n)
		for _, w := range []int{2, 3, 5, 16} {
			got := make([]float64, m*n)
			Float64(w, false, false, m, n, k, 1, a, k, b, n, 0, got, n)
			for i := range want {
				if got[i] != want[i] {
					t.Fatalf("%v: %d workers differ from one at %d", s, w, i)
				}
			}
		}
	}
}

func TestGramEqualsTheProductAndIsSymmetric(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for _, n := range []int{0, 1, 5, 96, 97, 205} {
		for _, k := range []int{0, 1, 30, 300} {
			for _, trans := range []bool{false, true} {
				rows, cols := n, k
				if trans {
					rows, cols = k, n
				}
				a := matrix[float64](rng, rows, cols, cols+3)
				want := matrix[float64](rng, n, n, n+2)
				got := append([]float64(nil), want...)
				// Start from a symmetric C, as beta needs.
				for i := range n {
					for j := range i {
						want[j*(n+2)+i] = want[i*(n+2)+j]
					}
				}
				copy(got, want)
				Float64(1, trans, !trans, n, n, k, 2, a, cols+3, a, cols+3, 0.5, want, n+2)
				Gram64(2, trans, n, k, 2, a, cols+3, 0.5, got, n+2)
				for i := range n {
					for j := range n {
						g := got[i*(n+2)+j]
						if g != got[j*(n+2)+i] {
							t.Fatalf("n=%d k=%d trans=%v: not symmetric at %d,%d", n, k, trans, i, j)
						}
						if math.Abs(g-want[i*(n+2)+j]) > 1e-12*float64(k+1) {
							t.Fatalf("n=%d k=%d trans=%v: element %d,%d is %g, want %g", n, k, trans, i, j, g, want[i*(n+2)+j])
						}
					}
				}
			}
		}
	}
}

func TestNaNPropagates(t *testing.T) {
	const n = 20
	a, b, c := make([]float64, n*n), make([]float64, n*n), make([]float64, n*n)
	a[3*n+4] = math.NaN()
	Float64(1, false, false, n, n, n, 1, a, n, b, n, 0, c, n)
	for j := range n {
		if c[3*n+j] == c[3*n+j] {
			t.Fatalf("row 3 column %d is %g", j, c[3*n+j])
		}
		if c[5*n+j] != 0 {
			t.Fatalf("row 5 column %d is %g", j, c[5*n+j])
		}
	}
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	a, b, c := make([]float32, 64*64), make([]float32, 64*64), make([]float32, 64*64)
	if n := testing.AllocsPerRun(50, func() { Float32(1, false, false, 64, 64, 64, 1, a, 64, b, 64, 0, c, 64) }); n > 0 {
		t.Errorf("%g allocations a product", n)
	}
}

func TestSizesThatDoNotFitPanic(t *testing.T) {
	v := make([]float64, 16)
	for name, f := range map[string]func(){
		"A short":    func() { Float64(1, false, false, 4, 4, 4, 1, v[:15], 4, v, 4, 0, v, 4) },
		"B short":    func() { Float64(1, false, true, 4, 4, 4, 1, v, 4, v[:15], 4, 0, v, 4) },
		"C short":    func() { Float64(1, false, false, 4, 4, 4, 1, v, 4, v, 4, 0, v[:15], 4) },
		"narrow ld":  func() { Float64(1, false, false, 2, 2, 4, 1, v, 3, v, 2, 0, v, 2) },
		"negative m": func() { Float64(1, false, false, -1, 2, 2, 1, v, 2, v, 2, 0, v, 2) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

// shapes are those that convolutions and decompositions have, and squares.
var shapes = [][3]int{{256, 256, 256}, {512, 512, 512}, {1024, 1024, 1024}, {64, 1024, 576}, {16, 65536, 144}, {512, 49, 4608}, {512, 64, 4608},
	{512, 512, 4608}, {9, 64, 262144}, {512, 512, 9}, {4608, 9, 64}, {32, 32, 32}, {128, 128, 128}}

func BenchmarkFloat64(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, s := range shapes {
		for _, w := range []int{1, 2} {
			b.Run(fmt.Sprintf("%dx%dx%d/workers=%d", s[0], s[2], s[1], w), func(b *testing.B) {
				m, n, k := s[0], s[1], s[2]
				x, y, z := matrix[float64](rng, m, k, k), matrix[float64](rng, k, n, n), make([]float64, m*n)
				for b.Loop() {
					Float64(w, false, false, m, n, k, 1, x, k, y, n, 0, z, n)
				}
				b.ReportMetric(2*float64(m)*float64(n)*float64(k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	}
}

func BenchmarkFloat32(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, s := range shapes {
		b.Run(fmt.Sprintf("%dx%dx%d", s[0], s[2], s[1]), func(b *testing.B) {
			m, n, k := s[0], s[1], s[2]
			x, y, z := matrix[float32](rng, m, k, k), matrix[float32](rng, k, n, n), make([]float32, m*n)
			for b.Loop() {
				Float32(1, false, false, m, n, k, 1, x, k, y, n, 0, z, n)
			}
			b.ReportMetric(2*float64(m)*float64(n)*float64(k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
