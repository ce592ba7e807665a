package peft

import (
	"fmt"
	"maps"

	"github.com/lowrank-go/lowrank/model"
)

// How PEFT and LyCORIS lay out a LoKr: which pairs of divisors its factors have, and
// which of them are whole. Their loaders make the layers by these rules first, so that
// other shapes in a file have no place to go.

// divisorPair is the smaller of the two divisors of n that they take: factor, or its
// partner, where factor divides n, and otherwise the most balanced pair whose smaller
// one is at most factor; factor −1 bounds nothing.
func divisorPair(n, factor int) int {
	if factor > 0 && n%factor == 0 {
		return min(factor, n/factor)
	}
	if factor < 0 {
		return divisor(n)
	}
	best := 1
	for d := 2; d*d <= n && d <= factor; d++ {
		if n%d == 0 {
			best = d
		}
	}
	return best
}

// peftSplit is the shape of the first factor that PEFT has for a decompose_factor: of a
// factor that divides it takes that one, though it be the larger.
func peftSplit(shape [4]int, factor int) [2]int {
	var split [2]int
	for a := range 2 {
		if split[a] = divisorPair(shape[a], factor); factor > 0 && shape[a]%factor == 0 {
			split[a] = factor
		}
	}
	return split
}

// lycorisSplits are those that LyCORIS has for a factor: it can be told to take the
// larger divisor of the outputs.
func lycorisSplits(shape [4]int, factor int) (balanced, unbalanced [2]int) {
	o, c := divisorPair(shape[0], factor), divisorPair(shape[1], factor)
	return [2]int{o, c}, [2]int{shape[0] / o, c}
}

// commonFactor is the decompose_factor that gives the first factors of all modules; −1
// where none does.
func commonFactor(modules []Module) int {
	fits := func(factor int) bool {
		for _, m := range modules {
			if peftSplit(m.spec.Shape, factor) != m.spec.split() {
				return false
			}
		}
		return true
	}
	most := 0
	for _, m := range modules {
		most = max(most, m.spec.Shape[0], m.spec.Shape[1])
	}
	for factor := 1; factor <= most && !fits(-1); factor++ {
		if fits(factor) {
			return factor
		}
	}
	return -1
}

// lycorisFits reports a LoKr that no factor of LyCORIS's gives.
func (s *Spec) lycorisFits() error {
	for factor := -1; factor <= max(s.Shape[0], s.Shape[1]); factor++ {
		if factor == 0 {
			continue
		}
		if b, u := lycorisSplits(s.Shape, factor); s.split() == b || s.split() == u {
			return nil
		}
	}
	return fmt.Errorf("%w: a first factor of %v of a kernel of %v, which no factor of LyCORIS's gives", ErrLossy, s.split(), s.Shape)
}

// seconds is the larger side of a LoKr's second factor.
func (s *Spec) seconds() int {
	split := s.split()
	return max(s.Shape[0]/split[0], s.Shape[1]/split[1])
}

// low tells which factors of a LoKr of rank r are products: those of whose larger side
// it is below half. The first one is so only where both are wanted.
func (s *Spec) low(r int, both bool) (one, two bool) {
	split := s.split()
	return both && 2*r < max(split[0], split[1]), 2*r < s.seconds()
}

// laidOut is a LoKr with the factors multiplied out that the packages have whole, and
// any other change as it is.
func (c *Change[T]) laidOut() *Change[T] {
	if c.spec.Kind != LoKr || len(c.spec.Rank) == 0 || c.spec.Anchored {
		return c
	}
	one, two := c.spec.low(c.spec.Rank[0], c.spec.Both)
	if two && one == c.spec.Both {
		return c
	}
	s := c.spec
	s.Split, s.Both = s.split(), one && two // a product beside a whole one is no description
	if !two {
		s.Rank, s.Mid = nil, false
	}
	out, err := NewChange[T](s)
	if err != nil {
		panic(err) // c's own but for the ranks
	}
	for _, f := range out.factors {
		switch old := c.Factor(f.Name); {
		case old != nil:
			copy(f.Value, old.Value)
		case f.Name == "lokr_w1":
			copy(f.Value, multiplied(c.Factor("lokr_w1_a").Value, c.Factor("lokr_w1_b").Value, s.Split[0], s.Split[1]))
		case f.Name == "lokr_w2":
			copy(f.Value, c.second())
		}
	}
	return out
}

// second is the second factor of a LoKr, multiplied out.
func (c *Change[T]) second() []T {
	s, r := c.spec, c.spec.Rank[0]
	o, i, taps := s.Shape[0]/s.split()[0], s.Shape[1]/s.split()[1], s.Shape[2]*s.Shape[3]
	a, b := c.Factor("lokr_w2_a").Value, c.Factor("lokr_w2_b").Value
	if !s.Mid {
		return multiplied(a, b, o, i*taps)
	}
	// a is r×o and b r×i here, around the core r×r×taps.
	out, core := make([]T, o*i*taps), c.Factor("lokr_t2").Value
	for at := range out {
		p, q, t := at/(i*taps), at/taps%i, at%taps
		var sum float64
		for x := range r {
			for y := range r {
				sum += float64(core[(x*r+y)*taps+t]) * float64(a[x*o+p]) * float64(b[y*i+q])
			}
		}
		out[at] = T(sum)
	}
	return out
}

// multiplied is the product of a matrix of m rows and one of n columns.
func multiplied[T Float](a, b []T, m, n int) []T {
	out, k := make([]T, m*n), len(a)/m
	for i := range m {
		for j := range n {
			var sum float64
			for l := range k {
				sum += float64(a[i*k+l]) * float64(b[l*n+j])
			}
			out[i*n+j] = T(sum)
		}
	}
	return out
}

// wholeFirst are the tensors of a LoKr whose first factor alone is a product, which no
// description here has, with that multiplied out.
func wholeFirst(tensors map[string]*model.Tensor) (map[string]*model.Tensor, error) {
	a, b := tensors["lokr_w1_a"], tensors["lokr_w1_b"]
	if a == nil || b == nil || tensors["lokr_w2"] == nil {
		return tensors, nil
	}
	if len(a.Shape) != 2 || len(b.Shape) != 2 || a.Shape[1] != b.Shape[0] || a.Len()*b.Len() == 0 {
		return nil, fmt.Errorf("%w: lokr_w1_a and lokr_w1_b have shapes %v and %v, want two matrices to multiply", ErrFile, a.Shape, b.Shape)
	}
	x, err := a.Float32s()
	if err != nil {
		return nil, err
	}
	y, err := b.Float32s()
	if err != nil {
		return nil, err
	}
	out := maps.Clone(tensors)
	delete(out, "lokr_w1_a")
	delete(out, "lokr_w1_b")
	shape := []int{a.Shape[0], b.Shape[1]}
	out["lokr_w1"] = &model.Tensor{Shape: shape, Data: multiplied(x, y, shape[0], shape[1])}
	return out, nil
}
