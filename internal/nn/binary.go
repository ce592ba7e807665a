package nn

import (
	"fmt"
	"math"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nhwc"
	"github.com/lowrank-go/lowrank/internal/parallel"
)

// Binary names a function of two values, which is applied to two arrays value by value.
// A dimension of 1 of one of the arrays is repeated along the other's (broadcasting).
type Binary string

// The binary functions of a and b.
const (
	Plus    Binary = "add"
	Minus   Binary = "sub"
	Times   Binary = "mul"
	Divide  Binary = "div"
	Largest Binary = "max"
	Least   Binary = "min"
	Power   Binary = "pow" // aᵇ
	// Comparisons are 1 where they hold, else 0; their gradient is 0.
	Equal   Binary = "equal"
	Less    Binary = "less"    // a < b
	Greater Binary = "greater" // a > b
)

// Validate reports a function that is none. The error wraps conv.ErrShape.
func (k Binary) Validate() error {
	switch k {
	case Plus, Minus, Times, Divide, Largest, Least, Power, Equal, Less, Greater:
		return nil
	}
	return fmt.Errorf("%w: a binary function called %q", conv.ErrShape, k)
}

// Broadcast is the dimensions that arrays of dimensions a and b, as many, have together,
// and the strides of both within those. The error wraps conv.ErrShape.
func Broadcast(a, b []int) (dims, as, bs []int, err error) {
	fail := func() ([]int, []int, []int, error) {
		return nil, nil, nil, fmt.Errorf("%w: dimensions %v and %v do not broadcast", conv.ErrShape, a, b)
	}
	if len(a) != len(b) {
		return fail()
	}
	as, bs, dims = contiguous(a), contiguous(b), slices.Clone(a)
	for i := range dims {
		switch {
		case a[i] == b[i]:
		case a[i] == 1:
			dims[i], as[i] = b[i], 0
		case b[i] == 1:
			bs[i] = 0
		default:
			return fail()
		}
	}
	return dims, as, bs, nil
}

func mapDims(m *conv.Map) []int { return []int{m.N, m.H, m.W, m.C} }

// Forward writes the function of a and b, whose shapes must broadcast, to dst (resized;
// it may be an operand of the same shape).
func (k Binary) Forward(dst, a, b *conv.Map, workers int) *conv.Map {
	dims, as, bs, err := Broadcast(mapDims(a), mapDims(b))
	if err != nil {
		panic(err)
	}
	dst = dst.Resize(dims[0], dims[1], dims[2], dims[3])
	k.Strided(dst.Data, dims, a.Data, as, b.Data, bs, workers)
	return dst
}

// Backward writes to dst (resized to the operand; it may be dy where that has its shape)
// the gradient of the first operand of Forward, or of the second, from that of its
// output, dy, or adds it to dst if add is set.
func (k Binary) Backward(dst, dy, a, b *conv.Map, second, add bool, workers int) *conv.Map {
	dims, as, bs, err := Broadcast(mapDims(a), mapDims(b))
	if err != nil {
		panic(err)
	}
	of := a
	if second {
		of = b
	}
	dst = dst.Resize(of.N, of.H, of.W, of.C)
	k.StridedBackward(dst.Data, dy.Data, dims, a.Data, as, b.Data, bs, second, add, workers)
	return dst
}

// Strided is Forward on strided arrays of dimensions dims: dst is contiguous, and as and
// bs are the strides of a and b, 0 where they are repeated.
func (k Binary) Strided(dst []float32, dims []int, a []float32, as []int, b []float32, bs []int, workers int) {
	d, s := collapse(dims, as, bs)
	if volume(d) == 0 {
		return
	}
	if rows, c, ok := vectors(d, s[0], s[1]); ok && (k == Times || k == Plus) {
		k.perRow(dst, a, b, d, s, rows, c, workers)
		return
	}
	last := len(d) - 1
	sa, sb := s[0][last], s[1][last]
	eachRow(d, append(s, contiguous(d)), workers, func(at []int, n int) {
		var bufA, bufB [blockValues]float32
		k.row(dst[at[2]:][:n], line(&bufA, a, at[0], sa, n), line(&bufB, b, at[1], sb, n))
	})
}

// vectors tells whether the innermost dimensions are rows of c contiguous values of a,
// with b the same for each row.
func vectors(d, a, b []int) (rows, c int, ok bool) {
	last := len(d) - 1
	if last < 1 || d[last] < 8 || a[last] != 1 || b[last] != 1 || a[last-1] != d[last] || b[last-1] != 0 {
		return 0, 0, false
	}
	return d[last-1], d[last], true
}

// perRow is a times or plus b, the same for each of the rows.
func (k Binary) perRow(dst, a, b []float32, d []int, s [][]int, rows, c int, workers int) {
	scale, shift := perChannel(units[:1], c), make([]float32, c)
	// Blocks of rows within each place of the outer dimensions.
	size := max(pieceValues/c, 1)
	blocks := (rows + size - 1) / size
	parallel.For(workers, volume(d)/(rows*c)*blocks, func(i int) {
		from := i % blocks * size
		n := min(size, rows-from)
		o := newOdometer(d[:len(d)-2], outer(s, 2), i/blocks)
		out := dst[(i/blocks*rows+from)*c:]
		in, v := a[o.at[0]+from*c:], b[o.at[1]:][:c]
		if k == Times {
			nhwc.Affine(out, in, nil, n, c, v, shift, false)
		} else {
			nhwc.Affine(out, in, nil, n, c, scale, v, false)
		}
	})
}

// line is size values of x from at on, stride apart: in place, or copied to buf.
func line(buf *[blockValues]float32, x []float32, at, stride, size int) []float32 {
	if stride == 1 {
		return x[at : at+size]
	}
	out := buf[:size]
	if stride == 0 {
		v := x[at]
		for i := range out {
			out[i] = v
		}
		return out
	}
	for i := range out {
		out[i] = x[at+i*stride]
	}
	return out
}

// sum writes a + b, by the loop of whole vectors.
func sum(dst, a, b []float32) {
	const c = len(units)
	n := len(dst) / c
	nhwc.Affine(dst, a, b, n, c, units[:], zeros[:], false)
	for i := n * c; i < len(dst); i++ {
		dst[i] = a[i] + b[i]
	}
}

// row writes the function of a row.
func (k Binary) row(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	switch k {
	case Plus:
		sum(dst, a, b)
	case Minus:
		for i, v := range a {
			dst[i] = v - b[i]
		}
	case Times:
		for i, v := range a {
			dst[i] = v * b[i]
		}
	case Divide:
		for i, v := range a {
			dst[i] = v / b[i]
		}
	case Largest:
		for i, v := range a {
			dst[i] = max(v, b[i])
		}
	case Least:
		for i, v := range a {
			dst[i] = min(v, b[i])
		}
	case Power:
		for i, v := range a {
			dst[i] = float32(pow(float64(v), float64(b[i])))
		}
	case Equal:
		for i, v := range a {
			dst[i] = holds(v == b[i])
		}
	case Less:
		for i, v := range a {
			dst[i] = holds(v < b[i])
		}
	case Greater:
		for i, v := range a {
			dst[i] = holds(v > b[i])
		}
	}
}

func holds(b bool) float32 {
	if b {
		return 1
	}
	return 0
}

// rowBackward writes to dst, which may be g, the gradient of an operand of a row from
// that of its output, g.
func (k Binary) rowBackward(dst, g, a, b []float32, second bool) {
	g, a, b = g[:len(dst)], a[:len(dst)], b[:len(dst)]
	switch {
	case k == Equal || k == Less || k == Greater:
		clear(dst)
	case k == Plus, k == Minus && !second:
		copy(dst, g)
	case k == Minus:
		for i, v := range g {
			dst[i] = -v
		}
	case k == Times && second:
		for i, v := range g {
			dst[i] = v * a[i]
		}
	case k == Times:
		for i, v := range g {
			dst[i] = v * b[i]
		}
	case k == Divide && second:
		for i, v := range g {
			dst[i] = -v * a[i] / (b[i] * b[i])
		}
	case k == Divide:
		for i, v := range g {
			dst[i] = v / b[i]
		}
	case k == Largest || k == Least:
		// Equal operands share the gradient, as in PyTorch.
		if (k == Largest) == second {
			a, b = b, a
		}
		// The operand is now the result where a > b.
		for i, v := range g {
			switch x, y := a[i], b[i]; {
			case x == y:
				dst[i] = v / 2
			case x < y:
				dst[i] = 0
			default:
				dst[i] = v
			}
		}
	case second:
		for i, v := range g {
			x, y := float64(a[i]), float64(b[i])
			d := 0.
			if x != 0 || y < 0 {
				d = pow(x, y) * math.Log(x)
			}
			dst[i] = float32(float64(v) * d)
		}
	default:
		for i, v := range g {
			x, y := float64(a[i]), float64(b[i])
			d := 0.
			if y != 0 {
				d = y * pow(x, y-1)
			}
			dst[i] = float32(float64(v) * d)
		}
	}
}

// StridedBackward is Backward on strided arrays, for which see Strided: dy is
// contiguous, and dst has the strides of the operand, whose gradient is the sum over the
// places where a value of it is repeated.
func (k Binary) StridedBackward(dst, dy []float32, dims []int, a []float32, as []int, b []float32, bs []int, second, add bool, workers int) {
	of := as
	if second {
		of = bs
	}
	d, s := collapse(dims, contiguous(dims), as, bs, of)
	last := len(d) - 1
	if volume(d) == 0 {
		return
	}
	in := s[0][last : last+1 : last+1] // strides of neighbours
	for _, s := range s[1:] {
		in = append(in, s[last])
	}
	values := func(buf []float32, at []int) {
		var x, y, z [blockValues]float32
		n := len(buf)
		k.rowBackward(buf, line(&x, dy, at[0], in[0], n), line(&y, a, at[1], in[1], n), line(&z, b, at[2], in[2], n), second)
	}
	if !slices.Contains(s[3], 0) {
		eachRow(d, s, workers, func(at []int, n int) {
			out := dst[at[3]:]
			if in[3] == 1 && !add {
				values(out[:n], at)
				return
			}
			var buf [blockValues]float32
			values(buf[:n], at)
			for i, v := range buf[:n] {
				if add {
					v += out[i*in[3]]
				}
				out[i*in[3]] = v
			}
		})
		return
	}
	newReduction(d, s, s[3]).run(workers, values, func(at int, v float64) {
		if add {
			dst[at] += float32(v)
		} else {
			dst[at] = float32(v)
		}
	})
}
