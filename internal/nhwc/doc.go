// Package nhwc holds the inner loops of convolution on feature maps whose
// channels are contiguous (NHWC).
//
// A convolution needs no patches copied out: for one row of taps the inputs of
// an output pixel are one contiguous run, and those of its neighbour lie a fixed
// distance on. So a tile of up to 6 pixels × 16 output channels is a matrix
// product whose left operand is read where it lies, as segments at given
// offsets, and whose right operand is a packed panel of weights (6·2 vector
// accumulators, 2 of weights and 2 broadcasts fill the 16 AVX2 registers). All
// strides, dilations and groups are offsets and distances; padding is the
// caller's. Bias, residual and ReLU are applied before the tile is stored.
//
// The portable Go code states what the assembly does; the build tags noasm and
// purego force it. Sums run in the same order in both, but assembly fuses
// multiply and add, so results differ by rounding.
package nhwc

//go:generate go run ./_gen
