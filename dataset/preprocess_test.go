package dataset

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestNormalisedSamplesEqualPyTorchsBitForBit(t *testing.T) {
	data, err := os.ReadFile("testdata/normalized.f32")
	if err != nil {
		t.Fatal(err)
	}
	got := ImageNet.table()
	for c := range 3 {
		for v := range 256 {
			want := math.Float32frombits(binary.LittleEndian.Uint32(data[(c*256+v)*4:]))
			if got[c][v] != want {
				t.Fatalf("channel %d, sample %d: %v, want %v", c, v, got[c][v], want)
			}
		}
	}
}

func TestResizingEqualsPillowsWithinOneLevel(t *testing.T) {
	for _, colour := range []string{"rgb", "grey"} {
		m := readImage(t, colour+".png")
		for _, n := range []int{20, 32, 45, 64, 97} {
			want := readImage(t, fmt.Sprintf("%s-%d.png", colour, n))
			w, h, err := Preprocess{Resize: n}.Size(m.W, m.H)
			if err != nil || w != want.W || h != want.H {
				t.Fatalf("%s to %d: %d×%d, want %d×%d; %v", colour, n, w, h, want.W, want.H, err)
			}
			most, rms := difference(t, resize(m, w, h), want)
			t.Logf("%s to %d: at most %d, rms %.3f", colour, n, most, rms)
			if most > 1 {
				t.Errorf("%s to %d: differs by %d", colour, n, most)
			}
		}
	}
}

// tent is resizing from its definition: the mean of the samples weighted by a
// tent of the width of a target sample, or of a source sample if that is wider.
func tent(m Image, w, h int) []float64 {
	weights := func(i, n, want int) []float64 {
		scale := float64(n) / float64(want)
		width := max(scale, 1)
		centre := (float64(i)+0.5)*scale - 0.5
		out, sum := make([]float64, n), 0.0
		for j := range out {
			out[j] = max(0, 1-math.Abs(float64(j)-centre)/width)
			sum += out[j]
		}
		for j := range out {
			out[j] /= sum
		}
		return out
	}
	out := make([]float64, w*h*m.C)
	for y := range h {
		wy := weights(y, m.H, h)
		for x := range w {
			wx := weights(x, m.W, w)
			for j := range m.H {
				for i := range m.W {
					for c := range m.C {
						out[(y*w+x)*m.C+c] += wy[j] * wx[i] * float64(m.Pix[(j*m.W+i)*m.C+c])
					}
				}
			}
		}
	}
	return out
}

func randomImage(w, h, c int, seed uint64) Image {
	m := Image{W: w, H: h, C: c, Pix: make([]uint8, w*h*c)}
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range m.Pix {
		m.Pix[i] = uint8(r.Uint32())
	}
	return m
}

func drawImage(t *rapid.T) Image {
	return randomImage(rapid.IntRange(1, 20).Draw(t, "w"), rapid.IntRange(1, 20).Draw(t, "h"),
		rapid.SampledFrom([]int{1, 3}).Draw(t, "c"), rapid.Uint64().Draw(t, "seed"))
}

func TestApplyEqualsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawImage(t)
		p := Preprocess{
			Resize: rapid.SampledFrom([]int{0, 0, 1, 5, 16}).Draw(t, "resize"),
			Mean:   [3]float32{0.1, 0.5, 0.7},
			Std:    [3]float32{1, 0.25, 2},
		}
		if rapid.Bool().Draw(t, "crop") {
			p.Crop = [2]int{rapid.IntRange(1, 24).Draw(t, "cw"), rapid.IntRange(1, 24).Draw(t, "ch")}
			p.Pad = rapid.Bool().Draw(t, "pad")
		}
		// The side that is shorter before is Resize after, rounded down.
		rw, rh := m.W, m.H
		if p.Resize > 0 {
			s := float64(p.Resize) / float64(min(m.W, m.H))
			rw, rh = int(float64(m.W)*s+1e-9), int(float64(m.H)*s+1e-9)
		}
		x, w, h, err := p.Apply(m)
		small := rw < p.Crop[0] || rh < p.Crop[1]
		if small && !p.Pad {
			if !errors.Is(err, ErrSize) {
				t.Fatalf("crop of %v from %d×%d: %v", p.Crop, rw, rh, err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		wantW, wantH := rw, rh
		if p.Crop[0] > 0 {
			wantW, wantH = p.Crop[0], p.Crop[1]
		}
		if w != wantW || h != wantH || len(x) != w*h*3 {
			t.Fatalf("%d samples for %d×%d, want %d×%d", len(x), w, h, wantW, wantH)
		}
		level := tent(m, rw, rh)
		// The corner of the window, negative where the image is padded.
		corner := func(have, want int) int {
			if have < want {
				return -((want - have) / 2)
			}
			return int(math.RoundToEven(float64(have-want) / 2))
		}
		x0, y0 := corner(rw, w), corner(rh, h)
		tolerance := 1e-5
		if rw != m.W || rh != m.H {
			tolerance = 0.51 / 255
		}
		for y := range h {
			for xx := range w {
				for c := range 3 {
					v := 0.0
					if sx, sy := x0+xx, y0+y; sx >= 0 && sx < rw && sy >= 0 && sy < rh {
						v = level[(sy*rw+sx)*m.C+c%m.C]
					}
					want := (v/255 - float64(p.Mean[c])) / float64(p.Std[c])
					if got := float64(x[(y*w+xx)*3+c]); math.Abs(got-want)*float64(p.Std[c]) > tolerance {
						t.Fatalf("at %d, %d channel %d: %v, want %v", xx, y, c, got, want)
					}
				}
			}
		}
	})
}

func TestImagesOf256AreOnlyCroppedForImageNet(t *testing.T) {
	m := randomImage(256, 256, 3, 1)
	x, w, h, err := ImageNet.Apply(m)
	if err != nil || w != 224 || h != 224 {
		t.Fatal(w, h, err)
	}
	tab := ImageNet.table()
	for y := range 224 {
		for xx := range 224 {
			for c := range 3 {
				if x[(y*224+xx)*3+c] != tab[c][m.Pix[((y+16)*256+xx+16)*3+c]] {
					t.Fatalf("at %d, %d channel %d", xx, y, c)
				}
			}
		}
	}
}

func TestPreprocessSurvivesJSON(t *testing.T) {
	for _, p := range []Preprocess{{}, ImageNet, CIFAR, {Resize: 7, Crop: [2]int{5, 6}, Pad: true, Mean: [3]float32{0.1, math.SmallestNonzeroFloat32, -3}, Std: [3]float32{1e-9, 1, 2}}} {
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var back Preprocess
		if err := json.Unmarshal(text, &back); err != nil || back != p {
			t.Errorf("%s: %+v, want %+v; %v", text, back, p, err)
		}
	}
}

func TestValidateRefusesWhatMakesNoSense(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, p := range []Preprocess{
		{Resize: -1}, {Resize: maxSide + 1}, {Crop: [2]int{3, 0}}, {Crop: [2]int{-1, -1}}, {Crop: [2]int{maxSide + 1, 1}}, {Pad: true},
		{Mean: [3]float32{0, nan, 0}}, {Mean: [3]float32{inf, 0, 0}},
		{Std: [3]float32{1, 0, 1}}, {Std: [3]float32{1, -1, 1}}, {Std: [3]float32{1, nan, 1}}, {Std: [3]float32{1, 1, inf}},
	} {
		if err := p.Validate(); !errors.Is(err, ErrSpec) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	for _, p := range []Preprocess{{}, ImageNet, CIFAR} {
		if err := p.Validate(); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func TestSizesThatWouldTakeTooMuchMemoryAreRefused(t *testing.T) {
	for _, c := range []struct{ resize, w, h int }{
		{256, 1, maxPixels}, {256, maxPixels, 1}, {maxSide, maxSide, 2}, {maxSide, 100, 100}, {256, 257, maxPixels / 257},
		{0, 1 << 30, 1 << 30}, {0, math.MaxInt, 2},
	} {
		if _, _, err := (Preprocess{Resize: c.resize}).Size(c.w, c.h); !errors.Is(err, ErrLimit) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if _, _, err := (Preprocess{}).Size(0, 5); !errors.Is(err, ErrSize) {
		t.Error(err)
	}
	if _, _, _, err := (Preprocess{}).Apply(Image{W: 2, H: 2, C: 3, Pix: make([]uint8, 11)}); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
	if _, _, _, err := (Preprocess{}).Apply(Image{W: 2, H: 2, C: 4, Pix: make([]uint8, 16)}); !errors.Is(err, ErrSize) {
		t.Error(err)
	}
}

func TestApplyLeavesTheImageAlone(t *testing.T) {
	m := randomImage(40, 30, 3, 5)
	before := slices.Clone(m.Pix)
	if _, _, _, err := CIFAR.Apply(m); err != nil || !slices.Equal(before, m.Pix) {
		t.Error("image changed", err)
	}
}

func BenchmarkCropAndNormalise(b *testing.B) {
	m, x, t := randomImage(256, 256, 3, 1), make([]float32, 224*224*3), ImageNet.table()
	b.SetBytes(224 * 224 * 3)
	for b.Loop() {
		ImageNet.fill(x, 224, 224, m, t)
	}
}

func BenchmarkResize500x375(b *testing.B) {
	m, x, t := randomImage(500, 375, 3, 1), make([]float32, 224*224*3), ImageNet.table()
	for b.Loop() {
		ImageNet.fill(x, 224, 224, m, t)
	}
}
