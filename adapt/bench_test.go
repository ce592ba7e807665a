package adapt

import (
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
	"github.com/lowrank-go/lowrank/zoo"
)

// A step forwards and backwards of ResNet-20 on 64 images, for each method.
func BenchmarkStep(b *testing.B) {
	base, err := zoo.New("resnet20", 10, zoo.NewOptions{})
	if err != nil {
		b.Fatal(err)
	}
	x := conv.NewMap(64, 32, 32, 3)
	for i := range x.Data {
		x.Data[i] = float32(i%17)/8 - 1
	}
	labels := make([]int, 64)
	for _, m := range Methods() {
		b.Run(m, func(b *testing.B) {
			n, err := New(base, Options{Method: Method(m), Classes: 10, Batch: 64})
			if err != nil {
				b.Fatal(err)
			}
			classes := n.Learner.Classes()
			g := make([]float32, 64*classes)
			for b.Loop() {
				y, err := n.Learner.Forward(b.Context(), x, 2)
				if err != nil {
					b.Fatal(err)
				}
				nn.CrossEntropy(g, y, labels, classes, 0, 2)
				if err := n.Learner.Backward(b.Context(), g, 2); err != nil {
					b.Fatal(err)
				}
				n.Learner.Updated()
			}
		})
	}
}
