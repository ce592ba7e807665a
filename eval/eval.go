// Package eval scores networks on data: classifiers by the images that they tell right,
// networks that segment by their pixels. What a network does follows from its graph.
package eval

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
)

// Score is what a network reached on a data set. Of a network that segments Top1, Top5 and
// Correct are not set, of a classifier Confusion is not.
type Score struct {
	Samples int
	// Top1 and Top5 count the images whose class had the highest, or one of the five
	// highest, logits. Ties go to the lower class.
	Top1, Top5 int
	// Loss is the mean cross-entropy of the images, or the counted pixels, in nats.
	Loss float64
	// Correct tells for each image whether it counts in Top1, in the set's order, so that
	// two networks can be compared image by image.
	Correct []bool
	// Confusion counts pixels by their class and the class that the network gives them,
	// that of the highest logit, the lower of equals: Confusion[class][given]. Pixels of
	// class dataset.Ignore are left out.
	Confusion [][]int64
}

// Segments tells whether pixels were scored.
func (s Score) Segments() bool { return s.Confusion != nil }

// Figure is the one to compare networks by: the mean IoU where pixels were scored, else
// the accuracy.
func (s Score) Figure() float64 {
	if s.Segments() {
		return s.MeanIoU()
	}
	return s.Accuracy()
}

// Accuracy is the share of images, or of counted pixels, that are given their class.
func (s Score) Accuracy() float64 {
	if s.Segments() {
		return s.pixelAccuracy()
	}
	return float64(s.Top1) / float64(max(s.Samples, 1))
}

// Top5Accuracy is Top5 over Samples.
func (s Score) Top5Accuracy() float64 { return float64(s.Top5) / float64(max(s.Samples, 1)) }

// Options are the knobs of Evaluate; zeros are the defaults.
type Options struct {
	// Batch is the number of images run at a time; 0 means 64 for networks on images of
	// 64×64 or smaller and 16 for others.
	Batch int
	// Workers bounds the goroutines; 0 means GOMAXPROCS.
	Workers int
	// Progress, where not nil, is called after every batch.
	Progress func(done, total int)
}

// Small tells whether a network is made for images as small as CIFAR's.
func Small(g *graph.Graph) bool {
	return len(g.Input) == 3 && g.Input[1] <= 64 && g.Input[2] <= 64
}

// Evaluate runs p over the whole of set, preprocessed as the network says, and counts. The
// pixels of set must have classes where the network segments; masks take the nearest
// pixel's class. The result does not depend on Workers. The error wraps graph.ErrTask
// where network and data are of different tasks, and dataset.ErrFormat where a class is
// not the network's.
func Evaluate(ctx context.Context, p *graph.Program, set dataset.Set, opt Options) (Score, error) {
	g := p.Graph()
	if set.Len() == 0 {
		return Score{}, fmt.Errorf("%w: %s", dataset.ErrEmpty, set.Name())
	}
	classes := g.Classes()
	if g.Head == nil {
		return Score{}, fmt.Errorf("%w: %s has no layer that is known to tell classes apart", graph.ErrTask, g.Arch)
	}
	switch _, masks := set.(dataset.Segmented); {
	case masks && !g.Segments():
		return Score{}, fmt.Errorf("%w: %s classifies images, and %s has a class for every pixel", graph.ErrTask, g.Arch, set.Name())
	case g.Segments() && !masks:
		return Score{}, fmt.Errorf("%w: the pixels of %s have no classes, which a segmentation network tells apart", graph.ErrTask, set.Name())
	}
	if set.Classes() > classes {
		return Score{}, fmt.Errorf("%w: %s has %d classes, the network tells %d apart", graph.ErrTask, set.Name(), set.Classes(), classes)
	}
	if opt.Batch <= 0 {
		opt.Batch = 16
		if Small(g) {
			opt.Batch = 64
		}
	}
	if g.Segments() {
		return pixels(ctx, p, set, classes, opt)
	}
	return images(ctx, p, set, classes, opt)
}

// images scores a classifier.
func images(ctx context.Context, p *graph.Program, set dataset.Set, classes int, opt Options) (Score, error) {
	score := Score{Correct: make([]bool, 0, set.Len())}
	var loss float64
	for b, err := range dataset.Batches(ctx, set, p.Graph().Preprocess, opt.Batch, opt.Workers) {
		if err != nil {
			return score, err
		}
		x := &conv.Map{N: len(b.Labels), H: b.H, W: b.W, C: 3, Data: b.X}
		logits, err := p.Forward(ctx, x, opt.Workers)
		if err != nil {
			return score, err
		}
		if len(logits) != len(b.Labels)*classes {
			return score, fmt.Errorf("%w: %s gives %d values for each of %d images, not one for each of %d classes", graph.ErrTask, p.Graph().Arch, len(logits)/len(b.Labels), len(b.Labels), classes)
		}
		for i, label := range b.Labels {
			rank, nll, err := judge(logits[i*classes:(i+1)*classes], label)
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
		return 0, 0, fmt.Errorf("%w: label %d of %d classes", dataset.ErrFormat, label, len(logits))
	}
	own := logits[label]
	top := float64(slices.Max(logits))
	var sum float64
	for c, v := range logits {
		if v != v {
			return 0, 0, fmt.Errorf("eval: the network gives NaN for class %d", c)
		}
		if v > own || v == own && c < label {
			rank++
		}
		sum += math.Exp(float64(v) - top)
	}
	return rank, math.Log(sum) + top - float64(own), nil
}
