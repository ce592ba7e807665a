package graph

import (
	"fmt"

	"github.com/lowrank-go/lowrank/internal/nn"
)

func init() { register(func() Op { return &Pool{} }) }

// Pool is max or average pooling.
type Pool struct {
	// Average is set for the mean of a window, unset for its maximum.
	Average bool `json:"average,omitempty"`
	// Size, Stride and Dilation are the window's taps, the distance of neighbouring windows
	// and of neighbouring taps, in rows and columns; a stride or dilation of 0 means 1.
	// Begin and End are the paddings above and on the left, and below and on the right.
	Size     [2]int `json:"size,omitempty"`
	Stride   [2]int `json:"stride,omitempty"`
	Dilation [2]int `json:"dilation,omitempty"`
	Begin    [2]int `json:"begin,omitempty"`
	End      [2]int `json:"end,omitempty"`
	// Ceil adds the window that the end of the map cuts off.
	Ceil bool `json:"ceil,omitempty"`
	// CountPadding makes paddings count in an average's divisor.
	CountPadding bool `json:"count_padding,omitempty"`
	// Adaptive, unless 0, is the size of the output, and of the rest only Average counts.
	Adaptive [2]int `json:"adaptive,omitempty"`
}

// GlobalAverage is the mean over all pixels.
func GlobalAverage() *Pool { return &Pool{Average: true, Adaptive: [2]int{1, 1}} }

// Kind is "pool".
func (*Pool) Kind() string { return "pool" }

func (p *Pool) window() nn.Window {
	return nn.Window{Size: p.Size, Stride: p.Stride, Dilation: p.Dilation, Begin: p.Begin, End: p.End,
		Ceil: p.Ceil, CountPadding: p.CountPadding, Adaptive: p.Adaptive}
}

// Shape is {C, OH, OW} of {C, H, W} and {C, OL} of {C, L}, where the window has one row.
func (p *Pool) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	w := p.window()
	if err := w.Validate(); err != nil {
		return nil, err
	}
	for _, v := range [][2]int{p.Size, p.Stride, p.Dilation, p.Begin, p.End, p.Adaptive} {
		if max(v[0], v[1]) > 1<<24 {
			return nil, fmt.Errorf("%w: a window with %v", ErrShape, v)
		}
	}
	if len(x) != 2 && len(x) != 3 {
		return nil, fmt.Errorf("%w: pooling of %v", ErrShape, x)
	}
	h, wd, c := x.Layout()
	oh, ow := w.OutputSize(h, wd)
	if oh < 1 || ow < 1 {
		return nil, fmt.Errorf("%w: a window of %v for %v", ErrShape, p.Size, x)
	}
	if len(x) == 2 && oh == 1 {
		return Shape{c, ow}, nil
	}
	return Shape{c, oh, ow}, nil
}

func (p *Pool) kernel(mode) (kernel, error) {
	w := p.window()
	if p.Average {
		return &averaging{w}, nil
	}
	return &maximum{pool: nn.MaxPool{Window: w}}, nil
}

type averaging struct{ w nn.Window }

func (k *averaging) needs(int) bool { return false }

func (k *averaging) forward(c *call) error {
	c.out = k.w.Average(c.out, c.in[0], c.workers)
	return nil
}

func (k *averaging) backward(c *call) error {
	if c.dx[0] != nil {
		h, w, _ := c.shapes[0].Layout()
		c.dx[0] = k.w.AverageBackward(c.dx[0], c.dy, h, w, c.add[0], c.workers)
	}
	return nil
}

type maximum struct{ pool nn.MaxPool }

func (k *maximum) needs(int) bool { return false }

func (k *maximum) forward(c *call) error {
	c.out = k.pool.Forward(c.out, c.in[0], c.workers)
	return nil
}

func (k *maximum) backward(c *call) error {
	if c.dx[0] != nil {
		h, w, _ := c.shapes[0].Layout()
		c.dx[0] = k.pool.Backward(c.dx[0], c.dy, h, w, c.add[0], c.workers)
	}
	return nil
}
