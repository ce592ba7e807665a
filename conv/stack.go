package conv

import (
	"fmt"
)

// Stack is a chain prepared for training: what Runner is for running. Its weights
// can be changed in place, and Backward computes their gradients.
//
// Forward keeps the maps between the stages until Backward, so one stack must not
// run on two goroutines at a time.
type Stack struct {
	kind   Kind
	rank   []int
	groups int
	stages []*Kernel // the chain's, for shapes and geometry
	filled []*Kernel // the same with channels filled up, as the layers have them
	layers []*Layer
	mids   []*Map
	sizes  [][2]int // of each stage's input, in the last Forward; mids may be others' by now
	grads  []StageGradient
	order  []float32 // weights in the order of kernels, on the way
}

// StageGradient is the gradients of a stage's weights and biases, in the order of
// Layer.Weights and Layer.Bias; nil slices are not computed.
type StageGradient struct{ Weight, Bias []float32 }

// NewStack prepares every stage of c, whose weights it copies.
func NewStack(c *Chain) (*Stack, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s := &Stack{kind: c.Kind, rank: c.Rank, groups: max(c.Groups, 1), filled: c.padded()}
	for i, k := range s.filled {
		l, err := NewLayer(k)
		if err != nil {
			return nil, err
		}
		s.layers = append(s.layers, l)
		own := *c.Stages[i]
		own.Weight = nil
		s.stages = append(s.stages, &own)
	}
	s.mids = make([]*Map, len(s.layers)-1)
	s.sizes = make([][2]int, len(s.layers))
	s.grads = make([]StageGradient, len(s.layers))
	return s, nil
}

// Layers are the stages. Channels between them are filled up to whole vectors
// with zeros, which gradients leave as they are: the gradient of a weight into
// such a channel is the sum over weights out of it, all zero, and the other way
// round.
func (s *Stack) Layers() []*Layer { return s.layers }

// Gradient is where Backward puts the gradients of stage i. Its slices are nil
// at first; give those that are wanted the lengths of Layers()[i]'s Weights and
// Bias.
func (s *Stack) Gradient(i int) *StageGradient { return &s.grads[i] }

// Values is the number of weights of stage i, without what was filled up.
func (s *Stack) Values(i int) int {
	k := s.stages[i]
	return k.Shape[0] * k.Shape[1] * k.Taps()
}

// HasBias tells whether the stages have biases: at most the last has.
func (s *Stack) HasBias() bool { return s.stages[len(s.stages)-1].Bias != nil }

// Forward runs the stages as Runner.Forward does, the whole batch through each,
// and keeps what is between them.
func (s *Stack) Forward(dst, x *Map, e Epilogue, workers int) (*Map, error) {
	last := len(s.layers) - 1
	for i, l := range s.layers[:last] {
		var err error
		if s.mids[i], err = l.Forward(s.mids[i], x, Epilogue{}, workers); err != nil {
			return nil, fmt.Errorf("stage %d: %w", i, err)
		}
		s.sizes[i] = [2]int{x.H, x.W}
		x = s.mids[i]
	}
	s.sizes[last] = [2]int{x.H, x.W}
	return s.layers[last].Forward(dst, x, e, workers)
}

// Share makes the stack keep what is between its stages in maps, which other stacks
// may use too: for one of whose weights no gradient is wanted; that of its input can be
// had even so. There must be a map, nil at first, for each stage but the last.
func (s *Stack) Share(maps []*Map) { s.mids = maps[:len(s.mids)] }

// Backward computes, from the gradient dy of the output of the last Forward, of
// x, the gradients that are wanted, and, unless input is false, the gradient of x
// into dst, to which e is applied: see Layer.InputGradient. It returns dst. spare
// holds gradients on the way, and can be used for one stack after another.
func (s *Stack) Backward(dst, x, dy *Map, input bool, e Epilogue, spare *[2]*Map, workers int) (*Map, error) {
	// The lowest stage that anything is wanted of.
	lowest := 0
	for !input && lowest < len(s.layers) && s.grads[lowest].Weight == nil && s.grads[lowest].Bias == nil {
		lowest++
	}
	for i := len(s.layers) - 1; i >= lowest; i-- {
		l, below := s.layers[i], x
		if i > 0 {
			below = s.mids[i-1]
		}
		if g := s.grads[i]; g.Weight != nil || g.Bias != nil {
			if err := l.Gradient(g.Weight, g.Bias, below, dy, workers); err != nil {
				return nil, fmt.Errorf("stage %d: %w", i, err)
			}
		}
		var err error
		switch {
		case i > lowest:
			b := &spare[i%2]
			if *b, err = l.InputGradient(*b, dy, s.sizes[i][0], s.sizes[i][1], Epilogue{}, workers); err == nil {
				dy = *b
			}
		case i == 0 && input:
			dst, err = l.InputGradient(dst, dy, x.H, x.W, e, workers)
		}
		if err != nil {
			return nil, fmt.Errorf("stage %d: %w", i, err)
		}
	}
	return dst, nil
}

// Export is values in the order of stage i's Layer.Weights, the weights or
// something else of each, in the order of the chain's Kernel.Weight and without
// what was filled up.
func (s *Stack) Export(i int, values []float32) ([]float32, error) {
	out := make([]float32, s.Values(i))
	return out, s.ExportTo(out, i, values)
}

// ExportTo is Export into dst, which must have the length of the stage's Values.
func (s *Stack) ExportTo(dst []float32, i int, values []float32) error {
	f, k := s.filled[i], s.stages[i]
	if len(dst) != s.Values(i) {
		return fmt.Errorf("%w: %d values for a stage of %v", ErrShape, len(dst), k.Shape)
	}
	row, whole := k.Shape[1]*k.Taps(), f.Shape[1]*f.Taps()
	if row == whole && k.Shape[0] == f.Shape[0] {
		return s.layers[i].KernelOrder(dst, values)
	}
	s.order = grow(s.order, f.Shape[0]*whole)
	if err := s.layers[i].KernelOrder(s.order, values); err != nil {
		return err
	}
	for t := range k.Shape[0] {
		copy(dst[t*row:(t+1)*row], s.order[t*whole:])
	}
	return nil
}

// Import is the inverse of Export: it writes dst, in the order of stage i's
// Layer.Weights, with zeros for what was filled up.
func (s *Stack) Import(i int, dst, values []float32) error {
	f, k := s.filled[i], s.stages[i]
	l := s.layers[i]
	row, whole := k.Shape[1]*k.Taps(), f.Shape[1]*f.Taps()
	if len(values) != k.Shape[0]*row || len(dst) != len(l.weight) {
		return fmt.Errorf("%w: %d values for a stage of %v, into %d of the layer's %d", ErrShape, len(values), k.Shape, len(dst), len(l.weight))
	}
	all := values
	if row != whole || k.Shape[0] != f.Shape[0] {
		s.order = grow(s.order, f.Shape[0]*whole)
		all = s.order
		clear(all)
		for t := range k.Shape[0] {
			copy(all[t*whole:], values[t*row:(t+1)*row])
		}
	}
	clear(dst)
	l.each(func(at, kernel int) { dst[at] = all[kernel] })
	return nil
}

// Chain is the chain with the weights as they are now, in memory of its own.
func (s *Stack) Chain() (*Chain, error) {
	c := &Chain{Kind: s.kind, Rank: s.rank, Groups: s.groups}
	for i, own := range s.stages {
		k := *own
		var err error
		if k.Weight, err = s.Export(i, s.layers[i].weight); err != nil {
			return nil, err
		}
		if own.Bias != nil {
			k.Bias = s.Biases(i, s.layers[i].bias)
		}
		c.Stages = append(c.Stages, &k)
	}
	return c, c.Validate()
}

// Biases is values in the order of stage i's Layer.Bias, in the order of the
// chain's Kernel.Bias.
func (s *Stack) Biases(i int, values []float32) []float32 {
	l, k := s.layers[i], s.stages[i]
	out := make([]float32, k.Shape[0])
	outs := l.kernel.Out() / l.kernel.Groups
	for c := range out {
		out[c] = values[l.output(c/outs, c%outs)]
	}
	return out
}

// SetBiases is the inverse of Biases.
func (s *Stack) SetBiases(i int, dst, values []float32) error {
	l, k := s.layers[i], s.stages[i]
	if len(values) != k.Shape[0] || len(dst) != len(l.bias) {
		return fmt.Errorf("%w: %d biases for %d outputs, into %d of the layer's %d", ErrShape, len(values), k.Shape[0], len(dst), len(l.bias))
	}
	clear(dst)
	outs := l.kernel.Out() / l.kernel.Groups
	for c, v := range values {
		dst[l.output(c/outs, c%outs)] = v
	}
	return nil
}

// Stage is the shape and the geometry of stage i, without what was filled up.
func (s *Stack) Stage(i int) ([4]int, Geometry) { return s.stages[i].Shape, s.stages[i].Normal() }
