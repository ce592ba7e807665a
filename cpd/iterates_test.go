package cpd

import (
	"context"
	"math"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/internal/synthetic"
)

// The errors are those of TensorLy 0.9.0's parafac in float64 on the same tensors
// from the same starts, rounded to the digits given.
func TestSweepsAreTheClassicalOnes(t *testing.T) {
	for _, c := range []struct {
		shape       [3]int
		truth, rank int
		noise       float64
		seed        uint64
		errors      map[int]float64 // after a number of sweeps
	}{
		{[3]int{64, 64, 9}, 32, 32, .5, 1000, map[int]float64{1: .8305, 10: .4571, 50: .420073}},
		{[3]int{64, 64, 9}, 32, 128, .5, 1000, map[int]float64{1: .5539, 10: .3097, 50: .273717}},
		{[3]int{100, 100, 100}, 20, 20, .1, 2000, map[int]float64{1: .8479, 10: .2076, 50: .099192}},
	} {
		if testing.Short() && c.shape[0] > 64 {
			continue
		}
		x := tensor.New(tensor.WithShape(c.shape[:]...), tensor.WithBacking(synthetic.Tensor(c.shape, c.truth, c.noise, c.seed)))
		start := &Kruskal{}
		for n, d := range c.shape {
			start.Factors = append(start.Factors, mat.NewDense(d, c.rank, synthetic.Start(n, d, c.rank, c.seed)))
		}
		r, err := ALS(context.Background(), x, c.rank, &Settings{Start: start, MaxSweeps: 50, Tol: 1e-300, Plain: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Errors) != 50 {
			t.Fatalf("%v rank %d: %d sweeps", c.shape, c.rank, len(r.Errors))
		}
		for sweep, want := range c.errors {
			tol := 5.1e-5
			if sweep == 50 {
				tol = 5.1e-7
			}
			if got := r.Errors[sweep-1]; math.Abs(got-want) > tol {
				t.Errorf("%v rank %d: error %.7f after %d sweeps, want %g", c.shape, c.rank, got, sweep, want)
			}
		}
	}
}
