package cpd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"
	"pgregory.net/rapid"

	"github.com/lowrank-go/lowrank/internal/realdata"
	"github.com/lowrank-go/lowrank/internal/tensorops"
)

var bg = context.Background()

func fill(rng *rand.Rand, n int, uniform bool) []float64 {
	v := make([]float64, n)
	for i := range v {
		if uniform {
			v[i] = rng.Float64()
		} else {
			v[i] = rng.NormFloat64()
		}
	}
	return v
}

// random has normal factors, and weights of both signs.
func random(seed uint64, rank int, shape ...int) *Kruskal {
	rng := rand.New(rand.NewPCG(seed, 7))
	k := &Kruskal{Weights: fill(rng, rank, false)}
	for _, d := range shape {
		k.Factors = append(k.Factors, mat.NewDense(d, rank, fill(rng, d*rank, false)))
	}
	return k
}

func full(t rapid.TB, k *Kruskal) *tensor.Dense {
	t.Helper()
	x, err := k.Reconstruct()
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func values(t rapid.TB, x *tensor.Dense) []float64 {
	t.Helper()
	_, v, err := tensorops.View(x)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// naive multiplies out by the definition.
func naive(k *Kruskal) []float64 {
	shape := k.Shape()
	out := make([]float64, tensorops.Product(shape))
	for at := range out {
		for r := range k.Rank() {
			p := 1.0
			if k.Weights != nil {
				p = k.Weights[r]
			}
			rem := at
			for n := len(shape) - 1; n >= 0; n-- {
				p *= k.Factors[n].At(rem%shape[n], r)
				rem /= shape[n]
			}
			out[at] += p
		}
	}
	return out
}

func distance(a, b []float64) float64 {
	var num, den float64
	for i, v := range a {
		num += (v - b[i]) * (v - b[i])
		den += v * v
	}
	if den == 0 {
		return math.Sqrt(num)
	}
	return math.Sqrt(num / den)
}

// fit runs ALS and checks everything that holds for every result.
func fit(t testing.TB, x *tensor.Dense, rank int, set *Settings) *Result {
	t.Helper()
	r, err := ALS(bg, x, rank, set)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.Shape(), x.Shape()) || r.Rank() != rank {
		t.Fatalf("shape %v and rank %d, want %v and %d", r.Shape(), r.Rank(), x.Shape(), rank)
	}
	if e := distance(values(t, x), naive(&r.Kruskal)); math.Abs(e-r.RelError) > 1e-10 {
		t.Errorf("reported error %g, is %g", r.RelError, e)
	}
	if len(r.Errors) != r.Sweeps {
		t.Errorf("%d errors of %d sweeps", len(r.Errors), r.Sweeps)
	}
	if set == nil || set.Ridge == 0 {
		for i := 1; i < len(r.Errors); i++ {
			if r.Errors[i] > r.Errors[i-1]+1e-12 {
				t.Errorf("sweep %d raises the error from %.17g to %.17g", i+1, r.Errors[i-1], r.Errors[i])
				break
			}
		}
	}
	for i, w := range r.Weights {
		if w < 0 || math.IsNaN(w) || math.IsInf(w, 0) || i > 0 && w > r.Weights[i-1] {
			t.Errorf("weights %v; want them falling, none negative", r.Weights)
			break
		}
	}
	for n, u := range r.Factors {
		for j, w := range r.Weights {
			if c := columnNorm(u, j); w > 0 && math.Abs(c-1) > 1e-12 {
				t.Errorf("column %d of factor %d has norm %g", j, n, c)
			}
		}
	}
	return r
}

func TestExactLowRankIsRecovered(t *testing.T) {
	for _, c := range []struct{ have, fit int }{{1, 1}, {3, 3}, {3, 4}, {4, 4}} {
		for _, uniform := range []bool{false, true} {
			for _, init := range []Init{InitHOSVD, InitRandom} {
				for seed := range uint64(3) {
					rng := rand.New(rand.NewPCG(seed, 1))
					k := &Kruskal{}
					for _, d := range []int{6, 8, 7} {
						k.Factors = append(k.Factors, mat.NewDense(d, c.have, fill(rng, d*c.have, uniform)))
					}
					r := fit(t, full(t, k), c.fit, &Settings{Init: init, Seed: seed, MaxSweeps: 5000, Tol: 1e-10, Starts: 2})
					if r.RelError > 1e-6 {
						t.Errorf("rank %d fitted by %d, uniform %v, %s, seed %d: error %g after %d sweeps (%s)", c.have, c.fit, uniform, init, seed, r.RelError, r.Sweeps, r.Status)
					}
					if c.have == c.fit && r.RelError <= 1e-6 && !uniform {
						if s, err := Score(k, &r.Kruskal); err != nil || s < 0.999 {
							t.Errorf("rank %d, seed %d: score %g, %v", c.have, seed, s, err)
						}
					}
				}
			}
		}
	}
}

func TestErrorNeverRises(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		shape := rapid.SliceOfN(rapid.IntRange(1, 5), 2, 5).Draw(rt, "shape")
		rank := rapid.IntRange(1, 6).Draw(rt, "rank")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		x := tensorops.Wrap(shape, fill(rng, tensorops.Product(shape), false))
		r, err := ALS(bg, x, rank, &Settings{MaxSweeps: 60, Init: rapid.SampledFrom([]Init{InitHOSVD, InitRandom}).Draw(rt, "init")})
		if err != nil {
			rt.Fatal(err)
		}
		for i := 1; i < len(r.Errors); i++ {
			if r.Errors[i] > r.Errors[i-1]+1e-12 {
				rt.Fatalf("sweep %d raises the error from %.17g to %.17g", i+1, r.Errors[i-1], r.Errors[i])
			}
		}
		if e := distance(values(rt, x), naive(&r.Kruskal)); math.Abs(e-r.RelError) > 1e-10 {
			rt.Fatalf("reported error %g, is %g", r.RelError, e)
		}
		if s, l := r.Balanced().Sensitivity(), r.LeastSensitivity(); math.Abs(s-l) > 1e-10*l {
			rt.Fatalf("sensitivity %g, the least is %g", s, l)
		}
	})
}

func TestSurplusRankDoesNotFail(t *testing.T) {
	one := full(t, random(1, 1, 10, 10, 10))
	for seed := range uint64(5) {
		for _, init := range []Init{InitHOSVD, InitRandom} {
			if r := fit(t, one, 3, &Settings{Seed: seed, Init: init}); r.RelError > 1e-6 {
				t.Errorf("rank 1 fitted by 3, %s, seed %d: error %g", init, seed, r.RelError)
			}
		}
	}
}

// Surplus rank makes plateaus. The start from the HOSVD gets past them here; of
// single random starts three in five do not, which is what Starts is for.
func TestRankFiveFittedByEight(t *testing.T) {
	for seed := range uint64(5) {
		x := full(t, random(seed, 5, 20, 20, 20))
		for _, set := range []Settings{{Seed: seed}, {Seed: seed, Init: InitRandom, Starts: 5}} {
			if r := fit(t, x, 8, &set); r.RelError > 1e-6 {
				t.Errorf("seed %d, init %q: error %g after %d sweeps (%s)", seed, set.Init, r.RelError, r.Sweeps, r.Status)
			}
		}
	}
}

func TestZeroTensorGivesZeroWeights(t *testing.T) {
	for _, shape := range [][]int{{2, 2}, {3, 4, 5}} {
		x := tensorops.Wrap(shape, make([]float64, tensorops.Product(shape)))
		r := fit(t, x, 2, nil)
		if r.RelError != 0 || r.Weights[0] != 0 || r.Weights[1] != 0 || r.Norm() != 0 {
			t.Errorf("%v: error %g, weights %v", shape, r.RelError, r.Weights)
		}
	}
}

func TestZeroSlicesStayZero(t *testing.T) {
	k := random(3, 3, 6, 5, 4)
	for r := range 3 {
		k.Factors[0].Set(2, r, 0)
		k.Factors[2].Set(3, r, 0)
	}
	r := fit(t, full(t, k), 3, &Settings{MaxSweeps: 3000, Tol: 1e-11})
	if r.RelError > 1e-6 {
		t.Errorf("error %g", r.RelError)
	}
	for j := range 3 {
		if v := r.Factors[0].At(2, j); math.Abs(v) > 1e-12 {
			t.Errorf("entry (2,%d) of factor 0 is %g", j, v)
		}
	}
}

// Columns with pairwise cosines of 0.9 in every mode: slow, but it gets there.
func TestCollinearFactorsAreFitted(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 0))
	k := &Kruskal{}
	for _, d := range []int{12, 11, 10} {
		var qr mat.QR
		qr.Factorize(mat.NewDense(d, 4, fill(rng, 4*d, false)))
		var q mat.Dense
		qr.QTo(&q)
		u := mat.NewDense(d, 3, nil)
		for j := range 3 {
			for i := range d {
				u.Set(i, j, math.Sqrt(0.9)*q.At(i, 3)+math.Sqrt(0.1)*q.At(i, j))
			}
		}
		k.Factors = append(k.Factors, u)
	}
	r := fit(t, full(t, k), 3, &Settings{MaxSweeps: 5000, Tol: 1e-12})
	if r.RelError > 1e-6 {
		t.Errorf("error %g after %d sweeps (%s)", r.RelError, r.Sweeps, r.Status)
	}
	// Two equal columns: the rank is one less than it seems.
	u := k.Factors[0]
	for i := range 12 {
		u.Set(i, 1, u.At(i, 0))
	}
	if r := fit(t, full(t, k), 3, &Settings{MaxSweeps: 5000, Tol: 1e-12}); r.RelError > 1e-6 {
		t.Errorf("equal columns: error %g after %d sweeps (%s)", r.RelError, r.Sweeps, r.Status)
	}
}

func TestModesOfOneAndHighOrders(t *testing.T) {
	for _, c := range []struct {
		shape []int
		rank  int
	}{
		{[]int{1, 1}, 1}, {[]int{1, 1, 1}, 3}, {[]int{1, 6, 5}, 2}, {[]int{6, 1, 5}, 2}, {[]int{6, 5, 1}, 2},
		{[]int{4, 1, 5, 1, 3}, 2}, {[]int{4, 5, 3, 4}, 3}, {[]int{3, 4, 2, 3, 4}, 3},
	} {
		x := full(t, random(2, c.rank, c.shape...))
		if r := fit(t, x, c.rank, &Settings{MaxSweeps: 5000, Tol: 1e-11, Starts: 3}); r.RelError > 1e-6 {
			t.Errorf("%v at rank %d: error %g", c.shape, c.rank, r.RelError)
		}
	}
}

func TestRankAboveEveryDimensionFitsAnything(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	x := tensorops.Wrap([]int{3, 4, 2}, fill(rng, 24, false))
	r := fit(t, x, 8, &Settings{MaxSweeps: 2000, Tol: 1e-12})
	if r.RelError > 1e-6 {
		t.Errorf("error %g", r.RelError)
	}
}

func TestMatricesGetTheTruncatedSVD(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	a := mat.NewDense(12, 9, fill(rng, 108, false))
	var f mat.SVD
	if !f.Factorize(a, mat.SVDNone) {
		t.Fatal("no singular values")
	}
	s := f.Values(nil)
	for rank := 1; rank <= 9; rank++ {
		r := fit(t, tensorops.Wrap([]int{12, 9}, a.RawMatrix().Data), rank, nil)
		var tail, all float64
		for i, v := range s {
			all += v * v
			if i >= rank {
				tail += v * v
			}
		}
		if want := math.Sqrt(tail / all); math.Abs(r.RelError-want) > 1e-10 {
			t.Errorf("rank %d: error %.12g, want %.12g", rank, r.RelError, want)
		}
	}
}

// aminoAcids reads the 5×201×61 fluorescence data of Bro (1997).
func aminoAcids(t *testing.T) *tensor.Dense {
	raw, err := os.ReadFile(realdata.Path(t, "tensors", "aminoacids.npy"))
	if err != nil {
		t.Fatal(err)
	}
	raw = raw[10+int(binary.LittleEndian.Uint16(raw[8:])):]
	v := make([]float64, len(raw)/8)
	for i := range v {
		v[i] = math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:]))
	}
	return tensorops.Wrap([]int{5, 201, 61}, v)
}

// The best of several runs of another implementation.
func TestAminoAcids(t *testing.T) {
	x := aminoAcids(t)
	for i, want := range []float64{0.5967411696, 0.3636825774, 0.0250485172} {
		r := fit(t, x, i+1, &Settings{Tol: 1e-12, MaxSweeps: 1000})
		if math.Abs(r.RelError-want) > 2e-10 {
			t.Errorf("rank %d: error %.10f, want %.10f", i+1, r.RelError, want)
		}
	}
}

// The matrix product of 2×2 matrices has rank 7, and at rank 6 an error of
// √(1/8).
func TestStrassen(t *testing.T) {
	v := make([]float64, 64)
	for i := range 2 {
		for j := range 2 {
			for k := range 2 {
				v[((i*2+j)*4+j*2+k)*4+k*2+i] = 1
			}
		}
	}
	x := tensorops.Wrap([]int{4, 4, 4}, v)
	best := math.Inf(1)
	for seed := uint64(0); seed < 20 && best > 1e-6; seed++ {
		best = min(best, fit(t, x, 7, &Settings{Init: InitRandom, Seed: seed, MaxSweeps: 3000, Tol: 1e-9}).RelError)
	}
	if best > 1e-6 {
		t.Errorf("best error of 20 starts %g", best)
	}
	r := fit(t, x, 6, &Settings{Init: InitRandom, Starts: 10, MaxSweeps: 1000})
	if r.RelError < math.Sqrt(1./8)-1e-9 || r.RelError > math.Sqrt(1./8)+1e-3 {
		t.Errorf("rank 6: error %g, want √(1/8)", r.RelError)
	}
}

// border is e₁e₁e₂ + e₁e₂e₁ + e₂e₁e₁, of rank 3 and border rank 2.
func border() *tensor.Dense {
	return tensorops.Wrap([]int{2, 2, 2}, []float64{0, 1, 1, 0, 1, 0, 0, 0})
}

func TestBorderRank(t *testing.T) {
	if r := fit(t, border(), 3, &Settings{Starts: 5, MaxSweeps: 3000, Tol: 1e-12}); r.RelError > 1e-6 {
		t.Errorf("rank 3: error %g", r.RelError)
	}
	// At rank 2 components grow and cancel, and Intensity tells.
	r := fit(t, border(), 2, &Settings{Init: InitRandom, MaxSweeps: 1000, Tol: 1e-300})
	if r.Status != SweepLimit || r.RelError > 0.02 || r.Intensity() < 5*3 {
		t.Errorf("rank 2: %s, error %g, intensity %g", r.Status, r.RelError, r.Intensity())
	}
	// A ridge holds them.
	held := fit(t, border(), 2, &Settings{Init: InitRandom, MaxSweeps: 1000, Tol: 1e-300, Ridge: 1e-2})
	if held.Intensity() > r.Intensity()/2 || held.RelError < r.RelError || held.RelError > 0.2 {
		t.Errorf("ridge: error %g, intensity %g; without %g, %g", held.RelError, held.Intensity(), r.RelError, r.Intensity())
	}
}

func mustEqual(t testing.TB, what string, got, want *Result) {
	t.Helper()
	if !slices.Equal(got.Weights, want.Weights) || !slices.Equal(got.Errors, want.Errors) || got.Start != want.Start {
		t.Errorf("%s: weights, errors or start differ", what)
	}
	for n, u := range want.Factors {
		if !slices.Equal(u.RawMatrix().Data, got.Factors[n].RawMatrix().Data) {
			t.Errorf("%s: factor %d differs", what, n)
		}
	}
}

func TestResultDependsOnTheSeedAlone(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	x := tensorops.Wrap([]int{40, 35, 9}, fill(rng, 40*35*9, false))
	for _, init := range []Init{InitHOSVD, InitRandom} {
		set := Settings{Init: init, Seed: 5, MaxSweeps: 5, Starts: 2}
		first := fit(t, x, 20, &set)
		for _, workers := range []int{1, 2, 3, 0} {
			set.Workers = workers
			mustEqual(t, fmt.Sprintf("%s, %d workers", init, workers), fit(t, x, 20, &set), first)
		}
		set.Seed = 6
		if slices.Equal(fit(t, x, 20, &set).Weights, first.Weights) {
			t.Errorf("%s: another seed gives the same", init)
		}
	}
}

func TestStartIsHonouredAndUnchanged(t *testing.T) {
	k := random(1, 3, 5, 6, 7)
	x := full(t, k)
	start := k.Clone()
	r := fit(t, x, 3, &Settings{Start: start})
	if r.Sweeps != 1 || r.Errors[0] > 1e-13 || r.Status != Exact {
		t.Errorf("from the solution: %d sweeps, errors %v, %s", r.Sweeps, r.Errors, r.Status)
	}
	for n, u := range k.Factors {
		if !slices.Equal(u.RawMatrix().Data, start.Factors[n].RawMatrix().Data) {
			t.Errorf("factor %d of the start has changed", n)
		}
	}
	if !slices.Equal(k.Weights, start.Weights) {
		t.Error("the weights of the start have changed")
	}
	// The scale of its columns does not matter, however small or large.
	for _, s := range []float64{1e-300, 1e-100, 1e100, 1e300} {
		for _, u := range start.Factors {
			u.Scale(s, u)
		}
		if r := fit(t, x, 3, &Settings{Start: start}); r.Errors[0] > 1e-13 {
			t.Errorf("scaled by %g: error %g", s, r.Errors[0])
		}
		start = k.Clone()
	}
	// Further starts are random, the best counts, and an exact one is the last.
	starts := 0
	count := func(start, _ int, _ float64) { starts = start + 1 }
	if r := fit(t, x, 3, &Settings{Start: start, Starts: 3, Progress: count}); r.Start != 0 || starts != 1 {
		t.Errorf("the best of %d starts is %d, want the first of 1", starts, r.Start)
	}
	for _, u := range start.Factors {
		u.Set(0, 0, 9)
		u.Set(1, 2, -9)
	}
	if r := fit(t, x, 3, &Settings{Start: start, Starts: 4, MaxSweeps: 3, Progress: count}); starts != 4 || r.Start < 0 || r.Start > 3 {
		t.Errorf("%d starts, the best %d, want 4 of them", starts, r.Start)
	}
}

func TestScaleDoesNotMatter(t *testing.T) {
	x := full(t, random(1, 4, 6, 5, 4))
	want := fit(t, x, 2, nil)
	for _, exp := range []int{-1000, -498, 498, 1000} {
		v := slices.Clone(values(t, x))
		for i := range v {
			v[i] = math.Ldexp(v[i], exp)
		}
		got, err := ALS(bg, tensorops.Wrap(x.Shape(), v), 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(got.RelError-want.RelError) > 1e-9 || math.Abs(math.Ldexp(got.Weights[0], -exp)/want.Weights[0]-1) > 1e-3 {
			t.Errorf("times 2^%d: error %g, weight %g; want %g, %g", exp, got.RelError, math.Ldexp(got.Weights[0], -exp), want.RelError, want.Weights[0])
		}
		if e := distance(values(t, x), unscale(naive(&got.Kruskal), exp)); math.Abs(e-want.RelError) > 1e-9 {
			t.Errorf("times 2^%d: error of the reconstruction %g, want %g", exp, e, want.RelError)
		}
	}
}

func unscale(v []float64, exp int) []float64 {
	for i := range v {
		v[i] = math.Ldexp(v[i], -exp)
	}
	return v
}

func TestRescalingsLeaveTheTensor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := rapid.SliceOfN(rapid.IntRange(1, 5), 1, 5).Draw(t, "shape")
		seed := rapid.Uint64().Draw(t, "seed")
		k := random(seed, rapid.IntRange(1, 5).Draw(t, "rank"), shape...)
		if rapid.Bool().Draw(t, "without weights") {
			k.Weights = nil
		}
		before := k.Clone()
		want := naive(k)
		for name, c := range map[string]*Kruskal{"itself": k, "Normalized": k.Normalized(), "Arranged": k.Arranged(), "Balanced": k.Balanced()} {
			x, err := c.Reconstruct()
			if err != nil {
				t.Fatal(err)
			}
			// Components may cancel; rounding is that of their size.
			if e := distance(want, values(t, x)) * tensorops.Norm(want); e > 1e-12*math.Sqrt(k.Intensity()) {
				t.Fatalf("%s: the tensor changes by %g", name, e)
			}
			if n := tensorops.Norm(want); math.Abs(c.Norm()-n) > 1e-7*max(n, math.Sqrt(k.Intensity())) {
				t.Fatalf("%s: norm %g, want %g", name, c.Norm(), n)
			}
			if math.Abs(c.Intensity()-k.Intensity()) > 1e-12*k.Intensity() {
				t.Fatalf("%s: intensity %g, want %g", name, c.Intensity(), k.Intensity())
			}
		}
		for n, u := range k.Factors {
			if !mat.Equal(u, before.Factors[n]) {
				t.Fatalf("factor %d has changed", n)
			}
		}
		if !slices.IsSortedFunc(k.Arranged().Weights, func(a, b float64) int { return -int(math.Copysign(1, a-b)) }) {
			t.Fatalf("weights %v do not fall", k.Arranged().Weights)
		}
		// Intensity by its definition.
		var sum float64
		for r := range k.Rank() {
			one := &Kruskal{Weights: []float64{k.weight(r)}}
			for _, u := range k.Factors {
				rows, _ := u.Dims()
				one.Factors = append(one.Factors, mat.DenseCopyOf(u.Slice(0, rows, r, r+1)))
			}
			norm := tensorops.Norm(naive(one))
			sum += norm * norm
		}
		if math.Abs(sum-k.Intensity()) > 1e-11*sum {
			t.Fatalf("intensity %g, want %g", k.Intensity(), sum)
		}
		// No rescaling is less sensitive than the balanced one.
		least := k.LeastSensitivity()
		if s := k.Balanced().Sensitivity(); math.Abs(s-least) > 1e-10*least {
			t.Fatalf("balanced sensitivity %g, least %g", s, least)
		}
		rng := rand.New(rand.NewPCG(seed, 3))
		for range 5 {
			c := k.Balanced()
			for r := range c.Rank() {
				for range c.Factors {
					f, i, j := math.Exp(rng.NormFloat64()), rng.IntN(len(shape)), rng.IntN(len(shape))
					scaleColumn(c.Factors[i], r, f)
					scaleColumn(c.Factors[j], r, 1/f)
				}
			}
			if s := c.Sensitivity(); s < least*(1-1e-10) {
				t.Fatalf("sensitivity %g of a rescaling is below the least, %g", s, least)
			}
		}
	})
}

func TestSensitivityByTrial(t *testing.T) {
	for _, shape := range [][]int{{4, 5, 3}, {3, 2, 4, 3}} {
		k := random(3, 2, shape...)
		want := k.Sensitivity()
		base := k.factors()
		plain := naive(k)
		rng := rand.New(rand.NewPCG(1, 0))
		const trials, sigma = 20000, 1e-6
		var mean float64
		noisy := make([][]float64, len(base))
		for range trials {
			for n, u := range base {
				noisy[n] = slices.Clone(u)
				for i := range u {
					noisy[n][i] += sigma * rng.NormFloat64()
				}
			}
			for i, v := range tensorops.Kruskal(1, shape, noisy, 2) {
				d := (v - plain[i]) / sigma
				mean += d * d / trials
			}
		}
		if math.Abs(mean-want) > 0.02*want {
			t.Errorf("%v: sensitivity %g, by trial %g", shape, want, mean)
		}
	}
}

func TestZeroComponents(t *testing.T) {
	k := random(1, 3, 3, 4, 2)
	for i := range 4 {
		k.Factors[1].Set(i, 1, 0)
	}
	a := k.Arranged()
	if a.Weights[2] != 0 || a.Weights[1] == 0 {
		t.Errorf("weights %v, want the last alone to be 0", a.Weights)
	}
	if e := distance(naive(k), naive(k.Balanced())); e > 1e-13 {
		t.Errorf("balancing changes the tensor by %g", e)
	}
	if s, l := k.Balanced().Sensitivity(), k.LeastSensitivity(); math.Abs(s-l) > 1e-12*l {
		t.Errorf("sensitivity %g, the least is %g", s, l)
	}
}

func TestInnerProductMatchesTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := rapid.SliceOfN(rapid.IntRange(1, 5), 1, 5).Draw(t, "shape")
		k := random(rapid.Uint64().Draw(t, "seed"), rapid.IntRange(1, 4).Draw(t, "rank"), shape...)
		x := fill(rand.New(rand.NewPCG(2, 0)), tensorops.Product(shape), false)
		y := naive(k)
		want := tensorops.Dot(x, y)
		got, err := k.Inner(tensorops.Wrap(shape, x))
		if err != nil || math.Abs(got-want) > 1e-11*max(1, math.Sqrt(k.Intensity())*tensorops.Norm(x)) {
			t.Fatalf("inner product %g, %v, want %g", got, err, want)
		}
	})
	k := random(1, 2, 3, 4)
	if _, err := k.Inner(tensorops.Wrap([]int{4, 3}, make([]float64, 12))); !errors.Is(err, ErrSettings) {
		t.Errorf("other shape: error %v", err)
	}
	if _, err := k.Inner(nil); !errors.Is(err, tensorops.ErrTensor) {
		t.Errorf("nil: error %v", err)
	}
	if _, err := (&Kruskal{}).Inner(nil); !errors.Is(err, ErrSettings) {
		t.Errorf("no factors: error %v", err)
	}
}

// The reference values of another tensor package: all columns parallel, so that
// the weights alone decide.
func TestScoreOfParallelColumns(t *testing.T) {
	constant := func(rank int, weights ...float64) *Kruskal {
		k := &Kruskal{Weights: weights}
		for n, d := range []int{3, 4, 5} {
			v := make([]float64, d*rank)
			for i := range v {
				v[i] = 1 + 0.1*float64(n+1)
			}
			k.Factors = append(k.Factors, mat.NewDense(d, rank, v))
		}
		return k.scaledToUnit()
	}
	a, b := constant(3, 2, 1, 3), constant(2, 2, 4)
	for _, c := range [][2]*Kruskal{{a, b}, {b, a}} {
		if s, err := Score(c[0], c[1]); err != nil || math.Abs(s-0.875) > 1e-14 {
			t.Errorf("score %.17g, %v, want 0.875", s, err)
		}
		if s, err := Congruence(c[0], c[1]); err != nil || math.Abs(s-1) > 1e-14 {
			t.Errorf("congruence %.17g, %v, want 1", s, err)
		}
	}
}

// scaledToUnit gives columns unit norm and leaves the weights as they are.
func (k *Kruskal) scaledToUnit() *Kruskal {
	return &Kruskal{Weights: k.Weights, Factors: k.Normalized().Factors}
}

func TestScoreSeesThroughOrderSignAndScale(t *testing.T) {
	k := random(4, 4, 5, 6, 7)
	other := &Kruskal{Weights: make([]float64, 4)}
	for range k.Factors {
		other.Factors = append(other.Factors, nil)
	}
	order := []int{2, 0, 3, 1}
	for n, u := range k.Factors {
		rows, _ := u.Dims()
		v := mat.NewDense(rows, 4, nil)
		for j, o := range order {
			for i := range rows {
				v.Set(i, j, u.At(i, o)*[]float64{-2, 0.25, -2}[n])
			}
			other.Weights[j] = k.Weights[o]
		}
		other.Factors[n] = v
	}
	if s, err := Score(k, other); err != nil || math.Abs(s-1) > 1e-12 {
		t.Errorf("score %g, %v, want 1", s, err)
	}
	for j := range other.Weights {
		other.Weights[j] *= -1
	}
	if s, err := Score(k, other); err != nil || s > 0.5 {
		t.Errorf("score of the opposite %g, %v", s, err)
	}
	if _, err := Score(k, random(1, 4, 5, 6)); !errors.Is(err, ErrSettings) {
		t.Errorf("other shape: error %v", err)
	}
	if _, err := Score(k, &Kruskal{}); !errors.Is(err, ErrSettings) {
		t.Errorf("no factors: error %v", err)
	}
	k.Factors[0].Set(0, 0, math.NaN())
	if _, err := Score(k, other); !errors.Is(err, ErrSettings) {
		t.Errorf("NaN: error %v", err)
	}
}

func TestAssignIsTheBestOfAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.IntRange(1, 5).Draw(t, "rows")
		cols := rows + rapid.IntRange(0, 2).Draw(t, "more columns")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		table := mat.NewDense(rows, cols, fill(rng, rows*cols, false))
		best := math.Inf(-1)
		used := make([]bool, cols)
		var try func(i int, sum float64)
		try = func(i int, sum float64) {
			if i == rows {
				best = max(best, sum)
				return
			}
			for j := range cols {
				if !used[j] {
					used[j] = true
					try(i+1, sum+table.At(i, j))
					used[j] = false
				}
			}
		}
		try(0, 0)
		var sum float64
		for i, j := range assign(table) {
			if used[j] {
				t.Fatalf("column %d twice", j)
			}
			used[j] = true
			sum += table.At(i, j)
		}
		if math.Abs(sum-best) > 1e-12 {
			t.Fatalf("sum %g, the best is %g", sum, best)
		}
	})
}

func TestBadSettingsAndTensorsAreErrors(t *testing.T) {
	x := full(t, random(1, 2, 3, 4, 2))
	nan := random(1, 2, 3, 4, 2)
	nan.Factors[1].Set(0, 0, math.NaN())
	for name, c := range map[string]struct {
		x    *tensor.Dense
		rank int
		set  *Settings
	}{
		"rank 0":          {x, 0, nil},
		"rank -1":         {x, -1, nil},
		"order 1":         {tensorops.Wrap([]int{3}, []float64{1, 2, 3}), 1, nil},
		"init":            {x, 2, &Settings{Init: "best"}},
		"starts":          {x, 2, &Settings{Starts: -1}},
		"sweeps":          {x, 2, &Settings{MaxSweeps: -1}},
		"patience":        {x, 2, &Settings{Patience: -1}},
		"tolerance":       {x, 2, &Settings{Tol: -1}},
		"tolerance NaN":   {x, 2, &Settings{Tol: math.NaN()}},
		"ridge":           {x, 2, &Settings{Ridge: -1}},
		"ridge NaN":       {x, 2, &Settings{Ridge: math.NaN()}},
		"target":          {x, 2, &Settings{Target: -1}},
		"target NaN":      {x, 2, &Settings{Target: math.NaN()}},
		"time":            {x, 2, &Settings{MaxTime: -1}},
		"ridge Inf":       {x, 2, &Settings{Ridge: math.Inf(1)}},
		"start's rank":    {x, 3, &Settings{Start: random(1, 2, 3, 4, 2)}},
		"start's shape":   {x, 2, &Settings{Start: random(1, 2, 3, 4, 3)}},
		"start's order":   {x, 2, &Settings{Start: random(1, 2, 3, 4)}},
		"empty start":     {x, 2, &Settings{Start: &Kruskal{}}},
		"missing factor":  {x, 2, &Settings{Start: &Kruskal{Factors: make([]*mat.Dense, 3)}}},
		"start's NaN":     {x, 2, &Settings{Start: nan}},
		"start's columns": {x, 2, &Settings{Start: &Kruskal{Factors: []*mat.Dense{mat.NewDense(3, 2, nil), mat.NewDense(4, 1, nil), mat.NewDense(2, 2, nil)}}}},
		"start's weights": {x, 2, &Settings{Start: &Kruskal{Weights: []float64{1}, Factors: random(1, 2, 3, 4, 2).Factors}}},
	} {
		if _, err := ALS(bg, c.x, c.rank, c.set); !errors.Is(err, ErrSettings) {
			t.Errorf("%s: error %v, want one that wraps ErrSettings", name, err)
		}
	}
	for name, x := range map[string]*tensor.Dense{
		"nil":  nil,
		"NaN":  tensorops.Wrap([]int{1, 2}, []float64{1, math.NaN()}),
		"ints": tensor.New(tensor.WithShape(2, 2), tensor.WithBacking([]int{1, 2, 3, 4})),
		"huge": tensorops.Wrap([]int{1, 2}, []float64{math.MaxFloat64, math.MaxFloat64}),
	} {
		if _, err := ALS(bg, x, 1, nil); !errors.Is(err, tensorops.ErrTensor) {
			t.Errorf("%s: error %v, want one that wraps ErrTensor", name, err)
		}
	}
}

func TestContextEndsTheSweeps(t *testing.T) {
	x := full(t, random(1, 4, 6, 7, 8))
	ctx, cancel := context.WithCancel(bg)
	sweeps := 0
	r, err := ALS(ctx, x, 2, &Settings{Tol: 1e-300, Progress: func(start, sweep int, e float64) {
		if sweeps++; start != 0 || sweep != sweeps || !(e > 0 && e < 1) {
			t.Errorf("call %d: start %d, sweep %d, error %g", sweeps, start, sweep, e)
		}
		cancel()
	}})
	if !errors.Is(err, context.Canceled) || sweeps != 1 {
		t.Errorf("error %v after %d sweeps", err, sweeps)
	}
	// What there is by then is the result.
	if r == nil || r.Status != Cancelled || r.Sweeps != 1 || r.Rank() != 2 || math.Abs(distance(values(t, x), naive(&r.Kruskal))-r.RelError) > 1e-12 {
		t.Errorf("result %+v", r)
	}
	if r, err := ALS(ctx, x, 2, nil); !errors.Is(err, context.Canceled) || r != nil {
		t.Errorf("cancelled before the first sweep: result %v, error %v", r, err)
	}
}

func TestTargetAndTimeLimitEndAFit(t *testing.T) {
	x := full(t, random(1, 6, 12, 13, 14))
	for name, fit := range map[string]func(context.Context, *tensor.Dense, int, *Settings) (*Result, error){"ALS": ALS, "LM": LM} {
		r, err := fit(bg, x, 5, &Settings{Target: .9, Starts: 3})
		if err != nil || r.Status != Reached || r.RelError > .9 || r.Start != 0 {
			t.Errorf("%s: error %g after %d sweeps of start %d, %s, %v", name, r.RelError, r.Sweeps, r.Start, r.Status, err)
		}
		r, err = fit(bg, x, 5, &Settings{MaxTime: 1, Starts: 3, Tol: 1e-300})
		if err != nil || r.Status != TimeLimit || r.Sweeps != 1 || r.Start != 0 {
			t.Errorf("%s: %d sweeps of start %d, %s, %v; want 1 and the time limit", name, r.Sweeps, r.Start, r.Status, err)
		}
	}
}
