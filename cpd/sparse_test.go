package cpd

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"
	"pgregory.net/rapid"

	"github.com/lowrank-go/lowrank/internal/tensorops"
)

// list is the entries of a dense tensor that keep lets through.
func list(shape []int, data []float64, keep func(e int) bool) *Sparse {
	s := &Sparse{Shape: shape}
	for e, v := range data {
		if !keep(e) {
			continue
		}
		index := make([]int, len(shape))
		for n, rem := len(shape)-1, e; n >= 0; n-- {
			index[n] = rem % shape[n]
			rem /= shape[n]
		}
		s.Index = append(s.Index, index...)
		s.Values = append(s.Values, v)
	}
	return s
}

// thin is a dense tensor most of whose entries are zero.
func thin(seed uint64, shape ...int) []float64 {
	rng := rand.New(rand.NewPCG(seed, 21))
	v := fill(rng, tensorops.Product(shape), false)
	for i := range v {
		if rng.Float64() < .7 {
			v[i] = 0
		}
	}
	return v
}

func nonZero(v []float64) func(int) bool { return func(e int) bool { return v[e] != 0 } }

func TestSparseUnfoldingsAreThoseOfTheDenseTensor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := rapid.SliceOfN(rapid.IntRange(1, 6), 2, 5).Draw(t, "shape")
		v := thin(rapid.Uint64().Draw(t, "seed"), shape...)
		s := list(shape, v, nonZero(v))
		if len(s.Values) > 0 {
			// Listed in two parts, and in another order.
			s.Index = append(s.Index, s.at(0)...)
			s.Values = append(s.Values, s.Values[0]-1)
			s.Values[0] = 1
		}
		for n := range shape {
			u, err := s.Unfold(n)
			if err != nil {
				t.Fatal(err)
			}
			rows, cols := u.Dims()
			want := mat.NewDense(rows, cols, slices.Clone(tensorops.Unfold(shape, v, n)))
			if !mat.EqualApprox(u.ToDense(), want, 1e-15) {
				t.Fatalf("mode %d of %v: %v, want %v", n, shape, u.ToDense(), want)
			}
		}
	})
}

// The same sweeps, whether zeros are listed, left out, or in a dense tensor.
func TestSparseSweepsAreThoseOfTheDenseTensor(t *testing.T) {
	for i, shape := range [][]int{{9, 8}, {7, 8, 6}, {5, 1, 4, 6}, {3, 4, 2, 3, 4}} {
		v := thin(uint64(i), shape...)
		x := tensorops.Wrap(shape, v)
		for _, init := range []Init{InitHOSVD, InitRandom} {
			set := &Settings{Init: init, Plain: true, MaxSweeps: 30, Tol: 1e-300, Starts: 1}
			want, err := ALS(bg, x, 3, set)
			if err != nil {
				t.Fatal(err)
			}
			for name, s := range map[string]*Sparse{"zeros left out": list(shape, v, nonZero(v)), "zeros listed": list(shape, v, func(int) bool { return true })} {
				got, err := ALSSparse(bg, s, 3, set)
				if err != nil {
					t.Fatal(err)
				}
				// Where nothing is left to gain, rounding decides which sweep is the last.
				n := min(len(got.Errors), len(want.Errors))
				compareErrors(t, fmt.Sprintf("%v, %s, %s", shape, init, name), got.Errors[:n], want.Errors[:n], 1e-8)
				if math.Abs(got.RelError-distance(v, naive(&got.Kruskal))) > 1e-9 {
					t.Errorf("%v: error %g, is %g", shape, got.RelError, distance(v, naive(&got.Kruskal)))
				}
			}
		}
	}
}

func compareErrors(t *testing.T, what string, got, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d sweeps, want %d", what, len(got), len(want))
		return
	}
	for i, e := range got {
		if math.Abs(e-want[i]) > tol {
			t.Errorf("%s: error %.12g after sweep %d, want %.12g", what, e, i+1, want[i])
			return
		}
	}
}

func TestEqualWeightsAreNoWeights(t *testing.T) {
	shape := []int{8, 7, 6}
	v := fill(rand.New(rand.NewPCG(4, 4)), 8*7*6, false)
	x := tensorops.Wrap(shape, v)
	set := Settings{Plain: true, MaxSweeps: 40, Tol: 1e-300}
	want := fit(t, x, 3, &set)
	positive := slices.Clone(v)
	for i, a := range v {
		positive[i] = math.Abs(a)
	}
	y := tensorops.Wrap(shape, positive)
	// Non-negative rows are not solved to the end in a sweep; the result is.
	nonNegative := Settings{MaxSweeps: 2000, Tol: 1e-10, NonNegative: []int{0, 1, 2}}
	least := fit(t, y, 3, &nonNegative).RelError
	for _, w := range []float64{1, 9} {
		weights := tensorops.Wrap(shape, slices.Repeat([]float64{w}, len(v)))
		set.Weights, nonNegative.Weights = weights, weights
		compareErrors(t, fmt.Sprintf("weight %g", w), fit(t, x, 3, &set).Errors, want.Errors, 1e-7)
		r := fit(t, y, 3, &nonNegative)
		if math.Abs(r.RelError-least) > 1e-5 {
			t.Errorf("weight %g, non-negative: error %.9f, want %.9f", w, r.RelError, least)
		}
		for n, u := range r.Factors {
			if mat.Min(u) < 0 {
				t.Errorf("weight %g: factor %d has the entry %g", w, n, mat.Min(u))
			}
		}
	}
}

// Of a weighted matrix a rank-1 fit solves u_i = Σ_j w·x·v / Σ_j w·v², and so for v.
func TestWeightedFitIsStationary(t *testing.T) {
	const rows, cols = 7, 9
	rng := rand.New(rand.NewPCG(8, 4))
	v, w := fill(rng, rows*cols, false), fill(rng, rows*cols, true)
	x, weights := tensorops.Wrap([]int{rows, cols}, v), tensorops.Wrap([]int{rows, cols}, w)
	r, err := ALS(bg, x, 1, &Settings{Weights: weights, Tol: 1e-15, MaxSweeps: 2000})
	if err != nil {
		t.Fatal(err)
	}
	var num, den float64
	for i := range rows {
		var wxv, wvv float64
		for j := range cols {
			b := r.Factors[1].At(j, 0)
			wxv += w[i*cols+j] * v[i*cols+j] * b
			wvv += w[i*cols+j] * b * b
			d := v[i*cols+j] - r.Weights[0]*r.Factors[0].At(i, 0)*b
			num += w[i*cols+j] * d * d
			den += w[i*cols+j] * v[i*cols+j] * v[i*cols+j]
		}
		if got := r.Weights[0] * r.Factors[0].At(i, 0); math.Abs(got-wxv/wvv) > 1e-6 {
			t.Errorf("row %d is %g, its least-squares value %g", i, got, wxv/wvv)
		}
	}
	if want := math.Sqrt(num / den); math.Abs(r.RelError-want) > 1e-12 {
		t.Errorf("error %g, want %g", r.RelError, want)
	}
}

// Two entries in five of a tensor of rank 3 are enough to know the others.
func TestUnknownEntriesAreFound(t *testing.T) {
	for seed := range uint64(3) {
		shape := []int{14, 15, 16}
		truth := full(t, random(seed, 3, shape...))
		v := values(t, truth)
		rng := rand.New(rand.NewPCG(seed, 9))
		w, holes := make([]float64, len(v)), slices.Clone(v)
		for i := range w {
			if w[i] = 1; rng.Float64() < .6 {
				w[i], holes[i] = 0, math.NaN()
			}
		}
		s := list(shape, v, func(e int) bool { return w[e] > 0 })
		s.Unknown = true
		set := Settings{Starts: 3, Seed: seed, MaxSweeps: 2000, Tol: 1e-12, Target: 1e-9}
		sparse, err := ALSSparse(bg, s, 3, &set)
		if err != nil {
			t.Fatal(err)
		}
		set.Weights = tensorops.Wrap(shape, w)
		dense, err := ALS(bg, tensorops.Wrap(shape, holes), 3, &set)
		if err != nil {
			t.Fatal(err)
		}
		mustEqual(t, "dense with weights, and sparse", dense, sparse)
		if e := distance(v, naive(&sparse.Kruskal)); sparse.RelError > 1e-8 || e > 1e-6 {
			t.Errorf("seed %d: error %g of the known entries after %d sweeps (%s), %g of all", seed, sparse.RelError, sparse.Sweeps, sparse.Status, e)
		}
	}
}

func TestSlicesOfWhichNothingIsKnownAreZero(t *testing.T) {
	shape := []int{5, 6, 4}
	v := values(t, full(t, random(1, 2, shape...)))
	s := list(shape, v, func(e int) bool { return e/24 != 3 })
	s.Unknown = true
	r, err := ALSSparse(bg, s, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	for c := range 2 {
		if got := r.Factors[0].At(3, c); got != 0 {
			t.Errorf("entry (3,%d) is %g", c, got)
		}
	}
	if r.RelError > 1e-6 {
		t.Errorf("error %g", r.RelError)
	}
	// Fewer entries than components in every slice.
	few := &Sparse{Shape: []int{3, 3, 3}, Index: []int{0, 0, 0, 1, 1, 1, 2, 2, 2}, Values: []float64{1, 2, 3}, Unknown: true}
	if r, err := ALSSparse(bg, few, 4, nil); err != nil || r.RelError > 1e-6 {
		t.Errorf("three entries: %+v, %v", r, err)
	}
}

func TestSparseResultDoesNotDependOnWorkers(t *testing.T) {
	shape := []int{60, 50, 40}
	v := thin(5, shape...)
	for _, unknown := range []bool{false, true} {
		s := list(shape, v, nonZero(v))
		s.Unknown = unknown
		var first *Result
		for _, workers := range []int{1, 2, 3} {
			r, err := ALSSparse(bg, s, 4, &Settings{MaxSweeps: 6, Tol: 1e-300, Workers: workers})
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = r
			}
			mustEqual(t, fmt.Sprintf("unknown %v, %d workers", unknown, workers), r, first)
		}
	}
}

func TestSparseTensorsOfNothing(t *testing.T) {
	for _, unknown := range []bool{false, true} {
		for _, s := range []*Sparse{{Shape: []int{3, 4}}, {Shape: []int{3, 4}, Index: []int{1, 1}, Values: []float64{0}}} {
			s.Unknown = unknown
			r, err := ALSSparse(bg, s, 2, nil)
			if err != nil || r.RelError != 0 || r.Norm() != 0 {
				t.Errorf("unknown %v: %+v, %v", unknown, r, err)
			}
		}
	}
}

func TestBadSparseTensorsAreErrors(t *testing.T) {
	good := func() *Sparse { return &Sparse{Shape: []int{2, 3}, Index: []int{0, 1, 1, 2}, Values: []float64{1, 2}} }
	for name, spoil := range map[string]func(s *Sparse){
		"order 1":           func(s *Sparse) { s.Shape, s.Index = []int{5}, []int{0, 1} },
		"size 0":            func(s *Sparse) { s.Shape[1] = 0 },
		"too large":         func(s *Sparse) { s.Shape = []int{math.MaxInt, math.MaxInt} },
		"index missing":     func(s *Sparse) { s.Index = s.Index[1:] },
		"index below":       func(s *Sparse) { s.Index[1] = -1 },
		"index above":       func(s *Sparse) { s.Index[2] = 2 },
		"NaN":               func(s *Sparse) { s.Values[1] = math.NaN() },
		"infinite":          func(s *Sparse) { s.Values[1] = math.Inf(1) },
		"weights":           func(s *Sparse) { s.Unknown, s.Weights = true, []float64{1} },
		"negative weight":   func(s *Sparse) { s.Unknown, s.Weights = true, []float64{1, -1} },
		"weights for zeros": func(s *Sparse) { s.Weights = []float64{1, 1} },
		"listed twice":      func(s *Sparse) { s.Unknown = true; copy(s.Index[2:], s.Index[:2]) },
	} {
		s := good()
		spoil(s)
		if _, err := ALSSparse(bg, s, 1, nil); !errors.Is(err, ErrSettings) {
			t.Errorf("%s: error %v, want one that wraps ErrSettings", name, err)
		}
	}
	if _, err := ALSSparse(bg, nil, 1, nil); !errors.Is(err, ErrSettings) {
		t.Errorf("nil: error %v", err)
	}
	if _, err := good().Unfold(2); !errors.Is(err, ErrSettings) {
		t.Errorf("mode 2: error %v", err)
	}
	huge := good()
	huge.Values = []float64{math.MaxFloat64, math.MaxFloat64}
	if _, err := ALSSparse(bg, huge, 1, nil); !errors.Is(err, tensorops.ErrTensor) {
		t.Errorf("overflow: error %v", err)
	}
	x := tensorops.Wrap([]int{2, 2}, []float64{1, 2, 3, math.NaN()})
	for name, w := range map[string]*tensor.Dense{
		"shape":    tensorops.Wrap([]int{4}, []float64{1, 1, 1, 0}),
		"negative": tensorops.Wrap([]int{2, 2}, []float64{1, 1, -1, 0}),
		"NaN":      tensorops.Wrap([]int{2, 2}, []float64{1, 1, 1, 1}),
	} {
		if _, err := ALS(bg, x, 1, &Settings{Weights: w}); !errors.Is(err, ErrSettings) {
			t.Errorf("weights, %s: error %v", name, err)
		}
	}
	if _, err := LM(bg, x, 1, &Settings{Weights: x}); !errors.Is(err, ErrSettings) {
		t.Errorf("LM with weights: error %v", err)
	}
}

// A sweep of 200 thousand entries of 300×200×100.
func BenchmarkSparseSweep(b *testing.B) {
	shape := []int{300, 200, 100}
	rng := rand.New(rand.NewPCG(1, 1))
	s := &Sparse{Shape: shape}
	seen := map[[3]int]bool{}
	for len(s.Values) < 200_000 {
		at := [3]int{rng.IntN(300), rng.IntN(200), rng.IntN(100)}
		if seen[at] {
			continue
		}
		seen[at] = true
		s.Index = append(s.Index, at[:]...)
		s.Values = append(s.Values, rng.NormFloat64())
	}
	for _, unknown := range []bool{false, true} {
		s.Unknown = unknown
		b.Run(fmt.Sprintf("unknown=%v", unknown), func(b *testing.B) {
			a := &als{set: Settings{Init: InitRandom, Workers: 1}, shape: shape, rank: 16, share: 1}
			var err error
			if unknown {
				a.x, a.norm, err = newKnown(1, s, 16)
			} else {
				a.x, a.norm, err = newCoordinates(1, s, 16)
			}
			if err != nil {
				b.Fatal(err)
			}
			if err := a.start(0); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := a.sweep(0, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
