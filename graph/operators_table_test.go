package graph

import (
	"math"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
)

var binaries = map[BinaryOp]func(a, b float64) float64{
	Add:     func(a, b float64) float64 { return a + b },
	Sub:     func(a, b float64) float64 { return a - b },
	Mul:     func(a, b float64) float64 { return a * b },
	Div:     func(a, b float64) float64 { return a / b },
	Max:     math.Max,
	Min:     math.Min,
	Pow:     math.Pow,
	Equal:   func(a, b float64) float64 { return truth(a == b) },
	Less:    func(a, b float64) float64 { return truth(a < b) },
	Greater: func(a, b float64) float64 { return truth(a > b) },
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func total(v []float64, f func(float64) float64) float64 {
	s := 0.
	for _, x := range v {
		s += f(x)
	}
	return s
}

var reductions = map[ReduceOp]func(v []float64) float64{
	Sum:       func(v []float64) float64 { return total(v, func(x float64) float64 { return x }) },
	Mean:      func(v []float64) float64 { return total(v, func(x float64) float64 { return x }) / float64(len(v)) },
	Largest:   slices.Max[[]float64],
	Least:     slices.Min[[]float64],
	L1:        func(v []float64) float64 { return total(v, math.Abs) },
	L2:        func(v []float64) float64 { return math.Sqrt(total(v, func(x float64) float64 { return x * x })) },
	SumSquare: func(v []float64) float64 { return total(v, func(x float64) float64 { return x * x }) },
}

// operators are the operations with attributes and shapes of all kinds.
func operators() []operator {
	type at = func(int, ...int) float64
	var all []operator
	add := func(o ...operator) { all = append(all, o...) }
	// Concat
	for axis, shapes := range [][]Shape{
		{{3, 2, 4}, {1, 2, 4}, {8, 2, 4}},
		{{3, 2, 4}, {3, 5, 4}},
		{{3, 2, 4}, {3, 2, 1}},
		{{2, 1, 3, 2}, {2, 1, 3, 1}},
	} {
		add(operator{name: "concat", op: &Concat{Axis: axis}, in: shapes, want: func(i []int, x at) float64 {
			j := append([]int(nil), i...)
			k := 0
			for ; j[axis] >= shapes[k][axis]; k++ {
				j[axis] -= shapes[k][axis]
			}
			return x(k, j...)
		}})
	}
	add(
		operator{name: "concat/vectors", op: &Concat{}, in: []Shape{{3}, {2}}},
		operator{name: "concat/sequences", op: &Concat{Axis: 1}, in: []Shape{{3, 2}, {3, 1}, {3, 5}}, want: func(i []int, x at) float64 {
			switch {
			case i[1] < 2:
				return x(0, i[0], i[1])
			case i[1] < 3:
				return x(1, i[0], i[1]-2)
			}
			return x(2, i[0], i[1]-3)
		}},
	)
	// Slice
	add(
		operator{name: "slice/channels", op: &Slice{[]Cut{{Start: 1, End: 3}}}, in: []Shape{{4, 2, 3}}, want: func(i []int, x at) float64 { return x(0, i[0]+1, i[1], i[2]) }},
		operator{name: "slice/steps", op: &Slice{[]Cut{{Axis: 1, End: End, Step: 2}, {Axis: 2, Start: -1, End: -100, Step: -1}}}, in: []Shape{{2, 5, 3}},
			want: func(i []int, x at) float64 { return x(0, i[0], 2*i[1], 2-i[2]) }},
		operator{name: "slice/negative", op: &Slice{[]Cut{{Axis: 3, Start: -3, End: -1}, {Start: 100, End: -3, Step: -2}}}, in: []Shape{{4, 1, 2, 5}},
			want: func(i []int, x at) float64 { return x(0, 3-2*i[0], i[1], i[2], 2+i[3]) }},
		operator{name: "slice/vector", op: &Slice{[]Cut{{Start: 2, End: End}}}, in: []Shape{{5}}, want: func(i []int, x at) float64 { return x(0, i[0]+2) }},
	)
	// Transpose, shuffle, squares, expand, reshape
	add(
		operator{name: "transpose/nhwc", op: &Transpose{[]int{2, 0, 1}}, in: []Shape{{2, 3, 4}}, want: func(i []int, x at) float64 { return x(0, i[1], i[2], i[0]) }},
		operator{name: "transpose/rank4", op: &Transpose{[]int{1, 0, 3, 2}}, in: []Shape{{2, 3, 4, 2}}, want: func(i []int, x at) float64 { return x(0, i[1], i[0], i[3], i[2]) }},
		operator{name: "transpose/sequence", op: &Transpose{[]int{1, 0}}, in: []Shape{{2, 5}}, want: func(i []int, x at) float64 { return x(0, i[1], i[0]) }},
		operator{name: "shuffle", op: &Shuffle{Groups: 2}, in: []Shape{{6, 2, 3}}, want: func(i []int, x at) float64 { return x(0, i[0]%2*3+i[0]/2, i[1], i[2]) }},
		operator{name: "depth_to_space", op: &DepthToSpace{Block: 2}, in: []Shape{{8, 2, 3}}, want: func(i []int, x at) float64 {
			return x(0, (i[1]%2*2+i[2]%2)*2+i[0], i[1]/2, i[2]/2)
		}},
		operator{name: "depth_to_space/channels", op: &DepthToSpace{Block: 2, Channels: true}, in: []Shape{{8, 2, 3}}, want: func(i []int, x at) float64 {
			return x(0, i[0]*4+i[1]%2*2+i[2]%2, i[1]/2, i[2]/2)
		}},
		operator{name: "space_to_depth", op: &SpaceToDepth{Block: 2}, in: []Shape{{3, 4, 2}}, want: func(i []int, x at) float64 {
			return x(0, i[0]%3, i[1]*2+i[0]/6, i[2]*2+i[0]/3%2)
		}},
		operator{name: "space_to_depth/channels", op: &SpaceToDepth{Block: 2, Channels: true}, in: []Shape{{3, 4, 2}}, want: func(i []int, x at) float64 {
			return x(0, i[0]/4, i[1]*2+i[0]/2%2, i[2]*2+i[0]%2)
		}},
		operator{name: "expand", op: &Expand{[]int{0, 3, 4}}, in: []Shape{{2, 1, 4}}, want: func(i []int, x at) float64 { return x(0, i[0], 0, i[2]) }},
		operator{name: "reshape/split", op: &Reshape{[]int{2, 3, 4, -1}}, in: []Shape{{6, 4, 5}}, want: func(i []int, x at) float64 { return x(0, 3*i[0]+i[1], i[2], i[3]) }},
		operator{name: "reshape/join", op: &Reshape{[]int{6, 4, 5}}, in: []Shape{{2, 3, 4, 5}}, want: func(i []int, x at) float64 { return x(0, i[0]/3, i[0]%3, i[1], i[2]) }},
		operator{name: "reshape/map", op: &Reshape{[]int{4, 3, -1}}, in: []Shape{{2, 3, 4}}, want: func(i []int, x at) float64 {
			k := (i[0]*3+i[1])*2 + i[2]
			return x(0, k/12, k/4%3, k%4)
		}},
		operator{name: "reshape/sequence", op: &Reshape{[]int{6, -1}}, in: []Shape{{6, 2, 3}}, want: func(i []int, x at) float64 { return x(0, i[0], i[1]/3, i[1]%3) }},
		operator{name: "flatten", op: &Flatten{}, in: []Shape{{2, 3, 4}}, want: func(i []int, x at) float64 { return x(0, i[0]/12, i[0]/4%3, i[0]%4) }},
	)
	// Binary
	for op, f := range binaries {
		for _, s := range [][]Shape{
			{{3, 2, 4}, {3, 2, 4}}, {{9, 2, 3}, {9, 1, 1}}, {{2, 1, 3}, {2, 4, 1}}, {{1, 1, 1}, {3, 2, 2}}, {{4}, {1}}, {{3, 4}, {3, 1}}, {{2, 3, 1, 2}, {1, 3, 2, 2}},
		} {
			add(operator{name: "binary/" + string(op), op: &Binary{op}, in: s, positive: op == Pow || op == Div, want: func(i []int, x at) float64 {
				var v [2]float64
				for k, in := range s {
					j := append([]int(nil), i...)
					for a, d := range in {
						j[a] = min(j[a], d-1)
					}
					v[k] = x(k, j...)
				}
				return f(v[0], v[1])
			}})
		}
	}
	// Softmax
	for _, log := range []bool{false, true} {
		soft := func(axes []int, shape Shape) operator {
			return operator{name: "softmax", op: &Softmax{Axes: axes, Log: log}, in: []Shape{shape}, want: func(i []int, x at) float64 {
				total := 0.
				each(shape, func(j []int) {
					same := true
					for a := range j {
						same = same && (i[a] == j[a] || slices.Contains(axes, a))
					}
					if same {
						total += math.Exp(x(0, j...))
					}
				})
				if v := x(0, i...); !log {
					return math.Exp(v) / total
				} else {
					return v - math.Log(total)
				}
			}}
		}
		add(soft([]int{0}, Shape{5}), soft([]int{0}, Shape{4, 2, 3}), soft([]int{2}, Shape{2, 3, 4}), soft([]int{1}, Shape{3, 5}),
			soft([]int{0, 1, 2}, Shape{2, 2, 3}), soft([]int{3}, Shape{2, 1, 2, 3}), soft([]int{1}, Shape{2, 3, 2, 2}), soft([]int{0}, Shape{3, 1, 1}))
	}
	// Norms
	weights := func(n int, from, step float32) []float32 {
		w := make([]float32, n)
		for i := range w {
			w[i] = from + step*float32(i)
		}
		return w
	}
	norm := func(name string, op Op, shape Shape, eps float64, weight, bias []float32, group func(i []int) int, place func(i []int) int) {
		add(operator{name: name, op: op, in: []Shape{shape}, want: func(i []int, x at) float64 {
			var n, sum, square float64
			each(shape, func(j []int) {
				if group(i) == group(j) {
					v := x(0, j...)
					n, sum, square = n+1, sum+v, square+v*v
				}
			})
			mean := sum / n
			v := (x(0, i...) - mean) / math.Sqrt(square/n-mean*mean+eps)
			if weight != nil {
				v = v*float64(weight[place(i)]) + float64(bias[place(i)])
			}
			return v
		}})
	}
	w4, b4 := weights(4, .5, .25), weights(4, -1, .5)
	channel := func(i []int) int { return i[0] }
	norm("groupnorm", NewGroupNorm(2, .01, w4, b4), Shape{4, 2, 3}, .01, w4, b4, func(i []int) int { return i[0] / 2 }, channel)
	norm("groupnorm/instance", NewGroupNorm(0, .01, nil, nil), Shape{3, 2, 3}, .01, nil, nil, channel, nil)
	norm("groupnorm/sequence", NewGroupNorm(1, .1, w4, b4), Shape{4, 5}, .1, w4, b4, func([]int) int { return 0 }, channel)
	norm("layernorm/channels", NewLayerNorm([]int{0}, []int{4}, .1, w4, b4), Shape{4, 2, 3}, .1, w4, b4, func(i []int) int { return i[1]*3 + i[2] }, channel)
	w12, b12 := weights(12, .5, .125), weights(12, -1, .25)
	norm("layernorm/all", NewLayerNorm([]int{0, 1, 2}, []int{3, 2, 2}, .1, w12, b12), Shape{3, 2, 2}, .1, w12, b12, func([]int) int { return 0 },
		func(i []int) int { return (i[0]*2+i[1])*2 + i[2] })
	norm("layernorm/last", NewLayerNorm([]int{2}, []int{4}, .1, w4, b4), Shape{3, 2, 4}, .1, w4, b4, func(i []int) int { return i[0]*2 + i[1] }, func(i []int) int { return i[2] })
	norm("layernorm/rank4", NewLayerNorm([]int{2, 3}, nil, .1, nil, nil), Shape{2, 1, 3, 2}, .1, nil, nil, func(i []int) int { return i[0] }, nil)
	// PReLU, LRN
	slope := func(w []float32) func(i []int, x at) float64 {
		return func(i []int, x at) float64 {
			v := x(0, i...)
			return max(v, 0) + float64(w[i[0]%len(w)])*min(v, 0)
		}
	}
	add(
		operator{name: "prelu", op: &PReLU{w4}, in: []Shape{{4, 2, 3}}, want: slope(w4)},
		operator{name: "prelu/one", op: &PReLU{w4[:1]}, in: []Shape{{5}}, want: slope(w4[:1])},
		operator{name: "lrn", op: &LRN{Size: 3, Alpha: .5, Beta: .75, Bias: 1}, in: []Shape{{5, 2, 2}}, want: func(i []int, x at) float64 {
			sum := 0.
			for c := max(i[0]-1, 0); c < min(i[0]+2, 5); c++ {
				v := x(0, c, i[1], i[2])
				sum += v * v
			}
			return x(0, i...) / math.Pow(1+.5/3*sum, .75)
		}},
	)
	// Reduce
	for op, f := range reductions {
		for _, k := range []struct {
			shape Shape
			axes  []int
		}{{Shape{3, 2, 4}, []int{1, 2}}, {Shape{3, 2, 4}, []int{0}}, {Shape{3, 4}, []int{1}}, {Shape{2, 3, 1, 4}, []int{1, 3}}, {Shape{5}, []int{0}}, {Shape{9, 3, 2}, []int{2, 0}}} {
			add(operator{name: "reduce/" + string(op), op: &Reduce{op, k.axes}, in: []Shape{k.shape}, want: func(i []int, x at) float64 {
				var all []float64
				each(k.shape, func(j []int) {
					for a := range j {
						if j[a] != i[a] && !slices.Contains(k.axes, a) {
							return
						}
					}
					all = append(all, x(0, j...))
				})
				return f(all)
			}})
		}
	}
	// Pad
	pad := func(mode string, shape Shape, begin, end []int, source func(i, n int) int) {
		add(operator{name: "pad/" + mode, op: &Pad{Mode: mode, Begin: begin, End: end, Value: 1.5}, in: []Shape{shape}, want: func(i []int, x at) float64 {
			j := make([]int, len(i))
			for a, n := range shape {
				if j[a] = source(i[a]-begin[a], n); j[a] < 0 {
					return 1.5
				}
			}
			return x(0, j...)
		}})
	}
	constant := func(i, n int) int {
		if i >= n {
			return -1
		}
		return i
	}
	pad("constant", Shape{2, 3, 3}, []int{0, 1, 2}, []int{0, 3, -1}, constant)
	pad("constant", Shape{2, 2, 3}, []int{1, 0, -1}, []int{2, 1, 0}, constant)
	pad("constant", Shape{3}, []int{2}, []int{1}, constant)
	pad("constant", Shape{2, 3}, []int{0, 1}, []int{0, 1}, constant)
	pad("reflect", Shape{2, 3, 4}, []int{0, 2, 1}, []int{0, 1, 3}, func(i, n int) int { return min(max(i, -i), 2*(n-1)-max(i, -i)) })
	pad("edge", Shape{2, 3, 4}, []int{0, 2, 1}, []int{0, 1, 0}, func(i, n int) int { return min(max(i, 0), n-1) })
	pad("wrap", Shape{2, 4}, []int{0, 2}, []int{0, 3}, func(i, n int) int { return (i + n) % n })
	// Resize
	add(
		operator{name: "resize/nearest", op: &Resize{Scale: [2]float64{2, 3}, Mode: "nearest", Coordinates: "asymmetric", Rounding: "floor"}, in: []Shape{{2, 2, 3}},
			want: func(i []int, x at) float64 { return x(0, i[0], i[1]/2, i[2]/3) }},
		operator{name: "resize/corners", op: &Resize{Size: [2]int{3, 5}, Coordinates: "align_corners"}, in: []Shape{{2, 2, 3}}, want: func(i []int, x at) float64 {
			line := func(r int) float64 {
				a := i[2] / 2
				return x(0, i[0], r, a) + float64(i[2]%2)/2*(x(0, i[0], r, min(a+1, 2))-x(0, i[0], r, a))
			}
			return line(0) + float64(i[1])/2*(line(1)-line(0))
		}},
		operator{name: "resize/like", op: &Resize{}, in: []Shape{{2, 2, 3}, {1, 4, 5}}},
		operator{name: "resize/cubic", op: &Resize{Size: [2]int{5, 4}, Mode: "cubic"}, in: []Shape{{2, 3, 4}}},
		operator{name: "resize/sequence", op: &Resize{Scale: [2]float64{1, .5}, Mode: "nearest", Coordinates: "asymmetric", Rounding: "floor"}, in: []Shape{{2, 4}},
			want: func(i []int, x at) float64 { return x(0, i[0], 2*i[1]) }},
	)
	// Transposed convolutions
	for _, k := range []struct {
		kernel [4]int
		bias   bool
		g      conv.Geometry
		more   [2]int
		in     Shape
	}{
		{[4]int{3, 2, 2, 2}, true, conv.Geometry{Stride: [2]int{2, 2}}, [2]int{}, Shape{3, 2, 2}},
		{[4]int{4, 2, 3, 2}, false, conv.Geometry{Stride: [2]int{2, 1}, Padding: [2]int{1, 0}, Groups: 2, Dilation: [2]int{1, 2}}, [2]int{1, 0}, Shape{4, 2, 3}},
		{[4]int{2, 3, 1, 3}, true, conv.Geometry{Stride: [2]int{1, 2}, Padding: [2]int{0, 1}}, [2]int{0, 1}, Shape{2, 3}},
	} {
		n := k.kernel[0] * k.kernel[1] * k.kernel[2] * k.kernel[3]
		w := weights(n, -.5, 1/float32(n))
		var b []float32
		g := k.g.Normal()
		if k.bias {
			b = weights(k.kernel[1]*g.Groups, .25, .5)
		}
		op, err := NewConvTranspose(k.kernel, w, b, k.g, k.more)
		if err != nil {
			panic(err)
		}
		add(operator{name: "conv_transpose", op: op, in: []Shape{k.in}, want: func(i []int, x at) float64 {
			var sum float64
			if b != nil {
				sum = float64(b[i[0]])
			}
			outs, ins := k.kernel[1], k.kernel[0]/g.Groups
			group := i[0] / outs
			row, col := 0, i[len(i)-1]
			if len(i) == 3 {
				row = i[1]
			}
			h, wd, _ := k.in.Layout()
			for s := group * ins; s < (group+1)*ins; s++ {
				for r := range h {
					for c := range wd {
						for kr := range k.kernel[2] {
							for kc := range k.kernel[3] {
								if r*g.Stride[0]-g.Padding[0]+kr*g.Dilation[0] != row || c*g.Stride[1]-g.Padding[1]+kc*g.Dilation[1] != col {
									continue
								}
								v := x(0, append([]int{s}, []int{r, c}[3-len(k.in):]...)...)
								sum += v * float64(w[((s*outs+i[0]%outs)*k.kernel[2]+kr)*k.kernel[3]+kc])
							}
						}
					}
				}
			}
			return sum
		}})
	}
	return all
}

// each calls f with every index of a shape.
func each(s Shape, f func(i []int)) {
	i := make([]int, len(s))
	for range s.Len() {
		f(i)
		for a := len(i) - 1; a >= 0; a-- {
			if i[a]++; i[a] < s[a] {
				break
			}
			i[a] = 0
		}
	}
}
