package glyphs

import "math/bits"

// stream is a sequence of random numbers, splitmix64 (Steele, Lea and Flood,
// Fast splittable pseudorandom number generators, 2014). It is this package's
// own so that images stay as they are when the standard library's generators
// change.
type stream struct{ state uint64 }

const golden = 0x9e3779b97f4a7c15

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// key is a number for a seed and some words.
func key(seed uint64, words ...string) uint64 {
	k := mix(seed + golden)
	for _, word := range words {
		for _, b := range []byte(word) {
			k = mix(k + uint64(b) + golden)
		}
		// Words end, so that "ab", "c" is not "a", "bc".
		k = mix(k ^ golden)
	}
	return k
}

// newStream starts far from the streams of other numbers.
func newStream(key, number uint64) stream {
	return stream{mix(key + mix(number+golden))}
}

func (s *stream) next() uint64 {
	s.state += golden
	return mix(s.state)
}

// below is a number within [0, n).
func (s *stream) below(n int) int {
	hi, _ := bits.Mul64(s.next(), uint64(n))
	return int(hi)
}

// between is a number within [lo, hi].
func (s *stream) between(lo, hi int) int { return lo + s.below(hi-lo+1) }

// chance is true in percent of a hundred cases.
func (s *stream) chance(percent int) bool { return s.below(100) < percent }

// around is a number within [-r, r] that is rather small than large.
func (s *stream) around(r int) int { return (s.between(-r, r) + s.between(-r, r)) / 2 }
