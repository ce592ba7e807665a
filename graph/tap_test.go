package graph

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
)

func TestATapSeesTheInputsOfItsConvolutionsUntilItIsTakenAway(t *testing.T) {
	g := &Graph{Input: Shape{2, 5, 5}}
	x := g.Add("input", &Input{Size: g.Input})
	a := NewConv([4]int{3, 2, 3, 3}, conv.Geometry{Padding: [2]int{1, 1}}, false)
	b := NewConv([4]int{3, 3, 1, 1}, conv.Geometry{}, true)
	for i := range a.Stages[0].Weight {
		a.Stages[0].Weight[i] = float32(i%5) - 2
	}
	x = g.Add("a", &Conv{Chain: a}, x)
	x = g.Add("norm", NewBatchNorm(3), x)
	x = g.Add("relu", &Activation{Name: ReLU}, x)
	x = g.Add("b", &Conv{Chain: b}, x)
	g.Outputs = []*Node{x}
	p, err := g.Compile()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string][]float32{}
	tap := func(name string, in *conv.Map) error {
		seen[name] = slices.Clone(in.Data)
		return nil
	}
	if err := p.Tap([]string{"a", "norm"}, tap); !errors.Is(err, ErrGraph) {
		t.Errorf("a tap at a batch norm gives %v", err)
	}
	if err := p.Tap([]string{"a", "b"}, tap); err != nil {
		t.Fatal(err)
	}
	image := conv.NewMap(2, 5, 5, 2)
	for i := range image.Data {
		image.Data[i] = float32(i%7) - 3
	}
	if _, err := p.Forward(context.Background(), image, 1); err != nil {
		t.Fatal(err)
	}
	cut := g.Clone()
	cut.Outputs = []*Node{cut.Node("relu")}
	q, err := cut.Compile()
	if err != nil {
		t.Fatal(err)
	}
	want, err := q.Forward(context.Background(), image, 1)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(seen["a"], image.Data) || !slices.Equal(seen["b"], want) {
		t.Error("the taps saw other maps than the convolutions' inputs")
	}
	clear(seen)
	stop := errors.New("stop")
	if err := p.Tap([]string{"a"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Tap([]string{"b"}, func(string, *conv.Map) error { return stop }); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Forward(context.Background(), image, 1); !errors.Is(err, stop) || len(seen) > 0 {
		t.Errorf("after other taps: %v, %d seen", err, len(seen))
	}
}
