package stability_test

import (
	"context"
	"fmt"

	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/stability"
)

// A tensor without a best approximation of rank 2: the longer least squares run, the
// more the two components cancel each other.
func ExampleEPC() {
	x := tensor.New(tensor.WithShape(2, 2, 2), tensor.WithBacking([]float64{0, 1, 1, 0, 1, 0, 0, 0}))
	fit, err := cpd.ALS(context.Background(), x, 2, &cpd.Settings{Init: cpd.InitRandom, Seed: 1, MaxSweeps: 1000, Tol: 1e-300})
	if err != nil {
		fmt.Println(err)
		return
	}
	r, err := stability.EPC(context.Background(), x, &fit.Kruskal, &stability.Settings{Bound: .1, Tol: 1e-10, MaxSweeps: 2000})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("intensity of the fit above 10:", r.Before.Intensity > 10)
	fmt.Printf("corrected: intensity %.3f at an error of %.3f\n", r.After.Intensity, r.After.RelError)
	// Output:
	// intensity of the fit above 10: true
	// corrected: intensity 4.410 at an error of 0.100
}
