package torchmodule

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
)

// Source is the network as a Python module: the class Network, whose state dict has the
// names of graph.Graph.StateDict, and load, which makes one with its weights. The error
// wraps graph.ErrUnsupported and names the node where an operation has no counterpart.
func Source(g *graph.Graph) (string, error) {
	if err := g.Validate(); err != nil {
		return "", err
	}
	shapes, err := g.Shapes(g.Input)
	if err != nil {
		return "", err
	}
	w := &writer{g: g, root: &branch{}, value: map[*graph.Node]string{}, shape: map[*graph.Node]graph.Shape{}, names: map[string]bool{}}
	for _, k := range []string{"self", "torch", "nn", "F"} {
		w.names[k] = true
	}
	for i, n := range g.Nodes {
		w.shape[n] = shapes[i]
		if err := w.declare(n); err != nil {
			return "", fmt.Errorf("%s %q: %w", n.Op.Kind(), n.Name, err)
		}
	}
	for _, n := range g.Nodes {
		w.n = n
		if err := w.node(n); err != nil {
			return "", fmt.Errorf("%s %q: %w", n.Op.Kind(), n.Name, err)
		}
	}
	var results, inputs, members []string
	for _, n := range g.Outputs {
		results = append(results, w.value[n])
	}
	for _, n := range g.Nodes {
		if _, ok := n.Op.(*graph.Input); ok {
			inputs = append(inputs, w.value[n])
		}
	}
	for _, c := range w.root.children {
		target := "self." + c.name + " = "
		if !identifier(c.name) {
			members = append(members, fmt.Sprintf("        self.add_module(%q, %s)\n", c.name, c.code("        ")))
			continue
		}
		members = append(members, "        "+target+c.code("        ")+"\n")
	}
	if len(members) == 0 {
		members = []string{"        pass\n"}
	}
	group := ""
	if strings.Contains(strings.Join(members, ""), "Group(") {
		group = groupClass
	}
	size := w.shape[g.Nodes[0]]
	return fmt.Sprintf(moduleText, g.Arch, size, size, group, g.Arch, strings.Join(members, ""), strings.Join(inputs, ", "), w.body.String(), strings.Join(results, ", ")), nil
}

// moduleText is the module: network, size, size, Group, network, members, inputs, body,
// results.
const moduleText = `"""%s for images of %v (channels, rows, columns), written by lowrank.

    from module import load
    network = load("model.safetensors")   # or "model.pt"
    logits = network(images)              # N x %v, normalised as preprocess.json says
"""
import json
import math
import struct

import torch
import torch.nn as nn
import torch.nn.functional as F

%s
class Network(nn.Module):
    """%s"""

    def __init__(self):
        super().__init__()
%s
    def forward(self, %s):
%s        return %s


def read_safetensors(path):
    """The tensors of a safetensors file by their names."""
    kinds = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
             "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool}
    with open(path, "rb") as file:
        size, = struct.unpack("<Q", file.read(8))
        entries = json.loads(file.read(size))
        values = bytearray(file.read())
    tensors = {}
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        shape, kind = entry["shape"], kinds[entry["dtype"]]
        count = math.prod(shape)
        if count == 0:
            tensors[name] = torch.empty(shape, dtype=kind)
            continue
        tensors[name] = torch.frombuffer(values, dtype=kind, count=count, offset=entry["data_offsets"][0]).reshape(shape).clone()
    return tensors


def load(path="model.safetensors"):
    """The network with its weights, in eval mode."""
    tensors = read_safetensors(path) if str(path).endswith(".safetensors") else torch.load(path, map_location="cpu")
    network = Network()
    network.load_state_dict(tensors)
    return network.eval()
`

// groupClass is a container in the generated file.
const groupClass = `
class Group(nn.Module):
    """Layers under one name. Where there is a first, the group stands for it."""

    def __new__(cls, first=None, **layers):
        if first is None:
            return super().__new__(cls)
        for name, layer in layers.items():
            first.add_module(name, layer)
        return first

    def __init__(self, first=None, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

`

// writer puts a module together.
type writer struct {
	g     *graph.Graph
	n     *graph.Node // being written
	root  *branch
	body  strings.Builder
	value map[*graph.Node]string // the variable that has a node's output
	shape map[*graph.Node]graph.Shape
	names map[string]bool // of variables
}

// declare puts a node's layer into the tree of modules.
func (w *writer) declare(n *graph.Node) error {
	switch op := n.Op.(type) {
	case *graph.Conv:
		dims := len(w.shape[n.In[0]])
		if op.Chain.Kind == conv.Dense {
			w.root.put(n.Name, layer(op.Chain.Stages[0], op.Linear, dims))
			return nil
		}
		var stages []string
		for _, k := range op.Chain.Stages {
			stages = append(stages, layer(k, op.Linear, dims))
		}
		w.root.put(n.Name, "nn.Sequential("+strings.Join(stages, ", ")+")")
	case *graph.BatchNorm:
		eps := ""
		if op.Eps != 1e-5 {
			eps = ", eps=" + float(op.Eps)
		}
		kind := "BatchNorm2d"
		if len(w.shape[n.In[0]]) < 3 {
			kind = "BatchNorm1d"
		}
		w.root.put(n.Name, fmt.Sprintf("nn.%s(%d%s)", kind, len(op.Weight), eps))
	}
	return nil
}

func float(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// layer is what makes a stage of a convolution.
func layer(k *conv.Kernel, linear bool, dims int) string {
	bias := ""
	if k.Bias == nil {
		bias = ", bias=False"
	}
	if linear {
		return fmt.Sprintf("nn.Linear(%d, %d%s)", k.In(), k.Out(), bias)
	}
	g := k.Normal()
	one := func(p [2]int) string {
		switch {
		case dims == 2:
			return strconv.Itoa(p[1])
		case p[0] == p[1]:
			return strconv.Itoa(p[0])
		}
		return fmt.Sprintf("(%d, %d)", p[0], p[1])
	}
	kind := "Conv2d"
	if dims == 2 {
		kind = "Conv1d"
	}
	s := fmt.Sprintf("nn.%s(%d, %d, %s", kind, k.In(), k.Out(), one([2]int(k.Shape[2:])))
	if g.Stride != [2]int{1, 1} {
		s += ", stride=" + one(g.Stride)
	}
	if g.Padding != [2]int{} && g.Extra == [2]int{} {
		s += ", padding=" + one(g.Padding)
	}
	if g.Dilation != [2]int{1, 1} {
		s += ", dilation=" + one(g.Dilation)
	}
	if g.Groups > 1 {
		s += fmt.Sprintf(", groups=%d", g.Groups)
	}
	return s + bias + ")"
}

// variable is a name for a node's output: x where it replaces its input, which nobody
// reads after it, else one of its own.
func (w *writer) variable(n *graph.Node) string {
	if len(n.In) > 0 {
		if from := w.value[n.In[0]]; from != "" && w.lastReader(n.In[0]) == n {
			if _, input := n.In[0].Op.(*graph.Input); !input {
				return from
			}
		}
	}
	base := "x"
	if _, ok := n.Op.(*graph.Input); ok {
		base = "images"
	}
	own := base
	for i := 1; w.names[own]; i++ {
		own = base + strconv.Itoa(i)
	}
	w.names[own] = true
	return own
}

// lastReader is the last node that reads n, or nil where it is an output.
func (w *writer) lastReader(n *graph.Node) *graph.Node {
	for _, o := range w.g.Outputs {
		if o == n {
			return nil
		}
	}
	var last *graph.Node
	same := w.value[n]
	for _, m := range w.g.Nodes {
		for _, in := range m.In {
			// Another node may have the same variable, where it only passes it on.
			if in == n || w.value[in] == same && same != "" && w.passes(in) {
				last = m
			}
		}
	}
	return last
}

// passes tells whether a node has its input's variable because it does nothing.
func (w *writer) passes(n *graph.Node) bool {
	_, ok := n.Op.(*graph.Identity)
	return ok
}

// line writes a statement that gives the node's output.
func (w *writer) line(format string, args ...any) {
	v := w.variable(w.n)
	w.value[w.n] = v
	fmt.Fprintf(&w.body, "        %s = %s\n", v, fmt.Sprintf(format, args...))
}
