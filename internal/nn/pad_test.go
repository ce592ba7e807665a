package nn

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"pgregory.net/rapid"
)

// padSource walks from the edge of n places one step at a time, as each mode says; -1 is
// the constant.
func padSource(mode string, i, n int) int {
	at, dir := 0, 1
	if i < 0 {
		dir = -1
	}
	for range max(i, -i) {
		switch next := at + dir; {
		case mode == "" || mode == "constant":
			at = next
		case next >= 0 && next < n:
			at = next
		case mode == "edge":
		case mode == "wrap":
			at = (next + n) % n
		case n > 1: // reflect
			dir = -dir
			at += dir
		}
	}
	if at < 0 || at >= n {
		return -1
	}
	return at
}

func TestPadAndItsGradientEqualTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 81))
		x := drawMap(t, rng)
		p := Pad{Mode: rapid.SampledFrom([]string{"", "constant", "reflect", "edge", "wrap"}).Draw(t, "mode"), Value: 2.5}
		in := dimsOf(x)
		want := in
		for a, n := range in {
			if a == 1 || a == 2 || p.constant() {
				p.Begin[a] = rapid.IntRange(-n+1, 5).Draw(t, "begin")
				p.End[a] = rapid.IntRange(max(1-n-p.Begin[a], 1-n), 5).Draw(t, "end")
			}
			want[a] += p.Begin[a] + p.End[a]
		}
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		if out, err := p.OutputSize(in); err != nil || out != want {
			t.Fatalf("%v (%v), want %v", out, err, want)
		}
		workers := rapid.IntRange(1, 3).Draw(t, "workers")
		y := p.Forward(nil, x, workers)
		if dimsOf(y) != want {
			t.Fatalf("%v, want %v", dimsOf(y), want)
		}
		dy, before := normal(rng, y.N, y.H, y.W, y.C), normal(rng, x.N, x.H, x.W, x.C)
		add := rapid.Bool().Draw(t, "add")
		grad := make([]float64, len(x.Data))
		if add {
			widen(grad, before.Data)
		}
		for i, v := range y.Data {
			place := [4]int{i / y.C / y.W / y.H, i / y.C / y.W % y.H, i / y.C % y.W, i % y.C}
			at, outside := 0, false
			for a, o := range place {
				s := padSource(p.Mode, o-p.Begin[a], in[a])
				outside = outside || s < 0
				at = at*in[a] + s
			}
			if outside {
				if v != p.Value {
					t.Fatalf("%+v: value %v is %g", p, place, v)
				}
				continue
			}
			if v != x.Data[at] {
				t.Fatalf("%+v: value %v is %g, want %g", p, place, v, x.Data[at])
			}
			grad[at] += float64(dy.Data[i])
		}
		near(t, "gradient", p.Backward(clone(before), dy, in, add, workers).Data, grad, 1e-5)
	})
}

func TestPadsThatAreNoneAreErrors(t *testing.T) {
	for _, p := range []Pad{{Mode: "mirror"}, {Mode: "edge", Begin: [4]int{0, 0, 0, 1}}, {Begin: [4]int{1 << 30}, End: [4]int{1 << 30}}} {
		if err := p.Validate(); !errors.Is(err, conv.ErrShape) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	p := Pad{Begin: [4]int{0, -3, 0, 0}, End: [4]int{0, 5, 0, 0}}
	if _, err := p.OutputSize([4]int{1, 3, 3, 3}); !errors.Is(err, conv.ErrShape) {
		t.Errorf("of nothing that is its own: %v", err)
	}
}
