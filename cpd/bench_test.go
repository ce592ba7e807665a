package cpd

import (
	"fmt"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/internal/synthetic"
)

// BenchmarkSweep is one sweep of ALS, error included, of the tensor itself.
func BenchmarkSweep(b *testing.B) {
	for _, c := range []struct {
		shape       [3]int
		truth, rank int
	}{
		{[3]int{64, 64, 9}, 32, 32}, {[3]int{64, 64, 9}, 32, 128}, {[3]int{64, 64, 9}, 32, 512},
		{[3]int{256, 256, 9}, 64, 32}, {[3]int{256, 256, 9}, 64, 128}, {[3]int{256, 256, 9}, 64, 512},
		{[3]int{512, 512, 9}, 128, 32}, {[3]int{512, 512, 9}, 128, 128}, {[3]int{512, 512, 9}, 128, 512},
		{[3]int{100, 100, 100}, 20, 20}, {[3]int{300, 300, 300}, 20, 20},
	} {
		b.Run(fmt.Sprintf("%d_%d_%d_R%d", c.shape[0], c.shape[1], c.shape[2], c.rank), func(b *testing.B) {
			x := tensor.New(tensor.WithShape(c.shape[:]...), tensor.WithBacking(synthetic.Tensor(c.shape, c.truth, .5, 1000)))
			start := &Kruskal{}
			for n, d := range c.shape {
				start.Factors = append(start.Factors, mat.NewDense(d, c.rank, synthetic.Start(n, d, c.rank, 1000)))
			}
			a, err := prepare(x, c.rank, &Settings{Start: start, Workers: 1}, 1)
			if err != nil {
				b.Fatal(err)
			}
			if err := a.start(0); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := a.sweep(0, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
