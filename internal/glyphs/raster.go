package glyphs

// A pixel is sampled on rows lines, which lie step apart; along a line, coverage
// is exact.
const (
	stepBits = 5
	step     = 1 << stepBits
	rows     = one / step
)

// coverage is how much of each pixel a path covers, 0 to 256.
type coverage [Size * Size]int32

// rasterize fills p. Where polygons of one winding overlap within a pixel, what
// they cover is added up to at most the whole pixel, which is exact but on
// edges.
func rasterize(p path) *coverage {
	// The change of coverage from each pixel to the next, in 1/(256·rows); a
	// row has two places to spare for changes at its end.
	var delta [Size * (Size + 2)]int32
	for _, polygon := range p {
		for i, a := range polygon {
			j := i + 1
			if j == len(polygon) {
				j = 0
			}
			edge(&delta, a, polygon[j])
		}
	}
	out := new(coverage)
	for y := range Size {
		sum := int32(0)
		row := delta[y*(Size+2):][:Size]
		for x, d := range row {
			sum += d
			out[y*Size+x] = min(max(sum, -sum)/rows, one)
		}
	}
	return out
}

// edge adds what lies right of the line from a to b, with the sign of its
// direction.
func edge(delta *[Size * (Size + 2)]int32, a, b point) {
	sign := int32(1)
	if a.y > b.y {
		a, b, sign = b, a, -1
	}
	// Lines lie at the middle of each step; those with a.y ≤ y < b.y count.
	first := max((a.y+step/2-1)>>stepBits, 0)
	last := min((b.y+step/2-1)>>stepBits, Size*rows)
	if first >= last {
		return
	}
	slope := int64(b.x-a.x) << 16 / int64(b.y-a.y)
	x := int64(a.x)<<16 + slope*int64(first*step+step/2-a.y)
	for line := first; line < last; line++ {
		at := min(max(int32(x>>16), 0), side)
		d := delta[line/rows*(Size+2)+at/one:]
		f := at % one
		d[0] += sign * (one - f)
		d[1] += sign * f
		x += slope * step
	}
}
