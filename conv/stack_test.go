package conv

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawStack is a chain like those of the factorisations, of odd ranks and groups, and
// an input for it.
func drawStack(t *rapid.T, rng *rand.Rand) (*Chain, *Map) {
	groups := rapid.IntRange(1, 2).Draw(t, "groups")
	in, out := groups*rapid.IntRange(1, 9).Draw(t, "in"), groups*rapid.IntRange(1, 19).Draw(t, "out")
	r := rapid.IntRange(1, 13).Draw(t, "rank")
	stride := rapid.IntRange(1, 2).Draw(t, "stride")
	spatial := Geometry{Stride: [2]int{stride, stride}, Padding: [2]int{1, 0}, Groups: groups}
	kernel := func(o, i, kh, kw int, g Geometry) *Kernel {
		return &Kernel{Shape: [4]int{o, i, kh, kw}, Weight: random(rng, o*i*kh*kw), Geometry: g}
	}
	c := &Chain{Groups: groups}
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		c.Kind = Dense
		c.Stages = []*Kernel{kernel(out, in/groups, 3, 2, spatial)}
	case 1:
		c.Kind, c.Rank = SVD, []int{r}
		c.Stages = []*Kernel{kernel(groups*r, in/groups, 3, 2, spatial), kernel(out, r, 1, 1, Geometry{Groups: groups})}
	case 2:
		c.Kind, c.Rank = CP, []int{r}
		depthwise := spatial
		depthwise.Groups = groups * r
		c.Stages = []*Kernel{kernel(groups*r, in/groups, 1, 1, Geometry{Groups: groups}), kernel(groups*r, 1, 3, 2, depthwise), kernel(out, r, 1, 1, Geometry{Groups: groups})}
	case 3:
		q := rapid.IntRange(1, 9).Draw(t, "rank 2")
		c.Kind, c.Rank = Tucker2, []int{r, q}
		c.Stages = []*Kernel{kernel(groups*q, in/groups, 1, 1, Geometry{Groups: groups}), kernel(groups*r, q, 3, 2, spatial), kernel(out, r, 1, 1, Geometry{Groups: groups})}
	}
	if rapid.Bool().Draw(t, "bias") {
		c.Last().Bias = random(rng, out)
	}
	x := NewMap(2, rapid.IntRange(3, 9).Draw(t, "h"), rapid.IntRange(3, 9).Draw(t, "w"), in)
	copy(x.Data, random(rng, len(x.Data)))
	return c, x
}

func TestAStackRunsLikeItsChainAndGivesItBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		c, x := drawStack(t, rng)
		s, err := NewStack(c)
		if err != nil {
			t.Fatal(err)
		}
		r, err := NewRunner(c)
		if err != nil {
			t.Fatal(err)
		}
		want, err := r.Forward(nil, x, Epilogue{ReLU: true}, 2)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Forward(nil, x, Epilogue{ReLU: true}, 2)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range want.Data {
			if math.Abs(float64(v-got.Data[i])) > 1e-4*(1+math.Abs(float64(v))) {
				t.Fatalf("output %d is %g, the runner's %g", i, got.Data[i], v)
			}
		}
		back, err := s.Chain()
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range c.Stages {
			b := back.Stages[i]
			if b.Shape != k.Shape || !slices.Equal(b.Weight, k.Weight) || !slices.Equal(b.Bias, k.Bias) || b.Normal() != k.Normal() {
				t.Errorf("stage %d comes back as %v with %+v", i, b.Shape, b.Geometry)
			}
			if s.Values(i) != len(k.Weight) {
				t.Errorf("stage %d has %d values, want %d", i, s.Values(i), len(k.Weight))
			}
			values := random(rng, len(k.Weight))
			inside := random(rng, len(s.Layers()[i].Weights()))
			if err := s.Import(i, inside, values); err != nil {
				t.Fatal(err)
			}
			if out, err := s.Export(i, inside); err != nil || !slices.Equal(out, values) {
				t.Errorf("values of stage %d do not survive (%v)", i, err)
			}
			if err := s.Import(i, inside, values[1:]); !errors.Is(err, ErrShape) {
				t.Errorf("too few values gave %v", err)
			}
		}
	})
}

// Gradients of each stage and of the input in a random direction equal the change of the
// loss Σ y·dy along it: the chain is linear in each of them.
func TestGradientsOfAStackEqualDifferences(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		c, x := drawStack(t, rng)
		c.Last().Bias = nil
		s, err := NewStack(c)
		if err != nil {
			t.Fatal(err)
		}
		for i, l := range s.Layers() {
			s.Gradient(i).Weight = make([]float32, len(l.Weights()))
		}
		y, err := s.Forward(nil, x, Epilogue{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		dy := &Map{N: y.N, H: y.H, W: y.W, C: y.C, Data: random(rng, len(y.Data))}
		var spare [2]*Map
		dx, err := s.Backward(nil, x, dy, true, Epilogue{}, &spare, 2)
		if err != nil {
			t.Fatal(err)
		}
		along := func(what string, c *Chain, x *Map, gradient, direction []float32) {
			t.Helper()
			out, err := run(c, x)
			if err != nil {
				t.Fatal(err)
			}
			var want, got, size float64
			for i, v := range out.Data {
				want += float64(v) * float64(dy.Data[i])
				size += math.Abs(float64(v) * float64(dy.Data[i]))
			}
			for i, g := range gradient {
				got += float64(g) * float64(direction[i])
			}
			if math.Abs(got-want) > 1e-4*size+1e-6 {
				t.Errorf("%s: derivative %g, want %g", what, got, want)
			}
		}
		v := &Map{N: x.N, H: x.H, W: x.W, C: x.C, Data: random(rng, len(x.Data))}
		along("input", c, v, dx.Data, v.Data)
		for i, k := range c.Stages {
			g, err := s.Export(i, s.Gradient(i).Weight)
			if err != nil {
				t.Fatal(err)
			}
			other, direction := *c, *k
			direction.Weight = random(rng, len(k.Weight))
			other.Stages = slices.Clone(c.Stages)
			other.Stages[i] = &direction
			along("stage", &other, x, g, direction.Weight)
		}
	})
}
