// Package rewrite makes ONNX models smaller and quicker: each Conv, ConvTranspose, Gemm
// and MatMul with constant weights becomes a chain of small ones where that pays, and
// everything else stays as it is. The model is not executed, and operators that this
// package does not know pass through.
//
// # Names
//
// The stages of a node /a/Conv are /a/Conv/0, /a/Conv/1, …, of a node a they are a.0, a.1,
// …, of a node without a name they are called by its output. The last one gives the output
// by its old name and takes the bias by its old name. The weights w become w.0, w.1, …,
// and x.weight becomes x.0.weight, x.1.weight, …, as in an nn.Sequential. The model's
// metadata get lowrank.layers, a JSON list of nodes, methods, ranks and errors.
//
// # Ranks
//
// Runtimes compute channels in blocks of 16 or 8, and a rank within a block costs as much
// as the whole block. Ranks are therefore multiples of [Options].Multiple, rounded up
// where an energy asks for them and down where a ratio does; ranks that were given are
// filled up with zeros, which changes no output.
package rewrite

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/lowrank-go/lowrank/compress"
	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/match"
	"github.com/lowrank-go/lowrank/internal/onnxpb"
	"github.com/lowrank-go/lowrank/onnx"
)

// DefaultMultiple is the multiple that ranks are of where Options do not say.
const DefaultMultiple = 16

// DefaultSize is what open dimensions of inputs count as where Options do not say.
const DefaultSize = 224

// Options are the knobs of Compress. Of package compress's, Method Auto tries svd-in,
// spatial, tucker and svd on every layer; by energy it takes the quickest, by ratio the one
// of the least error; a ratio is the share of the layer's products, with channels counted
// in whole blocks. Layers choose among nodes' names, and linear layers are among them
// without being named.
type Options struct {
	compress.Options
	// Multiple is what ranks are multiples of: 16 suits AVX-512, 8 suits AVX2, 1 is any
	// rank. 0 means DefaultMultiple.
	Multiple int
	// Size stands for dimensions of inputs, but for the first, that the model leaves open,
	// where costs are counted; 0 means DefaultSize.
	Size int
}

// Report is what became of a model.
type Report struct {
	// Layers has an entry for every Conv, ConvTranspose, Gemm and MatMul.
	Layers []compress.Result
	// ParamsBefore and ParamsAfter count the floating-point numbers in tensors.
	ParamsBefore, ParamsAfter int
	// MACsBefore and MACsAfter are those of the layers, nil where the sizes of some maps
	// are not known.
	MACsBefore, MACsAfter *int64
	// InputsWithDefaults is how many of the graph's inputs are initializers, which keeps
	// runtimes from taking these for constants; Clean drops them.
	InputsWithDefaults int
}

// Metadata's keys.
const (
	versionKey = "lowrank.version"
	layersKey  = "lowrank.layers"
)

// Compress changes m's messages. On an error m is half changed and of no use.
func Compress(ctx context.Context, m *onnx.Model, opt Options) (*Report, error) {
	if opt.Multiple == 0 {
		opt.Multiple = DefaultMultiple
	}
	if opt.Multiple < 1 {
		return nil, fmt.Errorf("%w: ranks in multiples of %d", compress.ErrOption, opt.Multiple)
	}
	if opt.Size == 0 {
		opt.Size = DefaultSize
	}
	if opt.Method == "" {
		opt.Method = compress.Auto
	}
	// Auto's methods have one rank, but for Tucker-2.
	check := opt.Options
	check.Layers, check.Progress = nil, nil
	if check.Method == compress.Auto {
		check.Method = compress.Tucker
	}
	if _, err := compress.Layers(ctx, nil, check); err != nil {
		return nil, err
	}
	switch opt.Rank.Rule {
	case "":
		opt.Rank.Rule = compress.VBMF
	case compress.Error:
		opt.Rank = compress.Rank{Rule: compress.Energy, Value: opt.Rank.Keeps()}
	}
	// VBMF's ranks are those of channels.
	if opt.Method == compress.Auto && opt.Rank.Rule == compress.VBMF {
		opt.Method = compress.Tucker
	}
	if err := m.Check(); err != nil {
		return nil, err
	}
	w := &rewriter{ctx: ctx, m: m, opt: &opt, taken: map[string]bool{}, stored: map[string][]string{}, replaced: map[string]bool{}}
	w.report.ParamsBefore = params(m)
	w.report.InputsWithDefaults = len(defaults(m))
	scope := m.Scope()
	s := infer(m, scope, opt.Size)
	var names []string
	w.walk(scope, func(sc *onnx.Scope, n *onnxpb.NodeProto) {
		w.taken[n.GetName()] = true
		for _, out := range n.Output {
			w.taken[out] = true
		}
		if isLayer(n) {
			names = append(names, nodeName(n))
		}
	})
	w.graphs(m.Graph(), func(g *onnxpb.GraphProto) {
		for _, i := range g.Input {
			w.taken[i.GetName()] = true
		}
		for _, t := range g.Initializer {
			w.taken[t.GetName()] = true
		}
	})
	var err error
	if w.chosen, err = match.Names(opt.Layers, names, "layer"); err != nil {
		return nil, fmt.Errorf("%w: %w", compress.ErrOption, err)
	}
	for i := range w.chosen {
		w.chosen[i] = w.chosen[i] || len(opt.Layers) == 0
	}
	if err := w.graph(scope, s); err != nil {
		return nil, err
	}
	if opt.Progress != nil {
		opt.Progress(len(w.chosen), len(w.chosen), "")
	}
	w.sweep()
	if err := w.annotate(); err != nil {
		return nil, err
	}
	w.report.ParamsAfter = params(m)
	before, after, known := int64(0), int64(0), true
	for _, r := range w.report.Layers {
		before, after = before+r.MACsBefore, after+r.MACsAfter
		known = known && r.MACsBefore > 0
	}
	if known && before > 0 {
		w.report.MACsBefore, w.report.MACsAfter = &before, &after
	}
	return &w.report, nil
}

func isLayer(n *onnxpb.NodeProto) bool {
	return factored[n.GetOpType()] && (n.GetDomain() == "" || n.GetDomain() == "ai.onnx")
}

// nodeName is what a node is called: by its output where it has no name.
func nodeName(n *onnxpb.NodeProto) string {
	if n.GetName() != "" || len(n.Output) == 0 {
		return n.GetName()
	}
	return n.Output[0]
}

type rewriter struct {
	ctx    context.Context
	m      *onnx.Model
	opt    *Options
	taken  map[string]bool // names, in any graph
	chosen []bool          // of the layers in order
	// stored are the names of stages' weights, by what they were made of.
	stored map[string][]string
	// replaced are the names of weights that chains stand for.
	replaced map[string]bool
	report   Report
}

// graphs calls f with a graph and those in its nodes.
func (w *rewriter) graphs(g *onnxpb.GraphProto, f func(*onnxpb.GraphProto)) {
	f(g)
	for _, n := range g.Node {
		for _, sub := range onnx.Graphs(n) {
			w.graphs(sub, f)
		}
	}
}

// walk calls f with the nodes of a graph and of those in them, an outer node first.
func (w *rewriter) walk(s *onnx.Scope, f func(*onnx.Scope, *onnxpb.NodeProto)) {
	for _, n := range s.Graph().Node {
		f(s, n)
		for _, sub := range onnx.Graphs(n) {
			w.walk(s.Sub(sub), f)
		}
	}
}

// graph replaces the layers of a graph. s is nil for graphs in nodes, of whose tensors
// nothing is known.
func (w *rewriter) graph(scope *onnx.Scope, s *shapes) error {
	g := scope.Graph()
	nodes := make([]*onnxpb.NodeProto, 0, len(g.Node))
	for _, n := range g.Node {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		stages := []*onnxpb.NodeProto{n}
		if isLayer(n) {
			at := len(w.report.Layers)
			if w.opt.Progress != nil {
				w.opt.Progress(at, len(w.chosen), nodeName(n))
			}
			start := time.Now()
			r, made, err := w.layer(scope, n, s, w.chosen[at])
			if err != nil {
				return err
			}
			r.Seconds = time.Since(start).Seconds()
			w.report.Layers = append(w.report.Layers, r)
			if made != nil {
				stages = made
			}
		}
		nodes = append(nodes, stages...)
		for _, sub := range onnx.Graphs(n) {
			if err := w.graph(scope.Sub(sub), nil); err != nil {
				return err
			}
		}
	}
	g.Node = nodes
	return nil
}

// layer is a node's chain, nil where the node stays.
func (w *rewriter) layer(scope *onnx.Scope, n *onnxpb.NodeProto, s *shapes, chosen bool) (r compress.Result, stages []*onnxpb.NodeProto, err error) {
	r = compress.Result{Name: nodeName(n), Method: "none", Rank: []int{}}
	l, reason, err := newLayer(scope, n, s)
	if err != nil {
		return r, nil, err
	}
	if l.shape[0] > 0 && l.weight != nil {
		c := l.cost(l.dense(), 1)
		r.ParamsBefore, r.ParamsAfter, r.MACsBefore, r.MACsAfter = c.params, c.params, c.macs, c.macs
	}
	if !chosen {
		reason = "not chosen"
	}
	if r.Reason = reason; reason != "" {
		return r, nil, nil
	}
	got, chain, err := w.factorise(l)
	if err != nil {
		return r, nil, fmt.Errorf("%s: %w", l.name, err)
	}
	if chain == nil {
		r.Reason = got.Reason
		return r, nil, nil
	}
	c := l.cost(chain.Stages, w.opt.block())
	if why := w.opt.saves(l.cost(l.dense(), w.opt.block()), c); why != "" {
		r.Reason = fmt.Sprintf("rank %v of %s %s", got.Rank, got.Method, why)
		return r, nil, nil
	}
	got.Chain, got.Name, got.MACsBefore = nil, r.Name, r.MACsBefore
	got.ParamsBefore, got.ParamsAfter, got.MACsAfter = r.ParamsBefore, c.params, c.macs
	stages, err = w.emit(l, chain, fmt.Sprint(got.Method, got.Rank))
	return got, stages, err
}

// factorise is a layer's chain and what is to be reported of it, or the reason for none.
func (w *rewriter) factorise(l *layer) (r compress.Result, chain *conv.Chain, err error) {
	byRule := w.opt.Rank.Rule == compress.Energy || w.opt.Rank.Rule == compress.Ratio
	if l.shape[2]*l.shape[3] == 1 && l.groups == 1 && byRule {
		p, chain, reason, err := l.pointwise(w.ctx, w.opt)
		if p == nil || err != nil {
			return compress.Result{Reason: reason}, nil, err
		}
		return compress.Result{Method: string(p.method), Rank: p.rank, RelError: math.Sqrt(p.err)}, chain, nil
	}
	k, err := l.kernel()
	if err != nil {
		return r, nil, err
	}
	if ok, why := compress.Compressible(k); !ok {
		return compress.Result{Reason: why}, nil, nil
	}
	p, reason, err := l.plan(w.ctx, k, w.opt)
	if p == nil || err != nil {
		return compress.Result{Reason: reason}, nil, err
	}
	o := w.opt.Options
	o.Method, o.Rank, o.Layers, o.Progress, o.Always = p.method, compress.Rank{Rule: compress.Fixed, Fixed: p.rank}, nil, nil, true
	if o.Method != compress.CP && o.Method != compress.TKDCPD && o.Method != compress.Separable {
		o.Stability = 0
	}
	results, err := compress.Layers(w.ctx, []compress.Target{{Name: l.name, Chain: conv.NewDense(k)}}, o)
	if err != nil {
		return r, nil, err
	}
	if results[0].Reason != "" {
		return results[0], nil, nil
	}
	chain = results[0].Chain
	if w.opt.Rank.Rule == compress.Fixed {
		chain = filled(chain, w.opt.block())
	}
	return results[0], chain, nil
}

// annotate writes into the model's metadata what was done.
func (w *rewriter) annotate() error {
	type entry struct {
		Node   string  `json:"node"`
		Method string  `json:"method"`
		Ranks  []int   `json:"ranks"`
		Error  float64 `json:"error"`
	}
	var entries []json.RawMessage
	p := w.m.Proto()
	for _, kv := range p.MetadataProps {
		if kv.GetKey() == layersKey {
			// Of an earlier run, whatever it is if it is a list.
			_ = json.Unmarshal([]byte(kv.GetValue()), &entries)
		}
	}
	done := false
	for _, r := range w.report.Layers {
		if r.Reason != "" {
			continue
		}
		done = true
		b, err := json.Marshal(entry{r.Name, r.Method, r.Rank, r.RelError})
		if err != nil {
			return err
		}
		entries = append(entries, b)
	}
	if !done {
		return nil
	}
	list, err := json.Marshal(entries)
	if err != nil {
		return err
	}
	version := "devel"
	if info, ok := debug.ReadBuildInfo(); ok && strings.HasPrefix(info.Main.Version, "v") {
		version = info.Main.Version
	}
	for _, kv := range []struct{ key, value string }{{versionKey, version}, {layersKey, string(list)}} {
		p.MetadataProps = slices.DeleteFunc(p.MetadataProps, func(e *onnxpb.StringStringEntryProto) bool { return e.GetKey() == kv.key })
		p.MetadataProps = append(p.MetadataProps, &onnxpb.StringStringEntryProto{Key: proto.String(kv.key), Value: proto.String(kv.value)})
	}
	return nil
}

// params counts the floating-point numbers in initializers and Constant nodes.
func params(m *onnx.Model) int {
	n := 0
	count := func(t *onnxpb.TensorProto) {
		if t == nil || !onnx.Type(t.GetDataType()).IsFloat() {
			return
		}
		k := 1
		for _, d := range t.Dims {
			k *= int(d)
		}
		n += k
	}
	(*rewriter)(nil).graphs(m.Graph(), func(g *onnxpb.GraphProto) {
		for _, t := range g.Initializer {
			count(t)
		}
		for _, node := range g.Node {
			if node.GetOpType() == "Constant" {
				count(onnx.Attribute(node, "value").GetT())
			}
		}
	})
	return n
}
