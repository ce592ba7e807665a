package tensorops

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gorgonia.org/tensor"
	"pgregory.net/rapid"
)

// each calls f for every index of a tensor of the given shape, in row-major
// order.
func each(shape []int, f func(at int, index []int)) {
	index := make([]int, len(shape))
	for at := range Product(shape) {
		f(at, index)
		for d := len(shape) - 1; d >= 0; d-- {
			if index[d]++; index[d] < shape[d] {
				break
			}
			index[d] = 0
		}
	}
}

func normal(rng *rand.Rand, n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = rng.NormFloat64()
	}
	return v
}

func draw(t *rapid.T) (shape []int, data []float64, rng *rand.Rand) {
	shape = rapid.SliceOfN(rapid.IntRange(1, 6), 1, 5).Draw(t, "shape")
	rng = rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
	return shape, normal(rng, Product(shape)), rng
}

func mustMatch(t rapid.TB, what string, got, want []float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s has %d values, want %d", what, len(got), len(want))
	}
	for i, w := range want {
		if math.Abs(got[i]-w) > 1e-11*max(1, math.Abs(w)) {
			t.Fatalf("%s: value %d is %.17g, want %.17g", what, i, got[i], w)
		}
	}
}

// column is the index of a mode-n unfolding's column: the other modes in their
// order, the last fastest.
func column(shape, index []int, n int) int {
	c := 0
	for d, i := range index {
		if d != n {
			c = c*shape[d] + i
		}
	}
	return c
}

func naiveUnfold(shape []int, data []float64, n int) []float64 {
	out := make([]float64, len(data))
	cols := len(data) / shape[n]
	each(shape, func(at int, index []int) { out[index[n]*cols+column(shape, index, n)] = data[at] })
	return out
}

func TestUnfoldPlacesEveryEntry(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape, data, _ := draw(t)
		for n := range shape {
			if got := Unfold(shape, data, n); !slices.Equal(got, naiveUnfold(shape, data, n)) {
				t.Fatalf("mode %d of %v: %v", n, shape, got)
			}
		}
	})
}

func TestGramIsUnfoldingTimesItsTranspose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape, data, _ := draw(t)
		for n, size := range shape {
			u, cols := naiveUnfold(shape, data, n), len(data)/size
			want := make([]float64, size*size)
			for i := range size {
				for j := range size {
					want[i*size+j] = Dot(u[i*cols:(i+1)*cols], u[j*cols:(j+1)*cols])
				}
			}
			mustMatch(t, "Gram", Gram(1, shape, data, n), want)
		}
	})
}

func TestMulModeMatchesTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape, data, rng := draw(t)
		r := rapid.IntRange(1, 7).Draw(t, "r")
		for n, size := range shape {
			m := normal(rng, r*size)
			trans := make([]float64, len(m))
			for i := range r {
				for j := range size {
					trans[j*r+i] = m[i*size+j]
				}
			}
			wantShape := slices.Clone(shape)
			wantShape[n] = r
			want := make([]float64, len(data)/size*r)
			each(wantShape, func(at int, index []int) {
				src := 0
				for d, i := range index {
					if d == n {
						i = 0
					}
					src = src*shape[d] + i
				}
				step := Product(shape[n+1:])
				for j := range size {
					want[at] += m[index[n]*size+j] * data[src+j*step]
				}
			})
			gotShape, got := MulMode(2, shape, data, n, false, m, r)
			if !slices.Equal(gotShape, wantShape) {
				t.Fatalf("mode %d of %v: shape %v, want %v", n, shape, gotShape, wantShape)
			}
			mustMatch(t, "product", got, want)
			_, got = MulMode(2, shape, data, n, true, trans, r)
			mustMatch(t, "product with the transpose", got, want)
		}
	})
}

func naiveMTTKRP(shape []int, data []float64, factors [][]float64, n, r int) []float64 {
	out := make([]float64, shape[n]*r)
	each(shape, func(at int, index []int) {
		for c := range r {
			p := data[at]
			for d, i := range index {
				if d != n {
					p *= factors[d][i*r+c]
				}
			}
			out[index[n]*r+c] += p
		}
	})
	return out
}

// mttkrps are those of all modes with the same factors.
func mttkrps(workers int, shape []int, data []float64, factors [][]float64, r int) [][]float64 {
	var all [][]float64
	NewTree[float64](workers, shape, r).Each(data, factors, func(_ int, m []float64) error {
		all = append(all, slices.Clone(m))
		return nil
	})
	return all
}

// mttkrp is that of one mode, whose factor may be nil.
func mttkrp(workers int, shape []int, data []float64, factors [][]float64, n, r int) []float64 {
	factors = slices.Clone(factors)
	if factors[n] == nil {
		factors[n] = make([]float64, shape[n]*r)
	}
	return mttkrps(workers, shape, data, factors, r)[n]
}

func TestTreeUsesTheFactorsOfTheMoment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape, data, rng := draw(t)
		r := rapid.IntRange(1, 20).Draw(t, "r")
		factors, single := make([][]float64, len(shape)), make([][]float32, len(shape))
		for n, d := range shape {
			factors[n], single[n] = normal(rng, d*r), make([]float32, d*r)
		}
		narrow := func(v []float64, to []float32) {
			for i, x := range v {
				to[i] = float32(x)
				v[i] = float64(to[i])
			}
		}
		data32 := make([]float32, len(data))
		narrow(data, data32)
		for n := range shape {
			narrow(factors[n], single[n])
		}
		tree, half := NewTree[float64](2, shape, r), NewTree[float32](1, shape, r)
		for range 2 {
			want := slices.Clone(factors)
			for n, d := range shape {
				want[n] = normal(rng, d*r)
				narrow(want[n], make([]float32, d*r))
			}
			calls := 0
			if err := tree.Each(data, factors, func(n int, m []float64) error {
				if n != calls {
					t.Fatalf("call %d is of mode %d", calls, n)
				}
				calls++
				mustMatch(t, "MTTKRP", m, naiveMTTKRP(shape, data, factors, n, r))
				factors[n] = want[n]
				clear(m) // it is ours
				return nil
			}); err != nil || calls != len(shape) {
				t.Fatalf("%d calls, error %v", calls, err)
			}
			half.Each(data32, single, func(n int, m []float32) error {
				wide := make([][]float64, len(shape))
				for k, u := range single {
					wide[k] = make([]float64, len(u))
					for i, x := range u {
						wide[k][i] = float64(x)
					}
				}
				var size float64
				exact := naiveMTTKRP(shape, data, wide, n, r)
				for _, v := range exact {
					size = max(size, math.Abs(v))
				}
				for i, v := range m {
					if math.Abs(float64(v)-exact[i]) > 1e-4*max(size, 1) {
						t.Fatalf("float32, mode %d: value %d is %g, want %g", n, i, v, exact[i])
					}
				}
				narrow(slices.Clone(want[n]), single[n])
				return nil
			})
		}
	})
}

func TestTreeStopsAtAnError(t *testing.T) {
	stop, calls := errors.New("stop"), 0
	err := NewTree[float64](1, []int{2, 3, 4}, 1).Each(iota(24), [][]float64{{1, 1}, {1, 1, 1}, {1, 1, 1, 1}}, func(n int, _ []float64) error {
		if calls++; n == 1 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || calls != 2 {
		t.Errorf("error %v after %d calls", err, calls)
	}
}

func TestMTTKRPMatchesTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape, data, rng := draw(t)
		r := rapid.IntRange(1, 7).Draw(t, "r")
		factors := make([][]float64, len(shape))
		for n, d := range shape {
			factors[n] = normal(rng, d*r)
		}
		for n, m := range mttkrps(1, shape, data, factors, r) {
			mustMatch(t, "MTTKRP", m, naiveMTTKRP(shape, data, factors, n, r))
		}
	})
}

func TestKruskalAndKhatriRaoMatchTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape, data, rng := draw(t)
		r := rapid.IntRange(1, 7).Draw(t, "r")
		factors := make([][]float64, len(shape))
		for n, d := range shape {
			factors[n] = normal(rng, d*r)
		}
		sum, kr := make([]float64, len(data)), make([]float64, len(data)*r)
		each(shape, func(at int, index []int) {
			for c := range r {
				p := 1.0
				for d, i := range index {
					p *= factors[d][i*r+c]
				}
				kr[at*r+c] = p
				sum[at] += p
			}
		})
		mustMatch(t, "Khatri-Rao product", KhatriRao(2, nil, shape, factors, r), kr)
		mustMatch(t, "Kruskal tensor", Kruskal(1, shape, factors, r), sum)
	})
}

func TestKhatriRaoOfNothingIsOnes(t *testing.T) {
	if got := KhatriRao[float64](1, nil, nil, nil, 3); !slices.Equal(got, []float64{1, 1, 1}) {
		t.Errorf("got %v, want one row of ones", got)
	}
}

// Integers from the reference tests of other tensor packages.
func TestMTTKRPIsExactOnIntegers(t *testing.T) {
	ones := func(n int) []float64 { return slices.Repeat([]float64{1}, n) }
	check := func(shape []int, data []float64, factors [][]float64, n int, want []float64) {
		t.Helper()
		if got := mttkrp(0, shape, data, factors, n, 2); !slices.Equal(got, want) {
			t.Errorf("mode %d of %v: got %v, want %v", n, shape, got, want)
		}
	}
	a, b := []float64{1, 3, 2, 4}, []float64{5, 8, 6, 9, 7, 10}
	c := []float64{11, 15, 12, 16, 13, 17, 14, 18}
	double := func(v []float64) []float64 {
		w := slices.Clone(v)
		for i := range w {
			w[i] *= 2
		}
		return w
	}
	rows := func(x, y float64, n int) []float64 { return slices.Repeat([]float64{x, y}, n) }
	shape := []int{2, 3, 4}
	check(shape, ones(24), [][]float64{nil, double(b), c}, 0, rows(1800, 3564, 2))
	check(shape, ones(24), [][]float64{double(a), nil, c}, 1, rows(300, 924, 3))
	check(shape, ones(24), [][]float64{double(a), b, nil}, 2, rows(108, 378, 4))

	shape = []int{2, 3, 4, 5, 6}
	data := make([]float64, 720)
	each(shape, func(at int, index []int) {
		v := 0 // the first index fastest
		for d := len(shape) - 1; d >= 0; d-- {
			v = v*shape[d] + index[d]
		}
		data[at] = float64(v + 1)
	})
	factors := make([][]float64, 5)
	for n, d := range shape {
		factors[n] = ones(2 * d)
	}
	for n, sums := range [][]float64{
		{129600, 129960},
		{86040, 86520, 87000},
		{63270, 64350, 65430, 66510},
		{45000, 48456, 51912, 55368, 58824},
		{7260, 21660, 36060, 50460, 64860, 79260},
	} {
		var want []float64
		for _, s := range sums {
			want = append(want, s, s)
		}
		check(shape, data, factors, n, want)
	}
}

func TestSplitIsInsideAndLeast(t *testing.T) {
	for _, c := range []struct {
		shape []int
		want  int
	}{{[]int{7}, 1}, {[]int{3, 4}, 1}, {[]int{64, 64, 9}, 1}, {[]int{2, 3, 50}, 2}, {[]int{4, 4, 4, 4}, 2}, {[]int{1, 1, 1}, 1}} {
		if got := Split(c.shape); got != c.want {
			t.Errorf("Split(%v) is %d, want %d", c.shape, got, c.want)
		}
	}
}

func TestResultsDoNotDependOnWorkers(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	shape := []int{31, 40, 17}
	data := normal(rng, Product(shape))
	factors := make([][]float64, 3)
	for n, d := range shape {
		factors[n] = normal(rng, d*12)
	}
	for n := range shape {
		for _, workers := range []int{2, 3, 0} {
			if !slices.Equal(mttkrp(1, shape, data, factors, n, 12), mttkrp(workers, shape, data, factors, n, 12)) {
				t.Errorf("MTTKRP of mode %d differs with %d workers", n, workers)
			}
			if !slices.Equal(Gram(1, shape, data, n), Gram(workers, shape, data, n)) {
				t.Errorf("Gram matrix of mode %d differs with %d workers", n, workers)
			}
			_, one := MulMode(1, shape, data, n, true, factors[n], 12)
			_, many := MulMode(workers, shape, data, n, true, factors[n], 12)
			if !slices.Equal(one, many) {
				t.Errorf("product in mode %d differs with %d workers", n, workers)
			}
		}
	}
}

func TestNormNeitherOverflowsNorUnderflows(t *testing.T) {
	for _, c := range []struct {
		v    []float64
		want float64
	}{
		{nil, 0},
		{[]float64{0, 0}, 0},
		{[]float64{3, -4}, 5},
		{[]float64{3e200, 4e200}, 5e200},
		{[]float64{3e-200, -4e-200}, 5e-200},
		{[]float64{-3e307, 4e307}, 5e307},
		{[]float64{3e-310, 4e-310}, 5e-310},
		{[]float64{math.SmallestNonzeroFloat64}, math.SmallestNonzeroFloat64},
		{[]float64{math.MaxFloat64}, math.MaxFloat64},
		{[]float64{1e200, 1e-200}, 1e200},
	} {
		if got := Norm(c.v); math.Abs(got-c.want) > 1e-13*c.want {
			t.Errorf("norm of %v is %g, want %g", c.v, got, c.want)
		}
	}
	if got := Norm([]float64{1, math.Inf(-1)}); !math.IsInf(got, 1) {
		t.Errorf("norm with an infinity is %g", got)
	}
	if got := Norm([]float64{1, math.NaN(), 2}); !math.IsNaN(got) {
		t.Errorf("norm with a NaN is %g", got)
	}
}

func iota(n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = float64(i)
	}
	return v
}

func TestViewAliasesContiguousFloat64(t *testing.T) {
	data := iota(24)
	x := Wrap([]int{2, 3, 4}, data)
	shape, got, err := View(x)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(shape, []int{2, 3, 4}) || &got[0] != &data[0] || len(got) != 24 {
		t.Errorf("shape %v, %d values, aliased %v", shape, len(got), &got[0] == &data[0])
	}
	shape[0] = 99
	if x.Shape()[0] != 2 {
		t.Error("the shape is shared with the tensor")
	}
	// A leading slice of rows is contiguous too.
	rows, err := x.Slice(tensor.S(1, 2), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	shape, got, err = View(rows.(*tensor.Dense))
	if err != nil || !slices.Equal(shape, []int{3, 4}) || &got[0] != &data[12] || len(got) != 12 {
		t.Errorf("second row: shape %v, values %v, error %v", shape, got, err)
	}
}

func TestViewWidensFloat32(t *testing.T) {
	x := tensor.New(tensor.WithShape(3), tensor.WithBacking([]float32{1, 0.1, math.MaxFloat32}))
	_, got, err := View(x)
	if want := []float64{1, float64(float32(0.1)), math.MaxFloat32}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

// TestViewCopiesSlicesAndTransposes reads entry (i,j,k,…) of views through View
// and compares with where that entry lies in the original.
func TestViewCopiesSlicesAndTransposes(t *testing.T) {
	const d0, d1, d2 = 4, 5, 6
	at := func(i, j, k int) float64 { return float64((i*d1+j)*d2 + k) }
	slice := func(t *testing.T, x *tensor.Dense, s ...tensor.Slice) *tensor.Dense {
		v, err := x.Slice(s...)
		if err != nil {
			t.Fatal(err)
		}
		return v.(*tensor.Dense)
	}
	turn := func(t *testing.T, x *tensor.Dense, axes ...int) *tensor.Dense {
		if err := x.T(axes...); err != nil {
			t.Fatal(err)
		}
		return x
	}
	for name, c := range map[string]struct {
		view  func(t *testing.T, x *tensor.Dense) *tensor.Dense
		shape []int
		entry func(i []int) float64
	}{
		"middle slice": {func(t *testing.T, x *tensor.Dense) *tensor.Dense { return slice(t, x, nil, tensor.S(1, 4), nil) },
			[]int{4, 3, 6}, func(i []int) float64 { return at(i[0], i[1]+1, i[2]) }},
		"last slice": {func(t *testing.T, x *tensor.Dense) *tensor.Dense { return slice(t, x, nil, nil, tensor.S(2, 5)) },
			[]int{4, 5, 3}, func(i []int) float64 { return at(i[0], i[1], i[2]+2) }},
		"steps": {func(t *testing.T, x *tensor.Dense) *tensor.Dense {
			return slice(t, x, nil, tensor.S(0, 5, 2), tensor.S(1, 6, 2))
		}, []int{4, 3, 3}, func(i []int) float64 { return at(i[0], 2*i[1], 2*i[2]+1) }},
		"one index": {func(t *testing.T, x *tensor.Dense) *tensor.Dense { return slice(t, x, nil, tensor.S(3), nil) },
			[]int{4, 6}, func(i []int) float64 { return at(i[0], 3, i[1]) }},
		"a fibre": {func(t *testing.T, x *tensor.Dense) *tensor.Dense { return slice(t, x, nil, tensor.S(3), tensor.S(2)) },
			[]int{4}, func(i []int) float64 { return at(i[0], 3, 2) }},
		"a slice of a slice": {func(t *testing.T, x *tensor.Dense) *tensor.Dense {
			return slice(t, slice(t, x, tensor.S(1, 4), tensor.S(1, 4), nil), tensor.S(1, 3), tensor.S(0, 2), nil)
		}, []int{2, 2, 6}, func(i []int) float64 { return at(i[0]+2, i[1]+1, i[2]) }},
		"rows of a column slice": {func(t *testing.T, x *tensor.Dense) *tensor.Dense {
			return slice(t, slice(t, x, nil, nil, tensor.S(1, 3)), tensor.S(1, 3))
		}, []int{2, 5, 2}, func(i []int) float64 { return at(i[0]+1, i[1], i[2]+1) }},
		"transpose": {func(t *testing.T, x *tensor.Dense) *tensor.Dense { return turn(t, x) },
			[]int{6, 5, 4}, func(i []int) float64 { return at(i[2], i[1], i[0]) }},
		"permutation": {func(t *testing.T, x *tensor.Dense) *tensor.Dense { return turn(t, x, 2, 0, 1) },
			[]int{6, 4, 5}, func(i []int) float64 { return at(i[1], i[2], i[0]) }},
		"transpose, moved": {func(t *testing.T, x *tensor.Dense) *tensor.Dense {
			turn(t, x, 1, 2, 0)
			if err := x.Transpose(); err != nil {
				t.Fatal(err)
			}
			return x
		}, []int{5, 6, 4}, func(i []int) float64 { return at(i[2], i[0], i[1]) }},
		"transpose of a slice": {func(t *testing.T, x *tensor.Dense) *tensor.Dense {
			return turn(t, slice(t, x, nil, tensor.S(1, 3), nil), 1, 0, 2)
		}, []int{2, 4, 6}, func(i []int) float64 { return at(i[1], i[0]+1, i[2]) }},
		"slice of a transpose": {func(t *testing.T, x *tensor.Dense) *tensor.Dense {
			return slice(t, turn(t, x, 1, 0, 2), tensor.S(1, 3), nil, tensor.S(2, 6))
		}, []int{2, 4, 4}, func(i []int) float64 { return at(i[1], i[0]+1, i[2]+2) }},
	} {
		t.Run(name, func(t *testing.T) {
			x := Wrap([]int{d0, d1, d2}, iota(d0*d1*d2))
			shape, got, err := View(c.view(t, x))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(shape, c.shape) {
				t.Fatalf("shape %v, want %v", shape, c.shape)
			}
			each(shape, func(at int, index []int) {
				if want := c.entry(index); got[at] != want {
					t.Fatalf("entry %v is %g, want %g", index, got[at], want)
				}
			})
		})
	}
}

func TestViewReadsColumnMajorTensors(t *testing.T) {
	// AsFortran takes row-major values and stores them column by column.
	want := []float64{0, 1, 2, 3, 4, 5}
	x := tensor.New(tensor.WithShape(3, 2), tensor.AsFortran(slices.Clone(want)))
	if stored := x.Data().([]float64); !slices.Equal(stored, []float64{0, 2, 4, 1, 3, 5}) {
		t.Fatalf("stored as %v", stored)
	}
	_, got, err := View(x)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestViewRejectsWhatCannotBeDecomposed(t *testing.T) {
	masked := tensor.New(tensor.WithShape(2), tensor.WithBacking([]float64{1, 2}, []bool{true, false}))
	for name, x := range map[string]*tensor.Dense{
		"nil":     nil,
		"scalar":  tensor.New(tensor.FromScalar(1.5)),
		"ints":    tensor.New(tensor.WithShape(2), tensor.WithBacking([]int{1, 2})),
		"NaN":     Wrap([]int{2}, []float64{1, math.NaN()}),
		"+Inf":    Wrap([]int{2}, []float64{1, math.Inf(1)}),
		"-Inf":    Wrap([]int{2}, []float64{math.Inf(-1), 1}),
		"NaN32":   tensor.New(tensor.WithShape(2), tensor.WithBacking([]float32{1, float32(math.NaN())})),
		"masked":  masked,
		"complex": tensor.New(tensor.WithShape(1), tensor.WithBacking([]complex128{1})),
	} {
		if _, _, err := View(x); !errors.Is(err, ErrTensor) {
			t.Errorf("%s: error %v, want one that wraps ErrTensor", name, err)
		}
	}
}

// TestUpstreamSumOverAMiddleAxisIsWrong is why this package computes nothing
// with the tensor type. That its package can be imported at all, with today's
// Go, is shown by the tests' running.
func TestUpstreamSumOverAMiddleAxisIsWrong(t *testing.T) {
	shape := []int{3, 4, 4, 4}
	data := iota(Product(shape))
	sum, err := Wrap(shape, slices.Clone(data)).Sum(2)
	if err != nil {
		t.Skipf("the tensor package now refuses: %v", err)
	}
	got := sum.Data().([]float64)
	_, want := MulMode(1, shape, data, 2, false, []float64{1, 1, 1, 1}, 1)
	mustMatch(t, "own sum of the first fibre", want[:1], []float64{0 + 4 + 8 + 12})
	wrong := 0
	for i, w := range want {
		if got[i] != w {
			wrong++
		}
	}
	if wrong == 0 {
		t.Skip("the tensor package's Sum has been put right")
	}
	t.Logf("%d of %d sums are wrong", wrong, len(want))
}

func BenchmarkMTTKRP(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 0))
	shape, r := []int{256, 256, 9}, 64
	data := normal(rng, Product(shape))
	factors := make([][]float64, 3)
	for n, d := range shape {
		factors[n] = normal(rng, d*r)
	}
	t := NewTree[float64](1, shape, r)
	for b.Loop() {
		t.Each(data, factors, func(int, []float64) error { return nil })
	}
}

func TestKruskalDistanceIsTheNormOfTheResidual(t *testing.T) {
	rng := rand.New(rand.NewPCG(41, 41))
	for _, shape := range [][]int{{1}, {7}, {3, 4}, {2, 3, 4}, {5, 1, 6, 2}, {3, 200_001}, {400, 500}, {70, 60, 50}} {
		const r = 3
		var factors [][]float64
		for _, d := range shape {
			u := make([]float64, d*r)
			for i := range u {
				u[i] = rng.NormFloat64()
			}
			factors = append(factors, u)
		}
		x := make([]float64, Product(shape))
		for i := range x {
			x[i] = rng.NormFloat64()
		}
		diff := Kruskal(1, shape, factors, r)
		for i, v := range x {
			diff[i] -= v
		}
		want := Norm(diff)
		one := KruskalDistance(1, shape, x, factors, r)
		if math.Abs(one-want) > 1e-12*want {
			t.Errorf("%v: %.17g, want %.17g", shape, one, want)
		}
		if two := KruskalDistance(3, shape, x, factors, r); two != one {
			t.Errorf("%v: %.17g with 3 workers, %.17g with 1", shape, two, one)
		}
	}
}
