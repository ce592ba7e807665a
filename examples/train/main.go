// Command train trains a small residual network from random weights on drawn digits,
// and scores it. It needs no files and takes a minute or two.
//
//	go run ./examples/train digits.safetensors
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/train"
	"github.com/lowrank-go/lowrank/zoo"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: train OUT.safetensors")
	}
	if err := run(context.Background(), os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out string) error {
	data, err := dataset.Open("glyphs:digits,train=4000", dataset.Options{Split: dataset.Train})
	if err != nil {
		return err
	}
	net, err := zoo.New("resnet20", data.Classes(), zoo.NewOptions{Seed: 1, Preprocess: dataset.Glyphs})
	if err != nil {
		return err
	}
	learner, err := net.NewLearner(graph.LearnerOptions{})
	if err != nil {
		return err
	}
	job := &train.Job{
		Learner: learner, Data: data, Preprocess: net.Preprocess,
		Recipe: train.Recipe{Epochs: 4, Batch: 64, Rate: 0.1, Momentum: 0.9, Decay: 5e-4, Warmup: 1, Augment: dataset.Augment{Pad: 4}, Seed: 1},
	}
	epochs, err := job.Run(ctx)
	if err != nil {
		return err
	}
	for _, e := range epochs {
		fmt.Printf("epoch %d: loss %.3f, %.1f %% right, %.0f images/s\n", e.Epoch, e.Loss, 100*e.Accuracy, e.ImagesPerSecond)
	}
	if net, err = learner.Net(); err != nil {
		return err
	}
	test, err := dataset.Open("glyphs:digits,test=500", dataset.Options{})
	if err != nil {
		return err
	}
	program, err := net.Compile()
	if err != nil {
		return err
	}
	score, err := eval.Evaluate(ctx, program, test, eval.Options{})
	if err != nil {
		return err
	}
	fmt.Printf("%d of %d new digits right\n", score.Top1, score.Samples)
	sd, err := net.StateDict()
	if err != nil {
		return err
	}
	return model.WriteSafetensors(out, sd)
}
