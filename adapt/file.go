package adapt

import (
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
)

// File is the adapter as it is now: the changes of the kernels, the modules and what
// describes them, and every tensor of base's state dict that is another by now (the
// head, and what the method trains or the norms' policy replaces). It is bound to all
// others, which must be the same wherever it is applied. name is the task's and may be
// empty.
//
// Of LwF the file has a second adapter, Before, for the old classes as they are told apart
// now. Each holds all that changed, so that each can be used alone.
func (n *Network) File(base *model.StateDict, name string) (*peft.File, error) {
	if n.kept > 0 {
		return n.pair(base, name)
	}
	state, err := n.Learner.State()
	if err != nil {
		return nil, err
	}
	a := &peft.Adapter{Name: name, Norm: n.Options.Norms}
	for _, t := range n.Base.Sites() {
		if d, ok := n.Changes[t.Name]; ok {
			a.Modules = append(a.Modules, peft.Module{Name: t.Name, Delta: d})
		}
	}
	after, err := n.tensors(state)
	if err != nil {
		return nil, err
	}
	a.Extra = replaced(base, after, nil)
	if a.Added, err = encode(n.extension); err != nil {
		return nil, err
	}
	return Bind(base, a)
}

// tensors are those of the network in a learner's state.
func (n *Network) tensors(state *model.StateDict) (*model.StateDict, error) {
	names, err := n.Base.StateDict()
	if err != nil {
		return nil, err
	}
	out := model.NewStateDict()
	for _, name := range names.Names() {
		if t, ok := state.Get(name); ok {
			out.Set(name, t)
		}
	}
	return out, nil
}
