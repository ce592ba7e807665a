package onnx

import (
	"fmt"

	"github.com/lowrank-go/lowrank/internal/onnxpb"
)

// Check reports what no runtime could run, in the graph and in those in its nodes: a
// name that two tensors or nodes give, a node that takes what nothing gives, nodes that
// wait for each other. The nodes need not be in the order of their names' use. Errors
// wrap ErrCorrupt.
func (m *Model) Check() error {
	_, err := m.Scope().check()
	return err
}

// Graphs are the graphs in a node's attributes.
func Graphs(n *onnxpb.NodeProto) []*onnxpb.GraphProto {
	var out []*onnxpb.GraphProto
	for _, a := range n.Attribute {
		if a.G != nil {
			out = append(out, a.G)
		}
		out = append(out, a.Graphs...)
	}
	return out
}

// check returns the names of enclosing graphs that this one uses.
func (s *Scope) check() (outer []string, err error) {
	where := fmt.Sprintf("graph %q", s.graph.GetName())
	given := map[string]string{} // by what
	give := func(name, by string) error {
		if other, twice := given[name]; twice {
			return fmt.Errorf("%w: %s: both %s and %s give %q", ErrCorrupt, where, other, by, name)
		}
		given[name] = by
		return nil
	}
	for _, i := range s.graph.Input {
		if err := give(i.GetName(), "an input"); err != nil {
			return nil, err
		}
	}
	tensors := map[string]bool{}
	initializer := func(name string) error {
		if tensors[name] {
			return fmt.Errorf("%w: %s: two initializers are called %q", ErrCorrupt, where, name)
		}
		tensors[name] = true
		if given[name] == "an input" { // its default value
			return nil
		}
		return give(name, "an initializer")
	}
	for _, t := range s.graph.Initializer {
		if err := initializer(t.GetName()); err != nil {
			return nil, err
		}
	}
	for _, t := range s.graph.SparseInitializer {
		if err := initializer(t.GetValues().GetName()); err != nil {
			return nil, err
		}
	}
	maker := map[string]int{}
	for i, n := range s.graph.Node {
		for _, name := range n.Output {
			if name == "" {
				continue
			}
			if err := give(name, nodeName(n)); err != nil {
				return nil, err
			}
			maker[name] = i
		}
	}
	// What each node waits for, its graphs' uses of this graph's names included.
	waits := make([]int, len(s.graph.Node))
	after := make([][]int, len(s.graph.Node))
	use := func(by, name string, node int) error {
		switch i, made := maker[name]; {
		case name == "":
		case made && node >= 0:
			waits[node]++
			after[i] = append(after[i], node)
		case given[name] != "":
		case s.parent == nil || !s.parent.Defined(name):
			return fmt.Errorf("%w: %s: %s takes %q, which nothing gives", ErrCorrupt, where, by, name)
		default:
			outer = append(outer, name)
		}
		return nil
	}
	for i, n := range s.graph.Node {
		for _, name := range n.Input {
			if err := use(nodeName(n), name, i); err != nil {
				return nil, err
			}
		}
		for _, g := range Graphs(n) {
			names, err := s.Sub(g).check()
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				if err := use(nodeName(n), name, i); err != nil {
					return nil, err
				}
			}
		}
	}
	for _, o := range s.graph.Output {
		if err := use("an output", o.GetName(), -1); err != nil {
			return nil, err
		}
	}
	var ready []int
	for i, n := range waits {
		if n == 0 {
			ready = append(ready, i)
		}
	}
	done := 0
	for ; len(ready) > 0; done++ {
		i := ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		for _, j := range after[i] {
			if waits[j]--; waits[j] == 0 {
				ready = append(ready, j)
			}
		}
	}
	if done < len(waits) {
		for i, n := range waits {
			if n > 0 {
				return nil, fmt.Errorf("%w: %s: %s waits for its own output", ErrCorrupt, where, nodeName(s.graph.Node[i]))
			}
		}
	}
	return outer, nil
}

// nodeName is what a node is called in errors.
func nodeName(n *onnxpb.NodeProto) string {
	name := n.GetName()
	if name == "" && len(n.Output) > 0 {
		name = n.Output[0]
	}
	return fmt.Sprintf("the %s node %q", n.GetOpType(), name)
}
