package zoo

import (
	"errors"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
)

// residualSerial, convAdapter and chapter are the modules of package adapt, which make them
// of a convolution that they stand at (Rebuffi et al. 2018; Chen et al. 2022; Chen et al.
// 2023).
func residualSerial(s graph.Site) *graph.Module {
	outs := s.Chain.Out()
	return &graph.Module{Place: graph.Serial, Scale: 1, Steps: []graph.ModuleStep{
		{Norm: graph.NewBatchNorm(outs)},
		{Chain: graph.NewConv([4]int{outs, outs, 1, 1}, conv.Geometry{}, false)},
	}}
}

func convAdapter(s graph.Site, gamma int, rng *rand.Rand) *graph.Module {
	shape, g := s.Chain.Shape()
	inner := s.Chain.In() / gamma
	for s.Chain.In()%gamma != 0 { // the next smaller divisor
		gamma--
		inner = s.Chain.In() / gamma
	}
	g.Groups = inner
	return &graph.Module{Place: graph.Parallel, Scale: 1, Steps: []graph.ModuleStep{
		{Chain: normal(graph.NewConv([4]int{inner, gamma, shape[2], shape[3]}, g, true), rng), ReLU: true},
		{Chain: graph.NewConv([4]int{s.Chain.Out(), inner, 1, 1}, conv.Geometry{}, true)},
	}}
}

func chapter(s graph.Site, groups int, scale float64, rng *rand.Rand) *graph.Module {
	shape, g := s.Chain.Shape()
	outs := s.Chain.Out()
	g.Groups, g.Padding[1], g.Extra[1], g.Dilation[1] = groups, 0, 0, 1
	return &graph.Module{Place: graph.After, Scale: scale, Steps: []graph.ModuleStep{
		{Chain: normal(graph.NewConv([4]int{outs, s.Chain.In() / groups, shape[2], 1}, g, false), rng), Norm: graph.NewBatchNorm(outs), ReLU: true},
		{Chain: graph.NewConv([4]int{outs, 1, 1, 1}, conv.Geometry{Groups: outs}, false)},
	}}
}

// normal gives a convolution random weights.
func normal(c *conv.Chain, rng *rand.Rand) *conv.Chain {
	graph.SetNormal(c.Stages[0], rng)
	return c
}

// kindsOfModules are the modules of the i-th convolution in testdata/module.py.
func kindsOfModules(i int, s graph.Site, rng *rand.Rand) []*graph.Module {
	in, outs := s.Chain.In(), s.Chain.Out()
	_, g := s.Chain.Shape()
	stride := conv.Geometry{Stride: g.Stride}
	step := func(out, in, taps int, g conv.Geometry, bias, norm, relu bool) []graph.ModuleStep {
		st := graph.ModuleStep{Chain: normal(graph.NewConv([4]int{out, in, taps, taps}, g, bias), rng), ReLU: relu}
		if norm {
			st.Norm = graph.NewBatchNorm(out)
		}
		return []graph.ModuleStep{st}
	}
	switch i % 4 {
	case 0:
		return []*graph.Module{residualSerial(s)}
	case 1:
		return []*graph.Module{convAdapter(s, 4, rng)}
	case 2:
		return []*graph.Module{chapter(s, 1, .5, rng)}
	}
	return []*graph.Module{
		{Place: graph.Serial, Scale: .25, Steps: append(step(outs, outs, 1, conv.Geometry{}, true, false, true), step(outs, 1, 3, conv.Geometry{Padding: [2]int{1, 1}, Groups: outs}, false, true, false)...)},
		{Place: graph.Parallel, Scale: -.5, Steps: step(outs, in, 1, stride, false, true, false)},
		{Place: graph.After, Scale: 2, Steps: step(outs, in, 1, stride, true, false, false)},
	}
}

// shortcutsFirst are the convolutions of n, but for the head, in the order in which
// testdata/module.py numbers them: a block's projection before its others.
func shortcutsFirst(n *graph.Graph) []graph.Site {
	var sites []graph.Site
	for _, s := range n.Sites() {
		at := len(sites)
		if strings.Contains(s.Name, "downsample") || strings.Contains(s.Name, "shortcut") {
			block := strings.Join(strings.Split(s.Name, ".")[:2], ".") + "."
			at = slices.IndexFunc(sites, func(o graph.Site) bool { return strings.HasPrefix(o.Name, block) })
		}
		if s.Node != n.Head {
			sites = slices.Insert(sites, at, s)
		}
	}
	return sites
}

// attach gives every convolution of n but the head modules.
func attach(t testing.TB, n *graph.Graph, kinds func(i int, s graph.Site, rng *rand.Rand) []*graph.Module) {
	t.Helper()
	rng := rand.New(rand.NewPCG(5, 5))
	for i, s := range shortcutsFirst(n) {
		for _, m := range kinds(i, s, rng) {
			if err := n.AddModule(s.Name, m); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// modular is a fixture with the modules of testdata/module.py, and what PyTorch makes
// of it.
func modular(t *testing.T, name string) (*graph.Graph, *model.StateDict) {
	t.Helper()
	want, err := model.ReadFile(filepath.Join("testdata", name+"_modules.npz"))
	if err != nil {
		t.Fatal(err)
	}
	n := residual(t, name, Options{})
	attach(t, n, kindsOfModules)
	sd := stateOf(t, n)
	for _, tensor := range want.Names() {
		if to, ok := strings.CutPrefix(tensor, "adapter."); ok {
			if _, ok := sd.Get(to); !ok {
				t.Errorf("the network has no %s", to)
			}
			v, _ := want.Get(tensor)
			sd.Set(to, v)
		}
	}
	if n, err = Load(sd, Options{}); err != nil {
		t.Fatal(err)
	}
	return n, want
}

func site(t testing.TB, n *graph.Graph, name string) graph.Site {
	t.Helper()
	at := slices.IndexFunc(n.Sites(), func(s graph.Site) bool { return s.Name == name })
	if at < 0 {
		t.Fatalf("no convolution is called %s", name)
	}
	return n.Sites()[at]
}

func stateOf(t testing.TB, n *graph.Graph) *model.StateDict {
	t.Helper()
	sd, err := n.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	return sd
}

func TestModulesEqualPyTorch(t *testing.T) {
	for _, name := range []string{"bottleneck", "cifar_pad"} {
		n, want := modular(t, name)
		x, _ := reference(t, name)
		y, _ := want.Get("y")
		if d := relative(logits(t, n, x, 2), y.Data.([]float32)); d > 1e-5 {
			t.Errorf("%s: logits differ by %.2g", name, d)
		}
		if !slices.Equal(logits(t, n, x, 1), logits(t, n, x, 2)) {
			t.Errorf("%s: one worker and two give different logits", name)
		}
		for _, fixed := range []bool{false, true} {
			mode := ""
			if fixed {
				mode = "fixed_"
			}
			t.Run(mode+name, func(t *testing.T) {
				opt := graph.LearnerOptions{FixedNorms: fixed}
				if bottle(n) {
					opt.Learn = func(p *graph.Param) bool { return p.Module }
				}
				l := learner(t, n, opt)
				loss := pass(t, l, x, 2)
				compareStepAbove(t, l, loss, want, mode, 1e-5)
				first := slices.Clone(l.Params()[0].Grad)
				if pass(t, l, x, 1); !slices.Equal(first, l.Params()[0].Grad) { // the maps are reused
					t.Error("a second pass gives another gradient")
				}
			})
		}
	}
}

func TestPartsOfModulesHaveTheGradientsOfTheWholeNetwork(t *testing.T) {
	for _, name := range []string{"bottleneck", "cifar_pad"} {
		n, _ := modular(t, name)
		x, _ := reference(t, name)
		for seed := range uint64(12) {
			fixed := seed%2 == 0
			opt := graph.LearnerOptions{FixedNorms: fixed, ModuleNorms: seed%3 == 0}
			all := learner(t, n, opt)
			pass(t, all, x, 2)
			want := gradients(t, all)
			rng := rand.New(rand.NewPCG(seed, 0))
			chance := []float64{.01, .05, .5}[seed/2%3]
			opt.Learn = func(p *graph.Param) bool { return (p.Module || seed%4 == 0) && rng.Float64() < chance }
			some := learner(t, n, opt)
			pass(t, some, x, 2)
			for _, p := range some.Params() {
				if d := relative(exported(t, p, p.Grad), want[p.Name]); d > 1e-4 {
					t.Errorf("%s, seed %d: gradient of %s differs by %.2g", name, seed, p.Name, d)
				}
			}
		}
	}
}

// first are modules as adaptation begins with them.
func first(i int, s graph.Site, rng *rand.Rand) []*graph.Module {
	switch i % 3 {
	case 0:
		return []*graph.Module{residualSerial(s)}
	case 1:
		return []*graph.Module{convAdapter(s, 3, rng)}
	}
	return []*graph.Module{chapter(s, 1, .01, rng)}
}

func TestModulesBeginWithoutEffect(t *testing.T) {
	for _, f := range resnets {
		n := residual(t, f.name, f.opt)
		x, _ := reference(t, f.name)
		for shift := range 3 {
			m := n.Clone()
			attach(t, m, func(i int, s graph.Site, rng *rand.Rand) []*graph.Module { return first(i+shift, s, rng) })
			if !slices.Equal(logits(t, m, x, 2), logits(t, n, x, 2)) {
				t.Errorf("%s, %d: modules that are new change the logits", f.name, shift)
			}
			// In training too, whatever the norms.
			for _, fixed := range []bool{false, true} {
				opt := graph.LearnerOptions{FixedNorms: fixed}
				a, err := learner(t, n, opt).Forward(t.Context(), x, 2)
				if err != nil {
					t.Fatal(err)
				}
				b, err := learner(t, m, opt).Forward(t.Context(), x, 2)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(a, b) {
					t.Errorf("%s, %d, fixed %v: modules that are new change the logits of training", f.name, shift, fixed)
				}
			}
			// And each has a gradient to leave that with.
			l := learner(t, m, graph.LearnerOptions{Learn: func(p *graph.Param) bool { return p.Module }})
			pass(t, l, x, 2)
			for _, s := range m.Sites() {
				last := ""
				for i := 0; m.Node(graph.StepName(s.Name, i)) != nil || m.Node(graph.StepName(s.Name, i)+graph.StepNorm) != nil; i++ {
					last = graph.StepName(s.Name, i) + ".weight"
				}
				if last == "" || f.bottle { // whose two channels may be dead
					continue
				}
				for _, p := range l.Params() {
					if p.Name == last && !slices.ContainsFunc(p.Grad, func(g float32) bool { return g != 0 }) {
						t.Errorf("%s, %d: %s has no gradient", f.name, shift, last)
					}
				}
			}
		}
	}
}

func TestModulesInTrainingAndRunningAreTheSame(t *testing.T) {
	for _, name := range []string{"bottleneck", "cifar_pad"} {
		n, _ := modular(t, name)
		x, _ := reference(t, name)
		for _, learn := range []func(*graph.Param) bool{nil, func(*graph.Param) bool { return false }, func(p *graph.Param) bool { return p.Module }} {
			l := learner(t, n, graph.LearnerOptions{FixedNorms: true, Learn: learn})
			y, err := l.Forward(t.Context(), x, 2)
			if err != nil {
				t.Fatal(err)
			}
			if d := relative(y, logits(t, n, x, 2)); d > 1e-5 {
				t.Errorf("%s: training differs from running by %.2g", name, d)
			}
		}
	}
}

func TestNetworksWithModulesSurviveTheirFiles(t *testing.T) {
	n, _ := modular(t, "cifar_pad")
	x, _ := reference(t, "cifar_pad")
	path := filepath.Join(t.TempDir(), "net.safetensors")
	if err := model.WriteSafetensors(path, stateOf(t, n)); err != nil {
		t.Fatal(err)
	}
	sd, err := model.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Load(sd, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(logits(t, back, x, 1), logits(t, n, x, 1)) || back.Params() != n.Params() || back.MACs() != n.MACs() {
		t.Error("the network is another")
	}
	a, b := stateOf(t, n), stateOf(t, back)
	if a.Meta[model.ManifestKey] != b.Meta[model.ManifestKey] || !slices.Equal(a.Names(), b.Names()) {
		t.Error("its file is another")
	}
}

func TestALearnerWithModulesGoesOnFromItsState(t *testing.T) {
	for _, opt := range []graph.LearnerOptions{{}, {FixedNorms: true, ModuleNorms: true, Learn: func(p *graph.Param) bool { return p.Module }}} {
		n, _ := modular(t, "cifar_pad")
		x, _ := reference(t, "cifar_pad")
		a := learner(t, n, opt)
		step := stepper(t, a, x, 2)
		for range 3 {
			step()
		}
		state, err := a.State()
		if err != nil {
			t.Fatal(err)
		}
		fresh := residual(t, "cifar_pad", Options{})
		attach(t, fresh, kindsOfModules)
		b := learner(t, fresh, opt)
		if err := b.SetState(state); err != nil {
			t.Fatal(err)
		}
		if opt.FixedNorms { // what is folded stays its own
			b = learner(t, n, opt)
			if err := b.SetState(state); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if la, lb := pass(t, a, x, 2), pass(t, b, x, 2); la != lb {
				t.Errorf("loss %g, from the state %g", la, lb)
			}
		}
		if len(a.Statistics()) == 0 || len(a.Statistics()) != len(b.Statistics()) {
			t.Errorf("%d statistics", len(a.Statistics()))
		}
		if err := learner(t, residual(t, "cifar_pad", Options{}), opt).SetState(state); !errors.Is(err, conv.ErrShape) {
			t.Errorf("a learner without modules takes the state: %v", err)
		}
	}
}

func TestModulesLearnAndLeaveTheRestAlone(t *testing.T) {
	for _, name := range []string{"cifar_pad", "cifar_projection", "basic"} {
		n := residual(t, name, Options{})
		attach(t, n, func(i int, s graph.Site, rng *rand.Rand) []*graph.Module {
			m := first(i, s, rng)
			m[0].Scale = 1
			return m
		})
		x, _ := reference(t, name)
		l := learner(t, n, graph.LearnerOptions{FixedNorms: true, ModuleNorms: true, Learn: func(p *graph.Param) bool { return p.Module }})
		before := pass(t, l, x, 2)
		step := stepper(t, l, x, 2)
		for range 120 {
			step()
		}
		if after := pass(t, l, x, 2); !(after < .8*before) {
			t.Errorf("%s: the loss went from %g to %g", name, before, after)
		}
		out, err := l.Net()
		if err != nil {
			t.Fatal(err)
		}
		was, is := stateOf(t, n), stateOf(t, out)
		for _, tensor := range was.Names() {
			a, _ := was.Get(tensor)
			b, _ := is.Get(tensor)
			v, ok := a.Data.([]float32)
			if !ok {
				continue
			}
			if same := slices.Equal(v, b.Data.([]float32)); same == strings.Contains(tensor, ".adapter.") {
				t.Errorf("%s: %s stayed the same: %v", name, tensor, same)
			}
		}
	}
}

func TestNetworksWithModulesAreCopiedMeasuredAndBegunAnew(t *testing.T) {
	n := residual(t, "cifar_pad", Options{})
	bare, macs := n.Params(), n.MACs()
	u := site(t, n, "layer2.0.conv1") // 4 channels to 8, stride 2
	for _, c := range []struct {
		m      *graph.Module
		params int
	}{{residualSerial(u), 64 + 16}, {convAdapter(u, 4, rand.New(rand.NewPCG(1, 1))), 4*9 + 1 + 8 + 8}, {chapter(u, 2, .01, rand.New(rand.NewPCG(1, 1))), 8*2*3 + 16 + 8}} {
		m := n.Clone()
		if err := m.AddModule(u.Name, c.m); err != nil {
			t.Fatal(err)
		}
		if got := m.Params() - bare; got != c.params {
			t.Errorf("%d parameters, want %d", got, c.params)
		}
		if m.MACs() <= macs || n.Params() != bare {
			t.Error("the module costs nothing, or the copy's is the network's")
		}
		if err := m.SetHead(3, 1); err != nil {
			t.Fatal(err)
		}
		m.Randomise(1)
		without := residual(t, "cifar_pad", Options{})
		if err := without.SetHead(3, 1); err != nil {
			t.Fatal(err)
		}
		without.Randomise(1)
		x, _ := reference(t, "cifar_pad")
		if m.Params()-without.Params() != c.params || slices.Equal(logits(t, m, x, 1), logits(t, n, x, 1)) {
			t.Error("a network begun anew lost its module, or kept its weights")
		}
	}
}

func TestSegmentationNetworksHaveModules(t *testing.T) {
	n := residual(t, "fcn_cifar", Options{})
	x, _ := reference(t, "fcn_cifar")
	m := n.Clone()
	attach(t, m, first)
	if !slices.Equal(logits(t, m, x, 2), logits(t, n, x, 2)) {
		t.Error("modules that are new change the logits")
	}
	_, want := stepFixture(t, "fcn_cifar")
	l := learner(t, m, graph.LearnerOptions{Learn: func(p *graph.Param) bool { return p.Module }})
	before := passPixels(t, l, x, masks(t, want), 2)
	for range 10 {
		for _, p := range l.Params() {
			for i, g := range p.Grad {
				p.Value[i] -= .1 * g
			}
		}
		l.Updated()
		passPixels(t, l, x, masks(t, want), 2)
	}
	if after := passPixels(t, l, x, masks(t, want), 2); !(after < before) {
		t.Errorf("the loss went from %g to %g", before, after)
	}
	// A module is made for its unit's stride.
	c := residual(t, "cifar_pad", Options{})
	attach(t, c, first)
	if err := SetSegmentation(c, 3, 1, 1); !errors.Is(err, ErrUnknown) || c.Segments() {
		t.Errorf("got %v", err)
	}
	if err := SetSegmentation(c, 3, 0, 1); err != nil {
		t.Error(err)
	}
}

func TestModulesThatDoNotFitAreErrors(t *testing.T) {
	n := residual(t, "cifar_pad", Options{})
	u := site(t, n, "layer2.0.conv1")
	rng := rand.New(rand.NewPCG(1, 1))
	change := func(m *graph.Module, f func(m *graph.Module)) *graph.Module { f(m); return m }
	for name, m := range map[string]*graph.Module{
		"place":    change(residualSerial(u), func(m *graph.Module) { m.Place = "beside" }),
		"moved":    change(residualSerial(u), func(m *graph.Module) { m.Place = graph.Parallel }),
		"scale":    change(residualSerial(u), func(m *graph.Module) { m.Scale = math.NaN() }),
		"none":     {Place: graph.Serial, Scale: 1},
		"empty":    {Place: graph.Serial, Scale: 1, Steps: []graph.ModuleStep{{}}},
		"many":     change(residualSerial(u), func(m *graph.Module) { m.Steps = slices.Repeat(m.Steps, 9) }),
		"channels": residualSerial(site(t, n, "conv1")),
		"stride":   change(convAdapter(u, 2, rng), func(m *graph.Module) { m.Steps[0].Chain.Stages[0].Stride = [2]int{1, 1} }),
		"norm":     change(residualSerial(u), func(m *graph.Module) { m.Steps[0].Norm.Var = nil }),
		"padding": change(chapter(u, 1, .01, rng), func(m *graph.Module) {
			m.Steps[0].Chain.Stages[0].Padding = [2]int{1 << 20, 1 << 20}
			m.Steps[0].Chain.Stages[0].Stride = [2]int{1 << 20, 1 << 20}
		}),
		"end": change(chapter(u, 1, .01, rng), func(m *graph.Module) {
			m.Steps[0].Chain.Stages[0].Extra = [2]int{1 << 20, 1 << 20}
			m.Steps[0].Chain.Stages[0].Stride = [2]int{1 << 20, 1 << 20}
		}),
	} {
		if err := n.AddModule(u.Name, m); !errors.Is(err, graph.ErrShape) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := n.AddModule(n.Head.Name, residualSerial(site(t, n, n.Head.Name))); !errors.Is(err, graph.ErrShape) {
		t.Errorf("a module at the head gave %v", err)
	}
	if err := n.AddModule("conv9", residualSerial(u)); !errors.Is(err, graph.ErrGraph) || !strings.Contains(err.Error(), "conv9") {
		t.Errorf("got %v", err)
	}
	if n.HasModules() || n.ModulesAt(u.Name) > 0 {
		t.Error("a module that does not fit is there")
	}
}

// formatOne describes a network as files of format 1 did, of which modules are a part.
func formatOne(t testing.TB, n *graph.Graph, modules string) *model.StateDict {
	t.Helper()
	sd := stateOf(t, n)
	sd.Meta[model.ManifestKey] = `{"format":1,"network":{"arch":"resnet-1-2-1","blocks":[1,2,1],"bottleneck":false,"cifar":true,"pad_shortcut":true,"classes":6,"input":[32,32],"preprocess":{},"modules":` + modules + `}}`
	return sd
}

func TestHostileDescriptionsOfModulesAreErrors(t *testing.T) {
	n := residual(t, "cifar_pad", Options{})
	u := site(t, n, "layer2.0.conv1")
	if err := n.AddModule(u.Name, residualSerial(u)); err != nil {
		t.Fatal(err)
	}
	good := `{"layer2.0.conv1":[{"place":"serial","scale":1,"steps":[{"norm":true},{"conv":{"stride":[1,1],"padding":[0,0],"dilation":[1,1],"groups":1}}]}]}`
	back, err := Load(formatOne(t, n, good), Options{})
	if err != nil {
		t.Fatal(err)
	}
	x, _ := reference(t, "cifar_pad")
	if !slices.Equal(logits(t, back, x, 1), logits(t, n, x, 1)) {
		t.Error("the network of format 1 is another")
	}
	for name, c := range map[string][2]string{
		"unit":     {`"layer2.0.conv1"`, `"layer2.0.conv7"`},
		"head":     {`"layer2.0.conv1"`, `"linear"`},
		"place":    {`"serial"`, `"around"`},
		"parallel": {`"serial"`, `"parallel"`},
		"tensor":   {`{"norm":true}`, `{"norm":true},{"norm":true}`},
		"left":     {`{"norm":true},`, ``},
		"empty":    {`{"norm":true}`, `{}`},
		"none":     {`"steps":[{"norm":true},`, `"steps":[],"other":[{"norm":true},`},
		"modules":  {`[{"place"`, `[` + strings.Repeat(`{},`, 20) + `{"place"`},
		"stride":   {`"stride":[1,1]`, `"stride":[2,1]`},
		"padding":  {`"padding":[0,0]`, `"padding":[1000000,0]`},
		"negative": {`"dilation":[1,1]`, `"dilation":[-1,1]`},
		"groups":   {`"groups":1`, `"groups":3`},
		"type":     {`"scale":1`, `"scale":"one"`},
	} {
		bad := strings.Replace(good, c[0], c[1], 1)
		if bad == good {
			t.Fatalf("%s: nothing is replaced", name)
		}
		if _, err := Load(formatOne(t, n, bad), Options{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Where chains are frozen, what is between their stages is not kept.
func TestModulesStandBesideChains(t *testing.T) {
	for _, name := range []string{"bottleneck", "cifar_pad"} {
		rng := rand.New(rand.NewPCG(4, 4))
		n, _ := modular(t, name)
		for _, s := range n.Sites() {
			if err := n.Replace(s.Name, randomChain(rng, s.Chain)); err != nil {
				t.Fatal(err)
			}
		}
		x, _ := reference(t, name)
		back, err := Load(stateOf(t, n), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(logits(t, back, x, 2), logits(t, n, x, 2)) {
			t.Errorf("%s: the file's network is another", name)
		}
		for _, modules := range []bool{false, true} {
			opt := graph.LearnerOptions{FixedNorms: true, ModuleNorms: modules}
			all := learner(t, n, opt)
			pass(t, all, x, 2)
			if y, err := all.Forward(t.Context(), x, 2); err != nil {
				t.Fatal(err)
			} else if d := relative(y, logits(t, n, x, 2)); !modules && d > 1e-4 {
				t.Errorf("%s: training differs from running by %.2g", name, d)
			}
			opt.Learn = func(p *graph.Param) bool { return p.Module }
			some := learner(t, n, opt)
			pass(t, some, x, 2)
			pass(t, all, x, 2)
			pass(t, some, x, 2)
			want := gradients(t, all)
			for _, p := range some.Params() {
				if w := want[p.Name]; relative(exported(t, p, p.Grad), w) > 1e-3 && distance(exported(t, p, p.Grad), w) > 1e-4 {
					t.Errorf("%s: gradient of %s differs by %.2g", name, p.Name, relative(exported(t, p, p.Grad), w))
				}
			}
		}
	}
}
