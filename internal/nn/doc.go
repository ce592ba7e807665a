// Package nn holds what a network computes besides convolution, forwards and backwards,
// on NHWC maps, and what a training step needs: the losses and the optimisers' steps.
//
//	windows        Window (averages, adaptive and global too), MaxPool
//	single values  Activation, PReLU, Dropout
//	two maps       Binary, with broadcasting
//	channels       Affine, Scale, Softmax, LogSoftmax, LRN
//	normalisation  BatchNorm, GroupNorm (instances too), LayerNorm
//	places         Resize, Pad, Concat, Slice, Permute, DepthToSpace, ChannelShuffle
//	dimensions     Reduce
//
// A function writes to its first argument, which is resized to fit, or allocated where
// it is nil, and returns it. A backward pass writes the gradient of an input there, or
// adds it if add is set, so that the gradients of a map that several operators read add
// up. Gradients of parameters are always overwritten. Validate methods report as errors
// what a file may get wrong.
//
// Nearly everything here moves memory rather than computes, so operations that follow
// each other are one pass where that saves one: batch normalisation adds the shortcut
// and applies ReLU, its backward pass masks the gradient. Results do not depend
// on the number of workers; sums are in float32 over a few hundred pixels and in
// float64 beyond.
//
// Maps must have the shapes that the functions say; they panic otherwise, for the
// caller is this module's own network code and has checked its input.
package nn

import "github.com/lowrank-go/lowrank/internal/parallel"

// pieceValues is how many values a goroutine takes at once.
const pieceValues = 1 << 15

// spread calls f for ranges of n rows of width values.
func spread(workers, n, width int, f func(from, to int)) {
	size := max(pieceValues/max(width, 1), 1)
	parallel.For(workers, (n+size-1)/size, func(i int) { f(i*size, min((i+1)*size, n)) })
}
