package adapt

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/zoo"
)

// setTask gives Base the head of the task, LwF's with the old rows before the new ones, for
// both learn, and a neck where it becomes a segmentation network.
func (n *Network) setTask() error {
	o := &n.Options
	if n.Base.Head == nil {
		return fmt.Errorf("%w: %s has no layer that is known to tell classes apart, which the task's would replace", ErrOption, n.Base.Arch)
	}
	n.old = n.Base.Head.Op
	n.fresh = map[string]bool{n.Base.Head.Name: true}
	segments := n.Base.Segments()
	switch {
	case o.Segment && !segments && o.Method == LwF:
		return fmt.Errorf("%w: method %s for pixels; the old classes are those of images", ErrOption, LwF)
	case o.Segment && !segments:
		known := map[string]bool{}
		for _, s := range n.Base.Sites() {
			if s.Chain.Kind != conv.Dense {
				return fmt.Errorf("%w: %s is a chain of kind %s; networks become segmentation networks before they are compressed", ErrOption, s.Name, s.Chain.Kind)
			}
			known[s.Name] = true
		}
		dilate := zoo.DefaultDilate(n.Base)
		if o.Dilate != nil {
			dilate = *o.Dilate
		}
		n.extension.Dilate = &dilate
		if err := zoo.SetSegmentation(n.Base, o.Classes, dilate, o.Seed); err != nil {
			return err
		}
		for _, s := range n.Base.Sites() {
			n.fresh[s.Name] = n.fresh[s.Name] || !known[s.Name]
		}
		return nil
	case segments && !o.Segment:
		return fmt.Errorf("%w: %s is a segmentation network, and the task has a class for an image", ErrOption, n.Base.Arch)
	case o.Dilate != nil && *o.Dilate != zoo.Dilated(n.Base):
		return fmt.Errorf("%w: %d stages to dilate; the network has %d, which it keeps", ErrOption, *o.Dilate, zoo.Dilated(n.Base))
	}
	if o.Method == LwF {
		n.kept = n.Base.Classes()
		return n.Base.ExtendHead(o.Classes, o.Seed)
	}
	return n.Base.SetHead(o.Classes, o.Seed)
}
