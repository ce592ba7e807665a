package graph

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/model"
)

// description is what a manifest says of a network.
type description struct {
	Arch       string             `json:"arch"`
	Input      Shape              `json:"input"`
	Preprocess dataset.Preprocess `json:"preprocess"`
	Nodes      []nodeSpec         `json:"nodes"`
	Outputs    []string           `json:"outputs"`
	Head       string             `json:"head,omitempty"`
}

// nodeSpec is a node without its tensors.
type nodeSpec struct {
	Name       string          `json:"name"`
	Op         string          `json:"op"`
	In         []string        `json:"in,omitempty"`
	Attributes json.RawMessage `json:"attributes,omitempty"`
}

// convSpec is what a file says of a convolution beside its tensors; that of a chain is in
// the manifest.
type convSpec struct {
	Geometry *conv.Geometry `json:"geometry,omitempty"`
}

// Described tells whether a manifest describes a graph, which Load then reads.
func Described(m *Manifest) bool {
	if m == nil || m.Network == nil {
		return false
	}
	var d struct {
		Nodes []json.RawMessage `json:"nodes"`
	}
	return json.Unmarshal(m.Network, &d) == nil && d.Nodes != nil
}

// describe is the description of the network in manifests.
func (g *Graph) describe() (json.RawMessage, error) {
	sd, err := g.StateDict()
	if err != nil {
		return nil, err
	}
	m, err := ReadManifest(sd)
	if err != nil {
		return nil, err
	}
	return m.Network, nil
}

// StateDict is the network as it is saved: the tensors under their PyTorch names, a
// chain's stages under <name>.<stage>.weight and .bias, and a manifest from which Load
// rebuilds the network. It aliases the network's weights.
func (g *Graph) StateDict() (*model.StateDict, error) {
	sd := model.NewStateDict()
	d := description{Arch: g.Arch, Input: g.Input, Preprocess: g.Preprocess}
	var manifest Manifest
	for _, n := range g.Nodes {
		spec := nodeSpec{Name: n.Name, Op: n.Op.Kind()}
		for _, in := range n.In {
			spec.In = append(spec.In, in.Name)
		}
		var attributes any = n.Op
		if c, ok := n.Op.(*Conv); ok {
			cs := convSpec{}
			if c.Chain.Kind == conv.Dense {
				_, geometry := c.Chain.Shape()
				cs.Geometry = &geometry
			}
			attributes = cs
			manifest.Store(sd, n.Name, c.Chain)
			if c.Linear && c.Chain.Kind == conv.Dense {
				// A linear layer keeps PyTorch's two dimensions.
				k := c.Chain.Stages[0]
				sd.Set(n.Name+".weight", &model.Tensor{Shape: k.Shape[:2:2], Data: k.Weight})
			}
		}
		var err error
		if spec.Attributes, err = json.Marshal(attributes); err != nil {
			return nil, fmt.Errorf("%s: %w", n.Name, err)
		}
		if string(spec.Attributes) == "{}" {
			spec.Attributes = nil
		}
		d.Nodes = append(d.Nodes, spec)
		if p, ok := n.Op.(parametric); ok {
			for _, t := range p.tensors() {
				sd.Set(n.Name+"."+t.suffix, &model.Tensor{Shape: t.shape, Data: t.data})
			}
		}
		if m, ok := n.Op.(*BatchNorm); ok && m.Batches != nil {
			sd.Set(n.Name+tracked, &model.Tensor{Data: []int64{*m.Batches}})
		}
	}
	for _, n := range g.Outputs {
		d.Outputs = append(d.Outputs, n.Name)
	}
	if g.Head != nil {
		d.Head = g.Head.Name
	}
	var err error
	if manifest.Network, err = json.Marshal(d); err != nil {
		return nil, err
	}
	return sd, manifest.Write(sd)
}

const tracked = ".num_batches_tracked"

// Load makes the network of a state dict that StateDict wrote. Every tensor must be
// accounted for. The error wraps ErrGraph or ErrShape and names the node or the tensor.
func Load(sd *model.StateDict) (*Graph, error) {
	g, r, err := LoadPart(sd)
	if err != nil {
		return nil, err
	}
	if extra := r.Unused(); len(extra) > 0 {
		return nil, fmt.Errorf("%w: %s has no place for %s", ErrGraph, g.Arch, Quote(extra))
	}
	return g, nil
}

// LoadPart is Load that leaves what it does not need, which the reader knows.
func LoadPart(sd *model.StateDict) (*Graph, *Reader, error) {
	manifest, err := ReadManifest(sd)
	if err != nil {
		return nil, nil, err
	}
	if !Described(manifest) {
		return nil, nil, fmt.Errorf("%w: the file does not describe its network", ErrGraph)
	}
	var d description
	if err := json.Unmarshal(manifest.Network, &d); err != nil {
		return nil, nil, fmt.Errorf("%w: the file's network description: %w", ErrGraph, err)
	}
	r := NewReader(sd)
	g, err := d.build(r, manifest)
	return g, r, err
}

// build makes the graph that d describes.
func (d *description) build(r *Reader, manifest *Manifest) (*Graph, error) {
	if len(d.Nodes) > mostNodes {
		return nil, fmt.Errorf("%w: %d nodes; want at most %d", ErrGraph, len(d.Nodes), mostNodes)
	}
	g := &Graph{Arch: d.Arch, Input: d.Input, Preprocess: d.Preprocess}
	nodes := make(map[string]*Node, len(d.Nodes))
	find := func(name string) (*Node, error) {
		n, ok := nodes[name]
		if !ok {
			return nil, fmt.Errorf("%w: no earlier node is called %q", ErrGraph, name)
		}
		return n, nil
	}
	for i, spec := range d.Nodes {
		fail := func(err error) (*Graph, error) {
			return nil, fmt.Errorf("node %d, %s %q: %w", i, spec.Op, spec.Name, err)
		}
		if nodes[spec.Name] != nil || spec.Name == "" {
			return fail(fmt.Errorf("%w: its name is another's, or none", ErrGraph))
		}
		n := &Node{Name: spec.Name}
		for _, name := range spec.In {
			in, err := find(name)
			if err != nil {
				return fail(err)
			}
			n.In = append(n.In, in)
		}
		var err error
		if n.Op, err = spec.op(r, manifest); err != nil {
			return fail(err)
		}
		nodes[spec.Name] = n
		g.Nodes = append(g.Nodes, n)
	}
	for _, name := range d.Outputs {
		n, err := find(name)
		if err != nil {
			return nil, fmt.Errorf("output: %w", err)
		}
		g.Outputs = append(g.Outputs, n)
	}
	if d.Head != "" {
		n, err := find(d.Head)
		if err != nil {
			return nil, fmt.Errorf("head: %w", err)
		}
		g.Head = n
	}
	return g, g.Validate()
}

// op makes the operation that a file describes.
func (s *nodeSpec) op(r *Reader, manifest *Manifest) (Op, error) {
	if s.Op == "conv" || s.Op == "linear" {
		var cs convSpec
		if len(s.Attributes) > 0 {
			if err := json.Unmarshal(s.Attributes, &cs); err != nil {
				return nil, fmt.Errorf("%w: attributes: %w", ErrGraph, err)
			}
		}
		var g conv.Geometry
		if cs.Geometry != nil {
			g = *cs.Geometry
		}
		c, err := r.Chain(manifest, s.Name, g)
		if err != nil {
			return nil, err
		}
		return &Conv{Chain: c, Linear: s.Op == "linear"}, nil
	}
	op, err := decodeOp(s.Op, s.Attributes)
	if err != nil {
		return nil, err
	}
	p, ok := op.(parametric)
	if !ok {
		return op, nil
	}
	if op, err = p.with(func(suffix string) (*tensor, error) {
		data, shape, err := r.Floats(s.Name+"."+suffix, -1)
		return &tensor{suffix: suffix, shape: shape, data: data}, err
	}); err != nil {
		return nil, err
	}
	if m, ok := op.(*BatchNorm); ok {
		if m.Batches, err = r.batches(s.Name); err != nil {
			return nil, err
		}
	}
	return op, nil
}

// tensorError is an error about a tensor of a state dict, whose words stand for
// themselves. It wraps ErrGraph.
type tensorError string

func (e tensorError) Error() string { return string(e) }
func (tensorError) Unwrap() error   { return ErrGraph }

// Reader takes the tensors of a network out of a state dict, and remembers which.
type Reader struct {
	SD   *model.StateDict
	used map[string]bool
	// Name, where not nil, is what the state dict calls a tensor.
	Name func(name string) string
}

// NewReader is one that has taken nothing.
func NewReader(sd *model.StateDict) *Reader { return &Reader{SD: sd, used: map[string]bool{}} }

func (r *Reader) full(name string) string {
	if r.Name == nil {
		return name
	}
	return r.Name(name)
}

// Has tells whether there is a tensor called name.
func (r *Reader) Has(name string) bool {
	_, ok := r.SD.Get(r.full(name))
	return ok
}

// Shape is that of the tensor called name, nil if there is none.
func (r *Reader) Shape(name string) []int {
	t, ok := r.SD.Get(r.full(name))
	if !ok {
		return nil
	}
	return t.Shape
}

// Mark says that a tensor is taken.
func (r *Reader) Mark(name string) { r.used[r.full(name)] = true }

// Unused lists the tensors that were not taken, sorted.
func (r *Reader) Unused() []string {
	var extra []string
	for _, n := range r.SD.Names() {
		if !r.used[n] {
			extra = append(extra, n)
		}
	}
	sort.Strings(extra)
	return extra
}

// Quote lists some of names, for messages.
func Quote(names []string) string {
	const most = 4
	quoted := make([]string, 0, most)
	for _, n := range names[:min(most, len(names))] {
		quoted = append(quoted, fmt.Sprintf("%q", n))
	}
	s := strings.Join(quoted, ", ")
	if len(names) > most {
		s += fmt.Sprintf(" and %d more", len(names)-most)
	}
	return s
}

// Floats takes a tensor of so many dimensions, -1 for any.
func (r *Reader) Floats(name string, dims int) ([]float32, []int, error) {
	full := r.full(name)
	t, ok := r.SD.Get(full)
	if !ok {
		return nil, nil, tensorError(fmt.Sprintf("there is no tensor called %q", full))
	}
	if dims >= 0 && len(t.Shape) != dims {
		return nil, nil, fmt.Errorf("%w: %s has shape %v, want %d dimensions", ErrShape, full, t.Shape, dims)
	}
	v, err := t.Float32s()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", full, err)
	}
	r.used[full] = true
	return v, t.Shape, nil
}

// Kernel takes the convolution called name, or, of two dimensions, the linear layer; of
// three it is a convolution along rows alone, a kernel of one row.
func (r *Reader) Kernel(name string, g conv.Geometry) (*conv.Kernel, error) {
	w, dims, err := r.Floats(name+".weight", -1)
	if err != nil {
		return nil, err
	}
	switch len(dims) {
	case 2:
		dims = []int{dims[0], dims[1], 1, 1}
	case 3:
		dims = []int{dims[0], dims[1], 1, dims[2]}
	case 4:
	default:
		return nil, fmt.Errorf("%w: %s.weight has shape %v, want four dimensions, or two for a linear layer", ErrShape, r.full(name), dims)
	}
	var bias []float32
	if r.Has(name + ".bias") {
		if bias, _, err = r.Floats(name+".bias", 1); err != nil {
			return nil, err
		}
	}
	k, err := conv.NewKernel([4]int(dims), w, bias, g)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.full(name), err)
	}
	return k, nil
}

// Chain takes the convolution called name, of geometry g, or the chain in its place.
func (r *Reader) Chain(manifest *Manifest, name string, g conv.Geometry) (*conv.Chain, error) {
	if spec := manifest.Chain(name); spec != nil {
		return spec.Load(r.SD, r.full(name), func(n string) { r.used[n] = true })
	}
	k, err := r.Kernel(name, g)
	if err != nil {
		return nil, err
	}
	return conv.NewDense(k), nil
}

// BatchNorm takes the batch norm called name, of so many channels.
func (r *Reader) BatchNorm(name string, channels int, eps float64) (*BatchNorm, error) {
	m := &BatchNorm{Eps: eps}
	op, err := m.with(func(suffix string) (*tensor, error) {
		v, shape, err := r.Floats(name+"."+suffix, 1)
		if err == nil && len(v) != channels {
			err = fmt.Errorf("%w: %s.%s has %d values, what is before it %d channels", ErrShape, r.full(name), suffix, len(v), channels)
		}
		return &tensor{suffix, shape, v}, err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.full(name), err)
	}
	m = op.(*BatchNorm)
	m.Batches, err = r.batches(name)
	return m, err
}

// batches takes a batch norm's count, if there is one.
func (r *Reader) batches(name string) (*int64, error) {
	full := r.full(name + tracked)
	t, ok := r.SD.Get(full)
	if !ok {
		return nil, nil
	}
	v, isInt := t.Data.([]int64)
	if !isInt || len(v) != 1 {
		return nil, fmt.Errorf("%w: %s is %v of %v, want one int64", ErrShape, full, t.DType(), t.Shape)
	}
	r.used[full] = true
	return &v[0], nil
}
