package dataset

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

// readImage decodes a file of testdata.
func readImage(t testing.TB, name string) Image {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := Decode(f)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return m
}

// difference is the greatest and the root mean square difference of samples.
func difference(t testing.TB, a, b Image) (most int, rms float64) {
	t.Helper()
	if a.W != b.W || a.H != b.H || a.C != b.C {
		t.Fatalf("images of %d×%d×%d and %d×%d×%d", a.W, a.H, a.C, b.W, b.H, b.C)
	}
	var sum float64
	for i, v := range a.Pix {
		d := int(v) - int(b.Pix[i])
		most = max(most, d, -d)
		sum += float64(d * d)
	}
	return most, math.Sqrt(sum / float64(len(a.Pix)))
}

func TestDecodedJPEGsEqualPillowsWithinTheRoundingOfTheTransform(t *testing.T) {
	for _, name := range []string{"444", "422", "420", "420-progressive", "420-narrow", "grey"} {
		got, want := readImage(t, name+".jpg"), readImage(t, name+".jpg.png")
		most, rms := difference(t, got, want)
		t.Logf("%s: at most %d, rms %.3f", name, most, rms)
		// Two inverse transforms that each round to integers differ by 1 in
		// luma and chroma; 1.772 chroma levels come on top in blue.
		if most > 3 || rms > 0.5 {
			t.Errorf("%s.jpg differs from Pillow's by at most %d, rms %.3f", name, most, rms)
		}
	}
}

func TestDecodedPNGsEqualTheColoursOfAt(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 0))
	rect := image.Rect(0, 0, 13, 7)
	images := map[string]image.Image{}
	noise := func(pix []uint8) {
		for i := range pix {
			pix[i] = uint8(r.Uint32())
		}
	}
	gray, gray16 := image.NewGray(rect), image.NewGray16(rect)
	noise(gray.Pix)
	noise(gray16.Pix)
	images["gray"], images["gray16"] = gray, gray16
	nrgba, nrgba64, opaque := image.NewNRGBA(rect), image.NewNRGBA64(rect), image.NewRGBA(rect)
	noise(nrgba.Pix)
	noise(nrgba64.Pix)
	noise(opaque.Pix)
	for i := 3; i < len(opaque.Pix); i += 4 {
		opaque.Pix[i] = 255
	}
	images["nrgba"], images["nrgba64"], images["opaque"] = nrgba, nrgba64, opaque
	paletted := image.NewPaletted(rect, color.Palette{color.RGBA{10, 20, 30, 255}, color.NRGBA{200, 100, 50, 128}, color.Gray{77}})
	for i := range paletted.Pix {
		paletted.Pix[i] = uint8(r.IntN(3))
	}
	images["paletted"] = paletted
	for name, src := range images {
		var buf bytes.Buffer
		if err := png.Encode(&buf, src); err != nil {
			t.Fatal(err)
		}
		decoded, err := png.Decode(bytes.NewReader(buf.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(&buf)
		if err != nil {
			t.Fatal(err)
		}
		checkColours(t, name, got, decoded)
	}
}

// checkColours compares got with the colours of m without alpha.
func checkColours(t *testing.T, name string, got Image, m image.Image) {
	t.Helper()
	b := m.Bounds()
	if err := got.validate(); err != nil || got.W != b.Dx() || got.H != b.Dy() {
		t.Fatalf("%s: %d×%d×%d of %v: %v", name, got.W, got.H, got.C, b, err)
	}
	for y := range got.H {
		for x := range got.W {
			c := color.NRGBAModel.Convert(m.At(b.Min.X+x, b.Min.Y+y)).(color.NRGBA)
			want := []uint8{c.R, c.G, c.B}[:got.C]
			if p := got.Pix[(y*got.W+x)*got.C:][:got.C]; !bytes.Equal(p, want) {
				t.Fatalf("%s at %d, %d: %v, want %v", name, x, y, p, want)
			}
		}
	}
}

func TestFromImageTakesSubImagesOfEveryType(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 0))
	rect, sub := image.Rect(-3, 2, 17, 20), image.Rect(1, 5, 12, 16)
	fill := func(pix []uint8) {
		for i := range pix {
			pix[i] = uint8(r.Uint32())
		}
	}
	g, g16, n, c := image.NewGray(rect), image.NewGray16(rect), image.NewNRGBA(rect), image.NewCMYK(rect)
	p := image.NewPaletted(rect, color.Palette{color.White, color.Black})
	rgba := image.NewRGBA(rect)
	fill(g.Pix)
	fill(g16.Pix)
	fill(n.Pix)
	fill(c.Pix)
	for i := range p.Pix {
		p.Pix[i] = uint8(r.IntN(2))
	}
	for i := 0; i < len(rgba.Pix); i += 4 {
		// Premultiplied: no colour exceeds alpha.
		copy(rgba.Pix[i:], []uint8{10, 60, 100, uint8(100 + r.IntN(100))})
	}
	for name, m := range map[string]image.Image{
		"gray": g.SubImage(sub), "gray16": g16.SubImage(sub), "nrgba": n.SubImage(sub),
		"cmyk": c.SubImage(sub), "paletted": p.SubImage(sub), "rgba": rgba.SubImage(sub),
	} {
		checkColours(t, name, FromImage(m), m)
	}
	for _, ratio := range []image.YCbCrSubsampleRatio{image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio420, image.YCbCrSubsampleRatio440} {
		m := image.NewYCbCr(rect, ratio)
		fill(m.Y)
		fill(m.Cb)
		fill(m.Cr)
		checkColours(t, ratio.String(), FromImage(m.SubImage(sub)), m.SubImage(sub))
	}
}

// Repeated chroma is the standard library's, to the rounding of the conversion.
func TestUnsubsampledAndRareLayoutsEqualTheColoursOfAtWithinOne(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 0))
	for _, ratio := range []image.YCbCrSubsampleRatio{
		image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio440, image.YCbCrSubsampleRatio411, image.YCbCrSubsampleRatio410,
	} {
		m := image.NewYCbCr(image.Rect(0, 0, 37, 29), ratio)
		for _, plane := range [][]uint8{m.Y, m.Cb, m.Cr} {
			for i := range plane {
				plane[i] = uint8(r.Uint32())
			}
		}
		want := Image{W: 37, H: 29, C: 3, Pix: make([]uint8, 37*29*3)}
		convert(want, m)
		if most, _ := difference(t, FromImage(m), want); most > 1 {
			t.Errorf("%v differs by %d", ratio, most)
		}
	}
}

// upsampled is chroma interpolation from its definition: in each subsampled
// direction, 3/4 of the nearest and 1/4 of the next nearest sample, the edge
// repeated.
func upsampled(plane []uint8, stride, cw, ch, x, y int, halfHeight bool) float64 {
	axis := func(i, n int, half bool) (near, far int) {
		if !half {
			return i, i
		}
		near, far = i/2, i/2-1+i%2*2
		return near, min(max(far, 0), n-1)
	}
	nx, fx := axis(x, cw, true)
	ny, fy := axis(y, ch, halfHeight)
	at := func(x, y int) float64 { return float64(plane[y*stride+x]) }
	return 0.75*(0.75*at(nx, ny)+0.25*at(fx, ny)) + 0.25*(0.75*at(nx, fy)+0.25*at(fx, fy))
}

func TestChromaInterpolationEqualsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, h := rapid.IntRange(5, 24).Draw(t, "w"), rapid.IntRange(1, 12).Draw(t, "h")
		ratio := rapid.SampledFrom([]image.YCbCrSubsampleRatio{image.YCbCrSubsampleRatio420, image.YCbCrSubsampleRatio422}).Draw(t, "ratio")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		m := image.NewYCbCr(image.Rect(0, 0, w, h), ratio)
		for _, plane := range [][]uint8{m.Y, m.Cb, m.Cr} {
			for i := range plane {
				plane[i] = uint8(r.Uint32())
			}
		}
		got := FromImage(m)
		both := ratio == image.YCbCrSubsampleRatio420
		cw, ch := (w+1)/2, h
		if both {
			ch = (h + 1) / 2
		}
		for y := range h {
			for x := range w {
				l := float64(m.Y[y*m.YStride+x])
				cb := upsampled(m.Cb, m.CStride, cw, ch, x, y, both) - 128
				cr := upsampled(m.Cr, m.CStride, cw, ch, x, y, both) - 128
				for c, v := range []float64{l + 1.402*cr, l - 0.344136*cb - 0.714136*cr, l + 1.772*cb} {
					v = min(max(v, 0), 255)
					// The interpolated sample is rounded to within 1/2 and
					// the colour again.
					if d := math.Abs(v - float64(got.Pix[(y*w+x)*3+c])); d > 0.5*1.772+0.51+0.05 {
						t.Fatalf("%d×%d at %d, %d channel %d: %d, want %.2f", w, h, x, y, c, got.Pix[(y*w+x)*3+c], v)
					}
				}
			}
		}
	})
}

func TestDecodeRefusesWhatIsNoImageAndWhatIsTooLarge(t *testing.T) {
	rgb, err := os.ReadFile("testdata/rgb.png")
	if err != nil {
		t.Fatal(err)
	}
	jpg, err := os.ReadFile("testdata/420.jpg")
	if err != nil {
		t.Fatal(err)
	}
	// A PNG header that declares 10000×10000 pixels, with a correct checksum.
	huge := bytes.Clone(rgb)
	copy(huge[16:], []byte{0, 0, 0x27, 0x10, 0, 0, 0x27, 0x10})
	copy(huge[29:], pngChecksum(huge[12:29]))
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"empty":          {nil, ErrFormat},
		"text":           {[]byte("not an image"), ErrFormat},
		"GIF":            {[]byte("GIF89a......"), ErrFormat},
		"PNG signature":  {rgb[:8], ErrFormat},
		"truncated PNG":  {rgb[:len(rgb)/2], ErrFormat},
		"truncated JPEG": {jpg[:len(jpg)/2], ErrFormat},
		"JPEG marker":    {jpg[:2], ErrFormat},
		"huge PNG":       {huge, ErrLimit},
	} {
		if _, err := Decode(bytes.NewReader(c.data)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := Decode(endless{}); !errors.Is(err, ErrLimit) {
		t.Errorf("endless file: %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func FuzzDecode(f *testing.F) {
	for _, name := range []string{"rgb.png", "grey.png", "420.jpg", "422.jpg", "420-progressive.jpg", "420-narrow.jpg", "grey.jpg"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// Headers of large images are legal, and slow.
		if c, _, err := image.DecodeConfig(bytes.NewReader(data)); err == nil && c.Width > 1<<18/max(c.Height, 1) {
			return
		}
		m, err := Decode(bytes.NewReader(data))
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrLimit) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		if err := m.validate(); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkDecodeJPEG(b *testing.B) {
	m := image.NewRGBA(image.Rect(0, 0, 256, 256))
	r := rand.New(rand.NewPCG(1, 0))
	for i := range m.Pix {
		m.Pix[i] = uint8(i/1024) + uint8(r.IntN(16))
	}
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, m, &jpeg.Options{Quality: 85}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Decode(bytes.NewReader(buf.Bytes())); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChromaInterpolation(b *testing.B) {
	m := image.NewYCbCr(image.Rect(0, 0, 256, 256), image.YCbCrSubsampleRatio420)
	b.SetBytes(256 * 256 * 3)
	for b.Loop() {
		FromImage(m)
	}
}
