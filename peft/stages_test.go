package peft

import (
	"testing"

	"github.com/lowrank-go/lowrank/conv"
)

// LoRA on O = C = 64 with 3×3 taps is cheaper as a chain up to r = O·K/(3(K+O)) = 19
// where the batch is so large that building ΔW costs nothing beside it.
func TestPlansFollowTheCosts(t *testing.T) {
	for _, c := range []struct {
		rank, batch, size int
		want              Plan
	}{
		{19, 64, 32, Chained},
		{20, 64, 32, Materialised},
		{19, 1, 32, Chained},
		{40, 1, 8, Chained}, // few pixels: building ΔW costs more than the map
	} {
		d, err := New(Spec{Kind: LoRA, Shape: [4]int{64, 64, 3, 3}, Geometry: conv.Geometry{Padding: [2]int{1, 1}}, Rank: []int{c.rank}})
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Plan(c.batch, c.size, c.size); got != c.want {
			t.Errorf("rank %d, %d maps of %d×%d: %s", c.rank, c.batch, c.size, c.size, got)
		}
		chain, build, base := d.Costs(c.batch, c.size, c.size)
		p := int64(c.batch * c.size * c.size)
		if r := int64(c.rank); chain != r*(576+64)*p || build != r*64*576 || base != 64*576*p {
			t.Errorf("costs %d, %d, %d", chain, build, base)
		}
	}
	d, err := New(Spec{Kind: LoHa, Shape: [4]int{8, 8, 3, 3}, Rank: []int{1}})
	if err != nil {
		t.Fatal(err)
	}
	if d.Plan(1, 8, 8) != Materialised {
		t.Error("a chain of LoHa")
	}
}
