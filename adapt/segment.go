package adapt

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
)

// setTask gives Base the head of the task, LwF's with the old rows before the new ones, for
// both learn, and a neck where it becomes a segmentation network.
func (n *Network) setTask() error {
	o := &n.Options
	n.old = n.Base.Head
	switch {
	case o.Segment && !n.Base.Segment && o.Method == LwF:
		return fmt.Errorf("%w: method %s for pixels; the old classes are those of images", ErrOption, LwF)
	case o.Segment && !n.Base.Segment:
		for _, s := range n.Base.Sites() {
			if s.Chain.Kind != conv.Dense {
				return fmt.Errorf("%w: %s is a chain of kind %s; networks become segmentation networks before they are compressed", ErrOption, s.Name, s.Chain.Kind)
			}
		}
		dilate := n.Base.DefaultDilate()
		if o.Dilate != nil {
			dilate = *o.Dilate
		}
		n.extension.Dilate = &dilate
		return n.Base.SetSegmentation(o.Classes, dilate, o.Seed)
	case n.Base.Segment && !o.Segment:
		return fmt.Errorf("%w: %s is a segmentation network, and the task has a class for an image", ErrOption, n.Base.Arch)
	case o.Dilate != nil && *o.Dilate != n.Base.Dilate:
		return fmt.Errorf("%w: %d stages to dilate; the network has %d, which it keeps", ErrOption, *o.Dilate, n.Base.Dilate)
	}
	if o.Method == LwF {
		n.kept = n.Base.Classes
		return n.Base.ExtendHead(o.Classes, o.Seed)
	}
	return n.Base.SetHead(o.Classes, o.Seed)
}
