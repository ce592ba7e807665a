package dataset

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
)

// Batch is consecutive images of a set, or of an order of its images, as inputs
// of a network.
type Batch struct {
	// First is the place, in the set or in the order, of the first image.
	First int
	// H and W are the height and width of the inputs.
	H, W int
	// X is len(Labels)×H×W×3, channels innermost (NHWC).
	X []float32
	// Labels has the class of each image.
	Labels []int
	// Masks has, if the epoch asks for them, the class of each pixel, in
	// len(Labels)×H×W, or Ignore where nothing of the image is.
	Masks []uint8
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
	return batches(ctx, s, p, nil, Epoch{Batch: n, Workers: workers})
}

// Epoch is one run over images to train on.
type Epoch struct {
	// Order has the numbers of the images in the order in which they come.
	// Numbers may repeat.
	Order []int
	// Batch is the number of images at a time; the last batch has what is
	// left. Skip is how many batches are passed over at the start, as where
	// training goes on in the middle of an epoch: the others are as if it had
	// not been interrupted.
	Batch, Skip int
	// Augment changes the images at random, by Seed and Number, the epoch's
	// number, and each image's number in the set.
	Augment      Augment
	Seed, Number uint64
	// Masks asks for the classes of the pixels of a [Segmented] set, which
	// undergo what the images do; where those are resized, a pixel has the
	// class of the nearest one.
	Masks bool
	// Workers is the number of goroutines, 0 for GOMAXPROCS; what comes does
	// not depend on it.
	Workers int
}

// TrainBatches is [Batches] in a given order, with augmentation. The errors are
// those of Batches, or wrap ErrSpec or ErrIndex if the epoch makes no sense; that
// of an image ends the iteration after all batches before the one it is in.
func TrainBatches(ctx context.Context, s Set, p Preprocess, e Epoch) iter.Seq2[Batch, error] {
	order := e.Order
	if order == nil {
		order = []int{}
	}
	return batches(ctx, s, p, order, e)
}

// batches runs over the images in order, or over all if order is nil.
func batches(ctx context.Context, s Set, p Preprocess, order []int, e Epoch) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		l := &loader{set: s, p: p, e: e, order: order, count: s.Len(), w: p.Crop[0], h: p.Crop[1]}
		if order != nil {
			l.count = len(order)
		}
		if err := l.validate(); err != nil {
			yield(Batch{}, err)
			return
		}
		if err := context.Cause(ctx); err != nil {
			yield(Batch{}, err)
			return
		}
		if l.count == 0 {
			return
		}
		l.table = p.table()
		if l.w == 0 {
			if err := l.measure(); err != nil {
				yield(Batch{}, err)
				return
			}
		}
		workers := e.Workers
		if workers < 1 {
			workers = runtime.GOMAXPROCS(0)
		}
		l.run(ctx, e.Batch, min(workers, l.count), yield)
	}
}

// loader makes batches of one size.
type loader struct {
	set   Set
	p     Preprocess
	e     Epoch
	table *table
	// order is nil for the order of the set; count is how many images come.
	order []int
	count int
	w, h  int
}

func (l *loader) validate() error {
	switch {
	case l.e.Batch < 1:
		return fmt.Errorf("%w: batches of %d images", ErrSpec, l.e.Batch)
	case l.e.Skip < 0:
		return fmt.Errorf("%w: %d batches to skip", ErrSpec, l.e.Skip)
	}
	if err := l.p.Validate(); err != nil {
		return err
	}
	if err := l.e.Augment.Validate(); err != nil {
		return err
	}
	if l.e.Augment.windows() && l.w == 0 {
		return fmt.Errorf("%w: windows of random area need the width and height of the crop to resize them to", ErrSpec)
	}
	if _, ok := l.set.(Segmented); l.e.Masks && !ok {
		return fmt.Errorf("%w: masks of %s, whose pixels have no classes", ErrSpec, l.set.Name())
	}
	for _, i := range l.order {
		if err := checkIndex(l.set, i); err != nil {
			return err
		}
	}
	return nil
}

// number is the number, in the set, of the image at a place.
func (l *loader) number(place int) int {
	if l.order == nil {
		return place
	}
	return l.order[place]
}

// measure takes the size of the inputs from the first image.
func (l *loader) measure() error {
	first := l.number(0)
	m, _, err := l.set.At(first)
	if err != nil {
		return l.errorf(first, err)
	}
	if l.w, l.h, err = l.p.size(m.W, m.H); err != nil {
		return l.errorf(first, err)
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

	// Where there are fewer batches than to be skipped, nothing comes.
	start := l.count
	if l.e.Skip <= l.count/n {
		start = l.e.Skip * n
	}
	// One batch waits here, one is with the feeder and one with the caller.
	batches := make(chan *pending, 1)
	jobs := make(chan job, workers)
	wg.Go(func() {
		defer close(jobs)
		defer close(batches)
		for first := start; first < l.count; first += n {
			count := min(n, l.count-first)
			b := &pending{
				Batch: Batch{First: first, H: l.h, W: l.w, X: make([]float32, count*l.h*l.w*3), Labels: make([]int, count)},
				errs:  make([]error, count),
				done:  make(chan struct{}),
			}
			if l.e.Masks {
				b.Masks = make([]uint8, count*l.h*l.w)
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

	given := start
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
	if given < l.count {
		yield(Batch{}, context.Cause(parent))
	}
}

// load puts an image in its place in the batch.
func (l *loader) load(j job) error {
	number := l.number(j.b.First + j.i)
	m, label, err := l.set.At(number)
	if err != nil {
		return l.errorf(number, err)
	}
	if err := m.validate(); err != nil {
		return l.errorf(number, err)
	}
	j.b.Labels[j.i] = label
	var how moves
	if l.e.Augment != (Augment{}) {
		how = l.e.Augment.draw(draws(l.e.Seed, l.e.Number, number), m.W, m.H)
	}
	size := l.w * l.h
	if err := l.input(j.b.X[j.i*size*3:][:size*3], m, how); err != nil {
		return l.errorf(number, err)
	}
	if !l.e.Masks {
		return nil
	}
	mask, err := l.set.(Segmented).MaskAt(number)
	if err != nil {
		return l.errorf(number, err)
	}
	if mask.W != m.W || mask.H != m.H || len(mask.Class) != m.W*m.H {
		return l.errorf(number, fmt.Errorf("%w: a mask of %d×%d pixels (width×height) and %d classes for an image of %d×%d", ErrSize, mask.W, mask.H, len(mask.Class), m.W, m.H))
	}
	l.mask(j.b.Masks[j.i*size:][:size], mask, how)
	return nil
}

// input makes the input of an image.
func (l *loader) input(x []float32, m Image, how moves) error {
	if left, top, w, h := how.window[0], how.window[1], how.window[2], how.window[3]; w > 0 {
		if err := checkScratch(w, h, int64(l.w), int64(l.h)); err != nil {
			return err
		}
		m = cut(m, left, top, w, h)
		if w != l.w || h != l.h {
			m = resize(m, l.w, l.h)
		}
		Preprocess{}.fill(x, l.w, l.h, m, l.table)
	} else if err := l.plain(x, m); err != nil {
		return err
	}
	t := l.table
	how.apply(x, l.w, l.h, [3]float32{t[0][0], t[1][0], t[2][0]})
	return nil
}

// mask brings the classes of an image's pixels to where the input has them.
func (l *loader) mask(out []uint8, m Mask, how moves) {
	part := how.window
	rw, rh := int64(l.w), int64(l.h)
	if part[2] == 0 {
		part = [4]int{0, 0, m.W, m.H}
		rw, rh = l.p.resized(m.W, m.H)
	}
	cols := origins(l.w, int(rw), part[0], part[2], how.dx, how.mirror)
	rows := origins(l.h, int(rh), part[1], part[3], how.dy, false)
	for y, row := range rows {
		for x, col := range cols {
			class := uint8(Ignore)
			if row >= 0 && col >= 0 {
				class = m.Class[row*m.W+col]
			}
			out[y*l.w+x] = class
		}
	}
}

// origins has, for each place along a side of an input, the place in the image
// that it shows, or -1 if there is none: size places of the image from first on
// are resized, a window is taken from the centre of those, shifted and mirrored.
func origins(n, resized, first, size, off int, mirror bool) []int {
	out := make([]int, n)
	src, dst, count := window(resized, n)
	for i := range out {
		at := i
		if mirror {
			at = n - 1 - i
		}
		at += off
		out[i] = -1
		if at >= dst && at < dst+count {
			u := int64(src + at - dst)
			out[i] = first + int((2*u+1)*int64(size)/(2*int64(resized)))
		}
	}
	return out
}

// plain makes the input of an image as the preprocessing says.
func (l *loader) plain(x []float32, m Image) error {
	w, h, err := l.p.size(m.W, m.H)
	if err != nil {
		return err
	}
	if w != l.w || h != l.h {
		return fmt.Errorf("%w: %d×%d pixels (width×height) where the first image has %d×%d; set Crop to make inputs of one size", ErrSize, w, h, l.w, l.h)
	}
	l.p.fill(x, w, h, m, l.table)
	return nil
}
