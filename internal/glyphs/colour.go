package glyphs

// colour is red, green and blue, 0 to 255 with 8 fractional bits.
type colour [3]int32

func (s *stream) colour() colour {
	return colour{int32(s.below(255*one + 1)), int32(s.below(255*one + 1)), int32(s.below(255*one + 1))}
}

// towards is c moved by part of the way to d, in 1/256.
func (c colour) towards(d colour, part int32) colour {
	for k := range c {
		c[k] += (d[k] - c[k]) * part / one
	}
	return c
}

// contrast is how much two colours differ to the eye, 0 to 255: green counts
// most.
func contrast(c, d colour) int {
	sum := int32(0)
	for k, weight := range [3]int32{3, 6, 2} {
		v := c[k] - d[k]
		sum += weight * max(v, -v)
	}
	return int(sum / 11 / one)
}

// unlike is a colour whose contrast with c is at least least.
func (s *stream) unlike(c colour, least int) colour {
	for range 64 {
		if d := s.colour(); contrast(c, d) >= least {
			return d
		}
	}
	// Black or white is at least half of the scale away.
	white := colour{255 * one, 255 * one, 255 * one}
	if contrast(c, white) >= contrast(c, colour{}) {
		return white
	}
	return colour{}
}

// pair is two colours, mostly well apart, sometimes not.
func (s *stream) pair() (ground, ink colour) {
	ground = s.colour()
	ink = s.unlike(ground, 75)
	if s.chance(30) {
		// Low contrast, 30 to 75.
		c := contrast(ground, ink)
		ink = ground.towards(ink, int32(s.between(30, 75)*one/c))
	}
	return ground, ink
}

// near is c, moved at random by at most the given contrast.
func (s *stream) near(c colour, most int) colour {
	d := s.colour()
	return c.towards(d, int32(min(one, most*one/max(contrast(c, d), 1))))
}
