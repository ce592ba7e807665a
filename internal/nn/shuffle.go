package nn

import "github.com/lowrank-go/lowrank/conv"

// squares is how squares of block×block pixels, each of c channels, lie in a map of
// h×w squares: its dimensions, in the order of the large map, and their strides in the
// small one, which has block²·c channels. columns puts the channels of the small map in
// the order channel, row, column, and else row, column, channel.
func squares(n, h, w, block, c int, columns bool) (dims, strides []int) {
	all := block * block * c
	row, col, channel := block*c, c, 1
	if columns {
		row, col, channel = block, 1, block*block
	}
	return []int{n, h, block, w, block, c}, []int{h * w * all, w * all, row, all, col, channel}
}

// DepthToSpace makes of every pixel of x a square of block×block pixels with 1/block² of
// the channels, and writes, or adds if add is set, that to dst (resized). Channels are in
// ONNX's order CRD (as in PyTorch's PixelShuffle) if columns is set, and else in its
// order DCR. It is the backward pass of SpaceToDepth.
func DepthToSpace(dst, x *conv.Map, block int, columns, add bool, workers int) *conv.Map {
	c := x.C / (block * block)
	dst = dst.Resize(x.N, x.H*block, x.W*block, c)
	dims, strides := squares(x.N, x.H, x.W, block, c, columns)
	move(dst.Data, 0, contiguous(dims), x.Data, 0, strides, dims, add, workers)
	return dst
}

// SpaceToDepth is the inverse of DepthToSpace, and its backward pass.
func SpaceToDepth(dst, x *conv.Map, block int, columns, add bool, workers int) *conv.Map {
	dst = dst.Resize(x.N, x.H/block, x.W/block, x.C*block*block)
	dims, strides := squares(x.N, dst.H, dst.W, block, x.C, columns)
	move(dst.Data, 0, strides, x.Data, 0, contiguous(dims), dims, add, workers)
	return dst
}

// ChannelShuffle sees the channels of x as groups of equal size and writes, or adds if
// add is set, the first channel of each, then the second of each, and so on, to dst
// (resized) (Zhang et al. 2018). Its backward pass is the shuffle of C/groups groups.
func ChannelShuffle(dst, x *conv.Map, groups int, add bool, workers int) *conv.Map {
	dst = dst.Resize(x.N, x.H, x.W, x.C)
	size := x.C / groups
	dims := []int{x.N * x.H * x.W, size, groups}
	move(dst.Data, 0, contiguous(dims), x.Data, 0, []int{x.C, 1, size}, dims, add, workers)
	return dst
}
