package onnxgraph

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/compress"
	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/ortest"
	"github.com/lowrank-go/lowrank/zoo"
)

func images(n, c, h, w int) *conv.Map {
	rng := rand.New(rand.NewPCG(1, 2))
	m := conv.NewMap(n, h, w, c)
	for i := range m.Data {
		m.Data[i] = float32(rng.NormFloat64())
	}
	return m
}

// sameInORT compares a network with what ONNX Runtime makes of its export.
func sameInORT(t *testing.T, g *graph.Graph, opt ExportOptions, x *conv.Map, tolerance float64) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "model.onnx")
	if err := WriteFile(file, g, opt); err != nil {
		t.Fatal(err)
	}
	checked(t, file, opt)
	p, err := g.Compile()
	if err != nil {
		t.Fatal(err)
	}
	want, err := p.Run(t.Context(), x, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := ortest.Run(t, file, x)
	if len(got) != len(want) {
		t.Fatalf("%d outputs, want %d", len(got), len(want))
	}
	for i, w := range want {
		if fmt.Sprint(got[i].Dims) != fmt.Sprint(w.Shape) {
			t.Fatalf("output %d is %v, want %v", i, got[i].Dims, w.Shape)
		}
		var worst, top float64
		for j, v := range w.Data {
			worst = math.Max(worst, math.Abs(float64(v-got[i].Data[j])))
			top = math.Max(top, math.Abs(float64(v)))
		}
		if !(worst <= tolerance*top) {
			t.Errorf("output %d differs by %.3g of the largest, %g", i, worst/top, top)
		}
	}
}

// checked runs ONNX's own checker where it is installed and knows the opset.
func checked(t *testing.T, file string, opt ExportOptions) {
	t.Helper()
	if _, err := exec.LookPath("check-model"); err != nil || opt.Opset > 17 {
		return
	}
	if out, err := exec.Command("check-model", file).CombinedOutput(); err != nil {
		t.Errorf("ONNX's checker: %v\n%s", err, out)
	}
}

func TestNetworksAreInONNXRuntimeWhatTheyAreHere(t *testing.T) {
	ortest.Dir(t)
	for _, arch := range []string{"resnet20", "resnet18", "resnext50_32x4d"} {
		for _, opt := range []ExportOptions{{}, {Opset: 13, Batch: 2, FixedSize: true}, {Opset: 21}} {
			g, err := zoo.New(arch, 10, zoo.NewOptions{Seed: 1, Input: [2]int{64, 64}})
			if err != nil {
				t.Fatal(err)
			}
			side := 96 // another size than the network's own
			if opt.FixedSize {
				side = 64
			}
			sameInORT(t, g, opt, images(2, 3, side, side), 1e-4)
		}
	}
}

func TestCompressedNetworksAreInONNXRuntimeWhatTheyAreHere(t *testing.T) {
	ortest.Dir(t)
	g, err := zoo.New("resnet20", 10, zoo.NewOptions{Seed: 1, Projection: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []compress.Method{compress.Tucker, compress.CP, compress.SVD, compress.TKDCPD} {
		small, _, err := compress.Network(t.Context(), g, compress.Options{Method: m, Rank: compress.Rank{Rule: compress.Ratio, Value: .5}, Layers: []string{"layer3.*", "linear"}})
		if err != nil {
			t.Fatal(err)
		}
		p, err := Export(small, ExportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if s := fmt.Sprint(p.GetMetadataProps()); !strings.Contains(s, "lowrank.layers") {
			t.Errorf("%s: metadata %s say nothing of chains", m, s)
		}
		sameInORT(t, small, ExportOptions{}, images(1, 3, 32, 32), 1e-4)
	}
}

func TestSegmentationNetworksAreInONNXRuntimeWhatTheyAreHere(t *testing.T) {
	ortest.Dir(t)
	g, err := zoo.New("resnet18", 5, zoo.NewOptions{Seed: 1, Segment: true, Input: [2]int{64, 64}})
	if err != nil {
		t.Fatal(err)
	}
	sameInORT(t, g, ExportOptions{}, images(1, 3, 80, 112), 1e-4)
}

// Each activation, with typical constants, behind a convolution.
func TestActivationsAreInONNXRuntimeWhatTheyAreHere(t *testing.T) {
	ortest.Dir(t)
	for _, a := range []graph.Activation{
		{Name: "relu"}, {Name: "clip", Beta: 6}, {Name: "leaky_relu", Alpha: .1}, {Name: "thresholded_relu", Alpha: .3}, {Name: "elu", Alpha: 1},
		{Name: "celu", Alpha: .7}, {Name: "selu"}, {Name: "sigmoid"}, {Name: "hard_sigmoid", Alpha: .2, Beta: .5}, {Name: "hard_swish"}, {Name: "silu"},
		{Name: "silu", Alpha: 1.5}, {Name: "log_sigmoid"}, {Name: "mish"}, {Name: "gelu"}, {Name: "tanh"}, {Name: "softplus"}, {Name: "softsign"},
		{Name: "abs"}, {Name: "neg"}, {Name: "erf"}, {Name: "linear", Alpha: 2, Beta: 1}, {Name: "exp"}, {Name: "floor"},
	} {
		for _, opset := range []int{13, 17} {
			g := &graph.Graph{Arch: "one", Input: graph.Shape{3, 8, 8}}
			x := g.Add("input", &graph.Input{Size: g.Input})
			x = g.Add("act", &a, x)
			g.Outputs = []*graph.Node{x}
			t.Run(fmt.Sprint(a, opset), func(t *testing.T) {
				sameInORT(t, g, ExportOptions{Opset: opset}, images(1, 3, 8, 8), 1e-4)
			})
		}
	}
}
