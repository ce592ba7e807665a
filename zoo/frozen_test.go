package zoo

import (
	"math/rand/v2"
	"testing"

	"github.com/lowrank-go/lowrank/graph"
)

// gradients are a learner's, by the names of the parameters.
func gradients(t testing.TB, l *graph.Learner) map[string][]float32 {
	t.Helper()
	g := map[string][]float32{}
	for _, p := range l.Params() {
		g[p.Name] = exported(t, p, p.Grad)
	}
	return g
}

// Frozen chains share what is between their stages, whose sizes differ.
func TestGradientsPassFrozenChains(t *testing.T) {
	for _, f := range resnets {
		rng := rand.New(rand.NewPCG(6, 6))
		n := residual(t, f.name, f.opt)
		for _, s := range n.Sites() {
			if err := n.Replace(s.Name, randomChain(rng, s.Chain)); err != nil {
				t.Fatal(err)
			}
		}
		x, _ := reference(t, f.name)
		all := learner(t, n, graph.LearnerOptions{FixedNorms: true})
		stem := learner(t, n, graph.LearnerOptions{FixedNorms: true, Learn: func(p *graph.Param) bool { return p.Unit == "conv1" }})
		pass(t, all, x, 2)
		pass(t, stem, x, 2)
		want := gradients(t, all)
		for _, p := range stem.Params() {
			if d := relative(exported(t, p, p.Grad), want[p.Name]); d > 1e-4 {
				t.Errorf("%s: gradient of %s differs by %.2g", f.name, p.Name, d)
			}
		}
	}
}
