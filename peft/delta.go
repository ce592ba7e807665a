package peft

import (
	"fmt"
	"math"
	"slices"
)

// Factor is a tensor that training changes.
type Factor[T Float] struct {
	Name  string
	Shape []int
	// Value is the factor in row-major order: the change's own memory.
	Value []T
	// Grad is the gradient, likewise; nil until something writes it.
	Grad []T
}

// Gradient is Grad, allocated where it is not yet: for an optimiser that wants to hold
// on to it before the first step. It stays the same memory.
func (f *Factor[T]) Gradient() []T {
	if f.Grad == nil {
		f.Grad = make([]T, len(f.Value))
	}
	return f.Grad
}

// Change is a ΔW of a convolution's kernel, parametrised by factors. Its methods
// write memory of its own: one goroutine at a time may call them.
type Change[T Float] struct {
	spec      Spec
	net       *network[T]
	factors   []*Factor[T]
	output    []*node[T] // the factors that start at zero
	lambda    *Factor[T] // where λ is learned
	magnitude *Factor[T] // of DoRA
	anchor    [][]T      // the factors that the change is anchored at
	start     []T        // their ΔW, without λ; nil where it must be computed
	ratio     []T        // of DoRA, m/n for each output
	scratch   []T
	pulled    []T // the gradient on its way to the factors

	conditioner *preconditioner[T] // made when it is needed
}

// Delta is a change in the precision of networks.
type Delta = Change[float32]

// New is NewChange in single precision.
func New(spec Spec) (*Delta, error) { return NewChange[float32](spec) }

// NewChange returns the change that spec describes, with zero factors: Init gives them
// values, or their owner does. The error wraps ErrSpec.
func NewChange[T Float](spec Spec) (*Change[T], error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	spec.Geometry = spec.Geometry.Normal()
	spec.Rank = slices.Clone(spec.Rank)
	c := &Change[T]{spec: spec, net: newNetwork[T](kinds[spec.Kind].diagram(&spec))}
	c.factors = c.net.factors
	c.net.root.walk(func(v *node[T]) {
		if v.zero {
			c.output = append(c.output, v)
		}
	})
	add := func(name string, n int) *Factor[T] {
		f := &Factor[T]{Name: name, Shape: []int{n}, Value: make([]T, n)}
		c.factors = append(c.factors, f)
		return f
	}
	if spec.Learned {
		c.lambda = add("lambda", 1)
		c.lambda.Value[0] = T(spec.scale())
	}
	if spec.DoRA {
		c.magnitude = add("magnitude", spec.Shape[0])
		c.ratio = make([]T, spec.Shape[0])
	}
	if spec.Anchored {
		c.Anchor()
	}
	return c, nil
}

// Spec is the description of c.
func (c *Change[T]) Spec() Spec { return c.spec }

// Params is the number of learned values, Spec.Params.
func (c *Change[T]) Params() int { return c.spec.Params() }

// Factors are the learned tensors: those of the product, then λ ("lambda", one value)
// and DoRA's norms ("magnitude"), where there are such. The memory is c's.
func (c *Change[T]) Factors() []*Factor[T] { return c.factors }

// Factor is the factor called name, or nil.
func (c *Change[T]) Factor(name string) *Factor[T] {
	for _, f := range c.factors {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// Lambda is λ as it is now.
func (c *Change[T]) Lambda() float64 {
	if c.lambda != nil {
		return float64(c.lambda.Value[0])
	}
	return c.spec.scale()
}

// Anchor takes the factors as they are for θ₀: from now on ΔW = ⟦θ⟧ − ⟦θ₀⟧, which is
// exactly zero here though no factor is, so that all gradients are alive.
func (c *Change[T]) Anchor() {
	c.spec.Anchored = true
	c.anchor = nil
	for _, f := range c.net.factors {
		c.anchor = append(c.anchor, slices.Clone(f.Value))
	}
	c.start = nil
}

// delta is ΔW without λ, in memory of c's.
func (c *Change[T]) delta(base []T) []T {
	if !c.spec.Anchored {
		return c.net.forward(base)
	}
	if c.start == nil {
		now := make([][]T, len(c.anchor))
		for i, f := range c.net.factors {
			now[i] = slices.Clone(f.Value)
			copy(f.Value, c.anchor[i])
		}
		c.start = slices.Clone(c.net.forward(base))
		for i, f := range c.net.factors {
			copy(f.Value, now[i])
		}
	}
	// The same arithmetic gave both: they differ by nothing at θ₀.
	d := c.buffer()
	for i, v := range c.net.forward(base) {
		d[i] = v - c.start[i]
	}
	return d
}

func (c *Change[T]) buffer() []T {
	if c.scratch == nil {
		c.scratch = make([]T, c.spec.kernelLen())
	}
	return c.scratch
}

// Materialise adds the change to dst, a kernel in O×C/g×kh×kw order: λ·ΔW, or with
// DoRA diag(m/n)·(W₀ + λ·ΔW) − W₀ with n the norms of the rows of W₀ + λ·ΔW. base is
// the frozen kernel W₀, of which dst usually is a copy; only Series and DoRA read it.
// Where the change is zero dst keeps every bit. Slices of other lengths than the
// kernel's panic.
func (c *Change[T]) Materialise(dst, base []T) {
	d, l := c.delta(base), T(c.Lambda())
	if c.magnitude == nil {
		for i, v := range d {
			if v != 0 { // −0 + 0 is not −0
				dst[i] += l * v
			}
		}
		return
	}
	row := c.spec.kernelLen() / c.spec.Shape[0]
	for o := range c.spec.Shape[0] {
		w, v, out := base[o*row:(o+1)*row], d[o*row:(o+1)*row], dst[o*row:(o+1)*row]
		c.ratio[o] = ratio(c.magnitude.Value[o], norm(l, w, v))
		for i, x := range w {
			if y := c.ratio[o]*(x+l*v[i]) - x; y != 0 {
				out[i] += y
			}
		}
	}
}

// norm is ‖w + l·v‖, accumulated in float64. v is nil for zero.
func norm[T Float](l T, w, v []T) T {
	var s float64
	for i, x := range w {
		if v != nil {
			x += l * v[i]
		}
		s += float64(x) * float64(x)
	}
	return T(math.Sqrt(s))
}

// ratio is m/n, and 1 for a row of zeros, which no scale changes.
func ratio[T Float](m, n T) T {
	if n == 0 {
		return 1
	}
	return m / n
}

// Pull overwrites the gradients of all factors with those that follow from dkernel,
// the gradient in the kernel that Materialise makes of base. DoRA's n counts as fixed
// (Liu et al. 2024, section 4.3). dkernel is not changed.
func (c *Change[T]) Pull(dkernel, base []T) {
	l := T(c.Lambda())
	if c.magnitude == nil && c.lambda == nil {
		c.net.prepare(base) // the product itself is not needed
		if l == 1 {
			c.net.backward(dkernel)
			return
		}
	}
	g := c.gradient()
	copy(g, dkernel)
	if c.magnitude != nil || c.lambda != nil {
		d := c.delta(base)
		if c.magnitude != nil {
			c.pullMagnitude(g, d, base, l)
		}
		if c.lambda != nil {
			c.lambda.Gradient()[0] = dot(g, d)
		}
	}
	for i := range g {
		g[i] *= l
	}
	c.net.backward(g)
}

func (c *Change[T]) gradient() []T {
	if c.pulled == nil {
		c.pulled = make([]T, c.spec.kernelLen())
	}
	return c.pulled
}

// pullMagnitude writes the gradient of DoRA's norms and makes of g the gradient in
// W₀ + λ·ΔW.
func (c *Change[T]) pullMagnitude(g, d, base []T, l T) {
	row := len(g) / c.spec.Shape[0]
	grad := c.magnitude.Gradient()
	for o := range c.spec.Shape[0] {
		w, v, g := base[o*row:(o+1)*row], d[o*row:(o+1)*row], g[o*row:(o+1)*row]
		n := norm(l, w, v)
		grad[o] = 0
		if n != 0 {
			var s float64
			for i, x := range w {
				s += float64(g[i]) * float64(x+l*v[i])
			}
			grad[o] = T(s / float64(n))
		}
		r := ratio(c.magnitude.Value[o], n)
		for i := range g {
			g[i] *= r
		}
	}
}

func dot[T Float](a, b []T) T {
	var s float64
	for i, v := range a {
		s += float64(v) * float64(b[i])
	}
	return T(s)
}

// Clone returns a copy that shares nothing.
func (c *Change[T]) Clone() *Change[T] {
	out, err := NewChange[T](c.spec)
	if err != nil {
		panic(err) // c has the same description
	}
	for i, f := range c.factors {
		copy(out.factors[i].Value, f.Value)
	}
	for i, v := range c.anchor {
		copy(out.anchor[i], v)
	}
	out.start = slices.Clone(c.start)
	return out
}

// Kernel is the change alone, λ·ΔW, newly allocated. DoRA has none without its base:
// the error wraps ErrSpec. So does that of a Series without a base of the right
// length; the others do not read it.
func (c *Change[T]) Kernel(base []T) ([]T, error) {
	if err := c.checkBase(base); err != nil {
		return nil, err
	}
	out := make([]T, c.spec.kernelLen())
	c.Materialise(out, base)
	return out, nil
}

func (c *Change[T]) checkBase(base []T) error {
	if (c.spec.DoRA || c.spec.Kind == Series) && len(base) != c.spec.kernelLen() {
		return fmt.Errorf("%w: a kernel of %v needs a base of %d weights, got %d", ErrSpec, c.spec.Shape, c.spec.kernelLen(), len(base))
	}
	return nil
}
