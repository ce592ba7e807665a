// Package onnxgraph makes ONNX models of graphs ([Export]) and graphs of ONNX models.
//
// A model that Export makes keeps the network's own names: a node is called what it is
// called in the graph, and so is the tensor that it gives; weights are called as in
// PyTorch's state dict. A chain in the place of a convolution NAME is the nodes NAME.0,
// NAME.1 and so on, the last of which gives the tensor NAME.
package onnxgraph
