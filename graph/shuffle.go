package graph

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

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
	return rearranging{
		func(dst, x *conv.Map, add bool, workers int) *conv.Map {
			return nn.ChannelShuffle(dst, x, s.Groups, add, workers)
		},
		func(dst, x *conv.Map, add bool, workers int) *conv.Map {
			return nn.ChannelShuffle(dst, x, x.C/s.Groups, add, workers)
		},
	}, nil
}

// rearranging is an operation that puts values elsewhere, and its inverse. Both add where
// add is set.
type rearranging struct {
	there, back func(dst, x *conv.Map, add bool, workers int) *conv.Map
}

func (rearranging) needs(int) bool { return false }

func (k rearranging) forward(c *call) error {
	c.out = k.there(c.out, c.in[0], false, c.workers)
	return nil
}

func (k rearranging) backward(c *call) error {
	if c.dx[0] != nil {
		c.dx[0] = k.back(c.dx[0], c.dy, c.add[0], c.workers)
	}
	return nil
}

// squares are the two ways between channels and squares of pixels.
func squares(block int, channels bool) (toSpace, toDepth func(dst, x *conv.Map, add bool, workers int) *conv.Map) {
	return func(dst, x *conv.Map, add bool, workers int) *conv.Map {
			return nn.DepthToSpace(dst, x, block, channels, add, workers)
		}, func(dst, x *conv.Map, add bool, workers int) *conv.Map {
			return nn.SpaceToDepth(dst, x, block, channels, add, workers)
		}
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
	toSpace, toDepth := squares(d.Block, d.Channels)
	return rearranging{toSpace, toDepth}, nil
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
	toSpace, toDepth := squares(s.Block, s.Channels)
	return rearranging{toDepth, toSpace}, nil
}
