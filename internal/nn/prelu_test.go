package nn

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"pgregory.net/rapid"
)

// clone is a copy of m.
func clone(m *conv.Map) *conv.Map {
	return &conv.Map{N: m.N, H: m.H, W: m.W, C: m.C, Data: slices.Clone(m.Data)}
}

func TestPReLUAndItsGradientsEqualTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 41))
		x := drawMap(t, rng)
		slope := normal(rng, 1, 1, 1, x.C).Data
		if rapid.Bool().Draw(t, "one slope") {
			slope = slope[:1]
		}
		dy, before := normal(rng, x.N, x.H, x.W, x.C), normal(rng, x.N, x.H, x.W, x.C)
		add := rapid.Bool().Draw(t, "add")
		y, dx, ds := make([]float64, len(x.Data)), make([]float64, len(x.Data)), make([]float64, len(slope))
		for i, v := range x.Data {
			s := float64(slope[i%x.C%len(slope)])
			y[i], dx[i] = float64(v), float64(dy.Data[i])
			if v < 0 {
				y[i] *= s
				dx[i] *= s
				ds[i%x.C%len(slope)] += float64(v) * float64(dy.Data[i])
			}
			if add {
				dx[i] += float64(before.Data[i])
			}
		}
		workers := rapid.IntRange(1, 3).Draw(t, "workers")
		near(t, "output", PReLU(nil, x, slope, workers).Data, y, 1e-6)
		got := normal(rng, 1, 1, 1, len(slope)).Data
		near(t, "gradient", PReLUBackward(clone(before), dy, x, slope, got, add, workers).Data, dx, 1e-6)
		near(t, "gradient of the slopes", got, ds, 1e-4)
	})
}
