// Command adapt freezes the network that comes with lowrank, which reads letters, and
// trains CP changes of its kernels, and its batch norms, to read digits; then it puts
// the small adapter and the network together again.
//
//	go run ./examples/adapt digits-adapter.safetensors
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/lowrank-go/lowrank/adapt"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/train"
	"github.com/lowrank-go/lowrank/zoo"
	"github.com/lowrank-go/lowrank/zoo/letters"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: adapt ADAPTER.safetensors")
	}
	if err := run(context.Background(), os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out string) error {
	base, err := letters.Net()
	if err != nil {
		return err
	}
	data, err := dataset.Open("glyphs:digits,train=2000", dataset.Options{Split: dataset.Train})
	if err != nil {
		return err
	}
	n, err := adapt.New(base, adapt.Options{Method: "cp", Rank: []int{16}, Classes: data.Classes(), Seed: 1})
	if err != nil {
		return err
	}
	job := &train.Job{
		Learner: n.Learner, Data: data, Preprocess: base.Preprocess,
		Recipe: train.Recipe{Epochs: 3, Batch: 64, Optimiser: train.Adam, Rate: 0.01, Warmup: 0.5, Seed: 1},
	}
	if _, err := job.Run(ctx); err != nil {
		return err
	}
	fmt.Printf("%d of %d parameters were trained\n", n.Params(), base.Params())
	tensors, err := base.StateDict()
	if err != nil {
		return err
	}
	file, err := n.File(tensors, "digits")
	if err != nil {
		return err
	}
	if err := file.Write(out); err != nil {
		return err
	}

	// Elsewhere: the same network, and the file.
	if file, err = peft.Read(out); err != nil {
		return err
	}
	if err := file.Check(tensors, false); err != nil {
		return err
	}
	if tensors, _, err = adapt.Merge(tensors, []adapt.Part{{Adapter: file.Adapter("digits"), Weight: 1}}, adapt.ExtraOnly); err != nil {
		return err
	}
	digits, err := zoo.Load(tensors, zoo.Options{})
	if err != nil {
		return err
	}
	program, err := digits.Compile()
	if err != nil {
		return err
	}
	test, err := dataset.Open("glyphs:digits,test=500", dataset.Options{})
	if err != nil {
		return err
	}
	score, err := eval.Evaluate(ctx, program, test, eval.Options{})
	if err != nil {
		return err
	}
	fmt.Printf("%d of %d new digits right\n", score.Top1, score.Samples)
	return nil
}
