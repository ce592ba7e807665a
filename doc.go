// Package lowrank is the root of a library and command-line tool for low-rank
// tensor decomposition of convolutional networks. It holds no code of its own:
// the decompositions are in cpd, tucker and vbmf, what they mean for a
// convolution in conv, whole networks in graph, those that people have in zoo,
// compression in compress, scores in eval, files in model and the tool in
// cmd/lowrank.
package lowrank
