package gemm

// pack copies the n×k operand x to dst in panels of width rows, nr or at most mr: element
// (i, p) goes to dst[(i/width)·width·k + p·width + i%width]. The places of rows
// that a last, narrower panel lacks are left as they are. To pack columns, pass
// the transposed operand.
func pack[T float](kr *kernel[T], dst []T, width int, x view[T], n, k int) {
	switch {
	case x.rs == 1 && width == 4 && width != kr.mr && width != kr.nr:
		for i := 0; i+4 <= n; i += 4 {
			for p := range k {
				*(*[4]T)(dst[i*k+4*p:]) = *(*[4]T)(x.data[i+p*x.cs:])
			}
		}
		packRest(dst, width, x, n, k)
		return
	case x.rs == 1 && width != kr.mr && width != kr.nr:
		for i := 0; i+width <= n; i += width {
			for p := range k {
				copy(dst[i*k+p*width:][:width], x.data[i+p*x.cs:])
			}
		}
		packRest(dst, width, x, n, k)
		return
	case x.rs == 1:
		strips := kr.stripsA
		if width == kr.nr {
			strips = kr.stripsB
		}
		// Some panels at a time: enough to read long pieces of rows, few enough
		// for the cache to gather what is written.
		const group = 8
		whole := n / width
		for q := 0; q < whole; q += group {
			strips(k, x.data[q*width:], x.cs, dst[q*width*k:], min(group, whole-q), width*k)
		}
		packRest(dst, width, x, n, k)
		return
	}
	for i := 0; i < n; i += width {
		h := min(width, n-i)
		panel := dst[i*k : i*k+width*k]
		src := x.data[i*x.rs:]
		if h < 4 {
			for r := range h {
				for p := range k {
					panel[p*width+r] = src[r*x.rs+p*x.cs]
				}
			}
			continue
		}
		// Strips of four rows; the last overlaps its neighbour where four does
		// not divide the height.
		for r := 0; r < h; r += 4 {
			r = min(r, h-4)
			kr.transpose(k, src[r*x.rs:], x.rs, panel[r:], width)
		}
	}
}

// packRest is the last panel where that has fewer rows, of an operand whose rows
// lie one after another.
func packRest[T float](dst []T, width int, x view[T], n, k int) {
	whole := n / width * width
	h := n - whole
	if h == 0 {
		return
	}
	for p := range k {
		copy(dst[whole*k+p*width:][:h], x.data[whole+p*x.cs:])
	}
}

// t is the transposed operand.
func (x view[T]) t() view[T] { return view[T]{x.data, x.cs, x.rs} }
