package nn

// A strided array is memory in which value (i, j, …) of dimensions d lies at
// i·stride[0] + j·stride[1] + …. A stride of 0 repeats values along its dimension.

// contiguous is the strides of dims in row-major order, without gaps.
func contiguous(dims []int) []int {
	s := make([]int, len(dims))
	n := 1
	for i := len(dims) - 1; i >= 0; i-- {
		s[i] = n
		n *= dims[i]
	}
	return s
}

// volume is the number of values of dims.
func volume(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}

// collapse leaves out dimensions of 1 and makes one of neighbours that are one in each of
// the arrays. At least one dimension is left.
func collapse(dims []int, strides ...[]int) ([]int, [][]int) {
	var d []int
	s := make([][]int, len(strides))
	for i, n := range dims {
		if n == 1 {
			continue
		}
		merge := len(d) > 0
		for k := range s {
			merge = merge && s[k][len(d)-1] == strides[k][i]*n
		}
		if merge {
			d[len(d)-1] *= n
			for k := range s {
				s[k][len(d)-1] = strides[k][i]
			}
			continue
		}
		d = append(d, n)
		for k := range s {
			s[k] = append(s[k], strides[k][i])
		}
	}
	if len(d) == 0 {
		d = []int{1}
		for k := range s {
			s[k] = []int{0}
		}
	}
	return d, s
}

// odometer counts through the values of several strided arrays of the same dimensions.
type odometer struct {
	dims    []int
	strides [][]int
	index   []int
	at      []int // where the value is in each array
}

// newOdometer stands at value i in row-major order.
func newOdometer(dims []int, strides [][]int, i int) *odometer {
	o := &odometer{dims: dims, strides: strides, index: make([]int, len(dims)), at: make([]int, len(strides))}
	for a := len(dims) - 1; a >= 0; a-- {
		o.index[a] = i % dims[a]
		i /= dims[a]
		for k := range strides {
			o.at[k] += o.index[a] * strides[k][a]
		}
	}
	return o
}

func (o *odometer) next() {
	for a := len(o.dims) - 1; a >= 0; a-- {
		if o.index[a]++; o.index[a] < o.dims[a] {
			for k := range o.at {
				o.at[k] += o.strides[k][a]
			}
			return
		}
		o.index[a] = 0
		for k := range o.at {
			o.at[k] -= (o.dims[a] - 1) * o.strides[k][a]
		}
	}
}

// outer is the strides without the last n dimensions.
func outer(strides [][]int, n int) [][]int {
	out := make([][]int, len(strides))
	for k, s := range strides {
		out[k] = s[:len(s)-n]
	}
	return out
}

// eachRow calls f for pieces of at most blockValues values along the last dimension of
// strided arrays, with where the first is in each.
func eachRow(d []int, strides [][]int, workers int, f func(at []int, n int)) {
	last := len(d) - 1
	n := d[last]
	if n == 0 {
		return
	}
	blocks := (n + blockValues - 1) / blockValues
	spread(workers, volume(d[:last])*blocks, min(n, blockValues), func(from, to int) {
		o := newOdometer(d[:last], outer(strides, 1), from/blocks)
		at := make([]int, len(strides))
		for i := from; i < to; i++ {
			first := i % blocks * blockValues
			for k, s := range strides {
				at[k] = o.at[k] + first*s[last]
			}
			f(at, min(blockValues, n-first))
			if i%blocks == blocks-1 {
				o.next()
			}
		}
	})
}
