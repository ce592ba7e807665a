// Package resnet holds residual networks: it recognises them in a state dict,
// runs them, and writes them back, with any of their convolutions replaced by a
// chain of smaller ones.
//
// Known are the networks of He et al. 2016 for ImageNet (ResNet-18/34/50 and
// their deeper kin; torchvision's names; both placements of the stride in a
// bottleneck, see [Config].StrideFirst) and for CIFAR (ResNet-20/32/44/56/110;
// the names of the common PyTorch port, with parameter-free option A shortcuts,
// or projections). Depth and widths are read off the tensors, so a network that
// is wider or deeper than the published ones is recognised too.
//
// Known too are segmentation networks on these: the last stages dilated in place of
// striding, and torchvision's fully convolutional head (fcn_resnet50's names; the
// auxiliary head of a checkpoint is dropped, and there is no dropout). Layers are
// called what they are in the classifier, without torchvision's "backbone.".
// [Net.SetSegmentation] makes one of a classifier, [EvaluateSegmentation] scores it.
//
// Beside a convolution may stand modules, small networks of their own that add to what
// it computes ([Net.AddModule]): adapters that are no change of a kernel. They are
// trained, saved and run with the network; in a [Program] one that is linear costs
// nothing where it can be folded into the convolution.
//
// [Load] makes a [Net], the trained thing: chains, batch norms, configuration.
// [Net.Compile] makes a [Program], the running thing: batch norms folded into
// the convolutions before them, weights laid out for the kernels, eval mode
// only. [Evaluate] scores a program on a data set.
package resnet
