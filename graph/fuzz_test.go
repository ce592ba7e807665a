package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/model"
)

// What a file says of an operation is an error or an operation that runs, and that
// trains, whatever it says.
func FuzzAttributes(f *testing.F) {
	for _, o := range operators() {
		attributes, err := json.Marshal(o.op)
		if err != nil {
			f.Fatal(err)
		}
		shapes, err := json.Marshal(o.in)
		if err != nil {
			f.Fatal(err)
		}
		weight := []int{4}
		if p, ok := o.op.(parametric); ok && len(p.tensors()) > 0 {
			weight = p.tensors()[0].shape
		}
		w, err := json.Marshal(weight)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(o.op.Kind(), attributes, shapes, w, uint8(1))
	}
	f.Add("pool", []byte(`{"size":[2,2],"stride":[2,2],"ceil":true}`), []byte(`[[3,5,4]]`), []byte(`[]`), uint8(0))
	f.Add("activation", []byte(`{"name":"relu"}`), []byte(`[[3,5,4]]`), []byte(`[]`), uint8(0))
	f.Add("batchnorm", []byte(`{"eps":1}`), []byte(`[[3,5,4]]`), []byte(`[3]`), uint8(1))
	f.Add("subsample", []byte(`{"stride":[2,2],"before":1}`), []byte(`[[3,5,4]]`), []byte(`[3]`), uint8(1))
	f.Fuzz(func(t *testing.T, kind string, attributes, shapes, weight []byte, biases uint8) {
		var in []Shape
		var w []int
		if !json.Valid(attributes) || json.Unmarshal(shapes, &in) != nil || json.Unmarshal(weight, &w) != nil || kind == "input" || kind == "const" {
			return
		}
		small := func(s Shape) bool { return len(s) < 6 && s.check() == nil && s.Len() < 1<<12 }
		sd := model.NewStateDict()
		d := description{Input: Shape{1, 1, 1}, Outputs: []string{"op"}}
		d.Nodes = append(d.Nodes, nodeSpec{Name: "image", Op: "input", Attributes: json.RawMessage(`{"size":[1,1,1]}`)})
		last := nodeSpec{Name: "op", Op: kind, Attributes: attributes}
		for i, s := range in {
			if !small(s) || i > 4 {
				return
			}
			name := fmt.Sprint("in", i)
			k := &Const{Size: s}
			spec, err := json.Marshal(k)
			if err != nil {
				t.Fatal(err)
			}
			values := make([]float32, s.Len())
			for j := range values {
				values[j] = float32(j%7) - 2.5
			}
			sd.Set(name+".value", &model.Tensor{Shape: s, Data: values})
			d.Nodes = append(d.Nodes, nodeSpec{Name: name, Op: "const", Attributes: spec})
			last.In = append(last.In, name)
		}
		d.Nodes = append(d.Nodes, last)
		if !small(w) && len(w) > 0 {
			return
		}
		for _, suffix := range []string{"weight", "running_mean", "running_var"} {
			sd.Set("op."+suffix, &model.Tensor{Shape: w, Data: make([]float32, Shape(w).Len())})
		}
		sd.Set("op.bias", &model.Tensor{Shape: []int{int(biases)}, Data: make([]float32, biases)})
		m := Manifest{}
		var err error
		if m.Network, err = json.Marshal(d); err != nil {
			return // attributes that are no object
		}
		if err := m.Write(sd); err != nil {
			return
		}
		g, _, err := LoadPart(sd)
		if err != nil {
			if !errors.Is(err, ErrGraph) && !errors.Is(err, ErrShape) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("an error that wraps none of the package's: %v", err)
			}
			return
		}
		s := g.output()
		if s.Len() > 1<<16 {
			return
		}
		p, err := g.Compile()
		if err != nil {
			t.Fatal(err)
		}
		x := conv.NewMap(2, 1, 1, 1)
		out, err := p.Run(context.Background(), x, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(out[0].Data) != 2*s.Len() {
			t.Fatalf("%d values of %v", len(out[0].Data), s)
		}
		for _, n := range g.Nodes {
			if k, ok := n.Op.(*Const); ok {
				n.Op = &source{size: k.Size, values: make([]float32, 2*k.Size.Len())}
			}
		}
		l, err := g.NewLearner(LearnerOptions{})
		if err != nil {
			return
		}
		y, err := l.Forward(context.Background(), x, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Backward(context.Background(), make([]float32, len(y)), 1); err != nil {
			t.Fatal(err)
		}
	})
}
