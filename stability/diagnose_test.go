package stability

import (
	"errors"
	"math"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/cpd"
)

func TestOrthogonalComponentsAreSound(t *testing.T) {
	eye := func(d int) *mat.Dense {
		m := mat.NewDense(d, 2, nil)
		m.Set(0, 0, 1)
		m.Set(1, 1, 1)
		return m
	}
	k := &cpd.Kruskal{Weights: []float64{3, 4}, Factors: []*mat.Dense{eye(3), eye(4), eye(2)}}
	x, err := k.Reconstruct()
	if err != nil {
		t.Fatal(err)
	}
	r, err := Diagnose(x, k)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(r.Norm-5) > 1e-12 || math.Abs(r.Intensity-25) > 1e-12 || math.Abs(r.Degeneracy-1) > 1e-12 || math.Abs(r.Cosine) > 1e-12 || math.Abs(r.CoreConsistency-100) > 1e-9 {
		t.Errorf("%+v", r)
	}
}

// T_n = n(e₁+e₂/n)³ − n·e₁³ has the intensity n²(1+1/n²)³ + n².
func TestCancellingComponentsAreReported(t *testing.T) {
	const n = 100
	u := mat.NewDense(2, 2, []float64{1, 1, 1. / n, 0})
	k := &cpd.Kruskal{Weights: []float64{n, -n}, Factors: []*mat.Dense{u, u, u}}
	r, err := Diagnose(border(), k)
	if err != nil {
		t.Fatal(err)
	}
	want := n*n*math.Pow(1+1./(n*n), 3) + n*n
	if math.Abs(r.Intensity-want) > 1e-9*want || r.Degeneracy < 6000 || r.Cosine > -.999 || r.Pair != [2]int{0, 1} || r.CoreConsistency > 50 {
		t.Errorf("%+v; want intensity %g", r, want)
	}
}

func TestDiagnoseHandlesTheEnds(t *testing.T) {
	x := noisy(1, 3, .1, 6, 5, 4)
	one, err := Diagnose(x, als(t, x, 1, cpd.Settings{}))
	if err != nil || one.Cosine != 1 || math.Abs(one.CoreConsistency-100) > 1e-6 {
		t.Errorf("rank 1: %+v, %v", one, err)
	}
	y := noisy(1, 3, .1, 30, 20, 9)
	if many, err := Diagnose(y, als(t, y, 220, cpd.Settings{MaxSweeps: 2})); err != nil || !math.IsNaN(many.CoreConsistency) {
		t.Errorf("rank 220: %+v, %v", many, err)
	}
	for _, k := range []*cpd.Kruskal{nil, {}, als(t, noisy(1, 2, .1, 4, 5), 2, cpd.Settings{})} {
		if _, err := Diagnose(x, k); !errors.Is(err, ErrSettings) {
			t.Errorf("error %v", err)
		}
	}
}
