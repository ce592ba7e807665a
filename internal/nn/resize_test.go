package nn

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"pgregory.net/rapid"
)

// resizeShares is the share of each input in output i, by the kernels of Keys 1981 over
// the axis with its edges repeated, in float64; near a tie of "nearest" it is nil.
func resizeShares(r Resize, axis, i, in, out int) []float64 {
	s := float64(out) / float64(in)
	if r.Scale[axis] > 0 {
		s = r.Scale[axis]
	}
	x := (float64(i)+.5)/s - .5
	switch r.Coordinates {
	case "asymmetric":
		x = float64(i) / s
	case "align_corners":
		x = float64(i) * float64(in-1) / float64(max(out-1, 1))
	case "pytorch_half_pixel":
		if out == 1 {
			x = 0
		}
	case "half_pixel_symmetric":
		x += float64(in) / 2 * (1 - float64(out)/(s*float64(in)))
	}
	a := r.CubicA
	if a == 0 {
		a = -.75
	}
	kernel := func(d float64) float64 {
		d = math.Abs(d)
		switch {
		case r.Mode == "linear":
			return math.Max(0, 1-d)
		case d <= 1:
			return (a+2)*d*d*d - (a+3)*d*d + 1
		case d < 2:
			return a*d*d*d - 5*a*d*d + 8*a*d - 4*a
		}
		return 0
	}
	if r.Mode == "nearest" {
		tie := .5
		var at float64
		switch r.Rounding {
		case "floor":
			at, tie = math.Floor(x), 0
		case "ceil":
			at, tie = math.Ceil(x), 0
		default:
			at = math.Round(x)
		}
		if f := x - math.Floor(x) - tie; math.Abs(f-math.Round(f)) < 1e-4 {
			return nil
		}
		x = at
		kernel = func(d float64) float64 {
			if d == 0 {
				return 1
			}
			return 0
		}
	}
	shares := make([]float64, in)
	total := 0.
	for j := -in - 8; j < 2*in+8; j++ {
		if r.Mode == "cubic" && r.ExcludeOutside && (j < 0 || j >= in) {
			continue
		}
		w := kernel(x - float64(j))
		total += w
		shares[min(max(j, 0), in-1)] += w
	}
	if r.Mode == "cubic" && r.ExcludeOutside {
		for j := range shares {
			shares[j] /= total
		}
	}
	return shares
}

func drawResize(t *rapid.T) Resize {
	r := Resize{
		Mode:           rapid.SampledFrom([]string{"nearest", "linear", "cubic"}).Draw(t, "mode"),
		Coordinates:    rapid.SampledFrom([]string{"", "half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric"}).Draw(t, "coordinates"),
		Rounding:       rapid.SampledFrom([]string{"", "round_prefer_floor", "round_prefer_ceil", "floor", "ceil"}).Draw(t, "rounding"),
		CubicA:         rapid.SampledFrom([]float64{0, -.5}).Draw(t, "a"),
		ExcludeOutside: rapid.Bool().Draw(t, "exclude"),
	}
	return r
}

func TestResizeAndItsGradientEqualTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 71))
		x := drawMap(t, rng)
		r := drawResize(t)
		h, w := rapid.IntRange(1, 20).Draw(t, "oh"), rapid.IntRange(1, 20).Draw(t, "ow")
		if rapid.Bool().Draw(t, "scales") {
			r.Scale = [2]float64{rapid.Float64Range(.3, 3).Draw(t, "sy"), rapid.Float64Range(.3, 3).Draw(t, "sx")}
			h, w = max(int(r.Scale[0]*float64(x.H)), 1), max(int(r.Scale[1]*float64(x.W)), 1)
		}
		if err := r.Validate(); err != nil {
			t.Fatal(err)
		}
		workers := rapid.IntRange(1, 3).Draw(t, "workers")
		y := r.Forward(nil, x, h, w, workers)
		if y.H != h || y.W != w || y.N != x.N || y.C != x.C {
			t.Fatalf("%d×%d, want %d×%d", y.H, y.W, h, w)
		}
		dy, before := normal(rng, x.N, h, w, x.C), normal(rng, x.N, x.H, x.W, x.C)
		add := rapid.Bool().Draw(t, "add")
		grad := make([]float64, len(x.Data))
		if add {
			widen(grad, before.Data)
		}
		ties := false
		for oy := range h {
			rows := resizeShares(r, 0, oy, x.H, h)
			for ox := range w {
				cols := resizeShares(r, 1, ox, x.W, w)
				if rows == nil || cols == nil {
					ties = true
					continue
				}
				for n := range x.N {
					for c := range x.C {
						sum, at := 0., ((n*h+oy)*w+ox)*x.C+c
						for i, p := range rows {
							for j, q := range cols {
								sum += p * q * float64(x.Data[((n*x.H+i)*x.W+j)*x.C+c])
								grad[((n*x.H+i)*x.W+j)*x.C+c] += p * q * float64(dy.Data[at])
							}
						}
						if d := math.Abs(sum - float64(y.Data[at])); d > 2e-4 {
							t.Fatalf("%+v: output %d, %d is %g, want %g", r, oy, ox, y.Data[at], sum)
						}
					}
				}
			}
		}
		dx := r.Backward(clone(before), dy, x.H, x.W, add, workers)
		if !ties {
			near(t, "gradient", dx.Data, grad, 1e-3)
		}
	})
}

// Where a place is between two inputs exactly, the rounding decides.
func TestNearestRoundsTiesAsTold(t *testing.T) {
	x := &conv.Map{N: 1, H: 1, W: 4, C: 1, Data: []float32{0, 1, 2, 3}}
	for rounding, want := range map[string][2]float32{
		"": {0, 2}, "round_prefer_floor": {0, 2}, "round_prefer_ceil": {1, 3}, "floor": {0, 2}, "ceil": {1, 3},
	} {
		r := Resize{Mode: "nearest", Rounding: rounding} // places ½ and 2½
		if y := r.Forward(nil, x, 1, 2, 1); [2]float32(y.Data) != want {
			t.Errorf("%q gives %v, want %v", rounding, y.Data, want)
		}
	}
}

func TestResizesThatAreNoneAreErrors(t *testing.T) {
	for _, r := range []Resize{{}, {Mode: "linear", Coordinates: "x"}, {Mode: "nearest", Rounding: "up"}, {Mode: "linear", Scale: [2]float64{-1, 1}}, {Mode: "linear", Scale: [2]float64{math.NaN(), 1}}, {Mode: "cubic", CubicA: math.Inf(1)}} {
		if err := r.Validate(); !errors.Is(err, conv.ErrShape) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}
