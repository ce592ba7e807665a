package dataset

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// collect runs to the end of the batches.
func collect(t interface {
	Helper()
	Fatal(...any)
}, s Set, p Preprocess, e Epoch) (x []float32, labels []int, first []int) {
	t.Helper()
	for b, err := range TrainBatches(context.Background(), s, p, e) {
		if err != nil {
			t.Fatal(err)
		}
		x, labels, first = append(x, b.X...), append(labels, b.Labels...), append(first, b.First)
	}
	return x, labels, first
}

func drawAugment(t *rapid.T) Augment {
	a := Augment{Pad: rapid.IntRange(0, 9).Draw(t, "pad"), Flip: rapid.Bool().Draw(t, "flip")}
	if rapid.Bool().Draw(t, "windows") {
		a.Area = [2]float64{0.1, 0.9}
	}
	return a
}

func TestTrainBatchesWithoutAugmentAreBatches(t *testing.T) {
	s := &synthetic{n: 23, w: 7, h: 5, classes: 4}
	order := make([]int, 23)
	for i := range order {
		order[i] = i
	}
	x, labels, first := collect(t, s, Preprocess{}, Epoch{Order: order, Batch: 5, Seed: 3, Number: 4})
	k := 0
	for b, err := range Batches(t.Context(), s, Preprocess{}, 5, 2) {
		if err != nil {
			t.Fatal(err)
		}
		n := len(b.Labels)
		if !slices.Equal(x[:len(b.X)], b.X) || !slices.Equal(labels[:n], b.Labels) || first[k] != b.First {
			t.Errorf("batch %d differs", k)
		}
		x, labels = x[len(b.X):], labels[n:]
		k++
	}
	if len(x) > 0 || k != len(first) {
		t.Errorf("%d batches, then %d samples more", k, len(x))
	}
}

func TestWhatTrainBatchesGiveDependsOnSeedEpochAndImageAlone(t *testing.T) {
	s := &synthetic{n: 50, w: 9, h: 8, classes: 4}
	p := Preprocess{Crop: [2]int{6, 7}, Mean: [3]float32{0.1, 0.2, 0.3}, Std: [3]float32{1, 2, 3}}
	rapid.Check(t, func(t *rapid.T) {
		e := Epoch{
			Order:   rapid.SliceOfN(rapid.IntRange(0, 49), 1, 60).Draw(t, "order"),
			Batch:   rapid.IntRange(1, 20).Draw(t, "batch"),
			Augment: drawAugment(t),
			Seed:    rapid.Uint64().Draw(t, "seed"),
			Number:  rapid.Uint64().Draw(t, "epoch"),
			Workers: 1,
		}
		x, labels, _ := collect(t, s, p, e)
		for i, number := range e.Order {
			if labels[i] != number%4 {
				t.Fatalf("place %d: label %d of image %d", i, labels[i], number)
			}
		}
		many := e
		many.Workers, many.Batch = 5, rapid.IntRange(1, 20).Draw(t, "other batch")
		if y, l, _ := collect(t, s, p, many); !slices.Equal(x, y) || !slices.Equal(labels, l) {
			t.Fatal("5 workers and other batches give another result")
		}
		// An image is the same wherever it stands.
		turned := e
		turned.Order = slices.Clone(e.Order)
		slices.Reverse(turned.Order)
		y, _, _ := collect(t, s, p, turned)
		const size = 6 * 7 * 3
		for i := range e.Order {
			if !slices.Equal(x[i*size:][:size], y[(len(e.Order)-1-i)*size:][:size]) {
				t.Fatalf("image %d depends on its place", e.Order[i])
			}
		}
		// Going on later gives the rest.
		late := e
		late.Skip = rapid.IntRange(0, 61).Draw(t, "skip")
		y, _, first := collect(t, s, p, late)
		gone := min(late.Skip*e.Batch, len(e.Order))
		if !slices.Equal(x[gone*size:], y) || len(y) > 0 && first[0] != gone {
			t.Fatalf("after %d batches something else comes", late.Skip)
		}
	})
	e := Epoch{Order: []int{0, 1, 2, 3, 4, 5, 6, 7}, Batch: 8, Augment: Augment{Pad: 4, Flip: true}}
	x, _, _ := collect(t, s, p, e)
	for _, change := range []func(*Epoch){func(e *Epoch) { e.Seed = 1 }, func(e *Epoch) { e.Number = 1 }} {
		other := e
		change(&other)
		if y, _, _ := collect(t, s, p, other); slices.Equal(x, y) {
			t.Errorf("%+v gives the same", other)
		}
	}
}

// pixel is where a test's input has come from.
func pixel(x, y int) [3]float32 { return [3]float32{float32(x), float32(y), 1} }

func TestShiftsAreWindowsOfThePaddedInput(t *testing.T) {
	black := [3]float32{-1, -2, -3}
	rapid.Check(t, func(t *rapid.T) {
		w, h := rapid.IntRange(1, 9).Draw(t, "w"), rapid.IntRange(1, 9).Draw(t, "h")
		dx, dy := rapid.IntRange(-11, 11).Draw(t, "dx"), rapid.IntRange(-11, 11).Draw(t, "dy")
		var x []float32
		for i := range w * h {
			p := pixel(i%w, i/w)
			x = append(x, p[:]...)
		}
		shift(x, w, h, dx, dy, black)
		for i := range w * h {
			want := black
			if u, v := i%w+dx, i/w+dy; u >= 0 && u < w && v >= 0 && v < h {
				want = pixel(u, v)
			}
			if got := [3]float32(x[3*i:]); got != want {
				t.Fatalf("%d×%d by %d, %d: pixel %d, %d is %v, want %v", w, h, dx, dy, i%w, i/w, got, want)
			}
		}
	})
}

func TestMirroringTwiceChangesNothing(t *testing.T) {
	for _, w := range []int{1, 2, 5, 6} {
		x := make([]float32, 0, w*4*3)
		for i := range w * 4 {
			p := pixel(i%w, i/w)
			x = append(x, p[:]...)
		}
		once := slices.Clone(x)
		mirror(once, w)
		for i := range w * 4 {
			if got, want := [3]float32(once[3*i:]), pixel(w-1-i%w, i/w); got != want {
				t.Errorf("width %d: pixel %d is %v, want %v", w, i, got, want)
			}
		}
		mirror(once, w)
		if !slices.Equal(once, x) {
			t.Errorf("width %d: twice mirrored is something else", w)
		}
	}
}

func TestFlipMirrorsHalfAndPadShiftsEvenly(t *testing.T) {
	const n = 4000
	s := &synthetic{n: n, w: 3, h: 1, classes: 2}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	x, _, _ := collect(t, s, Preprocess{}, Epoch{Order: order, Batch: 500, Augment: Augment{Flip: true}})
	mirrored := 0
	for i := range n {
		m, _, _ := s.At(i)
		was, _, _, _ := Preprocess{}.Apply(m)
		got := x[i*9:][:9]
		if slices.Equal(was, got) {
			continue
		}
		mirrored++
		if mirror(was, 3); !slices.Equal(was, got) {
			t.Fatalf("image %d is neither itself nor mirrored", i)
		}
	}
	if math.Abs(float64(mirrored)-n/2) > 5*math.Sqrt(n/4) {
		t.Errorf("%d of %d mirrored", mirrored, n)
	}
	var count [9]int
	r := rand.New(rand.NewPCG(1, 1))
	for range 9 * n {
		x := make([]float32, 17*3)
		x[8*3] = 1
		Augment{Pad: 4}.draw(r, 17, 1).apply(x, 17, 1, [3]float32{})
		if at := slices.Index(x, 1); at >= 0 {
			count[at/3-4]++
		}
	}
	// The single row stays in sight in one of nine shifts up or down.
	for i, c := range count {
		if math.Abs(float64(c)-n/9) > 5*math.Sqrt(n/9) {
			t.Errorf("shift by %d: %d times", 4-i, c)
		}
	}
}

func TestWindowsLieWithinTheImageAndItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lo := rapid.Float64Range(0.01, 1).Draw(t, "least area")
		hi := rapid.Float64Range(lo, 1).Draw(t, "greatest area")
		a := Augment{Area: [2]float64{lo, hi}}
		w, h := rapid.IntRange(1, 400).Draw(t, "w"), rapid.IntRange(1, 400).Draw(t, "h")
		r := draws(rapid.Uint64().Draw(t, "seed"), 0, 0)
		for range 5 {
			x, y, ww, wh := a.window(r, w, h)
			if x < 0 || y < 0 || ww < 1 || wh < 1 || x+ww > w || y+wh > h {
				t.Fatalf("window %d×%d at %d, %d of %d×%d", ww, wh, x, y, w, h)
			}
		}
	})
	// On a large square image nothing is far from its bounds.
	a := Augment{Area: [2]float64{0.08, 1}}
	r := draws(1, 2, 3)
	var area float64
	const n, side = 5000, 1000
	wide := 0
	for range n {
		_, _, w, h := a.window(r, side, side)
		share, q := float64(w*h)/(side*side), float64(w)/float64(h)
		if share < 0.079 || share > 1 || q < 0.74 || q > 1.35 {
			t.Fatalf("window %d×%d", w, h)
		}
		area += share
		if w > h {
			wide++
		}
	}
	// Large windows of uneven sides do not fit and are drawn again.
	if mean := area / n; mean < 0.45 || mean > 0.54 || math.Abs(float64(wide)-n/2) > 5*math.Sqrt(n/4) {
		t.Errorf("mean area %.3f, %d of %d wider than high", area/n, wide, n)
	}
}

func TestAWholeWindowIsTheResizedImage(t *testing.T) {
	s := &synthetic{n: 4, w: 30, h: 30, classes: 2}
	p := Preprocess{Resize: 12, Crop: [2]int{12, 12}, Std: [3]float32{1, 2, 4}}
	whole := Augment{Area: [2]float64{1, 1}, Ratio: [2]float64{1, 1}}
	x, _, _ := collect(t, s, p, Epoch{Order: []int{0, 1, 2, 3}, Batch: 4, Augment: whole})
	y, _, _ := collect(t, s, p, Epoch{Order: []int{0, 1, 2, 3}, Batch: 4})
	if !slices.Equal(x, y) {
		t.Error("the whole image is not the whole image")
	}
}

func TestTrainBatchesReportEpochsThatMakeNoSense(t *testing.T) {
	s := &synthetic{n: 3, w: 4, h: 4, classes: 2}
	nan := math.NaN()
	for _, c := range []struct {
		e    Epoch
		want error
		text string
	}{
		{Epoch{Order: []int{0}}, ErrSpec, "batches of 0"},
		{Epoch{Order: []int{0}, Batch: 1, Skip: -1}, ErrSpec, "-1 batches to skip"},
		{Epoch{Order: []int{0, 3}, Batch: 1}, ErrIndex, "image 3 of synthetic"},
		{Epoch{Order: []int{-1}, Batch: 1}, ErrIndex, "image -1"},
		{Epoch{Batch: 1, Augment: Augment{Pad: -1}}, ErrSpec, "shifts"},
		{Epoch{Batch: 1, Augment: Augment{Area: [2]float64{0.5, 0.4}}}, ErrSpec, "0.5 to 0.4 of the area"},
		{Epoch{Batch: 1, Augment: Augment{Area: [2]float64{0, 1}}}, ErrSpec, "0 to 1 of the area"},
		{Epoch{Batch: 1, Augment: Augment{Area: [2]float64{nan, 1}}}, ErrSpec, "NaN to 1"},
		{Epoch{Batch: 1, Augment: Augment{Ratio: [2]float64{2, 1}}}, ErrSpec, "ratio 2 to 1"},
		{Epoch{Batch: 1, Masks: true}, ErrSpec, "masks of synthetic"},
		{Epoch{Batch: 1, Augment: ImageNetAugment}, ErrSpec, "width and height of the crop"},
	} {
		var last error
		for _, last = range TrainBatches(t.Context(), s, Preprocess{}, c.e) {
		}
		if !errors.Is(last, c.want) || !strings.Contains(last.Error(), c.text) {
			t.Errorf("%+v: %v", c.e, last)
		}
	}
	for range TrainBatches(t.Context(), s, Preprocess{}, Epoch{Batch: 1}) {
		t.Error("a batch of no images")
	}
	bad := &synthetic{n: 9, w: 4, h: 4, classes: 2, bad: map[int]error{7: ErrFormat}}
	good := 0
	var last error
	for b, err := range TrainBatches(t.Context(), bad, Preprocess{}, Epoch{Order: []int{8, 0, 1, 7, 2}, Batch: 2}) {
		good += len(b.Labels)
		last = err
	}
	if good != 2 || !errors.Is(last, ErrFormat) || !strings.Contains(last.Error(), "image 7 of") {
		t.Errorf("%d images, then %v", good, last)
	}
}

// blocks is a set whose images are blocks of even grey; the class of a pixel is
// its level less one, so that black is no class.
type blocks struct {
	synthetic
	block int
}

func (s *blocks) At(i int) (Image, int, error) {
	m, err := s.MaskAt(i)
	for p := range m.Class {
		m.Class[p]++
	}
	return Image{W: m.W, H: m.H, C: 1, Pix: m.Class}, 0, err
}

func (s *blocks) MaskAt(i int) (Mask, error) {
	m := Mask{W: s.w, H: s.h, Class: make([]uint8, s.w*s.h)}
	for p := range m.Class {
		m.Class[p] = uint8(p%s.w/s.block*31+p/s.w/s.block*17+i) % 200
	}
	return m, s.bad[i]
}

func TestMasksUndergoWhatImagesDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &blocks{synthetic{n: 5, w: rapid.IntRange(1, 12).Draw(t, "w"), h: rapid.IntRange(1, 12).Draw(t, "h"), classes: 200}, 1}
		p := Preprocess{Crop: [2]int{rapid.IntRange(1, 14).Draw(t, "crop w"), rapid.IntRange(1, 14).Draw(t, "crop h")}, Pad: true}
		e := Epoch{
			Order: []int{3, 0, 4, 4, 1}, Batch: 3, Masks: true, Number: rapid.Uint64().Draw(t, "epoch"),
			Augment: Augment{Pad: rapid.IntRange(0, 15).Draw(t, "pad"), Flip: rapid.Bool().Draw(t, "flip")},
		}
		for b, err := range TrainBatches(context.Background(), s, p, e) {
			if err != nil {
				t.Fatal(err)
			}
			if len(b.Masks) != len(b.Labels)*b.H*b.W {
				t.Fatalf("%d pixels of masks", len(b.Masks))
			}
			for i, class := range b.Masks {
				if level := uint8(math.Round(255 * float64(b.X[3*i]))); level != class+1 {
					t.Fatalf("pixel %d of level %d has class %d", i, level, class)
				}
			}
		}
	})
	// Resized, levels are mixed at the edges of blocks.
	s := &blocks{synthetic{n: 20, w: 80, h: 60, classes: 200}, 20}
	order := make([]int, 20)
	for i := range order {
		order[i] = i
	}
	for _, a := range []Augment{{}, {Area: [2]float64{0.3, 1}, Flip: true, Pad: 3}} {
		same, all := 0, 0
		for b, err := range TrainBatches(t.Context(), s, Preprocess{Resize: 40, Crop: [2]int{40, 40}}, Epoch{Order: order, Batch: 20, Masks: true, Augment: a}) {
			if err != nil {
				t.Fatal(err)
			}
			for i, class := range b.Masks {
				if all++; uint8(math.Round(255*float64(b.X[3*i]))) == class+1 {
					same++
				}
			}
		}
		if same*100 < all*80 {
			t.Errorf("%+v: %d of %d pixels keep their class", a, same, all)
		}
	}
	bad := &blocks{synthetic{n: 2, w: 2, h: 2, classes: 200, bad: map[int]error{1: ErrFormat}}, 1}
	var last error
	for _, last = range TrainBatches(t.Context(), bad, Preprocess{}, Epoch{Order: []int{0, 1}, Batch: 1, Masks: true}) {
	}
	if !errors.Is(last, ErrFormat) || !strings.Contains(last.Error(), "image 1 of") {
		t.Error(last)
	}
}

func TestTrainBatchesLeaveNoGoroutines(t *testing.T) {
	s := &synthetic{n: 500, w: 8, h: 8, classes: 2}
	order := make([]int, 500)
	before := runtime.NumGoroutine()
	for k := range 20 {
		n := 0
		for range TrainBatches(t.Context(), s, Preprocess{}, Epoch{Order: order, Batch: 10, Workers: 4, Augment: CIFARAugment}) {
			if n++; n > k {
				break
			}
		}
	}
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

func BenchmarkTrainBatchesOfLetters(b *testing.B) {
	s := openGlyphTask(b, "letters", Options{Split: Train})
	order := rand.New(rand.NewPCG(1, 1)).Perm(1000)
	for b.Loop() {
		for _, err := range TrainBatches(b.Context(), s, Glyphs, Epoch{Order: order, Batch: 100, Augment: Augment{Pad: 4}}) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
