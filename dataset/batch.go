package dataset

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
)

// Batch is consecutive images of a set, as inputs of a network.
type Batch struct {
	// First is the number, in the set, of the first image.
	First int
	// H and W are the height and width of the inputs.
	H, W int
	// X is len(Labels)×H×W×3, channels innermost (NHWC).
	X []float32
	// Labels has the class of each image.
	Labels []int
}

// Batches iterates over s in order, in batches of n images and a last one of
// what is left. Images are read, decoded and preprocessed ahead on workers
// goroutines (0 means GOMAXPROCS); what comes does not depend on their number.
// At most three batches of inputs exist beside those that the caller keeps;
// each belongs to the caller and is not used again.
//
// All inputs must be of one size. Without a crop that is the size which p gives
// to the first image of s.
//
// The first image that cannot be used ends the iteration: after all batches
// before the one that the image is in comes one pair with an error, which names
// the image. The error wraps the set's, ErrSpec or ErrSize, or is the cause of
// the context's end. Leaving the loop early stops the goroutines; none is left
// when the loop ends.
func Batches(ctx context.Context, s Set, p Preprocess, n, workers int) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		if n < 1 {
			yield(Batch{}, fmt.Errorf("%w: batches of %d images", ErrSpec, n))
			return
		}
		if err := p.Validate(); err != nil {
			yield(Batch{}, err)
			return
		}
		if err := context.Cause(ctx); err != nil {
			yield(Batch{}, err)
			return
		}
		if s.Len() == 0 {
			return
		}
		l := &loader{set: s, p: p, table: p.table(), w: p.Crop[0], h: p.Crop[1]}
		if l.w == 0 {
			if err := l.measure(); err != nil {
				yield(Batch{}, err)
				return
			}
		}
		if workers < 1 {
			workers = runtime.GOMAXPROCS(0)
		}
		l.run(ctx, n, min(workers, s.Len()), yield)
	}
}

// loader makes batches of one size.
type loader struct {
	set   Set
	p     Preprocess
	table *table
	w, h  int
}

// measure takes the size of the inputs from the first image.
func (l *loader) measure() error {
	m, _, err := l.set.At(0)
	if err != nil {
		return l.errorf(0, err)
	}
	if l.w, l.h, err = l.p.size(m.W, m.H); err != nil {
		return l.errorf(0, err)
	}
	return nil
}

func (l *loader) errorf(i int, err error) error {
	return fmt.Errorf("%w (image %d of %s)", err, i, l.set.Name())
}

// pending is a batch on its way.
type pending struct {
	Batch
	errs []error
	left atomic.Int64
	done chan struct{}
}

// job is image i of a batch.
type job struct {
	b *pending
	i int
}

func (l *loader) run(parent context.Context, n, workers int, yield func(Batch, error) bool) {
	ctx, cancel := context.WithCancel(parent)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	// One batch waits here, one is with the feeder and one with the caller.
	batches := make(chan *pending, 1)
	jobs := make(chan job, workers)
	wg.Go(func() {
		defer close(jobs)
		defer close(batches)
		for first := 0; first < l.set.Len(); first += n {
			count := min(n, l.set.Len()-first)
			b := &pending{
				Batch: Batch{First: first, H: l.h, W: l.w, X: make([]float32, count*l.h*l.w*3), Labels: make([]int, count)},
				errs:  make([]error, count),
				done:  make(chan struct{}),
			}
			b.left.Store(int64(count))
			select {
			case batches <- b:
			case <-ctx.Done():
				return
			}
			for i := range count {
				select {
				case jobs <- job{b, i}:
				case <-ctx.Done():
					return
				}
			}
		}
	})
	for range workers {
		wg.Go(func() {
			for j := range jobs {
				j.b.errs[j.i] = l.load(j)
				if j.b.left.Add(-1) == 0 {
					close(j.b.done)
				}
			}
		})
	}

	given := 0
	for b := range batches {
		select {
		case <-b.done:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		for _, err := range b.errs {
			if err != nil {
				yield(Batch{}, err)
				return
			}
		}
		given += len(b.Labels)
		if !yield(b.Batch, nil) {
			return
		}
	}
	if given < l.set.Len() {
		yield(Batch{}, context.Cause(parent))
	}
}

// load puts an image in its place in the batch.
func (l *loader) load(j job) error {
	number := j.b.First + j.i
	m, label, err := l.set.At(number)
	if err != nil {
		return l.errorf(number, err)
	}
	if err := m.validate(); err != nil {
		return l.errorf(number, err)
	}
	w, h, err := l.p.size(m.W, m.H)
	if err != nil {
		return l.errorf(number, err)
	}
	if w != l.w || h != l.h {
		return l.errorf(number, fmt.Errorf("%w: %d×%d pixels (width×height) where the first image has %d×%d; set Crop to make inputs of one size", ErrSize, w, h, l.w, l.h))
	}
	j.b.Labels[j.i] = label
	size := w * h * 3
	l.p.fill(j.b.X[j.i*size:][:size], w, h, m, l.table)
	return nil
}
