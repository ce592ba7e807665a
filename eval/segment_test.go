package eval

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/zoo"
)

func TestIoUIsWhatTheConfusionSays(t *testing.T) {
	// Class 2 has no pixels and is given none; class 3 is given two that are others'.
	s := Score{Confusion: [][]int64{{5, 1, 0, 2}, {2, 4, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}}}
	iou := s.IoU()
	for c, want := range []float64{5. / 10, 4. / 7, math.NaN(), 0} {
		if got := iou[c]; got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Errorf("class %d has %g, want %g", c, got, want)
		}
	}
	if got, want := s.MeanIoU(), (5./10+4./7)/3; math.Abs(got-want) > 1e-15 {
		t.Errorf("mean %g, want %g", got, want)
	}
	if s.Pixels() != 14 || s.Accuracy() != 9./14 {
		t.Errorf("%d pixels, accuracy %g", s.Pixels(), s.Accuracy())
	}
	if none := (Score{Confusion: [][]int64{{0}}}); none.MeanIoU() != 0 || none.Accuracy() != 0 {
		t.Errorf("no pixels: mean %g, accuracy %g", none.MeanIoU(), none.Accuracy())
	}
}

// fixture is a network of package zoo's tests.
func fixture(t *testing.T, name string) *graph.Graph {
	t.Helper()
	sd, err := model.ReadFile(filepath.Join("..", "zoo", "testdata", name+".pth"))
	if err != nil {
		t.Fatal(err)
	}
	net, err := zoo.Load(sd, zoo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return net
}

// noise is a Segmented of random pixels, some of which are to be ignored.
type noise struct{ n, classes, w, h int }

func (s noise) Len() int               { return s.n }
func (s noise) Classes() int           { return s.classes }
func (s noise) ClassName(i int) string { return fmt.Sprint(i) }
func (s noise) Name() string           { return "noise" }
func (s noise) At(i int) (dataset.Image, int, error) {
	rng := rand.New(rand.NewPCG(uint64(i), 1))
	m := dataset.Image{W: s.w, H: s.h, C: 3, Pix: make([]uint8, s.w*s.h*3)}
	for p := range m.Pix {
		m.Pix[p] = uint8(rng.IntN(256))
	}
	return m, 0, nil
}

func (s noise) MaskAt(i int) (dataset.Mask, error) {
	rng := rand.New(rand.NewPCG(uint64(i), 2))
	m := dataset.Mask{W: s.w, H: s.h, Class: make([]uint8, s.w*s.h)}
	for p := range m.Class {
		if m.Class[p] = uint8(rng.IntN(s.classes + 1)); int(m.Class[p]) == s.classes {
			m.Class[p] = dataset.Ignore
		}
	}
	return m, nil
}

func TestSegmentationIsCountedPixelByPixel(t *testing.T) {
	net := fixture(t, "fcn_cifar")
	net.Preprocess = dataset.Preprocess{Mean: [3]float32{.5, .5, .5}, Std: [3]float32{.3, .3, .3}}
	p, err := net.Compile()
	if err != nil {
		t.Fatal(err)
	}
	set := noise{11, 6, 13, 18}
	var want Score
	for range set.classes {
		want.Confusion = append(want.Confusion, make([]int64, set.classes))
	}
	var loss float64
	for i := range set.n {
		m, _, _ := set.At(i)
		x, _, _, err := net.Preprocess.Apply(m)
		if err != nil {
			t.Fatal(err)
		}
		in := &conv.Map{N: 1, H: set.h, W: set.w, C: 3, Data: x}
		y, err := p.Forward(t.Context(), in, 1)
		if err != nil {
			t.Fatal(err)
		}
		mask, _ := set.MaskAt(i)
		for k, class := range mask.Class {
			if class == dataset.Ignore {
				continue
			}
			row := y[k*6 : (k+1)*6]
			_, nll, err := judge(row, int(class))
			if err != nil {
				t.Fatal(err)
			}
			loss += nll
			want.Confusion[class][slices.Index(row, slices.Max(row))]++
		}
	}
	for _, workers := range []int{1, 3} {
		calls := 0
		got, err := Evaluate(t.Context(), p, set, Options{Batch: 4, Workers: workers, Progress: func(int, int) { calls++ }})
		if err != nil {
			t.Fatal(err)
		}
		if got.Samples != set.n || calls != 3 || math.Abs(got.Loss-loss/float64(want.Pixels())) > 1e-9 {
			t.Errorf("%d images in %d batches, loss %g, want %g", got.Samples, calls, got.Loss, loss/float64(want.Pixels()))
		}
		for c, row := range want.Confusion {
			if !slices.Equal(got.Confusion[c], row) {
				t.Errorf("class %d: %v, want %v", c, got.Confusion[c], row)
			}
		}
	}
}

func TestNetworksAndDataOfDifferentTasksAreErrors(t *testing.T) {
	compile := func(name string) *graph.Program {
		p, err := fixture(t, name).Compile()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	classifier, segmenter := compile("cifar_pad"), compile("fcn_cifar")
	set := noise{2, 6, 16, 16}
	segment := func(p *graph.Program, set dataset.Set) error {
		_, err := Evaluate(context.Background(), p, set, Options{})
		return err
	}
	if err := segment(classifier, set); !errors.Is(err, graph.ErrTask) {
		t.Errorf("a classifier gave %v", err)
	}
	if err := segment(segmenter, struct{ dataset.Set }{set}); !errors.Is(err, graph.ErrTask) {
		t.Errorf("a set without masks gave %v", err)
	}
	if err := segment(segmenter, noise{0, 6, 16, 16}); !errors.Is(err, dataset.ErrEmpty) {
		t.Errorf("no images gave %v", err)
	}
	if err := segment(segmenter, noise{2, 7, 16, 16}); !errors.Is(err, graph.ErrTask) {
		t.Errorf("too many classes gave %v", err)
	}
}
