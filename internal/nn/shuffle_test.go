package nn

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"pgregory.net/rapid"
)

func TestDepthToSpaceAndItsInverseEqualTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 111))
		b, c := rapid.IntRange(1, 4).Draw(t, "block"), rapid.IntRange(1, 9).Draw(t, "c")
		x := normal(rng, rapid.IntRange(1, 3).Draw(t, "n"), rapid.IntRange(1, 5).Draw(t, "h"), rapid.IntRange(1, 5).Draw(t, "w"), b*b*c)
		columns, workers := rapid.Bool().Draw(t, "CRD"), rapid.IntRange(1, 3).Draw(t, "workers")
		y := DepthToSpace(nil, x, b, columns, false, workers)
		if dimsOf(y) != [4]int{x.N, x.H * b, x.W * b, c} {
			t.Fatalf("%v", dimsOf(y))
		}
		for i, v := range y.Data {
			ch, px, py, n := i%c, i/c%y.W, i/c/y.W%y.H, i/c/y.W/y.H
			from := (py%b*b+px%b)*c + ch // DCR
			if columns {
				from = ch*b*b + py%b*b + px%b
			}
			if want := x.Data[((n*x.H+py/b)*x.W+px/b)*x.C+from]; v != want {
				t.Fatalf("value %d is %g, want %g", i, v, want)
			}
		}
		if back := SpaceToDepth(nil, y, b, columns, false, workers); dimsOf(back) != dimsOf(x) || !slices.Equal(back.Data, x.Data) {
			t.Fatal("the inverse is another map")
		}
		twice := SpaceToDepth(clone(x), y, b, columns, true, workers)
		for i, v := range x.Data {
			if twice.Data[i] != 2*v {
				t.Fatalf("added to itself, %g is %g", v, twice.Data[i])
			}
		}
	})
}

func TestChannelShuffleEqualsTheDefinition(t *testing.T) {
	x := normal(rand.New(rand.NewPCG(1, 1)), 2, 3, 3, 12)
	y := ChannelShuffle(nil, x, 3, false, 2)
	for i, v := range y.Data {
		if c := i % 12; v != x.Data[i-c+c%3*4+c/3] {
			t.Fatalf("value %d is %g", i, v)
		}
	}
	if back := ChannelShuffle(nil, y, 4, false, 2); !slices.Equal(back.Data, x.Data) {
		t.Error("the shuffle back is another map")
	}
}

func TestDropoutDropsTheRateAndKeepsTheMean(t *testing.T) {
	x := conv.NewMap(64, 8, 8, 32)
	for i := range x.Data {
		x.Data[i] = 1
	}
	d := Dropout{Rate: .25}
	y := d.Forward(nil, x, 7, 2)
	count := 0
	for _, v := range y.Data {
		if v != 0 && math.Abs(float64(v)-4./3) > 1e-6 {
			t.Fatalf("a value of 1 became %g", v)
		}
		if v == 0 {
			count++
		}
	}
	n := float64(len(y.Data))
	if sigma := math.Sqrt(n * .25 * .75); math.Abs(float64(count)-.25*n) > 4*sigma {
		t.Errorf("%d of %g values are dropped", count, n)
	}
	if again := d.Backward(nil, x, 7, false, 1); !slices.Equal(again.Data, y.Data) {
		t.Error("the backward pass drops other values")
	}
	// Seeds that differ anywhere, as those of the passes of a learner do, drop others: two
	// draws agree where both keep or both drop.
	for _, seed := range []uint64{8, 7 + 1<<16, 7 + 1<<48} {
		same := 0
		for i, v := range d.Forward(nil, x, seed, 1).Data {
			if v == y.Data[i] {
				same++
			}
		}
		p := .75*.75 + .25*.25
		if sigma := math.Sqrt(n * p * (1 - p)); math.Abs(float64(same)-p*n) > 4*sigma {
			t.Errorf("seed %d agrees with seed 7 in %d of %g values", seed, same, n)
		}
	}
	twice := d.Backward(clone(y), x, 7, true, 3)
	for i, v := range y.Data {
		if twice.Data[i] != 2*v {
			t.Fatalf("%g added to itself is %g", v, twice.Data[i])
		}
	}
}
