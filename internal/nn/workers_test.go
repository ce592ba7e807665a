package nn

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
)

// The maps are large enough to be divided, and one of them has a single image.
func TestOperatorsGiveTheSameBitsForAnyNumberOfWorkers(t *testing.T) {
	rng := rand.New(rand.NewPCG(131, 131))
	for _, n := range []int{1, 3} {
		x, dy, before := normal(rng, n, 40, 41, 48), normal(rng, n, 40, 41, 48), normal(rng, n, 40, 41, 48)
		weight, bias := normal(rng, 1, 1, 1, 48).Data, normal(rng, 1, 1, 1, 48).Data
		window := Window{Size: [2]int{3, 4}, Stride: [2]int{1, 1}, Begin: [2]int{1, 1}, End: [2]int{1, 2}}
		gate := normal(rng, n, 1, 1, 48)
		into := func() *conv.Map { return clone(before) }
		run := map[string]func(workers int) [][]float32{
			"max pool": func(workers int) [][]float32 {
				p := MaxPool{Window: window}
				y := p.Forward(nil, x, workers)
				return [][]float32{y.Data, p.Backward(into(), dy, 40, 41, true, workers).Data}
			},
			"average pool": func(workers int) [][]float32 {
				return [][]float32{window.Average(nil, x, workers).Data, window.AverageBackward(into(), dy, 40, 41, false, workers).Data,
					AveragePool(nil, x, workers).Data, AveragePoolBackward(into(), gate, 40, 41, true, workers).Data}
			},
			"activation": func(workers int) [][]float32 {
				a := Activation{Kind: SiLU}
				return [][]float32{a.Forward(nil, x, workers).Data, a.Backward(into(), dy, x, nil, true, workers).Data}
			},
			"PReLU": func(workers int) [][]float32 {
				slopes, one := make([]float32, 48), make([]float32, 1)
				dx := PReLUBackward(into(), dy, x, weight, slopes, true, workers)
				PReLUBackward(nil, dy, x, weight[:1], one, false, workers)
				return [][]float32{PReLU(nil, x, weight, workers).Data, dx.Data, slopes, one}
			},
			"binary": func(workers int) [][]float32 {
				return [][]float32{Divide.Forward(nil, x, gate, workers).Data, Times.Forward(nil, x, gate, workers).Data,
					Divide.Backward(into(), dy, x, gate, false, true, workers).Data, Divide.Backward(nil, dy, x, gate, true, false, workers).Data}
			},
			"places": func(workers int) [][]float32 {
				wide := Concat(nil, 3, workers, x, dy)
				d := DepthToSpace(nil, x, 4, true, false, workers)
				return [][]float32{wide.Data, Slice(nil, wide, 3, 90, -2, 40, workers).Data, SliceBackward(nil, dy, 3, 3, 2, 100, false, workers).Data,
					d.Data, SpaceToDepth(into(), d, 4, false, true, workers).Data, ChannelShuffle(nil, x, 6, false, workers).Data}
			},
			"resize": func(workers int) [][]float32 {
				r := Resize{Mode: "cubic"}
				return [][]float32{r.Forward(nil, x, 63, 30, workers).Data, r.Backward(nil, dy, 63, 30, false, workers).Data}
			},
			"pad": func(workers int) [][]float32 {
				p := Pad{Mode: "reflect", Begin: [4]int{0, 2, 3, 0}, End: [4]int{0, 1, -2, 0}}
				y := p.Forward(nil, x, workers)
				return [][]float32{y.Data, p.Backward(into(), y, dimsOf(x), true, workers).Data}
			},
			"group norm": func(workers int) [][]float32 {
				g := GroupNorm{Groups: 6, Weight: weight, Bias: bias, Eps: 1e-5}
				weights, biases := make([]float32, 48), make([]float32, 48)
				y := g.Forward(nil, x, workers)
				return [][]float32{y.Data, g.Backward(into(), dy, x, weights, biases, true, workers).Data, weights, biases}
			},
			"layer norm": func(workers int) [][]float32 {
				l := LayerNorm{Width: 48, Weight: weight, Bias: bias, Eps: 1e-5}
				weights, biases := make([]float32, 48), make([]float32, 48)
				y := l.Forward(nil, x, workers)
				return [][]float32{y.Data, l.Backward(into(), dy, x, weights, biases, true, workers).Data, weights, biases}
			},
			"rows": func(workers int) [][]float32 {
				l := LRN{Size: 5, Alpha: 1e-2, Beta: .75, Bias: 1}
				y := Softmax(nil, x, workers)
				return [][]float32{y.Data, SoftmaxBackward(into(), dy, y, true, workers).Data, LogSoftmaxBackward(nil, dy, y, false, workers).Data,
					l.Forward(nil, x, workers).Data, l.Backward(into(), dy, x, true, workers).Data}
			},
			"affine": func(workers int) [][]float32 {
				scales, shifts := make([]float32, 48), make([]float32, 48)
				return [][]float32{AffineBackward(into(), dy, x, weight, scales, shifts, true, workers).Data, scales, shifts}
			},
			"reduce": func(workers int) [][]float32 {
				var all [][]float32
				for _, axes := range [][]int{{0, 1, 2, 3}, {1, 2}, {3}, {0}, {2, 3}} {
					y := ReduceMax.Forward(nil, x, axes, workers)
					all = append(all, ReduceL2.Forward(nil, x, axes, workers).Data, y.Data, ReduceMax.Backward(into(), y, x, y, dimsOf(x), axes, true, workers).Data)
				}
				return all
			},
			"dropout": func(workers int) [][]float32 {
				return [][]float32{Dropout{Rate: .3}.Forward(nil, x, 1, workers).Data}
			},
		}
		for name, f := range run {
			t.Run(fmt.Sprintf("%s of %d", name, n), func(t *testing.T) {
				want := f(1)
				for _, workers := range []int{2, 5} {
					for i, v := range f(workers) {
						if !slices.Equal(v, want[i]) {
							t.Errorf("result %d of %d workers differs", i, workers)
						}
					}
				}
			})
		}
	}
}
