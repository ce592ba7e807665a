package peft

import (
	"testing"

	"github.com/lowrank-go/lowrank/conv"
)

// A step of the materialised plan on the largest kernel of a ResNet-18.
func BenchmarkStep(b *testing.B) {
	for _, s := range []Spec{
		{Kind: LoRA, Rank: []int{8}},
		{Kind: CP, Rank: []int{16}},
		{Kind: Tucker2, Rank: []int{8, 8}},
		{Kind: TKDCPD, Rank: []int{8, 8, 16}},
		{Kind: LoHa, Rank: []int{8}},
		{Kind: LoKr, Rank: []int{8}},
		{Kind: Parallel},
		{Kind: Series},
	} {
		s.Shape, s.Geometry = [4]int{512, 512, 3, 3}, conv.Geometry{Padding: [2]int{1, 1}}
		b.Run(string(s.Kind), func(b *testing.B) {
			c, err := New(s)
			if err != nil {
				b.Fatal(err)
			}
			rng := seeded(1)
			for _, f := range c.Factors() {
				fill(f.Value, rng)
			}
			base, w, g := gaussian[float32](s.kernelLen(), rng), make([]float32, s.kernelLen()), gaussian[float32](s.kernelLen(), rng)
			b.ReportAllocs()
			for b.Loop() {
				copy(w, base)
				c.Materialise(w, base)
				c.Pull(g, base)
			}
		})
	}
}
