package graph

import (
	"fmt"
	"math"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

// unit is a convolution and a batch norm in training, with the addition of a residual and
// ReLU behind them; of the first two one may be missing.
type unit struct {
	relu, residual bool

	conv *conv.Stack
	// frozen is convolution and norm folded into one chain, where neither learns and the
	// norm is fixed; conv and norm are then nil.
	frozen *conv.Stack
	norm   *nn.BatchNorm
	batchs *int64 // the norm's count of batches
	fixed  bool
	adapt  *adapted // nil for none
	// gain and shift are the gradients of the norm's parameters; scratch if those do not
	// learn, nil if nothing needs them.
	gain, shift []float32
	// learnsConv is set where some parameter of the convolution does.
	learnsConv bool
	// active is set where a backward pass may follow.
	active bool
	// z is the convolution's output, kept for the norm's backward pass; where it need
	// not be it lies where the output will.
	z *conv.Map
	// ones are for sums that no epilogue takes.
	ones []float32
}

// keepsZ tells whether the norm's backward pass reads its input.
func (u *unit) keepsZ() bool { return u.norm != nil && (!u.fixed || u.gain != nil) }

func (u *unit) inPlace() bool {
	return u.conv == nil && u.frozen == nil && !(u.active && u.keepsZ())
}

func (u *unit) needs(i int) bool {
	switch i {
	case 0:
		if u.conv == nil && u.frozen == nil {
			return u.keepsZ()
		}
		return u.learnsConv
	case -1:
		return u.relu
	}
	return false
}

func (u *unit) passes() int {
	if u.residual {
		return 1
	}
	return -1
}

func (u *unit) forward(c *call) error {
	x := c.in[0]
	var residual *conv.Map
	if u.residual {
		residual = c.in[1]
	}
	e := conv.Epilogue{Residual: residual, ReLU: u.relu}
	var err error
	switch {
	case u.frozen != nil:
		c.out, err = u.frozen.Forward(c.out, x, e, c.workers)
		return err
	case u.norm == nil:
		c.out, err = u.convolve(c.out, x, e, c.workers)
		return err
	}
	normed := x
	if u.conv != nil {
		z := &c.out
		if u.keepsZ() {
			if z = &u.z; !u.active {
				z = &c.scratch.maps[0]
			}
		}
		if *z, err = u.convolve(*z, x, conv.Epilogue{}, c.workers); err != nil {
			return err
		}
		normed = *z
	}
	if u.fixed {
		c.out = u.norm.ForwardFixed(c.out, normed, residual, u.relu, c.workers)
		return nil
	}
	if u.batchs != nil {
		*u.batchs++
	}
	c.out = u.norm.Forward(c.out, normed, residual, u.relu, c.workers)
	return nil
}

// convolve is the convolution with its adaption.
func (u *unit) convolve(dst, x *conv.Map, e conv.Epilogue, workers int) (*conv.Map, error) {
	a := u.adapt
	if a == nil {
		return u.conv.Forward(dst, x, e, workers)
	}
	if err := a.refresh(u.conv); err != nil {
		return nil, err
	}
	if a.materialised {
		return u.conv.Forward(dst, x, e, workers)
	}
	first := &dst
	if a.serial != nil {
		first = &a.first
	}
	var err error
	if *first, err = u.conv.Forward(*first, x, conv.Epilogue{}, workers); err != nil {
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
	if e.Residual != nil || e.ReLU {
		// The branches have taken the epilogue.
		if len(u.ones) != dst.C {
			u.ones = uniform(dst.C, 1)
		}
		dst = nn.Scale(dst, dst, e.Residual, u.ones, e.ReLU, workers)
	}
	return dst, nil
}

func uniform(n int, v float64) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(v)
	}
	return s
}

func (u *unit) backward(c *call) error {
	var out *conv.Map
	if u.relu {
		out = c.out
	}
	dy := c.dy
	wantsResidual := u.residual && c.dx[1] != nil
	stack := u.conv
	if u.frozen != nil {
		stack = u.frozen
	}
	// g is the gradient of the norm's input. The norm masks dy in place, which then is
	// the residual's gradient.
	g := dy
	var spare *conv.Map
	switch {
	case u.norm == nil:
		if u.relu {
			nn.Mask(dy, out, c.workers)
		}
	default:
		normed := u.z
		spare = dy
		if u.conv == nil {
			normed = c.in[0]
			switch {
			case c.dx[0] != nil && !c.add[0]:
				spare = c.dx[0]
			case wantsResidual || c.add[0]:
				spare = c.scratch.maps[0]
			}
		} else if wantsResidual {
			spare = c.scratch.maps[0]
		}
		own := spare == c.scratch.maps[0] && spare != dy
		if u.fixed {
			g = u.norm.BackwardFixed(spare, dy, normed, out, u.gain, u.shift, c.workers)
		} else {
			g = u.norm.Backward(spare, dy, normed, out, u.gain, u.shift, c.workers)
		}
		if own {
			c.scratch.maps[0] = g
		}
	}
	if wantsResidual && c.dx[1] != dy {
		c.dx[1] = give(c.dx[1], dy, c.add[1], c.workers)
	}
	if stack == nil { // a norm alone
		if c.dx[0] != nil {
			if c.add[0] {
				nn.Add(c.dx[0], g, c.workers)
			} else {
				c.dx[0] = g
			}
		}
		return nil
	}
	input := c.dx[0] != nil
	a := u.adapt
	if a != nil && a.serial != nil {
		var err error
		if a.gradientFirst, err = a.serial.Backward(a.gradientFirst, a.first, g, true, conv.Epilogue{Residual: g}, &c.scratch.stages, c.workers); err != nil {
			return fmt.Errorf("serial branch: %w", err)
		}
		g = a.gradientFirst
	}
	var into, residual *conv.Map
	if input {
		into = c.dx[0]
		if c.add[0] {
			residual = into
		}
	}
	got, err := stack.Backward(into, c.in[0], g, input, conv.Epilogue{Residual: residual}, &c.scratch.stages, c.workers)
	if err != nil {
		return err
	}
	if a != nil && a.parallel != nil {
		// It adds to what the convolution gave.
		if got, err = a.parallel.Backward(got, c.in[0], g, input, conv.Epilogue{Residual: got}, &c.scratch.stages, c.workers); err != nil {
			return fmt.Errorf("parallel branch: %w", err)
		}
	}
	if input {
		c.dx[0] = got
	}
	if a != nil {
		return a.store(u.conv)
	}
	return nil
}

// give is g in dst, or added to it.
func give(dst, g *conv.Map, add bool, workers int) *conv.Map {
	if add {
		nn.Add(dst, g, workers)
		return dst
	}
	dst = dst.Resize(g.N, g.H, g.W, g.C)
	copy(dst.Data, g.Data)
	return dst
}

// finite reports whether all values of m are.
func finite(m *conv.Map) bool {
	for _, v := range m.Data {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return false
		}
	}
	return true
}
