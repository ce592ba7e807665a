package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/lowrank-go/lowrank/adapt"
	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/nn"
	"github.com/lowrank-go/lowrank/internal/usage"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/zoo"
)

// trains times training steps (forwards, backwards, SGD with momentum) and forward
// passes of whole networks, and tells the peak memory of the process in them. Steps
// that train only a part are compared with our own full step.
func trains(o options) error {
	threads := o.threads
	fmt.Printf("%d threads\n%-44s %8s %9s %6s %7s %9s %6s\n", o.threads, "", "ms", "PyTorch", "ratio", "MiB", "PyTorch", "ratio")
	for _, c := range []struct {
		arch                 string
		classes, batch, size int
	}{{"resnet20", 10, 128, 32}, {"resnet18", 1000, 8, 224}} {
		net, err := zoo.New(c.arch, c.classes, zoo.NewOptions{Projection: true})
		if err != nil {
			return err
		}
		x := conv.NewMap(c.batch, c.size, c.size, 3)
		copy(x.Data, random[float32](len(x.Data)))
		row := func(name, question string, full [2]float64, f func()) ([2]float64, error) {
			if !strings.Contains(c.arch+" "+name, o.only) {
				return full, nil
			}
			memory := usage.Peak(f)
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
		for _, o := range []adapt.Options{
			{Method: adapt.Full},
			{Method: "lora", Norms: peft.NormFrozen}, {Method: "lora"},
			{Method: "cp", Norms: peft.NormFrozen}, {Method: "cp"},
			{Method: "tucker", Norms: peft.NormFrozen},
			{Method: "residual-parallel", Norms: peft.NormFrozen}, {Method: "residual-serial", Norms: peft.NormFrozen},
			{Method: adapt.BN}, {Method: adapt.Head},
		} {
			o.Classes, o.Batch = c.classes, c.batch
			f, err := step(net, o, x, threads)
			if err != nil {
				return err
			}
			name, question := string(o.Method), ""
			switch {
			case o.Method == adapt.Full:
				name, question = "everything", "train"
			case o.Norms != "":
				name += ", norms fixed"
			}
			got, err := row(name, question, full, f)
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
func step(net *graph.Graph, o adapt.Options, x *conv.Map, threads int) (func(), error) {
	n, err := adapt.New(net, o)
	if err != nil {
		return nil, err
	}
	l, classes := n.Learner, o.Classes
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
