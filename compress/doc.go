// Package compress makes a whole network smaller: it chooses ranks for its
// convolutions by one rule, factorises each, and keeps the factorisation where
// it saves something.
//
// A [Target] is a convolution in its place. [Layers] takes targets, a [Method]
// and a [Rank] rule and returns for each a [Result]: a chain, or the reason why
// the convolution stays as it is. It never makes a layer larger: a chain that
// does not save parameters, or that costs more multiply-accumulates, is
// dropped.
//
// # Methods
//
//   - [Tucker]: Tucker-2 over the channel modes (Kim et al. 2016) by HOSVD and
//     HOOI: 1×1, kh×kw, 1×1. The usual choice: stable, quick, easy to fine-tune.
//   - [CP]: canonical polyadic by ALS (Lebedev et al. 2015): 1×1, depthwise
//     kh×kw, 1×1. Fewest parameters for its error, but components may cancel
//     each other; see the sensitivities in the report.
//   - [TKDCPD]: Tucker-2 with a CP of its core (Phan et al. 2020, section 3.3):
//     1×1, 1×1, depthwise kh×kw, 1×1, 1×1, of which two that follow on each other
//     are one where that is cheaper. Less error than CP has with as many parameters
//     where the channels' ranks are well below their number; ranks by energy or
//     ratio come to CP's where they are not.
//   - [SVD]: the best rank-R matrix of T×(S·kh·kw): kh×kw, 1×1.
//   - [SVDIn]: the best rank-R matrix of S×(T·kh·kw): 1×1, kh×kw.
//   - [Spatial]: the best rank-R matrix of (S·kh)×(T·kw): kh×1, 1×kw (Jaderberg et al. 2014).
//   - [Separable]: CP with the taps' rows and columns apart (Lebedev et al. 2015): 1×1,
//     depthwise kh×1, depthwise 1×kw, 1×1.
//
// A 1×1 convolution or a linear layer has one matrix and all methods are its SVD.
//
// # Data
//
// [Collect] runs the network on unlabelled images and sums up what its convolutions see.
// With these [Statistics] a decomposition keeps the outputs, not the weights: [SVD] becomes
// the principal components of the outputs, exactly (Zhang et al. 2016); all others
// decompose the kernel with its input channels whitened, and then, where the covariance of
// whole patches is known, the last stage is the regression of the layer's outputs on what
// comes before it, and the last two of a Tucker-2 chain are a reduced-rank regression. The
// bias of a chain makes the mean of its outputs that of the kernel's.
//
// # Tuning
//
// [Tune] gets back what compression cost: the batch norms get the statistics of images, and
// the whole network is trained with what it was for a teacher.
//
// # Ranks
//
// See [Rank] for the rules: by analytic variational Bayes, by the energy
// to keep, by the parameters to keep, or given.
package compress
