package hadamard

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestProductsAreThoseOfTheDefinition(t *testing.T) {
	t.Run("float32", func(t *testing.T) { products[float32](t, 1e-6) })
	t.Run("float64", func(t *testing.T) { products[float64](t, 1e-15) })
}

func products[T float](t *testing.T, eps float64) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []T {
		v := make([]T, n)
		for i := range v {
			v[i] = T(rng.NormFloat64())
		}
		return v
	}
	for n := 1; n <= 70; n++ {
		for _, rows := range []int{1, 2, 5} {
			for _, ld := range [][3]int{{n, n, n}, {0, n, n}, {n, 0, n}, {n, n, 0}, {0, n + 3, 0}, {n + 5, n + 1, n + 2}} {
				// A guard beyond the end of dst must not be written.
				end := (rows-1)*ld[0] + n
				dst, x, y := random(end+9), random((rows-1)*ld[1]+n), random((rows-1)*ld[2]+n)
				for _, add := range []bool{false, true} {
					got := append([]T(nil), dst...)
					want := make([]float64, len(dst))
					for i, v := range dst {
						want[i] = float64(v)
					}
					size := make([]float64, len(dst))
					for i := range rows {
						for c := range n {
							p := float64(x[i*ld[1]+c]) * float64(y[i*ld[2]+c])
							at := i*ld[0] + c
							if add {
								p += want[at]
							}
							want[at] = p
							size[at] = max(size[at], math.Abs(p), 1)
						}
					}
					if add {
						MultiplyAdd(rows, n, got, ld[0], x, ld[1], y, ld[2])
					} else {
						Multiply(rows, n, got, ld[0], x, ld[1], y, ld[2])
					}
					for i, v := range got {
						if math.Abs(float64(v)-want[i]) > 8*eps*size[i] {
							t.Fatalf("%d rows of %d, strides %v, add %v: element %d is %g, want %g", rows, n, ld, add, i, v, want[i])
						}
					}
				}
			}
		}
	}
}

func TestNothingIsDoneForNoRowsOrElements(t *testing.T) {
	Multiply[float32](0, 5, nil, 0, nil, 0, nil, 0)
	MultiplyAdd[float64](5, 0, nil, 0, nil, 0, nil, 0)
}

func TestRowsThatDoNotFitPanicBeforeAnythingIsWritten(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	Multiply(2, 4, make([]float32, 8), 4, make([]float32, 7), 4, make([]float32, 8), 4)
}

func BenchmarkMultiplyAdd(b *testing.B) {
	const rows, n = 64, 128
	dst, x, y := make([]float64, n), make([]float64, rows*n), make([]float64, rows*n)
	b.SetBytes(2 * 8 * rows * n)
	for b.Loop() {
		MultiplyAdd(rows, n, dst, 0, x, n, y, n)
	}
}

func TestAllSkipsWhatItIsTold(t *testing.T) {
	m := [][]float64{{2, 3}, {5, 7}, {11, 13}}
	for _, c := range []struct {
		skip []int
		want [2]float64
	}{{nil, [2]float64{110, 273}}, {[]int{1}, [2]float64{22, 39}}, {[]int{0, 2}, [2]float64{5, 7}}, {[]int{0, 1, 2}, [2]float64{1, 1}}} {
		out := []float64{-1, -1}
		if All(out, m, c.skip...); [2]float64(out) != c.want {
			t.Errorf("without %v: %v, want %v", c.skip, out, c.want)
		}
	}
}
