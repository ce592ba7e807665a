package peft

import (
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// rankOf is that of the matrix of x with the given axes for its rows.
func rankOf(x []float64, shape []int, perm []int, rows int) int {
	p := make([]float64, len(x))
	permute(p, x, shape, perm)
	height := 1
	for _, a := range perm[:rows] {
		height *= shape[a]
	}
	var svd mat.SVD
	svd.Factorize(mat.NewDense(height, len(x)/height, p), mat.SVDNone)
	return svd.Rank(1e-10)
}

// With random factors the ranks of the unfoldings are what the kind bounds them by.
func TestUnfoldingRanks(t *testing.T) {
	shape := []int{24, 18, 3, 3}
	const o, c = 24, 18
	type want struct{ out, in, tap, view, matrix int } // of the unfoldings, the raw view (0: nothing is known) and the true matricisation
	for _, row := range []struct {
		s Spec
		want
	}{
		{Spec{Kind: LoRA, Rank: []int{2}}, want{2, 18, 9, 0, 6}},
		{Spec{Kind: LoRAView, Rank: []int{1}}, want{9, 18, 9, 3, 27}},
		{Spec{Kind: Spatial, Rank: []int{2}}, want{6, 6, 9, 0, 2}},
		{Spec{Kind: CP, Rank: []int{4}}, want{4, 4, 4, 0, 12}},
		{Spec{Kind: Tucker2, Rank: []int{3, 5}}, want{3, 5, 9, 0, 9}},
		{Spec{Kind: TKDCPD, Rank: []int{4, 5, 10}}, want{4, 5, 9, 0, 12}},
		{Spec{Kind: LoHa, Rank: []int{3}}, want{9, 18, 9, 0, 27}},
		{Spec{Kind: LoKr, Rank: []int{2}, Split: [2]int{4, 3}}, want{6, 18, 9, 0, 18}},
	} {
		row.s.Shape = [4]int(shape)
		ch, base := random[float64](t, row.s, rand.New(rand.NewPCG(1, 1)))
		x := kernelOf(t, ch, base)
		got := want{
			rankOf(x, shape, []int{0, 1, 2, 3}, 1), rankOf(x, shape, []int{1, 0, 2, 3}, 1), rankOf(x, shape, []int{2, 3, 0, 1}, 2),
			0, rankOf(x, shape, []int{0, 2, 1, 3}, 2),
		}
		var svd mat.SVD
		svd.Factorize(mat.NewDense(o*3, c*3, append([]float64(nil), x...)), mat.SVDNone)
		got.view = svd.Rank(1e-10)
		if row.view == 0 {
			got.view = 0
		}
		if got != row.want {
			t.Errorf("%s %v: ranks %+v, want %+v", row.s.Kind, row.s.Rank, got, row.want)
		}
	}
}
