package chart

import (
	"bytes"
	"encoding/xml"
	"image/color"
	"image/png"
	"io"
	"math"
	"strings"
	"testing"
)

func falling() *Chart {
	return &Chart{Title: "error", XLabel: "sweep", YLabel: "relative error", LogY: true, Lines: []Line{
		{Name: "als", X: []float64{1, 2, 3, 4}, Y: []float64{1, .1, .01, 0}},
		{Name: "lm", X: []float64{1, 2, 3}, Y: []float64{1, 1e-3, math.NaN()}, Points: true},
	}}
}

func TestPNGShowsTheLines(t *testing.T) {
	b, err := falling().Draw("a.PNG")
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	counts := map[color.RGBA]int{}
	r := img.Bounds()
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			counts[color.RGBAModel.Convert(img.At(x, y)).(color.RGBA)]++
		}
	}
	if r.Dx() < 400 || counts[palette[0]] < 50 || counts[palette[1]] < 50 || counts[palette[2]] > 0 {
		t.Errorf("%v: %d and %d pixels of the lines' colours, %d of another", r, counts[palette[0]], counts[palette[1]], counts[palette[2]])
	}
}

func TestSVGNamesWhatItShows(t *testing.T) {
	b, err := falling().Draw("a.svg")
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(b)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"relative error", "sweep", "als", "lm"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%q is missing", want)
		}
	}
	if again, err := falling().Draw("a.svg"); err != nil || !bytes.Equal(b, again) {
		t.Errorf("drawn again it differs, %v", err)
	}
}

func TestPDFIsOne(t *testing.T) {
	c := &Chart{LogX: true, LogY: true, Lines: []Line{{X: []float64{5}, Y: []float64{10}}}}
	if b, err := c.Draw("x.pdf"); err != nil || !bytes.HasPrefix(b, []byte("%PDF-")) {
		t.Errorf("%.10q, %v", b, err)
	}
}

func TestChartsThatCannotBeDrawnAreErrors(t *testing.T) {
	for name, c := range map[string]*Chart{
		"a.gif": falling(),
		"a":     falling(),
		"a.png": {LogY: true, Lines: []Line{{X: []float64{1}, Y: []float64{0}}}},
		"b.png": {Lines: []Line{{X: []float64{1}, Y: nil}}},
	} {
		if _, err := c.Draw(name); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
