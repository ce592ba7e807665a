package train

import (
	"fmt"

	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/nn"
)

// What a run does differently for images that have a class and for pixels that have.

// checkTask reports a recipe or data that a learner of pixels cannot use.
func (j *Job) checkTask() error {
	if !j.Learner.Segments() {
		return nil
	}
	if _, ok := j.Data.(dataset.Segmented); !ok {
		return fmt.Errorf("%w: the pixels of %s have no classes, which a segmentation network learns", ErrRecipe, j.Data.Name())
	}
	if j.Recipe.Mixup > 0 {
		return fmt.Errorf("%w: mixup, which mixes the labels of images, for a segmentation network", ErrRecipe)
	}
	return nil
}

// checkLabels reports the first label of a batch that the network does not know.
func (r *run) checkLabels(b dataset.Batch) error {
	classes := r.classes()
	if r.Learner.Segments() {
		if err := b.CheckMasks(classes); err != nil {
			return fmt.Errorf("%s: %w", r.Data.Name(), err)
		}
		return nil
	}
	for i, label := range b.Labels {
		if label < 0 || label >= classes {
			return fmt.Errorf("%w: label %d of an image of %s; the network tells %d classes apart, from 0 (image %d of the batch)", dataset.ErrFormat, label, r.Data.Name(), classes, i)
		}
	}
	return nil
}

// checkLogits reports a network whose output is none for each label of a batch.
func (r *run) checkLogits(logits []float32, b dataset.Batch) error {
	n, what := len(b.Labels), "images"
	if r.Learner.Segments() {
		n, what = len(b.Masks), "pixels"
	}
	if classes := r.Learner.Classes(); len(logits) != n*classes {
		return fmt.Errorf("%w: the network gives %d values for %d %s of %d classes", graph.ErrTask, len(logits), n, what, classes)
	}
	return nil
}

// loss is the mean cross-entropy, its gradient in g, and over how many images or
// pixels it is the mean.
func (r *run) loss(g, logits []float32, b dataset.Batch) (loss float64, counted int) {
	r.among(g, logits, r.recipe.Kept, r.Learner.Classes(), func(g, logits []float32, classes int) {
		if r.Learner.Segments() {
			loss, counted = nn.PixelCrossEntropy(g, logits, b.Masks, dataset.Ignore, classes, r.recipe.Smoothing, r.Workers)
			return
		}
		loss, counted = nn.CrossEntropy(g, logits, b.Labels, classes, r.recipe.Smoothing, r.Workers), len(b.Labels)
	})
	return loss, counted
}

// distill is the mean divergence from the teacher's logits, its gradient in g.
func (r *run) distill(g, logits, taught []float32) (loss float64, err error) {
	all, last := r.Learner.Classes(), r.recipe.Kept
	if last == 0 {
		last = all
	}
	if rows := len(logits) / all; len(taught) != rows*last {
		return 0, fmt.Errorf("%w: the teacher gives %d logits for %d×%d", ErrRecipe, len(taught), rows, last)
	}
	r.among(g, logits, 0, last, func(g, logits []float32, classes int) {
		loss = nn.Distill(g, logits, taught, classes, r.recipe.Temperature, r.Workers)
	})
	return loss, nil
}

// correct is how many images, or pixels, have their highest logit at their label.
func (r *run) correct(logits []float32, b dataset.Batch) int {
	n, classes := 0, r.classes()
	logits = r.columns(logits, r.recipe.Kept, r.Learner.Classes())
	if !r.Learner.Segments() {
		for i, label := range b.Labels {
			if best(logits[i*classes:(i+1)*classes]) == label {
				n++
			}
		}
		return n
	}
	if cap(r.given) < len(b.Masks) {
		r.given = make([]uint8, len(b.Masks))
	}
	given := r.given[:len(b.Masks)]
	nn.Predict(given, logits, classes, r.Workers)
	for i, class := range b.Masks {
		if given[i] == class && class != dataset.Ignore {
			n++
		}
	}
	return n
}

// counted is over how many images, or pixels, the sums of the epoch so far are.
func (r *run) counted() float64 {
	if r.Learner.Segments() {
		return float64(max(r.Pixels, 1))
	}
	return float64(r.Seen)
}
