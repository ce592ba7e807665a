package dataset

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
)

func openGlyphTask(t testing.TB, spec string, opt Options) Set {
	t.Helper()
	s, err := Open("glyphs:"+spec, opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestGlyphsAreSetsOfTheSizesAskedFor(t *testing.T) {
	for spec, want := range map[string][3]int{
		"letters":   {20000, 2000, 26},
		"lowercase": {20000, 2000, 26},
		"digits":    {20000, 2000, 10},
		"shapes":    {20000, 2000, 10},
		"textures":  {20000, 2000, 10},
		"inverted":  {20000, 2000, 26},
		"segments":  {20000, 2000, 4},

		"letters,train=50000":               {50000, 2000, 26},
		"digits,seed=3,test=7,train=300":    {300, 7, 10},
		"shapes,seed=18446744073709551615":  {20000, 2000, 10},
		"textures,test=1000000000,train=11": {11, 1000000000, 10},
	} {
		for k, split := range []Split{Train, Test} {
			s := openGlyphTask(t, spec, Options{Split: split})
			if s.Len() != want[k] || s.Classes() != want[2] {
				t.Errorf("%s (%s): %d images of %d classes", spec, split, s.Len(), s.Classes())
			}
			m, label, err := s.At(s.Len() - 1)
			if err != nil || m.validate() != nil || m.W != 32 || m.H != 32 || m.C != 3 || label < 0 || label >= s.Classes() {
				t.Errorf("%s: %d×%d×%d of class %d; %v", s.Name(), m.W, m.H, m.C, label, err)
			}
			for _, i := range []int{-1, s.Len()} {
				if _, _, err := s.At(i); !errors.Is(err, ErrIndex) {
					t.Errorf("%s: image %d: %v", s.Name(), i, err)
				}
			}
		}
	}
	s := openGlyphTask(t, "lowercase", Options{})
	if s.ClassName(0) != "a" || s.ClassName(25) != "z" || s.ClassName(26) != "26" || s.Name() != "glyphs:lowercase (test, seed 0)" {
		t.Error(s.ClassName(0), s.ClassName(25), s.ClassName(26), s.Name())
	}
}

func TestSamplesOfGlyphsAreBalanced(t *testing.T) {
	for _, n := range []int{1, 26, 100, 1000, 1999} {
		s := openGlyphTask(t, "letters", Options{Limit: n})
		count := countByClass(t, s)
		if s.Len() != n || slices.Max(count)-slices.Min(count) > 1 {
			t.Errorf("%d of %d images: %v", s.Len(), n, count)
		}
	}
}

func TestGlyphSpecificationsThatMakeNoSense(t *testing.T) {
	for spec, want := range map[string]string{
		"glyphs:":                        "names no path",
		"glyphs:Letters":                 `no task "Letters"; want one of letters, lowercase`,
		"glyphs:letters,":                `option ""`,
		"glyphs:letters,size=3":          `option "size=3"; want seed=…, test=…, train=…`,
		"glyphs:letters,train":           `option "train"`,
		"glyphs:letters,train=0":         "from 1 to 1000000000",
		"glyphs:letters,train=-1":        "from 1 to 1000000000",
		"glyphs:letters,test=1e3":        "from 1 to 1000000000",
		"glyphs:letters,seed=x":          `option "seed=x"`,
		"glyphs:letters,seed=1,seed=2":   "seed is given twice",
		"glyphs:letters,train=1,,test=1": `option ""`,
	} {
		s, err := Open(spec, Options{})
		if s != nil || !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", spec, err)
		}
	}
}

// digest hashes the first images and labels of a set.
func digest(t *testing.T, s Set, n int) string {
	t.Helper()
	h := sha256.New()
	for i := range n {
		m, label, err := s.At(i)
		if err != nil {
			t.Fatal(err)
		}
		h.Write(m.Pix)
		h.Write([]byte{byte(label)})
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

func TestSplitsAndSeedsOfGlyphsDiffer(t *testing.T) {
	seen := make(map[string]string)
	for _, spec := range []string{"letters", "letters,seed=1", "letters,seed=2", "digits"} {
		for _, split := range []Split{Train, Test} {
			s := openGlyphTask(t, spec, Options{Split: split})
			d := digest(t, s, 1)
			if other, ok := seen[d]; ok {
				t.Errorf("%s and %s begin alike", s.Name(), other)
			}
			seen[d] = s.Name()
		}
	}
	// Sizes and limits leave images as they are.
	long := openGlyphTask(t, "letters,test=5000", Options{Limit: 10})
	if digest(t, long, 10) != digest(t, openGlyphTask(t, "letters", Options{}), 10) {
		t.Error("more images are other images")
	}
}

func TestGlyphsPreprocessHasTheMomentsOfTheTrainingLetters(t *testing.T) {
	s := openGlyphTask(t, "letters", Options{Split: Train, Limit: 2000})
	var sum, squares [3]float64
	n := 0.0
	for i := range s.Len() {
		m, _, err := s.At(i)
		if err != nil {
			t.Fatal(err)
		}
		for j, v := range m.Pix {
			x := float64(v) / 255
			sum[j%3] += x
			squares[j%3] += x * x
		}
		n += float64(len(m.Pix) / 3)
	}
	for c := range 3 {
		mean := sum[c] / n
		std := math.Sqrt(squares[c]/n - mean*mean)
		if math.Abs(mean-float64(Glyphs.Mean[c])) > 0.01 || math.Abs(std-float64(Glyphs.Std[c])) > 0.005 {
			t.Errorf("channel %d: mean %.4f, deviation %.4f; Glyphs has %v, %v", c, mean, std, Glyphs.Mean[c], Glyphs.Std[c])
		}
	}
}
