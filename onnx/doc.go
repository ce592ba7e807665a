// Package onnx reads and writes ONNX models with their large tensors left in the file.
//
// [Open] and [Read] walk a file and keep its skeleton: every message but the values of
// tensors of more than 1 KiB, whose places are noted. A file of 500 MB costs some
// hundred KB of memory. [Model.Proto] is the skeleton as generated types, which may be
// changed; [Model.Tensor] reads values when they are asked for; [Model.WriteFile] writes
// the model with the values copied from where they lie. Messages that nobody touched,
// and fields of later versions of ONNX, come out as they were, byte for byte.
//
// A [Scope] resolves names as a graph's nodes see them: [Scope.Constant] finds the value
// of a name that does not depend on the graph's inputs, whether it is an initializer, a
// Constant or ConstantOfShape node, an Identity or a Cast of those, or the like of an
// enclosing graph.
//
// What the nodes compute is none of this package's business.
package onnx
