package glyphs

import "sync"

var figureNames = [...]string{
	"circle", "triangle", "square", "hexagon", "star", "cross", "ring", "crescent", "heart", "arrow",
}

// figures has an outline for every name.
var figures = sync.OnceValue(func() []path {
	const r = unit / 2
	all := []path{
		{arc(0, 0, r, 0, turn, 32)},
		{arc(0, 0, r+r/8, 0, turn, 3)},
		{arc(0, 0, r+r/8, 0, turn, 4)},
		{arc(0, 0, r, 0, turn, 6)},
		{starOf(5, r+r/8, r*7/16)},
		crossOf(r, r*5/16),
		{arc(0, 0, r, 0, turn, 32), arc(0, 0, r*9/16, turn, 0, 32)},
		{crescentOf(r)},
		{heartOf(r)},
		{{{-r, -r / 4}, {r / 8, -r / 4}, {r / 8, -r * 3 / 4}, {r, 0}, {r / 8, r * 3 / 4}, {r / 8, r / 4}, {-r, r / 4}}},
	}
	for i, p := range all {
		all[i] = divided(p)
	}
	return all
})

// arc is points on a circle, from one angle up to but without another.
func arc(x, y, r int32, from, to, n int) []point {
	var out []point
	for i := range n {
		a := from + (to-from)*i/n
		out = append(out, point{x + r*cos(a)>>14, y + r*sin(a)>>14})
	}
	return out
}

func starOf(tips int, outer, inner int32) []point {
	var out []point
	for i := range 2 * tips {
		r := outer
		if i%2 == 1 {
			r = inner
		}
		a := turn * i / (2 * tips)
		out = append(out, point{r * cos(a) >> 14, r * sin(a) >> 14})
	}
	return out
}

func crossOf(r, w int32) path {
	return path{{
		{-w, -r}, {w, -r}, {w, -w}, {r, -w}, {r, w}, {w, w},
		{w, r}, {-w, r}, {-w, w}, {-r, w}, {-r, -w}, {-w, -w},
	}}
}

// crescentOf is a disc without another that lies to its right.
func crescentOf(r int32) []point {
	// The circles meet at the angles ±60° of the greater one, whose radius is
	// r and whose centre is the origin; the other one has its centre on the
	// axis and passes through those points.
	out := arc(0, 0, r, turn/6, turn*5/6, 24)
	x := r / 2
	// Seen from (x, 0) the points lie straight above and below.
	h := r * sin(turn/6) >> 14
	return append(out, arc(x, 0, h, turn*3/4, turn/4, 24)...)
}

// heartOf is two half discs above a triangle whose sides leave them smoothly.
func heartOf(r int32) []point {
	h := r / 2
	left := arc(-h, -r/3, h, turn*3/8, turn, 14)
	right := arc(h, -r/3, h, turn/2, turn*9/8, 14)
	return append(append(left, right...), point{0, r})
}

// divided has sides of at most a quarter of a unit, so that they can bend.
func divided(p path) path {
	const most = unit / 4
	out := make(path, len(p))
	for i, polygon := range p {
		for j, a := range polygon {
			b := polygon[(j+1)%len(polygon)]
			n := length(b.x-a.x, b.y-a.y)/most + 1
			for k := range n {
				out[i] = append(out[i], point{a.x + (b.x-a.x)*k/n, a.y + (b.y-a.y)*k/n})
			}
		}
	}
	return out
}
