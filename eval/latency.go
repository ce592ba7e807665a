package eval

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/usage"
)

// Timing is how long a program takes for one batch.
type Timing struct {
	// Min is the least wall time. Other programs on the machine only ever make a run
	// longer, so it is the figure to compare.
	Min time.Duration
	// CPU is the median of the process's processor time, all threads together, which a
	// busy machine disturbs least. Where the system does not tell it, it is wall time.
	CPU time.Duration
	// Runs is how many were timed.
	Runs int
}

// Latency times the programs on the same random batch of images of their
// Graph.Input: each once to warm up, then in turn, until each has run at least
// five times and budget is spent.
func Latency(ctx context.Context, programs []*graph.Program, batch, workers int, budget time.Duration) ([]Timing, error) {
	timings := make([]Timing, len(programs))
	spent := make([][]time.Duration, len(programs))
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
	for run := 0; run < 6 || time.Since(start) < budget; run++ {
		for i, p := range programs {
			cpu, wall := usage.CPU(), time.Now()
			if _, err := p.Forward(ctx, inputs[i], workers); err != nil {
				return nil, err
			}
			if run == 0 {
				continue
			}
			t := &timings[i]
			if took := time.Since(wall); t.Runs == 0 || took < t.Min {
				t.Min = took
			}
			t.Runs++
			spent[i] = append(spent[i], time.Duration((usage.CPU()-cpu)*1e9))
		}
	}
	for i, s := range spent {
		slices.Sort(s)
		timings[i].CPU = s[len(s)/2]
	}
	return timings, nil
}
