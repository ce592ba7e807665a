package main

import (
	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/graph"
)

// evaluate scores net on set with a progress line.
func evaluate(cmd *cobra.Command, net *graph.Graph, set dataset.Set, what string, batch, threads int) (eval.Score, error) {
	p, err := net.Compile()
	if err != nil {
		return eval.Score{}, err
	}
	line := progressLine(cmd, what)
	defer line.Done()
	return eval.Evaluate(cmd.Context(), p, set, eval.Options{
		Batch: batch, Workers: threads,
		Progress: func(done, total int) { line.Update(done, total, "images") },
	})
}
