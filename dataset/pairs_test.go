package dataset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

// pngOf encodes an image.
func pngOf(m image.Image) []byte {
	var buf bytes.Buffer
	if err := png.Encode(&buf, m); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

// greyMask is a mask of rows of width w in grey levels.
func greyMask(w int, classes ...uint8) []byte {
	return pngOf(&image.Gray{Pix: classes, Stride: w, Rect: image.Rect(0, 0, w, len(classes)/w)})
}

// paletteMask is the same with a palette of so many colours.
func paletteMask(colours, w int, classes ...uint8) []byte {
	p := make(color.Palette, colours)
	for i := range p {
		p[i] = color.RGBA{R: uint8(i * 7), G: uint8(255 - i), B: 3, A: 255}
	}
	return pngOf(&image.Paletted{Pix: classes, Stride: w, Rect: image.Rect(0, 0, w, len(classes)/w), Palette: p})
}

// picture is an image of w×h pixels.
func picture(w, h int) []byte { return pngOf(image.NewRGBA(image.Rect(0, 0, w, h))) }

func openPairsOf(t *testing.T, files map[string][]byte, options string, split Split) Segmented {
	t.Helper()
	s, err := Open("pairs:"+writeFiles(t, files)+options, Options{Split: split})
	if err != nil {
		t.Fatal(err)
	}
	return s.(Segmented)
}

func TestPairsAreImagesWithMasks(t *testing.T) {
	files := map[string][]byte{
		"images/a.png":   picture(2, 3),
		"images/b/c.PNG": picture(3, 1),
		"images/d.png":   picture(2, 1),
		"masks/a.png":    greyMask(2, 0, 1, 2, 255, 1, 1),
		"masks/b/c.png":  paletteMask(256, 3, 2, 255, 0),
		"masks/d.png":    paletteMask(3, 2, 2, 1),
		"classes.txt":    []byte("nothing\nroad\r\ntree\n\n"),
		"readme.txt":     []byte("not an image"),
	}
	want := [][]uint8{{0, 1, 2, 255, 1, 1}, {2, 255, 0}, {2, 1}}
	check := func(s Segmented) {
		t.Helper()
		if s.Len() != 3 || s.Classes() != 3 || s.ClassName(1) != "road" || s.ClassName(2) != "tree" || s.ClassName(3) != "3" {
			t.Fatalf("%d images, %d classes: %s", s.Len(), s.Classes(), s.ClassName(1))
		}
		for i := range want {
			m, label, err := s.At(i)
			if err != nil || label != 0 {
				t.Fatal(label, err)
			}
			mask, err := s.MaskAt(i)
			if err != nil || mask.W != m.W || mask.H != m.H || !slices.Equal(mask.Class, want[i]) {
				t.Errorf("image %d, %d×%d: mask %+v, want %v; %v", i, m.W, m.H, mask, want[i], err)
			}
		}
		if _, err := s.MaskAt(3); !errors.Is(err, ErrIndex) {
			t.Error(err)
		}
		if labels, err := Labels(s); err != nil || !slices.Equal(labels, []int{0, 0, 0}) {
			t.Error(labels, err)
		}
	}
	check(openPairsOf(t, files, "", Test))
	check(openPairsOf(t, files, ",classes=3", Test))
	z, err := Open("pairs:"+writeZip(t, files), Options{})
	if err != nil {
		t.Fatal(err)
	}
	check(z.(Segmented))
	sample, err := Sample(z, 2)
	if err != nil {
		t.Fatal(err)
	}
	if mask, err := sample.(Segmented).MaskAt(1); err != nil || !slices.Equal(mask.Class, want[1]) {
		t.Error(mask, err)
	}
	if err := Close(sample); err != nil {
		t.Error(err)
	}
	if _, err := z.(Segmented).MaskAt(0); err == nil {
		t.Error("a mask of a closed archive")
	}
	// Parts.
	parts := map[string][]byte{"names.zip": nil}
	for _, part := range []string{"train", "val"} {
		for name, data := range files {
			parts[part+"/"+name] = data
		}
	}
	delete(parts, "names.zip")
	check(openPairsOf(t, parts, "", Train))
	check(openPairsOf(t, parts, "", Test))
}

func TestMasksOfFewBitsKeepTheirNumbers(t *testing.T) {
	// A PNG of grey levels in 1, 2 or 4 bits is one of 8 bits with other
	// headers and packed rows; the encoder makes such files of palettes only,
	// so the header of one is changed and its palette left out.
	for _, c := range []struct{ bits, colours int }{{1, 2}, {2, 4}, {4, 16}, {8, 200}} {
		classes := make([]uint8, c.colours)
		for i := range classes {
			classes[i] = uint8(i)
		}
		data := paletteMask(c.colours, c.colours, classes...)
		if int(data[24]) != c.bits || data[25] != 3 {
			t.Fatalf("%d colours: %d bits, type %d", c.colours, data[24], data[25])
		}
		at := bytes.Index(data, []byte("PLTE"))
		size := int(binary.BigEndian.Uint32(data[at-4:]))
		grey := slices.Concat(data[:at-4], data[at+8+size:])
		grey[25] = 0
		copy(grey[29:], pngChecksum(grey[12:29]))
		for kind, file := range map[string][]byte{"palette": data, "grey": grey} {
			m, err := decodeMask(file)
			if err != nil || !slices.Equal(m.Class, classes) {
				t.Errorf("%d bits, %s: %v, %v", c.bits, kind, m.Class, err)
			}
		}
	}
}

func TestPairsThatDoNotMatchAreErrors(t *testing.T) {
	good := map[string][]byte{"images/a.png": picture(2, 1), "masks/a.png": greyMask(2, 0, 1)}
	for name, c := range map[string]struct {
		files   map[string][]byte // nil takes a file of good away
		options string
		want    error
		text    string
	}{
		"no mask":         {map[string][]byte{"images/b.png": picture(1, 1)}, ",classes=2", fs.ErrNotExist, "images/b.png has no mask masks/b.png"},
		"no image":        {map[string][]byte{"masks/b.png": greyMask(1, 0)}, ",classes=2", fs.ErrNotExist, "masks/b.png has no image"},
		"no masks":        {map[string][]byte{"masks/a.png": nil}, ",classes=2", ErrEmpty, "no folder masks"},
		"no images":       {map[string][]byte{"images/a.png": nil}, ",classes=2", ErrEmpty, "no folder images"},
		"nothing":         {map[string][]byte{"images/a.png": nil, "masks/a.png": nil, "x": {1}}, ",classes=2", ErrEmpty, "holds no folder"},
		"one stem twice":  {map[string][]byte{"images/a.jpg": picture(2, 1)}, ",classes=2", ErrFormat, "images/a.jpg and images/a.png differ"},
		"JPEG mask":       {map[string][]byte{"masks/a.png": nil, "masks/a.jpg": {1}}, ",classes=2", ErrFormat, "masks/a.jpg is a mask but no .png"},
		"no classes":      {nil, "", ErrSpec, ",classes=N"},
		"too many":        {nil, ",classes=256", ErrSpec, "from 1 to 255"},
		"none":            {nil, ",classes=0", ErrSpec, "from 1 to 255"},
		"other number":    {map[string][]byte{"classes.txt": []byte("a\nb")}, ",classes=3", ErrSpec, "3 classes asked for, but classes.txt"},
		"empty list":      {map[string][]byte{"classes.txt": []byte("\n \n")}, "", ErrFormat, "has 0 names"},
		"unknown option":  {nil, ",classes=2,depth=1", ErrSpec, `option "depth=1"; want classes=…, holdout=…, seed=…`},
		"seed alone":      {nil, ",classes=2,seed=1", ErrSpec, "without holdout"},
		"holdout of none": {nil, ",classes=2,holdout=0", ErrSpec, "between 0 and 1"},
		"too few to hold": {nil, ",classes=2,holdout=0.2", ErrEmpty, "leaves none for test"},
	} {
		t.Run(name, func(t *testing.T) {
			files := make(map[string][]byte)
			for _, m := range []map[string][]byte{good, c.files} {
				for name, data := range m {
					files[name] = data
					if data == nil {
						delete(files, name)
					}
				}
			}
			s, err := Open("pairs:"+writeFiles(t, files)+c.options, Options{})
			if s != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Error(err)
			}
		})
	}
}

func TestMasksThatDoNotFitAreErrors(t *testing.T) {
	for name, c := range map[string]struct {
		mask []byte
		want error
		text string
	}{
		"class":    {greyMask(2, 0, 0, 1, 2), ErrFormat, "class 2 at pixel 1, 1; the set has classes 0 to 1"},
		"palette":  {paletteMask(9, 2, 0, 0, 8, 1), ErrFormat, "class 8 at pixel 0, 1"},
		"size":     {greyMask(4, 0, 0, 1, 1), ErrSize, "4×1 pixels (width×height) for an image of 2×2, images/a.png"},
		"colours":  {pngOf(image.NewRGBA(image.Rect(0, 0, 2, 2))), ErrFormat, "PNG's colour type 6 with 8 bits"},
		"16 bits":  {pngOf(image.NewGray16(image.Rect(0, 0, 2, 2))), ErrFormat, "at most 8 bits"},
		"damaged":  {greyMask(2, 0, 0, 1, 1)[:50], ErrFormat, "masks/a.png of"},
		"no image": {[]byte("what"), ErrFormat, "masks/a.png of"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openPairsOf(t, map[string][]byte{"images/a.png": picture(2, 2), "masks/a.png": c.mask}, ",classes=2", Test)
			if _, err := s.MaskAt(0); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Error(err)
			}
			if _, _, err := s.At(0); err != nil {
				t.Error(err)
			}
		})
	}
	s := openPairsOf(t, map[string][]byte{"images/a.png": []byte("what"), "masks/a.png": greyMask(1, 0)}, ",classes=2", Test)
	if _, err := s.MaskAt(0); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "images/a.png of") {
		t.Error(err)
	}
}

func TestGlyphsHaveMasksOfTheirClasses(t *testing.T) {
	for _, limit := range []int{0, 10} {
		s, ok := openGlyphTask(t, "segments", Options{Limit: limit}).(Segmented)
		if !ok {
			t.Fatal("segments are not Segmented")
		}
		for i := range 10 {
			mask, err := s.MaskAt(i)
			if err != nil || mask.W != 32 || mask.H != 32 || mask.validate(s.Classes()) != nil || slices.Max(mask.Class) == 0 {
				t.Errorf("mask %d: %v", i, err)
			}
		}
		if _, err := s.MaskAt(s.Len()); !errors.Is(err, ErrIndex) {
			t.Error(err)
		}
		part, err := Subset(s, []int{3, 1})
		if err != nil {
			t.Fatal(err)
		}
		got, err := part.(Segmented).MaskAt(0)
		want, _ := s.MaskAt(3)
		if err != nil || !slices.Equal(got.Class, want.Class) {
			t.Error("the mask of a subset is another one", err)
		}
		if _, err := part.(Segmented).MaskAt(2); !errors.Is(err, ErrIndex) {
			t.Error(err)
		}
	}
	if _, ok := openGlyphTask(t, "letters", Options{}).(Segmented); ok {
		t.Error("letters are Segmented")
	}
}

func FuzzMask(f *testing.F) {
	f.Add(greyMask(2, 0, 1, 2, 255), 3)
	f.Add(paletteMask(3, 2, 0, 1), 3)
	f.Add(paletteMask(200, 1, 199), 1)
	f.Add(picture(1, 1), 1)
	f.Add([]byte("\x89PNG\r\n\x1a\n"), 1)
	f.Fuzz(func(t *testing.T, data []byte, classes int) {
		if c, _, err := header(data); err == nil && c.Width*c.Height > 1<<20 {
			t.Skip("large")
		}
		m, err := decodeMask(data)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrLimit) {
				t.Fatal(err)
			}
			return
		}
		if len(m.Class) != m.W*m.H {
			t.Fatalf("%d classes for %d×%d pixels", len(m.Class), m.W, m.H)
		}
		if m.validate(classes) == nil {
			for _, c := range m.Class {
				if int(c) >= classes && c != Ignore {
					t.Fatalf("class %d of %d", c, classes)
				}
			}
		}
	})
}
