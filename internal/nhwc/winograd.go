package nhwc

import (
	"math"
	"unsafe"
)

// Winograd's convolution F(4×4, 3×3) turns a 3×3 convolution of stride 1 into 36
// matrix products over tiles of 4×4 outputs: 36 multiplications where the
// definition needs 144 (Lavin and Gray, "Fast algorithms for convolutional
// neural networks", 2016). With g the kernel, d a 6×6 square of inputs, and U and
// V their transforms,
//
//	U = G·g·Gᵀ,  V = Bᵀ·d·B,  Y = Aᵀ·(Σ_channels U ⊙ V)·A,
//
// and by transposition, for the gradient E of Y,
//
//	dg = Gᵀ·(Σ_tiles (A·E·Aᵀ) ⊙ V)·G.
//
// The points are 0, ±a, ±b and ∞ with a = √½ and b = √2. They are reciprocals of
// each other, which keeps the numbers near 1: the error is about a third of that
// with the customary 0, ±1, ±2 and ∞. It stays a small multiple of the
// definition's error in float32; the tests bound it.
//
// The rows of Bᵀ are the coefficients of x(x²−a²)(x²−b²)/(x−p) for a point p, and
// those of G are (1, p, p²) over the product of p's differences from the other
// points, −3/2 for ±a and 6 for ±b.

// WinogradTile is the number of outputs on a side of a tile, WinogradPatch that
// of inputs, WinogradProducts the number of products of a channel.
const (
	WinogradTile     = 4
	WinogradPatch    = 6
	WinogradProducts = WinogradPatch * WinogradPatch
)

// Square tells where the vectors of a square lie: Row and Column are the
// distances, in values, of neighbours below and to the right.
type Square struct{ Row, Column int }

// Spread is the layout of the 36 transformed values of a channel, step apart.
func Spread(step int) Square { return Square{WinogradPatch * step, step} }

// transform is what a kernel gets; the assembly knows its layout.
type transform struct {
	vectors   int
	src       unsafe.Pointer
	srcRow    int
	srcColumn int
	dst       unsafe.Pointer
	dstRow    int
	dstColumn int
	bias      unsafe.Pointer
	residual  unsafe.Pointer
	floor     float32
	_         uint32
	_         [2]uintptr // the kernel's own: where it is in bias and residual

	// Of the inputs at an edge alone.
	offset        int // from src to the square
	rows, columns int // a bit for each that is there
}

const (
	rootHalf = math.Sqrt2 / 2
	normA    = -2. / 3 // 1/(a²·2(a²−b²)) and 1/(b²·2(b²−a²))
	normB    = 1. / 6
)

// The one-dimensional transforms, in the order of the assembly's.

func input1(d [6]float32) [6]float32 {
	e1, o1 := d[4]-2*d[2], d[3]-2*d[1]
	e2, o2 := d[4]-.5*d[2], d[3]-.5*d[1]
	return [6]float32{
		d[4] - 2.5*d[2] + d[0],
		e1 + rootHalf*o1, e1 - rootHalf*o1,
		e2 + math.Sqrt2*o2, e2 - math.Sqrt2*o2,
		d[5] - 2.5*d[3] + d[1],
	}
}

func output1(m [6]float32) [6]float32 {
	s1, s2 := m[1]+m[2], m[3]+m[4]
	d1, d2 := rootHalf*(m[1]-m[2]), math.Sqrt2*(m[3]-m[4])
	return [6]float32{m[0] + s1 + s2, d1 + d2, .5*s1 + 2*s2, m[5] + .5*d1 + 2*d2}
}

func spread1(y [6]float32) [6]float32 {
	e1, o1 := y[0]+.5*y[2], y[1]+.5*y[3]
	e2, o2 := y[0]+2*y[2], y[1]+2*y[3]
	return [6]float32{
		y[0],
		e1 + rootHalf*o1, e1 - rootHalf*o1,
		e2 + math.Sqrt2*o2, e2 - math.Sqrt2*o2,
		y[3],
	}
}

func weight1(g [6]float32) [6]float32 {
	e1, e2 := normA*(g[0]+.5*g[2]), normB*(g[0]+2*g[2])
	return [6]float32{
		g[0],
		e1 + normA*rootHalf*g[1], e1 - normA*rootHalf*g[1],
		e2 + normB*math.Sqrt2*g[1], e2 - normB*math.Sqrt2*g[1],
		g[2],
	}
}

func gather1(u [6]float32) [6]float32 {
	s1, s2, d1, d2 := u[1]+u[2], u[3]+u[4], u[1]-u[2], u[3]-u[4]
	return [6]float32{
		u[0] + normA*s1 + normB*s2,
		normA*rootHalf*d1 + normB*math.Sqrt2*d2,
		u[5] + normA/2*s1 + normB*2*s2,
	}
}

// The kinds of transform.
const (
	inputKind = iota
	outputKind
	spreadKind
	weightKind
	gatherKind
	edgeKind
)

// apply runs a transform of in×in to out×out on n channels.
func apply(kind int, oneD func([6]float32) [6]float32, in, out, n int, src []float32, s Square, dst []float32, d Square, bias, residual []float32, relu bool) {
	if n == 0 {
		return
	}
	_ = src[(in-1)*(s.Row+s.Column)+n-1]
	_ = dst[(out-1)*(d.Row+d.Column)+n-1]
	if bias != nil {
		_ = bias[n-1]
	}
	if residual != nil {
		_ = residual[(out-1)*(d.Row+d.Column)+n-1]
	}
	if s.Row < 0 || s.Column < 0 || d.Row < 0 || d.Column < 0 {
		panic("nhwc: negative distance")
	}
	if kernels == inGo {
		applyGo(oneD, in, out, n, src, s, dst, d, bias, residual, relu)
		return
	}
	if n%8 != 0 {
		panic("nhwc: channels are not a multiple of 8")
	}
	// Field by field: a literal would be made elsewhere and copied by pairs of
	// fields, for which the processor waits.
	var t transform
	t.src, t.srcRow, t.srcColumn = unsafe.Pointer(&src[0]), 4*s.Row, 4*s.Column
	t.dst, t.dstRow, t.dstColumn = unsafe.Pointer(&dst[0]), 4*d.Row, 4*d.Column
	t.floor = float32(math.Inf(-1))
	if bias != nil {
		t.bias = unsafe.Pointer(&bias[0])
	}
	if residual != nil {
		t.residual = unsafe.Pointer(&residual[0])
	}
	if relu {
		t.floor = 0
	}
	if Wide() {
		if t.vectors = n / 16; t.vectors > 0 {
			runTransform(inAVX512, kind, &t)
		}
		if n%16 == 0 {
			return
		}
		n = 8
		at := t.vectors * 16
		t.src, t.dst = unsafe.Pointer(&src[at]), unsafe.Pointer(&dst[at])
		if bias != nil {
			t.bias = unsafe.Pointer(&bias[at])
		}
		if residual != nil {
			t.residual = unsafe.Pointer(&residual[at])
		}
	}
	t.vectors = n / 8
	runTransform(inAVX2, kind, &t)
}

// applyGo is apply in Go.
func applyGo(oneD func([6]float32) [6]float32, in, out, n int, src []float32, s Square, dst []float32, d Square, bias, residual []float32, relu bool) {
	for c := range n {
		var half [6][6]float32 // columns transformed, as [row out][column in]
		for j := range in {
			var v [6]float32
			for i := range in {
				v[i] = src[i*s.Row+j*s.Column+c]
			}
			for i, w := range oneD(v) {
				half[i][j] = w
			}
		}
		for i := range out {
			v := oneD(half[i])
			for j := range out {
				at, w := i*d.Row+j*d.Column+c, v[j]
				if bias != nil {
					w += bias[c]
				}
				if residual != nil {
					w += residual[at]
				}
				if relu && w < 0 {
					w = 0
				}
				dst[at] = w
			}
		}
	}
}

// WinogradInput writes V of n channels of the 6×6 pixels of x, whose layout is
// at, to v. The number of channels of this and of the other transforms must be a
// multiple of 8. All panic where a slice is too short.
func WinogradInput(n int, x []float32, at Square, v []float32, step int) {
	apply(inputKind, input1, 6, 6, n, x, at, v, Spread(step), nil, nil, false)
}

// WinogradInputAt is WinogradInput of the 6×6 pixels from (top, left) on of an image of
// h×w pixels of n channels. Pixels outside the image are zeros. It returns false, and
// does nothing, where the set in use cannot leave them out or n is not a multiple of 8.
func WinogradInputAt(n int, image []float32, h, w, top, left int, v []float32, step int) bool {
	if n%8 != 0 {
		return false
	}
	if top >= 0 && left >= 0 && top+WinogradPatch <= h && left+WinogradPatch <= w {
		WinogradInput(n, image[(top*w+left)*n:], Square{w * n, n}, v, step)
		return true
	}
	if !Wide() || n%16 != 0 {
		return false
	}
	if n == 0 {
		return true
	}
	_ = image[h*w*n-1]
	_ = v[(WinogradProducts-1)*step+n-1]
	if h < 1 || w < 1 || step < 0 {
		panic("nhwc: bad image")
	}
	// there has a bit for each of the 6 from first on that lies in [0,size).
	there := func(first, size int) int {
		from, to := min(max(-first, 0), WinogradPatch), max(min(size-first, WinogradPatch), 0)
		return (1<<to - 1) &^ (1<<from - 1)
	}
	var t transform
	t.vectors, t.src, t.srcRow, t.srcColumn = n/16, unsafe.Pointer(&image[0]), 4*w*n, 4*n
	t.dst, t.dstRow, t.dstColumn = unsafe.Pointer(&v[0]), 4*WinogradPatch*step, 4*step
	t.offset, t.rows, t.columns = 4*(top*w+left)*n, there(top, h), there(left, w)
	runTransform(inAVX512, edgeKind, &t)
	return true
}

// WinogradWeight writes U of n channels of the 3×3 taps of w to u.
func WinogradWeight(n int, w []float32, at Square, u []float32, step int) {
	apply(weightKind, weight1, 3, 6, n, w, at, u, Spread(step), nil, nil, false)
}

// WinogradOutput writes the 4×4 pixels of n channels whose 36 sums of products
// are in m to y, with bias and residual (nil for none, else in y's layout) added and
// negative values made zero if relu is set.
func WinogradOutput(n int, m []float32, step int, y []float32, at Square, bias, residual []float32, relu bool) {
	_ = bias[:n]
	apply(outputKind, output1, 6, 4, n, m, Spread(step), y, at, bias, residual, relu)
}

// WinogradSpread writes A·E·Aᵀ of n channels of the 4×4 pixels of e to s.
func WinogradSpread(n int, e []float32, at Square, s []float32, step int) {
	apply(spreadKind, spread1, 4, 6, n, e, at, s, Spread(step), nil, nil, false)
}

// WinogradGather writes the gradients of n channels of the 3×3 taps, whose 36
// sums of products are in u, to w.
func WinogradGather(n int, u []float32, step int, w []float32, at Square) {
	apply(gatherKind, gather1, 6, 3, n, u, Spread(step), w, at, nil, nil, false)
}
