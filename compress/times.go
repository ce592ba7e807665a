package compress

import (
	"context"
	"fmt"
	"time"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/graph"
)

// Time measures what each layer and each of its candidates costs in milliseconds for one
// image on this machine, and the whole network. Chains of one shape are timed once. Layers
// whose input size is not known have no times. A plan that has times keeps them.
func (p *Planned) Time(ctx context.Context, g *graph.Graph, workers int, progress func(done, total int, name string)) error {
	if p.MS > 0 {
		return nil
	}
	targets := Sites(g)
	if len(targets) != len(p.Sites) {
		return fmt.Errorf("%w: it is of a network of %d layers, this one has %d", ErrPlan, len(p.Sites), len(targets))
	}
	run, err := g.Compile()
	if err != nil {
		return err
	}
	whole, err := eval.Latency(ctx, []*graph.Program{run}, 1, workers, 2*time.Second)
	if err != nil {
		return err
	}
	known := map[string]float64{}
	clock := func(c *conv.Chain, t *Target) (float64, error) {
		key := fmt.Sprint(t.H, t.W)
		for _, s := range c.Stages {
			key += fmt.Sprint(s.Shape, s.Geometry)
		}
		if ms, ok := known[key]; ok {
			return ms, nil
		}
		ms, err := timed(ctx, c, max(t.H, 1), max(t.W, 1), workers)
		known[key] = ms
		return ms, err
	}
	for i := range targets {
		t, s := &targets[i], &p.Sites[i]
		if progress != nil {
			progress(i, len(targets), t.Name)
		}
		if len(s.Candidates) == 0 {
			continue
		}
		k, err := t.Chain.Kernel()
		if err != nil {
			return err
		}
		if s.MS, err = clock(t.Chain, t); err != nil {
			return err
		}
		for j := range s.Candidates {
			c, err := frame(k, s.Candidates[j].Method, s.Candidates[j].Rank, true)
			if err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
			if s.Candidates[j].MS, err = clock(c, t); err != nil {
				return err
			}
		}
	}
	p.MS = ms(whole[0].Min)
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// timed is the shortest of several runs of a chain on one image of h×w, in milliseconds.
// Other programs only ever make a run longer.
func timed(ctx context.Context, c *conv.Chain, h, w, workers int) (float64, error) {
	r, err := conv.NewRunner(c)
	if err != nil {
		return 0, err
	}
	x := conv.NewMap(1, h, w, c.In())
	for i := range x.Data {
		x.Data[i] = float32(i%17)/8 - 1
	}
	var y *conv.Map
	best := time.Duration(1 << 62)
	start := time.Now()
	for i := 0; i < 60 && (i < 6 || time.Since(start) < 8*time.Millisecond); i++ {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		at := time.Now()
		if y, err = r.Forward(y, x, conv.Epilogue{}, workers); err != nil {
			return 0, err
		}
		best = min(best, time.Since(at))
	}
	return ms(best), nil
}
