package compress

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/lowrank-go/lowrank/conv"
)

// Whatever the kernel and the rule: the chain is the convolution, its error is what is
// reported and within the rule's bound, and it costs less than before.
func TestTKDCPDHoldsForEveryKernel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := conv.Geometry{
			Stride:   [2]int{rapid.IntRange(1, 3).Draw(rt, "sy"), rapid.IntRange(1, 3).Draw(rt, "sx")},
			Padding:  [2]int{rapid.IntRange(0, 2).Draw(rt, "py"), rapid.IntRange(0, 2).Draw(rt, "px")},
			Dilation: [2]int{2, 1}, Groups: rapid.IntRange(1, 3).Draw(rt, "groups"),
		}
		shape := [4]int{g.Groups * rapid.IntRange(1, 12).Draw(rt, "outs"), rapid.IntRange(1, 12).Draw(rt, "ins"),
			rapid.IntRange(1, 4).Draw(rt, "kh"), rapid.IntRange(1, 4).Draw(rt, "kw")}
		k := kernel(t, shape, rapid.IntRange(1, 4).Draw(rt, "rank"), .2, g)
		opt := Options{Method: TKDCPD, Seed: 1}
		opt.Rank = rapid.SampledFrom([]Rank{{Rule: VBMF}, {Rule: Energy, Value: .5}, {Rule: Energy, Value: .9}, {Rule: Ratio, Value: .3}, {Rule: Ratio, Value: .7},
			{Rule: Fixed, Fixed: []int{2}}, {Rule: Fixed, Fixed: []int{3, 2, 6}}}).Draw(rt, "rule")
		if rapid.Bool().Draw(rt, "corrected") {
			opt.Stability = 1.05
		}
		r := one(t, k, opt)
		if r.Reason != "" {
			return
		}
		if r.ParamsAfter >= r.ParamsBefore || r.MACsAfter > r.MACsBefore {
			rt.Fatalf("%d → %d parameters, %d → %d MACs", r.ParamsBefore, r.ParamsAfter, r.MACsBefore, r.MACsAfter)
		}
		if opt.Rank.Rule == Energy && r.RelError > math.Sqrt(1-opt.Rank.Value)+1e-6 {
			rt.Fatalf("error %g for an energy of %g", r.RelError, opt.Rank.Value)
		}
		if weights := r.ParamsAfter - len(k.Bias); opt.Rank.Rule == Ratio && float64(weights) > opt.Rank.Value*float64(len(k.Weight))*(1+1e-12) {
			rt.Fatalf("%d of %d weights for a ratio of %g", weights, len(k.Weight), opt.Rank.Value)
		}
		if dev, err := r.Chain.Verify(2); err != nil || dev > 1e-4 {
			rt.Fatalf("the chain differs from its kernel by %g, %v", dev, err)
		}
		if r.Method == string(TKDCPD) && (!(r.SensitivityAfter > 0) || !(r.DegeneracyAfter > 0)) {
			rt.Fatalf("sensitivity %g, degeneracy %g", r.SensitivityAfter, r.DegeneracyAfter)
		}
	})
}

// A kernel whose channels have low ranks and whose core has a high one: five stages,
// with less error than a CP of as many parameters has.
func TestTuckerWithCPOfItsCorePaysWhereChannelsAreOfLowRank(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	const T, S, P, R1, R2 = 48, 40, 9, 6, 5
	normal := func(n int) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[i] = rng.NormFloat64()
		}
		return v
	}
	u, v, core := normal(T*R2), normal(S*R1), normal(R2*R1*P)
	w := make([]float32, T*S*P)
	for i := range w {
		o, c, p := i/(S*P), i/P%S, i%P
		var sum float64
		for a := range R2 {
			for b := range R1 {
				sum += u[o*R2+a] * v[c*R1+b] * core[(a*R1+b)*P+p]
			}
		}
		w[i] = float32(sum)
	}
	k, err := conv.NewKernel([4]int{T, S, 3, 3}, w, nil, conv.Geometry{})
	if err != nil {
		t.Fatal(err)
	}
	both := one(t, k, Options{Method: TKDCPD, Rank: rank(t, "ratio=0.06"), Seed: 1})
	cp := one(t, k, Options{Method: CP, Rank: rank(t, "ratio=0.06"), Seed: 1})
	if len(both.Chain.Stages) != 5 || !slices.Equal(both.Rank[:2], []int{R2, R1}) || both.RelError > .8*cp.RelError {
		t.Errorf("%d stages, ranks %v, error %g; a CP has %g", len(both.Chain.Stages), both.Rank, both.RelError, cp.RelError)
	}
}

func TestRanksBelongToTheirMethods(t *testing.T) {
	for method, counts := range map[Method][]int{Tucker: {1, 2}, CP: {1}, SVD: {1}, TKDCPD: {1, 3}} {
		for n := 1; n <= 3; n++ {
			_, err := Layers(t.Context(), nil, Options{Method: method, Rank: Rank{Rule: Fixed, Fixed: []int{4, 4, 4}[:n]}})
			if want := slices.Contains(counts, n); (err == nil) != want || err != nil && !errors.Is(err, ErrOption) {
				t.Errorf("%s with %d ranks: error %v", method, n, err)
			}
		}
	}
}
