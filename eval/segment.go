package eval

import (
	"context"
	"fmt"
	"math"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/nn"
)

// IoU is, for each class, the pixels that have it and are given it over those that
// have it or are given it: NaN for a class that has none of either.
func (s Score) IoU() []float64 {
	union := make([]int64, len(s.Confusion))
	for class, row := range s.Confusion {
		for given, n := range row {
			union[class] += n
			if given != class {
				union[given] += n
			}
		}
	}
	iou := make([]float64, len(union))
	for c, n := range union {
		iou[c] = float64(s.Confusion[c][c]) / float64(n)
	}
	return iou
}

// MeanIoU is the mean of IoU over the classes that occur, in the masks or in what the
// network gives; 0 if no pixel was counted.
func (s Score) MeanIoU() float64 {
	var sum, classes float64
	for _, v := range s.IoU() {
		if !math.IsNaN(v) {
			sum += v
			classes++
		}
	}
	return sum / max(classes, 1)
}

// Pixels is how many pixels were counted.
func (s Score) Pixels() int64 {
	var n int64
	for _, row := range s.Confusion {
		for _, v := range row {
			n += v
		}
	}
	return n
}

// pixelAccuracy is the share of the counted pixels that are given their class.
func (s Score) pixelAccuracy() float64 {
	var right int64
	for c, row := range s.Confusion {
		right += row[c]
	}
	return float64(right) / float64(max(s.Pixels(), 1))
}

// pixels scores a network that segments.
func pixels(ctx context.Context, p *graph.Program, set dataset.Set, classes int, opt Options) (Score, error) {
	var score Score
	g := p.Graph()
	for range classes {
		score.Confusion = append(score.Confusion, make([]int64, classes))
	}
	order := make([]int, set.Len())
	for i := range order {
		order[i] = i
	}
	var loss, pixels float64
	var given []uint8
	for b, err := range dataset.TrainBatches(ctx, set, g.Preprocess, dataset.Epoch{Order: order, Batch: opt.Batch, Masks: true, Workers: opt.Workers}) {
		if err != nil {
			return score, err
		}
		if err := b.CheckMasks(classes); err != nil {
			return score, fmt.Errorf("%s: %w", set.Name(), err)
		}
		x := &conv.Map{N: len(b.Labels), H: b.H, W: b.W, C: 3, Data: b.X}
		logits, err := p.Forward(ctx, x, opt.Workers)
		if err != nil {
			return score, err
		}
		if len(logits) != len(b.Masks)*classes {
			return score, fmt.Errorf("%w: %s gives %d values of %d classes for masks of %d pixels; its output must be as large as the image", graph.ErrTask, g.Arch, len(logits), classes, len(b.Masks))
		}
		mean, counted := nn.PixelCrossEntropy(nil, logits, b.Masks, dataset.Ignore, classes, 0, opt.Workers)
		if math.IsNaN(mean) || math.IsInf(mean, 0) {
			return score, fmt.Errorf("eval: the network gives logits that are not finite, in images %d to %d of %s", b.First, b.First+len(b.Labels)-1, set.Name())
		}
		loss += mean * float64(counted)
		pixels += float64(counted)
		if given == nil {
			given = make([]uint8, len(b.Masks)) // no later batch is larger
		}
		given = given[:len(b.Masks)]
		nn.Predict(given, logits, classes, opt.Workers)
		for i, class := range b.Masks {
			if class != dataset.Ignore {
				score.Confusion[class][given[i]]++
			}
		}
		score.Samples += len(b.Labels)
		if opt.Progress != nil {
			opt.Progress(score.Samples, set.Len())
		}
	}
	score.Loss = loss / max(pixels, 1)
	return score, nil
}
