package graph

import (
	"errors"
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
)

// Errors that others wrap.
var (
	// ErrShape is wrapped by errors about sizes that do not fit together. It is conv's.
	ErrShape = conv.ErrShape
	// ErrGraph is wrapped by errors about nodes that make no graph.
	ErrGraph = errors.New("graph: not a valid graph")
	// ErrUnsupported is wrapped by errors about operations that cannot be run, or not in
	// the way asked for.
	ErrUnsupported = errors.New("graph: unsupported")
	// ErrTask is wrapped by errors about networks that do something else than is asked.
	ErrTask = errors.New("graph: network and data are for different tasks")
)

// Graph is a network with its weights.
type Graph struct {
	// Arch names the network, "resnet18"; it says nothing that the nodes do not.
	Arch string
	// Input is the shape of an image, {channels, rows, columns}, that sizes and costs are
	// stated for; the network may run on others too.
	Input Shape
	// Preprocess makes an input of an image.
	Preprocess dataset.Preprocess
	// Nodes are in execution order: each after its inputs.
	Nodes []*Node
	// Outputs are what the network computes; the first is what it is trained by.
	Outputs []*Node
	// Head is the layer whose outputs are the classes, nil if there is none.
	Head *Node
}

// Node is an operation in its place.
type Node struct {
	// Name is unique in the graph. The tensors of a node called "layer1.0.conv1" are
	// "layer1.0.conv1.weight" and so on.
	Name string
	Op   Op
	In   []*Node
}

// Conv is the node's convolution, nil if it is none.
func (n *Node) Conv() *Conv {
	c, _ := n.Op.(*Conv)
	return c
}

// BatchNorm is the node's batch norm, nil if it is none.
func (n *Node) BatchNorm() *BatchNorm {
	m, _ := n.Op.(*BatchNorm)
	return m
}

// Node is the node called name, or nil.
func (g *Graph) Node(name string) *Node {
	for _, n := range g.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// Add appends a node and returns it.
func (g *Graph) Add(name string, op Op, in ...*Node) *Node {
	n := &Node{Name: name, Op: op, In: in}
	g.Nodes = append(g.Nodes, n)
	return n
}

// Clone is a graph with nodes of its own, which share their operations with g's.
func (g *Graph) Clone() *Graph {
	out := *g
	out.Nodes = make([]*Node, len(g.Nodes))
	of := make(map[*Node]*Node, len(g.Nodes))
	for i, n := range g.Nodes {
		c := &Node{Name: n.Name, Op: n.Op, In: make([]*Node, len(n.In))}
		for j, in := range n.In {
			c.In[j] = of[in]
		}
		out.Nodes[i], of[n] = c, c
	}
	out.Outputs = make([]*Node, len(g.Outputs))
	for i, n := range g.Outputs {
		out.Outputs[i] = of[n]
	}
	out.Head = of[g.Head]
	return &out
}

// consumers lists, for each node, those that read its output, once for each time; g's
// outputs are read by nil.
func (g *Graph) consumers() map[*Node][]*Node {
	by := make(map[*Node][]*Node, len(g.Nodes))
	for _, n := range g.Nodes {
		for _, in := range n.In {
			by[in] = append(by[in], n)
		}
	}
	for _, n := range g.Outputs {
		by[n] = append(by[n], nil)
	}
	return by
}

// inputs are the nodes that images come in at.
func (g *Graph) inputs() []*Node {
	var in []*Node
	for _, n := range g.Nodes {
		if _, ok := n.Op.(*Input); ok {
			in = append(in, n)
		}
	}
	return in
}

// Shapes are the shapes of all nodes' outputs for an image of shape in, by their place in
// Nodes. The error wraps ErrShape or ErrGraph and names the node.
func (g *Graph) Shapes(in Shape) ([]Shape, error) {
	at := make(map[*Node]int, len(g.Nodes))
	shapes := make([]Shape, len(g.Nodes))
	first := true
	for i, n := range g.Nodes {
		fail := func(err error) ([]Shape, error) {
			return nil, fmt.Errorf("node %d, %s %q: %w", i, n.Op.Kind(), n.Name, err)
		}
		ins := make([]Shape, len(n.In))
		for j, from := range n.In {
			k, ok := at[from]
			if !ok {
				return fail(fmt.Errorf("%w: input %d is no earlier node", ErrGraph, j))
			}
			ins[j] = shapes[k]
		}
		var s Shape
		var err error
		if input, ok := n.Op.(*Input); ok && first {
			// The first input is the image, of any size.
			first = false
			if len(ins) > 0 {
				return fail(fmt.Errorf("%w: an input that has inputs", ErrGraph))
			}
			s = in
			if len(input.Size) > 0 && (len(in) != len(input.Size) || in[0] != input.Size[0]) {
				return fail(fmt.Errorf("%w: an image of %v, the network takes %v", ErrShape, in, input.Size))
			}
		} else if s, err = n.Op.Shape(ins); err != nil {
			return fail(err)
		}
		if err := s.check(); err != nil {
			return fail(err)
		}
		shapes[i], at[n] = s, i
	}
	return shapes, nil
}

// Bounds of what a graph may hold.
const mostNodes = 1 << 16

// Validate reports nodes that make no graph, and shapes that do not follow from Input.
func (g *Graph) Validate() error {
	if len(g.Nodes) > mostNodes {
		return fmt.Errorf("%w: %d nodes; want at most %d", ErrGraph, len(g.Nodes), mostNodes)
	}
	names := make(map[string]bool, len(g.Nodes))
	known := make(map[*Node]bool, len(g.Nodes))
	for i, n := range g.Nodes {
		switch {
		case n == nil || n.Op == nil:
			return fmt.Errorf("%w: node %d has no operation", ErrGraph, i)
		case n.Name == "" || names[n.Name]:
			return fmt.Errorf("%w: node %d is called %q, as another is or none may be", ErrGraph, i, n.Name)
		}
		for _, in := range n.In {
			if !known[in] {
				return fmt.Errorf("%w: an input of %q is not an earlier node", ErrGraph, n.Name)
			}
		}
		names[n.Name], known[n] = true, true
	}
	if len(g.inputs()) == 0 {
		return fmt.Errorf("%w: it has no input", ErrGraph)
	}
	if len(g.Outputs) == 0 {
		return fmt.Errorf("%w: it has no output", ErrGraph)
	}
	for _, n := range g.Outputs {
		if !known[n] {
			return fmt.Errorf("%w: an output is none of the nodes", ErrGraph)
		}
	}
	if g.Head != nil && (!known[g.Head] || g.Head.Conv() == nil) {
		return fmt.Errorf("%w: the head is none of the convolutions and linear layers", ErrGraph)
	}
	_, err := g.Shapes(g.Input)
	return err
}

// Site is a convolution or a linear layer in its place.
type Site struct {
	*Node
	// Chain is the node's.
	Chain *conv.Chain
	// Norm is the batch norm behind it, nil if there is none.
	Norm *Node
	// Linear is set for a linear layer.
	Linear bool
	// H, W is the size of the input map; 1×1 for a linear layer.
	H, W int
}

// Sites lists the convolutions and linear layers in execution order, without those of
// adapters (see AddModule). It panics where shapes do not follow from Input, which
// Validate reports.
func (g *Graph) Sites() []Site {
	all := g.allSites()
	sites := all[:0]
	for _, s := range all {
		if moduleOf(s.Name) == "" {
			sites = append(sites, s)
		}
	}
	return sites
}

func (g *Graph) allSites() []Site {
	shapes, err := g.Shapes(g.Input)
	if err != nil {
		panic(err)
	}
	at := map[*Node]Shape{}
	by := g.consumers()
	var sites []Site
	for i, n := range g.Nodes {
		at[n] = shapes[i]
		if c := n.Conv(); c != nil {
			h, w, _ := at[n.In[0]].Layout()
			sites = append(sites, Site{Node: n, Chain: c.Chain, Norm: normBehind(n, by), Linear: c.Linear, H: h, W: w})
		}
	}
	return sites
}

// Params is the number of trainable parameters: weights and biases, scales and shifts of
// norms, slopes. Running statistics are not among them.
func (g *Graph) Params() int {
	p := 0
	for _, n := range g.Nodes {
		switch op := n.Op.(type) {
		case *Conv:
			p += op.Chain.Params()
		case parametric:
			for _, t := range op.tensors()[:op.trained()] {
				p += len(t.data)
			}
		}
	}
	return p
}

// MACs is the number of multiply-accumulates of the convolutions, transposed ones among
// them, and linear layers for one image of Input.
func (g *Graph) MACs() int64 {
	shapes, err := g.Shapes(g.Input)
	if err != nil {
		panic(err)
	}
	at := map[*Node]Shape{}
	var m int64
	for i, n := range g.Nodes {
		at[n] = shapes[i]
		if op, ok := n.Op.(interface{ macs(in Shape) int64 }); ok {
			m += op.macs(at[n.In[0]])
		}
	}
	return m
}

// Classes is the number of classes of an image, or, of a network that segments, of each
// pixel: the channels of the first output.
func (g *Graph) Classes() int {
	s := g.output()
	if len(s) == 0 {
		return 1
	}
	return s[0]
}

// Segments tells whether every pixel has classes: whether the first output is a map.
func (g *Graph) Segments() bool { return len(g.output()) == 3 }

func (g *Graph) output() Shape {
	shapes, err := g.Shapes(g.Input)
	if err != nil || len(g.Outputs) == 0 {
		return nil
	}
	for i, n := range g.Nodes {
		if n == g.Outputs[0] {
			return shapes[i]
		}
	}
	return nil
}
