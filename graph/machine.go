package graph

import (
	"context"
	"fmt"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
)

// machine runs the steps of a plan: what programs and learners have in common.
type machine struct {
	graph  *Graph
	steps  []*step
	input  int // the value that is the image
	output []int
	// producer is the step that writes a value, -1 for inputs and what nothing writes.
	producer []int

	// slot is a value's place in maps, -1 for none.
	slot []int
	maps []*conv.Map
	// value is where each value is, since it was last computed.
	value []*conv.Map

	size    Shape // of the last image
	batch   int   // how many there were
	shapes  []Shape
	scratch scratch
}

func newMachine(g *Graph, train bool) (*machine, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	if n := len(g.inputs()); n != 1 {
		return nil, fmt.Errorf("%w: a network with %d inputs", ErrUnsupported, n)
	}
	shapes, err := g.Shapes(g.Input)
	if err != nil {
		return nil, err
	}
	m := &machine{graph: g, steps: plan(g, shapes, train), value: make([]*conv.Map, len(g.Nodes)), producer: make([]int, len(g.Nodes)), slot: make([]int, len(g.Nodes))}
	at := map[*Node]int{}
	for i, n := range g.Nodes {
		at[n] = i
		m.producer[i], m.slot[i] = -1, -1
		if _, ok := n.Op.(*Input); ok {
			m.input = i
		}
	}
	for i, s := range m.steps {
		m.producer[s.out] = i
		s.call = call{
			in: make([]*conv.Map, len(s.in)), shapes: make([]Shape, len(s.in)),
			dx: make([]*conv.Map, len(s.in)), add: make([]bool, len(s.in)), scratch: &m.scratch,
		}
	}
	for _, n := range g.Outputs {
		m.output = append(m.output, at[resolved(n, train)])
	}
	m.size = slices.Clone(g.Input)
	m.setShapes(shapes)
	return m, nil
}

// resize prepares the machine for images of another size.
func (m *machine) resize(in Shape) error {
	if m.size.Equal(in) && m.shapes != nil {
		return nil
	}
	shapes, err := m.graph.Shapes(in)
	if err != nil {
		return err
	}
	m.size = append(Shape(nil), in...)
	m.setShapes(shapes)
	return nil
}

// resizeAt prepares the steps behind value v for the map x in its place: of an image of
// another size than the last, maybe.
func (m *machine) resizeAt(v int, x *conv.Map) error {
	was := m.shapes[v]
	if h, w, c := was.Layout(); x.H == h && x.W == w && x.C == c {
		return nil
	}
	var s Shape
	switch len(was) {
	case 1:
		s = Shape{x.C}
	case 2:
		s = Shape{x.C, x.W}
	case 3:
		s = Shape{x.C, x.H, x.W}
	}
	if err := s.holds(x); len(s) == 0 || err != nil {
		return fmt.Errorf("%w: a map of %d×%d and %d channels for features of %v", ErrShape, x.H, x.W, x.C, was)
	}
	shapes := slices.Clone(m.shapes)
	shapes[v] = s
	at := make(map[*Node]int, len(m.graph.Nodes))
	changed := make([]bool, len(m.graph.Nodes))
	changed[v] = true
	for i, n := range m.graph.Nodes {
		at[n] = i
		ins := make([]Shape, len(n.In))
		for j, in := range n.In {
			k := at[in]
			ins[j] = shapes[k]
			changed[i] = changed[i] || changed[k]
		}
		if i == v || !changed[i] {
			continue
		}
		var err error
		if shapes[i], err = n.Op.Shape(ins); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
	}
	m.size = nil // the next image's shapes are its own
	m.setShapes(shapes)
	return nil
}

func (m *machine) setShapes(shapes []Shape) {
	m.shapes = shapes
	for _, s := range m.steps {
		for i, v := range s.in {
			s.call.shapes[i] = shapes[v]
		}
		s.call.shape = shapes[s.out]
	}
}

// assign gives the values of all steps slots. Those of keep are never given to others.
func (m *machine) assign(keep func(v int) bool) {
	last := make([]int, len(m.value)) // the last step that reads a value
	for i, s := range m.steps {
		last[s.out] = i
		for _, v := range s.in {
			last[v] = i
		}
	}
	for _, v := range m.output {
		last[v] = len(m.steps)
	}
	var pool slots
	for i, s := range m.steps {
		over := -1
		if k, ok := s.kernel.(inPlace); ok && k.inPlace() {
			v := s.in[0]
			once := m.producer[v] >= 0 && m.steps[m.producer[v]].once
			if m.slot[v] >= 0 && !once && last[v] == i && !keep(v) && m.shapes[v].Equal(m.shapes[s.out]) {
				over = v
			}
		}
		if over >= 0 {
			m.slot[s.out] = m.slot[over]
		} else {
			m.slot[s.out] = pool.take(m.shapes[s.out].Len())
		}
		done := map[int]bool{}
		for _, v := range append(s.in[:len(s.in):len(s.in)], s.out) {
			if last[v] == i && m.slot[v] >= 0 && v != over && !done[v] && !keep(v) {
				done[v] = true
				pool.give(m.slot[v])
			}
		}
	}
	m.maps = make([]*conv.Map, len(pool.size))
}

// begin checks an image batch and makes it the input.
func (m *machine) begin(x *conv.Map) error {
	if err := m.resize(Shape{x.C, x.H, x.W}); err != nil {
		return err
	}
	m.value[m.input], m.batch = x, x.N
	return nil
}

// run runs steps [from, to). The context is looked at between them.
func (m *machine) run(ctx context.Context, from, to, workers int) error {
	for _, s := range m.steps[from:to] {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := &s.call
		for i, v := range s.in {
			c.in[i] = m.value[v]
		}
		if s.tap != nil {
			if err := s.tap(s.name, c.in[0]); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
		at := m.slot[s.out]
		c.out, c.workers, c.batch = m.maps[at], workers, m.batch
		if s.once {
			c.batch = 1
		}
		if err := s.kernel.forward(c); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		m.maps[at], m.value[s.out] = c.out, c.out
	}
	return nil
}
