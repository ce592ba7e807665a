package peft

import (
	"math"

	"github.com/lowrank-go/lowrank/internal/linalg"
)

// A preconditioner rewrites the gradients of a change's factors.
type preconditioner[T Float] struct {
	*measure[T]
	root    metric[T] // of λ·ΔW
	lambda  []T       // λ²
	damping float64
}

// Precondition rewrites the gradients of the factors that Pull, or the Store of all
// stages, left: each is multiplied by the inverse of Γ, the Gram matrix of all that
// stands beside the factor in λ·ΔW. With ΔW = Z·D these are g_Z·(D·Dᵀ)⁻¹ and
// (Zᵀ·Z)⁻¹·g_D; of a CP, Γ is the R×R matrix that alternating least squares has; of a
// Tucker core it is a Kronecker product. A step of gradient descent then does not depend,
// to first order, on which of the factors that make the same λ·ΔW it starts from (the
// gauge, of which λ is a part), and moves ΔW by what a factor can give of the kernel's own
// gradient. DoRA's rescaling does not count, and its norms and λ keep their gradients. The
// kinds that are linear in all factors together are left alone.
//
// Tong, Ma and Chi, JMLR 22 (2021); Zhang and Pilanci, ICML 2024.
//
// Γ is singular where factors are, and zero at the start. It is therefore
// Γ + damping·(μ + 10⁻⁶)·I, with μ the mean of its diagonal, for each group and each
// part of a Kronecker product; a damping of 0 or less means as little as it takes. Where
// Γ is zero so is the gradient, which stays exactly that.
func (c *Change[T]) Precondition(damping float64) {
	if kinds[c.spec.Kind].linear {
		return
	}
	if c.conditioner == nil {
		c.conditioner = newPreconditioner(c)
	}
	p := c.conditioner
	p.damping = max(damping, 0)
	p.lambda[0] = T(c.Lambda() * c.Lambda())
	c.net.prepare(nil) // a chain has not computed it
	for _, step := range p.steps {
		step()
	}
}

func newPreconditioner[T Float](c *Change[T]) *preconditioner[T] {
	_, sizes := kinds[c.spec.Kind].diagram(&c.spec)
	p := &preconditioner[T]{measure: newMeasure[T](sizes), lambda: make([]T, 1)}
	if c.lambda != nil || c.spec.scale() != 1 {
		p.root = metric[T]{{array: array[T]{value: func() []T { return p.lambda }}}}
	}
	p.down(c.net.root, p.root, p.apply)
	return p
}

// apply divides the factor's gradient by the forms, one after another.
func (p *preconditioner[T]) apply(f *node[T], of metric[T]) {
	for _, g := range of {
		c := newContraction[T](f.axes(), g.labels, prime(f.axes(), g.paired), p.sizes)
		inverse, out := make([]T, size(g.labels, p.sizes)), make([]T, f.length)
		n := size(g.paired, p.sizes)
		work := make([]float64, 2*n*n)
		p.steps = append(p.steps, func() {
			for at := 0; at < len(inverse); at += n * n {
				invert(inverse[at:at+n*n], g.value()[at:], n, p.damping, work)
			}
			grad := f.factor.Gradient()
			c.run(out, grad, inverse)
			copy(grad, out)
		})
	}
}

// negligible is what a Gram matrix's diagonal must be above to set the damping: without
// it, a factor that has only left zero would be divided by next to nothing.
const negligible = 1e-6

// least is the least δ, whose inverse a float32 can hold.
const least = 1e-30

// invert writes (g + δI)⁻¹ of an n×n matrix. Where rounding has left g + δI indefinite, δ
// grows until it is not; where g is not finite nor is the result, and the loss will tell.
func invert[T Float](out, g []T, n int, damping float64, work []float64) {
	var trace float64
	for i := range n {
		trace += float64(g[i*n+i])
	}
	mean := trace / float64(n)
	delta := damping * (mean + negligible)
	if n == 1 {
		out[0] = T(1 / max(mean+delta, least))
		return
	}
	a, x := work[:n*n], work[n*n:2*n*n]
	for ; trace-trace == 0 && !math.IsInf(delta, 1); delta = max(10*delta, 1e-12*mean, least) {
		for i := range a {
			a[i], x[i] = float64(g[i]), 0
		}
		for i := range n {
			a[i*n+i] += delta
			x[i*n+i] = 1
		}
		if linalg.Cholesky(1, n, a, n) == nil {
			linalg.SolveCholesky(1, n, n, a, n, x, n)
			for i, v := range x {
				out[i] = T(v)
			}
			return
		}
	}
	for i := range out[:n*n] {
		out[i] = T(math.NaN())
	}
}
