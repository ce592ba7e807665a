package adapt

import (
	"fmt"

	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
)

// Before is what the second adapter of an LwF file is called: the one for the classes that
// the base told apart before.
const Before = "before"

// Kept is how many of the learner's outputs, the first, are for the classes that the base
// told apart before: train.Recipe's field of this name. It is 0 for all methods but LwF.
func (n *Network) Kept() int { return n.kept }

// Net is the network for the new classes, with what was learnt so far, in memory of its
// own: the learner's, of LwF without the outputs for the old classes.
func (n *Network) Net() (*graph.Graph, error) {
	net, err := n.Learner.Net()
	if err != nil || n.kept == 0 {
		return net, err
	}
	return net.SelectOutputs(n.kept, net.Classes())
}

// Old is the network for the classes that the base told apart before, with what was learnt
// so far: of LwF with those outputs as they are now, of other methods with the base's own
// head put back. How much worse than the base it is at them is how much was forgotten.
func (n *Network) Old() (*graph.Graph, error) {
	net, err := n.Learner.Net()
	switch {
	case err != nil:
		return nil, err
	case n.kept > 0:
		return net.SelectOutputs(0, n.kept)
	case n.extension.Dilate != nil:
		return nil, fmt.Errorf("%w: a segmentation network has no place for the classifier's head", ErrOption)
	}
	net.Head.Op = n.old
	return net, nil
}

// pair is File for LwF, whose kernels have no changes apart.
func (n *Network) pair(base *model.StateDict, name string) (*peft.File, error) {
	if name == Before {
		return nil, fmt.Errorf("%w: a task called %q, as the old classes' is", ErrOption, name)
	}
	var both []*peft.Adapter
	for _, part := range []struct {
		name string
		net  func() (*graph.Graph, error)
	}{{name, n.Net}, {Before, n.Old}} {
		net, err := part.net()
		if err != nil {
			return nil, err
		}
		after, err := net.StateDict()
		if err != nil {
			return nil, err
		}
		both = append(both, &peft.Adapter{Name: part.name, Norm: n.Options.Norms, Extra: replaced(base, after, nil)})
	}
	return Bind(base, both...)
}
