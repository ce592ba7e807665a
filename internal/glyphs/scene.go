package glyphs

// scene is an image in the making.
type scene struct {
	stream
	pix  [Size * Size]colour
	mask [Size * Size]uint8
}

// paint is what a path is filled with: the colours a and b, mixed by a field,
// or a alone where there is none.
type paint struct {
	a, b colour
	mix  *field
}

// fill covers the whole image.
func (s *scene) fill(p paint) {
	for i := range s.pix {
		s.pix[i] = p.at(i)
	}
}

func (p paint) at(i int) colour {
	if p.mix == nil {
		return p.a
	}
	return p.a.towards(p.b, p.mix[i])
}

// cover paints the part of the image that is covered.
func (s *scene) cover(c *coverage, p paint) {
	for i, part := range c {
		if part > 0 {
			s.pix[i] = s.pix[i].towards(p.at(i), part)
		}
	}
}

// class marks what is covered at least by half.
func (s *scene) class(c *coverage, kind uint8) {
	for i, part := range c {
		if 2*part >= one {
			s.mask[i] = kind
		}
	}
}

// ground is a background of a colour and others near it: even, a gradient or a
// pattern.
func (s *scene) ground(c colour, spread int) {
	p := paint{a: c, b: s.near(c, spread)}
	switch k := s.below(100); {
	case k < 25:
		p.b = p.a
	case k < 50:
		p.mix = s.gradient()
	case k < 75:
		p.mix = s.clouds(int32(s.between(4*one, 12*one)))
	default:
		p.mix = s.pattern(pattern(s.below(int(grain))), int32(s.between(3*one, 12*one)))
	}
	s.fill(p)
}

// line is a bent stroke between two points drawn by end.
func (s *scene) line(width int32, end func() point) path {
	a, b := end(), end()
	bend := point{int32(s.around(6 * one)), int32(s.around(6 * one))}
	var p []point
	const n = 6
	for k := int32(0); k <= n; k++ {
		lift := 4 * k * (n - k)
		p = append(p, point{a.x + (b.x-a.x)*k/n + bend.x*lift/(n*n), a.y + (b.y-a.y)*k/n + bend.y*lift/(n*n)})
	}
	return stroke(path{p}, width, false)
}

// anywhere is a point of the image or just outside it.
func (s *scene) anywhere() point {
	return point{int32(s.between(-4*one, side+4*one)), int32(s.between(-4*one, side+4*one))}
}

// clutter is strokes and parts of other symbols, which lie mostly outside the
// middle.
func (s *scene) clutter(ground, ink colour) {
	for range s.below(4) {
		c := s.near(ground, 70)
		if s.chance(35) {
			c = s.near(ink, 40)
		}
		if s.chance(50) {
			s.cover(rasterize(s.line(int32(s.between(one*3/4, 5*one/2)), s.anywhere)), paint{a: c})
			continue
		}
		p := s.place(s.glyph(s.symbolOf(upper+digits+lower)), pose{sizeLo: 10, sizeHi: 26, angle: turn, shear: 64, aspect: 50})
		// Centred on a circle that leaves most of it outside.
		angle := s.below(turn)
		p.move(15*one*cos(angle)>>14, 15*one*sin(angle)>>14)
		s.cover(rasterize(p), paint{a: c})
	}
}

func (s *scene) symbolOf(symbols string) rune { return rune(symbols[s.below(len(symbols))]) }

// style is how the main thing of an image is drawn.
type style int

const (
	plain style = iota
	outlined
	cutOut
	embossed
)

var (
	symbolPose = pose{sizeLo: 14, sizeHi: 26, angle: turn / 11, shear: 90, aspect: 64, warp: 300, stray: 5 * one, over: one}
	figurePose = pose{sizeLo: 12, sizeHi: 26, angle: turn, shear: 40, aspect: 50, warp: 200, stray: 6 * one, over: one}
)

// symbol is an image of one symbol.
func (s *scene) symbol(r rune, how style) { s.single(s.glyph(r), symbolPose, how) }

// single is an image of one outline.
func (s *scene) single(outline path, o pose, how style) {
	ground, ink := s.pair()
	apart := contrast(ground, ink)
	s.ground(ground, apart/2)
	s.clutter(ground, ink)
	s.object(s.place(outline, o), ground, ink, how)
	if s.chance(35) {
		// A scratch in front.
		s.cover(rasterize(s.line(int32(s.between(one/2, 3*one/2)), s.anywhere)), paint{a: s.near(ground, 60)})
	}
	s.camera(apart)
}

// object draws a path over what is there.
func (s *scene) object(p path, ground, ink colour, how style) {
	fill := paint{a: ink}
	if s.chance(30) {
		fill.b, fill.mix = s.near(ink, contrast(ground, ink)/3), s.gradient()
	}
	switch how {
	case outlined:
		s.cover(rasterize(stroke(p, int32(s.between(one, 3*one/2)), true)), fill)
	case cutOut:
		// A plate around the path, and the path as a hole in it.
		lo, hi := p.bounds()
		m := int32(s.between(one, 3*one))
		plate := []point{{lo.x - m, lo.y - m}, {hi.x + m, lo.y - m}, {hi.x + m, hi.y + m}, {lo.x - m, hi.y + m}}
		c := rasterize(path{plate})
		hole := rasterize(p)
		for i := range c {
			c[i] -= min(c[i], hole[i])
		}
		s.cover(c, fill)
	case embossed:
		// A dark copy, a light copy on the other side, and the background
		// between them.
		d := int32(s.between(one*3/4, one*5/4))
		white := colour{255 * one, 255 * one, 255 * one}
		p.move(d, d)
		s.cover(rasterize(p), paint{a: ground.towards(colour{}, 200)})
		p.move(-2*d, -2*d)
		s.cover(rasterize(p), paint{a: ground.towards(white, 200)})
		p.move(d, d)
		s.cover(rasterize(p), paint{a: s.near(ground, 20)})
	default:
		s.cover(rasterize(p), fill)
	}
}

// texture is an image of one pattern.
func (s *scene) texture(kind pattern) {
	ground, ink := s.pair()
	p := paint{a: ground, b: ink, mix: s.pattern(kind, int32(s.between(7*one/2, 10*one)))}
	s.fill(p)
	if s.chance(40) {
		// Uneven light.
		light, shade := s.gradient(), s.colour()
		for i := range s.pix {
			s.pix[i] = s.pix[i].towards(shade, light[i]/2)
		}
	}
	s.camera(contrast(ground, ink))
}

// segments is an image of several things of each kind, of which the last is of
// the given kind.
func (s *scene) segments(front int) {
	ground := s.colour()
	s.ground(ground, 40)
	n := s.between(2, 5)
	for k := range n {
		kind := 1 + s.below(len(segmentNames)-1)
		if k == n-1 {
			kind = front
		}
		o := pose{sizeLo: 9, sizeHi: 17, angle: turn / 8, shear: 64, aspect: 50, warp: 150, stray: 12 * one, over: 2 * one}
		var outline path
		switch kind {
		case letter:
			// O and I look like 0 and 1, which are left out as well.
			outline = s.glyph(s.symbolOf("ABCDEFGHJKLMNPQRSTUVWXYZ"))
		case digit:
			outline = s.glyph(s.symbolOf("23456789"))
		default:
			o.angle = turn
			all := figures()
			outline = all[s.below(len(all))]
		}
		p := s.place(outline, o)
		c := rasterize(p)
		s.object(p, ground, s.unlike(ground, 60), plain)
		s.class(c, uint8(kind))
	}
	s.camera(60)
}

// camera blurs and adds noise, in proportion to the contrast that there is.
func (s *scene) camera(apart int) {
	if s.chance(50) {
		s.blur(int32(s.between(30, 80)))
	}
	if s.chance(75) {
		s.noise(s.between(0, max(4, apart/3)), s.chance(50))
	}
}

// blur mixes each pixel with its neighbours by the weights w/2, 256−w, w/2 of
// 256, along rows and along columns.
func (s *scene) blur(w int32) {
	var line [Size + 2]colour
	for axis := range 2 {
		for i := range Size {
			first, step := i*Size, 1
			if axis == 1 {
				first, step = i, Size
			}
			for j := range Size {
				line[j+1] = s.pix[first+j*step]
			}
			line[0], line[Size+1] = line[1], line[Size]
			for j := range Size {
				a, b, c := &line[j], &line[j+1], &line[j+2]
				for k := range b {
					s.pix[first+j*step][k] = ((a[k]+c[k])*w/2 + b[k]*(one-w)) / one
				}
			}
		}
	}
}

// noise adds up to about ±2·size levels to each sample, the same to the three of
// a pixel if it is grey. Its distribution is that of a sum of four.
func (s *scene) noise(size int, grey bool) {
	scale := int32(size)
	for i := range s.pix {
		v := s.next()
		for k := range 3 {
			if k == 0 || !grey {
				// Four samples of 4 bits, less their mean.
				sum := int32(v&15+v>>4&15+v>>8&15+v>>12&15) - 30
				v = v>>16 | v<<48
				for c := k; c < 3 && (c == k || grey); c++ {
					s.pix[i][c] += sum * scale * one / 15
				}
			}
		}
	}
}

// pixels rounds to 8 bits.
func (s *scene) pixels() []uint8 {
	out := make([]uint8, 0, 3*Size*Size)
	for _, c := range s.pix {
		for _, v := range c {
			out = append(out, uint8(min(max((v+one/2)/one, 0), 255)))
		}
	}
	return out
}
