package graph

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
)

// normBehind is the batch norm behind a convolution, which may be separated from it by the
// sums of adapters; nil if there is none. by are the consumers of all nodes.
func normBehind(n *Node, by map[*Node][]*Node) *Node {
	for {
		var next *Node
		for _, r := range by[n] {
			// Adapters' own layers may read it beside what comes behind.
			if r != nil && moduleOf(r.Name) != "" && !isSumOf(r, n) {
				continue
			}
			if next != nil || r == nil {
				return nil
			}
			next = r
		}
		if next == nil {
			return nil
		}
		if _, ok := next.Op.(*BatchNorm); ok {
			return next
		}
		if !isSumOf(next, n) || moduleOf(next.Name) == "" {
			return nil
		}
		n = next
	}
}

// isSumOf tells whether r is an addition whose first summand is n.
func isSumOf(r, n *Node) bool {
	b, ok := r.Op.(*Binary)
	return ok && b.Op == Add && len(r.In) == 2 && r.In[0] == n
}

// convBefore is the convolution that a batch norm belongs to, though the sums of adapters
// separate them; nil if there is none.
func convBefore(norm *Node) *Node {
	n := norm.In[0]
	for moduleOf(n.Name) != "" && len(n.In) == 2 && isSumOf(n, n.In[0]) {
		n = n.In[0]
	}
	if n.Conv() == nil {
		return nil
	}
	return n
}

// unitEnd is the last of the nodes that belong to a convolution: its batch norm, the
// addition of a shortcut of which it is the first summand, and an activation, each read
// by the next alone.
func (g *Graph) unitEnd(n *Node) *Node {
	by := g.consumers()
	end := normBehind(n, by)
	if end == nil {
		end = n
	}
	only := func(n *Node) *Node {
		if r := by[n]; len(r) == 1 {
			return r[0]
		}
		return nil
	}
	if r := only(end); r != nil && isSumOf(r, end) {
		end = r
	}
	if r := only(end); r != nil {
		if _, ok := r.Op.(*Activation); ok {
			end = r
		}
	}
	for {
		r := only(end)
		if r == nil || moduleOf(r.Name) == "" || !isSumOf(r, end) {
			return end
		}
		end = r
	}
}

// insertBehind puts nodes behind at. Those that read at read sum, one of nodes, from then
// on.
func (g *Graph) insertBehind(at, sum *Node, nodes ...*Node) {
	for _, n := range g.Nodes {
		for j, in := range n.In {
			if in == at {
				n.In[j] = sum
			}
		}
	}
	for i, n := range g.Outputs {
		if n == at {
			g.Outputs[i] = sum
		}
	}
	g.Nodes = slices.Insert(g.Nodes, slices.Index(g.Nodes, at)+1, nodes...)
}

// InsertAfter puts a node behind the one called name, in whose place it is read from then
// on. The error wraps ErrGraph or ErrShape; g is then as it was.
func (g *Graph) InsertAfter(name string, node *Node) error {
	out := g.Clone()
	at := out.Node(name)
	if at == nil {
		return fmt.Errorf("%w: no node is called %q", ErrGraph, name)
	}
	n := &Node{Name: node.Name, Op: node.Op, In: []*Node{at}}
	out.insertBehind(at, n, n)
	if err := out.Validate(); err != nil {
		return err
	}
	*g = *out
	return nil
}

// Replace puts chain in the place of the convolution called name. The chain must equal a
// convolution of the same channels, stride, padding, dilation and groups.
func (g *Graph) Replace(name string, chain *conv.Chain) error {
	n := g.Node(name)
	if n == nil || n.Conv() == nil {
		return fmt.Errorf("%w: no convolution is called %q", ErrGraph, name)
	}
	if err := chain.Validate(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	was := n.Conv()
	shape, geometry := was.Chain.Shape()
	newShape, newGeometry := chain.Shape()
	// Along an axis of one tap a dilation means nothing.
	for a := range 2 {
		if shape[2+a] == 1 && newShape[2+a] == 1 {
			newGeometry.Dilation[a] = geometry.Dilation[a]
		}
	}
	if newShape != shape || newGeometry != geometry {
		return fmt.Errorf("%s: %w: the chain is a convolution of shape %v with %s, not of shape %v with %s", name, ErrShape,
			newShape, describe(newGeometry), shape, describe(geometry))
	}
	n.Op = &Conv{Chain: chain, Linear: was.Linear}
	return nil
}

// describe is a geometry in words.
func describe(g conv.Geometry) string {
	g = g.Normal()
	padding := fmt.Sprint(g.Padding)
	if g.Extra != [2]int{} {
		padding += fmt.Sprintf(" and %v more at the end", g.Extra)
	}
	return fmt.Sprintf("stride %v, padding %s, dilation %v and %d groups", g.Stride, padding, g.Dilation, g.Groups)
}

// mostClasses bounds the classes of an image; a mask has a byte for a pixel.
const (
	mostClasses      = 1 << 20
	mostPixelClasses = 255
)

// CheckClasses reports a number of classes that the network cannot have.
func (g *Graph) CheckClasses(classes int) error {
	most := mostClasses
	if g.Segments() {
		most = mostPixelClasses
	}
	if classes < 1 || classes > most {
		return fmt.Errorf("%w: %d classes; want 1 to %d", ErrGraph, classes, most)
	}
	return nil
}

// SetHead gives the network a new head of random weights, as NewHead makes them, for
// another number of classes.
func (g *Graph) SetHead(classes int, seed uint64) error {
	if err := g.CheckClasses(classes); err != nil {
		return err
	}
	k, err := g.randomHead(classes, seed)
	if err != nil {
		return err
	}
	return g.setHead(k)
}

// randomHead is the kernel of a head of random weights for g.
func (g *Graph) randomHead(classes int, seed uint64) (*conv.Kernel, error) {
	if g.Head == nil {
		return nil, fmt.Errorf("%w: %s has no head that is known to tell classes apart", ErrTask, g.Arch)
	}
	shape, geometry := g.Head.Conv().Chain.Shape()
	if geometry.Groups > 1 {
		return nil, fmt.Errorf("%w: the head of %s has %d groups", ErrTask, g.Arch, geometry.Groups)
	}
	k := NewHead(shape[1]*shape[2]*shape[3], classes, rand.New(rand.NewPCG(seed, 0x68656164)))
	k.Shape, k.Geometry = [4]int{classes, shape[1], shape[2], shape[3]}, geometry
	return k, nil
}

// NewHead is a linear layer of weights and biases that are uniform within ±1/√in, or a
// 1×1 convolution.
func NewHead(in, classes int, rng *rand.Rand) *conv.Kernel {
	k := &conv.Kernel{Shape: [4]int{classes, in, 1, 1}, Weight: make([]float32, classes*in), Bias: make([]float32, classes), Geometry: conv.Geometry{}.Normal()}
	bound := 1 / math.Sqrt(float64(in))
	for _, v := range [][]float32{k.Weight, k.Bias} {
		for i := range v {
			v[i] = float32(bound * (2*rng.Float64() - 1))
		}
	}
	return k
}

// ExtendHead gives the head outputs for more classes behind those that it has, which it
// keeps to the bit; the new rows are what SetHead(more, seed) would make. The error wraps
// ErrGraph or ErrTask, or ErrShape where the head is a chain; g is then as it was.
func (g *Graph) ExtendHead(more int, seed uint64) error {
	if more < 1 {
		return fmt.Errorf("%w: %d more classes; want 1 or more", ErrGraph, more)
	}
	if err := g.CheckClasses(g.Classes() + more); err != nil {
		return err
	}
	add, err := g.randomHead(more, seed)
	if err != nil {
		return err
	}
	k, err := g.head()
	if err != nil {
		return err
	}
	bias := k.Bias
	if bias == nil {
		bias = make([]float32, k.Out())
	}
	own := *k
	own.Shape[0] += more
	own.Weight, own.Bias = slices.Concat(k.Weight, add.Weight), slices.Concat(bias, add.Bias)
	return g.setHead(&own)
}

// SelectOutputs is a copy of g with those classes alone that are from first to last,
// exclusive, of Classes; weights are shared with g. The error wraps ErrGraph where there
// are no such classes, and ErrShape where the head is a chain.
func (g *Graph) SelectOutputs(first, last int) (*Graph, error) {
	if n := g.Classes(); first < 0 || last <= first || last > n {
		return nil, fmt.Errorf("%w: outputs %d to %d; want some from 0 to %d", ErrGraph, first, last, n)
	}
	k, err := g.head()
	if err != nil {
		return nil, err
	}
	row := len(k.Weight) / k.Out()
	own := *k
	own.Shape[0] = last - first
	own.Weight = k.Weight[first*row : last*row : last*row]
	if k.Bias != nil {
		own.Bias = k.Bias[first:last:last]
	}
	out := g.Clone()
	return out, out.setHead(&own)
}

// head is the head's kernel, whose rows are the outputs.
func (g *Graph) head() (*conv.Kernel, error) {
	if g.Head == nil {
		return nil, fmt.Errorf("%w: %s has no head that is known to tell classes apart", ErrTask, g.Arch)
	}
	c := g.Head.Conv().Chain
	if c.Kind != conv.Dense || c.Stages[0].Normal().Groups > 1 {
		return nil, fmt.Errorf("%w: the head %s is a chain of kind %s; its outputs can be chosen before it is compressed", ErrShape, g.Head.Name, c.Kind)
	}
	if n := g.Classes(); c.Out() != n {
		return nil, fmt.Errorf("%w: %s gives %d outputs, %s tells %d classes apart", ErrTask, g.Head.Name, c.Out(), g.Arch, n)
	}
	return c.Stages[0], nil
}

// setHead gives g another head, whose outputs must be the classes: what a file calls the
// head may be any convolution.
func (g *Graph) setHead(k *conv.Kernel) error {
	was := g.Head.Op
	g.Head.Op = &Conv{Chain: conv.NewDense(k), Linear: g.Head.Conv().Linear}
	err := g.Validate()
	if err == nil && g.Classes() != k.Out() {
		err = fmt.Errorf("%w: %d classes of %d outputs", ErrShape, g.Classes(), k.Out())
	}
	if err != nil {
		g.Head.Op = was
		return fmt.Errorf("%w: %s is not the layer that tells the classes of %s apart: %w", ErrTask, g.Head.Name, g.Arch, err)
	}
	return nil
}

// SetNormal draws the weights of k from a normal distribution of variance 2/(T·kh·kw), T
// being the outputs of a group (He et al. 2015, by the outputs).
func SetNormal(k *conv.Kernel, rng *rand.Rand) {
	deviation := math.Sqrt(2 / float64(k.Shape[0]/max(k.Groups, 1)*k.Taps()))
	for i := range k.Weight {
		k.Weight[i] = float32(deviation * rng.NormFloat64())
	}
}

// NewConv is a convolution of zeros.
func NewConv(shape [4]int, g conv.Geometry, bias bool) *conv.Chain {
	k := &conv.Kernel{Shape: shape, Weight: make([]float32, shape[0]*shape[1]*shape[2]*shape[3]), Geometry: g.Normal()}
	if bias {
		k.Bias = make([]float32, shape[0])
	}
	return conv.NewDense(k)
}

// Randomise gives every convolution and batch norm random weights, as networks begin
// (SetNormal, NewBatchNorm); chains become ordinary convolutions. Adapters' own layers
// begin anew too, and add nothing at first: the last of each is zero. The head stays: see
// SetHead.
func (g *Graph) Randomise(seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0x6c6f7772616e6b))
	// The layers whose outputs are scaled and added are the last of adapters.
	last := map[*Node]bool{}
	for _, n := range g.Nodes {
		if _, ok := n.Op.(*Scale); ok && moduleOf(n.Name) != "" {
			x := n.In[0]
			for x.Conv() == nil && moduleOf(x.Name) != "" && len(x.In) > 0 {
				if _, norm := x.Op.(*BatchNorm); norm {
					break
				}
				x = x.In[0]
			}
			last[x] = true
		}
	}
	for _, n := range g.Nodes {
		switch op := n.Op.(type) {
		case *Conv:
			if n == g.Head {
				continue
			}
			shape, geometry := op.Chain.Shape()
			c := NewConv(shape, geometry, op.Chain.Last().Bias != nil)
			if !last[n] {
				SetNormal(c.Stages[0], rng)
			}
			n.Op = &Conv{Chain: c, Linear: op.Linear}
		case *BatchNorm:
			m := NewBatchNorm(len(op.Weight))
			m.Eps = op.Eps
			if last[n] {
				clear(m.Weight)
			}
			n.Op = m
		}
	}
}
