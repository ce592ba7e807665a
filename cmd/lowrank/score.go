package main

import (
	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/resnet"
)

// score is what a network reached on images, or, where segmentation is set, on their
// pixels; of Score there is then Samples alone.
type score struct {
	resnet.Score
	segmentation *resnet.SegmentationScore
}

// figure is what networks are compared by: the share of the images that are
// classified right, or the mean IoU.
func (s score) figure() float64 {
	if s.segmentation != nil {
		return s.segmentation.MeanIoU()
	}
	return s.Accuracy()
}

// evaluate scores net on set with a progress line. It is an error where one is for
// images and the other for pixels.
func evaluate(cmd *cobra.Command, net *resnet.Net, set dataset.Set, what string, batch, threads int) (score, error) {
	p, err := net.Compile()
	if err != nil {
		return score{}, err
	}
	line := progressLine(cmd, what)
	defer line.Done()
	opt := resnet.EvalOptions{
		Batch: batch, Workers: threads,
		Progress: func(done, total int) { line.Update(done, total, "images") },
	}
	if _, masks := set.(dataset.Segmented); !masks && !net.Segment {
		s, err := resnet.Evaluate(cmd.Context(), p, set, opt)
		return score{Score: s}, err
	}
	s, err := resnet.EvaluateSegmentation(cmd.Context(), p, set, opt)
	return score{Score: resnet.Score{Samples: s.Samples}, segmentation: &s}, err
}
