package eval

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
)

// Latency times the programs on the same random batch of images of their
// Graph.Input: each once to warm up, then in turn, until each has run at least
// five times and budget is spent, or fifty times. It returns the median of each.
func Latency(ctx context.Context, programs []*graph.Program, batch, workers int, budget time.Duration) ([]time.Duration, error) {
	times := make([][]time.Duration, len(programs))
	inputs := make([]*conv.Map, len(programs))
	for i, p := range programs {
		h, w, c := p.Graph().Input.Layout()
		inputs[i] = conv.NewMap(batch, h, w, c)
		rng := rand.New(rand.NewPCG(1, 2))
		for j := range inputs[i].Data {
			inputs[i].Data[j] = float32(rng.NormFloat64())
		}
	}
	start := time.Now()
	for run := 0; run < 51 && (run < 6 || time.Since(start) < budget); run++ {
		for i, p := range programs {
			t := time.Now()
			if _, err := p.Forward(ctx, inputs[i], workers); err != nil {
				return nil, err
			}
			if run > 0 {
				times[i] = append(times[i], time.Since(t))
			}
		}
	}
	medians := make([]time.Duration, len(programs))
	for i, t := range times {
		slices.Sort(t)
		medians[i] = t[len(t)/2]
	}
	return medians, nil
}
