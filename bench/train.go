package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
	"github.com/lowrank-go/lowrank/resnet"
)

// what a step trains.
type learns struct {
	name  string
	fixed bool
	learn func(p *resnet.Param) bool
	adapt func(u *resnet.Unit) (*resnet.Adaption, error)
}

// trains times training steps (forwards, backwards, SGD with momentum) and forward
// passes of whole networks, and tells the peak memory of the process in them. Steps
// that train only a part are compared with our own full step.
func trains(o options) error {
	head := func(p *resnet.Param) bool {
		return strings.HasSuffix(p.Unit, "fc") || strings.HasSuffix(p.Unit, "linear")
	}
	norms := func(p *resnet.Param) bool { return head(p) || p.Kind == resnet.Gain || p.Kind == resnet.Shift }
	fmt.Printf("%d threads\n%-44s %8s %9s %6s %7s %9s %6s\n", o.threads, "", "ms", "PyTorch", "ratio", "MiB", "PyTorch", "ratio")
	for _, c := range []struct {
		arch                 string
		classes, batch, size int
	}{{"resnet20", 10, 128, 32}, {"resnet18", 1000, 8, 224}} {
		net, err := resnet.New(c.arch, c.classes, resnet.NewOptions{Projection: true})
		if err != nil {
			return err
		}
		x := conv.NewMap(c.batch, c.size, c.size, 3)
		copy(x.Data, random[float32](len(x.Data)))
		row := func(name, question string, full [2]float64, f func()) ([2]float64, error) {
			if !strings.Contains(c.arch+" "+name, o.only) {
				return full, nil
			}
			memory := peakMemory(f)
			mine, theirs, err := o.pair(f, fmt.Sprintf("%s %s %d %d %d", question, c.arch, c.batch, c.size, o.threads))
			if err != nil {
				return full, err
			}
			line := fmt.Sprintf("%-44s %8.1f", fmt.Sprintf("%s, batch %d, %s", c.arch, c.batch, name), mine/1e6)
			switch {
			case question == "":
				line += fmt.Sprintf(" %9s %6s %7.0f %9s %6s   of the full step: time %.2f, memory %.2f", "", "", memory, "", "", mine/full[0], memory/full[1])
			case o.peer != nil:
				answer, err := o.peer.ask("memory")
				if err != nil {
					return full, err
				}
				peak, err := strconv.ParseFloat(answer, 64)
				if err != nil {
					return full, fmt.Errorf("the peer says %q", answer)
				}
				line += fmt.Sprintf(" %9.1f %6.2f %7.0f %9.0f %6.2f", theirs/1e6, theirs/mine, memory, peak, peak/memory)
			default:
				line += fmt.Sprintf(" %9s %6s %7.0f", "", "", memory)
			}
			fmt.Println(line)
			return [2]float64{mine, memory}, nil
		}
		var full [2]float64
		for _, l := range []learns{
			{name: "everything"},
			{name: "LoRA of rank 4, norms fixed", fixed: true, learn: head, adapt: lora(4)},
			{name: "LoRA of rank 4 and norms", learn: norms, adapt: lora(4)},
			{name: "norms", learn: norms},
			{name: "head, norms fixed", fixed: true, learn: head},
		} {
			f, err := step(net, l, x, c.classes, o.threads)
			if err != nil {
				return err
			}
			question := ""
			if l.learn == nil {
				question = "train"
			}
			got, err := row(l.name, question, full, f)
			if err != nil {
				return err
			}
			if question != "" {
				full = got
			}
		}
		p, err := net.Compile()
		if err != nil {
			return err
		}
		_, err = row("evaluation", "evaluate", full, func() {
			if _, err := p.Forward(context.Background(), x, o.threads); err != nil {
				panic(err)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// step is a training step on x.
func step(net *resnet.Net, what learns, x *conv.Map, classes, threads int) (func(), error) {
	l, err := net.NewLearner(resnet.LearnerOptions{FixedNorms: what.fixed, Learn: what.learn, Adapt: what.adapt})
	if err != nil {
		return nil, err
	}
	labels, g := make([]int, x.N), make([]float32, x.N*classes)
	sgd := nn.SGD{Rate: 1e-3, Momentum: .9, Decay: 1e-4}
	var velocity [][]float32
	for _, p := range l.Params() {
		velocity = append(velocity, make([]float32, len(p.Value)))
	}
	ctx := context.Background()
	return func() {
		y, err := l.Forward(ctx, x, threads)
		if err != nil {
			panic(err)
		}
		nn.CrossEntropy(g, y, labels, classes, 0, threads)
		if err := l.Backward(ctx, g, threads); err != nil {
			panic(err)
		}
		for i, p := range l.Params() {
			sgd.Step(p.Value, velocity[i], p.Grad, threads)
		}
		l.Updated()
	}, nil
}

// lora gives every 3×3 convolution but the stem a branch: a 3×3 convolution to rank
// channels and a 1×1 from there, of zeros.
func lora(rank int) func(u *resnet.Unit) (*resnet.Adaption, error) {
	rng := rand.New(rand.NewPCG(1, 1))
	return func(u *resnet.Unit) (*resnet.Adaption, error) {
		shape, geometry := u.Chain.Shape()
		if shape[2] != 3 || shape[1] == 3 {
			return nil, nil
		}
		down := &conv.Kernel{Shape: [4]int{rank, shape[1], 3, 3}, Weight: make([]float32, rank*shape[1]*9), Geometry: geometry}
		up := &conv.Kernel{Shape: [4]int{shape[0], rank, 1, 1}, Weight: make([]float32, shape[0]*rank)}
		var params []*resnet.Param
		for i, k := range []*conv.Kernel{down, up} {
			p := &resnet.Param{Name: fmt.Sprintf("%s.lora.%d", u.Name, i), Value: make([]float32, len(k.Weight)), Grad: make([]float32, len(k.Weight))}
			if i == 0 {
				for j := range p.Value {
					p.Value[j] = float32(rng.NormFloat64()) / 16
				}
			}
			params = append(params, p)
		}
		return &resnet.Adaption{Params: params, Parallel: &resnet.Branch{
			Chain: &conv.Chain{Kind: conv.SVD, Rank: []int{rank}, Groups: 1, Stages: []*conv.Kernel{down, up}},
			Load:  func(i int, w []float32) { copy(w, params[i].Value) },
			Store: func(i int, g []float32) { copy(params[i].Grad, g) },
		}}, nil
	}
}
