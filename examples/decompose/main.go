// Command decompose shows the decompositions on one tensor: a sum of three
// rank-1 terms with a little noise, which CP recovers from its components,
// Tucker from its subspaces, and whose rank VBMF finds.
//
//	go run ./examples/decompose
package main

import (
	"context"
	"fmt"
	"log"
	"math"

	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/tucker"
	"github.com/lowrank-go/lowrank/vbmf"
)

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx := context.Background()
	x := waves(20, 16, 12)

	c, err := cpd.ALS(ctx, x, 3, nil)
	if err != nil {
		return err
	}
	fmt.Printf("cp      rank 3: error %.4f after %d sweeps (%s), %d parameters, weights %.2f\n",
		c.RelError, c.Sweeps, c.Status, c.Params(), c.Weights)

	t, err := tucker.HOOI(ctx, x, &tucker.Settings{RelError: 0.01})
	if err != nil {
		return err
	}
	fmt.Printf("tucker  error ≤ 0.01: ranks %v, error %.4f, %d parameters\n", t.Ranks(), t.RelError, t.Params())

	for mode := range 3 {
		v, err := vbmf.Unfolding(x, mode, nil)
		if err != nil {
			return err
		}
		fmt.Printf("vbmf    mode %d: rank %d, noise deviation %.4f\n", mode, v.Rank, math.Sqrt(v.Variance))
	}
	return nil
}

// waves is three waves of different frequency in each mode, and a fixed
// pattern of size 0.002 in place of noise.
func waves(sizes ...int) *tensor.Dense {
	n := sizes[0] * sizes[1] * sizes[2]
	data := make([]float64, n)
	for at := range data {
		index := [3]int{at / (sizes[1] * sizes[2]), at / sizes[2] % sizes[1], at % sizes[2]}
		for r := 1; r <= 3; r++ {
			term := float64(4 - r)
			for m, i := range index {
				term *= math.Sin(float64(r*(i+1)*(m+2)) / float64(sizes[m]))
			}
			data[at] += term
		}
		data[at] += 0.002 * math.Sin(float64(at)*float64(at))
	}
	return tensor.New(tensor.WithShape(sizes...), tensor.WithBacking(data))
}
