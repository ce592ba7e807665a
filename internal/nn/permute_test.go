package nn

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"pgregory.net/rapid"
)

// drawView draws a strided view of a contiguous array of up to 6 dimensions: a
// permutation, with steps, reversed and repeated dimensions.
func drawView(t *rapid.T) (size int, dims []int, offset int, strides []int) {
	rank := rapid.IntRange(1, 6).Draw(t, "rank")
	var full []int
	for range rank {
		full = append(full, rapid.SampledFrom([]int{1, 2, 3, 5, 17, 40}).Draw(t, "dim"))
		if volume(full) > 20000 {
			full[len(full)-1] = 1
		}
	}
	base := contiguous(full)
	for _, i := range rapid.Permutation(slices.Collect(func(yield func(int) bool) {
		for i := range rank {
			if !yield(i) {
				return
			}
		}
	})).Draw(t, "order") {
		switch rapid.IntRange(0, 5).Draw(t, "how") {
		case 0: // a step
			start, step := rapid.IntRange(0, full[i]-1).Draw(t, "start"), rapid.IntRange(1, 3).Draw(t, "step")
			offset += start * base[i]
			dims, strides = append(dims, (full[i]-start+step-1)/step), append(strides, step*base[i])
		case 1: // reversed
			offset += (full[i] - 1) * base[i]
			dims, strides = append(dims, full[i]), append(strides, -base[i])
		case 2: // one place, and repeated
			offset += rapid.IntRange(0, full[i]-1).Draw(t, "at") * base[i]
			dims, strides = append(dims, rapid.IntRange(1, 3).Draw(t, "times")), append(strides, 0)
		default:
			dims, strides = append(dims, full[i]), append(strides, base[i])
		}
	}
	return volume(full), dims, offset, strides
}

func TestPermuteAndItsAdjointEqualTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 61))
		size, dims, offset, strides := drawView(t)
		workers := rapid.IntRange(1, 3).Draw(t, "workers")
		x, dy := normal(rng, 1, 1, 1, size).Data, normal(rng, 1, 1, 1, volume(dims)).Data
		got, dx := make([]float32, len(dy)), normal(rng, 1, 1, 1, size).Data
		add := rapid.Bool().Draw(t, "add")
		grad := make([]float64, size)
		for i, v := range dx {
			if add {
				grad[i] = float64(v)
			}
		}
		Permute(got, dims, x, offset, strides, workers)
		PermuteBackward(dx, dims, dy, offset, strides, add, workers)
		for i, v := range got {
			at, rest := offset, i
			for a := len(dims) - 1; a >= 0; a-- {
				at += rest % dims[a] * strides[a]
				rest /= dims[a]
			}
			if v != x[at] {
				t.Fatalf("value %d of %v is %g, want %g", i, dims, v, x[at])
			}
			grad[at] += float64(dy[i])
		}
		near(t, "gradient", dx, grad, 1e-6)
	})
}

func TestConcatAndItsSlicesAreInverses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 62))
		axis := rapid.IntRange(0, 3).Draw(t, "axis")
		dims := dimsOf(drawMap(t, rng))
		var xs []*conv.Map
		for range rapid.IntRange(1, 4).Draw(t, "maps") {
			dims[axis] = rapid.IntRange(1, 5).Draw(t, "places")
			xs = append(xs, normal(rng, dims[0], dims[1], dims[2], dims[3]))
		}
		y := Concat(nil, axis, 2, xs...)
		at := 0
		for _, x := range xs {
			n := dimsOf(x)[axis]
			part := Slice(nil, y, axis, at, 1, n, 2)
			if dimsOf(part) != dimsOf(x) || !slices.Equal(part.Data, x.Data) {
				t.Fatalf("a map of %v at %d of axis %d came back as another", dimsOf(x), at, axis)
			}
			twice := clone(x)
			SliceAdd(twice, y, axis, at, 1, 2)
			for i, v := range x.Data {
				if twice.Data[i] != v+v {
					t.Fatalf("%g and %g add up to %g", v, v, twice.Data[i])
				}
			}
			at += n
		}
		if at != dimsOf(y)[axis] {
			t.Fatalf("%d places, want %d", dimsOf(y)[axis], at)
		}
	})
}

func TestSliceWithStepsAndItsGradientEqualTheDefinition(t *testing.T) {
	rng := rand.New(rand.NewPCG(63, 63))
	x := normal(rng, 2, 3, 7, 5)
	y := Slice(nil, x, 2, 5, -2, 3, 1)
	dy := normal(rng, 2, 3, 3, 5)
	dx := SliceBackward(nil, dy, 2, 5, -2, 7, false, 1)
	want := conv.NewMap(2, 3, 7, 5)
	for p := range 6 {
		for i := range 3 {
			for c := range 5 {
				from, to := (p*7+5-2*i)*5+c, (p*3+i)*5+c
				if y.Data[to] != x.Data[from] {
					t.Fatalf("value %d is %g, want %g", to, y.Data[to], x.Data[from])
				}
				want.Data[from] = dy.Data[to]
			}
		}
	}
	if !slices.Equal(dx.Data, want.Data) {
		t.Error("the gradient is another")
	}
}

func BenchmarkPermute(b *testing.B) {
	x := normal(rand.New(rand.NewPCG(1, 1)), 4, 56, 56, 64)
	y := conv.NewMap(4, 56, 56, 64)
	const p = 56 * 56
	for _, c := range []struct {
		name          string
		dims, strides []int
	}{
		{"NCHW to NHWC", []int{4, p, 64}, []int{64 * p, 1, p}},
		{"NHWC to NCHW", []int{4, 64, p}, []int{64 * p, 1, 64}},
		{"RGB to NHWC", []int{85, p, 3}, []int{3 * p, 1, p}},
		{"shuffle", []int{4 * p, 16, 4}, []int{64, 1, 16}},
		{"heads", []int{4, 8, p, 8}, []int{64 * p, 8, 64, 1}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(4 * volume(c.dims)))
			for b.Loop() {
				Permute(y.Data, c.dims, x.Data, 0, c.strides, 1)
			}
		})
	}
	half := normal(rand.New(rand.NewPCG(1, 1)), 4, 56, 56, 32)
	b.Run("concat", func(b *testing.B) {
		b.SetBytes(int64(4 * len(y.Data)))
		for b.Loop() {
			Concat(y, 3, 1, half, half)
		}
	})
}
