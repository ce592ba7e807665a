package adapt

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/nn"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/zoo"
)

// pixelStep is step for a segmentation task, in whose masks every class occurs.
func pixelStep(t *testing.T, n *Network, rate float32) float64 {
	t.Helper()
	x := conv.NewMap(2, 16, 16, 3)
	for i := range x.Data {
		x.Data[i] = float32(i%17)/8 - 1
	}
	masks := make([]uint8, 2*16*16)
	for i := range masks {
		masks[i] = uint8(i / 7 % n.Options.Classes)
	}
	y, err := n.Learner.Forward(t.Context(), x, 2)
	if err != nil {
		t.Fatal(err)
	}
	g := make([]float32, len(y))
	loss, _ := nn.PixelCrossEntropy(g, y, masks, 255, n.Options.Classes, 0, 2)
	descend(t, n, g, rate)
	return loss
}

func TestAClassifierIsAdaptedToSegmentationAndItsFileMakesTheSameNetwork(t *testing.T) {
	for _, name := range []string{"cifar_pad", "cifar_projection", "bottleneck"} {
		b := base(t, name)
		sd, err := b.StateDict()
		if err != nil {
			t.Fatal(err)
		}
		before := logits(t, b)
		for _, m := range []Method{Head, BN, Full, "cp", "tucker", "residual-serial", "residual-serial-bn"} {
			n, err := New(b, Options{Method: m, Classes: 3, Segment: true})
			if err != nil {
				t.Fatalf("%s, %s: %v", name, m, err)
			}
			if !n.Learner.Segments() {
				t.Fatalf("%s, %s: no class for a pixel", name, m)
			}
			first := pixelStep(t, n, .003)
			var last float64
			for range 8 {
				last = pixelStep(t, n, .003)
			}
			if !(last < first) {
				t.Errorf("%s, %s: the loss went from %g to %g", name, m, first, last)
			}
			if m == Head && n.Params() != n.HeadParams() {
				t.Errorf("%s: %d values learn, %d of them the neck's and head's", name, n.Params(), n.HeadParams())
			}
			want, err := n.Learner.Net()
			if err != nil {
				t.Fatal(err)
			}
			f, err := n.File(sd, "pixels")
			if err != nil {
				t.Fatal(err)
			}
			// A task with a class for an image lies in the same file.
			_, g := trained(t, b, "lora", "image")
			both, err := Stack(sd, f, g)
			if err != nil {
				t.Fatal(err)
			}
			encoded, err := both.StateDict()
			if err != nil {
				t.Fatal(err)
			}
			read, err := peft.FromStateDict(encoded)
			if err != nil {
				t.Fatal(err)
			}
			tasks, err := NewTasks(b, read, false)
			if err != nil {
				t.Fatal(err)
			}
			got, err := tasks.Switch("pixels")
			if err != nil {
				t.Fatalf("%s, %s: %v", name, m, err)
			}
			if !got.Segments() || zoo.Dilated(got) != zoo.Dilated(want) || !slices.Equal(logits(t, got), logits(t, want)) {
				t.Errorf("%s, %s: another network than what was trained", name, m)
			}
			if image, err := tasks.Switch("image"); err != nil || image.Segments() {
				t.Errorf("%s, %s: the other task: %v", name, m, err)
			}
			if _, err := Apply(b, read, []string{"pixels"}, []float64{.5}); !errors.Is(err, peft.ErrLossy) {
				t.Errorf("%s, %s: half of it: %v", name, m, err)
			}
			if _, err := Apply(b, read, []string{"pixels", "image"}, nil); err == nil {
				t.Errorf("%s, %s: two heads", name, m)
			}
		}
		if !slices.Equal(before, logits(t, b)) {
			t.Errorf("%s: the base is another", name)
		}
	}
}

func TestSegmentationIsRefusedWhereItCannotBe(t *testing.T) {
	b := base(t, "cifar_pad")
	n, err := New(b, Options{Method: "cp", Classes: 3, Segment: true, Dilate: new(2)})
	if err != nil {
		t.Fatal(err)
	}
	if zoo.Dilated(n.Base) != 2 {
		t.Errorf("%d stages dilate, want 2", zoo.Dilated(n.Base))
	}
	for what, o := range map[string]Options{
		"an image's class for pixels":     {Method: "cp", Classes: 3},
		"another dilation":                {Method: "cp", Classes: 3, Segment: true, Dilate: new(1)},
		"no rank above what a kernel has": {Method: "nothing", Classes: 3, Segment: true},
	} {
		if _, err := New(n.Base, o); !errors.Is(err, ErrOption) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := New(n.Base, Options{Method: "cp", Classes: 4, Segment: true}); err != nil {
		t.Errorf("a segmentation network for other classes: %v", err)
	}
	for _, o := range []Options{
		{Method: "cp", Classes: 3, Segment: true, Dilate: new(3)}, {Method: "cp", Classes: 3, Segment: true, Dilate: new(-1)},
		{Method: "cp", Classes: 300, Segment: true},
	} {
		if _, err := New(b, o); !errors.Is(err, zoo.ErrUnknown) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	small := b.Clone()
	s := small.Sites()[1]
	k := s.Chain.Stages[0]
	rank := min(k.Shape[0], k.Shape[1])
	half := *k
	half.Weight = slices.Clone(k.Weight)
	one := &conv.Kernel{Shape: [4]int{k.Shape[0], k.Shape[0], 1, 1}, Weight: make([]float32, k.Shape[0]*k.Shape[0])}
	for i := range k.Shape[0] {
		one.Weight[i*k.Shape[0]+i] = 1
	}
	s.Op = &graph.Conv{Chain: &conv.Chain{Kind: conv.SVD, Rank: []int{rank}, Stages: []*conv.Kernel{&half, one}}}
	if _, err := New(small, Options{Method: BN, Classes: 3, Segment: true}); !errors.Is(err, ErrOption) {
		t.Errorf("a compressed network: %v", err)
	}
	if math.IsNaN(pixelStep(t, n, 0)) {
		t.Error("no loss")
	}
}
