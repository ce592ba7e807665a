package graph

import "github.com/lowrank-go/lowrank/conv"

// step is what runs at a time: a node, or several in one.
type step struct {
	// name is that of the node that it is known by: the convolution's, if there is one.
	name string
	// node is the only one of a step that is no unit.
	node *Node
	// A unit is a convolution, a batch norm, the addition of a residual and ReLU, in this
	// order; of the first two one may be missing, of the others both.
	conv, norm *Node
	residual   bool
	relu       bool
	// in are the values that are read: a unit's input and its residual. out is the one
	// that is written. A value is a node's place in Graph.Nodes.
	in  []int
	out int
	// once is set where one element of the output stands for a whole batch: for constants
	// that are read by operations that broadcast.
	once bool

	kernel kernel
	call   call
	// tap, where not nil, is given the first input before the step runs (Program.Tap).
	tap func(name string, in *conv.Map) error
}

// unit tells whether the step is a convolution or a batch norm with what goes with it.
func (s *step) unit() bool { return s.node == nil }

// forwards tells whether an operation's output is its input.
func forwards(op Op, train bool) bool {
	switch op.(type) {
	case *Identity:
		return true
	case *Dropout:
		return !train
	}
	return false
}

// plan divides a graph into steps. What no output depends on is left out.
func plan(g *Graph, shapes []Shape, train bool) []*step {
	at := make(map[*Node]int, len(g.Nodes))
	for i, n := range g.Nodes {
		at[n] = i
	}
	// Where nodes that do nothing pass their inputs on.
	source := make(map[*Node]*Node, len(g.Nodes))
	for _, n := range g.Nodes {
		source[n] = n
		if forwards(n.Op, train) {
			source[n] = source[n.In[0]]
		}
	}
	wanted := map[*Node]bool{}
	for _, n := range g.Outputs {
		wanted[source[n]] = true
	}
	readers := map[*Node][]*Node{}
	for i := len(g.Nodes) - 1; i >= 0; i-- {
		n := g.Nodes[i]
		if !wanted[n] {
			continue
		}
		for _, in := range n.In {
			from := source[in]
			wanted[from] = true
			readers[from] = append(readers[from], n)
		}
	}
	for _, n := range g.Outputs {
		readers[source[n]] = append(readers[source[n]], nil)
	}
	// only is the one reader of n's output.
	only := func(n *Node) *Node {
		if r := readers[n]; len(r) == 1 {
			return r[0]
		}
		return nil
	}
	taken := map[*Node]bool{}
	last := map[*Node]*step{} // units by the node whose output they give
	for _, n := range g.Nodes {
		if !wanted[n] || taken[n] {
			continue
		}
		s := &step{name: n.Name}
		end := n
		switch n.Op.(type) {
		case *Conv:
			s.conv = n
			if next := only(n); next != nil {
				if _, ok := next.Op.(*BatchNorm); ok {
					s.norm, end = next, next
					taken[next] = true
				}
			}
		case *BatchNorm:
			s.norm = n
		default:
			continue
		}
		s.in = []int{at[source[n.In[0]]]}
		if next := only(end); next != nil && !taken[next] && adds(next) && shapes[at[next.In[0]]].Equal(shapes[at[next.In[1]]]) {
			other := source[next.In[1]]
			if other == end {
				other = source[next.In[0]]
			}
			_, constant := other.Op.(*Const)
			// Of two units that end in one addition the one that is its first input
			// takes it.
			if !constant && (source[next.In[0]] == end || last[other] == nil && !becomes(other, only)) {
				s.residual = true
				s.in = append(s.in, at[other])
				taken[next] = true
				end = next
			}
		}
		if next := only(end); next != nil && isReLU(next.Op) {
			s.relu = true
			taken[next] = true
			end = next
		}
		taken[n] = true
		s.out = at[end]
		last[end] = s
	}
	var steps []*step
	// Constants are computed where they are first read.
	constant := func(v int) {
		n := g.Nodes[v]
		if _, ok := n.Op.(*Const); ok && !taken[n] {
			taken[n] = true
			once := true
			for _, r := range readers[n] {
				once = once && broadcasts(r, source)
			}
			steps = append(steps, &step{name: n.Name, node: n, out: v, once: once})
		}
	}
	for i, n := range g.Nodes {
		s := last[n]
		if s == nil {
			switch n.Op.(type) {
			case *Input, *Const:
				continue
			}
			if !wanted[n] || taken[n] || source[n] != n {
				continue
			}
			s = &step{name: n.Name, node: n, out: i}
			for _, in := range n.In {
				s.in = append(s.in, at[source[in]])
			}
		}
		for _, v := range s.in {
			constant(v)
		}
		steps = append(steps, s)
	}
	for _, n := range g.Outputs {
		constant(at[source[n]])
	}
	return steps
}

// broadcasts tells whether a node reads a constant, and something else, and can do with
// one element for a batch.
func broadcasts(n *Node, source map[*Node]*Node) bool {
	if n == nil {
		return false
	}
	if _, ok := n.Op.(*Binary); !ok {
		return false
	}
	constants := 0
	for _, in := range n.In {
		if _, ok := source[in].Op.(*Const); ok {
			constants++
		}
	}
	return constants < len(n.In)
}

// becomes tells whether n ends a unit that could take an addition behind it.
func becomes(n *Node, only func(*Node) *Node) bool {
	switch n.Op.(type) {
	case *Conv, *BatchNorm:
		return only(n) != nil
	}
	return false
}

// adds tells whether a node adds two different tensors.
func adds(n *Node) bool {
	b, ok := n.Op.(*Binary)
	return ok && b.Op == Add && len(n.In) == 2 && n.In[0] != n.In[1]
}

func isReLU(op Op) bool {
	a, ok := op.(*Activation)
	return ok && a.Name == ReLU
}

// resolved is the node whose output is n's, past those that do nothing.
func resolved(n *Node, train bool) *Node {
	for forwards(n.Op, train) {
		n = n.In[0]
	}
	return n
}

// slots gives values places in memory, each of them used by one after another.
type slots struct {
	size []int
	free []int
}

// take is a slot for n values per image: the smallest free one that is large enough, else
// the largest, which grows, else a new one.
func (s *slots) take(n int) int {
	best := -1
	for i, f := range s.free {
		if best < 0 {
			best = i
			continue
		}
		a, b := s.size[f], s.size[s.free[best]]
		if a >= n && (b < n || a < b) || a < n && b < n && a > b {
			best = i
		}
	}
	if best < 0 {
		s.size = append(s.size, n)
		return len(s.size) - 1
	}
	f := s.free[best]
	s.free = append(s.free[:best], s.free[best+1:]...)
	s.size[f] = max(s.size[f], n)
	return f
}

func (s *slots) give(i int) { s.free = append(s.free, i) }
