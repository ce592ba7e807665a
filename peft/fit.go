package peft

import (
	"context"
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/internal/tensorops"
	"github.com/lowrank-go/lowrank/stability"
	"github.com/lowrank-go/lowrank/tkdcpd"
	"github.com/lowrank-go/lowrank/tucker"
)

// Extract fits a change of the given description to a kernel, the ΔW to represent in
// O×C/g×kh×kw order, and returns it with ‖ΔW − λ·ΔW(θ)‖/‖ΔW‖, 0 for a zero kernel.
// Ranks that are not given (nil) follow from rule; see ChooseRanks.
//
// The fit is the best there is for LoRA, LoRAView and Spatial, by singular values, for
// LoKr with a full second factor (Van Loan and Pitsianis 1993), and for Parallel, Series, Axial
// and Full, by least squares. Tucker2 and Tucker4 are fitted by HOOI, CP and CP4 by
// alternating least squares and then made stable by the error-preserving correction
// (Phan et al. 2020), TKDCPD as its own package does, LoKr with a rank by truncating
// the full one, LoHa by least squares for its products in turn: good, not provably
// best. LoHa and LoKr with a core of taps have no fit; the error wraps ErrLossy.
//
// base is the frozen kernel, which Series is fitted against and whose norms, with ΔW,
// DoRA takes; nil for others.
func Extract(ctx context.Context, spec Spec, kernel, base []float32, rule Rule) (*Delta, float64, error) {
	if len(kernel) != spec.kernelLen() {
		return nil, 0, fmt.Errorf("%w: a kernel of %v has %d weights, got %d", ErrSpec, spec.Shape, spec.kernelLen(), len(kernel))
	}
	spec.Anchored = false
	if k, ok := kinds[spec.Kind]; ok && k.ranks > 0 && spec.Rank == nil {
		rank, err := ChooseRanks(ctx, spec, kernel, rule)
		if err != nil {
			return nil, 0, err
		}
		spec.Rank = rank
	}
	c, err := New(spec)
	if err != nil {
		return nil, 0, err
	}
	if err := c.checkBase(base); err != nil {
		return nil, 0, err
	}
	scaled := widen[float64](kernel)
	for i, v := range scaled {
		if v-v != 0 {
			return nil, 0, fmt.Errorf("%w: weight %d is %g", ErrSpec, i, v)
		}
		scaled[i] = v / c.Lambda()
	}
	if tensorops.Norm(scaled) > 0 {
		if err := c.fit(ctx, scaled, base); err != nil {
			return nil, 0, fmt.Errorf("%s of %v: %w", spec.Kind, spec.Shape, err)
		}
	}
	relError, err := c.misfit(kernel, base)
	if err != nil {
		return nil, 0, err
	}
	if c.magnitude != nil {
		tuned := make([]float32, len(base))
		for i, v := range base {
			tuned[i] = v + kernel[i]
		}
		c.setMagnitude(tuned)
	}
	return c, relError, nil
}

// misfit is ‖kernel − λ·ΔW‖/‖kernel‖, DoRA apart.
func (c *Change[T]) misfit(kernel, base []T) (float64, error) {
	var d, n float64
	l := c.Lambda()
	for i, v := range c.delta(base) {
		e := float64(kernel[i]) - l*float64(v)
		d += e * e
		n += float64(kernel[i]) * float64(kernel[i])
	}
	if d == 0 {
		return 0, nil
	}
	return math.Sqrt(d / n), nil
}

// fit sets the factors for ΔW = x, which is not zero.
func (c *Change[T]) fit(ctx context.Context, x []float64, base []T) error {
	s := &c.spec
	switch {
	case kinds[s.Kind].linear && s.Kind != Series:
		c.fitLinear(x)
		return nil
	case s.Kind == LoHa && !s.Mid:
		return c.fitHadamard(ctx, x)
	case s.Mid:
		return fmt.Errorf("%w: no fit is known", ErrLossy)
	case s.Kind == LoKr:
		return c.fitKronecker(ctx, x)
	case s.Kind == LoRAView:
		return c.fitMatrix(ctx, 0, []int{s.Shape[0] / s.groups() * s.Shape[2], s.Shape[1] * s.groups() * s.Shape[2]}, x, "B", "A")
	}
	n := len(x) / s.groups()
	for g := range s.groups() {
		if err := c.fitGroup(ctx, g, x[g*n:(g+1)*n], base); err != nil {
			return err
		}
	}
	return nil
}

// fitGroup sets group g's part of the factors.
func (c *Change[T]) fitGroup(ctx context.Context, g int, x []float64, base []T) error {
	s := &c.spec
	o, i, h, w := s.Shape[0]/s.groups(), s.Shape[1], s.Shape[2], s.Shape[3]
	switch s.Kind {
	case LoRA:
		return c.fitMatrix(ctx, g, []int{o, i * h * w}, x, "up", "down")
	case Spatial:
		// (o,h)×(c,w) and, with r last of the left factor, back to o×r×h.
		m := make([]float64, len(x))
		permute(m, x, []int{o, i, h, w}, []int{0, 2, 1, 3})
		t, err := truncate(ctx, []int{o * h, i * w}, m, []int{0}, []int{s.Rank[0]})
		if err != nil || t == nil {
			return err
		}
		rank := t.Core.Shape()[0]
		left := make([]float64, o*h*rank)
		permute(left, t.Factors[0].RawMatrix().Data, []int{o, h, rank}, []int{0, 2, 1})
		c.set("column", g, left, o, rank, h)
		return c.setCore("row", g, t)
	case Tucker2, Tucker4:
		return c.fitTucker(ctx, g, []int{o, i, h, w}, x)
	case CP, CP4:
		return c.fitCP(ctx, g, []int{o, i, h, w}, x)
	case TKDCPD:
		return c.fitTKDCPD(ctx, g, []int{o, i, h * w}, x)
	default: // Series
		n := o * i * h * w
		return c.fitSeries(g, o, i*h*w, x, widen[float64](base[g*n:(g+1)*n]))
	}
}

// set writes group g's part of a factor, whose first axis holds the groups; m may be
// smaller along any axis, the rest staying zero.
func (c *Change[T]) set(name string, g int, m []float64, shape ...int) {
	f := c.Factor(name)
	groups := c.spec.groups()
	if k := c.spec.Kind; k == LoRAView || k == LoKr || k == LoHa {
		groups = 1
	}
	n := len(f.Value) / groups
	into := append([]int{f.Shape[0] / groups}, f.Shape[1:]...)
	dst := f.Value[g*n : (g+1)*n]
	clear(dst)
	place(dst, into, widen[T](m), shape, make([]int, len(shape)))
}

// setMatrix is set for a matrix, transposed where the factor has the ranks first.
func (c *Change[T]) setMatrix(name string, g int, m *mat.Dense, transposed bool) {
	if transposed {
		m = mat.DenseCopyOf(m.T())
	} else {
		m = mat.DenseCopyOf(m)
	}
	r, k := m.Dims()
	c.set(name, g, m.RawMatrix().Data, r, k)
}

// setCore is set for a core, whose axes the factor has split further but not merged.
func (c *Change[T]) setCore(name string, g int, t *tucker.Tucker) error {
	shape, core, err := tensorops.View(t.Core)
	if err != nil {
		return err
	}
	f := c.Factor(name)
	if n := len(f.Shape) - len(shape); n > 0 { // a core that keeps the taps, or all, as one
		shape = append(shape[:len(shape)-1:len(shape)-1], f.Shape[len(shape)-1:]...)
	}
	c.set(name, g, core, shape...)
	return nil
}

// truncate is the truncated HOSVD along modes, of at most the given ranks.
func truncate(ctx context.Context, shape []int, x []float64, modes, ranks []int) (*tucker.Tucker, error) {
	if tensorops.Norm(x) == 0 { // a group may be zero where the kernel is not
		return nil, nil
	}
	r, err := tucker.HOSVD(ctx, tensorops.Wrap(shape, x), &tucker.Settings{Modes: modes, Ranks: ranks})
	if err != nil {
		return nil, err
	}
	return &r.Tucker, nil
}

// fitMatrix is the truncated singular value decomposition, U and S·Vᵀ.
func (c *Change[T]) fitMatrix(ctx context.Context, g int, shape []int, x []float64, left, right string) error {
	rank := c.spec.Rank[0]
	if c.spec.Kind == LoRAView {
		rank *= c.spec.Shape[2]
	}
	t, err := truncate(ctx, shape, x, []int{0}, []int{rank})
	if err != nil || t == nil {
		return err
	}
	// Half of each singular value in either factor, so that both train alike.
	u := mat.DenseCopyOf(t.Factors[0])
	core, ok := t.Core.Data().([]float64)
	if !ok {
		return fmt.Errorf("%w: a core of %v", ErrSpec, t.Core.Dtype())
	}
	_, r := u.Dims()
	for i := range r {
		row := core[i*len(core)/r : (i+1)*len(core)/r]
		root := math.Sqrt(tensorops.Norm(row))
		column := u.ColView(i).(*mat.VecDense)
		column.ScaleVec(root, column)
		for j := range row {
			if root > 0 {
				row[j] /= root
			}
		}
	}
	c.setMatrix(left, g, u, false)
	return c.setCore(right, g, t)
}

func (c *Change[T]) fitTucker(ctx context.Context, g int, shape []int, x []float64) error {
	if tensorops.Norm(x) == 0 {
		return nil
	}
	modes := []int{0, 1, 2, 3}[:len(c.spec.Rank)]
	r, err := tucker.HOOI(ctx, tensorops.Wrap(shape, x), &tucker.Settings{Modes: modes, Ranks: c.spec.Rank})
	if err != nil {
		return err
	}
	c.setMatrix("out", g, r.Factors[0], false)
	c.setMatrix("in", g, r.Factors[1], true)
	if c.spec.Kind == Tucker4 {
		c.setMatrix("row", g, r.Factors[2], false)
		c.setMatrix("column", g, r.Factors[3], false)
	}
	return c.setCore("core", g, &r.Tucker)
}

// Bounds on the sweeps of alternating algorithms: kernels have no exact rank, and
// later sweeps gain little.
const fitSweeps, correctionSweeps = 300, 200

func (c *Change[T]) fitCP(ctx context.Context, g int, shape []int, x []float64) error {
	if tensorops.Norm(x) == 0 {
		return nil
	}
	names := []string{"out", "in", "row", "column"}
	if c.spec.Kind == CP {
		shape, names = []int{shape[0], shape[1], shape[2] * shape[3]}, []string{"out", "in", "tap"}
	}
	t := tensorops.Wrap(shape, x)
	r, err := cpd.ALS(ctx, t, c.spec.Rank[0], &cpd.Settings{MaxSweeps: fitSweeps})
	if err != nil {
		return err
	}
	k := r.Balanced()
	if r.RelError > 1e-6 { // nearer than that the correction does not see the bound
		e, err := stability.EPC(ctx, t, &r.Kruskal, &stability.Settings{MaxSweeps: correctionSweeps})
		if err != nil {
			return err
		}
		k = &e.Kruskal
	}
	c.setMatrix("out", g, k.Factors[0], false)
	for i, name := range names[1:] {
		if name == "tap" {
			c.setTap(g, k.Factors[2])
		} else {
			c.setMatrix(name, g, k.Factors[i+1], true)
		}
	}
	return nil
}

// setTap writes the taps of R components, k²×R.
func (c *Change[T]) setTap(g int, m *mat.Dense) {
	_, r := m.Dims()
	c.set("tap", g, mat.DenseCopyOf(m.T()).RawMatrix().Data, r, c.spec.Shape[2], c.spec.Shape[3])
}

func (c *Change[T]) fitTKDCPD(ctx context.Context, g int, shape []int, x []float64) error {
	if tensorops.Norm(x) == 0 {
		return nil
	}
	r, err := tkdcpd.Decompose(ctx, tensorops.Wrap(shape, x), &tkdcpd.Settings{
		Ranks: c.spec.Rank[:2], Rank: c.spec.Rank[2],
		Fit: cpd.Settings{MaxSweeps: fitSweeps}, EPC: stability.Settings{MaxSweeps: correctionSweeps},
	})
	if err != nil {
		return err
	}
	t := r.Balanced()
	for m, names := range [][2]string{{"out", "left"}, {"in", "right"}} {
		u, a := t.Factors[m], t.Core.Factors[m]
		if u == nil { // of full rank: the identity and the core's own
			n, _ := a.Dims()
			u = mat.NewDense(n, n, copies(n, n))
		}
		c.setMatrix(names[0], g, u, m == 1)
		c.setMatrix(names[1], g, a, m == 1)
	}
	c.setTap(g, t.Core.Factors[2])
	return nil
}

// fitSeries solves mix·W₀ = X in the least squares sense, with the least mix where W₀
// has not full rank.
func (c *Change[T]) fitSeries(g, o, n int, x, base []float64) error {
	var svd mat.SVD
	if !svd.Factorize(mat.NewDense(o, n, base), mat.SVDThin) {
		return fmt.Errorf("%w: the singular values of the base do not converge", ErrSpec)
	}
	rank := svd.Rank(1e-7)
	if rank == 0 {
		return nil
	}
	// W₀ᵀ·mixᵀ = Xᵀ by W₀ = U·S·Vᵀ: mix = X·V·S⁻¹·Uᵀ.
	var u, v, xv, mix mat.Dense
	svd.UTo(&u)
	svd.VTo(&v)
	xv.Mul(mat.NewDense(o, n, x), v.Slice(0, n, 0, rank))
	for j, s := range svd.Values(nil)[:rank] {
		scale := xv.ColView(j).(*mat.VecDense)
		scale.ScaleVec(1/s, scale)
	}
	mix.Mul(&xv, u.Slice(0, o, 0, rank).T())
	c.setMatrix("mix", g, &mix, false)
	return nil
}

// fitLinear is the least-squares fit of kinds whose entries are copies of their
// factors' values: each value is the mean of the entries that copy it. Where a column
// and a row share the middle tap, the column has it.
func (c *Change[T]) fitLinear(x []float64) {
	fill := func(f *Factor[T], v T) {
		for i := range f.Value {
			f.Value[i] = v
		}
	}
	for _, f := range c.net.factors {
		fill(f, 0)
	}
	copies := make([][]T, len(c.net.factors)) // of each value, in the kernel
	for i, f := range c.net.factors {
		fill(f, 1)
		c.net.backward(c.net.forward(nil))
		copies[i] = append([]T(nil), f.Grad...)
		fill(f, 0)
	}
	for i, f := range c.net.factors {
		rest := widen[T](x)
		for j, v := range c.net.forward(nil) {
			rest[j] -= v
		}
		c.net.backward(rest)
		for j, n := range copies[i] {
			if n > 0 {
				f.Value[j] = f.Grad[j] / n
			}
		}
	}
}

// fitKronecker is the nearest Kronecker product: the entries rearranged to a matrix
// (i,p)×(j,q,t), of which it is the best rank-1 approximation.
func (c *Change[T]) fitKronecker(ctx context.Context, x []float64) error {
	s := &c.spec
	split := s.split()
	o2, c2, taps := s.Shape[0]/split[0], s.Shape[1]/split[1], s.Shape[2]*s.Shape[3]
	m := make([]float64, len(x))
	permute(m, x, []int{split[0], o2, split[1], c2, taps}, []int{0, 2, 1, 3, 4})
	t, err := truncate(ctx, []int{split[0] * split[1], o2 * c2 * taps}, m, []int{0}, []int{1})
	if err != nil {
		return err
	}
	_, two, err := tensorops.View(t.Core)
	if err != nil {
		return err
	}
	one := mat.DenseCopyOf(t.Factors[0]).RawMatrix().Data
	if s.Both {
		t, err := truncate(ctx, split[:], one, []int{0}, []int{s.Rank[0]})
		if err != nil {
			return err
		}
		c.setMatrix("lokr_w1_a", 0, t.Factors[0], false)
		if err := c.setCore("lokr_w1_b", 0, t); err != nil {
			return err
		}
	} else {
		c.set("lokr_w1", 0, one, split[0], split[1])
	}
	if len(s.Rank) == 0 {
		c.set("lokr_w2", 0, two, o2, c2, s.Shape[2], s.Shape[3])
		return nil
	}
	t, err = truncate(ctx, []int{o2, c2 * taps}, two, []int{0}, []int{s.Rank[0]})
	if err != nil {
		return err
	}
	c.setMatrix("lokr_w2_a", 0, t.Factors[0], false)
	return c.setCore("lokr_w2_b", 0, t)
}
