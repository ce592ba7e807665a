package model

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// layout is what testdata/checkpoints/make.py says of a checkpoint.
type layout struct {
	First        float32  `json:"first"`
	Key          string   `json:"key"`
	Prefix       string   `json:"prefix"`
	LeftOut      []string `json:"left_out"`
	Others       []string `json:"others"`
	DType        DType    `json:"dtype"`
	Error        string   `json:"error"`
	OptionKey    string   `json:"option_key"`
	OptionPrefix string   `json:"option_prefix"`
	Names        []string `json:"names"`
}

func layouts(t testing.TB) map[string][]layout {
	text, err := os.ReadFile("testdata/checkpoints/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string][]layout
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// The network that make.py saves: element j of tensor i is first + 10 i + j.
var (
	layoutNames  = []string{"conv1.weight", "bn1.weight", "bn1.running_mean", "bn1.num_batches_tracked", "layer1.0.conv1.weight", "fc.weight", "fc.bias"}
	layoutShapes = [][]int{{2, 3, 1, 1}, {2}, {2}, {}, {2, 2, 1, 1}, {3, 2}, {3}}
)

func TestEveryLayoutOfACheckpointGivesTheWeights(t *testing.T) {
	all := layouts(t)
	if len(all) < 50 {
		t.Fatalf("only %d layouts", len(all))
	}
	for file, wants := range all {
		for _, w := range wants {
			t.Run(file+" "+w.OptionKey+w.OptionPrefix, func(t *testing.T) { checkLayout(t, file, w) })
		}
	}
}

func checkLayout(t *testing.T, file string, w layout) {
	o := ReadOptions{Key: w.OptionKey, Prefix: w.OptionPrefix}
	sd, err := o.ReadFile(context.Background(), filepath.Join("testdata/checkpoints", file))
	if w.Error != "" {
		if err == nil || !strings.Contains(err.Error(), w.Error) {
			t.Errorf("error %v, want one that says %q", err, w.Error)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	sd = Strip(sd)
	names := w.Names
	if names == nil {
		names = layoutNames
	}
	if !slices.Equal(sd.Names(), names) {
		t.Fatalf("names %v", sd.Names())
	}
	for i, shape := range layoutShapes {
		x, _ := sd.Get(names[i])
		if !slices.Equal(x.Shape, shape) {
			t.Errorf("%s has shape %v, want %v", names[i], x.Shape, shape)
		}
		if strings.HasSuffix(names[i], "tracked") {
			if v, ok := x.Data.([]int64); !ok || v[0] != 7 {
				t.Errorf("%s is %v", names[i], x.Data)
			}
			continue
		}
		v, err := x.Float32s()
		if err != nil {
			t.Fatal(err)
		}
		if x.FileType() != w.DType {
			t.Errorf("%s is of %s, want %s", names[i], x.FileType(), w.DType)
		}
		for j, e := range v {
			if want := w.First + float32(10*i+j); e != want {
				t.Errorf("element %d of %s is %g, want %g", j, names[i], e, want)
			}
		}
	}
	s := sd.Source
	if s.Key != w.Key || s.Prefix != w.Prefix {
		t.Errorf("key %q and prefix %q, want %q and %q", s.Key, s.Prefix, w.Key, w.Prefix)
	}
	var left, others []string
	for _, l := range s.LeftOut {
		left = append(left, l.Name)
		if l.Reason == "" {
			t.Errorf("%s is left out without a reason", l.Name)
		}
	}
	for _, o := range s.Others {
		others = append(others, o.Key+o.Prefix)
	}
	slices.Sort(left)
	slices.Sort(w.LeftOut)
	if !slices.Equal(left, w.LeftOut) || !slices.Equal(others, w.Others) {
		t.Errorf("left out %v, others %v; want %v, %v", left, others, w.LeftOut, w.Others)
	}
}

func TestALegacyStreamAndAZipOfOneObjectReadTheSame(t *testing.T) {
	a, err := ReadFile("testdata/checkpoints/plain.pth")
	if err != nil {
		t.Fatal(err)
	}
	b, err := ReadFile("testdata/checkpoints/plain_legacy.pth")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range a.Names() {
		x, _ := a.Get(name)
		wantTensor(t, b, name, x.Shape, x.Data)
	}
}

func TestAKeyIsOfACheckpointOnly(t *testing.T) {
	o := ReadOptions{Key: "model"}
	if _, err := o.ReadFile(context.Background(), "testdata/float32.npy"); !errors.Is(err, ErrKey) {
		t.Errorf("error %v", err)
	}
	o = ReadOptions{Prefix: "nothing"}
	_, err := o.ReadFile(context.Background(), "testdata/checkpoints/swa.pth")
	if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), `"module"`) {
		t.Errorf("error %v", err)
	}
	// The whole of a checkpoint, dicts within flattened.
	o = ReadOptions{Key: "."}
	sd, err := o.ReadFile(context.Background(), "testdata/checkpoints/model_ema.pth")
	if err != nil || sd.Len() != 2*len(layoutNames) {
		t.Errorf("%v, %v", sd, err)
	}
}

func TestReadingEndsWithItsContext(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	stop()
	for _, path := range []string{"testdata/checkpoints/plain.pth", "testdata/float32.npy", "testdata/stored.npz"} {
		if _, err := (ReadOptions{}).ReadFile(ctx, path); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error %v", path, err)
		}
	}
}

func TestFilesOfThisProgramAreNotStripped(t *testing.T) {
	sd := NewStateDict()
	sd.Meta[ManifestKey] = "{}"
	sd.Set("module.a.weight", &Tensor{Shape: []int{2, 2}, Data: ramp[float64](4, 1)})
	if got := Strip(sd); got != sd {
		t.Error("stripped")
	}
}

func TestANetworksOwnPartsAreNoWrappers(t *testing.T) {
	for _, names := range [][]string{
		{"features.0.weight", "features.3.weight"},
		{"0.weight", "3.weight"},
		{"0.0.weight", "0.3.weight", "1.weight"},
		{"layer1.0.conv1.weight", "layer1.0.conv2.weight"},
		{"backbone.conv1.weight", "neck.conv.weight", "head.conv.weight"},
	} {
		sd := NewStateDict()
		for _, n := range names {
			sd.Set(n, &Tensor{Shape: []int{2, 2}, Data: ramp[float64](4, 1)})
		}
		if got := Strip(sd).Names(); !slices.Equal(got, names) {
			t.Errorf("%v became %v", names, got)
		}
	}
}

func TestAnArchiveWithStringsBesideNumbersIsRead(t *testing.T) {
	sd := fixture(t, "labelled.npz")
	wantTensor(t, sd, "x", []int{2, 3}, ramp[float64](6, 0))
	if sd.Len() != 1 || len(sd.Source.LeftOut) != 2 || sd.Source.LeftOut[0].Name != "names" {
		t.Errorf("%v, left out %v", sd.Names(), sd.Source.LeftOut)
	}
	if _, err := ReadFile("testdata/only_labels.npz"); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "names") {
		t.Errorf("error %v", err)
	}
}

func TestSparseMatricesOfSciPyAreRead(t *testing.T) {
	for _, format := range []string{"coo", "csr", "csc"} {
		wantTensor(t, fixture(t, "sparse_"+format+".npz"), "matrix", []int{3, 4}, []float64{0, 1, 0, 0, 0, 0, 2, 3, 4, 0, 0, 0})
	}
	if _, err := ReadFile("testdata/sparse_large.npz"); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "1000000×1000000") {
		t.Errorf("error %v", err)
	}
}

func TestStrippingManyTensorsTakesLittleTime(t *testing.T) {
	sd := NewStateDict()
	x := &Tensor{Shape: []int{2, 2}, Data: ramp[float64](4, 1)}
	for i := range 100_000 {
		sd.Set(fmt.Sprint("t", i), x)
		sd.Set(fmt.Sprint("m", i, ".w"), x)
	}
	start := time.Now()
	Strip(sd)
	if d := time.Since(start); d > time.Minute {
		t.Errorf("it took %v", d)
	}
}
