package graph

import "math"

var binaries = map[BinaryOp]func(a, b float64) float64{
	Add: func(a, b float64) float64 { return a + b },
	Sub: func(a, b float64) float64 { return a - b },
	Mul: func(a, b float64) float64 { return a * b },
	Div: func(a, b float64) float64 { return a / b },
	Max: math.Max,
	Min: math.Min,
	Pow: math.Pow,
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
	return all
}
