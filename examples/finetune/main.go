// Command finetune compresses the network that comes with lowrank to a third of its
// weights, and trains what is left for one short epoch with the network as it was for
// a teacher.
//
//	go run ./examples/finetune
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/lowrank-go/lowrank/compress"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/train"
	"github.com/lowrank-go/lowrank/zoo/letters"
)

func main() {
	log.SetFlags(0)
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	net, err := letters.Net()
	if err != nil {
		return err
	}
	small, _, err := compress.Network(ctx, net, compress.Options{
		Method:    compress.CP,
		Rank:      compress.Rank{Rule: compress.Ratio, Value: 1. / 3},
		Stability: 1.02, // corrected, so that it can be fine-tuned
	})
	if err != nil {
		return err
	}
	test, err := dataset.Open(letters.Data, dataset.Options{Limit: 500})
	if err != nil {
		return err
	}
	score := func(what string, n *graph.Graph) error {
		p, err := n.Compile()
		if err != nil {
			return err
		}
		s, err := eval.Evaluate(ctx, p, test, eval.Options{})
		fmt.Printf("%-12s %7d parameters, %8d MACs, %.1f %% right\n", what, n.Params(), n.MACs(), 100*s.Accuracy())
		return err
	}
	if err := score("as it was", net); err != nil {
		return err
	}
	if err := score("compressed", small); err != nil {
		return err
	}

	data, err := dataset.Open(letters.Data, dataset.Options{Split: dataset.Train, Limit: 4000})
	if err != nil {
		return err
	}
	small, _, err = compress.Tune(ctx, small, compress.TuneOptions{
		Data: data, Teacher: net,
		Recipe: train.Recipe{Epochs: 1, Batch: 64, Rate: 0.02, Momentum: 0.9, Warmup: .2, Teaching: .5, Augment: dataset.Augment{Pad: 4}},
	})
	if err != nil {
		return err
	}
	return score("fine-tuned", small)
}
