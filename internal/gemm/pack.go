package gemm

// pack copies the n×k operand x to dst in panels of width rows, mr or nr: element
// (i, p) goes to dst[(i/width)·width·k + p·width + i%width]. The places of rows
// that a last, narrower panel lacks are left as they are. To pack columns, pass
// the transposed operand.
func pack[T float](kr *kernel[T], dst []T, width int, x view[T], n, k int) {
	if x.rs == 1 {
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
		if h := n - whole*width; h > 0 {
			panel := dst[whole*width*k:]
			for p := range k {
				copy(panel[p*width:p*width+h], x.data[whole*width+p*x.cs:])
			}
		}
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

// t is the transposed operand.
func (x view[T]) t() view[T] { return view[T]{x.data, x.cs, x.rs} }
