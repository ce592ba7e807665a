package graph

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/model"
)

// small is a residual network of one block, with a module of each place where modules is
// set.
func small(t testing.TB, modules bool) *Graph {
	t.Helper()
	g := &Graph{Arch: "small", Input: Shape{3, 9, 8}}
	pad := conv.Geometry{Padding: [2]int{1, 1}}
	image := g.Add("input", &Input{Size: g.Input})
	x := g.Add("conv1", &Conv{Chain: NewConv([4]int{4, 3, 3, 3}, pad, false)}, image)
	x = g.Add("bn1", NewBatchNorm(4), x)
	short := g.Add("relu", &Activation{Name: ReLU}, x)
	x = g.Add("conv2", &Conv{Chain: NewConv([4]int{4, 4, 3, 3}, pad, false)}, short)
	x = g.Add("bn2", NewBatchNorm(4), x)
	x = g.Add("add", &Binary{Op: Add}, x, short)
	x = g.Add("relu2", &Activation{Name: ReLU}, x)
	x = g.Add("maxpool", &Pool{Size: [2]int{2, 2}, Stride: [2]int{2, 2}}, x)
	x = g.Add("avgpool", GlobalAverage(), x)
	x = g.Add("flatten", &Flatten{}, x)
	x = g.Add("fc", &Conv{Chain: NewConv([4]int{5, 4, 1, 1}, conv.Geometry{}, true), Linear: true}, x)
	g.Outputs, g.Head = []*Node{x}, x
	g.Randomise(1)
	if err := g.SetHead(5, 1); err != nil {
		t.Fatal(err)
	}
	if modules {
		one := func(bias bool) *conv.Chain { return NewConv([4]int{4, 4, 1, 1}, conv.Geometry{}, bias) }
		for _, m := range []*Module{
			{Place: Serial, Scale: 1, Steps: []ModuleStep{{Norm: NewBatchNorm(4)}, {Chain: one(false)}}},
			{Place: Parallel, Scale: .5, Steps: []ModuleStep{{Chain: one(true), ReLU: true}, {Chain: one(false)}}},
			{Place: After, Scale: 2, Steps: []ModuleStep{{Chain: one(false), Norm: NewBatchNorm(4), ReLU: true}}},
		} {
			unit := map[Place]string{Serial: "conv1", Parallel: "conv2", After: "conv2"}[m.Place]
			if err := g.AddModule(unit, m); err != nil {
				t.Fatal(err)
			}
		}
		rng := rand.New(rand.NewPCG(2, 2))
		for _, n := range g.Nodes {
			if moduleOf(n.Name) != "" && n.Conv() != nil {
				SetNormal(n.Conv().Chain.Stages[0], rng)
			}
		}
	}
	return g
}

// file is a state dict of a description and tensors of the given shapes.
func file(network []byte, shapes map[string][]int) (*model.StateDict, error) {
	sd := model.NewStateDict()
	for name, s := range shapes {
		if strings.HasSuffix(name, tracked) {
			sd.Set(name, &model.Tensor{Data: []int64{1}})
			continue
		}
		v := make([]float32, Shape(s).Len())
		for i := range v {
			v[i] = float32(i%5) / 4
		}
		sd.Set(name, &model.Tensor{Shape: s, Data: v})
	}
	m := Manifest{Network: network}
	return sd, m.Write(sd)
}

// parts are a graph's description and the shapes of its tensors.
func parts(t testing.TB, g *Graph) ([]byte, map[string][]int) {
	t.Helper()
	sd, err := g.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	m, err := ReadManifest(sd)
	if err != nil {
		t.Fatal(err)
	}
	shapes := map[string][]int{}
	for _, n := range sd.Names() {
		v, _ := sd.Get(n)
		shapes[n] = v.Shape
	}
	return m.Network, shapes
}

func TestDescriptionsThatAreNoNetworkAreErrorsThatNameTheNode(t *testing.T) {
	good, shapes := parts(t, small(t, true))
	for name, c := range map[string]struct {
		old, new string
		want     error
		words    string
	}{
		"operation":   {`"op":"pool"`, `"op":"fly"`, ErrUnsupported, `fly "maxpool"`},
		"attributes":  {`"size":[2,2]`, `"size":"two"`, ErrGraph, `pool "maxpool"`},
		"window":      {`"size":[2,2]`, `"size":[200,2]`, ErrShape, `pool "maxpool"`},
		"stride":      {`"stride":[2,2]`, `"stride":[-2,2]`, ErrShape, `pool "maxpool"`},
		"name":        {`"name":"relu2"`, `"name":"relu"`, ErrGraph, `"relu"`},
		"no name":     {`"name":"relu2"`, `"name":""`, ErrGraph, `activation ""`},
		"tensor":      {`"name":"conv2"`, `"name":"conv7"`, ErrGraph, `"conv7"`},
		"itself":      {`"in":["maxpool"]`, `"in":["avgpool"]`, ErrGraph, `pool "avgpool"`},
		"cycle":       {`"in":["conv1"]`, `"in":["relu2"]`, ErrGraph, `"relu2"`},
		"nowhere":     {`"in":["maxpool"]`, `"in":["sea"]`, ErrGraph, `pool "avgpool"`},
		"too many":    {`"in":["maxpool"]`, `"in":["maxpool","maxpool"]`, ErrShape, `pool "avgpool"`},
		"none":        {`"in":["maxpool"]`, `"in":[]`, ErrShape, `pool "avgpool"`},
		"sum":         {`"in":["bn2","relu"]`, `"in":["bn2","input"]`, ErrShape, `binary "add"`},
		"input":       {`"input":[3,9,8]`, `"input":[3,1073741824,1073741824]`, ErrShape, `input "input"`},
		"zero":        {`"input":[3,9,8]`, `"input":[3,0,8]`, ErrShape, `input "input"`},
		"channels":    {`"input":[3,9,8]`, `"input":[4,9,8]`, ErrShape, `input "input"`},
		"output":      {`"outputs":["fc"]`, `"outputs":["gc"]`, ErrGraph, `"gc"`},
		"no outputs":  {`"outputs":["fc"]`, `"outputs":[]`, ErrGraph, `output`},
		"head":        {`"head":"fc"`, `"head":"gc"`, ErrGraph, `"gc"`},
		"other head":  {`"head":"fc"`, `"head":"relu"`, ErrGraph, `head`},
		"padding":     {`"padding":[1,1]`, `"padding":[16000000,1]`, ErrShape, `conv "conv1"`},
		"paddings":    {`"padding":[1,1]`, `"padding":[16000000,16000000],"stride":[16000000,16000000]`, ErrShape, `conv "conv1"`},
		"dilation":    {`"dilation":[1,1]`, `"dilation":[-1,1]`, ErrShape, `conv "conv1"`},
		"groups":      {`"groups":1`, `"groups":7`, ErrShape, `conv "conv1"`},
		"vector":      {`"op":"conv"`, `"op":"linear"`, ErrShape, `linear "conv1"`},
		"function":    {`"name":"relu"}`, `"name":"hope"}`, ErrShape, `activation "`},
		"description": {`"nodes":[`, `"nodes":[7,`, ErrGraph, `description`},
		"nothing":     {string(good), `{"nodes":[]}`, ErrGraph, `no input`},
		"no nodes":    {`"nodes"`, `"nodules"`, ErrGraph, `describe`},
	} {
		text := strings.Replace(string(good), c.old, c.new, 1)
		if text == string(good) {
			t.Fatalf("%s: nothing is replaced in %s", name, good)
		}
		sd, err := file([]byte(text), shapes)
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = Load(sd)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.words) {
			t.Errorf("%s: %v; want %v and %s", name, err, c.want, c.words)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
			t.Errorf("%s: %d bytes are allocated", name, n)
		}
	}
	sd, err := file(good, shapes)
	if err != nil {
		t.Fatal(err)
	}
	sd.Set("more.weight", &model.Tensor{Shape: []int{1}, Data: []float32{1}})
	if _, err := Load(sd); !errors.Is(err, ErrGraph) || !strings.Contains(err.Error(), `"more.weight"`) {
		t.Errorf("a tensor too many gave %v", err)
	}
}

// exercise does with a network all that a command may.
func exercise(t *testing.T, g *Graph) {
	t.Helper()
	_, _, _, _, _ = g.String(), g.Params(), g.MACs(), g.Segments(), g.HasModules()
	sites := g.Sites()
	for _, s := range sites {
		m := &Module{Place: Serial, Scale: 1, Steps: []ModuleStep{{Norm: NewBatchNorm(s.Chain.Out())}}}
		c := g.Clone()
		if err := c.AddModule(s.Name, m); err == nil {
			exerciseEdited(t, c)
		}
	}
	for _, edit := range []func(c *Graph) error{
		func(c *Graph) error { return c.SetHead(3, 1) },
		func(c *Graph) error { return c.ExtendHead(2, 1) },
		func(c *Graph) error {
			s, err := c.SelectOutputs(0, max(c.Classes()-1, 1))
			if err == nil {
				*c = *s
			}
			return err
		},
		func(c *Graph) error { c.Randomise(1); return nil },
		func(c *Graph) error {
			return c.InsertAfter(c.Nodes[len(c.Nodes)/2].Name, &Node{Name: "a new one", Op: &Activation{Name: ReLU}})
		},
	} {
		c := g.Clone()
		if edit(c) == nil {
			exerciseEdited(t, c)
		}
	}
}

func exerciseEdited(t *testing.T, g *Graph) {
	t.Helper()
	if err := g.Validate(); err != nil {
		t.Fatalf("an edit leaves %v", err)
	}
	_, _ = g.Sites(), g.Classes()
}

func FuzzLoad(f *testing.F) {
	for _, modules := range []bool{false, true} {
		network, shapes := parts(f, small(f, modules))
		s, err := json.Marshal(shapes)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(network, s)
		// A sum of a module that is none, and one that repeats a channel.
		f.Add([]byte(strings.ReplaceAll(string(network), `"conv1.adapter.0.scale"`, `"conv1.adapter.0.sail"`)), s)
		f.Add([]byte(strings.ReplaceAll(string(network), `"op":"scale"`, `"op":"identity"`)), s)
		f.Add([]byte(strings.ReplaceAll(string(network), `"place":"parallel"`, `"place":"serial"`)), s)
		f.Add([]byte(strings.ReplaceAll(string(network), `"place":"serial"`, `"place":"parallel"`)), s)
		f.Add([]byte(strings.ReplaceAll(string(network), `"head":"fc"`, `"head":"conv2"`)), s)
		f.Add([]byte(strings.ReplaceAll(string(network), `"outputs":["fc"]`, `"outputs":["relu","input"]`)), s)
		f.Add([]byte(strings.ReplaceAll(string(network), `"input":[3,9,8]`, `"input":[3,1,1]`)), s)
		f.Add(network, []byte(strings.ReplaceAll(string(s), `[4,4,1,1]`, `[1,4,1,1]`)))
	}
	f.Add([]byte(`{"input":[],"nodes":[{"name":"x.adapter.0","op":"input"},{"name":"x.adapter.0.scale","op":"scale","in":["x.adapter.0"]}],"outputs":["x.adapter.0.scale"]}`), []byte(`{}`))
	f.Add([]byte(`{"input":[1,1,1],"nodes":[{"name":"x","op":"input"},{"name":"y","op":"reshape","in":["x"],"attributes":{"size":[]}}],"outputs":["y"]}`), []byte(`{}`))
	f.Add([]byte(`{"input":[1,3,3],"nodes":[{"name":"i","op":"input"},{"name":"c","op":"conv","in":["i"]},{"name":"d","op":"conv","in":["i"]},{"name":"c.adapter.0.scale","op":"scale","in":["d"],"attributes":{"value":1,"place":"serial"}},{"name":"c.adapter.0.sum","op":"binary","in":["c","c.adapter.0.scale"],"attributes":{"op":"+"}},{"name":"n","op":"batchnorm","in":["c.adapter.0.sum"],"attributes":{"eps":1}}],"outputs":["n"],"head":"c"}`),
		[]byte(`{"c.weight":[1,1,1,1],"d.weight":[4,1,1,1],"n.weight":[4],"n.bias":[4],"n.running_mean":[4],"n.running_var":[4]}`))
	f.Fuzz(func(t *testing.T, network, tensors []byte) {
		var shapes map[string][]int
		if json.Valid(network) && json.Unmarshal(tensors, &shapes) == nil {
			try(t, network, shapes)
		}
	})
}

// FuzzEditedDescriptions changes some things in the description of a network, each into
// something that might stand there.
func FuzzEditedDescriptions(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(seed, uint8(seed%5+1))
	}
	good, shapes := parts(f, small(f, true))
	var kindNames []string
	for k := range kinds {
		kindNames = append(kindNames, k)
	}
	kindNames = append(kindNames, "conv", "linear")
	slices.Sort(kindNames)
	f.Fuzz(func(t *testing.T, seed uint64, edits uint8) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var d description
		if err := json.Unmarshal(good, &d); err != nil {
			t.Fatal(err)
		}
		own := map[string][]int{}
		names := slices.Sorted(maps.Keys(shapes))
		for _, n := range names {
			own[n] = slices.Clone(shapes[n])
		}
		for range min(edits, 16) {
			edit(rng, &d, own, names, kindNames)
		}
		network, err := json.Marshal(d)
		if err != nil {
			return
		}
		try(t, network, own)
	})
}

// edit changes one thing.
func edit(rng *rand.Rand, d *description, shapes map[string][]int, tensors, kindNames []string) {
	number := func() int {
		return []int{0, 1, 1, 1, 2, 2, 3, 4, 4, 5, 8, 9, -1, -2, 1 << 20, math.MaxInt32, math.MaxInt}[rng.IntN(17)]
	}
	word := func() string {
		words := []string{"relu", "clip", "softplus", "serial", "parallel", "after", "+", "*", "/", "add", "nearest", "cubic", "wrap", "reflect"}
		return words[rng.IntN(len(words))]
	}
	at := rng.IntN(len(d.Nodes))
	n := &d.Nodes[at]
	other := d.Nodes[rng.IntN(len(d.Nodes))].Name
	switch rng.IntN(12) {
	case 0:
		n.Op = kindNames[rng.IntN(len(kindNames))]
	case 1:
		if len(n.In) > 0 {
			n.In[rng.IntN(len(n.In))] = other
		}
	case 2:
		n.In = append(n.In, other)
	case 3:
		n.In = nil
	case 4, 5, 6: // one of the attributes, or a new one
		var attributes map[string]any
		if json.Unmarshal(n.Attributes, &attributes) != nil || attributes == nil {
			attributes = map[string]any{}
		}
		keys := append(slices.Sorted(maps.Keys(attributes)), "size", "axis", "adaptive", "scale", "mode", "op", "place", "value", "groups", "eps", "rate", "perm", "dims", "starts", "steps", "before", "after")
		value := []any{number(), float64(number()) / 3, word(), []int{number()}, []int{number(), number()}, []int{number(), number(), number()}, nil, true,
			map[string]any{"stride": []int{number(), 1}, "padding": []int{number(), number()}, "extra": []int{number(), 0}, "dilation": []int{1, number()}, "groups": number()}}[rng.IntN(9)]
		key := keys[rng.IntN(len(keys))]
		if g, ok := attributes["geometry"]; ok && rng.IntN(2) == 0 {
			inner, _ := g.(map[string]any)
			if inner != nil {
				inner[[]string{"stride", "padding", "dilation", "extra", "groups"}[rng.IntN(5)]] = value
			}
		} else {
			attributes[key] = value
		}
		n.Attributes, _ = json.Marshal(attributes)
	case 7:
		d.Outputs = append([]string{other}, d.Outputs...)[:1+rng.IntN(2)]
	case 8:
		d.Head = other
	case 9:
		if len(d.Input) > 0 {
			d.Input[rng.IntN(len(d.Input))] = number()
		}
	case 10:
		s := shapes[tensors[rng.IntN(len(tensors))]]
		if len(s) > 0 {
			s[rng.IntN(len(s))] = 1 + rng.IntN(8)
		}
	case 11: // another node of the kind and with the tensors of one that is there
		extra := *n
		extra.Name = fmt.Sprint("conv", 1+rng.IntN(2), ".adapter.", rng.IntN(4), []string{"", ".scale", ".sum", ".norm"}[rng.IntN(4)])
		for _, t := range tensors {
			if rest, ok := strings.CutPrefix(t, n.Name+"."); ok && !strings.Contains(rest, ".") {
				shapes[extra.Name+"."+rest] = shapes[t]
			}
		}
		d.Nodes = slices.Insert(d.Nodes, at+1, extra)
		for i := at + 2; i < len(d.Nodes); i++ {
			for j, in := range d.Nodes[i].In {
				if in == n.Name && rng.IntN(2) == 0 {
					d.Nodes[i].In = slices.Clone(d.Nodes[i].In)
					d.Nodes[i].In[j] = extra.Name
				}
			}
		}
	}
}

// try loads a description, and does with what it gives all that a command may.
func try(t *testing.T, network []byte, shapes map[string][]int) {
	values := 0
	for _, s := range shapes {
		if len(s) > 6 || Shape(s).check() != nil || values+Shape(s).Len() > 1<<16 {
			return
		}
		values += Shape(s).Len()
	}
	sd, err := file(network, shapes)
	if err != nil || len(shapes) > 64 {
		return
	}
	g, _, err := LoadPart(sd)
	if err != nil {
		if !errors.Is(err, ErrGraph) && !errors.Is(err, ErrShape) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, model.ErrCorrupt) && !errors.Is(err, model.ErrUnsupported) {
			t.Fatalf("an error that wraps none of the package's: %v", err)
		}
		return
	}
	written, err := g.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Load(written)
	if err != nil {
		t.Fatalf("what was loaded and saved is %v", err)
	}
	if back.String() != g.String() {
		t.Fatalf("it came back as\n%s\nfrom\n%s", back, g)
	}
	exercise(t, g)
	all, err := g.Shapes(g.Input)
	if err != nil {
		t.Fatal(err)
	}
	work := int64(0)
	for i, s := range all {
		if work += int64(s.Len()); g.Nodes[i].Conv() != nil {
			for _, k := range g.Nodes[i].Conv().Chain.Stages {
				n := k.Normal()
				work += int64(n.Padding[0]+n.Extra[0]+9) * int64(n.Padding[1]+n.Extra[1]+9) * 16
			}
		}
	}
	if work+g.MACs() > 1<<20 || len(g.Input) != 3 {
		return
	}
	run(t, g)
}

// image is a batch of two of the network's inputs.
func (g *Graph) image() *conv.Map {
	x := conv.NewMap(2, g.Input[1], g.Input[2], g.Input[0])
	for i := range x.Data {
		x.Data[i] = float32(i%7)/7 - .4
	}
	return x
}

// run runs a network, and lets it learn if it can.
func run(t *testing.T, g *Graph) {
	t.Helper()
	p, err := g.Compile()
	if err != nil {
		if !errors.Is(err, ErrUnsupported) {
			t.Fatal(err)
		}
		return
	}
	x := g.image()
	y, err := p.Forward(t.Context(), x, 1)
	if err != nil {
		t.Fatal(err)
	}
	y = slices.Clone(y)
	l, err := g.NewLearner(LearnerOptions{FixedNorms: true})
	if err != nil {
		if !errors.Is(err, ErrUnsupported) {
			t.Fatal(err)
		}
		return
	}
	z, err := l.Forward(t.Context(), x, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(y) != len(z) {
		t.Fatalf("a program gives %d values, a learner %d", len(y), len(z))
	}
	// Folding rounds differently; what is not well conditioned proves nothing.
	for i, v := range z {
		if d := math.Abs(float64(v - y[i])); d > 1 && d > .1*math.Abs(float64(v)) && math.Abs(float64(v)) < 1e3 && !l.dice {
			t.Fatalf("value %d is %g in a program, %g in a learner, of\n%s", i, y[i], v, g)
		}
	}
	if err := l.Backward(t.Context(), make([]float32, len(z)), 1); err != nil {
		t.Fatal(err)
	}
}
