package nhwc

import (
	"math"
	"unsafe"
)

// pointwise is what the loops over pixels get; the assembly knows its layout.
type pointwise struct {
	n, vectors int
	pitch      int
	x, y, z    unsafe.Pointer
	out        unsafe.Pointer
	a, b, c    unsafe.Pointer
	floor      float32
	_          float32
	scalars    [8]float32
}

// The kinds of loop.
const (
	moments1Kind = iota
	moments4Kind
	products1Kind
	products4Kind
	maskedProducts1Kind
	maskedProducts4Kind
	affineKind
	affineAddKind
	affinePairKind
	addKind
	sgdKind
	adamKind
	maximaKind
)

// whole is how many of n channels the kernels do.
func whole(n int) int {
	if kernels == inGo {
		return 0
	}
	return n &^ 7
}

// groups calls f for channels in groups of four vectors and then of one, up to n.
func groups(n int, f func(set, at, vectors int)) {
	at := 0
	if kernels == inAVX512 {
		for ; at+64 <= n; at += 64 {
			f(inAVX512, at, 4)
		}
		for ; at+16 <= n; at += 16 {
			f(inAVX512, at, 1)
		}
	}
	for ; at+32 <= n; at += 32 {
		f(inAVX2, at, 4)
	}
	for ; at < n; at += 8 {
		f(inAVX2, at, 1)
	}
}

// vectors calls f for whole vectors of n channels, a multiple of 8: the first, and how
// many there are.
func vectors(n int, f func(set, at, vectors int)) {
	at := 0
	if kernels == inAVX512 {
		if at = n &^ 15; at > 0 {
			f(inAVX512, 0, at/16)
		}
	}
	if at < n {
		f(inAVX2, at, (n-at)/8)
	}
}

// Moments adds to sum and square, for each of the channels of the pixels of x,
// Σ (x − pivot) and Σ (x − pivot)². Sums are in float32: keep pixels few, and
// pivot near the mean. It panics where a slice is too short.
func Moments(x []float32, pixels, channels int, pivot, sum, square []float32) {
	if pixels == 0 || channels == 0 {
		return
	}
	x, pivot, sum, square = x[:pixels*channels], pivot[:channels], sum[:channels], square[:channels]
	done := whole(channels)
	groups(done, func(set, at, vectors int) {
		e := pointwise{n: pixels, pitch: 4 * channels, x: unsafe.Pointer(&x[at]), a: unsafe.Pointer(&pivot[at]), b: unsafe.Pointer(&sum[at]), c: unsafe.Pointer(&square[at])}
		kind := moments4Kind
		if vectors == 1 {
			kind = moments1Kind
		}
		runPointwise(set, kind, &e)
	})
	if done == channels {
		return
	}
	for i := range pixels {
		for c, v := range x[i*channels+done : (i+1)*channels] {
			v -= pivot[done+c]
			sum[done+c] += v
			square[done+c] += v * v
		}
	}
}

// Products adds to sum and product, for each channel, Σ g and Σ g·(x − mean),
// where g is a gradient; if out is not nil, g is first made zero where out is not
// positive (the gradient of ReLU; NaN lets it pass). It panics where a slice is
// too short.
func Products(g, x, out []float32, pixels, channels int, mean, sum, product []float32) {
	if pixels == 0 || channels == 0 {
		return
	}
	n := pixels * channels
	g, x, mean, sum, product = g[:n], x[:n], mean[:channels], sum[:channels], product[:channels]
	kind4, kind1 := products4Kind, products1Kind
	if out != nil {
		out = out[:n]
		kind4, kind1 = maskedProducts4Kind, maskedProducts1Kind
	}
	done := whole(channels)
	groups(done, func(set, at, vectors int) {
		e := pointwise{n: pixels, pitch: 4 * channels, x: unsafe.Pointer(&x[at]), out: unsafe.Pointer(&g[at]),
			a: unsafe.Pointer(&mean[at]), b: unsafe.Pointer(&sum[at]), c: unsafe.Pointer(&product[at])}
		if out != nil {
			e.y = unsafe.Pointer(&out[at])
		}
		kind := kind4
		if vectors == 1 {
			kind = kind1
		}
		runPointwise(set, kind, &e)
	})
	if done == channels {
		return
	}
	for i := range pixels {
		for c := done; c < channels; c++ {
			at := i*channels + c
			if out != nil && out[at] <= 0 {
				g[at] = 0
			}
			sum[c] += g[at]
			product[c] += g[at] * (x[at] - mean[c])
		}
	}
}

// Affine writes scale·x + shift to dst, channel by channel, plus residual unless
// that is nil, with negative values made zero if relu is set. dst may be x or
// residual. It panics where a slice is too short.
func Affine(dst, x, residual []float32, pixels, channels int, scale, shift []float32, relu bool) {
	if pixels == 0 || channels == 0 {
		return
	}
	n := pixels * channels
	dst, x, scale, shift = dst[:n], x[:n], scale[:channels], shift[:channels]
	if residual != nil {
		residual = residual[:n]
	}
	done := whole(channels)
	vectors(done, func(set, at, n int) {
		e := pointwise{n: pixels, vectors: n, pitch: 4 * channels, x: unsafe.Pointer(&x[at]), out: unsafe.Pointer(&dst[at]),
			a: unsafe.Pointer(&scale[at]), b: unsafe.Pointer(&shift[at]), floor: float32(math.Inf(-1))}
		if relu {
			e.floor = 0
		}
		kind := affineKind
		if residual != nil {
			kind, e.y = affineAddKind, unsafe.Pointer(&residual[at])
		}
		runPointwise(set, kind, &e)
	})
	if done == channels {
		return
	}
	for i := range pixels {
		for c := done; c < channels; c++ {
			at := i*channels + c
			v := x[at]*scale[c] + shift[c]
			if residual != nil {
				v += residual[at]
			}
			if relu && v < 0 {
				v = 0
			}
			dst[at] = v
		}
	}
}

// AffinePair writes a·x + b·y + c to dst, channel by channel. dst may be x or y.
// It panics where a slice is too short.
func AffinePair(dst, x, y []float32, pixels, channels int, a, b, c []float32) {
	if pixels == 0 || channels == 0 {
		return
	}
	n := pixels * channels
	dst, x, y, a, b, c = dst[:n], x[:n], y[:n], a[:channels], b[:channels], c[:channels]
	done := whole(channels)
	vectors(done, func(set, at, n int) {
		runPointwise(set, affinePairKind, &pointwise{n: pixels, vectors: n, pitch: 4 * channels, x: unsafe.Pointer(&x[at]), y: unsafe.Pointer(&y[at]), out: unsafe.Pointer(&dst[at]),
			a: unsafe.Pointer(&a[at]), b: unsafe.Pointer(&b[at]), c: unsafe.Pointer(&c[at])})
	})
	if done == channels {
		return
	}
	for i := range pixels {
		for j := done; j < channels; j++ {
			at := i*channels + j
			dst[at] = c[j] + x[at]*a[j] + y[at]*b[j]
		}
	}
}

// Add adds x to dst, value by value. It panics where x is shorter than dst.
func Add(dst, x []float32) {
	x = x[:len(dst)]
	done := whole(len(dst))
	vectors(done, func(set, at, n int) {
		runPointwise(set, addKind, &pointwise{n: n, x: unsafe.Pointer(&x[at]), out: unsafe.Pointer(&dst[at])})
	})
	for i := done; i < len(dst); i++ {
		dst[i] += x[i]
	}
}

// SGD is a step of stochastic gradient descent with momentum. With
// g' = g + decay·w it sets v to momentum·v + share·g', and takes
// gradientRate·g' + velocityRate·v from w. It panics where a slice is shorter
// than w.
func SGD(w, v, g []float32, decay, momentum, share, gradientRate, velocityRate float32) {
	v, g = v[:len(w)], g[:len(w)]
	done := whole(len(w))
	vectors(done, func(set, at, n int) {
		runPointwise(set, sgdKind, &pointwise{n: n, x: unsafe.Pointer(&g[at]), y: unsafe.Pointer(&v[at]), out: unsafe.Pointer(&w[at]),
			scalars: [8]float32{decay, momentum, share, gradientRate, velocityRate}})
	})
	for i := done; i < len(w); i++ {
		d := g[i] + decay*w[i]
		v[i] = momentum*v[i] + share*d
		w[i] -= gradientRate*d + velocityRate*v[i]
	}
}

// AdamShares are the factors of a step of Adam.
type AdamShares struct {
	Decay, Beta1, Share1, Beta2, Share2, Rate, Eps, Keep float32
}

// Adam is a step of Adam. With g' = g + a.Decay·w it sets m to a.Beta1·m + a.Share1·g'
// and s to a.Beta2·s + a.Share2·g'², and w to a.Keep·w − a.Rate·m/(√s + a.Eps).
// It panics where a slice is shorter than w.
func Adam(w, m, s, g []float32, a *AdamShares) {
	m, s, g = m[:len(w)], s[:len(w)], g[:len(w)]
	done := whole(len(w))
	vectors(done, func(set, at, n int) {
		runPointwise(set, adamKind, &pointwise{n: n, x: unsafe.Pointer(&g[at]), y: unsafe.Pointer(&m[at]), z: unsafe.Pointer(&s[at]), out: unsafe.Pointer(&w[at]),
			scalars: [8]float32{a.Decay, a.Beta1, a.Share1, a.Beta2, a.Share2, a.Rate, a.Eps, a.Keep}})
	})
	for i := done; i < len(w); i++ {
		d := g[i] + a.Decay*w[i]
		m[i] = a.Beta1*m[i] + a.Share1*d
		s[i] = a.Beta2*s[i] + a.Share2*d*d
		w[i] = a.Keep*w[i] - a.Rate*m[i]/(float32(math.Sqrt(float64(s[i])))+a.Eps)
	}
}

// Maxima writes to dst the largest of a pixel's taps in each channel, and to
// which the number of the first tap that has it. A NaN counts as the largest.
// offsets tells, for at most 256 taps, where in x each begins. It panics where a
// slice is too short.
func (r *Runner) Maxima(dst []float32, which []uint8, x []float32, offsets []int, channels int) {
	if channels == 0 {
		return
	}
	dst, which = dst[:channels], which[:channels]
	for _, o := range offsets {
		_ = x[o : o+channels]
	}
	if len(offsets) == 0 || len(offsets) > 256 {
		panic("nhwc: bad number of taps")
	}
	done := whole(channels)
	if done > 0 {
		r.inBytes(offsets)
		vectors(done, func(set, at, n int) {
			runPointwise(set, maximaKind, &pointwise{n: len(offsets), vectors: n, x: unsafe.Pointer(&x[at]), y: unsafe.Pointer(&which[at]), out: unsafe.Pointer(&dst[at]), a: unsafe.Pointer(&r.bytes[0])})
		})
	}
	for c := done; c < channels; c++ {
		best, at := x[offsets[0]+c], 0
		for t, o := range offsets[1:] {
			if v := x[o+c]; best == best && !(v <= best) {
				best, at = v, t+1
			}
		}
		dst[c], which[c] = best, uint8(at)
	}
}
