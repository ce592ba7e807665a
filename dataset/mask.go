package dataset

import "fmt"

// Ignore is the class of pixels that no class is known of, and that neither
// train nor count.
const Ignore = 255

// Mask has the class of every pixel of an image: H rows of W classes, each below
// the set's number of classes or Ignore.
type Mask struct {
	W, H  int
	Class []uint8
}

// Segmented is a set whose pixels have classes, of the same numbers and names as
// the labels of its images. Subsets and samples of such a set are such sets;
// [TrainBatches] gives masks beside the inputs.
type Segmented interface {
	Set
	// MaskAt gives the classes of image i's pixels, of the size of the image
	// as At gives it. The mask belongs to the caller.
	MaskAt(i int) (Mask, error)
}

// segmentedSubset is a subset of a Segmented.
type segmentedSubset struct{ subset }

func (s *segmentedSubset) MaskAt(i int) (Mask, error) {
	if err := checkIndex(s, i); err != nil {
		return Mask{}, err
	}
	return s.Set.(Segmented).MaskAt(s.indices[i])
}

// newSubset is the images of s with the given numbers, which are its own.
func newSubset(s Set, indices []int) Set {
	if _, ok := s.(Segmented); ok {
		return &segmentedSubset{subset{s, indices}}
	}
	return &subset{s, indices}
}

// CheckMasks reports the first pixel of the batch's masks whose class is neither
// below classes nor Ignore. The error wraps ErrFormat.
func (b Batch) CheckMasks(classes int) error {
	size := b.W * b.H
	for i := range b.Labels {
		m := Mask{W: b.W, H: b.H, Class: b.Masks[i*size : (i+1)*size]}
		if err := m.validate(classes); err != nil {
			return fmt.Errorf("%w (of the input of image %d in the order)", err, b.First+i)
		}
	}
	return nil
}
