package resnet

import (
	"context"
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

// backward takes the gradient dy of the unit's output, masks it in place if the
// unit ends in ReLU, and writes the gradient of the unit's input, if that is wanted,
// to dx, with residual (which may be dx) added. spare is used on the way and may be
// dy where dy is not needed again.
func (t *learning) backward(dx, dy, spare **conv.Map, relu, input bool, residual *conv.Map, m *spareMaps, workers int) error {
	var out *conv.Map
	if relu {
		out = *t.y
	}
	// Modules behind the unit have the gradient as it is, before ReLU masks it.
	for _, b := range t.after {
		if err := b.backward(*dy, input, m, workers); err != nil {
			return err
		}
	}
	g := dy
	stack := t.conv
	if t.frozen != nil {
		stack = t.frozen
	}
	switch {
	case t.norm == nil:
		if relu {
			nn.Mask(*dy, out, workers)
		}
	case t.fixed:
		g = spare
		*g = t.norm.BackwardFixed(*g, *dy, t.normed, out, t.gain, t.shift, workers)
	default:
		g = spare
		*g = t.norm.Backward(*g, *dy, t.normed, out, t.gain, t.shift, workers)
	}
	if stack == nil { // a step that is a norm alone
		if input {
			*dx, *g = *g, *dx
		}
		return nil
	}
	for i := len(t.serial) - 1; i >= 0; i-- {
		b := t.serial[i]
		if err := b.backward(*g, true, m, workers); err != nil {
			return err
		}
		nn.Add(*g, b.dx, workers)
	}
	var into *conv.Map
	if input {
		into = *dx
	}
	a := t.adapt
	if a != nil && a.serial != nil {
		var err error
		if m.serial, err = a.serial.Backward(m.serial, a.first, *g, true, conv.Epilogue{Residual: *g}, &m.stages, workers); err != nil {
			return fmt.Errorf("%s: serial branch: %w", t.unit.Name, err)
		}
		g = &m.serial
	}
	got, err := stack.Backward(into, t.in, *g, input, conv.Epilogue{Residual: residual}, &m.stages, workers)
	if err != nil {
		return fmt.Errorf("%s: %w", t.unit.Name, err)
	}
	if a != nil && a.parallel != nil {
		// It adds to what the convolution gave.
		if got, err = a.parallel.Backward(got, t.in, *g, input, conv.Epilogue{Residual: got}, &m.stages, workers); err != nil {
			return fmt.Errorf("%s: parallel branch: %w", t.unit.Name, err)
		}
	}
	for _, b := range t.parallel {
		if err := b.backward(*g, input, m, workers); err != nil {
			return err
		}
	}
	if input {
		for _, b := range append(t.parallel[:len(t.parallel):len(t.parallel)], t.after...) {
			nn.Add(got, b.dx, workers)
		}
		*dx = got
	}
	if a != nil {
		if err := a.store(t.conv); err != nil {
			return fmt.Errorf("%s: %w", t.unit.Name, err)
		}
	}
	return nil
}

// Backward computes, from the gradient of a loss in the logits of the last Forward,
// the gradients of all parameters that learn.
func (l *Learner) Backward(ctx context.Context, logits []float32, workers int) error {
	g := &l.grads
	// below tells whether something that comes before unit t learns.
	below := func(t *learning) bool { return l.lowest < t.index }
	if l.neck != nil {
		if more, err := l.segmentBackward(logits, below, workers); err != nil || !more {
			return err
		}
	} else {
		n := l.head.in.N
		if len(logits) != n*l.net.Classes {
			return fmt.Errorf("%w: %d gradients of %d×%d logits", conv.ErrShape, len(logits), n, l.net.Classes)
		}
		dy := &conv.Map{N: n, H: 1, W: 1, C: l.net.Classes, Data: logits}
		if err := l.head.backward(&g[1], &dy, &dy, false, below(l.head), nil, &l.spare, workers); err != nil || !below(l.head) {
			return err
		}
		g[0] = nn.AveragePoolBackward(g[0], g[1], l.lastH, l.lastW, false, workers)
	}
	for i := len(l.blocks) - 1; i >= 0; i-- {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := l.blocks[i]
		first := b.units[0]
		if b.shortcut != nil {
			first = b.shortcut
		}
		if err := l.blockBackward(b, below(first), workers); err != nil || !below(first) {
			return err
		}
	}
	if !l.net.CIFAR {
		g[1] = l.pool.Backward(g[1], g[0], l.stemH, l.stemW, false, workers)
		g[0], g[1] = g[1], g[0]
	}
	return l.stem.backward(&g[1], &g[0], &g[0], true, false, nil, &l.spare, workers)
}

// blockBackward takes the gradient of b's output in grads[0] and leaves that of its
// input there, if that is wanted.
func (l *Learner) blockBackward(b *learningBlock, input bool, workers int) error {
	g := &l.grads
	last := len(b.units) - 1
	for i := last; i >= 0; i-- {
		t := b.units[i]
		if t.index < l.lowest {
			break // what learns is in the units above, and the shortcut is below
		}
		var residual *conv.Map
		// After the last unit's backward pass g[0] is the gradient of the shortcut,
		// which the first unit's is added to.
		spare := &g[1]
		dy := &g[1]
		if i == last {
			dy = &g[0]
		}
		if i > 0 {
			dx := &g[2]
			if err := t.backward(dx, dy, spare, true, l.lowest < t.index, nil, &l.spare, workers); err != nil {
				return err
			}
			g[1], g[2] = g[2], g[1]
			continue
		}
		if !input {
			// Nothing below: the shortcut's own gradient is still to come.
			if err := t.backward(nil, dy, spare, true, false, nil, &l.spare, workers); err != nil {
				return err
			}
			continue
		}
		switch {
		case b.pad:
			g[3] = padShortcutBackward(g[3], g[0], b.in, b.stride, workers)
			g[0], g[3] = g[3], g[0]
			residual = g[0]
		case b.shortcut == nil:
			residual = g[0]
		default:
			if err := b.shortcut.backward(&g[3], &g[0], &g[0], false, true, nil, &l.spare, workers); err != nil {
				return err
			}
			g[0], g[3] = g[3], g[0]
			residual = g[0]
		}
		if err := t.backward(&g[0], dy, spare, true, true, residual, &l.spare, workers); err != nil {
			return err
		}
	}
	if !input && b.shortcut != nil && b.shortcut.learns {
		return b.shortcut.backward(nil, &g[0], &g[0], false, false, nil, &l.spare, workers)
	}
	return nil
}
