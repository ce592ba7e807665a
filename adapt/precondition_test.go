package adapt

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
	"github.com/lowrank-go/lowrank/resnet"
)

// factors are those of a ResNet-20 after some steps of plain gradient descent.
func factors(t *testing.T, net *resnet.Net, opt Options, rate float32, workers int) (losses []float64, params map[string][]float32, n *Network) {
	t.Helper()
	n, err := New(net, opt)
	if err != nil {
		t.Fatal(err)
	}
	x := conv.NewMap(8, 32, 32, 3)
	for i := range x.Data {
		x.Data[i] = float32(i*i%23)/11 - 1
	}
	labels := []int{0, 1, 2, 1, 0, 2, 1, 1}
	for range 4 {
		y, err := n.Learner.Forward(t.Context(), x, workers)
		if err != nil {
			t.Fatal(err)
		}
		g := make([]float32, len(y))
		losses = append(losses, nn.CrossEntropy(g, y, labels, 3, 0, workers))
		if err := n.Learner.Backward(t.Context(), g, workers); err != nil {
			t.Fatal(err)
		}
		for _, p := range n.Learner.Params() {
			for i, v := range p.Grad {
				p.Value[i] -= rate * v
			}
		}
		n.Learner.Updated()
	}
	params = map[string][]float32{}
	for _, p := range n.Learner.Params() {
		params[p.Name] = p.Value
	}
	return losses, params, n
}

func TestPreconditionedTraining(t *testing.T) {
	net, err := resnet.New("resnet20", 10, resnet.NewOptions{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{Method: "tkdcpd", Classes: 3, Seed: 1, Batch: 8, Precondition: .01}
	losses, one, n := factors(t, net, opt, .02, 1)
	if l := losses[len(losses)-1]; !(l < losses[0]) {
		t.Errorf("losses %v", losses)
	}
	_, other, _ := factors(t, net, opt, .02, 3)
	for name, v := range one {
		if !slices.Equal(v, other[name]) {
			t.Errorf("%s depends on the number of workers", name)
		}
	}
	opt.Precondition = 0
	_, plain, _ := factors(t, net, opt, .02, 1)
	chains := 0
	for name, d := range n.Changes {
		if out := name + ".tkdcpd.out"; slices.Equal(plain[out], one[out]) {
			t.Errorf("%s is the same without preconditioning", out)
		}
		if d.Plan(8, 8, 8) == "chain" {
			chains++
		}
	}
	if chains == 0 {
		t.Error("no change runs as a chain: that is untested")
	}
}

func TestPreconditioningThatMakesNoSenseIsAnError(t *testing.T) {
	for _, o := range []Options{{Method: "lora", Precondition: -1}, {Method: "lora", Precondition: math.NaN()}, {Method: "lora", Precondition: math.Inf(1)}, {Method: BN, Precondition: .1}, {Method: "chapter", Precondition: .1}} {
		o.Classes = 3
		if _, err := New(base(t, "cifar_pad"), o); !errors.Is(err, ErrOption) {
			t.Errorf("%s, %g: %v", o.Method, o.Precondition, err)
		}
	}
}
