package stability

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/cpd"
)

// terracini is the matrix itself, from its definition: an orthonormal basis, by QR, of
// the derivatives of each component in all entries of its columns.
func terracini(k *cpd.Kruskal) *mat.Dense {
	shape := k.Shape()
	size, each := 1, 1
	for _, d := range shape {
		size *= d
		each += d - 1
	}
	all := mat.NewDense(size, k.Rank()*each, nil)
	for r := range k.Rank() {
		var columns []float64
		for n, d := range shape {
			for i := range d {
				for at := range size {
					v, rem := 1., at
					for m := len(shape) - 1; m >= 0; m-- {
						j := rem % shape[m]
						rem /= shape[m]
						switch {
						case m != n:
							v *= k.Factors[m].At(j, r)
						case j != i:
							v = 0
						}
					}
					columns = append(columns, v)
				}
			}
		}
		// Their span has the dimension each: one is counted in every mode.
		m := mat.NewDense(len(columns)/size, size, columns)
		var f mat.SVD
		f.Factorize(m.T(), mat.SVDThin)
		var u mat.Dense
		f.UTo(&u)
		all.Slice(0, size, r*each, (r+1)*each).(*mat.Dense).Copy(u.Slice(0, size, 0, each))
	}
	return all
}

func TestConditionIsThatOfTheTerraciniMatrix(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 8))
	for _, c := range []struct {
		shape []int
		rank  int
	}{{[]int{4, 3, 2}, 1}, {[]int{4, 3, 3}, 2}, {[]int{5, 4, 3}, 4}, {[]int{3, 3, 2, 2}, 3}} {
		k := &cpd.Kruskal{}
		for _, d := range c.shape {
			u := mat.NewDense(d, c.rank, nil)
			u.Apply(func(int, int, float64) float64 { return 1 + rng.NormFloat64() }, u)
			k.Factors = append(k.Factors, u)
		}
		x, err := k.Reconstruct()
		if err != nil {
			t.Fatal(err)
		}
		r, err := Diagnose(x, k)
		if err != nil {
			t.Fatal(err)
		}
		var f mat.SVD
		f.Factorize(terracini(k), mat.SVDNone)
		s := f.Values(nil)
		if want := 1 / s[len(s)-1]; math.Abs(r.Condition-want) > 1e-6*want {
			t.Errorf("%v, rank %d: condition %.9g, want %.9g", c.shape, c.rank, r.Condition, want)
		}
		if r.NormalCondition < 1 || r.Condition < 1-1e-9 {
			t.Errorf("%v: conditions %g and %g", c.shape, r.NormalCondition, r.Condition)
		}
	}
}

func TestConditionsOfTheEnds(t *testing.T) {
	// T_n: the unit columns' cosine is 1/√(1+1/n²), squared in the normal equations,
	// whose condition is then 2n² + 1 exactly.
	for _, n := range []float64{1, 10, 100} {
		u := mat.NewDense(2, 2, []float64{1, 1, 1 / n, 0})
		r, err := Diagnose(border(), &cpd.Kruskal{Weights: []float64{n, -n}, Factors: []*mat.Dense{u, u, u}})
		if err != nil {
			t.Fatal(err)
		}
		if want := 2*n*n + 1; math.Abs(r.NormalCondition-want) > 1e-6*want {
			t.Errorf("n = %g: condition of the normal equations %g, want %g", n, r.NormalCondition, want)
		}
		if r.Condition < n {
			t.Errorf("n = %g: condition %g", n, r.Condition)
		}
	}
	// Orthogonal components, and one that is zero.
	u := mat.NewDense(4, 3, []float64{1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0})
	k := &cpd.Kruskal{Factors: []*mat.Dense{u, u, u}}
	x, err := k.Reconstruct()
	if err != nil {
		t.Fatal(err)
	}
	if r, err := Diagnose(x, k); err != nil || math.Abs(r.Condition-1) > 1e-9 || math.Abs(r.NormalCondition-1) > 1e-9 {
		t.Errorf("%+v, %v", r, err)
	}
	// More components than a tensor has room for, and more than are counted.
	y := noisy(1, 3, .1, 3, 3, 2)
	if r, err := Diagnose(y, als(t, y, 5, cpd.Settings{MaxSweeps: 20})); err != nil || !math.IsInf(r.Condition, 1) {
		t.Errorf("%+v, %v", r, err)
	}
	z := noisy(1, 3, .1, 30, 20, 9)
	if r, err := Diagnose(z, als(t, z, 20, cpd.Settings{MaxSweeps: 2})); err != nil || !math.IsNaN(r.Condition) || r.NormalCondition < 1 {
		t.Errorf("%+v, %v", r, err)
	}
}
