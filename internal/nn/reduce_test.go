package nn

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

var reductions = map[Reduce]func(values []float64) float64{
	ReduceSum: func(v []float64) float64 { return fold(v, 0, func(a, x float64) float64 { return a + x }) },
	ReduceMean: func(v []float64) float64 {
		return fold(v, 0, func(a, x float64) float64 { return a + x }) / float64(len(v))
	},
	ReduceMax:     func(v []float64) float64 { return fold(v, v[0], math.Max) },
	ReduceMin:     func(v []float64) float64 { return fold(v, v[0], math.Min) },
	ReduceL1:      func(v []float64) float64 { return fold(v, 0, func(a, x float64) float64 { return a + math.Abs(x) }) },
	ReduceL2:      func(v []float64) float64 { return math.Sqrt(fold(v, 0, func(a, x float64) float64 { return a + x*x })) },
	ReduceSquares: func(v []float64) float64 { return fold(v, 0, func(a, x float64) float64 { return a + x*x }) },
}

func fold(v []float64, a float64, f func(a, x float64) float64) float64 {
	for _, x := range v {
		a = f(a, x)
	}
	return a
}

func TestReductionsAndTheirGradientsEqualTheDefinition(t *testing.T) {
	for k, f := range reductions {
		if err := k.Validate(); err != nil {
			t.Error(err)
		}
		rapid.Check(t, func(t *rapid.T) {
			rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 121))
			var dims, axes, order []int
			for i := range rapid.IntRange(1, 5).Draw(t, "rank") {
				n := rapid.SampledFrom([]int{1, 2, 3, 7, 300}).Draw(t, "dim")
				if volume(dims)*n > 20000 {
					n = 2
				}
				dims, order = append(dims, n), append(order, i)
				if rapid.Bool().Draw(t, "reduced") {
					axes = append(axes, i)
				}
			}
			// The dimensions lie in memory in any order.
			strides := make([]int, len(dims))
			step := 1
			for _, i := range rapid.Permutation(order).Draw(t, "order") {
				strides[i] = step
				step *= dims[i]
			}
			x, before := normal(rng, 1, 1, 1, volume(dims)).Data, normal(rng, 1, 1, 1, volume(dims)).Data
			groups := map[int][]int{} // places in x of each value of the result
			for i := range x {
				at, to, rest, scale := 0, 0, i, 1
				for a := len(dims) - 1; a >= 0; a-- {
					j := rest % dims[a]
					rest /= dims[a]
					at += j * strides[a]
					reduced := false
					for _, r := range axes {
						reduced = reduced || r == a
					}
					if !reduced {
						to += j * scale
						scale *= dims[a]
					}
				}
				groups[to] = append(groups[to], at)
			}
			workers := rapid.IntRange(1, 3).Draw(t, "workers")
			y, dy := make([]float32, len(groups)), normal(rng, 1, 1, 1, len(groups)).Data
			k.Strided(y, dims, x, strides, axes, workers)
			add := rapid.Bool().Draw(t, "add")
			dx := append([]float32(nil), before...)
			in, out := x, y
			if k == ReduceSum || k == ReduceMean {
				in, out = nil, nil
			}
			k.StridedBackward(dx, dy, dims, in, strides, out, axes, add, workers)
			for to, places := range groups {
				values := make([]float64, len(places))
				for i, at := range places {
					values[i] = float64(x[at])
				}
				near(t, string(k), y[to:to+1], []float64{f(values)}, 1e-5)
				i := rng.IntN(len(places))
				h := min(1e-6, math.Abs(values[i])/2) // not over the kink of |x|
				values[i] += h
				up := f(values)
				values[i] -= 2 * h
				want := (up - f(values)) / (2 * h) * float64(dy[to])
				if at := places[i]; add {
					want += float64(before[at])
				}
				near(t, string(k)+" gradient", dx[places[i]:places[i]+1], []float64{want}, 1e-3)
			}
		})
	}
}

func TestReductionsOfMapsAreThoseOfTheirAxes(t *testing.T) {
	rng := rand.New(rand.NewPCG(122, 122))
	x := normal(rng, 2, 40, 41, 9)
	y := ReduceMean.Forward(nil, x, []int{1, 2}, 2)
	want := AveragePool(nil, x, 1)
	if dimsOf(y) != dimsOf(want) {
		t.Fatalf("%v", dimsOf(y))
	}
	wide := make([]float64, len(want.Data))
	widen(wide, want.Data)
	near(t, "mean", y.Data, wide, 1e-5)
	dx := ReduceMean.Backward(nil, y, nil, nil, dimsOf(x), []int{1, 2}, false, 2)
	for i, v := range AveragePoolBackward(nil, y, 40, 41, false, 1).Data {
		if math.Abs(float64(v-dx.Data[i])) > 1e-9 {
			t.Fatalf("gradient %d is %g, want %g", i, dx.Data[i], v)
		}
	}
}

func TestEqualLargestValuesShareTheGradient(t *testing.T) {
	x, y, dx := []float32{3, 1, 3}, []float32{0}, make([]float32, 3)
	ReduceMax.Strided(y, []int{3}, x, []int{1}, []int{0}, 1)
	ReduceMax.StridedBackward(dx, []float32{4}, []int{3}, x, []int{1}, y, []int{0}, false, 1)
	if y[0] != 3 || dx[0] != 2 || dx[1] != 0 || dx[2] != 2 {
		t.Errorf("%v with gradient %v", y, dx)
	}
}
