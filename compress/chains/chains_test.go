package chains

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/tkdcpd"
)

func random(rng *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return v
}

// drawKernel draws a kernel of any geometry, with more channels where wide.
func drawKernel(t *rapid.T, rng *rand.Rand) *conv.Kernel {
	g := conv.Geometry{
		Stride:   [2]int{rapid.IntRange(1, 3).Draw(t, "sy"), rapid.IntRange(1, 3).Draw(t, "sx")},
		Padding:  [2]int{rapid.IntRange(0, 3).Draw(t, "py"), rapid.IntRange(0, 3).Draw(t, "px")},
		Dilation: [2]int{rapid.IntRange(1, 3).Draw(t, "dy"), rapid.IntRange(1, 3).Draw(t, "dx")},
		Groups:   rapid.IntRange(1, 4).Draw(t, "groups"),
	}
	if rapid.Bool().Draw(t, "asymmetric") {
		for a := range 2 {
			g.Extra[a] = rapid.IntRange(-g.Padding[a], 4).Draw(t, "extra")
		}
	}
	shape := [4]int{
		g.Groups * rapid.IntRange(1, 9).Draw(t, "outs"), rapid.IntRange(1, 9).Draw(t, "ins"),
		rapid.IntRange(1, 5).Draw(t, "kh"), rapid.IntRange(1, 5).Draw(t, "kw"),
	}
	var bias []float32
	if rapid.Bool().Draw(t, "bias") {
		bias = random(rng, shape[0])
	}
	k, err := conv.NewKernel(shape, random(rng, shape[0]*shape[1]*shape[2]*shape[3]), bias, g)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// drawParts draws decompositions of k's shape with the ranks R2, R1, R, one a group;
// outer tells which of the two channel modes have a factor of their own.
func drawParts(rng *rand.Rand, k *conv.Kernel, rank [3]int, outer [2]bool) []*tkdcpd.Tensor {
	normal := func(rows, cols int) *mat.Dense {
		m := mat.NewDense(rows, cols, nil)
		m.Apply(func(int, int, float64) float64 { return rng.NormFloat64() }, m)
		return m
	}
	var parts []*tkdcpd.Tensor
	for range k.Groups {
		p := &tkdcpd.Tensor{Factors: make([]*mat.Dense, 3)}
		for m, size := range []int{k.Out() / k.Groups, k.Shape[1], k.Taps()} {
			dim := size
			if m < 2 && outer[m] {
				dim = min(rank[m], size)
				var qr mat.QR
				qr.Factorize(normal(size, dim))
				var q mat.Dense
				qr.QTo(&q)
				p.Factors[m] = mat.DenseCopyOf(q.Slice(0, size, 0, dim))
			}
			p.Core.Factors = append(p.Core.Factors, normal(dim, rank[2]))
		}
		parts = append(parts, p)
	}
	return parts
}

// The chain equals the decompositions multiplied out, and no way to merge its 1×1
// stages costs fewer parameters or multiply-accumulates.
func TestTKDCPDChainsEqualTheDecompositionAtTheLeastCost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 6))
		k := drawKernel(t, rng)
		rank := [3]int{rapid.IntRange(1, 6).Draw(t, "r2"), rapid.IntRange(1, 6).Draw(t, "r1"), rapid.IntRange(1, 20).Draw(t, "r")}
		outer := [2]bool{rapid.Bool().Draw(t, "out"), rapid.Bool().Draw(t, "in")}
		parts := drawParts(rng, k, rank, outer)
		c, err := FromTKDCPD(k, parts)
		if err != nil {
			t.Fatal(err)
		}
		if want := append(parts[0].Core.Shape()[:2], rank[2]); c.Kind != conv.TKDCPD || !slices.Equal(c.Rank, want) {
			t.Fatalf("a chain of %s with ranks %v, want %v", c.Kind, c.Rank, want)
		}
		if dev, err := c.Verify(1); err != nil || dev > 2e-5 {
			t.Fatalf("the chain differs from its kernel by %g, %v", dev, err)
		}
		got, err := c.Kernel()
		if err != nil {
			t.Fatal(err)
		}
		geometry := k.Normal()
		for axis := range 2 {
			if k.Shape[2+axis] == 1 { // nothing is dilated
				geometry.Dilation[axis] = got.Dilation[axis]
			}
		}
		if got.Geometry != geometry || !slices.Equal(got.Bias, k.Bias) {
			t.Fatalf("the chain is a kernel of %+v and bias %v", got.Geometry, got.Bias)
		}
		for g, p := range parts {
			want, err := p.Reconstruct()
			if err != nil {
				t.Fatal(err)
			}
			var apart, norm float64
			for i, v := range got.Group(g).Data().([]float64) {
				w := want.Data().([]float64)[i]
				apart += (v - w) * (v - w)
				norm += w * w
			}
			if math.Sqrt(apart) > 1e-5*math.Sqrt(norm) {
				t.Fatalf("group %d is %g away from its decomposition", g, math.Sqrt(apart/norm))
			}
		}
		const h, w = 17, 12
		oh, ow := k.OutputSize(h, w)
		in, out := int64(h*w), int64(oh*ow)
		r := int64(rank[2])
		least, fewest := r*int64(k.Taps())*out, r*int64(k.Taps())
		for m, size := range []int{k.Out() / k.Groups, k.Shape[1]} {
			s, d := int64(size), int64(parts[0].Core.Shape()[m])
			cost := s * r
			if outer[m] {
				cost = min(cost, d*(s+r))
			}
			fewest += cost
			least += cost * []int64{out, in}[m]
		}
		if got := c.MACs(h, w); oh > 0 && ow > 0 && got != least*int64(k.Groups) {
			t.Fatalf("%d MACs, the least is %d", got, least*int64(k.Groups))
		}
		if got := c.Params() - len(k.Bias); int64(got) != fewest*int64(k.Groups) {
			t.Fatalf("%d weights, the fewest are %d", got, fewest*int64(k.Groups))
		}
	})
}

// A chain of a CPD is that of a Tucker decomposition that leaves all modes alone.
func TestCPChainsHaveThreeStages(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	k := &conv.Kernel{Shape: [4]int{8, 6, 3, 5}, Weight: random(rng, 720), Geometry: conv.Geometry{Groups: 2, Stride: [2]int{2, 1}}}
	var parts []*cpd.Kruskal
	for _, p := range drawParts(rng, k, [3]int{0, 0, 4}, [2]bool{}) {
		parts = append(parts, &p.Core)
	}
	c, err := FromCP(k, parts)
	if err != nil || c.Kind != conv.CP || !slices.Equal(c.Rank, []int{4}) || len(c.Stages) != 3 || c.Params() != 2*4*(4+6+15) {
		t.Fatalf("%+v, %v", c, err)
	}
	if dev, err := c.Verify(3); err != nil || dev > 1e-5 {
		t.Errorf("the chain differs from its kernel by %g, %v", dev, err)
	}
}

func TestDecompositionsThatDoNotFitTheKernelAreErrors(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 1))
	k := &conv.Kernel{Shape: [4]int{8, 6, 3, 3}, Weight: random(rng, 432), Geometry: conv.Geometry{Groups: 2}}
	good := drawParts(rng, k, [3]int{2, 3, 4}, [2]bool{true, true})
	other := drawParts(rng, k, [3]int{2, 3, 5}, [2]bool{true, true})
	wide := drawParts(rng, &conv.Kernel{Shape: [4]int{8, 7, 3, 3}, Geometry: conv.Geometry{Groups: 2}}, [3]int{2, 3, 4}, [2]bool{true, true})
	taps := *good[1]
	taps.Factors = append(slices.Clone(taps.Factors[:2]), mat.NewDense(9, 9, nil))
	for name, parts := range map[string][]*tkdcpd.Tensor{
		"few parts": good[:1], "other rank": {good[0], other[1]}, "other shape": {good[0], wide[1]},
		"factor of the taps": {good[0], &taps}, "no core": {good[0], {}}, "nil": {good[0], nil},
	} {
		if _, err := FromTKDCPD(k, parts); !errors.Is(err, conv.ErrShape) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	for _, p := range []*cpd.Kruskal{{}, nil} {
		if _, err := FromCP(k, []*cpd.Kruskal{p, p}); !errors.Is(err, conv.ErrShape) {
			t.Errorf("%+v: error %v", p, err)
		}
	}
}
