package graph

import (
	"slices"
	"testing"
)

// A program has no step more for a serial module that is linear; a parallel one has its
// own, and no batch norm stands apart.
func TestProgramsFoldModules(t *testing.T) {
	steps := func(g *Graph) []string {
		p, err := g.Compile()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, s := range p.steps {
			if moduleOf(s.name) != "conv2" {
				names = append(names, s.name)
			}
		}
		return names
	}
	if got, want := steps(small(t, false)), []string{"conv1", "conv2", "maxpool", "avgpool", "flatten", "fc"}; !slices.Equal(got, want) {
		t.Errorf("without modules the steps are %v, want %v", got, want)
	}
	// Behind the sum the shortcut is added apart.
	if got, want := steps(small(t, true)), []string{"conv1", "conv2", "add", "relu2", "maxpool", "avgpool", "flatten", "fc"}; !slices.Equal(got, want) {
		t.Errorf("the steps are %v, want %v", got, want)
	}
}

// What reads the sum of a module beside the batch norm gets the sum: a file may describe
// such a network, though AddModule does not make one.
func TestWhatReadsASumBesideItsNormIsNotFolded(t *testing.T) {
	for _, sum := range []string{"conv1.adapter.0.sum", "conv2.adapter.0.sum"} {
		g := small(t, true)
		at := g.Node(sum)
		extra := &Node{Name: sum[:5] + ".adapter.9", Op: NewBatchNorm(4), In: []*Node{at}}
		g.Nodes = slices.Insert(g.Nodes, slices.Index(g.Nodes, at)+1, extra)
		add := g.Node("add")
		add.In = []*Node{add.In[0], extra}
		if err := g.Validate(); err != nil {
			t.Fatal(err)
		}
		run(t, g)
		l, err := g.NewLearner(LearnerOptions{FixedNorms: true})
		if err != nil {
			t.Fatal(err)
		}
		p, err := g.Compile()
		if err != nil {
			t.Fatal(err)
		}
		x := g.image()
		y, err := p.Forward(t.Context(), x, 1)
		if err != nil {
			t.Fatal(err)
		}
		z, err := l.Forward(t.Context(), x, 1)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range z {
			if d := v - y[i]; d > 1e-4 || d < -1e-4 {
				t.Errorf("%s: value %d is %g in a program, %g in a learner", sum, i, y[i], v)
			}
		}
	}
}
