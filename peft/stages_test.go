package peft

import (
	"testing"

	"github.com/lowrank-go/lowrank/conv"
)

// The decisions for the convolutions of ResNet-20 on 32×32 and of ResNet-18 on 224×224
// images: c for the chain, m for the materialised kernel.
func TestPlansOfPublishedNetworks(t *testing.T) {
	layers := []struct{ o, c, k, stride, size int }{
		{16, 16, 3, 1, 32}, {32, 16, 3, 2, 32}, {32, 32, 3, 1, 16}, {64, 32, 3, 2, 16}, {64, 64, 3, 1, 8},

		{64, 64, 3, 1, 56}, {128, 64, 3, 2, 56}, {128, 64, 1, 2, 56}, {128, 128, 3, 1, 28},
		{256, 128, 3, 2, 28}, {256, 256, 3, 1, 14}, {512, 256, 3, 2, 14}, {512, 512, 3, 1, 7},
	}
	for _, c := range []struct {
		spec  Spec
		batch int
		want  string
	}{
		{Spec{Kind: LoRA, Rank: []int{4}}, 128, "mmmcm mccccccc"},
		{Spec{Kind: LoRA, Rank: []int{16}}, 1, "mmmcc mcmccccc"}, // few pixels: building ΔW costs more than the maps
		{Spec{Kind: LoRA, Rank: []int{16}}, 128, "mmmcm mcmccccc"},
		{Spec{Kind: Spatial, Rank: []int{4}}, 128, "mmmcc cccccccc"},
		{Spec{Kind: CP, Rank: []int{16}}, 128, "mmccc ccmccccc"},
		{Spec{Kind: Tucker2, Rank: []int{8, 8}}, 128, "mmmcc ccmccccc"},
		{Spec{Kind: TKDCPD, Rank: []int{8, 8, 16}}, 8, "mmccc ccmccccc"},
		{Spec{Kind: TKDCPD, Rank: []int{8, 8, 16}}, 128, "mmmcc ccmccccc"},
		{Spec{Kind: Series}, 128, "ccccc ccmccccc"},
		{Spec{Kind: Axial, Axes: "h", Match: Copy}, 128, "cmcmc cmmcmcmc"}, // no chain where O ≠ C
		{Spec{Kind: Axial, Axes: "h"}, 128, "mcmcm mcmmcmcm"},
		{Spec{Kind: LoHa, Rank: []int{1}}, 128, "mmmmm mmmmmmmm"},
	} {
		got := ""
		for i, l := range layers {
			if i == 5 {
				got += " "
			}
			s := c.spec
			s.Shape, s.Geometry = [4]int{l.o, l.c, l.k, l.k}, conv.Geometry{Stride: [2]int{l.stride, l.stride}, Padding: [2]int{l.k / 2, l.k / 2}}
			d, err := New(s)
			if err != nil {
				t.Fatal(err)
			}
			got += string(d.Plan(c.batch, l.size, l.size)[0])
		}
		if got != c.want {
			t.Errorf("%s, %d images: %s, want %s", c.spec.title(), c.batch, got, c.want)
		}
	}
}

func TestCostsAreMultiplications(t *testing.T) {
	d, err := New(Spec{Kind: LoRA, Shape: [4]int{64, 64, 3, 3}, Geometry: conv.Geometry{Padding: [2]int{1, 1}}, Rank: []int{5}})
	if err != nil {
		t.Fatal(err)
	}
	chain, build, base := d.Costs(3, 32, 16)
	if p := int64(3 * 32 * 16); chain != 5*(576+64)*p || build != 5*64*576 || base != 64*576*p {
		t.Errorf("costs %d, %d, %d", chain, build, base)
	}
}

func TestMiddleTapOfAnyKernelGivesTheSizeOfTheConvolution(t *testing.T) {
	for _, taps := range []int{2, 3, 4} {
		for extra := range 3 {
			s := Spec{Kind: Parallel, Shape: [4]int{4, 4, taps, taps}, Geometry: conv.Geometry{Padding: [2]int{2, 2}, Extra: [2]int{extra, extra}}}
			found := false
			s.eachStage(9, 8, func(shape [4]int, g conv.Geometry, _ int64) {
				found = true
				h, w := (&conv.Kernel{Shape: shape, Geometry: g}).OutputSize(9, 8)
				if oh, ow := s.outputSize(9, 8); h != oh || w != ow {
					t.Errorf("%d taps and %d more zeros: %d×%d, want %d×%d", taps, extra, h, w, oh, ow)
				}
			})
			if !found {
				t.Errorf("%d taps: no stages", taps)
			}
		}
	}
}
