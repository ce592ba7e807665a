package glyphs

import "math"

// point is a point with 8 fractional bits: pixels on the image, with y downwards,
// or units of an outline, where unit is its size.
type point struct{ x, y int32 }

const (
	one  = 256      // a pixel
	unit = 16 * 256 // the size of an outline, about its height
	turn = 1024     // a full angle
	side = Size * one
)

// sines has 14 fractional bits. No entry is so near to a half before rounding
// that the last bits of math.Sin matter.
var sines = func() (t [turn]int32) {
	for i := range t {
		t[i] = int32(math.Round((1 << 14) * math.Sin(2*math.Pi*float64(i)/turn)))
	}
	return
}()

func sin(angle int) int32 { return sines[angle&(turn-1)] }
func cos(angle int) int32 { return sines[(angle+turn/4)&(turn-1)] }

// length is the length of a vector, rounded down; a square root of a whole
// number is rounded correctly everywhere.
func length(x, y int32) int32 {
	return int32(math.Sqrt(float64(int64(x)*int64(x) + int64(y)*int64(y))))
}

// path is closed polygons, filled where they wind around a point.
type path [][]point

func (p path) bounds() (lo, hi point) {
	lo, hi = point{math.MaxInt32, math.MaxInt32}, point{math.MinInt32, math.MinInt32}
	for _, polygon := range p {
		for _, q := range polygon {
			lo.x, lo.y = min(lo.x, q.x), min(lo.y, q.y)
			hi.x, hi.y = max(hi.x, q.x), max(hi.y, q.y)
		}
	}
	return lo, hi
}

// move shifts p in place.
func (p path) move(dx, dy int32) {
	for _, polygon := range p {
		for i := range polygon {
			polygon[i].x += dx
			polygon[i].y += dy
		}
	}
}

// pose is the ranges that a random map of an outline is drawn from.
type pose struct {
	sizeLo, sizeHi int // of a unit, in pixels
	angle          int // greatest turn either way
	shear          int // greatest shear either way, in 1/256
	aspect         int // greatest stretch of one side against the other, in 1/256
	warp           int // greatest bend, in 1/256 pixel
	stray          int // greatest distance from the centre on either axis, in 1/256 pixel
	over           int // how far the edge of the image may be passed, in 1/256 pixel
}

// place maps an outline to the image at random.
func (s *stream) place(outline path, o pose) path {
	size := s.between(o.sizeLo*one, o.sizeHi*one)
	stretch := s.around(o.aspect)
	sx, sy := int64(size*(256+stretch)/256), int64(size*256/(256+stretch))
	angle := s.around(o.angle)
	shear := int64(s.around(o.shear))
	cs, sn := int64(cos(angle)), int64(sin(angle))
	// Rotation · shear · scale, in pixels a unit with 14+8 fractional bits.
	a, c := cs*sx, sn*sx
	b, d := (cs*shear/256-sn)*sy, (sn*shear/256+cs)*sy
	bend := int32(s.between(0, o.warp))
	rate, phase := int32(s.between(20, 40)), [2]int{s.below(turn), s.below(turn)}
	out := make(path, len(outline))
	for i, polygon := range outline {
		q := make([]point, len(polygon))
		for j, p := range polygon {
			x := int32((a*int64(p.x) + b*int64(p.y)) / (unit << 14))
			y := int32((c*int64(p.x) + d*int64(p.y)) / (unit << 14))
			q[j].x = x + bend*sin(phase[0]+int(y*turn/(rate*one)))>>14
			q[j].y = y + bend*sin(phase[1]+int(x*turn/(rate*one)))>>14
		}
		out[i] = q
	}
	lo, hi := out.bounds()
	out.move(s.shift(lo.x, hi.x, o), s.shift(lo.y, hi.y, o))
	return out
}

// shift places [lo, hi] on a side of the image.
func (s *stream) shift(lo, hi int32, o pose) int32 {
	centre := int(side/2 - (lo+hi)/2)
	room := max(0, (side+2*o.over-int(hi-lo))/2)
	r := min(room, o.stray)
	return int32(s.between(centre-r, centre+r))
}

// stroke is the path of a line along p, of the given width. Its pieces all wind
// the same way.
func stroke(p path, width int32, closed bool) path {
	var out path
	for _, polygon := range p {
		for i, a := range polygon {
			// An octagon joins this piece of line to the one before.
			var joint []point
			for k := range 8 {
				joint = append(joint, point{a.x + width*cos(k*turn/8)>>15, a.y + width*sin(k*turn/8)>>15})
			}
			out = append(out, joint)
			if i+1 == len(polygon) && !closed {
				break
			}
			b := polygon[(i+1)%len(polygon)]
			dx, dy := b.x-a.x, b.y-a.y
			n := length(dx, dy)
			if n == 0 {
				continue
			}
			ox, oy := dy*width/(2*n), -dx*width/(2*n)
			out = append(out, []point{{a.x + ox, a.y + oy}, {b.x + ox, b.y + oy}, {b.x - ox, b.y - oy}, {a.x - ox, a.y - oy}})
		}
	}
	return out
}
