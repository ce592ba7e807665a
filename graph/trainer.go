package graph

import "slices"

// learned are the parameters of a kernel in training, in memory of its own. It is what
// makes a kernel a trainer, but for op.
type learned struct {
	params []parameter
	// grads are where the gradients go, nil for those that are not wanted.
	grads [][]float32
}

// newLearned copies the parameters of tensors.
func newLearned(tensors []tensor, kinds ...ParamKind) *learned {
	l := &learned{grads: make([][]float32, len(kinds))}
	for i, t := range tensors[:len(kinds)] {
		l.params = append(l.params, parameter{t.suffix, kinds[i], slices.Clone(t.data)})
	}
	return l
}

func (l *learned) parameters() []parameter  { return l.params }
func (l *learned) learn(i int, g []float32) { l.grads[i] = g }
func (l *learned) value(i int) []float32    { return l.params[i].value }
func (l *learned) snapshot(i int) []float32 { return slices.Clone(l.params[i].value) }

// optional is value i, or nil where there is none.
func (l *learned) optional(i int) []float32 {
	if i >= len(l.params) {
		return nil
	}
	return l.params[i].value
}

// gradient is where the gradient of parameter i goes, nil where it is not wanted.
func (l *learned) gradient(i int) []float32 {
	if i >= len(l.grads) {
		return nil
	}
	return l.grads[i]
}
