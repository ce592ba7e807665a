package ranks_test

import (
	"fmt"

	"github.com/lowrank-go/lowrank/ranks"
)

// Ranks for three layers within 10 000 parameters.
func ExampleAllocate() {
	costing := func(unit int64, singular ...float64) ranks.Layer {
		return ranks.Layer{Singular: [][]float64{singular}, Cost: func(rank []int) int64 { return unit * int64(rank[0]) }}
	}
	layers := []ranks.Layer{costing(1000, 9, 4, 1, 0.1), costing(2500, 5, 5, 5), costing(500, 2, 1)}
	chosen, err := ranks.Allocate(10000, layers)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(chosen)
	// Output:
	// [[2] [3] [1]]
}
