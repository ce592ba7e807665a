package fastblas_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/blas/gonum"
	"gonum.org/v1/gonum/blas/testblas"
	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/fastblas"
)

var (
	_ blas.Float64 = fastblas.Implementation{}
	_ blas.Float32 = fastblas.Implementation{}
)

func TestDgemmPassesGonumsConformanceTest(t *testing.T) {
	testblas.TestDgemm(t, fastblas.Implementation{})
}

func TestDsyrkPassesGonumsConformanceTest(t *testing.T) {
	testblas.DsyrkTest(t, fastblas.Implementation{})
}

func TestProductsAgreeWithGonums(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	const n, k, ld = 211, 75, 220
	a, c := make([]float64, n*ld), make([]float64, n*ld)
	for i := range a {
		a[i], c[i] = rng.NormFloat64(), rng.NormFloat64()
	}
	narrow := func(v []float64) []float32 {
		w := make([]float32, len(v))
		for i, x := range v {
			w[i] = float32(x)
		}
		return w
	}
	for _, ul := range []blas.Uplo{blas.Upper, blas.Lower} {
		for _, trans := range []blas.Transpose{blas.NoTrans, blas.Trans} {
			name := fmt.Sprintf("%c %c", ul, trans)
			got, want := append([]float64(nil), c...), append([]float64(nil), c...)
			fastblas.Implementation{}.Dsyrk(ul, trans, n, k, 1.5, a, ld, 0.5, got, ld)
			gonum.Implementation{}.Dsyrk(ul, trans, n, k, 1.5, a, ld, 0.5, want, ld)
			for i := range got {
				if math.Abs(got[i]-want[i]) > 1e-11 {
					t.Fatalf("Dsyrk %s: element %d is %g, want %g", name, i, got[i], want[i])
				}
			}
			got32, want32 := narrow(c), narrow(c)
			fastblas.Implementation{}.Ssyrk(ul, trans, n, k, 1.5, narrow(a), ld, 0.5, got32, ld)
			gonum.Implementation{}.Ssyrk(ul, trans, n, k, 1.5, narrow(a), ld, 0.5, want32, ld)
			for i := range got32 {
				if math.Abs(float64(got32[i]-want32[i])) > 1e-3 {
					t.Fatalf("Ssyrk %s: element %d is %g, want %g", name, i, got32[i], want32[i])
				}
			}
			got32, want32 = narrow(c), narrow(c)
			fastblas.Implementation{}.Sgemm(trans, trans, 70, 70, 70, 1.5, narrow(a), ld, narrow(a), ld, 0.5, got32, ld)
			gonum.Implementation{}.Sgemm(trans, trans, 70, 70, 70, 1.5, narrow(a), ld, narrow(a), ld, 0.5, want32, ld)
			for i := range got32 {
				if math.Abs(float64(got32[i]-want32[i])) > 1e-3 {
					t.Fatalf("Sgemm %s: element %d is %g, want %g", name, i, got32[i], want32[i])
				}
			}
		}
	}
}

func Example() {
	blas64.Use(fastblas.Implementation{})
	blas32.Use(fastblas.Implementation{})

	a := mat.NewDense(2, 2, []float64{1, 2, 3, 4})
	var b mat.Dense
	b.Mul(a, a)
	fmt.Println(mat.Formatted(&b))
	// Output:
	// ⎡ 7  10⎤
	// ⎣15  22⎦
}

func BenchmarkQR512(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	a := mat.NewDense(512, 512, nil)
	a.Apply(func(_, _ int, _ float64) float64 { return rng.NormFloat64() }, a)
	for _, c := range []struct {
		name string
		impl blas.Float64
	}{{"gonum", gonum.Implementation{}}, {"fastblas", fastblas.Implementation{}}} {
		b.Run(c.name, func(b *testing.B) {
			blas64.Use(c.impl)
			defer blas64.Use(gonum.Implementation{})
			for b.Loop() {
				var qr mat.QR
				qr.Factorize(a)
			}
		})
	}
}
