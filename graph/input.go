package graph

import "fmt"

func init() { register(func() Op { return &Input{} }) }

// Input is where a tensor comes in; the first of a graph is the image.
type Input struct {
	// Size is the shape of the tensor. Of the image only the number of dimensions and of
	// channels hold, and it may be nil for any.
	Size Shape `json:"size,omitempty"`
}

// Kind is "input".
func (*Input) Kind() string { return "input" }

// Shape is Size; there are no inputs.
func (i *Input) Shape(in []Shape) (Shape, error) {
	if len(in) > 0 || len(i.Size) == 0 {
		return nil, fmt.Errorf("%w: an input of its own inputs, or of no size", ErrGraph)
	}
	return i.Size, nil
}

func (*Input) kernel(mode) (kernel, error) { return nil, fmt.Errorf("%w: an input runs", ErrGraph) }
