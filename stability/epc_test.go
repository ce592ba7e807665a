package stability

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/internal/hadamard"
	"github.com/lowrank-go/lowrank/internal/tensorops"
)

var bg = context.Background()

// border is e₁e₁e₂ + e₁e₂e₁ + e₂e₁e₁, of rank 3 and border rank 2.
func border() *tensor.Dense {
	return tensorops.Wrap([]int{2, 2, 2}, []float64{0, 1, 1, 0, 1, 0, 0, 0})
}

// multiplication is the tensor of the product of an a×b and a b×c matrix.
func multiplication(a, b, c int) *tensor.Dense {
	v := make([]float64, a*b*b*c*c*a)
	for i := range a {
		for j := range b {
			for k := range c {
				v[((i*b+j)*b*c+j*c+k)*c*a+k*a+i] = 1
			}
		}
	}
	return tensorops.Wrap([]int{a * b, b * c, c * a}, v)
}

func als(t testing.TB, x *tensor.Dense, rank int, set cpd.Settings) *cpd.Kruskal {
	t.Helper()
	r, err := cpd.ALS(bg, x, rank, &set)
	if err != nil {
		t.Fatal(err)
	}
	return &r.Kruskal
}

// norms are ‖X‖ and ‖X − X̂‖/‖X‖ by their definition.
func norms(t testing.TB, x *tensor.Dense, k *cpd.Kruskal) (norm, relError float64) {
	t.Helper()
	y, err := k.Reconstruct()
	if err != nil {
		t.Fatal(err)
	}
	a, b := x.Data().([]float64), y.Data().([]float64)
	var num, den float64
	for i, v := range a {
		num += (v - b[i]) * (v - b[i])
		den += v * v
	}
	return math.Sqrt(den), math.Sqrt(num / den)
}

// correct runs EPC and checks what holds for every result.
func correct(t testing.TB, x *tensor.Dense, start *cpd.Kruskal, set *Settings) *Result {
	t.Helper()
	r, err := EPC(bg, x, start, set)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	_, e := norms(t, x, &r.Kruskal)
	if math.Abs(e-r.After.RelError) > 1e-9 || e > r.Bound*(1+1e-7) {
		t.Errorf("error %g is reported as %g, the bound is %g", e, r.After.RelError, r.Bound)
	}
	if i := r.Kruskal.Intensity(); math.Abs(i-r.After.Intensity) > 1e-9*(1+i) {
		t.Errorf("intensity %g is reported as %g", i, r.After.Intensity)
	}
	// Balanced for the sizes that count.
	if s := r.Kruskal.Sensitivity(); math.Abs(s-r.After.Sensitivity) > 1e-9*(1+s) {
		t.Errorf("sensitivity %g is reported as %g", s, r.After.Sensitivity)
	}
	steps := set != nil && set.Steps > 1 // in which the objective may rise
	for i := 1; i < len(r.Objectives) && !steps; i++ {
		if r.Objectives[i] > r.Objectives[i-1]*(1+1e-8) {
			t.Errorf("sweep %d raises the objective from %.12g to %.12g", i+1, r.Objectives[i-1], r.Objectives[i])
			break
		}
	}
	return r
}

// optimum checks objective and error against digits that other solvers found, from
// any start.
func optimum(t *testing.T, x *tensor.Dense, norm float64, start *cpd.Kruskal, delta, intensity, sensitivity, digits float64) {
	t.Helper()
	for _, objective := range []Objective{Sensitivity, Intensity} {
		r := correct(t, x, start, &Settings{Objective: objective, Bound: delta / norm, MaxSweeps: 5000, Tol: 1e-13, Patience: 20})
		got, want := r.After.Sensitivity, sensitivity
		if objective == Intensity {
			got, want = r.After.Intensity, intensity
		}
		if math.Abs(got-want) > digits {
			t.Errorf("δ = %g: least %s %.9f, want %.9f", delta, objective, got, want)
		}
		if e := r.After.RelError * norm; math.Abs(e-delta) > 1e-9 {
			t.Errorf("δ = %g: error %.12g", delta, e)
		}
	}
}

// Of the W tensor at rank 2 (the limits 2 and 12 at δ = ½ are exact).
func TestBorderRankOptima(t *testing.T) {
	for seed := range uint64(3) {
		start := als(t, border(), 2, cpd.Settings{Init: cpd.InitRandom, Seed: seed, MaxSweeps: 300, Tol: 1e-12})
		optimum(t, border(), math.Sqrt(3), start, 1, .636721106, 5.594922557, 2e-9)
		optimum(t, border(), math.Sqrt(3), start, .5, 2, 12, 1e-8)
		optimum(t, border(), math.Sqrt(3), start, .2, 4.003199869, 19.058970220, 1e-8)
		optimum(t, border(), math.Sqrt(3), start, .1, 6.543770477, 26.447215519, 1e-8)
	}
}

// The product of 2×2 matrices at rank 7: the same optimum from every start.
func TestMatrixMultiplicationOptima(t *testing.T) {
	for seed := range uint64(2) {
		x := multiplication(2, 2, 2)
		start := als(t, x, 7, cpd.Settings{Init: cpd.InitRandom, Seed: seed, MaxSweeps: 3000, Tol: 1e-12, Starts: 5})
		optimum(t, x, math.Sqrt(8), start, 1, 5.53659, 71.83063, 1e-5)
		optimum(t, x, math.Sqrt(8), start, .3, 14.22913, 133.36212, 1e-5)
		optimum(t, x, math.Sqrt(8), start, .1, 18.97847, 159.79219, 1e-5)
	}
}

// integers is the example of a single update: X[i,j,k] = ((7i+3j+5k) mod 11) − 5.
func integers(objective Objective) (*epc, []float64) {
	shape := []int{2, 3, 4}
	x := make([]float64, 24)
	for at := range x {
		x[at] = float64((7*(at/12)+3*(at/4%3)+5*(at%4))%11 - 5)
	}
	norm := tensorops.Norm(x)
	for i := range x {
		x[i] /= norm
	}
	e := &epc{set: Settings{Objective: objective}, shape: shape, sizes: shape, data: x, scale: 1, norm: norm, rank: 2, mu: make([]float64, 3)}
	e.u = [][]float64{make([]float64, 4), {1, 0, 1, 1, 0, 1}, {1, 1, 0, 1, 1, 1, 1, -1}}
	for n := range e.u {
		e.g = append(e.g, make([]float64, 4))
		e.gram(n)
	}
	var m []float64
	_ = tensorops.NewTree[float64](1, shape, 2).Each(x, e.u, func(n int, v []float64) error {
		if n == 0 {
			m = append(m, v...)
		}
		return nil
	})
	return e, m
}

func TestASingleUpdateSolvesTheExample(t *testing.T) {
	for _, c := range []struct {
		objective Objective
		weights   []float64 // nil is 1
		delta2    float64
		mu        float64
		value     float64
		u         []float64
	}{
		{Intensity, []float64{1, 1}, 225.221276596, 3.75395851441, 1.57900483761, []float64{-.299309681464, -1.080545784041, .481926421113, .299309681464}},
		{Intensity, []float64{1, 1}, 236.234042553, 19.7385950635, .288470342286, nil},
		{Sensitivity, []float64{17, 20}, 225.221276596, .194104089815, 30.5658728902, nil},
		{Sensitivity, []float64{17, 20}, 236.234042553, 1.0190890445, 5.58853815191, nil},
	} {
		e, m := integers(c.objective)
		e.bound = c.delta2 / 250
		e.gamma = make([]float64, 4)
		hadamard.All(e.gamma, e.g, 0)
		if c.objective == Sensitivity {
			if w := e.weights(0); w[0] != c.weights[0] || w[1] != c.weights[1] {
				t.Errorf("weights %v, want %v", w, c.weights)
			}
		}
		if err := e.search(0, m, c.weights); err != nil {
			t.Fatal(err)
		}
		var value float64
		for i, v := range e.u[0] {
			v *= e.norm
			value += c.weights[i%2] * v * v
			if c.u != nil && math.Abs(v-c.u[i]) > 1e-7 {
				t.Errorf("entry %d is %.12f, want %.12f", i, v, c.u[i])
			}
		}
		if math.Abs(e.mu[0]-c.mu) > 1e-7*c.mu || math.Abs(value-c.value) > 1e-7*c.value {
			t.Errorf("%s, δ² = %g: multiplier %.10g, value %.10g; want %.10g, %.10g", c.objective, c.delta2, e.mu[0], value, c.mu, c.value)
		}
	}
}

// noisy is a tensor of normal components and noise.
func noisy(seed uint64, rank int, noise float64, shape ...int) *tensor.Dense {
	rng := rand.New(rand.NewPCG(seed, 1))
	k := &cpd.Kruskal{}
	for _, d := range shape {
		v := make([]float64, d*rank)
		for i := range v {
			v[i] = rng.NormFloat64()
		}
		k.Factors = append(k.Factors, mat.NewDense(d, rank, v))
	}
	x, err := k.Reconstruct()
	if err != nil {
		panic(err)
	}
	v := x.Data().([]float64)
	size := noise * tensorops.Norm(v) / math.Sqrt(float64(len(v)))
	for i := range v {
		v[i] += size * rng.NormFloat64()
	}
	return x
}

func TestAnyTensorKeepsTheBoundAndGainsStability(t *testing.T) {
	for i, shape := range [][]int{{9, 8}, {8, 7, 6}, {12, 1, 9}, {5, 6, 4, 3}, {16, 16, 9}} {
		x := noisy(uint64(i), 4, .3, shape...)
		start := als(t, x, 6, cpd.Settings{MaxSweeps: 200})
		for _, objective := range []Objective{Sensitivity, Intensity} {
			r := correct(t, x, start, &Settings{Objective: objective, Factor: 1.05})
			before, after := r.Before.Sensitivity, r.After.Sensitivity
			if objective == Intensity {
				before, after = r.Before.Intensity, r.After.Intensity
			}
			if after > before*(1+1e-9) || r.Raised {
				t.Errorf("%v: %s %g becomes %g, raised %v", shape, objective, before, after, r.Raised)
			}
		}
	}
}

func TestOrderAndScaleOfComponentsDoNotMatter(t *testing.T) {
	x := noisy(3, 3, .3, 7, 6, 5)
	k := als(t, x, 4, cpd.Settings{MaxSweeps: 100})
	other := k.Normalized()
	order := []int{2, 0, 3, 1}
	for n, u := range k.Normalized().Factors {
		for c, o := range order {
			for i := range k.Shape()[n] {
				other.Factors[n].Set(i, c, u.At(i, o)*[]float64{-3, .5, -2. / 3}[n])
			}
		}
	}
	for c, o := range order {
		other.Weights[c] = k.Normalized().Weights[o]
	}
	set := &Settings{Factor: 1.05, Tol: 1e-12, MaxSweeps: 3000}
	a, b := correct(t, x, k, set), correct(t, x, other, set)
	if math.Abs(a.After.Sensitivity-b.After.Sensitivity) > 1e-6*a.After.Sensitivity {
		t.Errorf("sensitivity %g, and %g of the same in another order and scale", a.After.Sensitivity, b.After.Sensitivity)
	}
	// And in other units.
	v := append([]float64(nil), x.Data().([]float64)...)
	for i := range v {
		v[i] *= 1e150
	}
	large := k.Clone()
	large.Factors[0].Scale(1e150, large.Factors[0])
	c := correct(t, tensorops.Wrap(x.Shape(), v), large, set)
	if math.Abs(c.After.RelError-a.After.RelError) > 1e-9 || math.Abs(c.After.Intensity/a.After.Intensity*1e-150*1e-150-1) > 1e-6 {
		t.Errorf("in other units: error %g, intensity %g; want %g, %g", c.After.RelError, c.After.Intensity, a.After.RelError, a.After.Intensity)
	}
}

// Noise on the factors raises the squared error by its variance times the
// sensitivity.
func TestPerturbationCostsWhatSensitivityPredicts(t *testing.T) {
	x := noisy(5, 4, .3, 10, 9, 8)
	r := correct(t, x, als(t, x, 5, cpd.Settings{MaxSweeps: 200}), nil)
	rng := rand.New(rand.NewPCG(4, 4))
	const trials, sigma = 300, 1e-3
	base, err := r.Reconstruct()
	if err != nil {
		t.Fatal(err)
	}
	var mean float64
	for range trials {
		k := r.Kruskal.Clone()
		for _, u := range k.Factors {
			u.Apply(func(_, _ int, v float64) float64 { return v + sigma*rng.NormFloat64() }, u)
		}
		y, err := k.Reconstruct()
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range y.Data().([]float64) {
			d := v - base.Data().([]float64)[i]
			mean += d * d / trials
		}
	}
	if got := mean / (sigma * sigma); math.Abs(got-r.After.Sensitivity) > .1*r.After.Sensitivity {
		t.Errorf("the squared error grows by %g a unit of variance, the sensitivity is %g", got, r.After.Sensitivity)
	}
}

func TestABoundOutOfReachIsRaised(t *testing.T) {
	x := noisy(6, 5, .5, 8, 7, 6)
	r := correct(t, x, als(t, x, 2, cpd.Settings{}), &Settings{Bound: .01})
	if !r.Raised || r.Bound < .3 || r.After.Sensitivity > r.Before.Sensitivity*(1+1e-6) {
		t.Errorf("raised %v to %g, sensitivity %g after %g", r.Raised, r.Bound, r.After.Sensitivity, r.Before.Sensitivity)
	}
	// A poor start is brought within a bound that the rank can keep.
	poor := als(t, x, 5, cpd.Settings{MaxSweeps: 1, Plain: true})
	if r := correct(t, x, poor, &Settings{Bound: .55}); r.Raised || r.After.RelError > .55*(1+1e-9) {
		t.Errorf("from an error of %g: raised %v, error %g", r.Before.RelError, r.Raised, r.After.RelError)
	}
}

func TestTargetIsReachedAtTheLeastError(t *testing.T) {
	x := noisy(7, 5, .3, 9, 8, 7)
	start := als(t, x, 8, cpd.Settings{})
	for _, objective := range []Objective{Sensitivity, Intensity} {
		loose := correct(t, x, start, &Settings{Objective: objective, Factor: 1.3})
		target := loose.After.Sensitivity
		if objective == Intensity {
			target = loose.After.Intensity
		}
		r, err := EPC(bg, x, start, &Settings{Objective: objective, Target: target * 1.0001})
		if err != nil {
			t.Fatal(err)
		}
		got := r.After.Sensitivity
		if objective == Intensity {
			got = r.After.Intensity
		}
		if got > target*1.001 || r.After.RelError > loose.After.RelError*1.01 {
			t.Errorf("%s %g at error %g; %g was had at %g", objective, got, r.After.RelError, target, loose.After.RelError)
		}
	}
}

func TestZeroTensorsComponentsAndBounds(t *testing.T) {
	zero := tensorops.Wrap([]int{3, 4}, make([]float64, 12))
	start := als(t, noisy(1, 1, 0, 3, 4), 2, cpd.Settings{})
	r, err := EPC(bg, zero, start, nil)
	if err != nil || r.Kruskal.Norm() != 0 {
		t.Errorf("zero tensor: %+v, %v", r, err)
	}
	// With a bound of the norm nothing need be left.
	x := noisy(2, 2, .1, 5, 4, 3)
	if r := correct(t, x, als(t, x, 2, cpd.Settings{}), &Settings{Bound: 1}); r.Kruskal.Norm() != 0 {
		t.Errorf("bound 1: norm %g", r.Kruskal.Norm())
	}
	// A zero component stays zero and harms none.
	k := als(t, x, 3, cpd.Settings{})
	for i := range 4 {
		k.Factors[1].Set(i, 2, 0)
	}
	correct(t, x, k, &Settings{Factor: 1.1})
}

func TestCorrectionDoesNotDependOnWorkers(t *testing.T) {
	x := noisy(8, 6, .3, 40, 30, 9)
	start := als(t, x, 12, cpd.Settings{MaxSweeps: 30})
	var first *Result
	for _, workers := range []int{1, 2, 3} {
		r := correct(t, x, start, &Settings{Workers: workers, MaxSweeps: 6})
		if first == nil {
			first = r
		}
		for n, u := range r.Factors {
			if !mat.Equal(u, first.Factors[n]) {
				t.Errorf("%d workers: factor %d differs", workers, n)
			}
		}
	}
}

func TestCancelledCorrectionKeepsTheBestSoFar(t *testing.T) {
	x := noisy(8, 6, .3, 10, 9, 8)
	start := als(t, x, 8, cpd.Settings{})
	ctx, cancel := context.WithCancel(bg)
	r, err := EPC(ctx, x, start, &Settings{Factor: 1.05, Tol: 1e-15, Progress: func(sweep int, _, _ float64) {
		if sweep == 2 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || r == nil || r.Sweeps != 2 || r.Status != Cancelled || r.After.Sensitivity >= r.Before.Sensitivity {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestBadSettingsAreErrors(t *testing.T) {
	x := noisy(1, 2, .1, 4, 3, 2)
	start := als(t, x, 2, cpd.Settings{})
	nan := start.Clone()
	nan.Factors[0].Set(0, 0, math.NaN())
	for name, c := range map[string]struct {
		start *cpd.Kruskal
		set   *Settings
	}{
		"no start":       {nil, nil},
		"empty start":    {&cpd.Kruskal{}, nil},
		"other shape":    {als(t, noisy(1, 2, .1, 3, 4, 2), 2, cpd.Settings{}), nil},
		"NaN":            {nan, nil},
		"two bounds":     {start, &Settings{Bound: .1, Factor: 1.1}},
		"negative":       {start, &Settings{Bound: -.1}},
		"NaN bound":      {start, &Settings{Factor: math.NaN()}},
		"infinite":       {start, &Settings{Target: math.Inf(1)}},
		"objective":      {start, &Settings{Objective: "beauty"}},
		"sizes":          {start, &Settings{Sizes: []int{4, 3}}},
		"size 0":         {start, &Settings{Sizes: []int{4, 3, 0}}},
		"sweeps":         {start, &Settings{MaxSweeps: -1}},
		"tolerance":      {start, &Settings{Tol: math.NaN()}},
		"steps":          {start, &Settings{Steps: -1}},
		"steps, target":  {start, &Settings{Steps: 3, Target: 1}},
		"infinite start": {&cpd.Kruskal{Weights: []float64{math.Inf(1), 1}, Factors: start.Factors}, nil},
	} {
		if _, err := EPC(bg, x, c.start, c.set); !errors.Is(err, ErrSettings) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// A sweep of the correction beside one of least squares.
func BenchmarkSweep(b *testing.B) {
	for _, c := range []struct {
		shape []int
		rank  int
	}{{[]int{64, 64, 9}, 128}, {[]int{256, 256, 9}, 128}, {[]int{512, 512, 9}, 512}} {
		x := noisy(1, 32, .5, c.shape...)
		start := als(b, x, c.rank, cpd.Settings{MaxSweeps: 5, Plain: true, Init: cpd.InitRandom})
		b.Run(fmt.Sprintf("%v/%d/epc", c.shape, c.rank), func(b *testing.B) {
			e, err := prepare(x, start, &Settings{Workers: 1})
			if err != nil {
				b.Fatal(err)
			}
			e.load(start)
			e.bound = math.Pow(1.01*e.distance(), 2)
			for b.Loop() {
				if err := e.sweep(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("%v/%d/als", c.shape, c.rank), func(b *testing.B) {
			for b.Loop() {
				als(b, x, c.rank, cpd.Settings{Start: start, MaxSweeps: 10, Tol: 1e-300, Plain: true, Workers: 1})
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/10, "ns/sweep")
		})
	}
}

// smooth is a tensor with a normal core, whose mode-n slices fall off as k^−0.7, of
// unit norm: what convolution kernels look like.
func smooth(seed uint64, shape ...int) *tensor.Dense {
	rng := rand.New(rand.NewPCG(seed, 3))
	v := make([]float64, tensorops.Product(shape))
	for at := range v {
		v[at] = rng.NormFloat64()
		for n, rem := len(shape)-1, at; n >= 0; n-- {
			v[at] *= math.Pow(float64(1+rem%shape[n]), -.7)
			rem /= shape[n]
		}
	}
	norm := tensorops.Norm(v)
	for i := range v {
		v[i] /= norm
	}
	return tensorops.Wrap(shape, v)
}

// One per cent of error buys most of the intensity, five per cent nearly all.
func TestKernelsGainMuchForLittle(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute under the race detector")
	}
	x := smooth(1, 64, 64, 9)
	start := als(t, x, 134, cpd.Settings{MaxSweeps: 400, Tol: 1e-7})
	for _, c := range []struct{ factor, gain float64 }{{1.01, 3}, {1.05, 10}} {
		r := correct(t, x, start, &Settings{Objective: Intensity, Factor: c.factor, MaxSweeps: 200, Tol: 1e-4})
		t.Logf("factor %g: error %.5f -> %.5f, intensity %.1f -> %.2f, sensitivity %.0f -> %.0f in %d sweeps", c.factor, r.Before.RelError, r.After.RelError, r.Before.Intensity, r.After.Intensity, r.Before.Sensitivity, r.After.Sensitivity, r.Sweeps)
		if r.After.Intensity*c.gain > r.Before.Intensity {
			t.Errorf("factor %g: intensity %g becomes %g", c.factor, r.Before.Intensity, r.After.Intensity)
		}
	}
}
