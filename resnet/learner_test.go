package resnet

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

func randomMap(seed uint64, n, h, w, c int) *conv.Map {
	rng := rand.New(rand.NewPCG(seed, 1))
	m := conv.NewMap(n, h, w, c)
	for i := range m.Data {
		m.Data[i] = float32(rng.NormFloat64())
	}
	return m
}

// stepper is a training step on random data.
func stepper(tb testing.TB, l *Learner, x *conv.Map, workers int) func() {
	classes := l.Config().Classes
	labels := make([]int, x.N)
	for i := range labels {
		labels[i] = i % classes
	}
	sgd := nn.SGD{Rate: .01, Momentum: .9, Decay: 1e-4}
	velocity := make([][]float32, len(l.Params()))
	for i, p := range l.Params() {
		velocity[i] = make([]float32, len(p.Value))
	}
	g := make([]float32, x.N*classes)
	return func() {
		y, err := l.Forward(tb.Context(), x, workers)
		if err != nil {
			tb.Fatal(err)
		}
		nn.CrossEntropy(g, y, labels, classes, 0, workers)
		if err := l.Backward(tb.Context(), g, workers); err != nil {
			tb.Fatal(err)
		}
		for i, p := range l.Params() {
			sgd.Step(p.Value, velocity[i], p.Grad, workers)
		}
		l.Updated()
	}
}

func BenchmarkStep(b *testing.B) {
	for _, c := range []struct {
		arch                 string
		classes, batch, size int
	}{{"resnet20", 10, 128, 32}, {"resnet18", 1000, 8, 224}} {
		n, err := New(c.arch, c.classes, NewOptions{})
		if err != nil {
			b.Fatal(err)
		}
		for _, only := range []string{"all", "head", "norms"} {
			b.Run(fmt.Sprintf("%s/%s", c.arch, only), func(b *testing.B) {
				l, err := n.NewLearner(LearnerOptions{FixedNorms: only == "head", Learn: func(p *Param) bool {
					return only == "all" || p.Unit == n.Head.Name || only == "norms" && p.Kind >= Gain
				}})
				if err != nil {
					b.Fatal(err)
				}
				step := stepper(b, l, randomMap(1, c.batch, c.size, c.size, 3), 2)
				step()
				for b.Loop() {
					step()
				}
				b.ReportMetric(float64(c.batch*b.N)/b.Elapsed().Seconds(), "images/s")
			})
		}
	}
}
