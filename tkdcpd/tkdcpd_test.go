package tkdcpd

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
	"github.com/lowrank-go/lowrank/internal/tensorops"
	"github.com/lowrank-go/lowrank/stability"
)

var bg = context.Background()

// kernel is a sum of rank components and noise of the given share.
func kernel(seed uint64, rank int, noise float64, shape ...int) *tensor.Dense {
	rng := rand.New(rand.NewPCG(seed, 11))
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

// decompose checks what holds for every result: the error by its definition, which
// both parts' add up to, and the same tensor from the fused factors.
func decompose(t *testing.T, x *tensor.Dense, set *Settings) *Result {
	t.Helper()
	r, err := Decompose(bg, x, set)
	if err != nil {
		t.Fatal(err)
	}
	core, err := r.Core.Reconstruct()
	if err != nil {
		t.Fatal(err)
	}
	shape, v, err := tensorops.View(core)
	if err != nil {
		t.Fatal(err)
	}
	for n, u := range r.Factors {
		if u != nil {
			rows, cols := u.Dims()
			shape, v = tensorops.MulMode(1, shape, v, n, false, mat.DenseCopyOf(u).RawMatrix().Data, rows)
			var g mat.Dense
			g.Mul(u.T(), u)
			for i := range cols {
				g.Set(i, i, g.At(i, i)-1)
			}
			if mat.Norm(&g, 2) > 1e-10 {
				t.Errorf("factor %d is not orthonormal", n)
			}
		}
	}
	fused, err := r.Kruskal().Reconstruct()
	if err != nil {
		t.Fatal(err)
	}
	a, b := x.Data().([]float64), fused.Data().([]float64)
	var num, den, apart float64
	for i, w := range a {
		num += (w - v[i]) * (w - v[i])
		den += w * w
		apart += (v[i] - b[i]) * (v[i] - b[i])
	}
	if e := math.Sqrt(num / den); math.Abs(e-r.RelError) > 1e-9 {
		t.Errorf("error %.12g is reported as %.12g", e, r.RelError)
	}
	if math.Sqrt(apart/den) > 1e-12 {
		t.Errorf("the fused factors are %g apart", math.Sqrt(apart/den))
	}
	return r
}

func TestExactDecompositionsAreFound(t *testing.T) {
	x := kernel(1, 3, 0, 12, 10, 9)
	r := decompose(t, x, &Settings{Ranks: []int{3, 3}, Rank: 3, Fit: cpd.Settings{MaxSweeps: 2000}})
	if r.RelError > 1e-5 || r.TuckerError > 1e-10 {
		t.Errorf("error %g, of which Tucker's %g", r.RelError, r.TuckerError)
	}
}

func TestTheWholeBoundIsSpentAndKept(t *testing.T) {
	for _, shape := range [][]int{{40, 30}, {16, 14, 9}, {12, 10, 3, 3}, {6, 5, 4, 3, 2}} {
		x := kernel(2, 4, .3, shape...)
		for _, fuse := range []Fuse{Apart, Cheaper, All} {
			r := decompose(t, x, &Settings{RelError: .4, Rank: 12, Fuse: fuse})
			if r.Correction.Raised || r.RelError > .4*(1+1e-7) || r.RelError < .4*.999 || r.TuckerError > .2*(1+1e-9) {
				t.Errorf("%v: error %g, of which Tucker's %g; raised %v", shape, r.RelError, r.TuckerError, r.Correction.Raised)
			}
			if r.Correction.After.Sensitivity >= r.Correction.Before.Sensitivity {
				t.Errorf("%v: sensitivity %g, before %g", shape, r.Correction.After.Sensitivity, r.Correction.Before.Sensitivity)
			}
		}
	}
}

// Fused factors are the less sensitive for having been corrected as such.
func TestFusedSensitivityIsTheObjective(t *testing.T) {
	x := kernel(3, 5, .3, 20, 12, 9)
	set := Settings{Ranks: []int{8, 6}, RelError: .45, Rank: 8}
	apart := decompose(t, x, &set)
	set.Fuse = All
	fused := decompose(t, x, &set)
	if f, a := fused.Kruskal().LeastSensitivity(), apart.Kruskal().LeastSensitivity(); f > a*(1+1e-3) {
		t.Errorf("fused sensitivity %g, and %g of factors corrected apart", f, a)
	}
}

func TestABoundOutOfReachIsReported(t *testing.T) {
	x := kernel(4, 6, .5, 10, 9, 8)
	if r := decompose(t, x, &Settings{RelError: .1, Rank: 1}); !r.Correction.Raised || r.RelError < .1 {
		t.Errorf("error %g, raised %v", r.RelError, r.Correction.Raised)
	}
}

func TestZeroTensors(t *testing.T) {
	x := tensorops.Wrap([]int{3, 4, 5}, make([]float64, 60))
	r, err := Decompose(bg, x, &Settings{Ranks: []int{2, 2}, Rank: 2})
	if err != nil || r.RelError != 0 || r.Kruskal().Norm() != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestBadSettingsAreErrors(t *testing.T) {
	x := kernel(1, 2, .1, 4, 5, 3)
	for name, set := range map[string]*Settings{
		"nil": nil, "nothing": {}, "no bound": {Rank: 2}, "bound 1": {Rank: 2, RelError: 1}, "NaN": {Rank: 2, RelError: math.NaN()},
		"share": {Rank: 2, RelError: .1, Share: 1}, "factor": {Rank: 2, Ranks: []int{2}, EPC: stability.Settings{Factor: .5}}, "correction's bound": {Ranks: []int{2}, EPC: stability.Settings{Bound: .5}},
		"rank": {Rank: -1, Ranks: []int{2}}, "budget": {Params: -1}, "rank and budget": {Rank: 2, Params: 100}, "two rules": {Ranks: []int{2}, VBMF: true},
		"ranks": {Ranks: []int{2, 2, 2}}, "rank 0": {Ranks: []int{0}}, "modes": {Modes: []int{0, 3}, Ranks: []int{2}}, "mode twice": {Modes: []int{1, 1}, Ranks: []int{2}},
		"sign": {Ranks: []int{2}, Fit: cpd.Settings{NonNegative: []int{0}}}, "weights": {Ranks: []int{2}, Fit: cpd.Settings{Weights: x}},
		"fuse": {Ranks: []int{2}, Fuse: "some"}, "negative bound": {RelError: -.1},
	} {
		if _, err := Decompose(bg, x, set); !errors.Is(err, ErrSettings) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(bg)
	cancel()
	if _, err := Decompose(ctx, x, &Settings{Rank: 2, Ranks: []int{2}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error %v", err)
	}
}

// A kernel of 12×10 channels and 9 taps: both parts' factors, and those of the CPD that
// they multiply to.
func ExampleDecompose() {
	r, err := Decompose(context.Background(), kernel(1, 3, 0, 12, 10, 9), &Settings{Ranks: []int{3, 3}, Rank: 3})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Core.Shape(), r.Kruskal().Shape(), r.RelError < .01)
	// Output: [3 3 9] [12 10 9] true
}
