package linalg

import (
	"math"
	"math/rand/v2"
	"testing"
)

// The optimum has no descent: gradients vanish where entries are positive, and are
// not negative where they are zero.
func TestNonNegativeEndsAtTheOptimum(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	for _, r := range []int{1, 2, 5, 9} {
		const rows, tall = 6, 30
		h := make([]float64, tall*r)
		for i := range h {
			h[i] = rng.NormFloat64()
		}
		gamma, m, u := make([]float64, r*r), make([]float64, rows*r), make([]float64, rows*r)
		for a := range r {
			for b := range r {
				for k := range tall {
					gamma[a*r+b] += h[k*r+a] * h[k*r+b]
				}
			}
		}
		for i := range m {
			m[i] = 10 * rng.NormFloat64()
			u[i] = rng.Float64()
		}
		value := func() (f float64) {
			for i := 0; i < len(u); i += r {
				for a := range r {
					f -= u[i+a] * m[i+a]
					for b := range r {
						f += u[i+a] * gamma[a*r+b] * u[i+b] / 2
					}
				}
			}
			return f
		}
		last := math.Inf(1)
		for range 200 {
			NonNegative(u, gamma, m, r)
			f := value()
			if f > last+1e-9 {
				t.Fatalf("the value rises from %g to %g", last, f)
			}
			last = f
		}
		for i := 0; i < len(u); i += r {
			for c := range r {
				g := -m[i+c]
				for k := range r {
					g += u[i+k] * gamma[k*r+c]
				}
				if u[i+c] < 0 || g < -1e-3 || u[i+c] > 0 && math.Abs(g) > 1e-3 {
					t.Errorf("entry %g has gradient %g", u[i+c], g)
				}
			}
		}
	}
}
