package zoo

import (
	"errors"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
)

// Outputs that are added change none of those before them, and each part of an extended
// network gives the bits of the whole.
func TestAnExtendedHeadKeepsItsOutputsToTheBit(t *testing.T) {
	for _, name := range []string{"cifar_pad", "basic", "fcn_cifar"} {
		n := residual(t, name, Options{})
		x := conv.NewMap(3, 24, 24, 3)
		for i := range x.Data {
			x.Data[i] = float32(i%19)/9 - 1
		}
		run := func(n *graph.Graph) []float32 { return slices.Clone(logits(t, n, x, 2)) }
		was := n.Classes()
		before := run(n)
		fresh := n.Clone()
		if err := fresh.SetHead(17, 3); err != nil {
			t.Fatal(err)
		}
		whole := n.Clone()
		if err := whole.ExtendHead(17, 3); err != nil {
			t.Fatal(err)
		}
		if whole.Classes() != was+17 || n.Classes() != was || !slices.Equal(run(n), before) {
			t.Errorf("%s: %d classes became %d, and the original's %d", name, was, whole.Classes(), n.Classes())
		}
		all := run(whole)
		for _, c := range []struct {
			first, last int
			want        []float32
		}{{0, was, before}, {was, was + 17, run(fresh)}} {
			part, err := whole.SelectOutputs(c.first, c.last)
			if err != nil {
				t.Fatal(err)
			}
			var got []float32
			for i := 0; i < len(all); i += whole.Classes() {
				got = append(got, all[i+c.first:i+c.last]...)
			}
			if !slices.Equal(run(part), c.want) || !slices.Equal(got, c.want) {
				t.Errorf("%s: outputs %d to %d are others", name, c.first, c.last)
			}
		}
	}
}

func TestOutputsThatThereCannotBeAreErrors(t *testing.T) {
	n := residual(t, "fcn_cifar", Options{})
	for _, c := range [][2]int{{-1, 1}, {1, 1}, {2, 1}, {0, n.Classes() + 1}} {
		if _, err := n.SelectOutputs(c[0], c[1]); !errors.Is(err, graph.ErrGraph) {
			t.Errorf("%v gave %v", c, err)
		}
	}
	was := n.Classes()
	for _, more := range []int{-1, 0, 256 - was} { // a mask has room for 255
		if err := n.ExtendHead(more, 1); !errors.Is(err, graph.ErrGraph) || n.Classes() != was {
			t.Errorf("%d more gave %v", more, err)
		}
	}
	w := n.Head.Conv().Chain.Stages[0]
	n.Head.Op = &graph.Conv{Chain: &conv.Chain{Kind: conv.SVD, Rank: []int{1}, Groups: 1, Stages: []*conv.Kernel{
		{Shape: [4]int{1, w.In(), 1, 1}, Weight: make([]float32, w.In())}, {Shape: [4]int{w.Out(), 1, 1, 1}, Weight: make([]float32, w.Out())}}}}
	_, err := n.SelectOutputs(0, 1)
	for _, err := range []error{err, n.ExtendHead(1, 1)} {
		if !errors.Is(err, conv.ErrShape) {
			t.Errorf("a chain gave %v", err)
		}
	}
}
