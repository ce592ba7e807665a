package glyphs

import (
	"sync"

	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/gobolditalic"
	"golang.org/x/image/font/gofont/goitalic"
	"golang.org/x/image/font/gofont/gomedium"
	"golang.org/x/image/font/gofont/gomediumitalic"
	"golang.org/x/image/font/gofont/gomono"
	"golang.org/x/image/font/gofont/gomonobold"
	"golang.org/x/image/font/gofont/gomonobolditalic"
	"golang.org/x/image/font/gofont/gomonoitalic"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/gofont/gosmallcaps"
	"golang.org/x/image/font/gofont/gosmallcapsitalic"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
)

// face is a font, and what its symbols lie under.
type face struct {
	ttf []byte
	// smallCaps draws an upper-case letter from the place of the lower-case
	// one, whose shape is a capital's, but wider and stronger.
	smallCaps bool
}

var faces = []face{
	{goregular.TTF, false}, {gobold.TTF, false}, {goitalic.TTF, false}, {gobolditalic.TTF, false},
	{gomedium.TTF, false}, {gomediumitalic.TTF, false},
	{gomono.TTF, false}, {gomonobold.TTF, false}, {gomonoitalic.TTF, false}, {gomonobolditalic.TTF, false},
	{gosmallcaps.TTF, true}, {gosmallcapsitalic.TTF, true},
}

// alphabets has the outlines of a face by symbol.
type alphabet map[rune]path

var alphabets = sync.OnceValue(func() []alphabet {
	all := make([]alphabet, len(faces))
	for i, f := range faces {
		all[i] = f.read()
	}
	return all
})

// glyph is the outline of a symbol in a face drawn at random.
func (s *stream) glyph(symbol rune) path {
	all := alphabets()
	for {
		// Small capitals have no lower-case letters.
		if p, ok := all[s.below(len(all))][symbol]; ok {
			return p
		}
	}
}

func (f face) read() alphabet {
	// The fonts are part of the program: what is wrong with them is wrong
	// before the first test passes.
	font, err := sfnt.Parse(f.ttf)
	if err != nil {
		panic("glyphs: " + err.Error())
	}
	symbols := upper + digits
	if !f.smallCaps {
		symbols += lower
	}
	a := make(alphabet)
	var buf sfnt.Buffer
	for _, symbol := range symbols {
		place := symbol
		if f.smallCaps && symbol >= 'A' {
			place += 'a' - 'A'
		}
		index, err := font.GlyphIndex(&buf, place)
		if err != nil || index == 0 {
			panic("glyphs: a font has no " + string(place))
		}
		segments, err := font.LoadGlyph(&buf, index, fixed.Int26_6(font.UnitsPerEm())<<6, nil)
		if err != nil {
			panic("glyphs: " + err.Error())
		}
		a[symbol] = normal(flatten(segments))
	}
	return a
}

// pieces is how many lines stand for a curve; straight lines are divided too,
// so that they can bend.
const pieces = 4

// flatten makes polygons of segments that are lines and quadratic curves, as all
// of TrueType's are. Points are in units of the font.
func flatten(segments sfnt.Segments) path {
	var out path
	var at point
	to := func(p point) {
		last := len(out) - 1
		out[last] = append(out[last], p)
	}
	place := func(p fixed.Point26_6) point { return point{int32(p.X >> 6), int32(p.Y >> 6)} }
	for _, g := range segments {
		end := place(g.Args[0])
		switch g.Op {
		case sfnt.SegmentOpMoveTo:
			out = append(out, nil)
			to(end)
		case sfnt.SegmentOpLineTo:
			for k := int32(1); k <= pieces; k++ {
				to(point{at.x + (end.x-at.x)*k/pieces, at.y + (end.y-at.y)*k/pieces})
			}
		case sfnt.SegmentOpQuadTo:
			c := end
			end = place(g.Args[1])
			for k := int32(1); k <= pieces; k++ {
				l := pieces - k
				to(point{
					(l*l*at.x + 2*l*k*c.x + k*k*end.x) / (pieces * pieces),
					(l*l*at.y + 2*l*k*c.y + k*k*end.y) / (pieces * pieces),
				})
			}
		default:
			panic("glyphs: a cubic curve in a TrueType font")
		}
		at = end
	}
	for i, polygon := range out {
		// A contour ends where it began.
		if n := len(polygon); n > 1 && polygon[0] == polygon[n-1] {
			out[i] = polygon[:n-1]
		}
	}
	return out
}

// normal centres p and makes its size a unit, the size being the mean of the
// longer side and the height of a capital: wide and small symbols are brought
// nearer to the others, but not all the way.
func normal(p path) path {
	const capital = 1480 // of 2048 units
	lo, hi := p.bounds()
	size := (max(hi.x-lo.x, hi.y-lo.y) + capital) / 2
	for _, polygon := range p {
		for i, q := range polygon {
			polygon[i] = point{(2*q.x - lo.x - hi.x) * (unit / 2) / size, (2*q.y - lo.y - hi.y) * (unit / 2) / size}
		}
	}
	return p
}
