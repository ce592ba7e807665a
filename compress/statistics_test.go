package compress

import (
	"errors"
	"math"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/realdata"
	"github.com/lowrank-go/lowrank/zoo/letters"
)

func lettersNet(t testing.TB) *graph.Graph {
	t.Helper()
	g, err := letters.Net()
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func images(t testing.TB, spec string, n int) dataset.Set {
	t.Helper()
	set, err := dataset.Open(spec, dataset.Options{Split: dataset.Train, Limit: n})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// Sampling every position must give the sums over all positions, computed here from the
// definition with a convolution that copies each tap.
func TestMomentsAreThoseOfTheDefinition(t *testing.T) {
	g := lettersNet(t)
	set := images(t, letters.Data, 3)
	s, err := Collect(t.Context(), g, set, CollectOptions{Positions: 1 << 20, Batch: 2})
	if err != nil {
		t.Fatal(err)
	}
	const name = "layer2.0.conv1" // of stride 2
	m := s.Sites[name]
	if m == nil || s.Images != 3 {
		t.Fatalf("no moments of %s", name)
	}
	var k *conv.Kernel
	for _, site := range g.Sites() {
		if site.Name == name {
			k, _ = site.Chain.Kernel()
		}
	}
	d, taps := k.Shape[1]*k.Taps(), k.Taps()
	copying := &conv.Kernel{Shape: [4]int{d, k.Shape[1], k.Shape[2], k.Shape[3]}, Weight: make([]float32, d*d), Geometry: k.Geometry}
	for i := range d {
		copying.Weight[i*d+i] = 1
	}
	patches, err := conv.NewLayer(copying)
	if err != nil {
		t.Fatal(err)
	}
	p, err := g.Compile()
	if err != nil {
		t.Fatal(err)
	}
	mean, full := make([]float64, d), make([]float64, d*d)
	n := 0.0
	if err := p.Tap([]string{name}, func(_ string, in *conv.Map) error {
		x, err := patches.Forward(nil, in, conv.Epilogue{}, 1)
		if err != nil {
			return err
		}
		for at := 0; at < len(x.Data); at += d {
			row := x.Data[at : at+d]
			n++
			for i, v := range row {
				mean[i] += float64(v)
				for j, w := range row {
					full[i*d+j] += float64(v) * float64(w)
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for b, err := range dataset.Batches(t.Context(), set, g.Preprocess, 2, 1) {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Forward(t.Context(), &conv.Map{N: len(b.Labels), H: b.H, W: b.W, C: 3, Data: b.X}, 1); err != nil {
			t.Fatal(err)
		}
	}
	if float64(m.Count) != n {
		t.Errorf("%d positions, want %g", m.Count, n)
	}
	near := func(what string, got, want []float64) {
		t.Helper()
		var diff, top float64
		for i := range want {
			diff, top = max(diff, math.Abs(got[i]-want[i])), max(top, math.Abs(want[i]))
		}
		if len(got) != len(want) || !(diff <= 1e-5*top) {
			t.Errorf("%s differs by %g of %g", what, diff, top)
		}
	}
	for i := range mean {
		mean[i] /= n
	}
	for i := range full {
		full[i] /= n
	}
	near("mean", m.Mean, mean)
	near("full", m.Full, full)
	ins, outs := k.Shape[1], k.Out()
	channel, output := make([]float64, ins*ins), make([]float64, outs*outs)
	for i := range ins {
		for j := range ins {
			for p := range taps {
				channel[i*ins+j] += full[(i*taps+p)*d+j*taps+p] / float64(taps)
			}
		}
	}
	for i := range outs {
		for j := range outs {
			for a := range d {
				for b := range d {
					output[i*outs+j] += float64(k.Weight[i*d+a]) * full[a*d+b] * float64(k.Weight[j*d+b])
				}
			}
		}
	}
	near("channel", m.Channel, channel)
	near("output", m.Output, output)
}

func TestStatisticsAreTheSameOnAnyNumberOfThreadsAndFromTheirFile(t *testing.T) {
	g := lettersNet(t)
	set := images(t, letters.Data, 8)
	a, err := Collect(t.Context(), g, set, CollectOptions{Workers: 1, Full: 300})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Collect(t.Context(), g, set, CollectOptions{Workers: 3, Full: 300})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Error("they depend on the number of threads")
	}
	path := filepath.Join(t.TempDir(), "s.safetensors")
	if err := a.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	if b, err = ReadStatistics(path); err != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("from the file they differ, or %v", err)
	}
	if m := a.Sites["layer3.0.conv2"]; m.Full != nil {
		t.Error("a full moment of 576 values a patch where 300 are the most")
	}
}

func TestStatisticsOfAnotherNetworkAreRefused(t *testing.T) {
	k := kernel(t, [4]int{6, 4, 3, 3}, 3, .1, conv.Geometry{})
	m := &Moments{Norm: k.Norm(), Mean: make([]float64, 36), Channel: make([]float64, 16), Output: make([]float64, 36)}
	s := &Statistics{Sites: map[string]*Moments{"c": m}}
	if got, err := s.of("c", k); got != m || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	other := *k
	other.Weight = append([]float32(nil), k.Weight...)
	other.Weight[0]++
	if _, err := s.of("c", &other); !errors.Is(err, ErrStatistics) {
		t.Errorf("another kernel gives %v", err)
	}
	m.Channel = m.Channel[:9]
	if _, err := s.of("c", k); !errors.Is(err, ErrStatistics) {
		t.Errorf("another shape gives %v", err)
	}
	if _, err := ReadStatistics(realdata.Path(t, "checkpoints", "resnet20-12fca82f.th")); !errors.Is(err, ErrStatistics) {
		t.Errorf("a checkpoint gives %v", err)
	}
}
