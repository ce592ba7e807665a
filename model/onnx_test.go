package model

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// Messages are written here field by field, as onnx.proto numbers them.

func bytesField(num protowire.Number, parts ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), bytes.Join(parts, nil))
}

func varintField(num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), v)
}

func packed(values ...int64) []byte {
	var b []byte
	for _, v := range values {
		b = protowire.AppendVarint(b, uint64(v))
	}
	return b
}

func onnxFile(graph ...[]byte) []byte {
	return slices.Concat(varintField(1, 8), bytesField(2, []byte("test")), bytesField(7, graph...))
}

func initializer(name string, kind uint64, fields ...[]byte) []byte {
	return bytesField(5, varintField(2, kind), bytesField(8, []byte(name)), bytes.Join(fields, nil))
}

func node(name, op string, inputs ...string) []byte {
	var b []byte
	for _, in := range inputs {
		b = append(b, bytesField(1, []byte(in))...)
	}
	return bytesField(1, b, bytesField(2, []byte("out")), bytesField(3, []byte(name)), bytesField(4, []byte(op)))
}

func dims(d ...int64) []byte { return bytesField(1, packed(d...)) }

func TestEveryWayThatONNXHoldsNumbersIsRead(t *testing.T) {
	half := func(v ...int64) []byte { return bytesField(5, packed(v...)) }
	one := math.Float32bits(1.5)
	f32 := protowire.AppendFixed32(nil, one)
	f64 := protowire.AppendFixed64(nil, math.Float64bits(-2.5))
	file := onnxFile(
		initializer("raw", 1, dims(1, 2), bytesField(9, f32, f32)),
		initializer("floats", 1, dims(2), bytesField(4, f32, f32)),
		initializer("not packed", 1, varintField(1, 2), varintField(1, 1),
			protowire.AppendTag(nil, 4, protowire.Fixed32Type), f32, protowire.AppendTag(nil, 4, protowire.Fixed32Type), f32),
		initializer("doubles", 11, dims(1), bytesField(10, f64)),
		initializer("scalar", 11, protowire.AppendTag(nil, 10, protowire.Fixed64Type), f64),
		initializer("int64", 7, dims(2), bytesField(7, packed(-1, 1<<40))),
		initializer("one int64", 7, dims(1), varintField(7, 7)),
		initializer("int32", 6, dims(2), bytesField(5, packed(-2, 3))),
		initializer("int16", 5, dims(2), bytesField(5, packed(-2, 3))),
		initializer("int8", 3, dims(2), bytesField(5, packed(-2, 3))),
		initializer("uint8", 2, dims(2), bytesField(5, packed(200, 3))),
		initializer("uint16", 4, dims(1), bytesField(5, packed(60000))),
		initializer("uint32", 12, dims(1), bytesField(11, packed(1<<32-1))),
		initializer("uint64", 13, dims(1), bytesField(11, packed(-1))),
		initializer("bool", 9, dims(2), bytesField(5, packed(0, 1))),
		initializer("float16", 10, dims(2), half(0x3e00, 0xc000)),
		initializer("bfloat16", 16, dims(1), bytesField(9, []byte{0xc0, 0x3f})),
		initializer("empty", 1, dims(0, 3)),
	)
	sd, err := Read(bytes.NewReader(file), int64(len(file)), "")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Tensor{
		"raw": {Shape: []int{1, 2}, Data: []float32{1.5, 1.5}}, "floats": {Shape: []int{2}, Data: []float32{1.5, 1.5}}, "not packed": {Shape: []int{2, 1}, Data: []float32{1.5, 1.5}},
		"doubles": {Shape: []int{1}, Data: []float64{-2.5}}, "scalar": {Shape: nil, Data: []float64{-2.5}}, "int64": {Shape: []int{2}, Data: []int64{-1, 1 << 40}},
		"one int64": {Shape: []int{1}, Data: []int64{7}}, "int32": {Shape: []int{2}, Data: []int32{-2, 3}}, "int16": {Shape: []int{2}, Data: []int16{-2, 3}}, "int8": {Shape: []int{2}, Data: []int8{-2, 3}},
		"uint8": {Shape: []int{2}, Data: []uint8{200, 3}}, "uint16": {Shape: []int{1}, Data: []uint16{60000}}, "uint32": {Shape: []int{1}, Data: []uint32{1<<32 - 1}},
		"uint64": {Shape: []int{1}, Data: []uint64{1<<64 - 1}}, "bool": {Shape: []int{2}, Data: []bool{false, true}}, "float16": {Shape: []int{2}, Data: []float32{1.5, -2}, Stored: F16},
		"bfloat16": {Shape: []int{1}, Data: []float32{1.5}, Stored: BF16}, "empty": {Shape: []int{0, 3}, Data: []float32{}},
	}
	if sd.Len() != len(want) {
		t.Errorf("%d tensors, want %d", sd.Len(), len(want))
	}
	for name, w := range want {
		if got, ok := sd.Get(name); !ok || !reflect.DeepEqual(*got, w) {
			t.Errorf("%s is %+v, want %+v", name, got, w)
		}
	}
}

func TestNumbersForNamesBecomeThoseOfTheNode(t *testing.T) {
	value := bytesField(9, make([]byte, 4))
	file := onnxFile(
		node("/layer1/layer1.0/conv1/Conv", "Conv", "x", "onnx::Conv_1", "onnx::Conv_2"),
		node("/layer2/layer2.0/downsample/downsample.0/Conv", "Conv", "x", "onnx::Conv_8"),
		node("/fc/Gemm", "Gemm", "x", "fc.weight", "onnx::Gemm_3"),
		node("/other/Relu", "Relu", "x", "onnx::Relu_4"),
		node("/a/a.0/Conv", "Conv", "x", "onnx::Conv_5"), node("/a/a.0/Conv", "Conv", "x", "onnx::Conv_6"), // one name for two
		node("Conv_7", "Conv", "x", "onnx::Conv_7"), // of an exporter without modules
		initializer("onnx::Conv_1", 1, dims(1, 1, 1, 1), value), initializer("onnx::Conv_2", 1, dims(1), value),
		initializer("fc.weight", 1, dims(1, 1), value), initializer("onnx::Gemm_3", 1, dims(1), value), initializer("onnx::Relu_4", 1, dims(1), value),
		initializer("onnx::Conv_5", 1, dims(1), value), initializer("onnx::Conv_6", 1, dims(1), value), initializer("onnx::Conv_7", 1, dims(1), value), initializer("onnx::Conv_8", 1, dims(1), value),
	)
	sd, err := ReadONNX(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"layer1.0.conv1.weight", "layer1.0.conv1.bias", "fc.weight", "fc.bias", "onnx::Relu_4", "onnx::Conv_5", "onnx::Conv_6", "onnx::Conv_7", "layer2.0.downsample.0.weight"}
	if !slices.Equal(sd.Names(), want) {
		t.Errorf("names %q, want %q", sd.Names(), want)
	}
}

func TestBadONNXIsRefused(t *testing.T) {
	good := initializer("w", 1, dims(1), bytesField(9, make([]byte, 4)))
	for what, c := range map[string]struct {
		file []byte
		want error
		says string
	}{
		"no graph":        {slices.Concat(varintField(1, 8), bytesField(2, []byte("x"))), ErrFormat, "no graph"},
		"no weights":      {onnxFile(node("n", "Relu", "x")), ErrFormat, "without weights"},
		"twice":           {onnxFile(good, good), ErrCorrupt, `two tensors called "w"`},
		"too few":         {onnxFile(initializer("w", 1, dims(2), bytesField(9, make([]byte, 4)))), ErrCorrupt, `tensor "w"`},
		"too many":        {onnxFile(initializer("w", 1, bytesField(9, make([]byte, 8)))), ErrCorrupt, "8 bytes"},
		"negative":        {onnxFile(initializer("w", 1, dims(-1))), ErrCorrupt, "dimension of -1"},
		"huge":            {onnxFile(initializer("w", 1, dims(1<<30, 1<<30, 1<<30, 1<<30))), ErrCorrupt, "shape"},
		"two places":      {onnxFile(initializer("w", 7, dims(2), bytesField(7, packed(1)), bytesField(9, make([]byte, 8)))), ErrCorrupt, "two places"},
		"type":            {onnxFile(initializer("w", 14, dims(1), bytesField(9, make([]byte, 8)))), ErrUnsupported, "COMPLEX64"},
		"no type":         {onnxFile(bytesField(5, dims(1), bytesField(8, []byte("w")))), ErrUnsupported, "UNDEFINED"},
		"elsewhere":       {onnxFile(initializer("w", 1, dims(1), varintField(14, 1))), ErrUnsupported, "another file"},
		"sparse":          {onnxFile(good, bytesField(15, nil)), ErrUnsupported, "sparse"},
		"cut":             {onnxFile(good)[:20], ErrCorrupt, "of the model"},
		"cut tensor":      {onnxFile(bytesField(5, bytesField(9, make([]byte, 4))[:3])), ErrCorrupt, "a tensor"},
		"cut integers":    {onnxFile(initializer("w", 7, dims(1), bytesField(7, []byte{0x80}))), ErrCorrupt, "cannot parse"},
		"unknown ending":  {append(onnxFile(good), 0xff), ErrCorrupt, "of the model"},
		"group not ended": {append(onnxFile(good), 0x0b), ErrCorrupt, "of the model"},
	} {
		_, err := Read(bytes.NewReader(c.file), int64(len(c.file)), "")
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s: %v; want %v and %q", what, err, c.want, c.says)
		}
	}
}

// The exporter's files have what the checkpoints of the same networks have.
func TestExportedNetworksHaveTheirCheckpointsTensors(t *testing.T) {
	dir := filepath.Join("..", "zoo", "testdata")
	want, err := ReadFile(filepath.Join(dir, "cifar_pad.pth"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadFile(filepath.Join(dir, "cifar_pad.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range want.Names() {
		w, _ := want.Get(name)
		if g, ok := got.Get(name); !strings.HasSuffix(name, "num_batches_tracked") && (!ok || !reflect.DeepEqual(g, w)) {
			t.Errorf("%s differs", name)
		}
	}
	folded, err := ReadFile(filepath.Join(dir, "cifar_pad_folded.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"conv1", "layer1.0.conv1", "layer2.1.conv2"} {
		conv, _ := want.Get(name + ".weight")
		f, ok := folded.Get(name + ".weight")
		bias, biased := folded.Get(name + ".bias")
		if !ok || !slices.Equal(f.Shape, conv.Shape) || !biased || bias.Len() != conv.Shape[0] {
			t.Errorf("%s is not there, folded: the file has %q", name, folded.Names())
		}
	}
}

func FuzzONNX(f *testing.F) {
	f.Add(onnxFile(initializer("w", 1, dims(1), bytesField(9, make([]byte, 4))), node("/a/Conv", "Conv", "x", "onnx::w")))
	exported, err := os.ReadFile(filepath.Join("..", "zoo", "testdata", "cifar_pad_folded.onnx"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(exported)
	f.Fuzz(func(t *testing.T, raw []byte) {
		sd, err := ReadONNX(bytes.NewReader(raw), int64(len(raw)))
		checkRead(t, sd, err)
	})
}
