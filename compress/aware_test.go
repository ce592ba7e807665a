package compress

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/conv"
)

// seen is a kernel with inputs whose channels and pixels have much to do with each other,
// and the moments of all of these.
type seen struct {
	k *conv.Kernel
	x *conv.Map
	m *Moments
}

func see(t *testing.T, shape [4]int, full int) *seen {
	t.Helper()
	k := kernel(t, shape, 8, .3, conv.Geometry{Padding: [2]int{1, 1}})
	rng := rand.New(rand.NewPCG(5, 6))
	x := conv.NewMap(12, 9, 9, shape[1])
	level := make([]float64, shape[1])
	for i := range x.Data {
		c := i % shape[1]
		level[c] = .7*level[c] + rng.NormFloat64()
		x.Data[i] = float32(math.Max(level[c]/float64(1+c*c)+.5*level[0]+.2, 0))
	}
	d := shape[1] * k.Taps()
	m := &Moments{Norm: k.Norm(), Mean: make([]float64, d), Channel: make([]float64, shape[1]*shape[1]), Output: make([]float64, shape[0]*shape[0])}
	if d <= full {
		m.Full = make([]float64, d*d)
	}
	s := &collected{Moments: m, kernel: k, weight: doubles(k.Weight)}
	c := &collector{opt: CollectOptions{Positions: 1 << 20}, sites: map[string]*collected{"c": s}}
	if err := c.tap("c", x); err != nil {
		t.Fatal(err)
	}
	s.mean(k.Taps())
	return &seen{k, x, m}
}

// outputs runs stages on the inputs: a row a position.
func (s *seen) outputs(t *testing.T, stages ...*conv.Kernel) *mat.Dense {
	t.Helper()
	r, err := conv.NewRunner(&conv.Chain{Kind: conv.Dense, Groups: 1, Stages: stages})
	if err != nil {
		t.Fatal(err)
	}
	y, err := r.Forward(nil, s.x, conv.Epilogue{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return mat.NewDense(len(y.Data)/y.C, y.C, doubles(y.Data))
}

// centre takes the means of the columns out and returns them.
func centre(y *mat.Dense) []float64 {
	n, c := y.Dims()
	means := make([]float64, c)
	for j := range c {
		for i := range n {
			means[j] += y.At(i, j) / float64(n)
		}
		for i := range n {
			y.Set(i, j, y.At(i, j)-means[j])
		}
	}
	return means
}

// measured is the relative error of a chain's outputs on the inputs, and the largest
// difference of a mean.
func (s *seen) measured(t *testing.T, c *conv.Chain) (e, shift float64) {
	t.Helper()
	want, got := s.outputs(t, s.k), s.outputs(t, c.Stages...)
	var diff mat.Dense
	diff.Sub(want, got)
	centre(want)
	for _, v := range centre(&diff) {
		shift = max(shift, math.Abs(v))
	}
	return mat.Norm(&diff, 2) / mat.Norm(want, 2), shift
}

func (s *seen) compress(t *testing.T, opt Options) Result {
	t.Helper()
	opt.Statistics = &Statistics{Images: 12, Sites: map[string]*Moments{"layer": s.m}}
	opt.Always = true
	r := one(t, s.k, opt)
	if r.Reason != "" {
		t.Fatal(r.Reason)
	}
	return r
}

// The outputs of no chain of rank R can be nearer than their best approximation of rank R.
func TestSVDWithStatisticsIsTheBestOfItsRankForTheOutputs(t *testing.T) {
	for _, full := range []int{0, 1000} {
		s := see(t, [4]int{10, 5, 3, 3}, full)
		y := s.outputs(t, s.k)
		centre(y)
		var svd mat.SVD
		if !svd.Factorize(y, mat.SVDNone) {
			t.Fatal("no SVD")
		}
		values := svd.Values(nil)
		for rank := 1; rank < 10; rank += 2 {
			var lost, all float64
			for i, v := range values {
				if all += v * v; i >= rank {
					lost += v * v
				}
			}
			want := math.Sqrt(lost / all)
			r := s.compress(t, Options{Method: SVD, Rank: Rank{Rule: Fixed, Fixed: []int{rank}}})
			got, shift := s.measured(t, r.Chain)
			if !(math.Abs(got-want) <= 1e-3*want+1e-5) || !(math.Abs(r.OutputError-want) <= 2e-3*want+1e-4) {
				t.Errorf("rank %d, full %d: error %g, reported %g, the best is %g", rank, full, got, r.OutputError, want)
			}
			if !(shift < 1e-4) {
				t.Errorf("rank %d: means differ by %g", rank, shift)
			}
			if free := one(t, s.k, Options{Method: SVD, Always: true, Rank: Rank{Rule: Fixed, Fixed: []int{rank}}}); rank < 7 {
				if e, _ := s.measured(t, free.Chain); !(e > got) {
					t.Errorf("rank %d: without data %g, with %g", rank, e, got)
				}
			}
		}
	}
}

// leastSquares is the error that is left of y when it is regressed on x.
func leastSquares(t *testing.T, x, y *mat.Dense) float64 {
	t.Helper()
	var b, left mat.Dense
	if err := b.Solve(x, y); err != nil {
		t.Fatal(err)
	}
	left.Mul(x, &b)
	left.Sub(y, &left)
	return mat.Norm(&left, 2) / mat.Norm(y, 2)
}

// patches are the h×w patches of features, by a convolution that copies.
func patches(c, h, w int) *conv.Kernel {
	n := c * h * w
	k := &conv.Kernel{Shape: [4]int{n, c, h, w}, Weight: make([]float32, n*n)}
	for i := range n {
		k.Weight[i*n+i] = 1
	}
	return k
}

func TestTheLastStageOfEveryMethodIsTheRegressionOnWhatItSees(t *testing.T) {
	s := see(t, [4]int{10, 6, 3, 3}, 1000)
	y := s.outputs(t, s.k)
	centre(y)
	for method, fixed := range map[Method][]int{SVDIn: {3}, Spatial: {5}, CP: {7}, Separable: {7}, TKDCPD: {5, 4, 7}} {
		r := s.compress(t, Options{Method: method, Seed: 1, Rank: Rank{Rule: Fixed, Fixed: fixed}})
		stages := r.Chain.Stages
		last := *stages[len(stages)-1]
		see := patches(last.Shape[1], last.Shape[2], last.Shape[3])
		see.Geometry = last.Geometry
		x := s.outputs(t, append(append([]*conv.Kernel(nil), stages[:len(stages)-1]...), see)...)
		centre(x)
		want := leastSquares(t, x, y)
		got, shift := s.measured(t, r.Chain)
		if !(math.Abs(got-want) <= 1e-3*want) || !(math.Abs(r.OutputError-got) <= 1e-3) || !(shift < 1e-4) {
			t.Errorf("%s: error %g, reported %g, least squares %g, means differ by %g", method, got, r.OutputError, want, shift)
		}
		free := one(t, s.k, Options{Method: method, Seed: 1, Always: true, Rank: Rank{Rule: Fixed, Fixed: fixed}})
		if e, _ := s.measured(t, free.Chain); !(e > got) {
			t.Errorf("%s: without data %g, with %g", method, e, got)
		}
	}
}

// Given the first stage, alternating least squares between the two others comes to what
// reduced-rank regression gives at once, and to nothing better.
func TestTuckerWithStatisticsIsTheBestGivenItsFirstStage(t *testing.T) {
	s := see(t, [4]int{10, 6, 3, 3}, 1000)
	r := s.compress(t, Options{Method: Tucker, Rank: Rank{Rule: Fixed, Fixed: []int{4, 3}}})
	got, shift := s.measured(t, r.Chain)
	see := patches(3, 3, 3)
	see.Padding = [2]int{1, 1}
	x, y := s.outputs(t, r.Chain.Stages[0], see), s.outputs(t, s.k)
	centre(x)
	centre(y)
	best := math.Inf(1)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3 {
		u := mat.NewDense(10, 4, nil)
		for i := range u.RawMatrix().Data {
			u.RawMatrix().Data[i] = rng.NormFloat64()
		}
		var e float64
		for range 60 {
			// ‖Y − X·G·Uᵀ‖: G of Y·(Uᵀ)⁺ on X, then Uᵀ of Y on X·G.
			var pinv, z, g, f, ut, left mat.Dense
			if err := pinv.Solve(u, eye(10)); err != nil {
				t.Fatal(err)
			}
			z.Mul(y, pinv.T())
			if err := g.Solve(x, &z); err != nil {
				t.Fatal(err)
			}
			f.Mul(x, &g)
			if err := ut.Solve(&f, y); err != nil {
				t.Fatal(err)
			}
			left.Mul(&f, &ut)
			left.Sub(y, &left)
			e = mat.Norm(&left, 2) / mat.Norm(y, 2)
			u = mat.DenseCopyOf(ut.T())
		}
		best = min(best, e)
	}
	if !(math.Abs(got-best) <= 2e-3*best) || !(shift < 1e-4) {
		t.Errorf("error %g, alternating least squares %g, means differ by %g", got, best, shift)
	}
	if !(math.Abs(r.OutputError-got) < 1e-3) {
		t.Errorf("reported %g of %g", r.OutputError, got)
	}
}

func eye(n int) *mat.Dense {
	m := mat.NewDense(n, n, nil)
	for i := range n {
		m.Set(i, i, 1)
	}
	return m
}

// Without the covariance of patches the whitened decompositions still beat those without data.
func TestChannelStatisticsAloneLowerTheErrorOfTheOutputs(t *testing.T) {
	s := see(t, [4]int{10, 6, 3, 3}, 0)
	for method, fixed := range map[Method][]int{Tucker: {5, 3}, SVDIn: {3}, CP: {7}} {
		r := s.compress(t, Options{Method: method, Seed: 1, Rank: Rank{Rule: Fixed, Fixed: fixed}})
		got, shift := s.measured(t, r.Chain)
		free := one(t, s.k, Options{Method: method, Seed: 1, Always: true, Rank: Rank{Rule: Fixed, Fixed: fixed}})
		if e, _ := s.measured(t, free.Chain); !(e > got) || !(shift < 1e-4) {
			t.Errorf("%s: without data %g, with %g; means differ by %g", method, e, got, shift)
		}
	}
}
