package graph

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
)

// operator is an operation with the shapes that it is tested on.
type operator struct {
	name string
	op   Op
	in   []Shape
	// want is the output by the definition, if it is a short one: value i of the output,
	// at index, from the value of an input at an index.
	want func(index []int, at func(input int, index ...int) float64) float64
	// positive makes inputs positive, for functions that are defined there.
	positive bool
	// frozen says that the operation has no gradient.
	frozen bool
}

// source is the operation that tests have inputs as parameters by.
type source struct {
	size   Shape
	values []float32 // of a whole batch, in the order of memory
	grad   []float32
}

func (*source) Kind() string                   { return "source" }
func (s *source) Shape([]Shape) (Shape, error) { return s.size, nil }
func (s *source) kernel(mode) (kernel, error)  { return s, nil }
func (s *source) tensors() []tensor            { return nil }
func (s *source) trained() int                 { return 0 }
func (s *source) needs(int) bool               { return false }
func (s *source) learn(_ int, g []float32)     { s.grad = g }
func (s *source) op() Op                       { return s }
func (s *source) parameters() []parameter      { return []parameter{{"value", Weight, s.values}} }
func (s *source) with(func(string) (*tensor, error)) (Op, error) {
	return s, nil
}
func (s *source) forward(c *call) error {
	c.out = s.size.resize(c.out, c.batch)
	copy(c.out.Data, s.values)
	return nil
}
func (s *source) backward(c *call) error { copy(s.grad, c.dy.Data); return nil }

const testBatch = 2

// image is the image that nothing reads.
var image = conv.NewMap(testBatch, 1, 1, 1)

// sourced is a graph with sources for the inputs of an operator, of values that are far
// enough from each other and from 0 for differences.
func (o *operator) sourced(rng *rand.Rand) (*Graph, []*Node) {
	g := &Graph{Input: Shape{1, 1, 1}}
	g.Add("image", &Input{Size: Shape{1, 1, 1}})
	total := 0
	for _, s := range o.in {
		total += testBatch * s.Len()
	}
	order := rng.Perm(total)
	step := max(4/float64(total), .04)
	var in []*Node
	for i, s := range o.in {
		src := &source{size: s, values: make([]float32, testBatch*s.Len())}
		for j := range src.values {
			v := (float64(order[0]-total/2) + .4) * step
			if o.positive {
				v = .5 + float64(order[0])*step/2
			}
			src.values[j], order = float32(v), order[1:]
		}
		in = append(in, g.Add(fmt.Sprintf("source%d", i), src))
	}
	return g, in
}

// flat adds a node that makes vectors of nodes and puts those together.
func flat(g *Graph, nodes ...*Node) *Node {
	var in []*Node
	for i, n := range nodes {
		in = append(in, g.Add(fmt.Sprintf("flat%d.%s", i, n.Name), &Flatten{}, n))
	}
	return g.Add("all", &Concat{}, in...)
}

// gradients compares the gradients of everything that learns with differences.
func gradients(t *testing.T, g *Graph, rng *rand.Rand) {
	t.Helper()
	ctx := context.Background()
	l, err := g.NewLearner(LearnerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	y, err := l.Forward(ctx, image, 1)
	if err != nil {
		t.Fatal(err)
	}
	weights := make([]float32, len(y))
	for i := range weights {
		weights[i] = float32(rng.NormFloat64())
	}
	loss := func() float64 {
		y, err := l.Forward(ctx, image, 2)
		if err != nil {
			t.Fatal(err)
		}
		s := 0.
		for i, v := range y {
			s += float64(v) * float64(weights[i])
		}
		return s
	}
	for range 2 { // the second time memory is what the first left
		loss()
		if err := l.Backward(ctx, slices.Clone(weights), 2); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range l.Params() {
		for i := range p.Value {
			const h = 1. / 128
			was := p.Value[i]
			p.Value[i] = was + h
			up := loss()
			p.Value[i] = was - h
			down := loss()
			p.Value[i] = was
			want := (up - down) / (2 * h)
			if got := float64(p.Grad[i]); !(math.Abs(got-want) <= 1e-2*(1+math.Abs(want))) {
				t.Fatalf("the gradient of %s[%d] is %g, want %g", p.Name, i, got, want)
			}
		}
	}
}

// outputs are those of a program.
func outputs(t *testing.T, g *Graph, workers int) []Tensor {
	t.Helper()
	p, err := g.Compile()
	if err != nil {
		t.Fatal(err)
	}
	var out []Tensor
	for range 2 {
		if out, err = p.Run(context.Background(), image, workers); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func sameTensors(a, b []Tensor) bool {
	return slices.EqualFunc(a, b, func(a, b Tensor) bool {
		return slices.Equal(a.Shape, b.Shape) && slices.EqualFunc(a.Data, b.Data, func(x, y float32) bool {
			return math.Float32bits(x) == math.Float32bits(y)
		})
	})
}

func TestGradientsOfOperatorsEqualDifferences(t *testing.T) {
	for _, o := range operators() {
		if o.frozen {
			continue
		}
		t.Run(o.name, func(t *testing.T) {
			for seed := range uint64(2) {
				rng := rand.New(rand.NewPCG(seed, 1))
				g, in := o.sourced(rng)
				g.Outputs = []*Node{g.Add("op", o.op, in...)}
				gradients(t, g, rng)
			}
		})
	}
}

func TestGradientsOfValuesThatAreReadSeveralTimesAddUp(t *testing.T) {
	for _, o := range operators() {
		if o.frozen {
			continue
		}
		t.Run(o.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(3, 1))
			g, in := o.sourced(rng)
			a := g.Add("a", o.op, in...)
			b := g.Add("b", o.op, in...)
			g.Outputs = []*Node{flat(g, append([]*Node{a, b}, in...)...)}
			gradients(t, g, rng)
		})
	}
}

func TestOperatorsEqualTheirDefinition(t *testing.T) {
	for _, o := range operators() {
		if o.want == nil {
			continue
		}
		t.Run(o.name, func(t *testing.T) {
			g, in := o.sourced(rand.New(rand.NewPCG(4, 1)))
			g.Outputs = append([]*Node{g.Add("op", o.op, in...)}, in...)
			all := outputs(t, g, 2)
			got := all[0]
			index := make([]int, len(got.Shape))
			for i, v := range got.Data {
				n := index[0]
				want := o.want(index[1:], func(input int, at ...int) float64 {
					x := all[1+input]
					k := n
					for a, d := range x.Shape[1:] {
						k = k*d + at[a]
					}
					return float64(x.Data[k])
				})
				if !(math.Abs(float64(v)-want) <= 1e-5*(1+math.Abs(want))) {
					t.Fatalf("value %d, at %v, is %g, want %g", i, index, v, want)
				}
				for a := len(index) - 1; a >= 0; a-- {
					if index[a]++; index[a] < got.Shape[a] {
						break
					}
					index[a] = 0
				}
			}
		})
	}
}

// Memory is shared by values that do not live at the same time: a network gives the same
// where every value is an output and so has memory of its own.
func TestOperatorsGiveTheSameInSharedMemory(t *testing.T) {
	for _, o := range operators() {
		t.Run(o.name, func(t *testing.T) {
			g, in := o.sourced(rand.New(rand.NewPCG(5, 1)))
			for i, n := range in {
				in[i] = g.Add(fmt.Sprintf("before%d", i), &Scale{Value: .75}, n)
			}
			op := g.Add("op", o.op, in...)
			end := g.Add("behind", &Scale{Value: 1.25}, op)
			g.Outputs = []*Node{end}
			shared := outputs(t, g, 1)
			g.Outputs = append([]*Node{end, op}, in...)
			own := outputs(t, g, 3)
			if !sameTensors(shared, own[:1]) {
				t.Fatal("in shared memory the output is another one")
			}
		})
	}
}

func TestOperatorsAreLoadedAsTheyWereSaved(t *testing.T) {
	for _, o := range operators() {
		t.Run(o.name, func(t *testing.T) {
			g, in := o.sourced(rand.New(rand.NewPCG(6, 1)))
			for _, n := range in {
				s := n.Op.(*source)
				// The same for all of a batch.
				copy(s.values[s.size.Len():], s.values[:s.size.Len()])
			}
			g.Outputs = []*Node{g.Add("op", o.op, in...)}
			want := outputs(t, g, 1)
			for i, n := range in {
				s := n.Op.(*source)
				values := export(s.size, &conv.Map{N: 1, Data: s.values[:s.size.Len()]}).Data
				n.Op = &Const{Size: s.size, Values: values}
				n.Name = fmt.Sprintf("constant%d", i)
			}
			if !sameTensors(outputs(t, g, 1), want) {
				t.Fatal("of constants the output is another one")
			}
			sd, err := g.StateDict()
			if err != nil {
				t.Fatal(err)
			}
			loaded, err := Load(sd)
			if err != nil {
				t.Fatal(err)
			}
			if !sameTensors(outputs(t, loaded, 1), want) {
				t.Fatal("the loaded network's output is another one")
			}
		})
	}
}

func TestAnInputThatIsThereTwiceGetsBothGradients(t *testing.T) {
	for op := range binaries {
		o := operator{in: []Shape{{3, 2, 2}}, positive: true}
		rng := rand.New(rand.NewPCG(7, 1))
		g, in := o.sourced(rng)
		twice := g.Add("op", &Binary{op}, in[0], in[0])
		// The sum passes its gradient on.
		g.Outputs = []*Node{g.Add("sum", &Binary{Add}, twice, twice)}
		switch op {
		case Max, Min, Equal, Less, Greater:
			continue // they have a corner or a step there
		}
		gradients(t, g, rng)
	}
	o := operator{in: []Shape{{3, 2, 2}}}
	rng := rand.New(rand.NewPCG(8, 1))
	g, in := o.sourced(rng)
	g.Outputs = []*Node{g.Add("op", &Concat{}, in[0], in[0], in[0])}
	gradients(t, g, rng)
}

func TestConstantsMayBeWhereverTensorsAre(t *testing.T) {
	one := func(v ...float32) *Const { return &Const{Size: Shape{1, 1, 2}, Values: v} }
	g := &Graph{Input: Shape{1, 1, 2}}
	x := g.Add("image", &Input{Size: Shape{1, 1, 2}})
	a := g.Add("a", one(1, 2))
	b := g.Add("b", one(30, 40))
	first := g.Add("first", &Binary{Sub}, a, x)
	both := g.Add("both", &Binary{Mul}, a, b)
	joined := g.Add("joined", &Concat{}, first, a, b)
	conv1 := dense(t, [4]int{1, 1, 1, 1}, []float32{2})
	sum := g.Add("sum", &Binary{Add}, g.Add("conv", &Conv{Chain: conv1}, x), b)
	g.Outputs = []*Node{joined, both, sum, a}
	p, err := g.Compile()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 3, 2} {
		m := conv.NewMap(n, 1, 2, 1)
		var want [4][]float32
		for i := range n {
			u, v := float32(i)+.5, float32(i)-7
			m.Data[2*i], m.Data[2*i+1] = u, v
			want[0] = append(want[0], 1-u, 2-v, 1, 2, 30, 40)
			want[1] = append(want[1], 30, 80)
			want[2] = append(want[2], 2*u+30, 2*v+40)
			want[3] = append(want[3], 1, 2)
		}
		out, err := p.Run(context.Background(), m, 1)
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range want {
			if !slices.Equal(out[i].Data, w) {
				t.Errorf("of a batch of %d output %d is %v, want %v", n, i, out[i].Data, w)
			}
		}
	}
}

func dense(t *testing.T, shape [4]int, weights []float32) *conv.Chain {
	t.Helper()
	k, err := conv.NewKernel(shape, weights, nil, conv.Geometry{})
	if err != nil {
		t.Fatal(err)
	}
	return conv.NewDense(k)
}
