package resnet

import (
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

// runningUnit is a unit in eval mode.
type runningUnit struct {
	conv *conv.Runner // with the norm folded in, unless norm is set
	// norm stands behind modules that it cannot be folded past.
	norm    *nn.BatchNorm
	modules []*runningModule
	z       *conv.Map // before norm
}

type runningModule struct {
	name  string
	place Place
	scale []float32
	steps []*runningStep
}

// runningStep is a convolution with its norm folded in, or a norm.
type runningStep struct {
	conv *conv.Runner
	norm *nn.BatchNorm
	relu bool
	y    *conv.Map
}

// newRunningUnit folds what can be folded: the norm into the convolution, into parallel
// modules its scale, and before that linear serial modules into the convolution.
func newRunningUnit(u *Unit) (*runningUnit, error) {
	u, err := foldSerial(u)
	if err != nil {
		return nil, err
	}
	r := &runningUnit{}
	chain := u.Chain
	if slices.ContainsFunc(u.Modules, func(m *Module) bool { return m.Place == Serial }) {
		r.norm = fixedNorm(u.Norm)
	} else if chain, err = fold(u); err != nil {
		return nil, err
	}
	if r.conv, err = conv.NewRunner(chain); err != nil {
		return nil, err
	}
	for _, m := range u.Modules {
		rm := &runningModule{name: m.Steps[0].Name, place: m.Place, scale: uniform(u.Chain.Out(), m.Scale)}
		if m.Place == Parallel && r.norm == nil {
			gain, _ := u.Norm.affine()
			for i, g := range gain {
				rm.scale[i] = float32(m.Scale * g)
			}
		}
		for _, s := range m.Steps {
			rs := &runningStep{relu: s.ReLU}
			if s.Chain == nil {
				rs.norm = fixedNorm(s.Norm)
			} else {
				c, err := fold(s.Unit)
				if err != nil {
					return nil, err
				}
				if rs.conv, err = conv.NewRunner(c); err != nil {
					return nil, err
				}
			}
			rm.steps = append(rm.steps, rs)
		}
		r.modules = append(r.modules, rm)
	}
	return r, nil
}

// fixedNorm is m for running alone: its memory is not written to.
func fixedNorm(m *Norm) *nn.BatchNorm {
	return &nn.BatchNorm{Weight: m.Weight, Bias: m.Bias, Mean: m.Mean, Var: m.Var, Eps: m.Eps}
}

// Forward is the unit on x; dst and e are as conv.Runner's.
func (r *runningUnit) Forward(dst, x *conv.Map, e conv.Epilogue, workers int) (*conv.Map, error) {
	within := slices.ContainsFunc(r.modules, func(m *runningModule) bool { return m.place != After })
	var err error
	switch {
	case !within:
		dst, err = r.conv.Forward(dst, x, e, workers)
	case r.norm != nil:
		if r.z, err = r.conv.Forward(r.z, x, conv.Epilogue{}, workers); err != nil {
			return nil, err
		}
		for _, place := range []Place{Parallel, Serial} {
			if err := r.add(place, r.z, x, false, workers); err != nil {
				return nil, err
			}
		}
		dst = r.norm.ForwardFixed(dst, r.z, e.Residual, e.ReLU, workers)
	default:
		if dst, err = r.conv.Forward(dst, x, conv.Epilogue{Residual: e.Residual}, workers); err == nil {
			err = r.add(Parallel, dst, x, e.ReLU, workers)
		}
	}
	if err != nil {
		return nil, err
	}
	return dst, r.add(After, dst, x, false, workers)
}

// add adds what the modules of a place give to y, with ReLU behind the last.
func (r *runningUnit) add(place Place, y, x *conv.Map, relu bool, workers int) error {
	last := -1
	for i, m := range r.modules {
		if m.place == place {
			last = i
		}
	}
	for i, m := range r.modules {
		if m.place != place {
			continue
		}
		in := x
		if place == Serial {
			in = y
		}
		out, err := m.run(in, workers)
		if err != nil {
			return err
		}
		if err := sameSize(m.name, out, y); err != nil {
			return err
		}
		nn.Scale(y, out, y, m.scale, relu && i == last, workers)
	}
	return nil
}

func (m *runningModule) run(x *conv.Map, workers int) (*conv.Map, error) {
	var err error
	for _, s := range m.steps {
		if s.conv == nil {
			s.y = s.norm.ForwardFixed(s.y, x, nil, s.relu, workers)
		} else if s.y, err = s.conv.Forward(s.y, x, conv.Epilogue{ReLU: s.relu}, workers); err != nil {
			return nil, err
		}
		x = s.y
	}
	return x, nil
}

// foldSerial is u with its serial modules in its convolution, if they are linear and
// nothing stands between; else it is u.
func foldSerial(u *Unit) (*Unit, error) {
	var serial, rest []*Module
	for _, m := range u.Modules {
		switch {
		case m.Place == Parallel || m.Place == Serial && !m.pointwise():
			return u, nil
		case m.Place == Serial:
			serial = append(serial, m)
		default:
			rest = append(rest, m)
		}
	}
	last := u.Chain.Last()
	if len(serial) == 0 || last.Groups > 1 {
		return u, nil
	}
	// a is what the modules make of the convolution's output.
	a := identity(last.Out())
	for _, m := range serial {
		b := identity(last.Out())
		for _, s := range m.Steps {
			b.apply(s)
		}
		b.slope.Scale(m.Scale, b.slope)
		b.shift.ScaleVec(m.Scale, b.shift)
		b.slope.Add(b.slope, identity(last.Out()).slope)
		a.compose(b.slope, b.shift)
	}
	out := *u
	out.Modules = rest
	c := *u.Chain
	c.Stages = append(slices.Clone(c.Stages[:len(c.Stages)-1]), a.after(last))
	if c.Kind == conv.Dense {
		out.Chain = conv.NewDense(c.Stages[0])
	} else {
		out.Chain = &c
	}
	return &out, nil
}

// pointwise tells whether the module is affine in each pixel.
func (m *Module) pointwise() bool {
	for _, s := range m.Steps {
		if s.ReLU || s.Chain != nil && (s.Chain.Kind != conv.Dense || s.Chain.Groups > 1 ||
			!s.Chain.Stages[0].Pointwise() || s.Chain.Stages[0].Normal().Stride != [2]int{1, 1}) {
			return false
		}
	}
	return true
}

// affine is y = slope·x + shift of the channels of a pixel.
type affine struct {
	slope *mat.Dense
	shift *mat.VecDense
}

func identity(n int) *affine {
	a := &affine{mat.NewDense(n, n, nil), mat.NewVecDense(n, nil)}
	for i := range n {
		a.slope.Set(i, i, 1)
	}
	return a
}

// compose makes a what slope·a + shift is.
func (a *affine) compose(slope *mat.Dense, shift *mat.VecDense) {
	var m mat.Dense
	var v mat.VecDense
	m.Mul(slope, a.slope)
	v.MulVec(slope, a.shift)
	v.AddVec(&v, shift)
	a.slope, a.shift = &m, &v
}

// apply makes a what a step makes of it.
func (a *affine) apply(s *Step) {
	if s.Chain != nil {
		k := s.Chain.Stages[0]
		shift := mat.NewVecDense(k.Shape[0], nil)
		for i, v := range k.Bias {
			shift.SetVec(i, float64(v))
		}
		a.compose(matrix(k), shift)
	}
	if s.Norm != nil {
		scale, shift := s.Norm.affine()
		for i, v := range scale {
			row := a.slope.RawRowView(i)
			for j := range row {
				row[j] *= v
			}
			a.shift.SetVec(i, a.shift.AtVec(i)*v+shift[i])
		}
	}
}

// matrix is a kernel as outputs by the rest.
func matrix(k *conv.Kernel) *mat.Dense {
	w := make([]float64, len(k.Weight))
	for i, v := range k.Weight {
		w[i] = float64(v)
	}
	return mat.NewDense(k.Out(), len(w)/k.Out(), w)
}

// after is the kernel with a behind it.
func (a *affine) after(k *conv.Kernel) *conv.Kernel {
	var w mat.Dense
	w.Mul(a.slope, matrix(k))
	b := mat.NewVecDense(k.Out(), nil)
	for i, v := range k.Bias {
		b.SetVec(i, float64(v))
	}
	b.MulVec(a.slope, mat.VecDenseCopyOf(b))
	b.AddVec(b, a.shift)
	out := *k
	out.Weight, out.Bias = make([]float32, len(k.Weight)), make([]float32, k.Out())
	row := len(k.Weight) / k.Out()
	for o := range k.Out() {
		for i, v := range w.RawRowView(o) {
			out.Weight[o*row+i] = float32(v)
		}
		out.Bias[o] = float32(b.AtVec(o))
	}
	return &out
}
