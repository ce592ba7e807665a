package adapt

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/nn"
	"github.com/lowrank-go/lowrank/train"
	"github.com/lowrank-go/lowrank/zoo"
)

// factors are those of a ResNet-20 after some steps of plain gradient descent.
func factors(t *testing.T, net *graph.Graph, opt Options, rate float32, workers int) (losses []float64, params map[string][]float32, n *Network) {
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
	net, err := zoo.New("resnet20", 10, zoo.NewOptions{Seed: 1})
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

// A run that was broken off goes on to the same bits, and not with another damping.
func TestPreconditionedTrainingResumes(t *testing.T) {
	data, err := dataset.Open("glyphs:digits,train=24", dataset.Options{Split: dataset.Train})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "checkpoint")
	run := func(damping float64, steps int, file string) (*Network, error) {
		n, err := New(base(t, "cifar_pad"), Options{Method: "cp", Classes: 10, Seed: 1, Precondition: damping})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		job := train.Job{Learner: n.Learner, Data: data, Preprocess: n.Base.Preprocess, Recipe: train.Recipe{Epochs: 2, Batch: 6, Rate: .01, Clip: 1},
			What: fmt.Sprint(damping), Checkpoint: file, Resume: true, Workers: 1 + steps%2, Progress: func(train.Progress) {
				if steps--; steps == 0 {
					cancel()
				}
			}}
		_, err = job.Run(ctx)
		return n, err
	}
	whole, err := run(.01, -1, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := run(.01, 3, path); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := run(.1, -1, path); !errors.Is(err, train.ErrOtherJob) {
		t.Errorf("another damping gave %v", err)
	}
	broken, err := run(.01, -1, path)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range whole.Learner.Params() {
		if !slices.Equal(p.Value, broken.Learner.Params()[i].Value) {
			t.Errorf("%s differs", p.Name)
		}
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
