package nn

import (
	"math"
	"testing"
)

func TestFastFunctionsAreExactInFloat32(t *testing.T) {
	for _, f := range []struct {
		name      string
		got, want func(float64) float64
		from, to  float64
	}{
		{"expm1", expm1, math.Expm1, -103, 99},
		{"tanh", tanh, math.Tanh, -50, 50},
		{"sigmoid", sigmoid, func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }, -85, 85},
		{"erf", erf, math.Erf, -11, 11},
		{"erfc", erfc, math.Erfc, -11, 9.2},
	} {
		worst := 0.
		for x := f.from; x < f.to; x += 1. / 1021 {
			worst = max(worst, math.Abs(f.got(x)/f.want(x)-1))
		}
		if !(worst <= 3e-8) { // half a unit in float32's last place
			t.Errorf("%s: the relative error is up to %g", f.name, worst)
		}
		for _, x := range []float64{math.Inf(1), math.Inf(-1), 0, 1e-30, -1e-30, 1000, -1000, math.NaN()} {
			if got, want := float32(f.got(x)), float32(f.want(x)); got != want && want == want {
				t.Errorf("%s(%g) is %g, want %g", f.name, x, got, want)
			} else if (got == got) != (want == want) {
				t.Errorf("%s(%g) is %g", f.name, x, got)
			}
		}
	}
}
