// Command compress shows the library at work on a network: it reads a
// checkpoint, replaces its convolutions by Tucker-2 chains that keep a share of
// each kernel's energy, and writes the smaller network.
//
//	go run ./examples/compress resnet20.th small.safetensors
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/lowrank-go/lowrank/compress"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/zoo"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: compress CHECKPOINT OUT.safetensors")
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func run(in, out string) error {
	sd, err := model.ReadFile(in)
	if err != nil {
		return err
	}
	net, err := zoo.Load(sd, zoo.Options{})
	if err != nil {
		return err
	}
	small, results, err := compress.Network(context.Background(), net, compress.Options{
		Method: compress.Tucker,
		Rank:   compress.Rank{Rule: compress.Energy, Value: 0.95},
	})
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.Reason != "" {
			fmt.Printf("%-24s unchanged: %s\n", r.Name, r.Reason)
			continue
		}
		fmt.Printf("%-24s rank %v, error %.3f, %d -> %d parameters\n", r.Name, r.Rank, r.RelError, r.ParamsBefore, r.ParamsAfter)
	}
	fmt.Printf("%s: %d -> %d parameters, %d -> %d MACs\n", net.Arch, net.Params(), small.Params(), net.MACs(), small.MACs())
	sd, err = small.StateDict()
	if err != nil {
		return err
	}
	return model.WriteSafetensors(out, sd)
}
