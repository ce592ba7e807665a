package conv

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkForward runs layers of ResNet-20 (32×32 images) and ResNet-18
// (224×224): forward, on all cores, in GFLOP/s of the convolution's own
// arithmetic.
func BenchmarkForward(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		name                       string
		batch, in, out, side, taps int
		stride, groups             int
	}{
		{"resnet20/conv1", 64, 3, 16, 32, 3, 1, 1},
		{"resnet20/layer1", 64, 16, 16, 32, 3, 1, 1},
		{"resnet20/layer2.0", 64, 16, 32, 32, 3, 2, 1},
		{"resnet20/layer2", 64, 32, 32, 16, 3, 1, 1},
		{"resnet20/layer3", 64, 64, 64, 8, 3, 1, 1},
		{"resnet18/conv1", 1, 3, 64, 224, 7, 2, 1},
		{"resnet18/layer1", 1, 64, 64, 56, 3, 1, 1},
		{"resnet18/layer2", 1, 128, 128, 28, 3, 1, 1},
		{"resnet18/layer3", 1, 256, 256, 14, 3, 1, 1},
		{"resnet18/layer4", 1, 512, 512, 7, 3, 1, 1},
		{"pointwise64", 1, 64, 64, 56, 1, 1, 1},
		{"depthwise64", 1, 64, 64, 56, 3, 1, 64},
	} {
		for _, workers := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/workers=%d", c.name, workers), func(b *testing.B) {
				shape := [4]int{c.out, c.in / c.groups, c.taps, c.taps}
				k, err := NewKernel(shape, random(rng, shape[0]*shape[1]*shape[2]*shape[3]), nil,
					Geometry{Stride: [2]int{c.stride, c.stride}, Padding: [2]int{c.taps / 2, c.taps / 2}, Groups: c.groups})
				if err != nil {
					b.Fatal(err)
				}
				l, err := NewLayer(k)
				if err != nil {
					b.Fatal(err)
				}
				x := NewMap(c.batch, c.side, c.side, c.in)
				copy(x.Data, random(rng, len(x.Data)))
				var y *Map
				for b.Loop() {
					if y, err = l.Forward(y, x, Epilogue{ReLU: true}, workers); err != nil {
						b.Fatal(err)
					}
				}
				flops := 2 * float64(k.MACs(c.side, c.side)) * float64(c.batch)
				b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	}
}
