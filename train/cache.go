package train

import (
	"context"
	"fmt"
	"iter"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
)

// cacher is a learner whose lower part may be computed once for each image.
type cacher interface {
	Cacheable() bool
	Features(ctx context.Context, x *conv.Map, workers int) (*conv.Map, error)
	ForwardFeatures(ctx context.Context, f *conv.Map, workers int) ([]float32, error)
}

// cache holds what the frozen part of a network makes of each image.
type cache struct {
	cacher
	h, w, c int
	data    []float32
	labels  []int
	batch   []float32
}

// cacheBatch is how many images go through the frozen part at a time: always the same,
// in the same order, so that a run that goes on gets the same.
const cacheBatch = 64

// newCache computes the cache, or returns nil where the learner has no frozen part, where
// it learns pixels, and where what it makes of all images takes more than most bytes.
func newCache(ctx context.Context, j *Job, most int64) (*cache, error) {
	l, ok := j.Learner.(cacher)
	if !ok || !l.Cacheable() || j.Learner.Segments() {
		return nil, nil
	}
	c := &cache{cacher: l}
	done := 0
	for b, err := range dataset.Batches(ctx, j.Data, j.Preprocess, cacheBatch, j.Workers) {
		if err != nil {
			return nil, err
		}
		f, err := l.Features(ctx, &conv.Map{N: len(b.Labels), H: b.H, W: b.W, C: 3, Data: b.X}, j.Workers)
		if err != nil {
			return nil, err
		}
		size := f.H * f.W * f.C
		if c.data == nil {
			if int64(size)*4*int64(j.Data.Len()) > most {
				return nil, nil
			}
			c.h, c.w, c.c = f.H, f.W, f.C
			c.data = make([]float32, size*j.Data.Len())
		}
		done += copy(c.data[done:], f.Data[:f.N*size])
		c.labels = append(c.labels, b.Labels...)
	}
	return c, nil
}

// checkCache reports settings that need the images in each epoch.
func (j *Job) checkCache() error {
	r := &j.Recipe
	if j.Cache > 0 && (r.Augment != dataset.Augment{} || r.Mixup > 0 || r.Teaching > 0) {
		return fmt.Errorf("%w: augmentation, mixup or a teacher, for a run that looks at each image once", ErrRecipe)
	}
	return nil
}

// batches are those of an epoch from the cache, whose X are features.
func (c *cache) batches(ctx context.Context, order []int, n, skip int) iter.Seq2[dataset.Batch, error] {
	return func(yield func(dataset.Batch, error) bool) {
		size := c.h * c.w * c.c
		for first := skip * n; first < len(order); first += n {
			if err := context.Cause(ctx); err != nil {
				yield(dataset.Batch{}, err)
				return
			}
			count := min(n, len(order)-first)
			if len(c.batch) < count*size {
				c.batch = make([]float32, count*size)
			}
			b := dataset.Batch{First: first, H: c.h, W: c.w, X: c.batch[:count*size], Labels: make([]int, count)}
			for i, at := range order[first : first+count] {
				copy(b.X[i*size:(i+1)*size], c.data[at*size:(at+1)*size])
				b.Labels[i] = c.labels[at]
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}
