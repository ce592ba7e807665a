package tucker_test

import (
	"context"
	"fmt"

	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/tucker"
)

// sums is the 4×5×6 tensor of i + j + k, which has the ranks (2,2,2).
func sums() *tensor.Dense {
	v := make([]float64, 4*5*6)
	for at := range v {
		v[at] = float64(at/30 + at/6%5 + at%6)
	}
	return tensor.New(tensor.WithShape(4, 5, 6), tensor.WithBacking(v))
}

// The ranks are found from a bound on the relative error.
func ExampleHOOI() {
	r, err := tucker.HOOI(context.Background(), sums(), &tucker.Settings{RelError: 1e-6})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("ranks", r.Ranks())
	fmt.Println("parameters", r.Params(), "of", 4*5*6)
	fmt.Println("exact", r.RelError < 1e-12)
	// Output:
	// ranks [2 2 2]
	// parameters 38 of 120
	// exact true
}

// Tucker-2: the last mode is left alone.
func ExampleHOSVD() {
	r, err := tucker.HOSVD(context.Background(), sums(), &tucker.Settings{Modes: []int{0, 1}, Ranks: []int{1, 1}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("core", r.Core.Shape())
	fmt.Printf("relative error %.3f\n", r.RelError)
	// Output:
	// core (1, 1, 6)
	// relative error 0.081
}

func ExampleTucker_Reconstruct() {
	x := sums()
	r, err := tucker.HOSVD(context.Background(), x, &tucker.Settings{Ranks: []int{2}})
	if err != nil {
		fmt.Println(err)
		return
	}
	y, err := r.Reconstruct()
	if err != nil {
		fmt.Println(err)
		return
	}
	v, err := y.At(3, 4, 5)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.6f\n", v)
	// Output: 12.000000
}

// Amounts that are sums of parts: no entry of the factors or of the core is negative,
// though no such decomposition is orthogonal.
func ExampleNonNegative() {
	r, err := tucker.NonNegative(context.Background(), sums(), &tucker.Settings{Ranks: []int{2, 2, 2}, Tol: 1e-9, MaxSweeps: 3000})
	if err != nil {
		fmt.Println(err)
		return
	}
	least := 0.
	for _, u := range r.Factors {
		for _, v := range u.RawMatrix().Data {
			least = min(least, v)
		}
	}
	fmt.Println("ranks", r.Ranks(), "least entry", least)
	fmt.Println("error below 0.01:", r.RelError < .01)
	// Output:
	// ranks [2 2 2] least entry 0
	// error below 0.01: true
}
