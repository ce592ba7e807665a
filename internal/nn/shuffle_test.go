package nn

import (
	"errors"
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
	for _, of := range []DropUnit{DropValues, DropChannels, DropMaps} {
		d := Dropout{Rate: .25, Of: of}
		if err := d.Validate(); err != nil {
			t.Error(err)
		}
		y := d.Forward(nil, x, 7, 3, 2)
		unit := map[DropUnit]func(i int) int{
			DropValues: func(i int) int { return i }, DropChannels: func(i int) int { return i/(64*32)*32 + i%32 }, DropMaps: func(i int) int { return i / (64 * 32) },
		}[of]
		dropped := map[int]bool{}
		for i, v := range y.Data {
			if v != 0 && math.Abs(float64(v)-4./3) > 1e-6 {
				t.Fatalf("a value of 1 became %g", v)
			}
			if was, seen := dropped[unit(i)]; seen && was != (v == 0) {
				t.Fatalf("unit %d is dropped in part", unit(i))
			}
			dropped[unit(i)] = v == 0
		}
		count := 0
		for _, d := range dropped {
			if d {
				count++
			}
		}
		n := float64(len(dropped))
		if sigma := math.Sqrt(n * .25 * .75); math.Abs(float64(count)-.25*n) > 4*sigma {
			t.Errorf("%d of %g units are dropped", count, n)
		}
		if again := d.Backward(nil, x, 7, 3, false, 1); !slices.Equal(again.Data, y.Data) {
			t.Error("the backward pass drops other values")
		}
		for _, other := range []*conv.Map{d.Forward(nil, x, 7, 4, 1), d.Forward(nil, x, 8, 3, 1)} {
			if slices.Equal(other.Data, y.Data) {
				t.Error("another step or seed drops the same")
			}
		}
		twice := d.Backward(clone(y), x, 7, 3, true, 3)
		for i, v := range y.Data {
			if twice.Data[i] != 2*v {
				t.Fatalf("%g added to itself is %g", v, twice.Data[i])
			}
		}
	}
	for _, rate := range []float64{-.1, 1, math.NaN()} {
		if err := (Dropout{Rate: rate}).Validate(); !errors.Is(err, conv.ErrShape) {
			t.Errorf("a rate of %g: %v", rate, err)
		}
	}
}
