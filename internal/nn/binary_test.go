package nn

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"pgregory.net/rapid"
)

var binaryFunctions = map[Binary]func(a, b float64) float64{
	Plus:    func(a, b float64) float64 { return a + b },
	Minus:   func(a, b float64) float64 { return a - b },
	Times:   func(a, b float64) float64 { return a * b },
	Divide:  func(a, b float64) float64 { return a / b },
	Largest: math.Max,
	Least:   math.Min,
	Power:   math.Pow,
	Equal:   func(a, b float64) float64 { return float64(holds(a == b)) },
	Less:    func(a, b float64) float64 { return float64(holds(a < b)) },
	Greater: func(a, b float64) float64 { return float64(holds(a > b)) },
}

// drawPair draws two maps whose shapes broadcast, of values away from 0 and positive
// where powers need that.
func drawPair(t *rapid.T, rng *rand.Rand) (a, b *conv.Map) {
	full := [4]int{rapid.IntRange(1, 3).Draw(t, "n"), rapid.IntRange(1, 6).Draw(t, "h"), rapid.IntRange(1, 6).Draw(t, "w"),
		rapid.SampledFrom([]int{1, 2, 3, 8, 9, 16, 300}).Draw(t, "c")}
	sa, sb := full, full
	for i := range full {
		switch rapid.IntRange(0, 3).Draw(t, "broadcast") {
		case 0:
			sa[i] = 1
		case 1:
			sb[i] = 1
		}
	}
	a, b = normal(rng, sa[0], sa[1], sa[2], sa[3]), normal(rng, sb[0], sb[1], sb[2], sb[3])
	for _, m := range []*conv.Map{a, b} {
		for i, v := range m.Data {
			m.Data[i] = .3 + float32(math.Abs(float64(v)))
		}
	}
	return a, b
}

func TestBinaryFunctionsAndTheirGradientsEqualTheDefinition(t *testing.T) {
	for k, f := range binaryFunctions {
		if err := k.Validate(); err != nil {
			t.Error(err)
		}
		rapid.Check(t, func(t *rapid.T) {
			rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 51))
			a, b := drawPair(t, rng)
			if rapid.Bool().Draw(t, "equal") {
				copy(b.Data, a.Data)
			}
			workers := rapid.IntRange(1, 3).Draw(t, "workers")
			y := k.Forward(nil, a, b, workers)
			dy := normal(rng, y.N, y.H, y.W, y.C)
			add := rapid.Bool().Draw(t, "add")
			want := make([]float64, len(y.Data))
			grad := [2][]float64{make([]float64, len(a.Data)), make([]float64, len(b.Data))}
			before := [2]*conv.Map{normal(rng, a.N, a.H, a.W, a.C), normal(rng, b.N, b.H, b.W, b.C)}
			for o := range grad {
				for i, v := range before[o].Data {
					if add {
						grad[o][i] = float64(v)
					}
				}
			}
			place := func(m *conv.Map, i int) int {
				c, w, h, n := i%y.C, i/y.C%y.W, i/y.C/y.W%y.H, i/y.C/y.W/y.H
				return ((n%m.N*m.H+h%m.H)*m.W+w%m.W)*m.C + c%m.C
			}
			for i := range want {
				ia, ib := place(a, i), place(b, i)
				u, v := float64(a.Data[ia]), float64(b.Data[ib])
				want[i] = f(u, v)
				h := 1e-6
				if k == Largest || k == Least {
					h = 1e-9 // less than two different float32 values differ by
				}
				if k == Equal || k == Less || k == Greater {
					continue // steps have no gradient
				}
				grad[0][ia] += float64(dy.Data[i]) * (f(u+h, v) - f(u-h, v)) / (2 * h)
				grad[1][ib] += float64(dy.Data[i]) * (f(u, v+h) - f(u, v-h)) / (2 * h)
			}
			near(t, string(k), y.Data, want, 1e-6)
			for o, m := range before {
				got := k.Backward(clone(m), dy, a, b, o == 1, add, workers)
				near(t, string(k)+" gradient", got.Data, grad[o], 2e-4)
			}
		})
	}
}

func TestSumsOverManyValuesDoNotDependOnWorkers(t *testing.T) {
	rng := rand.New(rand.NewPCG(52, 52))
	x, dy := normal(rng, 2, 61, 67, 40), normal(rng, 2, 61, 67, 40)
	for _, shape := range [][4]int{{1, 1, 1, 1}, {1, 1, 1, 40}, {2, 1, 1, 40}, {1, 61, 67, 40}, {2, 61, 67, 1}, {1, 1, 67, 1}} {
		b := normal(rng, shape[0], shape[1], shape[2], shape[3])
		var first *conv.Map
		for _, workers := range []int{1, 2, 5} {
			got := Times.Backward(nil, dy, x, b, true, false, workers)
			if first == nil {
				first = got
			}
			for i, v := range got.Data {
				if v != first.Data[i] {
					t.Fatalf("%v: gradient %d of %d workers is %g, of one %g", shape, i, workers, v, first.Data[i])
				}
			}
		}
	}
}

func TestShapesThatDoNotBroadcastAreErrors(t *testing.T) {
	for _, c := range [][2][]int{{{2, 3}, {3, 3}}, {{2}, {2, 1}}} {
		if _, _, _, err := Broadcast(c[0], c[1]); !errors.Is(err, conv.ErrShape) {
			t.Errorf("%v: %v", c, err)
		}
	}
	if err := Binary("mod").Validate(); !errors.Is(err, conv.ErrShape) {
		t.Errorf("mod: %v", err)
	}
}

func BenchmarkBinary(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	x, y := normal(rng, 4, 28, 28, 128), conv.NewMap(4, 28, 28, 128)
	for name, s := range map[string][4]int{"equal": {4, 28, 28, 128}, "gate": {4, 1, 1, 128}, "channel": {1, 1, 1, 128}, "pixel": {4, 28, 28, 1}, "one": {1, 1, 1, 1}} {
		o := normal(rng, s[0], s[1], s[2], s[3])
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(4 * len(x.Data)))
			for b.Loop() {
				Times.Forward(y, x, o, 1)
			}
		})
		g := clone(o)
		b.Run(name+" backward", func(b *testing.B) {
			b.SetBytes(int64(4 * len(x.Data)))
			for b.Loop() {
				Times.Backward(g, y, x, o, true, false, 1)
			}
		})
	}
}
