package compress

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/realdata"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/ranks"
	"github.com/lowrank-go/lowrank/zoo"
)

// kernel makes a kernel of g groups, each the sum of rank rank-1 tensors plus
// noise.
func kernel(t *testing.T, shape [4]int, rank int, noise float64, g conv.Geometry) *conv.Kernel {
	t.Helper()
	rng := rand.New(rand.NewPCG(uint64(rank), uint64(shape[0])))
	groups := max(g.Groups, 1)
	outs, ins, taps := shape[0]/groups, shape[1], shape[2]*shape[3]
	w := make([]float32, shape[0]*ins*taps)
	normal := func(n int) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[i] = rng.NormFloat64()
		}
		return v
	}
	for q := range groups {
		sum := normal(outs * ins * taps)
		for i := range sum {
			sum[i] *= noise
		}
		for range rank {
			a, b, c := normal(outs), normal(ins), normal(taps)
			for i := range sum {
				sum[i] += a[i/(ins*taps)] * b[i/taps%ins] * c[i%taps]
			}
		}
		for i, v := range sum {
			w[q*outs*ins*taps+i] = float32(v)
		}
	}
	bias := make([]float32, shape[0])
	for i := range bias {
		bias[i] = float32(rng.NormFloat64())
	}
	k, err := conv.NewKernel(shape, w, bias, g)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func one(t *testing.T, k *conv.Kernel, opt Options) Result {
	t.Helper()
	r, err := Layers(t.Context(), []Target{{Name: "layer", Chain: conv.NewDense(k), H: 14, W: 13}}, opt)
	if err != nil {
		t.Fatal(err)
	}
	return r[0]
}

func rank(t *testing.T, s string) Rank {
	t.Helper()
	r, err := ranks.Parse(s, Rules...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var odd = conv.Geometry{Stride: [2]int{2, 1}, Padding: [2]int{1, 2}, Dilation: [2]int{1, 2}}

func TestLowRankKernelsAreFoundExactly(t *testing.T) {
	for _, groups := range []int{1, 2} {
		g := odd
		g.Groups = groups
		k := kernel(t, [4]int{24, 20, 3, 5}, 3, 0, g)
		for method, want := range map[Method][]int{Tucker: {3, 3}, CP: {3}, TKDCPD: {3, 3, 3}, SVD: {3}} {
			for _, rule := range []string{"fixed=3", "energy=0.999999999"} {
				r := one(t, k, Options{Method: method, Rank: rank(t, rule), Seed: 1})
				if method == TKDCPD && rule != "fixed=3" {
					// Ranks of the channels that are no cheaper than none.
					want = []int{24 / groups, 20, 3}
				}
				if r.Reason != "" || r.Method != string(method) || !slices.Equal(r.Rank, want) {
					t.Errorf("%s %s, %d groups: %s rank %v (%s), want rank %v", method, rule, groups, r.Method, r.Rank, r.Reason, want)
					continue
				}
				if r.RelError > 1e-5 {
					t.Errorf("%s %s, %d groups: error %g", method, rule, groups, r.RelError)
				}
				if shape, geo := r.Chain.Shape(); shape != k.Shape || geo != k.Geometry {
					t.Errorf("%s: the chain is a %v kernel with %+v, want %v with %+v", method, shape, geo, k.Shape, k.Geometry)
				}
				if last := r.Chain.Last(); !slices.Equal(last.Bias, k.Bias) {
					t.Errorf("%s: the bias is not on the last stage", method)
				}
				if r.ParamsAfter != r.Chain.Params() || r.MACsAfter != r.Chain.MACs(14, 13) || r.ParamsBefore != k.Params() || r.MACsBefore != k.MACs(14, 13) {
					t.Errorf("%s: the report's costs are not the chain's", method)
				}
			}
		}
	}
}

func TestVBMFFindsTheRankUnderNoise(t *testing.T) {
	k := kernel(t, [4]int{48, 40, 3, 3}, 5, 0.1, conv.Geometry{Padding: [2]int{1, 1}})
	for method, want := range map[Method][]int{Tucker: {5, 5}, CP: {5}, TKDCPD: {5, 5, 5}, SVD: {5}} {
		if r := one(t, k, Options{Method: method, Rank: rank(t, "vbmf")}); !slices.Equal(r.Rank, want) {
			t.Errorf("%s: rank %v (%s), want %v", method, r.Rank, r.Reason, want)
		}
	}
	noise := kernel(t, [4]int{48, 40, 3, 3}, 0, 1, conv.Geometry{})
	if r := one(t, noise, Options{Rank: rank(t, "vbmf")}); r.Reason != noSignal || r.Method != "none" {
		t.Errorf("white noise: %s, %q", r.Method, r.Reason)
	}
}

func TestEnergyIsKeptAndRatioIsNotExceeded(t *testing.T) {
	for _, shape := range [][4]int{{16, 16, 3, 3}, {32, 12, 3, 3}, {20, 30, 5, 5}, {30, 20, 1, 1}} {
		k := kernel(t, shape, 12, 0.3, conv.Geometry{})
		for _, method := range []Method{Tucker, CP, TKDCPD, SVD} {
			for _, e := range []float64{0.3, 0.6, 0.8} {
				r := one(t, k, Options{Method: method, Rank: Rank{Rule: Energy, Value: e}, Seed: 1})
				if r.Reason == "" && r.RelError > math.Sqrt(1-e)+1e-6 {
					t.Errorf("%s of %v at energy %g: error %g above %g", method, shape, e, r.RelError, math.Sqrt(1-e))
				}
			}
			last := 1.0
			for _, q := range []float64{0.1, 0.3, 0.6} {
				r := one(t, k, Options{Method: method, Rank: Rank{Rule: Ratio, Value: q}, Seed: 1})
				if r.Reason != "" {
					continue
				}
				if weights := r.ParamsAfter - len(k.Bias); float64(weights) > q*float64(len(k.Weight)) {
					t.Errorf("%s of %v at ratio %g: %d of %d weights", method, shape, q, weights, len(k.Weight))
				}
				if r.RelError > last {
					t.Errorf("%s of %v at ratio %g: error %g, above %g at a smaller ratio", method, shape, q, r.RelError, last)
				}
				last = r.RelError
			}
		}
	}
}

func TestNoLayerGrows(t *testing.T) {
	for _, shape := range [][4]int{{2, 2, 3, 3}, {16, 16, 3, 3}, {8, 3, 7, 7}, {64, 1, 3, 3}, {1, 64, 3, 3}, {4, 64, 1, 1}, {5, 1, 1, 1}} {
		k := kernel(t, shape, 40, 1, conv.Geometry{Stride: [2]int{2, 2}, Padding: [2]int{1, 1}})
		for _, method := range []Method{Tucker, CP, TKDCPD, SVD} {
			for _, rule := range []string{"fixed=1000", "fixed=2", "energy=0.999", "energy=1", "ratio=1", "ratio=0.001", "vbmf"} {
				r := one(t, k, Options{Method: method, Rank: rank(t, rule), Seed: 1})
				if r.ParamsAfter > r.ParamsBefore || r.MACsAfter > r.MACsBefore {
					t.Errorf("%s %s of %v: %d → %d parameters, %d → %d MACs", method, rule, shape, r.ParamsBefore, r.ParamsAfter, r.MACsBefore, r.MACsAfter)
				}
				if (r.Reason == "") == (r.Method == "none") {
					t.Errorf("%s %s of %v: method %q with reason %q", method, rule, shape, r.Method, r.Reason)
				}
			}
		}
	}
}

func TestWhatCannotBeCompressedSaysWhy(t *testing.T) {
	depthwise := kernel(t, [4]int{8, 1, 3, 3}, 2, 0, conv.Geometry{Groups: 8})
	zero, err := conv.NewKernel([4]int{8, 8, 3, 3}, make([]float32, 576), nil, conv.Geometry{})
	if err != nil {
		t.Fatal(err)
	}
	single := kernel(t, [4]int{1, 8, 3, 3}, 1, 0, conv.Geometry{})
	for words, k := range map[string]*conv.Kernel{"depthwise": depthwise, "zero": zero, "one output": single} {
		r := one(t, k, Options{Rank: rank(t, "fixed=1")})
		if !strings.Contains(r.Reason, words) || r.Chain.Stages[0] != k {
			t.Errorf("reason %q, want one with %q and the layer unchanged", r.Reason, words)
		}
	}
}

func TestResultsDoNotDependOnWorkers(t *testing.T) {
	k := kernel(t, [4]int{40, 36, 3, 3}, 20, 0.5, conv.Geometry{})
	for _, method := range []Method{Tucker, CP, TKDCPD, SVD} {
		want := one(t, k, Options{Method: method, Rank: rank(t, "ratio=0.4"), Seed: 3, Workers: 1})
		for _, w := range []int{2, 3} {
			got := one(t, k, Options{Method: method, Rank: rank(t, "ratio=0.4"), Seed: 3, Workers: w})
			for i, s := range want.Chain.Stages {
				if !slices.Equal(s.Weight, got.Chain.Stages[i].Weight) {
					t.Errorf("%s: %d workers give other weights in stage %d", method, w, i)
				}
			}
		}
	}
}

func TestPatternsChooseLayers(t *testing.T) {
	k := kernel(t, [4]int{16, 16, 3, 3}, 2, 0, conv.Geometry{})
	lin := kernel(t, [4]int{16, 16, 1, 1}, 2, 0, conv.Geometry{})
	targets := []Target{
		{Name: "layer1.0.conv1", Chain: conv.NewDense(k)}, {Name: "layer2.0.conv1", Chain: conv.NewDense(k)},
		{Name: "fc", Chain: conv.NewDense(lin), Linear: true},
	}
	for _, c := range []struct {
		patterns []string
		want     []string
	}{
		{nil, []string{"layer1.0.conv1", "layer2.0.conv1"}},
		{[]string{"layer1.*"}, []string{"layer1.0.conv1"}},
		{[]string{"*"}, []string{"layer1.0.conv1", "layer2.0.conv1", "fc"}},
		{[]string{"fc", "layer2.*"}, []string{"layer2.0.conv1", "fc"}},
	} {
		res, err := Layers(t.Context(), targets, Options{Rank: rank(t, "fixed=2"), Layers: c.patterns})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range res {
			if r.Reason == "" {
				got = append(got, r.Name)
			}
			if r.MACsBefore != 0 {
				t.Errorf("%s: %d MACs on a map of unknown size", r.Name, r.MACsBefore)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("patterns %v compress %v, want %v", c.patterns, got, c.want)
		}
	}
	for _, p := range []string{"nothing.*", "["} {
		if _, err := Layers(t.Context(), targets, Options{Rank: rank(t, "fixed=2"), Layers: []string{p}}); !errors.Is(err, ErrOption) {
			t.Errorf("pattern %q gave %v", p, err)
		}
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	if _, err := ParseMethod("pca"); !errors.Is(err, ErrOption) {
		t.Errorf("method pca gave %v", err)
	}
	k := kernel(t, [4]int{8, 8, 3, 3}, 2, 0, conv.Geometry{})
	if _, err := Layers(t.Context(), []Target{{Chain: conv.NewDense(k)}}, Options{Method: CP, Rank: rank(t, "fixed=2,3")}); !errors.Is(err, ErrOption) {
		t.Errorf("two ranks for cp gave %v", err)
	}
	if _, err := Layers(t.Context(), []Target{{Chain: conv.NewDense(k)}}, Options{Rank: Rank{Rule: MACs}}); !errors.Is(err, ErrOption) {
		t.Errorf("a budget for each layer gave %v", err)
	}
}

func TestLayersStopsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k := kernel(t, [4]int{8, 8, 3, 3}, 2, 0, conv.Geometry{})
	for _, m := range []Method{Auto, Tucker, CP, TKDCPD, SVD} {
		if _, err := Layers(ctx, []Target{{Chain: conv.NewDense(k)}}, Options{Method: m, Rank: rank(t, "fixed=2")}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s gave %v", m, err)
		}
	}
}

func TestCompressingAgainStartsFromTheChain(t *testing.T) {
	k := kernel(t, [4]int{32, 32, 3, 3}, 16, 0.2, conv.Geometry{})
	first := one(t, k, Options{Method: Tucker, Rank: rank(t, "fixed=12")})
	again, err := Layers(t.Context(), []Target{{Name: "layer", Chain: first.Chain, H: 8, W: 8}}, Options{Method: Tucker, Rank: rank(t, "fixed=6")})
	if err != nil {
		t.Fatal(err)
	}
	if r := again[0]; r.Reason != "" || r.ParamsBefore != first.ParamsAfter || !slices.Equal(r.Rank, []int{6, 6}) {
		t.Errorf("%+v", r)
	}
}

func TestLooseKernelsKeepTheirNamesAndBiases(t *testing.T) {
	sd := model.NewStateDict()
	k := kernel(t, [4]int{16, 12, 3, 3}, 2, 0, conv.Geometry{})
	sd.Set("features.0.weight", &model.Tensor{Shape: k.Shape[:], Data: k.Weight})
	sd.Set("features.0.bias", &model.Tensor{Shape: []int{16}, Data: k.Bias})
	sd.Set("conv9_weight", &model.Tensor{Shape: k.Shape[:], Data: k.Weight})
	sd.Set("conv9_bias", &model.Tensor{Shape: []int{16}, Data: k.Bias})
	sd.Set("raw", &model.Tensor{Shape: k.Shape[:], Data: k.Weight})
	sd.Set("fc.weight", &model.Tensor{Shape: []int{4, 3}, Data: make([]float32, 12)})
	sd.Set("steps", &model.Tensor{Data: []int64{7}})
	targets, err := Kernels(sd)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, tg := range targets {
		names = append(names, tg.Name)
	}
	if want := []string{"features.0", "conv9", "raw", "fc"}; !slices.Equal(names, want) {
		t.Fatalf("kernels %v, want %v", names, want)
	}
	res, err := Layers(t.Context(), targets, Options{Rank: rank(t, "fixed=2")})
	if err != nil {
		t.Fatal(err)
	}
	out, err := StoreKernels(sd, res)
	if err != nil {
		t.Fatal(err)
	}
	got := slices.Clone(out.Names())
	slices.Sort(got)
	want := []string{"conv9.0.weight", "conv9.1.weight", "conv9.2.bias", "conv9.2.weight", "fc.weight",
		"features.0.0.weight", "features.0.1.weight", "features.0.2.bias", "features.0.2.weight",
		"raw.0.weight", "raw.1.weight", "raw.2.weight", "steps"}
	if !slices.Equal(got, want) {
		t.Errorf("stored %v, want %v", got, want)
	}
	m, err := graph.ReadManifest(out)
	if err != nil || !m.GeometryUnknown {
		t.Fatalf("manifest %+v, %v", m, err)
	}
	c, err := m.Chain("conv9").Load(out, "conv9", nil)
	if err != nil {
		t.Fatal(err)
	}
	back, err := c.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	if e, err := k.RelError(back); err != nil || e > 1e-5 || !slices.Equal(back.Bias, k.Bias) {
		t.Errorf("the chain's kernel is off by %g (%v)", e, err)
	}
	empty := model.NewStateDict()
	empty.Set("x", &model.Tensor{Shape: []int{3}, Data: make([]float32, 3)})
	if _, err := Kernels(empty); !errors.Is(err, model.ErrFormat) {
		t.Errorf("a file without kernels gave %v", err)
	}
}

func TestSqueezeNetKernelsCompress(t *testing.T) {
	sd, err := model.ReadFile(realdata.Path(t, "squeezenet1.1", "weights"))
	if err != nil {
		t.Fatal(err)
	}
	targets, err := Kernels(sd)
	if err != nil {
		t.Fatal(err)
	}
	if len(targets) != 26 {
		t.Fatalf("%d kernels, want 26", len(targets))
	}
	res, err := Layers(t.Context(), targets, Options{Rank: rank(t, "energy=0.8")})
	if err != nil {
		t.Fatal(err)
	}
	smaller := 0
	for _, r := range res {
		if r.Reason == "" {
			smaller++
			if r.RelError > math.Sqrt(0.2)+1e-6 {
				t.Errorf("%s: error %g", r.Name, r.RelError)
			}
		}
	}
	if smaller < 10 {
		t.Errorf("only %d of 26 kernels got smaller", smaller)
	}
}

func TestACompressedNetworkSurvivesItsFile(t *testing.T) {
	sd, err := model.ReadFile(realdata.Path(t, "checkpoints", "resnet20-12fca82f.th"))
	if err != nil {
		t.Fatal(err)
	}
	net, err := zoo.Load(sd, zoo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []Method{Tucker, SVD} {
		res, err := Layers(t.Context(), Sites(net), Options{Method: method, Rank: rank(t, "energy=0.8")})
		if err != nil {
			t.Fatal(err)
		}
		small := net.Clone()
		for _, r := range res {
			if r.Reason == "" {
				if err := small.Replace(r.Name, r.Chain); err != nil {
					t.Fatal(err)
				}
			}
		}
		if small.Params() >= net.Params() || small.MACs() >= net.MACs() {
			t.Errorf("%s: %d parameters and %d MACs, of %d and %d", method, small.Params(), small.MACs(), net.Params(), net.MACs())
		}
		out, err := small.StateDict()
		if err != nil {
			t.Fatal(err)
		}
		path := t.TempDir() + "/small.safetensors"
		if err := model.WriteSafetensors(path, out); err != nil {
			t.Fatal(err)
		}
		read, err := model.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		back, err := zoo.Load(read, zoo.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if back.Params() != small.Params() || back.MACs() != small.MACs() {
			t.Errorf("%s: the file has %d parameters and %d MACs, want %d and %d", method, back.Params(), back.MACs(), small.Params(), small.MACs())
		}
		again, err := back.StateDict()
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(out.Names(), again.Names()) || out.Meta[model.ManifestKey] != again.Meta[model.ManifestKey] {
			t.Errorf("%s: writing what was read gives another file", method)
		}
	}
}

func ExampleLayers() {
	// A kernel of 8 outputs and 6 inputs that is the outer product of three
	// vectors.
	w := make([]float32, 8*6*9)
	for i := range w {
		w[i] = float32((1 + i/54) * (1 + i/9%6) * (1 + i%9))
	}
	k, err := conv.NewKernel([4]int{8, 6, 3, 3}, w, nil, conv.Geometry{Padding: [2]int{1, 1}})
	if err != nil {
		fmt.Println(err)
		return
	}
	targets := []Target{{Name: "conv1", Chain: conv.NewDense(k), H: 32, W: 32}}
	results, err := Layers(context.Background(), targets, Options{Method: Tucker, Rank: Rank{Rule: Energy, Value: 0.99}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range results {
		fmt.Println(r.Name, r.Rank, r.ParamsBefore, "->", r.ParamsAfter)
	}
	// Output: conv1 [1 1] 432 -> 23
}

func TestStabilityLowersSensitivityWithinItsError(t *testing.T) {
	k := kernel(t, [4]int{24, 20, 3, 3}, 12, 0.4, conv.Geometry{})
	for method, rule := range map[Method]string{CP: "fixed=16", TKDCPD: "fixed=10,9,16"} {
		plain := one(t, k, Options{Method: method, Rank: rank(t, rule)})
		stable := one(t, k, Options{Method: method, Rank: rank(t, rule), Stability: 1.05})
		if stable.RelError > 1.05*plain.RelError*(1+1e-5) {
			t.Errorf("%s: error %g, want at most 1.05 times %g", method, stable.RelError, plain.RelError)
		}
		if !(stable.SensitivityAfter < plain.SensitivityAfter) || !(stable.IntensityAfter < stable.IntensityBefore) {
			t.Errorf("%s: sensitivity %g, without %g; intensity %g -> %g", method, stable.SensitivityAfter, plain.SensitivityAfter, stable.IntensityBefore, stable.IntensityAfter)
		}
		if !(stable.DegeneracyAfter < stable.DegeneracyBefore) || stable.CosineAfter < -1 || stable.CosineAfter > 0 {
			t.Errorf("%s: degeneracy %g -> %g, least cosine %g", method, stable.DegeneracyBefore, stable.DegeneracyAfter, stable.CosineAfter)
		}
	}
	// A share of the energy is kept all the same.
	for _, method := range []Method{CP, TKDCPD} {
		energy := one(t, k, Options{Method: method, Rank: rank(t, "energy=0.7"), Stability: 1.5})
		if energy.Reason == "" && energy.RelError > math.Sqrt(.3)*(1+1e-5) {
			t.Errorf("%s: error %g, the rule's bound is %g", method, energy.RelError, math.Sqrt(.3))
		}
	}
	for _, opt := range []Options{{Method: Tucker, Stability: 1.1}, {Method: CP, Stability: 1}, {Method: CP, Stability: math.NaN()}} {
		if _, err := Layers(context.Background(), nil, opt); !errors.Is(err, ErrOption) {
			t.Errorf("%+v: error %v", opt, err)
		}
	}
}

// error=E asks for the ranks of energy=1−E².
func TestErrorIsEnergy(t *testing.T) {
	k := kernel(t, [4]int{8, 8, 3, 3}, 4, .3, conv.Geometry{})
	for _, m := range []Method{Tucker, SVD, CP} {
		a := one(t, k, Options{Method: m, Rank: rank(t, "error=0.5"), Seed: 1, Always: true})
		b := one(t, k, Options{Method: m, Rank: rank(t, "energy=0.75"), Seed: 1, Always: true})
		if a.RelError > .5 || a.RelError == 0 || a.RelError != b.RelError || !slices.Equal(a.Rank, b.Rank) {
			t.Errorf("%s: error %g with ranks %v, by energy %g with %v", m, a.RelError, a.Rank, b.RelError, b.Rank)
		}
	}
}
