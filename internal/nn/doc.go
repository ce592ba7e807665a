// Package nn holds what a training step of a residual network computes besides
// convolution: batch normalisation, pooling, resizing, the losses, and the steps of
// the optimisers, forwards and backwards, on NHWC maps.
//
// Everything here moves memory rather than computes, so operations that follow
// each other are one pass where that saves one: normalisation adds the shortcut
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
