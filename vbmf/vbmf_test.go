package vbmf

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/james-bowman/sparse"
	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/internal/tensorops"
)

func near(t *testing.T, what string, got, want, tol float64) {
	t.Helper()
	if math.Abs(got-want) > tol*math.Abs(want) {
		t.Errorf("%s is %.12g, want %.12g", what, got, want)
	}
}

// The cases below were computed from the definition in double precision, by
// minimising the free energy on a fine grid.
func TestSingularGivesTheTabulatedSolutions(t *testing.T) {
	a := []float64{20, 15, 10, 8, 6}
	for i := range 15 {
		a = append(a, 5-3*float64(i)/14)
	}
	r, err := Singular(a, 20, 50, nil)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "variance", r.Variance, 0.330210812, 1e-7)
	near(t, "threshold", r.Threshold, 7.315076824, 1e-7)
	if r.Rank != 4 {
		t.Fatalf("rank %d, want 4", r.Rank)
	}
	for i, want := range []float64{18.829785203, 13.422912378, 7.543986435, 4.752135027} {
		near(t, fmt.Sprintf("shrunk value %d", i), r.Shrunk[i], want, 1e-7)
	}
	r, err = Singular(a, 20, 50, &Settings{ExactThreshold: true})
	if err != nil {
		t.Fatal(err)
	}
	near(t, "exact threshold", r.Threshold, 7.323614167, 1e-7)

	c := make([]float64, 64)
	for h := range c {
		c[h] = 30 / math.Sqrt(float64(h+1))
	}
	r, err = Singular(c, 64, 576, nil)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "variance", r.Variance, 0.047751592, 1e-7)
	near(t, "threshold", r.Threshold, 7.566277180, 1e-7)
	if r.Rank != 15 {
		t.Errorf("rank %d, want 15", r.Rank)
	}
	r, err = Singular(c, 64, 576, &Settings{ExactThreshold: true})
	if err != nil {
		t.Fatal(err)
	}
	near(t, "exact threshold", r.Threshold, 7.607000974, 1e-7)

	e := []float64{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}
	r, err = Singular(e, 10, 10, nil)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "variance", r.Variance, 3.85, 1e-9)
	if r.Rank != 0 {
		t.Errorf("rank %d, want 0", r.Rank)
	}
}

func TestTauBarIsTheRootOfItsEquation(t *testing.T) {
	for alpha, want := range map[float64]float64{1: 2.5128624173, 0.1: 0.8222109566, 0.01: 0.2828764007, 0.001: 0.0990729645} {
		near(t, fmt.Sprintf("root for α = %g", alpha), tauBar(alpha), want, 1e-9)
	}
}

func gaussian(rng *rand.Rand, rows, cols, rank int, noise float64) *mat.Dense {
	normal := func(r, c int, s float64) *mat.Dense {
		m := mat.NewDense(r, c, nil)
		for i := range r {
			for j := range c {
				m.Set(i, j, s*rng.NormFloat64())
			}
		}
		return m
	}
	x := normal(rows, cols, noise)
	if rank > 0 {
		var low mat.Dense
		low.Mul(normal(rows, rank, 1), normal(rank, cols, 1))
		x.Add(x, &low)
	}
	return x
}

func TestTheRankOfANoisyLowRankMatrixIsFound(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		rows, cols, rank int
		noise            float64
	}{{50, 200, 5, 1}, {64, 576, 20, 0.1}, {128, 1152, 40, 0.5}, {60, 90, 0, 2}} {
		x := gaussian(rng, c.rows, c.cols, c.rank, c.noise)
		r, err := Matrix(x, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Rank != c.rank {
			t.Errorf("%d×%d of rank %d: found %d", c.rows, c.cols, c.rank, r.Rank)
		}
		near(t, "variance", r.Variance, c.noise*c.noise, 0.1)
		// Transposed, scaled by anything.
		for _, scale := range []float64{1e-200, 1e-5, 3, 1e100} {
			var y mat.Dense
			y.Scale(scale, x.T())
			s, err := Matrix(&y, nil)
			if err != nil {
				t.Fatal(err)
			}
			if s.Rank != c.rank {
				t.Errorf("%d×%d of rank %d, transposed and times %g: found %d", c.rows, c.cols, c.rank, scale, s.Rank)
			}
		}
		known, err := Matrix(x, &Settings{Variance: c.noise * c.noise})
		if err != nil {
			t.Fatal(err)
		}
		if known.Rank != c.rank {
			t.Errorf("%d×%d of rank %d with the variance given: found %d", c.rows, c.cols, c.rank, known.Rank)
		}
	}
}

func TestScalingTheSingularValuesScalesTheSolution(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for range 50 {
		rows, cols := 1+rng.IntN(30), 1+rng.IntN(60)
		s := make([]float64, min(rows, cols))
		for i := range s {
			s[i] = rng.ExpFloat64()
		}
		a, err := Singular(s, rows, cols, nil)
		if err != nil {
			t.Fatal(err)
		}
		scaled := make([]float64, len(s))
		for i, v := range s {
			scaled[i] = v * 0x1p-40
		}
		b, err := Singular(scaled, cols, rows, nil)
		if err != nil {
			t.Fatal(err)
		}
		if a.Rank != b.Rank || a.Variance*0x1p-80 != b.Variance || a.Threshold*0x1p-40 != b.Threshold {
			t.Errorf("%d×%d: %+v became %+v", rows, cols, a, b)
		}
	}
}

func TestDegenerateInputsHaveAnswers(t *testing.T) {
	zero, err := Singular([]float64{0, 0}, 2, 3, nil)
	if err != nil || zero.Rank != 0 {
		t.Errorf("zero matrix: %+v, %v", zero, err)
	}
	// Exactly low rank: there is no noise.
	exact, err := Singular([]float64{3, 2}, 6, 9, nil)
	if err != nil || exact.Rank != 2 || math.Abs(exact.Shrunk[1]-2) > 1e-6 {
		t.Errorf("exact rank 2: %+v, %v", exact, err)
	}
	for _, n := range []int{1, 5} {
		row, err := Singular([]float64{2}, 1, n, nil)
		if err != nil || row.Rank > 1 {
			t.Errorf("1×%d: %+v, %v", n, row, err)
		}
	}
	same, err := Singular([]float64{1, 1, 1, 1}, 4, 4, nil)
	if err != nil || same.Rank != 0 {
		t.Errorf("identity: %+v, %v", same, err)
	}
	for name, f := range map[string]func() (Result, error){
		"negative":  func() (Result, error) { return Singular([]float64{-1}, 2, 2, nil) },
		"NaN":       func() (Result, error) { return Singular([]float64{math.NaN()}, 2, 2, nil) },
		"too many":  func() (Result, error) { return Singular([]float64{1, 1, 1}, 2, 2, nil) },
		"no matrix": func() (Result, error) { return Singular(nil, 0, 2, nil) },
		"variance":  func() (Result, error) { return Singular([]float64{1}, 2, 2, &Settings{Variance: -1}) },
		"mode":      func() (Result, error) { return Unfolding(tensorops.Wrap([]int{2}, []float64{1, 2}), 1, nil) },
	} {
		if _, err := f(); !errors.Is(err, ErrInput) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestUnfoldingIsTheMatrixOfThatMode(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	data := make([]float64, 4*5*3)
	for i := range data {
		data[i] = rng.NormFloat64() + 10*float64(i%5)
	}
	x := tensorops.Wrap([]int{4, 5, 3}, data)
	m := mat.NewDense(5, 12, nil)
	for i := range 4 {
		for j := range 5 {
			for k := range 3 {
				m.Set(j, i*3+k, data[(i*5+j)*3+k])
			}
		}
	}
	want, err := Matrix(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Unfolding(x, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Rank != want.Rank {
		t.Errorf("rank %d, want %d", got.Rank, want.Rank)
	}
	near(t, "threshold", got.Threshold, want.Threshold, 1e-9)
}

func TestSparseMatricesAreAccepted(t *testing.T) {
	coo := sparse.NewCOO(30, 40, nil, nil, nil)
	d := mat.NewDense(30, 40, nil)
	for i := range 30 {
		coo.Set(i, i, float64(i))
		d.Set(i, i, float64(i))
	}
	got, err := Matrix(coo.ToCSR(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Matrix(d, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Rank != want.Rank || got.Threshold != want.Threshold {
		t.Errorf("sparse %+v, dense %+v", got, want)
	}
}

func TestWeakenedGoesPartOfTheWay(t *testing.T) {
	for _, c := range []struct {
		init, rank  int
		weakening   float64
		least, want int
	}{
		{64, 14, 0.8, 8, 24}, {64, 0, 0.8, 8, 64}, {6, 2, 0.8, 8, 6}, {64, 1, 1, 8, 8}, {64, 20, 0, 8, 64},
	} {
		if got := Weakened(c.init, c.rank, c.weakening, c.least); got != c.want {
			t.Errorf("Weakened(%d, %d, %g, %d) = %d, want %d", c.init, c.rank, c.weakening, c.least, got, c.want)
		}
	}
}

func ExampleSingular() {
	// Two strong directions over noise, in a 6×20 matrix.
	r, err := Singular([]float64{40, 25, 5.1, 4.6, 4.2, 3.8}, 6, 20, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("rank %d, noise %.2f, threshold %.1f\n", r.Rank, math.Sqrt(r.Variance), r.Threshold)
	// Output: rank 2, noise 1.08, threshold 8.2
}

// lowRank is the product of random factors, rounded to a precision.
func lowRank(rng *rand.Rand, rows, cols, rank int, round func(float64) float64) *mat.Dense {
	normal := func(r, c int) *mat.Dense {
		m := mat.NewDense(r, c, nil)
		m.Apply(func(int, int, float64) float64 { return rng.NormFloat64() }, m)
		return m
	}
	var m mat.Dense
	m.Mul(normal(rows, rank), normal(rank, cols))
	m.Apply(func(_, _ int, v float64) float64 { return round(v) }, &m)
	return &m
}

func TestRoundingIsNoComponent(t *testing.T) {
	single := func(v float64) float64 { return float64(float32(v)) }
	for _, c := range []struct {
		what      string
		round     func(float64) float64
		precision float64
	}{
		{"float64", func(v float64) float64 { return v }, 0},
		{"float32", single, 0x1p-23},
		{"bfloat16", func(v float64) float64 { return float64(math.Float32frombits(math.Float32bits(float32(v)) &^ 0xffff)) }, 0x1p-7},
	} {
		for seed := range uint64(4) {
			rng := rand.New(rand.NewPCG(seed, 5))
			for _, scale := range []float64{1e-30, 1, 1e30} {
				m := lowRank(rng, 20, 1200, 3, c.round)
				m.Scale(scale, m)
				r, err := Matrix(m, &Settings{Precision: c.precision})
				if err != nil || r.Rank != 3 {
					t.Errorf("%s at %g: rank %d, want 3, %v", c.what, scale, r.Rank, err)
				}
				var f mat.SVD
				if !f.Factorize(m, mat.SVDNone) {
					t.Fatal("no singular values")
				}
				r, err = Singular(f.Values(nil), 20, 1200, &Settings{Precision: c.precision})
				if err != nil || r.Rank != 3 {
					t.Errorf("%s at %g, from singular values: rank %d, want 3, %v", c.what, scale, r.Rank, err)
				}
			}
		}
	}
	ones := make([]float64, 20*30*40)
	for i := range ones {
		ones[i] = 1
	}
	for mode := range 3 {
		r, err := Unfolding(tensorops.Wrap([]int{20, 30, 40}, ones), mode, nil)
		if err != nil || r.Rank != 1 {
			t.Errorf("ones in mode %d: rank %d, want 1, %v", mode, r.Rank, err)
		}
	}
	if _, err := Singular([]float64{1}, 1, 1, &Settings{Precision: -1}); !errors.Is(err, ErrInput) {
		t.Errorf("a negative precision: %v", err)
	}
}
