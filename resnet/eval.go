package resnet

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
)

// Score is what a network reached on a data set.
type Score struct {
	Samples int
	// Top1 and Top5 count the images whose class had the highest, or one of
	// the five highest, logits. Ties go to the lower class.
	Top1, Top5 int
	// Loss is the mean cross-entropy in nats.
	Loss float64
	// Correct tells for each image whether it counts in Top1, in the set's
	// order, so that two networks can be compared image by image.
	Correct []bool
}

// Accuracy is Top1 over Samples.
func (s Score) Accuracy() float64 { return float64(s.Top1) / float64(max(s.Samples, 1)) }

// Top5Accuracy is Top5 over Samples.
func (s Score) Top5Accuracy() float64 { return float64(s.Top5) / float64(max(s.Samples, 1)) }

// EvalOptions are the knobs of Evaluate and EvaluateSegmentation; zeros are the defaults.
type EvalOptions struct {
	// Batch is the number of images run at a time; 0 means 64 for networks of
	// 32×32 and 16 for larger ones.
	Batch int
	// Workers bounds the goroutines; 0 means GOMAXPROCS.
	Workers int
	// Progress, where not nil, is called after every batch.
	Progress func(done, total int)
}

// prepare checks that set is one for net and fills in what depends on it.
func (o *EvalOptions) prepare(net *Net, set dataset.Set) error {
	if set.Len() == 0 {
		return fmt.Errorf("resnet: %s holds no images", set.Name())
	}
	if set.Classes() > net.Classes {
		return fmt.Errorf("resnet: %s has %d classes, the network tells %d apart", set.Name(), set.Classes(), net.Classes)
	}
	if o.Batch <= 0 {
		o.Batch = 16
		if net.CIFAR {
			o.Batch = 64
		}
	}
	return nil
}

// Evaluate runs p over the whole of set, preprocessed as the network's
// configuration says, and counts. The result does not depend on Workers. The error
// wraps ErrTask if p is a segmentation network.
func Evaluate(ctx context.Context, p *Program, set dataset.Set, opt EvalOptions) (Score, error) {
	net := p.Net()
	if net.Segment {
		return Score{}, fmt.Errorf("%w: %s is a segmentation network, and images are to be classified", ErrTask, net.Arch)
	}
	if err := opt.prepare(net, set); err != nil {
		return Score{}, err
	}
	score := Score{Correct: make([]bool, 0, set.Len())}
	var loss float64
	for b, err := range dataset.Batches(ctx, set, net.Preprocess, opt.Batch, opt.Workers) {
		if err != nil {
			return score, err
		}
		x := &conv.Map{N: len(b.Labels), H: b.H, W: b.W, C: 3, Data: b.X}
		logits, err := p.Forward(ctx, x, opt.Workers)
		if err != nil {
			return score, err
		}
		for i, label := range b.Labels {
			row := logits[i*net.Classes : (i+1)*net.Classes]
			rank, nll, err := judge(row, label)
			if err != nil {
				return score, fmt.Errorf("%s, image %d: %w", set.Name(), score.Samples, err)
			}
			if rank == 0 {
				score.Top1++
			}
			if rank < 5 {
				score.Top5++
			}
			score.Correct = append(score.Correct, rank == 0)
			loss += nll
			score.Samples++
		}
		if opt.Progress != nil {
			opt.Progress(score.Samples, set.Len())
		}
	}
	score.Loss = loss / float64(score.Samples)
	return score, nil
}

// judge returns how many classes come before label, and −log softmax of label.
func judge(logits []float32, label int) (rank int, nll float64, err error) {
	if label < 0 || label >= len(logits) {
		return 0, 0, fmt.Errorf("resnet: label %d of %d classes", label, len(logits))
	}
	own := logits[label]
	top := float64(slices.Max(logits))
	var sum float64
	for c, v := range logits {
		if v != v {
			return 0, 0, fmt.Errorf("resnet: the network gives NaN for class %d", c)
		}
		if v > own || v == own && c < label {
			rank++
		}
		sum += math.Exp(float64(v) - top)
	}
	return rank, math.Log(sum) + top - float64(own), nil
}
