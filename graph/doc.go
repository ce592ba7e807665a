// Package graph holds networks as values: a [Graph] is a list of nodes in execution
// order, each an operation ([Op]) on the outputs of earlier nodes. Builders (package
// zoo) and files become graphs, graphs are edited (compressed, adapted), and graphs run.
//
// # Running
//
// [Graph.Compile] makes a [Program] for evaluation and [Graph.NewLearner] a [Learner]
// for training. Both follow one plan: a convolution, the batch norm behind it, the
// addition of a shortcut and ReLU are one step where nothing else reads what is between
// them, and the maps between steps share memory by liveness. A program folds batch norms
// into convolutions. A learner runs what lies below everything that learns as a program
// would, and keeps of the rest only what the backward pass reads.
//
// # Values
//
// Every node has one output, a batch of tensors of one [Shape]. Shapes are written in
// PyTorch's and ONNX's order without the batch: channels, rows, columns. In memory maps
// are NHWC ([conv.Map]); [Shape] says how shapes of other ranks lie.
//
// # Files
//
// [Graph.StateDict] gives the tensors under PyTorch's names together with a manifest
// that describes the nodes, from which [Load] makes the graph again.
package graph
