package graph

import "fmt"

func init() {
	register(func() Op { return &Shuffle{} }, func() Op { return &DepthToSpace{} }, func() Op { return &SpaceToDepth{} })
}

// Shuffle mixes the channels of groups: channel g·(C/Groups) + i comes to place
// i·Groups + g (Zhang et al. 2018, ShuffleNet).
type Shuffle struct {
	Groups int `json:"groups"`
}

// Kind is "shuffle".
func (*Shuffle) Kind() string { return "shuffle" }

// Shape is the input's.
func (s *Shuffle) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	if len(x) < 1 || len(x) > 3 || s.Groups < 1 || x[0]%s.Groups != 0 {
		return nil, fmt.Errorf("%w: the channels of %v in %d groups", ErrShape, x, s.Groups)
	}
	return x, nil
}

func (s *Shuffle) kernel(mode) (kernel, error) {
	return copying{func(in, _ Shape) view {
		h, w, c := in.Layout()
		each := c / s.Groups
		return view{dims: []int{h * w, each, s.Groups}, strides: []int{c, 1, each}}
	}}, nil
}

// DepthToSpace makes squares of Block×Block pixels of channels: sub-pixel convolution's
// upsampling (Shi et al. 2016).
type DepthToSpace struct {
	Block int `json:"block"`
	// Channels, if set, has the channels of the output outermost, as PyTorch's PixelShuffle
	// (ONNX's mode CRD): channel (c·Block + i)·Block + j is c at row i and column j of the
	// square. Else it is (i·Block + j)·C + c, as TensorFlow's (DCR).
	Channels bool `json:"channels,omitempty"`
}

// Kind is "depth_to_space".
func (*DepthToSpace) Kind() string { return "depth_to_space" }

// Shape is {C/Block², H·Block, W·Block}.
func (d *DepthToSpace) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	if b := d.Block; len(x) != 3 || b < 1 || b > 1<<10 || x[0]%(b*b) != 0 {
		return nil, fmt.Errorf("%w: the channels of %v as squares of %d", ErrShape, x, d.Block)
	}
	return Shape{x[0] / (d.Block * d.Block), x[1] * d.Block, x[2] * d.Block}, nil
}

func (d *DepthToSpace) kernel(mode) (kernel, error) {
	return copying{func(in, out Shape) view {
		b, c := d.Block, out[0]
		row, col, channel := b*c, c, 1
		if d.Channels {
			row, col, channel = b, 1, b*b
		}
		return view{dims: []int{in[1], b, in[2], b, c}, strides: []int{in[2] * in[0], row, in[0], col, channel}}
	}}, nil
}

// SpaceToDepth is the inverse of DepthToSpace: it makes channels of squares of
// Block×Block pixels. The channels of the input are innermost: row i and column j of
// channel c comes to channel (i·Block + j)·C + c.
type SpaceToDepth struct {
	Block int `json:"block"`
	// Channels, if set, has them outermost, as PyTorch's PixelUnshuffle.
	Channels bool `json:"channels,omitempty"`
}

// Kind is "space_to_depth".
func (*SpaceToDepth) Kind() string { return "space_to_depth" }

// Shape is {C·Block², H/Block, W/Block}.
func (s *SpaceToDepth) Shape(in []Shape) (Shape, error) {
	x, err := one(in)
	if err != nil {
		return nil, err
	}
	if b := s.Block; len(x) != 3 || b < 1 || b > 1<<10 || x[1]%b != 0 || x[2]%b != 0 {
		return nil, fmt.Errorf("%w: %v in squares of %d", ErrShape, x, s.Block)
	}
	return Shape{x[0] * s.Block * s.Block, x[1] / s.Block, x[2] / s.Block}, nil
}

func (s *SpaceToDepth) kernel(mode) (kernel, error) {
	return copying{func(in, out Shape) view {
		b, c, line := s.Block, in[0], in[2]*in[0]
		v := view{dims: []int{out[1], out[2], b, b, c}, strides: []int{b * line, b * c, line, c, 1}}
		if s.Channels {
			v = view{dims: []int{out[1], out[2], c, b, b}, strides: []int{b * line, b * c, 1, line, c}}
		}
		return v
	}}, nil
}
