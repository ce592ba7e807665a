package tucker

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

func normal(rng *rand.Rand, n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = rng.NormFloat64()
	}
	return v
}

// random is a tensor of normal numbers.
func random(seed uint64, shape ...int) *tensor.Dense {
	return tensorops.Wrap(shape, normal(rand.New(rand.NewPCG(seed, 0)), tensorops.Product(shape)))
}

// decaying is a tensor whose entries fall off with their indices, mixed by
// random matrices, so that truncation pays.
func decaying(seed uint64, shape ...int) *tensor.Dense {
	rng := rand.New(rand.NewPCG(seed, 1))
	v := normal(rng, tensorops.Product(shape))
	for i := range v {
		rem, f := i, 1.0
		for d := len(shape) - 1; d >= 0; d-- {
			f /= float64(1 + rem%shape[d])
			rem /= shape[d]
		}
		v[i] *= f
	}
	dims := shape
	for n, d := range shape {
		dims, v = tensorops.MulMode(1, dims, v, n, false, normal(rng, d*d), d)
	}
	return tensorops.Wrap(dims, v)
}

func values(t rapid.TB, x *tensor.Dense) []float64 {
	t.Helper()
	_, v, err := tensorops.View(x)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// relError reconstructs and compares.
func relError(t rapid.TB, x *tensor.Dense, d *Tucker) float64 {
	t.Helper()
	y, err := d.Reconstruct()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(y.Shape(), x.Shape()) {
		t.Fatalf("reconstructed shape %v, want %v", y.Shape(), x.Shape())
	}
	a, b := values(t, x), values(t, y)
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

func mustOrthonormal(t rapid.TB, d *Tucker) {
	t.Helper()
	for n, u := range d.Factors {
		if u == nil {
			continue
		}
		_, r := u.Dims()
		var g mat.Dense
		g.Mul(u.T(), u)
		for i := range r {
			g.Set(i, i, g.At(i, i)-1)
		}
		if e := mat.Max(&g); math.Abs(e) > 1e-12 || math.Abs(mat.Min(&g)) > 1e-12 {
			t.Fatalf("factor %d is not orthonormal: %g", n, e)
		}
	}
}

// svd returns the singular vectors and values of the mode-n unfolding, by a
// method that squares nothing.
func svd(t rapid.TB, x *tensor.Dense, n int) (*mat.Dense, []float64) {
	shape := x.Shape()
	data := slices.Clone(values(t, x))
	cols := len(data) / shape[n]
	var f mat.SVD
	if !f.Factorize(mat.NewDense(shape[n], cols, tensorops.Unfold(shape, data, n)), mat.SVDFullU) {
		t.Fatal("no singular values")
	}
	var u mat.Dense
	f.UTo(&u)
	return &u, f.Values(nil)
}

func both(t rapid.TB, x *tensor.Dense, set Settings) (hosvd, hooi *Result) {
	t.Helper()
	hosvd, err := HOSVD(bg, x, &set)
	if err != nil {
		t.Fatal(err)
	}
	if hooi, err = HOOI(bg, x, &set); err != nil {
		t.Fatal(err)
	}
	return hosvd, hooi
}

func drawShape(t *rapid.T, order, most int) []int {
	return rapid.SliceOfN(rapid.IntRange(1, most), 1, order).Draw(t, "shape")
}

func TestExactMultilinearRankIsRecovered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := drawShape(t, 5, 6)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		ranks := make([]int, len(shape))
		for n, d := range shape {
			ranks[n] = rapid.IntRange(1, d).Draw(t, "rank")
		}
		dims, v := ranks, normal(rng, tensorops.Product(ranks))
		for n, d := range shape {
			dims, v = tensorops.MulMode(1, dims, v, n, false, normal(rng, d*dims[n]), d)
		}
		x := tensorops.Wrap(dims, v)
		a, b := both(t, x, Settings{Ranks: ranks})
		for _, r := range []*Result{a, b} {
			if e := relError(t, x, &r.Tucker); e > 1e-12 || r.RelError > 1e-12 {
				t.Fatalf("ranks %v of %v: error %g, reported %g", ranks, shape, e, r.RelError)
			}
			mustOrthonormal(t, &r.Tucker)
		}
	})
}

// TestErrorsObeyTheBounds checks that err² = ‖X‖² − ‖G‖² and that the largest
// energy cut in a mode ≤ HOOI's squared error ≤ HOSVD's ≤ the sum of them.
func TestErrorsObeyTheBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := drawShape(t, 4, 6)
		x := decaying(rapid.Uint64().Draw(t, "seed"), shape...)
		ranks := make([]int, len(shape))
		for n, d := range shape {
			ranks[n] = rapid.IntRange(1, d).Draw(t, "rank")
		}
		norm := tensorops.Norm(values(t, x))
		a, b := both(t, x, Settings{Ranks: ranks})
		var most, sum float64
		for n := range shape {
			_, s := svd(t, x, n)
			tail := 0.0
			for _, v := range s[min(len(s), a.Ranks()[n]):] {
				tail += v * v / (norm * norm)
			}
			most, sum = max(most, tail), sum+tail
		}
		e1, e2 := a.RelError*a.RelError, b.RelError*b.RelError
		const slack = 1e-12
		if most > e2+slack || e2 > e1+slack || e1 > sum+slack {
			t.Fatalf("want %g ≤ %g ≤ %g ≤ %g", most, e2, e1, sum)
		}
		for _, r := range []*Result{a, b} {
			if e := relError(t, x, &r.Tucker); math.Abs(e-r.RelError) > 1e-10 {
				t.Fatalf("reported error %g, is %g", r.RelError, e)
			}
			core := r.Norm() / norm
			if d := 1 - core*core - r.RelError*r.RelError; math.Abs(d) > 1e-12 {
				t.Fatalf("1 − ‖G‖²/‖X‖² is off the squared error by %g", d)
			}
			mustOrthonormal(t, &r.Tucker)
		}
	})
}

func TestHOOINeverRaisesTheError(t *testing.T) {
	for _, c := range []struct {
		shape, ranks []int
	}{
		{[]int{12, 13, 9}, []int{3, 4, 2}},
		{[]int{6, 7, 5, 4}, []int{2, 2, 3, 2}},
		{[]int{largeMode + 22, 12, 5}, []int{7, 3, 2}},
		{[]int{5, largeMode + 2, 4}, []int{2, 8, 4}},
	} {
		x := random(3, c.shape...)
		r, err := HOOI(bg, x, &Settings{Ranks: c.ranks, MaxSweeps: 30, Tol: 1e-13})
		if err != nil {
			t.Fatal(err)
		}
		if r.Sweeps < 2 || len(r.Errors) != r.Sweeps+1 {
			t.Fatalf("%v: %d sweeps, %d errors", c.shape, r.Sweeps, len(r.Errors))
		}
		for i := 1; i < len(r.Errors); i++ {
			if r.Errors[i] > r.Errors[i-1]+1e-14 {
				t.Errorf("%v: sweep %d raises the error from %.17g to %.17g", c.shape, i, r.Errors[i-1], r.Errors[i])
			}
		}
		if last := r.Errors[r.Sweeps]; last >= r.Errors[0] || math.Abs(last-r.RelError) > 1e-14 {
			t.Errorf("%v: errors %v, reported %g", c.shape, r.Errors, r.RelError)
		}
		if e := relError(t, x, &r.Tucker); math.Abs(e-r.RelError) > 1e-12 {
			t.Errorf("%v: error %g, reported %g", c.shape, e, r.RelError)
		}
		mustOrthonormal(t, &r.Tucker)
	}
}

// A mode that is iterated on, not solved anew, reaches the same point: here the
// same tensor is decomposed with the long mode's information in a short one.
func TestLargeModesConvergeToTheSameError(t *testing.T) {
	x := decaying(8, 20, 10, 6)
	rng := rand.New(rand.NewPCG(9, 0))
	var qr mat.QR
	qr.Factorize(mat.NewDense(150, 20, normal(rng, 3000)))
	var q mat.Dense
	qr.QTo(&q)
	long := mat.DenseCopyOf(q.Slice(0, 150, 0, 20)).RawMatrix().Data
	shape, v := tensorops.MulMode(1, x.Shape(), values(t, x), 0, false, long, 150)
	set := Settings{Ranks: []int{4, 3, 2}, Tol: 1e-12, MaxSweeps: 500}
	_, small := both(t, x, set)
	_, large := both(t, tensorops.Wrap(shape, v), set)
	if math.Abs(small.RelError-large.RelError) > 1e-8 {
		t.Errorf("error %.12g, with the long mode %.12g", small.RelError, large.RelError)
	}
}

// search finds the fewest parameters by trying all ranks on the core in the
// basis of singular vectors.
func search(t rapid.TB, x *tensor.Dense, bound float64) int {
	shape := x.Shape()
	dims, core := []int(shape), values(t, x)
	for n, d := range shape {
		u, _ := svd(t, x, n)
		dims, core = tensorops.MulMode(1, dims, core, n, true, u.RawMatrix().Data, d)
	}
	total := tensorops.Norm(core)
	best := math.MaxInt
	ranks := make([]int, len(shape))
	for at := range core {
		rem := at
		params, size := 0, 1
		for n := len(shape) - 1; n >= 0; n-- {
			ranks[n] = rem%shape[n] + 1
			rem /= shape[n]
			params += ranks[n] * shape[n]
			size *= ranks[n]
		}
		var lost float64
		for i, v := range core {
			rem, out := i, false
			for n := len(shape) - 1; n >= 0; n-- {
				out = out || rem%shape[n] >= ranks[n]
				rem /= shape[n]
			}
			if out {
				lost += v * v
			}
		}
		if math.Sqrt(lost) <= bound*total {
			best = min(best, params+size)
		}
	}
	return best
}

func TestBoundIsKeptWithTheFewestParameters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := drawShape(t, 3, 5)
		x := decaying(rapid.Uint64().Draw(t, "seed"), shape...)
		bound := math.Pow(10, rapid.Float64Range(-3, -0.05).Draw(t, "log bound"))
		a, b := both(t, x, Settings{RelError: bound})
		for _, r := range []*Result{a, b} {
			if e := relError(t, x, &r.Tucker); e > bound || r.RelError > bound {
				t.Fatalf("error %.17g, reported %.17g, above the bound %.17g", e, r.RelError, bound)
			}
			mustOrthonormal(t, &r.Tucker)
		}
		if want := search(t, x, bound*(1-1e-9)); a.Params() > want {
			t.Fatalf("HOSVD takes %d parameters, %d are enough", a.Params(), want)
		}
		if b.Params() > a.Params() {
			t.Fatalf("HOOI takes %d parameters, HOSVD %d", b.Params(), a.Params())
		}
	})
}

func TestTinyBoundsAreKept(t *testing.T) {
	// A rank-(2,2,2) tensor with something of relative size 1e-9 on top.
	rng := rand.New(rand.NewPCG(4, 0))
	dims, v := []int{2, 2, 2}, normal(rng, 8)
	for n, d := range []int{7, 6, 5} {
		dims, v = tensorops.MulMode(1, dims, v, n, false, normal(rng, d*2), d)
	}
	norm := tensorops.Norm(v)
	for i, e := range normal(rng, len(v)) {
		v[i] += 1e-9 * norm * e / math.Sqrt(float64(len(v)))
	}
	x := tensorops.Wrap(dims, v)
	for _, bound := range []float64{1e-8, 1e-10, 1e-13} {
		a, b := both(t, x, Settings{RelError: bound})
		for _, r := range []*Result{a, b} {
			if e := relError(t, x, &r.Tucker); e > bound {
				t.Errorf("bound %g: error %g with ranks %v", bound, e, r.Ranks())
			}
		}
		if bound == 1e-8 && !slices.Equal(b.Ranks(), []int{2, 2, 2}) {
			t.Errorf("bound %g: ranks %v, want 2, 2, 2", bound, b.Ranks())
		}
	}
}

func TestLargeModesKeepTheBound(t *testing.T) {
	x := decaying(5, largeMode+12, 9, 6)
	a, b := both(t, x, Settings{RelError: 0.2})
	if e := relError(t, x, &b.Tucker); e > 0.2 || b.Params() > a.Params() {
		t.Errorf("error %g, %d parameters, HOSVD %d", e, b.Params(), a.Params())
	}
}

func TestModesMayBeInAnyOrder(t *testing.T) {
	x := decaying(6, 5, 6, 4, 3)
	_, a := both(t, x, Settings{Modes: []int{0, 1, 3}, Ranks: []int{2, 3, 1}})
	_, b := both(t, x, Settings{Modes: []int{3, 0, 1}, Ranks: []int{1, 2, 3}})
	if want := []int{2, 3, 4, 1}; !slices.Equal(a.Ranks(), want) || !slices.Equal(b.Ranks(), want) {
		t.Errorf("ranks %v and %v, want %v", a.Ranks(), b.Ranks(), want)
	}
	if a.Factors[2] != nil {
		t.Error("mode 2 has a factor")
	}
	mustEqual(t, "modes in another order", b, a)
	if e := relError(t, x, &a.Tucker); math.Abs(e-a.RelError) > 1e-12 {
		t.Errorf("error %g, reported %g", e, a.RelError)
	}
	_, one := both(t, x, Settings{Modes: []int{3, 1}, Ranks: []int{2}})
	if want := []int{5, 2, 4, 2}; !slices.Equal(one.Ranks(), want) {
		t.Errorf("one rank for two modes gives %v, want %v", one.Ranks(), want)
	}
}

func TestPartialTuckerIsExactAtFullRank(t *testing.T) {
	x := random(7, 3, 4, 3)
	_, r := both(t, x, Settings{Modes: []int{1, 2}, Ranks: []int{4, 3}})
	if r.RelError > 1e-12 {
		t.Errorf("error %g at full ranks", r.RelError)
	}
	_, r = both(t, x, Settings{Modes: []int{1, 2}, Ranks: []int{3, 1}})
	if want := []int{3, 3, 1}; !slices.Equal(r.Ranks(), want) {
		t.Errorf("core %v, want %v", r.Ranks(), want)
	}
}

func TestRanksAreCutToWhatACoreCanHave(t *testing.T) {
	for _, c := range []struct{ shape, ranks, want []int }{
		{[]int{4, 5}, []int{9, 9}, []int{4, 4}},
		{[]int{8, 3, 2}, []int{8, 3, 2}, []int{6, 3, 2}},
		{[]int{5, 6, 7}, []int{5, 2, 1}, []int{2, 2, 1}},
		{[]int{7}, []int{3}, []int{1}},
		{[]int{1, 6, 1}, []int{2, 4, 3}, []int{1, 1, 1}},
	} {
		x := random(1, c.shape...)
		a, b := both(t, x, Settings{Ranks: c.ranks})
		if !slices.Equal(a.Ranks(), c.want) || !slices.Equal(b.Ranks(), c.want) {
			t.Errorf("ranks %v of %v: HOSVD %v, HOOI %v, want %v", c.ranks, c.shape, a.Ranks(), b.Ranks(), c.want)
		}
	}
}

func TestZeroTensorIsItsOwnDecomposition(t *testing.T) {
	x := tensorops.Wrap([]int{3, 4, 2}, make([]float64, 24))
	for _, set := range []Settings{{Ranks: []int{2}}, {RelError: 0.1}} {
		a, b := both(t, x, set)
		for _, r := range []*Result{a, b} {
			if r.RelError != 0 || relError(t, x, &r.Tucker) != 0 {
				t.Errorf("%+v: error %g", set, r.RelError)
			}
			mustOrthonormal(t, &r.Tucker)
		}
	}
}

func mustEqual(t testing.TB, what string, got, want *Result) {
	t.Helper()
	if !slices.Equal(values(t, got.Core), values(t, want.Core)) {
		t.Errorf("%s: the core differs", what)
	}
	for n, u := range want.Factors {
		if v := got.Factors[n]; (u == nil) != (v == nil) || u != nil && !slices.Equal(u.RawMatrix().Data, v.RawMatrix().Data) {
			t.Errorf("%s: factor %d differs", what, n)
		}
	}
	if !slices.Equal(got.Errors, want.Errors) {
		t.Errorf("%s: errors %v, want %v", what, got.Errors, want.Errors)
	}
}

func TestResultDoesNotDependOnWorkers(t *testing.T) {
	x := decaying(2, 140, 20, 9)
	for _, set := range []Settings{{Ranks: []int{9, 7, 4}, MaxSweeps: 4}, {RelError: 0.1, MaxSweeps: 4}} {
		var first *Result
		for workers := range 4 {
			set.Workers = workers
			r, err := HOOI(bg, x, &set)
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = r
			}
			mustEqual(t, fmt.Sprintf("%d workers", workers), r, first)
		}
	}
}

func TestScaleDoesNotMatter(t *testing.T) {
	x := decaying(11, 6, 5, 4)
	for _, set := range []Settings{{Ranks: []int{3, 2, 2}}, {RelError: 0.1}} {
		_, want := both(t, x, set)
		// Powers of two near 1e-300, 1e-150, 1e150 and 1e300 do not round.
		for _, exp := range []int{-980, -498, 498, 980} {
			v := slices.Clone(values(t, x))
			for i := range v {
				v[i] = math.Ldexp(v[i], exp)
			}
			_, got := both(t, tensorops.Wrap(x.Shape(), v), set)
			if math.Abs(got.RelError-want.RelError) > 1e-14 || !slices.Equal(got.Ranks(), want.Ranks()) {
				t.Errorf("times 2^%d: error %g with ranks %v, want %g with %v", exp, got.RelError, got.Ranks(), want.RelError, want.Ranks())
			}
			for i, c := range values(t, got.Core) {
				if w := math.Ldexp(values(t, want.Core)[i], exp); math.Abs(c-w) > 1e-12*math.Abs(math.Ldexp(want.Norm(), exp)) {
					t.Errorf("times 2^%d: entry %d of the core is %g, want %g", exp, i, c, w)
				}
			}
		}
	}
}

func TestBadSettingsAndTensorsAreErrors(t *testing.T) {
	x := random(1, 3, 4, 2)
	for name, set := range map[string]*Settings{
		"nil":               nil,
		"nothing":           {},
		"both":              {Ranks: []int{2}, RelError: 0.1},
		"rank 0":            {Ranks: []int{2, 0, 2}},
		"rank -1":           {Ranks: []int{-1}},
		"two ranks":         {Ranks: []int{2, 2}},
		"mode -1":           {Modes: []int{-1}, Ranks: []int{2}},
		"mode 3":            {Modes: []int{3}, Ranks: []int{2}},
		"mode twice":        {Modes: []int{1, 1}, Ranks: []int{2}},
		"bound 1":           {RelError: 1},
		"bound below 0":     {RelError: -0.1},
		"bound NaN":         {RelError: math.NaN()},
		"ranks, bound NaN":  {RelError: math.NaN(), Ranks: []int{2}},
		"sweeps":            {Ranks: []int{2}, MaxSweeps: -1},
		"tolerance":         {Ranks: []int{2}, Tol: -1},
		"tolerance NaN":     {Ranks: []int{2}, Tol: math.NaN()},
		"ranks, not modes":  {Modes: []int{0}, Ranks: []int{2, 2, 2}},
		"more ranks than 3": {Ranks: []int{2, 2, 2, 2}},
	} {
		for what, f := range map[string]func(context.Context, *tensor.Dense, *Settings) (*Result, error){"HOSVD": HOSVD, "HOOI": HOOI} {
			if _, err := f(bg, x, set); !errors.Is(err, ErrSettings) {
				t.Errorf("%s, %s: error %v, want one that wraps ErrSettings", what, name, err)
			}
		}
	}
	for name, x := range map[string]*tensor.Dense{
		"nil":  nil,
		"NaN":  tensorops.Wrap([]int{2}, []float64{1, math.NaN()}),
		"huge": tensorops.Wrap([]int{2}, []float64{math.MaxFloat64, math.MaxFloat64}),
	} {
		if _, err := HOOI(bg, x, &Settings{Ranks: []int{1}}); !errors.Is(err, tensorops.ErrTensor) {
			t.Errorf("%s: error %v, want one that wraps ErrTensor", name, err)
		}
	}
}

func TestContextEndsTheSweeps(t *testing.T) {
	x := random(1, 6, 7, 8)
	ctx, cancel := context.WithCancel(bg)
	sweeps := 0
	_, err := HOOI(ctx, x, &Settings{Ranks: []int{2}, Tol: 1e-300, Progress: func(sweep int, e float64) {
		if sweeps++; sweep != sweeps || !(e > 0 && e < 1) {
			t.Errorf("call %d: sweep %d, error %g", sweeps, sweep, e)
		}
		cancel()
	}})
	if !errors.Is(err, context.Canceled) || sweeps != 1 {
		t.Errorf("error %v after %d sweeps", err, sweeps)
	}
	if _, err := HOSVD(ctx, x, &Settings{Ranks: []int{2}}); !errors.Is(err, context.Canceled) {
		t.Errorf("HOSVD: error %v", err)
	}
}

func TestInputIsNotChanged(t *testing.T) {
	x := decaying(1, 5, 4, 3)
	before := slices.Clone(values(t, x))
	_, r := both(t, x, Settings{Ranks: []int{5, 4, 3}})
	values(t, r.Core)[0] = 1e9
	r.Factors[0].Set(0, 0, 1e9)
	if !slices.Equal(before, values(t, x)) {
		t.Error("the tensor has changed")
	}
}

func TestCountsNormAndSensitivity(t *testing.T) {
	x := decaying(3, 4, 5, 3)
	_, r := both(t, x, Settings{Modes: []int{0, 1}, Ranks: []int{2, 3}})
	if want := 2*3*3 + 4*2 + 5*3; r.Params() != want {
		t.Errorf("%d parameters, want %d", r.Params(), want)
	}
	y, err := r.Reconstruct()
	if err != nil {
		t.Fatal(err)
	}
	full := slices.Clone(values(t, y))
	if want := tensorops.Norm(full); math.Abs(r.Norm()-want) > 1e-12*want {
		t.Errorf("norm %g, of the reconstruction %g", r.Norm(), want)
	}
	// Monte Carlo.
	rng := rand.New(rand.NewPCG(1, 0))
	const trials, sigma = 4000, 1e-5
	var mean float64
	for range trials {
		noisy := Tucker{Core: tensorops.Wrap(r.Ranks(), slices.Clone(values(t, r.Core)))}
		add := func(v []float64) {
			for i := range v {
				v[i] += sigma * rng.NormFloat64()
			}
		}
		add(values(t, noisy.Core))
		for _, u := range r.Factors {
			if u != nil {
				u = mat.DenseCopyOf(u)
				add(u.RawMatrix().Data)
			}
			noisy.Factors = append(noisy.Factors, u)
		}
		z, err := noisy.Reconstruct()
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range values(t, z) {
			d := (v - full[i]) / sigma
			mean += d * d / trials
		}
	}
	if want := r.Sensitivity(); math.Abs(mean-want) > 0.03*want {
		t.Errorf("sensitivity %g, by trial %g", want, mean)
	}
}

func TestReconstructRejectsWhatDoesNotFit(t *testing.T) {
	core := random(1, 2, 2)
	for name, d := range map[string]*Tucker{
		"a factor too few":  {Core: core, Factors: []*mat.Dense{nil}},
		"columns":           {Core: core, Factors: []*mat.Dense{nil, mat.NewDense(4, 3, nil)}},
		"a factor too many": {Core: core, Factors: []*mat.Dense{nil, nil, nil}},
	} {
		if _, err := d.Reconstruct(); !errors.Is(err, ErrSettings) {
			t.Errorf("%s: error %v, want one that wraps ErrSettings", name, err)
		}
	}
	if _, err := (&Tucker{}).Reconstruct(); !errors.Is(err, tensorops.ErrTensor) {
		t.Errorf("no core: error %v, want one that wraps ErrTensor", err)
	}
	// A factor that is part of a larger matrix.
	big := mat.NewDense(3, 5, []float64{9, 1, 2, 9, 9, 9, 3, 4, 9, 9, 9, 5, 6, 9, 9})
	d := &Tucker{Core: tensorops.Wrap([]int{2}, []float64{1, 10}), Factors: []*mat.Dense{big.Slice(0, 3, 1, 3).(*mat.Dense)}}
	y, err := d.Reconstruct()
	if err != nil {
		t.Fatal(err)
	}
	if want := []float64{21, 43, 65}; !slices.Equal(values(t, y), want) {
		t.Errorf("got %v, want %v", values(t, y), want)
	}
}

// The reference cases of other tensor packages.
func TestPublishedHOSVDs(t *testing.T) {
	v := make([]float64, 27)
	for i := range v {
		v[i] = float64(1 + i/9 + i/3%3*3 + i%3*9) // the first index fastest
	}
	a, b := both(t, tensorops.Wrap([]int{3, 3, 3}, v), Settings{RelError: 1e-4})
	for _, r := range []*Result{a, b} {
		if !slices.Equal(r.Ranks(), []int{2, 2, 2}) {
			t.Fatalf("ranks %v, want 2, 2, 2", r.Ranks())
		}
		if g := math.Abs(values(t, r.Core)[0]); math.Abs(g-83.01598119750199) > 1e-11 {
			t.Errorf("first entry of the core %.15g, want 83.01598119750199", g)
		}
	}
	x := tensorops.Wrap([]int{2, 2}, []float64{29, 39, 63, 85})
	if a, _ := both(t, x, Settings{RelError: 1e-4}); relError(t, x, &a.Tucker) >= 1e-4 {
		t.Errorf("2×2: error %g", a.RelError)
	}
	// 3×10 of rank 2 cut to 1: what is lost is the second singular value.
	rng := rand.New(rand.NewPCG(1, 0))
	_, data := tensorops.MulMode(1, []int{2, 10}, normal(rng, 20), 0, false, normal(rng, 6), 3)
	x = tensorops.Wrap([]int{3, 10}, data)
	a, _ = both(t, x, Settings{Ranks: []int{1, 1}})
	_, s := svd(t, x, 0)
	if want := s[1] / math.Hypot(s[0], s[1]); !slices.Equal(a.Ranks(), []int{1, 1}) || math.Abs(a.RelError-want) > 1e-12 {
		t.Errorf("3×10: ranks %v, error %g, want 1, 1 and %g", a.Ranks(), a.RelError, want)
	}
}

// aminoAcids reads the 5×201×61 fluorescence data of Bro (1997): 5 mixtures,
// emission, excitation.
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

// The errors of the sequentially truncated HOSVD were computed with NumPy. The
// plain one is close, and HOOI at least as good.
func TestAminoAcids(t *testing.T) {
	x := aminoAcids(t)
	for n, want := range [][]float64{
		{39272.277, 22595.835, 15802.677, 637.83},
		{39292.529, 24467.905, 12644.502, 555.71},
		{45049.888, 15663.322, 5259.391, 523.06},
	} {
		gram := tensorops.Gram(0, x.Shape(), values(t, x), n)
		var e mat.EigenSym
		d := x.Shape()[n]
		if !e.Factorize(mat.NewSymDense(d, gram), false) {
			t.Fatal("no eigenvalues")
		}
		w := e.Values(nil)
		for i, s := range want {
			if got := math.Sqrt(w[d-1-i]); math.Abs(got-s) > 1e-6*s+0.01 {
				t.Errorf("mode %d: singular value %d is %.3f, want %.3f", n, i, got, s)
			}
		}
	}
	for _, bound := range []float64{0.1, 0.05} {
		a, b := both(t, x, Settings{RelError: bound})
		for _, r := range []*Result{a, b} {
			if e := relError(t, x, &r.Tucker); e > bound || r.Params() > 3*3*3+3*(5+201+61) {
				t.Errorf("bound %g: ranks %v, error %.10f", bound, r.Ranks(), e)
			}
		}
	}
	a, b := both(t, x, Settings{Ranks: []int{3, 3, 3}, Tol: 1e-12})
	if math.Abs(a.RelError-0.0244637575) > 2e-4 || b.RelError > 0.0244637575 || b.RelError < 0.0244 {
		t.Errorf("ranks 3, 3, 3: HOSVD %.10f, HOOI %.10f, want about 0.0244637575 and less", a.RelError, b.RelError)
	}
	a, b = both(t, x, Settings{Ranks: []int{4, 5, 4}, Tol: 1e-12})
	if math.Abs(a.RelError-0.0168023057) > 2e-4 || b.RelError > 0.0168023057 {
		t.Errorf("ranks 4, 5, 4: HOSVD %.10f, HOOI %.10f, want about 0.0168023057 and less", a.RelError, b.RelError)
	}
}

func BenchmarkHOOI(b *testing.B) {
	for _, c := range []struct {
		shape, ranks []int
	}{
		{[]int{64, 64, 9}, []int{16, 16}},
		{[]int{256, 256, 9}, []int{64, 64}},
	} {
		b.Run(fmt.Sprint(c.shape), func(b *testing.B) {
			x := random(1, c.shape...)
			for b.Loop() {
				if _, err := HOOI(bg, x, &Settings{Modes: []int{0, 1}, Ranks: c.ranks, MaxSweeps: 5, Tol: 1e-300}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
