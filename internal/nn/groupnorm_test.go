package nn

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"pgregory.net/rapid"
)

// checkNorm compares a normalisation with its definition in float64 and the gradients
// with differences. groupOf and weightOf tell which group and which weight value i of x
// has.
func checkNorm(t *rapid.T, rng *rand.Rand, x *conv.Map, weight, bias []float32, eps float64, groupOf, weightOf func(i int) int,
	forward func(dst *conv.Map) *conv.Map, backward func(dx, dy *conv.Map, weights, biases []float32, add bool) *conv.Map) {
	value := func(x, weight, bias []float64) []float64 {
		count, mean, variance := map[int]float64{}, map[int]float64{}, map[int]float64{}
		for i, v := range x {
			count[groupOf(i)]++
			mean[groupOf(i)] += v
		}
		for i, v := range x {
			g := groupOf(i)
			d := v - mean[g]/count[g]
			variance[g] += d * d / count[g]
		}
		y := make([]float64, len(x))
		for i, v := range x {
			g := groupOf(i)
			y[i] = weight[weightOf(i)]*(v-mean[g]/count[g])/math.Sqrt(variance[g]+eps) + bias[weightOf(i)]
		}
		return y
	}
	wide := func(v []float32) []float64 {
		w := make([]float64, len(v))
		widen(w, v)
		return w
	}
	xs, ws, bs := wide(x.Data), wide(weight), wide(bias)
	near(t, "output", forward(nil).Data, value(xs, ws, bs), 1e-4)

	dy, before := normal(rng, x.N, x.H, x.W, x.C), normal(rng, x.N, x.H, x.W, x.C)
	add := rapid.Bool().Draw(t, "add")
	weights, biases := make([]float32, len(weight)), make([]float32, len(bias))
	dx := backward(clone(before), dy, weights, biases, add)
	loss := func() float64 {
		s := 0.
		for i, v := range value(xs, ws, bs) {
			s += v * float64(dy.Data[i])
		}
		return s
	}
	slope := func(v *float64) float64 {
		const h = 1e-5
		was := *v
		*v = was + h
		up := loss()
		*v = was - h
		down := loss()
		*v = was
		return (up - down) / (2 * h)
	}
	for range 4 {
		i := rng.IntN(len(xs))
		want := slope(&xs[i])
		if add {
			want += float64(before.Data[i])
		}
		near(t, "gradient", dx.Data[i:i+1], []float64{want}, 1e-3)
		w := rng.IntN(len(ws))
		near(t, "gradient of the weights", weights[w:w+1], []float64{slope(&ws[w])}, 1e-3)
		near(t, "gradient of the biases", biases[w:w+1], []float64{slope(&bs[w])}, 1e-3)
	}
}

func TestGroupNormAndItsGradientsEqualTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 91))
		groups, size := rapid.IntRange(1, 5).Draw(t, "groups"), rapid.IntRange(1, 5).Draw(t, "size")
		x := normal(rng, rapid.IntRange(1, 3).Draw(t, "n"), rapid.IntRange(2, 6).Draw(t, "h"), rapid.IntRange(2, 6).Draw(t, "w"), groups*size)
		for i := range x.Data {
			x.Data[i] += 10
		}
		c := x.C
		g := &GroupNorm{Groups: groups, Weight: normal(rng, 1, 1, 1, c).Data, Bias: normal(rng, 1, 1, 1, c).Data, Eps: 1e-3}
		if size == 1 {
			g.Groups = rapid.SampledFrom([]int{0, groups}).Draw(t, "instance")
		}
		if err := g.Validate(c); err != nil {
			t.Fatal(err)
		}
		workers := rapid.IntRange(1, 3).Draw(t, "workers")
		checkNorm(t, rng, x, g.Weight, g.Bias, g.Eps,
			func(i int) int { return i/c/(x.H*x.W)*groups + i%c/size }, func(i int) int { return i % c },
			func(dst *conv.Map) *conv.Map { return g.Forward(dst, x, workers) },
			func(dx, dy *conv.Map, weights, biases []float32, add bool) *conv.Map {
				return g.Backward(dx, dy, x, weights, biases, add, workers)
			})
	})
}

func TestLayerNormAndItsGradientsEqualTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 92))
		x := normal(rng, rapid.IntRange(1, 3).Draw(t, "n"), rapid.IntRange(1, 5).Draw(t, "h"), rapid.IntRange(1, 5).Draw(t, "w"), rapid.IntRange(3, 20).Draw(t, "c"))
		for i := range x.Data {
			x.Data[i] += 10
		}
		n := x.C
		if rapid.Bool().Draw(t, "whole maps") {
			n *= x.H * x.W
		}
		l := &LayerNorm{Width: n, Weight: normal(rng, 1, 1, 1, n).Data, Bias: normal(rng, 1, 1, 1, n).Data, Eps: 1e-3}
		if err := l.Validate(); err != nil {
			t.Fatal(err)
		}
		workers := rapid.IntRange(1, 3).Draw(t, "workers")
		checkNorm(t, rng, x, l.Weight, l.Bias, l.Eps,
			func(i int) int { return i / n }, func(i int) int { return i % n },
			func(dst *conv.Map) *conv.Map { return l.Forward(dst, x, workers) },
			func(dx, dy *conv.Map, weights, biases []float32, add bool) *conv.Map {
				return l.Backward(dx, dy, x, weights, biases, add, workers)
			})
	})
}

func TestAffineAndItsGradientsEqualTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 93))
		x := drawMap(t, rng)
		scale, shift := normal(rng, 1, 1, 1, x.C).Data, normal(rng, 1, 1, 1, x.C).Data
		dy, before := normal(rng, x.N, x.H, x.W, x.C), normal(rng, x.N, x.H, x.W, x.C)
		add := rapid.Bool().Draw(t, "add")
		y, dx := make([]float64, len(x.Data)), make([]float64, len(x.Data))
		ds, db := make([]float64, x.C), make([]float64, x.C)
		for i, v := range x.Data {
			g := float64(dy.Data[i])
			y[i] = float64(v)*float64(scale[i%x.C]) + float64(shift[i%x.C])
			dx[i] = g * float64(scale[i%x.C])
			if add {
				dx[i] += float64(before.Data[i])
			}
			ds[i%x.C] += g * float64(v)
			db[i%x.C] += g
		}
		near(t, "output", Affine(nil, x, scale, shift, 2).Data, y, 1e-6)
		scales, shifts := make([]float32, x.C), make([]float32, x.C)
		near(t, "gradient", AffineBackward(clone(before), dy, x, scale, scales, shifts, add, 2).Data, dx, 1e-6)
		near(t, "gradient of the scales", scales, ds, 1e-4)
		near(t, "gradient of the shifts", shifts, db, 1e-4)
	})
}

func TestNormsThatDoNotFitAreErrors(t *testing.T) {
	if err := (&GroupNorm{Groups: 3}).Validate(4); !errors.Is(err, conv.ErrShape) {
		t.Error(err)
	}
	if err := (&GroupNorm{Weight: make([]float32, 3)}).Validate(4); !errors.Is(err, conv.ErrShape) {
		t.Error(err)
	}
	for _, l := range []*LayerNorm{{}, {Width: 3, Bias: make([]float32, 2)}} {
		if err := l.Validate(); !errors.Is(err, conv.ErrShape) {
			t.Error(err)
		}
	}
}
