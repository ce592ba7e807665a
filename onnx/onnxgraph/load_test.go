package onnxgraph

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/internal/onnxpb"
	"github.com/lowrank-go/lowrank/internal/ortest"
	"github.com/lowrank-go/lowrank/internal/realdata"
	"github.com/lowrank-go/lowrank/onnx"
)

// random is a tensor of values from −scale to scale, or, where scale is not 1, from 0 to
// 2·scale.
func random(dims []int, scale float32) *tensor {
	n := 1
	for _, d := range dims {
		n *= d
	}
	rng := rand.New(rand.NewPCG(1, 1))
	t := &tensor{dims, make([]float32, n)}
	for i := range t.data {
		v := 2*rng.Float32() - 1
		if scale > 1 {
			v++
		}
		t.data[i] = v * scale
	}
	return t
}

// runtimeOutputs are ONNX Runtime's for an input of four dimensions.
func runtimeOutputs(t *testing.T, path string, x *tensor) []*tensor {
	t.Helper()
	n, c, h, w := x.dims[0], x.dims[1], x.dims[2], x.dims[3]
	var out []*tensor
	for _, o := range ortest.Run(t, path, toMap(x.data, n, c, h, w)) {
		out = append(out, &tensor{o.Dims, o.Data})
	}
	return out
}

// weigh gives a model whose weights are all the same, as those of test models that are to
// be small are, weights of its own; false where there are too many.
func weigh(t *testing.T, m *onnx.Model) bool {
	t.Helper()
	gp, scope := m.Graph(), m.Scope()
	rng := rand.New(rand.NewPCG(1, 2))
	total := 0
	var nodes []*onnxpb.NodeProto
	var made []*onnxpb.TensorProto
	for _, n := range gp.Node {
		if n.GetOpType() != "ConstantOfShape" {
			nodes = append(nodes, n)
			continue
		}
		c, err := scope.Constant(n.Output[0])
		if err != nil {
			t.Fatal(err)
		}
		if total += c.Len(); total > 3e7 {
			return false
		}
		v := make([]float32, c.Len())
		inputs := max(c.Len()/max(append(c.Dims, 1)[0], 1), 1)
		for i := range v {
			if v[i] = .5 + rng.Float32(); len(c.Dims) > 1 {
				v[i] = float32(rng.NormFloat64() * math.Sqrt(2/float64(inputs)))
			}
		}
		p, err := onnx.NewTensor(n.Output[0], c.Dims, v, onnx.Float)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, p)
	}
	gp.Node, gp.Initializer = nodes, append(gp.Initializer, made...)
	return true
}

func TestNetworksOfRealModelsEqualONNXRuntime(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(realdata.Path(t, "onnx"), "*.onnx"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			m, err := onnx.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if light := strings.HasPrefix(filepath.Base(path), "light_"); light && !weigh(t, m) {
				t.Log("the weights are all the same")
			}
			// ONNX Runtime's sigmoid is exact to 10⁻⁷ of 1 alone, and a softmax may be 1 at
			// one place: what is before them is compared.
			for _, o := range m.Graph().Output {
				if n := m.Scope().Producer(o.GetName()); n.GetOpType() == "Sigmoid" || n.GetOpType() == "Softmax" {
					o.Name = &n.Input[0]
				}
			}
			path := filepath.Join(t.TempDir(), "model.onnx")
			if err := m.WriteFile(path); err != nil {
				t.Fatal(err)
			}
			g, err := Network(m, Options{Input: [2]int{64, 96}})
			if err != nil {
				t.Fatal(err)
			}
			dims := []int{1}
			if len(g.Nodes) > 1 && isNHWC(g) {
				dims = append(dims, g.Input[1], g.Input[2], g.Input[0])
			} else {
				dims = append(dims, g.Input...)
			}
			scale := float32(1)
			if isNHWC(g) { // it takes pixels
				scale = 127.5
			}
			x := random(dims, scale)
			want := runtimeOutputs(t, path, x)
			got, err := run(g, x)
			if err != nil {
				t.Fatal(err)
			}
			for i, w := range want {
				if m.Graph().Output[i].GetName() == "scores" {
					// A value is kept where it is the largest around it, and else 0, which
					// rounding decides where values are small: ONNX Runtime with its
					// optimisations and without differs from itself by 1.6e-4.
					if d := worst(got[i], w); !(d <= 1e-2) {
						t.Errorf("output %d differs by %.2g of its largest value", i, d)
					}
					for k, v := range w.data {
						if (v == 0) != (got[i].Data[k] == 0) {
							got[i].Data[k] = v
						}
					}
				}
				d := worst(got[i], w)
				if !(d <= 1e-4) {
					t.Errorf("output %d differs by %.2g of its largest value", i, d)
				}
				t.Logf("%v: %.2g", w.dims, d)
			}
		})
	}
}
