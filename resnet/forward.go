package resnet

import (
	"context"
	"fmt"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

// Forward runs the network on x, N×H×W×3, and returns N×classes logits, or
// N×H×W×classes of a segmentation network, that stay valid until the next call. What
// was kept of x is x itself: it must not change before Backward. workers 0 means
// GOMAXPROCS; the result does not depend on it.
func (l *Learner) Forward(ctx context.Context, x *conv.Map, workers int) ([]float32, error) {
	f, err := l.Features(ctx, x, workers)
	if err != nil {
		return nil, err
	}
	if l.neck != nil {
		if f, err = l.forwardBlocks(ctx, l.blocks[l.cut:], f, workers); err != nil {
			return nil, err
		}
		return l.segment(f, x.H, x.W, workers)
	}
	return l.ForwardFeatures(ctx, f, workers)
}

// Cacheable tells whether Features gives the same for an image each time, so that it
// can be kept: whether norms are fixed. It is false for segmentation networks.
func (l *Learner) Cacheable() bool {
	moving := func(t *learning) bool { return t.norm != nil && !t.fixed }
	for _, t := range l.units[:l.lowest] {
		if slices.ContainsFunc(t.steps, moving) {
			return false
		}
	}
	return l.neck == nil && l.units[0].fixed && l.lowest > 0
}

// Features is the part of Forward below everything that learns, down to the bounds of
// blocks: images' maps, or, where only the head learns, their averages. It stays
// valid until the next call.
func (l *Learner) Features(ctx context.Context, x *conv.Map, workers int) (*conv.Map, error) {
	a, err := l.stem.forward(x, nil, true, workers)
	if err != nil {
		return nil, err
	}
	if !l.net.CIFAR {
		l.stemH, l.stemW = a.H, a.W
		l.pooled = l.pool.Forward(l.pooled, a, workers)
		a = l.pooled
	}
	if a, err = l.forwardBlocks(ctx, l.blocks[:l.cut], a, workers); err != nil {
		return nil, err
	}
	if l.cut == len(l.blocks) && l.neck == nil {
		l.lastH, l.lastW = a.H, a.W
		l.average = nn.AveragePool(l.average, a, workers)
		return l.average, nil
	}
	return a, nil
}

// ForwardFeatures is the part of Forward after Features, of a classifier.
func (l *Learner) ForwardFeatures(ctx context.Context, f *conv.Map, workers int) ([]float32, error) {
	if l.cut < len(l.blocks) {
		a, err := l.forwardBlocks(ctx, l.blocks[l.cut:], f, workers)
		if err != nil {
			return nil, err
		}
		l.lastH, l.lastW = a.H, a.W
		l.average = nn.AveragePool(l.average, a, workers)
		f = l.average
	}
	logits, err := l.head.forward(f, nil, false, workers)
	if err != nil {
		return nil, err
	}
	return logits.Data, nil
}

func (l *Learner) forwardBlocks(ctx context.Context, blocks []*learningBlock, a *conv.Map, workers int) (*conv.Map, error) {
	var err error
	for _, b := range blocks {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b.in = a
		short := a
		switch {
		case b.shortcut != nil:
			if short, err = b.shortcut.forward(a, nil, false, workers); err != nil {
				return nil, err
			}
		case b.pad:
			l.padded = padShortcut(l.padded, a, b.stride, b.units[len(b.units)-1].unit.Chain.Out(), workers)
			short = l.padded
		}
		for i, t := range b.units {
			var residual *conv.Map
			if i == len(b.units)-1 {
				residual = short
			}
			if a, err = t.forward(a, residual, true, workers); err != nil {
				return nil, err
			}
		}
	}
	return a, nil
}

// forward is the unit with its modules.
func (t *learning) forward(x, residual *conv.Map, relu bool, workers int) (*conv.Map, error) {
	y, err := t.before(x, residual, relu, workers)
	if err != nil {
		return nil, err
	}
	for _, m := range t.after {
		if m.out, err = m.forward(m.out, x, y, workers); err != nil {
			return nil, err
		}
		y = m.out
	}
	t.out = y
	return y, nil
}

// before is forward but for the modules after the unit.
func (t *learning) before(x, residual *conv.Map, relu bool, workers int) (*conv.Map, error) {
	t.in = x
	fail := func(err error) (*conv.Map, error) { return nil, fmt.Errorf("%s: %w", t.unit.Name, err) }
	var err error
	switch {
	case t.frozen != nil:
		if *t.y, err = t.frozen.Forward(*t.y, x, conv.Epilogue{Residual: residual, ReLU: relu}, workers); err != nil {
			return fail(err)
		}
		return *t.y, nil
	case t.norm == nil:
		if *t.y, err = t.convolve(*t.y, x, relu, workers); err != nil {
			return fail(err)
		}
		return *t.y, nil
	case t.conv == nil:
		t.normed = x
	default:
		if *t.z, err = t.convolve(*t.z, x, false, workers); err != nil {
			return fail(err)
		}
		for _, m := range t.parallel {
			if *t.z, err = m.forward(*t.z, x, *t.z, workers); err != nil {
				return nil, err
			}
		}
		t.normed = *t.z
		for _, m := range t.serial {
			if m.out, err = m.forward(m.out, t.normed, t.normed, workers); err != nil {
				return nil, err
			}
			t.normed = m.out
		}
	}
	if t.fixed {
		*t.y = t.norm.ForwardFixed(*t.y, t.normed, residual, relu, workers)
		return *t.y, nil
	}
	if t.unit.Norm.Batches != nil {
		*t.unit.Norm.Batches++
	}
	*t.y = t.norm.Forward(*t.y, t.normed, residual, relu, workers)
	return *t.y, nil
}

// convolve is the unit's convolution with its adaption; of a step, with ReLU.
func (t *learning) convolve(dst, x *conv.Map, relu bool, workers int) (*conv.Map, error) {
	a := t.adapt
	if a == nil {
		return t.conv.Forward(dst, x, conv.Epilogue{ReLU: relu}, workers)
	}
	if err := a.refresh(t.conv); err != nil {
		return nil, err
	}
	first := &dst
	if a.serial != nil {
		first = &a.first
	}
	var err error
	if *first, err = t.conv.Forward(*first, x, conv.Epilogue{}, workers); err != nil {
		return nil, err
	}
	if a.parallel != nil {
		if *first, err = a.parallel.Forward(*first, x, conv.Epilogue{Residual: *first}, workers); err != nil {
			return nil, fmt.Errorf("parallel branch: %w", err)
		}
	}
	if a.serial != nil {
		if dst, err = a.serial.Forward(dst, a.first, conv.Epilogue{Residual: a.first}, workers); err != nil {
			return nil, fmt.Errorf("serial branch: %w", err)
		}
	}
	return dst, nil
}
