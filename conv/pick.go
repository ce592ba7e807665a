package conv

import "github.com/lowrank-go/lowrank/internal/parallel"

// picks reports whether the layer looks at single pixels, none of them padding,
// and only at some of them. It is then quicker to put those next to each other first.
func (l *Layer) picks() bool {
	k := &l.kernel
	return k.Taps() == 1 && k.Stride != [2]int{1, 1} && k.Padding == [2]int{} && k.Extra == [2]int{} && !l.depthwise
}

// point is an axis of n outputs that look at their own input.
func point(n int) axis { return axis{taps: []int{0}, stride: 1, n: n, step: 1} }

// pick copies the oh×ow pixels of each map of x that k looks at.
func (s *scratch) pick(k *Kernel, x *Map, oh, ow, workers int) *Map {
	s.picked = s.picked.Resize(x.N, oh, ow, x.C)
	to := s.picked
	parallel.For(workers, x.N*oh, func(i int) {
		img, y := i/oh, i%oh
		row := x.Data[(img*x.H+y*k.Stride[0])*x.W*x.C:]
		for j := range ow {
			copy(to.Data[(i*ow+j)*x.C:][:x.C], row[j*k.Stride[1]*x.C:])
		}
	})
	return to
}

// scatter puts the pixels of from at the places of dst that k looks at, zeros at
// the others, and applies e.
func scatter(k *Kernel, dst, from *Map, e Epilogue, workers int) {
	parallel.For(workers, dst.N*dst.H, func(i int) {
		img, y := i/dst.H, i%dst.H
		row := dst.Data[i*dst.W*dst.C:][:dst.W*dst.C]
		if e.Residual == nil {
			clear(row)
		} else {
			copy(row, e.Residual.Data[i*dst.W*dst.C:])
		}
		if y%k.Stride[0] == 0 && y/k.Stride[0] < from.H {
			for j := range from.W {
				out := row[j*k.Stride[1]*dst.C:][:dst.C]
				in := from.Data[((img*from.H+y/k.Stride[0])*from.W+j)*from.C:][:dst.C]
				if e.Residual == nil {
					copy(out, in)
					continue
				}
				for c, v := range in {
					out[c] += v
				}
			}
		}
		if e.ReLU {
			for c, v := range row {
				if v < 0 {
					row[c] = 0
				}
			}
		}
	})
}
