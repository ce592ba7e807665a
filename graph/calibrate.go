package graph

import (
	"context"
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
)

// Calibrate gives the batch norms of g the statistics of set, whose labels do not
// matter: the means over batches of the given size of each batch's mean and
// (unbiased) variance, as the network is when it trains. A network whose
// convolutions were replaced by approximations runs with statistics that are not
// its own any more; this costs no training. Modules' norms are calibrated too. The last batch is left out if it is not
// whole, unless it is the only one. g keeps its chains and gets new norms.
func Calibrate(ctx context.Context, g *Graph, set dataset.Set, batch, workers int, progress func(done, total int)) error {
	if set.Len() == 0 {
		return fmt.Errorf("%w: %s", dataset.ErrEmpty, set.Name())
	}
	l, err := g.NewLearner(LearnerOptions{Learn: func(*Param) bool { return false }})
	if err != nil {
		return err
	}
	seen := 0
	for b, err := range dataset.Batches(ctx, set, g.Preprocess, batch, workers) {
		if err != nil {
			return err
		}
		if len(b.Labels) < batch && seen > 0 {
			break
		}
		seen++
		for _, o := range l.ops {
			if o.unit != nil && o.unit.norm != nil {
				o.unit.norm.Momentum = 1 / float64(seen) // of the mean so far and the batch's
			}
		}
		if _, err := l.Forward(ctx, &conv.Map{N: len(b.Labels), H: b.H, W: b.W, C: 3, Data: b.X}, workers); err != nil {
			return err
		}
		if progress != nil {
			progress(min(seen*batch, set.Len()), set.Len())
		}
	}
	for i, s := range l.steps {
		if s.norm != nil && l.ops[i].norm != nil {
			g.Node(s.norm.Name).Op = l.ops[i].norm.Clone()
		}
	}
	return nil
}
