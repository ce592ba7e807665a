package compress

import (
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
)

// stagesOf says what each method's stages look like: kernel rows and columns.
var stagesOf = map[Method][][2]int{
	SVD: {{3, 5}, {1, 1}}, SVDIn: {{1, 1}, {3, 5}}, Spatial: {{3, 1}, {1, 5}}, Separable: {{1, 1}, {3, 1}, {1, 5}, {1, 1}},
}

func TestEverySchemeGivesItsStagesWithTheGeometryOfItsAxes(t *testing.T) {
	g := conv.Geometry{Stride: [2]int{2, 1}, Padding: [2]int{1, 4}, Dilation: [2]int{1, 2}, Groups: 2, Extra: [2]int{1, 0}}
	k := kernel(t, [4]int{24, 10, 3, 5}, 3, 0, g)
	k.Bias = make([]float32, 24)
	k.Bias[5] = 2
	for m, shapes := range stagesOf {
		r, err := Layers(t.Context(), []Target{{Name: "c", Chain: conv.NewDense(k), H: 9, W: 11}}, Options{Method: m, Rank: rank(t, "fixed=3"), Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		c := r[0].Chain
		if r[0].Reason != "" || c.Kind != conv.Kind(m) || r[0].Method != string(m) || !slices.Equal(c.Rank, []int{3}) {
			t.Fatalf("%s: %+v", m, r[0])
		}
		// Three rank-1 terms are of rank 3 in every matrix and as a CP of taps in one
		// mode; their taps alone need not factor into rows and columns.
		if m != Separable && r[0].RelError > 1e-5 && m != Spatial {
			t.Errorf("%s: error %g of a kernel of rank 3", m, r[0].RelError)
		}
		for i, s := range shapes {
			if got := [2]int(c.Stages[i].Shape[2:]); got != s {
				t.Errorf("%s: stage %d is %v, want %v", m, i, got, s)
			}
		}
		shape, geometry := c.Shape()
		if shape != k.Shape || geometry != k.Normal() || &c.Last().Bias[0] != &k.Bias[0] {
			t.Errorf("%s: %v %+v, want %v %+v", m, shape, geometry, k.Shape, k.Normal())
		}
		if h, w := c.OutputSize(9, 11); r[0].MACsAfter != c.MACs(9, 11) || h != 5 || w != 11 {
			t.Errorf("%s: %d×%d, %d MACs", m, h, w, r[0].MACsAfter)
		}
	}
}

// separable makes a kernel of a sum of terms that factor along all four modes.
func separable(t *testing.T, shape [4]int, terms int) *conv.Kernel {
	k := kernel(t, [4]int{shape[0], shape[1], 1, 1}, 1, 0, conv.Geometry{})
	out := &conv.Kernel{Shape: shape, Weight: make([]float32, shape[0]*shape[1]*shape[2]*shape[3]), Geometry: k.Geometry}
	for r := range terms {
		a := kernel(t, [4]int{shape[0], shape[1], 1, 1}, 1, 0, conv.Geometry{})
		for i := range out.Weight {
			x, y := i%shape[3], i/shape[3]%shape[2]
			c := i / shape[3] / shape[2]
			s, o := c%shape[1], c/shape[1]
			out.Weight[i] += a.Weight[(o*(r+3)%shape[0])*shape[1]+s*(r+1)%shape[1]] * float32(math.Sin(float64(x*(r+1)+r))*math.Cos(float64(y*(r+2))))
		}
	}
	return out
}

func TestAxesThatFactorAreFactoredExactly(t *testing.T) {
	k := separable(t, [4]int{16, 12, 3, 3}, 2)
	for _, m := range []Method{Spatial, Separable} {
		r, err := Layers(t.Context(), []Target{{Name: "c", Chain: conv.NewDense(k)}}, Options{Method: m, Rank: rank(t, "energy=0.99999999"), Seed: 1})
		if err != nil || r[0].Reason != "" || r[0].RelError > 1e-3 {
			t.Errorf("%s: %+v, %v", m, r[0], err)
		}
	}
}

func TestFullRankIsExactWhereItIsAskedFor(t *testing.T) {
	k := kernel(t, [4]int{12, 8, 3, 5}, 40, 1, conv.Geometry{Padding: [2]int{1, 2}})
	for _, m := range []Method{SVD, SVDIn, Spatial} {
		opt := Options{Method: m, Rank: rank(t, "fixed=999")}
		r, err := Layers(t.Context(), []Target{{Name: "c", Chain: conv.NewDense(k)}}, opt)
		if err != nil || r[0].Reason == "" {
			t.Errorf("%s saves nothing, yet: %+v, %v", m, r[0], err)
		}
		opt.Always = true
		r, err = Layers(t.Context(), []Target{{Name: "c", Chain: conv.NewDense(k)}}, opt)
		if err != nil || r[0].Reason != "" || r[0].RelError > 1e-6 {
			t.Errorf("%s: error %g, %v", m, r[0].RelError, err)
		}
	}
}

// The energies say what a rank's error will be.
func TestEnergiesForetellErrors(t *testing.T) {
	k := kernel(t, [4]int{12, 8, 3, 3}, 40, 1, conv.Geometry{Groups: 2})
	for _, m := range []Method{SVD, SVDIn, Spatial} {
		e, err := Energies(k, m, 1)
		if err != nil {
			t.Fatal(err)
		}
		var total, left float64
		for i, v := range e {
			total += v
			if i >= 2 {
				left += v
			}
		}
		r, err := Layers(t.Context(), []Target{{Name: "c", Chain: conv.NewDense(k)}}, Options{Method: m, Rank: rank(t, "fixed=2")})
		if err != nil || math.Abs(r[0].RelError-math.Sqrt(left/total)) > 1e-5 || math.Abs(math.Sqrt(total)-k.Norm()) > 1e-4 {
			t.Errorf("%s: error %g, foretold %g; norm %g, %g; %v", m, r[0].RelError, math.Sqrt(left/total), k.Norm(), math.Sqrt(total), err)
		}
	}
	kept, err := TuckerEnergies(t.Context(), k, 1)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Layers(t.Context(), []Target{{Name: "c", Chain: conv.NewDense(k)}}, Options{Method: Tucker, Rank: rank(t, "fixed=3,4"), Always: true})
	if err != nil {
		t.Fatal(err)
	}
	norm := k.Norm() * k.Norm()
	if got, most := r[0].RelError, math.Sqrt(1-kept[2][3]/norm); got > most+1e-6 || math.Abs(kept[5][7]-norm) > 1e-3 {
		t.Errorf("error %g, at most %g was foretold; all is %g of %g", got, most, kept[5][7], norm)
	}
}

func TestFilesKeepEveryKindOfChain(t *testing.T) {
	k := kernel(t, [4]int{24, 10, 3, 5}, 3, .1, conv.Geometry{Stride: [2]int{2, 1}, Padding: [2]int{1, 2}, Groups: 2})
	for m := range stagesOf {
		r, err := Layers(t.Context(), []Target{{Name: "c", Chain: conv.NewDense(k)}}, Options{Method: m, Rank: rank(t, "fixed=3"), Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		sd, manifest := model.NewStateDict(), graph.Manifest{}
		manifest.Store(sd, "c", r[0].Chain)
		if err := manifest.Write(sd); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "c.safetensors")
		if err := model.WriteSafetensors(path, sd); err != nil {
			t.Fatal(err)
		}
		back, err := model.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		read, err := graph.ReadManifest(back)
		if err != nil {
			t.Fatal(err)
		}
		c, err := read.Chain("c").Load(back, "c", nil)
		if err != nil {
			t.Fatalf("%s: %v", m, err)
		}
		a, err := c.Kernel()
		if err != nil {
			t.Fatal(err)
		}
		b, err := r[0].Chain.Kernel()
		if err != nil {
			t.Fatal(err)
		}
		if d, err := a.RelError(b); err != nil || d != 0 || c.Kind != conv.Kind(m) {
			t.Errorf("%s: differs by %g, %v", m, d, err)
		}
	}
}

// A matrix read in pieces has the factors that the kernel's decomposition has.
func TestMatricesAreFactoredAsPointwiseKernelsAre(t *testing.T) {
	for _, shape := range [][2]int{{300, 700}, {600, 40}, {64, 64}, {5, 1000}} {
		k := kernel(t, [4]int{shape[0], shape[1], 1, 1}, 3, .2, conv.Geometry{})
		rows, cols := shape[0], shape[1]
		reads := 0
		m := Matrix{rows, cols, func() ([]float32, error) { reads++; return k.Weight, nil }}
		var energies []float64
		u, v, err := m.Factor(t.Context(), 2, func(e []float64) int { energies = e; return 4 })
		if err != nil || reads != 2 {
			t.Fatal(err)
		}
		r, err := Layers(t.Context(), []Target{{Name: "c", Chain: conv.NewDense(k)}}, Options{Method: SVD, Rank: rank(t, "fixed=4"), Always: true})
		if err != nil {
			t.Fatal(err)
		}
		var got, norm float64
		for i := range rows {
			for j := range cols {
				d := float64(k.Weight[i*cols+j])
				norm += d * d
				for c := range 4 {
					d -= u.At(i, c) * v.At(j, c)
				}
				got += d * d
			}
		}
		if got = math.Sqrt(got / norm); math.Abs(got-r[0].RelError) > 1e-6 {
			t.Errorf("%v: error %g, want %g", shape, got, r[0].RelError)
		}
		for c := range 4 {
			var a, b float64
			for i := range rows {
				a += u.At(i, c) * u.At(i, c)
			}
			for j := range cols {
				b += v.At(j, c) * v.At(j, c)
			}
			if want := math.Sqrt(energies[c]); math.Abs(a-want) > 1e-6*want || math.Abs(b-want) > 1e-6*want {
				t.Errorf("%v: component %d has squared norms %g and %g, want %g", shape, c, a, b, want)
			}
		}
		if u, _, err := m.Factor(t.Context(), 1, func([]float64) int { return 0 }); u != nil || err != nil {
			t.Errorf("rank 0: %v, %v", u, err)
		}
	}
}
