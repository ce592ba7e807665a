// Package onnxpb has ONNX's messages as Go types, generated from lowrank/onnx.proto:
// ModelProto holds a GraphProto, which holds NodeProtos and TensorProtos.
//
// Messages keep the fields that this schema does not know, so that files of later
// versions pass through.
package onnxpb

//go:generate protoc -I. --go_out=. --go_opt=module=github.com/lowrank-go/lowrank/internal/onnxpb lowrank/onnx.proto
