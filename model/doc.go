// Package model reads and writes the files that trained networks and tensors
// lie in: PyTorch checkpoints and the weights of ONNX models (read), safetensors, .npy
// and .npz (read and written). [ReadFile] recognises a file by its content and gives a [StateDict],
// an ordered list of named [Tensor]s with string metadata.
//
// # PyTorch checkpoints
//
// Both the zip format and the legacy stream are read, by an unpickler that can
// build tensors and plain containers and nothing else: it refuses every other
// global by name, and never runs code. The state dict is the object itself, or
// is found in it under the usual keys; see [ReadTorch].
//
// # Numbers
//
// float16 and bfloat16 are widened to float32 on reading, exactly; float64 and
// integers stay what they are. [Tensor.Float32s] narrows float64 by rounding to
// nearest even. Integer buffers survive a round trip unchanged.
//
// # Bad files
//
// Files come from anywhere. A file that is truncated, damaged or hostile gives
// one error that names the file and the place and wraps [ErrFormat],
// [ErrCorrupt], [ErrRefused] or [ErrUnsupported]; memory stays within a small
// multiple of the file's size, or, in a compressed archive, of what its tensors
// declare and really hold. Outputs are written to a temporary file and renamed.
package model
