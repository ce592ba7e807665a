// Package onnxgraph makes ONNX models of graphs ([Export]) and graphs of ONNX models.
//
// A model that Export makes keeps the network's own names: a node is called what it is
// called in the graph, and so is the tensor that it gives; weights are called as in
// PyTorch's state dict. A chain in the place of a convolution NAME is the nodes NAME.0,
// NAME.1 and so on, the last of which gives the tensor NAME.
//
// [Load] makes the nodes of a model operations one by one, apart from what is computed of
// constants, which the shapes of tensors are too: that is computed there and then. What
// several nodes are together becomes one operation where there is one: zeros around a
// convolution's input, a bias behind it, a scale behind a batch norm, a shuffle of
// channels, a linear layer on a flattened map, which is a convolution as large as the map.
// Dimension 0 of the input is the batch and stays that.
package onnxgraph
