package adapt

import (
	"fmt"
	"strings"

	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
)

// Tasks is one frozen network and the adapters of several tasks, between which a
// program switches while it runs. There is one copy of the network: what a task does
// not change it shares.
type Tasks struct {
	base *graph.Graph
	sd   *model.StateDict
	file *peft.File
}

// NewTasks checks that file's adapters belong to base, whose weights nobody may write
// to from then on; see peft.File.Check.
func NewTasks(base *graph.Graph, file *peft.File, force bool) (*Tasks, error) {
	sd, err := base.StateDict()
	if err != nil {
		return nil, err
	}
	if err := file.Check(sd, force); err != nil {
		return nil, err
	}
	return &Tasks{base, sd, file}, nil
}

// Base is the network without any adapter.
func (t *Tasks) Base() *graph.Graph { return t.base }

// Names lists the tasks.
func (t *Tasks) Names() []string { return names(t.file) }

func names(f *peft.File) []string {
	var n []string
	for _, a := range f.Adapters {
		n = append(n, a.Name)
	}
	return n
}

// Switch is the network for a task. Its kernels that the task changes are memory of its
// own; all its other tensors are the base's or the adapter's, which must not be
// written to. Networks of several tasks may be used at the same time.
func (t *Tasks) Switch(name string) (*graph.Graph, error) {
	a, err := Pick(t.file, name)
	if err != nil {
		return nil, err
	}
	return load(t.sd, Part{a, 1})
}

// Pick is the adapter called name in a file, or, where name is empty, the only one, or the
// only one beside Before. The error wraps ErrOption.
func Pick(f *peft.File, name string) (*peft.Adapter, error) {
	if a := f.Adapter(name); a != nil {
		return a, nil
	}
	if name == "" && len(f.Adapters) > 0 {
		last := f.Adapters[len(f.Adapters)-1]
		switch {
		case len(f.Adapters) == 1:
			return last, nil
		case len(f.Adapters) == 2 && last.Name == Before:
			return f.Adapters[0], nil
		}
	}
	return nil, fmt.Errorf("%w: no task %q; there are %s", ErrOption, name, quoted(names(f)))
}

func quoted(names []string) string {
	var q []string
	for _, n := range names {
		q = append(q, fmt.Sprintf("%q", n))
	}
	return strings.Join(q, ", ")
}

// Sites are the convolutions of a network and its linear head, as file formats need to
// know them.
func Sites(n *graph.Graph) []peft.Site {
	var sites []peft.Site
	for _, s := range n.Sites() {
		shape, g := s.Chain.Shape()
		sites = append(sites, peft.Site{Name: s.Name, Shape: shape, Geometry: g, Linear: s.Linear})
	}
	return sites
}
