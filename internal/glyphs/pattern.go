package glyphs

// pattern is a way to fill an image.
type pattern int

const (
	stripes pattern = iota
	waves
	zigzag
	checks
	dots
	grid
	bricks
	rings
	grain
	clouds
)

var patternNames = [...]string{
	stripes: "stripes", waves: "waves", zigzag: "zigzag", checks: "checks", dots: "dots",
	grid: "grid", bricks: "bricks", rings: "rings", grain: "grain", clouds: "clouds",
}

// field is a value of 0 to 256 for every pixel, which mixes two colours.
type field [Size * Size]int32

// mod is v modulo m > 0, not negative.
func mod(v, m int32) int32 {
	if v %= m; v < 0 {
		v += m
	}
	return v
}

func flag(b bool) int32 {
	if b {
		return one
	}
	return 0
}

// pattern fills a field, with lines and spots period pixels apart (in 1/256), at
// a random angle and place.
func (s *stream) pattern(kind pattern, period int32) *field {
	switch kind {
	case grain:
		return s.grain()
	case clouds:
		return s.clouds(period)
	}
	angle := s.below(turn)
	phase := point{int32(s.below(64 * one)), int32(s.below(64 * one))}
	part := period * int32(s.between(90, 166)) / 256 // dark part of a period
	thin := period * int32(s.between(55, 85)) / 256
	long := period * int32(s.between(420, 640)) / 256
	at := func(u, v int32) int32 {
		switch kind {
		case waves:
			return flag(mod(u+period*sin(int(v*turn/long))>>15, period) < part)
		case zigzag:
			fold := mod(v, long) - long/2
			return flag(mod(u+max(fold, -fold), period) < part)
		case checks:
			return flag((mod(u, 2*period) < period) == (mod(v, 2*period) < period))
		case dots:
			x, y := mod(u, period)-period/2, mod(v, period)-period/2
			return flag(4*(x*x+y*y) < part*part*2)
		case grid:
			return flag(mod(u, period) < thin || mod(v, period) < thin)
		case bricks:
			shift := mod(v, 2*period) / period * (period * 5 / 4)
			return flag(mod(v, period) < thin || mod(u+shift, period*5/2) < thin)
		case rings:
			return flag(mod(length(u, v), period) < part)
		default:
			return flag(mod(u, period) < part)
		}
	}
	if kind == rings {
		// The centre lies on the image.
		phase = point{int32(s.around(side / 2)), int32(s.around(side / 2))}
	}
	f := new(field)
	c, d := cos(angle), sin(angle)
	for i := range f {
		sum := int32(0)
		// The mean of four points, so that edges are smooth.
		for k := range int32(4) {
			x := int32(i%Size)*one + one/4 + k%2*(one/2) - side/2
			y := int32(i/Size)*one + one/4 + k/2*(one/2) - side/2
			sum += at((x*c+y*d)>>14+phase.x, (y*c-x*d)>>14+phase.y)
		}
		f[i] = sum / 4
	}
	return f
}

// grain is independent samples.
func (s *stream) grain() *field {
	f := new(field)
	for i := range f {
		f[i] = int32(s.below(one + 1))
	}
	return f
}

// clouds is random values on a lattice, smoothly interpolated.
func (s *stream) clouds(period int32) *field {
	const most = side/(2*one) + 2
	period = max(period, 2*one)
	var lattice [most * most]int32
	for i := range lattice {
		lattice[i] = int32(s.below(one + 1))
	}
	phase := point{int32(s.below(int(period))), int32(s.below(int(period)))}
	f := new(field)
	for i := range f {
		x, y := int32(i%Size)*one+phase.x, int32(i/Size)*one+phase.y
		u, v := smooth(x%period*one/period), smooth(y%period*one/period)
		l := lattice[y/period*most+x/period:][:most+2]
		top, bottom := l[0]*(one-u)+l[1]*u, l[most]*(one-u)+l[most+1]*u
		f[i] = (top*(one-v) + bottom*v) / (one * one)
	}
	return f
}

// smooth is 3t² − 2t³.
func smooth(t int32) int32 { return t * t * (3*one - 2*t) / (one * one) }

// gradient rises from 0 to 256 across the image in a random direction.
func (s *stream) gradient() *field {
	angle := s.below(turn)
	f := new(field)
	for i := range f {
		x, y := int32(i%Size)*one-side/2, int32(i/Size)*one-side/2
		f[i] = min(max((x*cos(angle)+y*sin(angle))>>14/Size+one/2, 0), one)
	}
	return f
}
