// Package nhwc holds the inner loops of convolution on feature maps whose
// channels are contiguous (NHWC).
//
// A convolution needs no patches copied out: for one row of taps the inputs of
// an output pixel are one contiguous run, and those of its neighbour lie a fixed
// distance on. So a tile of a few pixels × a few panels of 16 output channels is a matrix
// product whose left operand is read where it lies, as segments at given
// offsets, and whose right operand is a packed panel of weights. The sums fill the
// registers: 6 pixels × 16 channels with AVX2's 16 (12 of sums, 2 of weights and 2 of
// inputs), 14 pixels × 32 channels with AVX-512's 32 (28, 2 and 2). All
// strides, dilations and groups are offsets and distances; padding is the
// caller's. Bias, residual and ReLU are applied before the tile is stored.
//
// There are three sets of kernels, of which the processor decides at start-up:
// AVX-512, AVX2 with FMA, and portable Go, which states what the assembly does and
// which the build tags noasm and purego force. GODEBUG=cpu.avx512f=off in the
// environment leaves AVX-512 out, cpu.avx2=off both. Sums run in the same order
// in all: AVX2 and AVX-512 agree to the bit, and as they fuse multiply and add, the
// portable code differs by rounding.
package nhwc

//go:generate go run ./_gen
