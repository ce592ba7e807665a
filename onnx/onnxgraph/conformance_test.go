package onnxgraph

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/onnxpb"
	"github.com/lowrank-go/lowrank/onnx"
)

// tensor is a tensor of ONNX's.
type tensor struct {
	dims []int
	data []float32
}

// readTensor reads a file that holds a tensor; nil where it is of another type.
func readTensor(t testing.TB, path string) (*onnxpb.TensorProto, *tensor) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := &onnxpb.TensorProto{}
	if err := proto.Unmarshal(b, p); err != nil {
		return nil, nil
	}
	v, err := onnx.New(&onnxpb.ModelProto{Graph: &onnxpb.GraphProto{}}).Tensor(p)
	if err != nil {
		return p, nil
	}
	data, err := v.Float32s()
	if err != nil {
		return p, nil
	}
	return p, &tensor{v.Dims, data}
}

// isNHWC tells whether the model of a network has the channels of its input last.
func isNHWC(g *graph.Graph) bool {
	return len(g.Nodes) > 1 && strings.HasSuffix(g.Nodes[1].Name, ".nhwc")
}

// feed is a tensor as the input of a network.
func feed(g *graph.Graph, x *tensor) *conv.Map {
	n := x.dims[0]
	c, h, w := g.Input[0], g.Input[1], g.Input[2]
	if isNHWC(g) {
		return &conv.Map{N: n, H: h, W: w, C: c, Data: x.data}
	}
	return toMap(x.data, n, c, h, w)
}

// toMap is a row-major N×C×H×W tensor as a map.
func toMap(data []float32, n, c, h, w int) *conv.Map {
	m := conv.NewMap(n, h, w, c)
	for i := range n {
		for ch := range c {
			for p := range h * w {
				m.Data[(i*h*w+p)*c+ch] = data[(i*c+ch)*h*w+p]
			}
		}
	}
	return m
}

// run runs a network on a tensor.
func run(g *graph.Graph, x *tensor) ([]graph.Tensor, error) {
	p, err := g.Compile()
	if err != nil {
		return nil, err
	}
	return p.Run(context.Background(), feed(g, x), 0)
}

// worst is the largest difference of two tensors over the largest value of the second.
func worst(got graph.Tensor, want *tensor) float64 {
	if !slices.Equal(got.Shape, want.dims) {
		return math.Inf(1)
	}
	most, diff := 0., 0.
	for i, v := range want.data {
		d := math.Abs(float64(got.Data[i]) - float64(v))
		if v != v && got.Data[i] != got.Data[i] || v == got.Data[i] {
			d = 0
		}
		if !(d <= diff) {
			diff = d
		}
		if a := math.Abs(float64(v)); a <= math.MaxFloat32 {
			most = max(most, a)
		}
	}
	return diff / max(most, 1e-30)
}

// vectors is the folder of ONNX's test cases.
func vectors(t testing.TB) string {
	dir := os.Getenv("ONNX_TESTDATA")
	if dir == "" {
		dir = "/usr/share/libonnx-testdata/data"
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no conformance vectors (Debian's libonnx-testdata, or set ONNX_TESTDATA to the folder): %v", err)
	}
	return dir
}

// errCase is of test cases that are about something else than a network.
var errCase = errors.New("not a case of one input and of numbers")

// check runs a test case. Its inputs but the first are constants.
func check(t testing.TB, dir string) (diff float64, err error) {
	m, err := onnx.Open(filepath.Join(dir, "model.onnx"))
	if err != nil {
		return 0, err
	}
	defer m.Close()
	gp := m.Graph()
	set := filepath.Join(dir, "test_data_set_0")
	known := map[string]bool{}
	for _, i := range gp.Initializer {
		known[i.GetName()] = true
	}
	var x *tensor
	k := 0
	for _, in := range gp.Input {
		if known[in.GetName()] {
			continue
		}
		p, v := readTensor(t, filepath.Join(set, fmt.Sprintf("input_%d.pb", k)))
		k++
		if x == nil {
			if v == nil || len(v.dims) == 0 {
				return 0, errCase
			}
			x = v
			continue
		}
		if p == nil {
			return 0, errCase
		}
		own := proto.CloneOf(p)
		own.Name = proto.String(in.GetName())
		gp.Initializer = append(gp.Initializer, own)
	}
	if x == nil {
		return 0, errCase
	}
	if slices.Contains(firstOutput, gp.Node[0].GetOpType()) {
		gp.Output = gp.Output[:1]
	}
	var want []*tensor
	for i := range gp.Output {
		_, w := readTensor(t, filepath.Join(set, fmt.Sprintf("output_%d.pb", i)))
		if w == nil {
			return 0, errCase
		}
		want = append(want, w)
	}
	g, err := Network(m, Options{})
	if err != nil {
		for _, p := range gp.Initializer {
			if n := x.dims[0]; n > 1 && element(p, n, 0) != nil {
				return oneByOne(m, x, want)
			}
		}
		return 0, err
	}
	got, err := run(g, x)
	if err != nil {
		return 0, err
	}
	for i, w := range want {
		diff = max(diff, worst(got[i], w))
	}
	return diff, nil
}

// firstOutput are operators whose other outputs networks have no use for.
var firstOutput = []string{"LayerNormalization", "Dropout", "MaxPool", "BatchNormalization"}

// element is a constant that has a batch of n in dimension 0, as an input has, with the
// values of element i alone; nil where it has none.
func element(p *onnxpb.TensorProto, n, i int) *onnxpb.TensorProto {
	v, err := onnx.New(&onnxpb.ModelProto{}).Tensor(p)
	if err != nil || len(v.Dims) < 1 || v.Dims[0] != n {
		return nil
	}
	all, err := v.Float32s()
	if err != nil {
		return nil
	}
	each := len(all) / n
	out, err := onnx.NewTensor(p.GetName(), append([]int{1}, v.Dims[1:]...), all[i*each:(i+1)*each], onnx.Float)
	if err != nil {
		return nil
	}
	return out
}

// part is element i of a tensor with a batch.
func part(x *tensor, i int) *tensor {
	each := len(x.data) / x.dims[0]
	return &tensor{append([]int{1}, x.dims[1:]...), x.data[i*each : (i+1)*each]}
}

// oneByOne runs each element of a batch on a network of its own, with its part of the
// constants that have a batch too.
func oneByOne(m *onnx.Model, x *tensor, want []*tensor) (diff float64, err error) {
	gp := m.Graph()
	n := x.dims[0]
	all := gp.Initializer
	for i := range n {
		gp.Initializer = nil
		for _, p := range all {
			if own := element(p, n, i); own != nil {
				p = own
			}
			gp.Initializer = append(gp.Initializer, p)
		}
		gp.Input[0].Type.GetTensorType().Shape.Dim[0] = &onnxpb.TensorShapeProto_Dimension{Value: &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: 1}}
		g, err := Network(m, Options{})
		if err != nil {
			return 0, err
		}
		got, err := run(g, part(x, i))
		if err != nil {
			return 0, err
		}
		for k, w := range want {
			if w.dims[0] != n {
				return 0, errCase
			}
			diff = max(diff, worst(got[k], part(w, i)))
		}
	}
	return diff, nil
}

// known are the cases of operators that are supported which fail, and why.
var known = map[string]string{
	// Networks run in float32.
	"node/test_cast_DOUBLE_to_FLOAT16":              "float16",
	"node/test_cast_FLOAT_to_FLOAT16":               "float16",
	"node/test_castlike_DOUBLE_to_FLOAT16_expanded": "float16",
	"node/test_castlike_FLOAT_to_FLOAT16_expanded":  "float16",
	"node/test_cast_FLOAT_to_STRING":                "strings",
	"node/test_castlike_FLOAT_to_STRING_expanded":   "strings",
	// ONNX's own definition has the size of the output before rounding as that of the last
	// corner; ONNX Runtime and PyTorch have it after.
	"node/test_resize_downsample_scales_cubic_align_corners":         "the corner",
	"node/test_resize_downsample_scales_linear_align_corners":        "the corner",
	"node/test_resize_downsample_sizes_nearest_tf_half_pixel_for_nn": "coordinates",
	"node/test_resize_tf_crop_and_resize":                            "coordinates",
	// Networks are imported as they are evaluated, whatever they were exported for.
	"node/test_training_dropout":                "training",
	"node/test_training_dropout_default":        "training",
	"node/test_training_dropout_default_mask":   "training",
	"node/test_training_dropout_mask":           "training",
	"node/test_batchnorm_epsilon_training_mode": "training",
	"node/test_batchnorm_example_training_mode": "training",
	// Maps of three dimensions.
	"node/test_averagepool_3d_default":                        "3-D",
	"node/test_convtranspose_3d":                              "3-D",
	"node/test_maxpool_3d_default":                            "3-D",
	"pytorch-converted/test_AvgPool3d":                        "3-D",
	"pytorch-converted/test_AvgPool3d_stride":                 "3-D",
	"pytorch-converted/test_AvgPool3d_stride1_pad0_gpu_input": "3-D",
	"pytorch-converted/test_Conv3d":                           "3-D",
	"pytorch-converted/test_Conv3d_dilated":                   "3-D",
	"pytorch-converted/test_Conv3d_dilated_strided":           "3-D",
	"pytorch-converted/test_Conv3d_groups":                    "3-D",
	"pytorch-converted/test_Conv3d_no_bias":                   "3-D",
	"pytorch-converted/test_Conv3d_stride":                    "3-D",
	"pytorch-converted/test_Conv3d_stride_padding":            "3-D",
	"pytorch-converted/test_MaxPool3d":                        "3-D",
	"pytorch-converted/test_MaxPool3d_stride":                 "3-D",
	"pytorch-converted/test_MaxPool3d_stride_padding":         "3-D",
	// Products of two values, of a turned one, and sums with one.
	"node/test_gemm_all_attributes":                                "a turned input",
	"node/test_gemm_transposeA":                                    "a turned input",
	"node/test_matmul_3d":                                          "a matrix for each element",
	"node/test_matmul_4d":                                          "a matrix for each element",
	"pytorch-operator/test_operator_addmm":                         "a bias that is no constant",
	"pytorch-operator/test_operator_add_broadcast":                 "version 6",
	"pytorch-operator/test_operator_add_size1_broadcast":           "version 6",
	"pytorch-operator/test_operator_add_size1_right_broadcast":     "version 6",
	"pytorch-operator/test_operator_add_size1_singleton_broadcast": "version 6",
	// Empty tensors.
	"node/test_slice_start_out_of_bounds": "empty",
	"node/test_split_zero_size_splits":    "empty",
}

// constantsAlone are operators that are computed of constants and not of a network's values.
var constantsAlone = []string{"Mod", "ReduceProd", "Shape", "Size", "Range", "ConstantOfShape"}

func TestOperatorsMeetONNXConformance(t *testing.T) {
	root := vectors(t)
	var passed, cases, batch, others int
	for _, group := range []string{"node", "pytorch-converted", "pytorch-operator", "simple"} {
		dirs, err := fs.ReadDir(os.DirFS(root), group)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range dirs {
			name := group + "/" + d.Name()
			diff, err := check(t, filepath.Join(root, group, d.Name()))
			cases++
			reason, fails := known[name]
			switch {
			case err == nil && diff <= 1e-4:
				passed++
				if fails {
					t.Errorf("%s passes: it is not to be among those that are known to fail", name)
				}
			case fails:
				t.Logf("%s: known to fail: %s", name, reason)
			case errors.Is(err, errCase), errors.Is(err, errOperator):
				others++ // not networks of real numbers, or not the operators of one
			case errors.Is(err, errBatch):
				batch++
			case err != nil && slices.ContainsFunc(constantsAlone, func(op string) bool {
				return strings.Contains(err.Error(), "("+op+")") || strings.HasPrefix(d.Name(), "test_"+strings.ToLower(op))
			}):
				others++
			case err != nil:
				t.Errorf("%s: %v", name, err)
			default:
				t.Errorf("%s: differs by %g of the largest value", name, diff)
			}
		}
	}
	t.Logf("%d of %d cases pass; %d mix the batch with other dimensions, %d are known to fail, %d are of other operators or not of a network of real numbers",
		passed, cases, batch, len(known), others)
	if passed < 400 {
		t.Errorf("%d cases pass, 416 of version 1.12 did", passed)
	}
}
