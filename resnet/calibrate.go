package resnet

import (
	"context"
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
)

// Calibrate gives the batch norms of n the statistics of set, whose labels do not
// matter: the means over batches of the given size of each batch's mean and
// (unbiased) variance, as the network is when it trains. A network whose
// convolutions were replaced by approximations runs with statistics that are not
// its own any more; this costs no training. Modules' norms are calibrated too. The last batch is left out if it is not
// whole, unless it is the only one. n keeps its chains and gets new norms.
func Calibrate(ctx context.Context, n *Net, set dataset.Set, batch, workers int, progress func(done, total int)) error {
	if set.Len() == 0 {
		return fmt.Errorf("%w: %s", dataset.ErrEmpty, set.Name())
	}
	l, err := n.NewLearner(LearnerOptions{Learn: func(*Param) bool { return false }})
	if err != nil {
		return err
	}
	seen := 0
	for b, err := range dataset.Batches(ctx, set, n.Preprocess, batch, workers) {
		if err != nil {
			return err
		}
		if len(b.Labels) < batch && seen > 0 {
			break
		}
		seen++
		for _, t := range l.parts() {
			if t.norm != nil {
				t.norm.Momentum = 1 / float64(seen) // of the mean so far and the batch's
			}
		}
		if _, err := l.Forward(ctx, &conv.Map{N: len(b.Labels), H: b.H, W: b.W, C: 3, Data: b.X}, workers); err != nil {
			return err
		}
		if progress != nil {
			progress(min(seen*batch, set.Len()), set.Len())
		}
	}
	after, err := l.Net()
	if err != nil {
		return err
	}
	calibrated := after.parts()
	for i, u := range n.parts() {
		u.Norm = calibrated[i].Norm
	}
	return nil
}
