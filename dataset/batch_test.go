package dataset

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// synthetic is a set of random images; label and pixels follow from the number.
type synthetic struct {
	n, w, h, classes int
	// bad maps images to their errors.
	bad map[int]error
	// odd is an image of another size; 0 for none.
	odd  int
	read atomic.Int64
}

func (s *synthetic) Len() int               { return s.n }
func (s *synthetic) Classes() int           { return s.classes }
func (s *synthetic) ClassName(i int) string { return fmt.Sprint("class ", i) }
func (s *synthetic) Name() string           { return "synthetic" }

func (s *synthetic) At(i int) (Image, int, error) {
	s.read.Add(1)
	if err := s.bad[i]; err != nil {
		return Image{}, 0, err
	}
	w := s.w
	if i == s.odd && i > 0 {
		w++
	}
	return randomImage(w, s.h, 1+i%2*2, uint64(i)), i % s.classes, nil
}

func TestBatchesEqualApplyingInOrderForAnyNumberOfWorkers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &synthetic{n: rapid.IntRange(0, 23).Draw(t, "n"), w: 7, h: 5, classes: 4}
		p := Preprocess{Std: [3]float32{1, 2, 3}}
		if rapid.Bool().Draw(t, "crop") {
			p.Crop = [2]int{3, 4}
		}
		size := rapid.IntRange(1, 30).Draw(t, "batch")
		next := 0
		for b, err := range Batches(t.Context(), s, p, size, rapid.IntRange(0, 5).Draw(t, "workers")) {
			if err != nil {
				t.Fatal(err)
			}
			if b.First != next || len(b.Labels) != min(size, s.n-next) {
				t.Fatalf("batch of %d from %d; want it from %d", len(b.Labels), b.First, next)
			}
			var want []float32
			for i, label := range b.Labels {
				m, l, _ := s.At(b.First + i)
				x, w, h, err := p.Apply(m)
				if err != nil || w != b.W || h != b.H || label != l {
					t.Fatalf("image %d: %d×%d of %d, %v", b.First+i, b.W, b.H, label, err)
				}
				want = append(want, x...)
			}
			if !slices.Equal(b.X, want) {
				t.Fatalf("inputs from %d differ", b.First)
			}
			next += len(b.Labels)
		}
		if next != s.n {
			t.Fatalf("%d of %d images", next, s.n)
		}
	})
}

func TestTheFirstBadImageEndsTheBatches(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	for _, workers := range []int{1, 4} {
		s := &synthetic{n: 40, w: 4, h: 4, classes: 2, bad: map[int]error{23: first, 24: second, 35: second}}
		good := 0
		var last error
		for b, err := range Batches(t.Context(), s, Preprocess{}, 10, workers) {
			if last != nil {
				t.Fatal("something after an error")
			}
			good += len(b.Labels)
			last = err
		}
		if good != 20 || !errors.Is(last, first) || !strings.Contains(last.Error(), "image 23 of synthetic") {
			t.Errorf("%d workers: %d images, then %v", workers, good, last)
		}
	}
}

func TestImagesOfAnotherSizeAreErrorsWithoutACrop(t *testing.T) {
	s := &synthetic{n: 10, w: 4, h: 4, classes: 2, odd: 7}
	var last error
	for _, err := range Batches(t.Context(), s, Preprocess{}, 4, 2) {
		last = err
	}
	if !errors.Is(last, ErrSize) || !strings.Contains(last.Error(), "image 7") {
		t.Error(last)
	}
	for _, err := range Batches(t.Context(), s, Preprocess{Crop: [2]int{4, 4}}, 4, 2) {
		if err != nil {
			t.Error(err)
		}
	}
}

func TestBatchesStopWhenTheCallerOrTheContextDoes(t *testing.T) {
	s := &synthetic{n: 1000, w: 4, h: 4, classes: 2}
	p := Preprocess{Crop: [2]int{4, 4}}
	for range Batches(t.Context(), s, p, 10, 2) {
		break
	}
	// The batch given, three more on their way, and what had begun.
	if n := s.read.Load(); n > 60 {
		t.Errorf("%d images read for one batch of 10", n)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	batches := 0
	var last error
	for _, err := range Batches(ctx, s, p, 10, 2) {
		if last = err; err == nil {
			batches++
			cancel(cause)
		}
	}
	if batches != 1 || !errors.Is(last, cause) {
		t.Errorf("%d batches, then %v", batches, last)
	}
	// A context that ends with the last batch took nothing away.
	ctx, cancel = context.WithCancelCause(t.Context())
	defer cancel(nil)
	for b, err := range Batches(ctx, s, p, 1000, 2) {
		if err != nil || len(b.Labels) != 1000 {
			t.Error(err)
		}
		cancel(cause)
	}
	for _, err := range Batches(ctx, s, p, 10, 2) {
		if !errors.Is(err, cause) {
			t.Error(err)
		}
	}
}

func TestBatchesReportBadArguments(t *testing.T) {
	s := &synthetic{n: 3, w: 4, h: 4, classes: 2}
	for _, c := range []struct {
		p    Preprocess
		n    int
		want error
	}{{Preprocess{}, 0, ErrSpec}, {Preprocess{Resize: -1}, 1, ErrSpec}, {Preprocess{Crop: [2]int{9, 9}}, 1, ErrSize}} {
		pairs := 0
		for _, err := range Batches(t.Context(), s, c.p, c.n, 1) {
			if pairs++; !errors.Is(err, c.want) {
				t.Errorf("%+v: %v", c, err)
			}
		}
		if pairs != 1 {
			t.Errorf("%+v: %d pairs", c, pairs)
		}
	}
}

func TestSubsetsKeepOrderAndClasses(t *testing.T) {
	s := &synthetic{n: 10, w: 2, h: 2, classes: 3}
	sub, err := Subset(s, []int{9, 0, 9})
	if err != nil {
		t.Fatal(err)
	}
	labels, err := Labels(sub)
	if err != nil || !slices.Equal(labels, []int{0, 0, 0}) || sub.Classes() != 3 || sub.Len() != 3 {
		t.Error(labels, err)
	}
	if _, _, err := sub.At(3); !errors.Is(err, ErrIndex) {
		t.Error(err)
	}
	if _, err := Subset(s, []int{10}); !errors.Is(err, ErrIndex) {
		t.Error(err)
	}
	for n, want := range map[int][]int{1: {0}, 3: {0, 0, 0}, 4: {0, 2, 2, 1}, 0: {0, 1, 2, 0, 1, 2, 0, 1, 2, 0}, 99: {0, 1, 2, 0, 1, 2, 0, 1, 2, 0}} {
		sample, err := Sample(s, n)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Labels(sample); err != nil || !slices.Equal(got, want) {
			t.Errorf("%d: %v, want %v; %v", n, got, want, err)
		}
	}
}

func TestHoldOutTakesTheFractionOfEveryClassAndLosesNothing(t *testing.T) {
	s := &synthetic{n: 103, w: 1, h: 1, classes: 4}
	for _, fraction := range []float64{0, 0.1, 0.5, 1} {
		rest, held, err := HoldOut(s, fraction, 7)
		if err != nil {
			t.Fatal(err)
		}
		a, b := rest.(*subset).indices, held.(*subset).indices
		if !slices.IsSorted(a) || !slices.IsSorted(b) {
			t.Error("not in order")
		}
		all := slices.Sorted(slices.Values(slices.Concat(a, b)))
		for i, v := range all {
			if i != v {
				t.Fatalf("%v", all)
			}
		}
		labels, _ := Labels(held)
		for class := range 4 {
			size := 103 / 4
			if class < 3 {
				size++
			}
			n := 0
			for _, l := range labels {
				if l == class {
					n++
				}
			}
			if n != int(math.Round(fraction*float64(size))) {
				t.Errorf("fraction %v: %d of %d of class %d", fraction, n, size, class)
			}
		}
		_, again, _ := HoldOut(s, fraction, 7)
		if !slices.Equal(b, again.(*subset).indices) {
			t.Error("the same seed gives another division")
		}
	}
	_, a, _ := HoldOut(s, 0.5, 1)
	_, b, _ := HoldOut(s, 0.5, 2)
	if slices.Equal(a.(*subset).indices, b.(*subset).indices) {
		t.Error("two seeds give one division")
	}
	for _, f := range []float64{-0.1, 1.1, math.NaN()} {
		if _, _, err := HoldOut(s, f, 1); !errors.Is(err, ErrSpec) {
			t.Errorf("%v: %v", f, err)
		}
	}
}
