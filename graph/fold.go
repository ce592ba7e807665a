package graph

import (
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/conv"
)

// foldModules changes a graph that is only to be run, so that adapters' own layers cost as
// little as they can: what is linear in a pixel behind a convolution goes into it, and the
// batch norm behind the sum of a convolution and parallel modules into both.
func foldModules(g *Graph) error {
	if !g.HasModules() {
		return nil
	}
	by := g.consumers()
	shapes, err := g.Shapes(g.Input)
	if err != nil {
		return err
	}
	of := make(map[*Node]Shape, len(shapes))
	for i, n := range g.Nodes {
		of[n] = shapes[i]
	}
	for _, n := range g.Nodes {
		if n.Conv() == nil || moduleOf(n.Name) != "" {
			continue
		}
		norm := normBehind(n, by)
		if norm == nil {
			continue
		}
		var sums []*Node // from the last to the first
		serial := 0
		foreign := false // as a file may describe them
		for at := norm.In[0]; at != n; at = at.In[0] {
			sums = append(sums, at)
			switch g.placeOf(at) {
			case Serial:
				serial++
			case Parallel:
			default:
				foreign = true
			}
			foreign = foreign || len(by[at.In[1]]) != 1 || !of[at].Equal(of[n]) || !of[at.In[1]].Equal(of[n])
		}
		slices.Reverse(sums)
		if foreign || !g.readByModules(n, sums, by) {
			continue
		}
		c := n.Conv().Chain
		switch {
		case len(sums) == 0:
		case serial == len(sums) && c.Last().Normal().Groups == 1:
			a := identity(c.Out())
			linear := true
			for _, s := range sums {
				linear = linear && a.serial(s)
			}
			if !linear {
				continue
			}
			out := *c
			out.Stages = append(slices.Clone(c.Stages[:len(c.Stages)-1]), a.after(c.Last()))
			n.Op = &Conv{Chain: &out}
			norm.In = []*Node{n}
		case serial == 0:
			m := norm.BatchNorm()
			gain, _ := m.Affine()
			folded, err := m.fold(c)
			if err != nil {
				return err
			}
			n.Op = &Conv{Chain: folded}
			for _, s := range sums {
				own := *s.In[1].Op.(*Scale)
				own.channels = make([]float32, len(gain))
				for i, v := range gain {
					own.channels[i] = float32(own.Value * v)
				}
				s.In[1].Op = &own
			}
			norm.Op = &Identity{}
		}
	}
	return nil
}

// readByModules tells whether what is between a convolution n and its batch norm is read
// by the modules of sums alone: each value by the next sum, and by one serial module where
// that is one. A graph from a file need not be what AddModule makes.
func (g *Graph) readByModules(n *Node, sums []*Node, by map[*Node][]*Node) bool {
	for _, s := range sums {
		readers := 1
		if g.placeOf(s) == Serial {
			readers = 2
			// What the module computes must begin at n, and be read by nothing else.
			for x := s.In[1]; x != n; x = x.In[0] {
				if len(x.In) != 1 || len(by[x]) != 1 {
					return false
				}
			}
		}
		if len(by[n]) != readers {
			return false
		}
		n = s
	}
	return len(by[n]) == 1 // by the batch norm
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

// serial makes a what the serial module of a sum makes of it, unless that is not affine in
// each pixel.
func (a *affine) serial(sum *Node) bool {
	scale := sum.In[1]
	var steps []*Node // from the last to the first
	for n := scale.In[0]; n != sum.In[0]; n = n.In[0] {
		switch op := n.Op.(type) {
		case *BatchNorm:
		case *Conv:
			if c := op.Chain; c.Kind != conv.Dense || c.Groups > 1 || !c.Stages[0].Pointwise() || c.Stages[0].Normal().Stride != [2]int{1, 1} {
				return false
			}
		default:
			return false
		}
		steps = append(steps, n)
	}
	size, _ := a.slope.Dims()
	b := identity(size)
	for _, n := range slices.Backward(steps) {
		b.apply(n.Op)
	}
	value := scale.Op.(*Scale).Value
	b.slope.Scale(value, b.slope)
	b.shift.ScaleVec(value, b.shift)
	b.slope.Add(b.slope, identity(size).slope)
	a.compose(b.slope, b.shift)
	return true
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

// apply makes a what a pointwise convolution or a batch norm makes of it.
func (a *affine) apply(op Op) {
	switch op := op.(type) {
	case *Conv:
		k := op.Chain.Stages[0]
		shift := mat.NewVecDense(k.Shape[0], nil)
		for i, v := range k.Bias {
			shift.SetVec(i, float64(v))
		}
		a.compose(matrix(k), shift)
	case *BatchNorm:
		scale, shift := op.Affine()
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
