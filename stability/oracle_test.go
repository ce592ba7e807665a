package stability

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/cpd"
)

// Of a matrix the least sensitivity is 2·√(I·J) times the nuclear norm, and what has the
// least of that within a bound is the singular values less a threshold.
func TestMatricesHaveTheirSingularValuesCut(t *testing.T) {
	for seed := range uint64(3) {
		x := noisy(seed, 5, .2, 7, 5)
		var f mat.SVD
		f.Factorize(mat.NewDense(7, 5, x.Data().([]float64)), mat.SVDNone)
		s := f.Values(nil)
		var norm float64
		for _, v := range s {
			norm += v * v
		}
		norm = math.Sqrt(norm)
		for _, bound := range []float64{.1, .5, .9} {
			low, high := 0., s[0] // of the threshold
			var nuclear float64
			for range 200 {
				cut := (low + high) / 2
				var lost float64
				nuclear = 0
				for _, v := range s {
					nuclear += max(v-cut, 0)
					lost += math.Pow(min(v, cut), 2)
				}
				if math.Sqrt(lost) < bound*norm {
					low = cut
				} else {
					high = cut
				}
			}
			want := 2 * math.Sqrt(7*5) * nuclear
			r := correct(t, x, als(t, x, 5, cpd.Settings{Init: cpd.InitRandom, Seed: seed}), &Settings{Bound: bound, Tol: 1e-12, MaxSweeps: 20000})
			if math.Abs(r.After.Sensitivity-want) > 1e-4*want {
				t.Errorf("seed %d, bound %g: sensitivity %.9g, want %.9g", seed, bound, r.After.Sensitivity, want)
			}
		}
	}
}

// Of rank 1 the intensity λ² is least where ⟨X, a⊗b⊗c⟩ is largest, on a grid of angles:
// λ = p − √(p² − ‖X‖² + δ²).
func TestRankOneAgainstAllDirections(t *testing.T) {
	for seed := range uint64(3) {
		x := noisy(seed, 2, .5, 2, 2, 2)
		v := x.Data().([]float64)
		var square float64
		for _, a := range v {
			square += a * a
		}
		at := func(angles [3]float64) float64 {
			var p float64
			for i, a := range v {
				for m, angle := range angles {
					if i>>(2-m)&1 == 0 {
						a *= math.Cos(angle)
					} else {
						a *= math.Sin(angle)
					}
				}
				p += a
			}
			return math.Abs(p)
		}
		// All directions to six degrees, then ever closer to the best.
		var best float64
		var centre [3]float64
		for width := math.Pi; width > 1e-7; width /= 5 {
			const steps = 32
			from := centre
			for i := range steps * steps * steps {
				angles := from
				for m, j := range []int{i / steps / steps, i / steps % steps, i % steps} {
					angles[m] += width * (float64(j)/steps - .5)
				}
				if p := at(angles); p > best {
					best, centre = p, angles
				}
			}
		}
		start := als(t, x, 1, cpd.Settings{Starts: 5})
		for _, factor := range []float64{1.02, 1.2} {
			r := correct(t, x, start, &Settings{Objective: Intensity, Factor: factor, Tol: 1e-13, MaxSweeps: 20000})
			lambda := best - math.Sqrt(max(best*best-square+math.Pow(r.Bound, 2)*square, 0))
			if want := lambda * lambda; math.Abs(r.After.Intensity-want) > 1e-5*want {
				t.Errorf("seed %d, factor %g: intensity %g, the best direction has %g", seed, factor, r.After.Intensity, want)
			}
		}
	}
}

// From components that have grown a thousandfold a tight bound is met by way of loose
// ones.
func TestStepsLeadFromDegenerateStarts(t *testing.T) {
	const n = 1000
	u := mat.NewDense(2, 2, []float64{1, 1, 1. / n, 0})
	start := &cpd.Kruskal{Weights: []float64{n, -n}, Factors: []*mat.Dense{u, u, u}}
	for _, c := range []struct {
		objective Objective
		want      float64
	}{{Intensity, 51.507244128}, {Sensitivity, 104.650214969}} {
		set := &Settings{Objective: c.objective, Bound: .01 / math.Sqrt(3), Steps: 8, MaxSweeps: 5000, Tol: 1e-13, Patience: 20}
		r := correct(t, border(), start, set)
		got := r.After.Sensitivity
		if c.objective == Intensity {
			got = r.After.Intensity
		}
		if math.Abs(got-c.want) > 1e-6*c.want || r.Raised {
			t.Errorf("%s %.9f in %d sweeps, want %.9f", c.objective, got, r.Sweeps, c.want)
		}
	}
	x := multiplication(2, 2, 2)
	for seed := range uint64(2) {
		start := als(t, x, 7, cpd.Settings{Init: cpd.InitRandom, Seed: seed, MaxSweeps: 3000, Tol: 1e-12, Starts: 5})
		for _, c := range []struct {
			objective Objective
			want      float64
		}{{Intensity, 21.16863}, {Sensitivity, 170.8728}} {
			r := correct(t, x, start, &Settings{Objective: c.objective, Bound: .03 / math.Sqrt(8), Steps: 5, MaxSweeps: 2000, Tol: 1e-12, Patience: 20})
			got := r.After.Sensitivity
			if c.objective == Intensity {
				got = r.After.Intensity
			}
			t.Logf("%s %.6f in %d sweeps", c.objective, got, r.Sweeps)
			if math.Abs(got-c.want) > 1e-4 || r.Raised {
				t.Errorf("%s %.6f in %d sweeps, want %.5f", c.objective, got, r.Sweeps, c.want)
			}
		}
	}
}

// The product of 3×3 matrices at rank 23: the more sweeps of least squares the larger
// the components; corrected they stay small.
func TestLaderman(t *testing.T) {
	x := multiplication(3, 3, 3)
	var before, after []float64
	for _, sweeps := range []int{100, 1000} {
		start := als(t, x, 23, cpd.Settings{Init: cpd.InitRandom, Seed: 1, MaxSweeps: sweeps, Tol: 1e-300, Starts: 1})
		r := correct(t, x, start, &Settings{Objective: Intensity, Factor: 1.05})
		before, after = append(before, r.Before.Intensity), append(after, r.After.Intensity)
	}
	if before[1] < 5*before[0] || max(after[0], after[1]) > 60 {
		t.Errorf("intensities %.0f of fits become %.1f", before, after)
	}
}
