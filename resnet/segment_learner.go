package resnet

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

// segment is what Forward does behind the stages of a segmentation network, on their
// output a: the logits of every pixel of h×w.
func (l *Learner) segment(a *conv.Map, h, w, workers int) ([]float32, error) {
	a, err := l.neck.forward(a, nil, true, workers)
	if err != nil {
		return nil, err
	}
	if a, err = l.head.forward(a, nil, false, workers); err != nil {
		return nil, err
	}
	l.resized = nn.Bilinear(l.resized, a, h, w, workers)
	return l.resized.Data, nil
}

// segmentBackward leaves the gradient of the stages' output in grads[0], unless it is
// not wanted: more is then false.
func (l *Learner) segmentBackward(logits []float32, below func(*learning) bool, workers int) (more bool, err error) {
	y := l.resized
	if len(logits) != len(y.Data) {
		return false, fmt.Errorf("%w: %d gradients of %d×%d×%d×%d logits", conv.ErrShape, len(logits), y.N, y.H, y.W, y.C)
	}
	dy := &conv.Map{N: y.N, H: y.H, W: y.W, C: y.C, Data: logits}
	out := *l.head.y
	l.small = nn.BilinearBackward(l.small, dy, out.H, out.W, workers)
	g := &l.grads
	if err := l.head.backward(&g[1], &l.small, &l.small, false, below(l.head), nil, &l.spare, workers); err != nil || !below(l.head) {
		return false, err
	}
	return below(l.neck), l.neck.backward(&g[0], &g[1], &g[1], true, below(l.neck), nil, &l.spare, workers)
}
