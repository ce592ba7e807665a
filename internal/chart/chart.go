// Package chart draws lines, over steps or sizes, as PNG, SVG or PDF.
package chart

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Line is a series of points with a name, which a single point has beside it and others
// in the legend.
type Line struct {
	Name string
	X, Y []float64
	// Points marks them, where they are measurements rather than steps.
	Points bool
}

// Chart is what to draw.
type Chart struct {
	Title, XLabel, YLabel string
	// LogX and LogY are for axes with a logarithmic scale, on which values that are
	// not above 0 are left out.
	LogX, LogY bool
	Lines      []Line
}

// Formats are the endings that Draw knows.
var Formats = []string{".png", ".svg", ".pdf"}

// palette has no two colours that a colour-blind reader confuses (Okabe and Ito
// 2008).
var palette = []color.RGBA{
	{0, 114, 178, 255}, {213, 94, 0, 255}, {0, 158, 115, 255}, {204, 121, 167, 255},
	{230, 159, 0, 255}, {86, 180, 233, 255}, {0, 0, 0, 255},
}

// Draw returns the file's content in the format that path ends in.
func (c *Chart) Draw(path string) ([]byte, error) {
	ext := strings.ToLower(filepath.Ext(path))
	if !slices.Contains(Formats, ext) {
		return nil, fmt.Errorf("%s: want a name that ends in %s", path, strings.Join(Formats, ", "))
	}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.Title, c.XLabel, c.YLabel
	p.Title.Padding = vg.Points(6)
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	drawn, single := 0, 0
	for i, l := range c.Lines {
		if len(l.X) != len(l.Y) {
			return nil, fmt.Errorf("line %q has %d abscissas and %d ordinates", l.Name, len(l.X), len(l.Y))
		}
		var points plotter.XYs
		for k, x := range l.X {
			y := l.Y[k]
			if x-x != 0 || y-y != 0 || c.LogX && x <= 0 || c.LogY && y <= 0 {
				continue
			}
			points = append(points, plotter.XY{X: x, Y: y})
		}
		if len(points) == 0 {
			continue
		}
		line, marks, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, fmt.Errorf("line %q: %w", l.Name, err)
		}
		colour := palette[i%len(palette)]
		line.Color, marks.Color = colour, colour
		line.Width = vg.Points(1.5)
		p.Add(line)
		if l.Points || len(points) == 1 {
			p.Add(marks)
		}
		switch {
		case l.Name == "":
		case len(points) == 1:
			if err := label(p, points, l.Name, single%2 == 1); err != nil {
				return nil, fmt.Errorf("point %q: %w", l.Name, err)
			}
			single++
		default:
			p.Legend.Add(l.Name, line)
		}
		if drawn == 0 { // where the lines are not
			p.Legend.Left = points[0].Y < points[len(points)-1].Y
			p.Legend.XOffs = vg.Points(8)
			if !p.Legend.Left {
				p.Legend.XOffs = -p.Legend.XOffs
			}
		}
		drawn++
	}
	if drawn == 0 {
		return nil, fmt.Errorf("%q: no point to draw", c.Title)
	}
	if c.LogX {
		logarithmic(&p.X)
	}
	if c.LogY {
		logarithmic(&p.Y)
	}
	w, err := draw.NewFormattedCanvas(6.4*vg.Inch, 4*vg.Inch, ext[1:])
	if err != nil {
		return nil, err
	}
	// The last number of an axis is as wide beyond its tick as before it.
	p.Draw(draw.Crop(draw.New(w), 0, -vg.Points(14), 0, 0))
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// label puts a name beside a point, above it or below: neighbours take turns.
func label(p *plot.Plot, at plotter.XYs, name string, below bool) error {
	l, err := plotter.NewLabels(plotter.XYLabels{XYs: at, Labels: []string{name}})
	if err != nil {
		return err
	}
	l.Offset = vg.Point{X: vg.Points(4), Y: vg.Points(2)}
	if below {
		l.Offset.Y = -vg.Points(12)
	}
	l.TextStyle[0].Font.Size = vg.Points(9)
	p.Add(l)
	return nil
}

// logarithmic sets the scale of an axis, to whole decades where it has less than one
// on either side.
func logarithmic(a *plot.Axis) {
	a.Min = math.Pow(10, math.Floor(math.Log10(a.Min)))
	a.Max = math.Pow(10, math.Ceil(math.Log10(a.Max)))
	if a.Min == a.Max {
		a.Max *= 10
	}
	a.Scale = plot.LogScale{}
	a.Tick.Marker = plot.LogTicks{Prec: -1}
}
