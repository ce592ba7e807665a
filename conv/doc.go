// Package conv says what a low-rank factorisation means for a convolution: a 4-D
// kernel becomes a chain of small convolutions. The package counts the chain's
// parameters and multiply-accumulates, gives back the one kernel that a chain
// equals, and runs kernels and chains on batches of feature maps. It knows no
// decomposition: package compress/chains makes chains of them.
//
// # Kernels
//
// A [Kernel] is the weight of a 2-D convolution in PyTorch's order,
// T×(S/g)×kh×kw (output channels, input channels of one group, rows, columns),
// with its bias and its [Geometry] (stride, zero padding, dilation, groups); the
// padding may differ at the two ends of an axis. A linear layer is a 1×1 kernel on a 1×1 map.
//
// # Chains
//
// A [Chain] is a sequence of kernels that stands where one kernel stood. With P
// = kh·kw, on an input of Hi×Wi and an output of H×W:
//
//	kind     stages (in order)                          parameters            MACs
//	dense    the kernel itself                          T·S·P                 T·S·P·H·W
//	svd      kh×kw S→R, 1×1 R→T                         R(S·P+T)              R(S·P+T)·H·W
//	svd-in   1×1 S→R, kh×kw R→T                         R(S+P·T)              R·S·Hi·Wi+R·P·T·H·W
//	spatial  kh×1 S→R, 1×kw R→T                         R(S·kh+T·kw)          R·S·kh·H·Wi+R·T·kw·H·W
//	tucker2  1×1 S→R1, kh×kw R1→R2, 1×1 R2→T            S·R1+P·R1·R2+R2·T     S·R1·Hi·Wi+(P·R1·R2+R2·T)·H·W
//	cp       1×1 S→R, depthwise kh×kw R→R, 1×1 R→T      R(S+P+T)              R·S·Hi·Wi+R(P+T)·H·W
//	cp-separable  1×1 S→R, depthwise kh×1 and 1×kw R→R, R(S+kh+kw+T)          R·S·Hi·Wi+R·kh·H·Wi+R(kw+T)·H·W
//	         1×1 R→T
//	tkdcpd   1×1 S→R1, 1×1 R1→R, depthwise kh×kw R→R,   R1(S+R)+R·P+R2(T+R)   R1(S+R)·Hi·Wi+(R·P+R2(T+R))·H·W
//	         1×1 R→R2, 1×1 R2→T
//
// Two 1×1 stages of tkdcpd that follow on each other are one, S→R or R→T, where that
// costs no more, S·R ≤ R1(S+R) or T·R ≤ R2(T+R): in parameters and in MACs alike,
// since both run on maps of one size.
//
// Stride, padding and dilation belong to the one stage that looks at more than
// one pixel along their axis (to the first stage where all are 1×1), the bias to the last. That
// is exact with zero padding, because a 1×1 convolution without a bias maps
// zero to zero. A kernel in g groups is factorised group by group with the same
// rank in each, and every stage then runs in g groups (the depthwise one in
// g·R): the formulas above hold with S and T of one group, times g.
//
// # Running
//
// [Map] holds a batch of feature maps in NHWC order (channels innermost), in
// float32. [Layer] is a kernel prepared for running: [Layer.Forward],
// [Layer.InputGradient] and [Layer.Gradient] compute the convolution and its
// gradients. No patches are copied out: tiles of up to 6 pixels × 16 output
// channels are computed straight from the map, or from a zero-padded copy of a
// few of its rows, and bias, residual and ReLU are applied before a tile is
// stored. [Runner] runs a chain. [Transposed] is the adjoint of a layer: a transposed
// convolution.
//
// 3×3 convolutions of stride 1 with 16 or more channels on both sides run by
// Winograd's F(4×4, 3×3), forwards and in both gradients: 2.25 multiplications an
// output and channel instead of 9, with the points 0, ±√½, ±√2 and ∞. Its error
// is at most 4 times that of the definition summed in float32 (the tests hold it
// to that; measured 1.2 to 1.8 times for 16 to 512 channels), at most that of a
// float32 sum of S/g·kh·kw products otherwise.
//
// Results do not depend on the number of workers: every output, and every
// gradient of an input, is one sum in a fixed order, and gradients of weights add
// up in parts that depend on shapes alone.
package conv
