package dataset

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
)

// The errors that this package's errors wrap, beside those of the file system
// (fs.ErrNotExist and others) and of the context.
var (
	// ErrSpec is a data specification or an option that makes no sense.
	ErrSpec = errors.New("dataset: bad specification")
	// ErrFormat is a file that is damaged or not of the expected format.
	ErrFormat = errors.New("dataset: malformed data")
	// ErrEmpty is a place without images: a set, a class or a split.
	ErrEmpty = errors.New("dataset: no images")
	// ErrLimit is a file, image or label larger than this package accepts.
	ErrLimit = errors.New("dataset: too large")
	// ErrSize is an image whose height and width don't fit what was asked.
	ErrSize = errors.New("dataset: unsuitable image size")
	// ErrIndex is an image number that the set doesn't have.
	ErrIndex = errors.New("dataset: index out of range")
)

// Image is an image of 8-bit samples: H rows of W pixels of C interleaved
// channels, C being 1 (grey) or 3 (red, green, blue). len(Pix) is H·W·C.
type Image struct {
	W, H, C int
	Pix     []uint8
}

func (m Image) validate() error {
	switch {
	case m.W < 1 || m.H < 1 || m.C != 1 && m.C != 3:
		return fmt.Errorf("%w: image of %d×%d pixels (width×height) with %d channels; want at least 1×1 and 1 or 3 channels", ErrSize, m.W, m.H, m.C)
	case m.W > maxPixels/m.H:
		return fmt.Errorf("%w: image of %d×%d pixels; at most %d pixels are accepted", ErrLimit, m.W, m.H, maxPixels)
	case len(m.Pix) != m.W*m.H*m.C:
		return fmt.Errorf("%w: %d samples for an image of %d×%d pixels with %d channels", ErrFormat, len(m.Pix), m.W, m.H, m.C)
	}
	return nil
}

// Set is a finite set of labelled images with random access. Sets are safe for
// concurrent use and do not change.
type Set interface {
	// Len is the number of images.
	Len() int
	// Classes is the number of classes, which the labels are below: as many as
	// the format has or lists, or else the largest label plus one.
	Classes() int
	// ClassName is the name of class i, or its number in decimal where the
	// data have no name for it.
	ClassName(i int) string
	// At gives image i and its label. The image belongs to the caller.
	At(i int) (Image, int, error)
	// Name says for people where the set came from.
	Name() string
}

// Close releases the file that a set holds open, for that set and all sets made
// from it, which then give errors. Sets that hold none are left as they are, and
// so is a set that is closed already.
func Close(s Set) error {
	if c, ok := s.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// labelled is implemented by sets that know a label without decoding its image.
type labelled interface {
	label(i int) (int, error)
}

func labelAt(s Set, i int) (int, error) {
	if l, ok := s.(labelled); ok {
		return l.label(i)
	}
	_, label, err := s.At(i)
	return label, err
}

// Labels lists the labels of all images of s, in order. The sets of this package
// give them without decoding the images.
func Labels(s Set) ([]int, error) {
	labels := make([]int, s.Len())
	for i := range labels {
		var err error
		if labels[i], err = labelAt(s, i); err != nil {
			return nil, err
		}
	}
	return labels, nil
}

// Subset is the set of the images of s with the given numbers, in that order;
// numbers may repeat, so a permutation shuffles a set and a random sample with
// repetitions is a bootstrap. The classes stay those of s. The numbers are
// copied. The error wraps ErrIndex.
func Subset(s Set, indices []int) (Set, error) {
	for _, i := range indices {
		if err := checkIndex(s, i); err != nil {
			return nil, err
		}
	}
	return newSubset(s, slices.Clone(indices)), nil
}

// Sample is the set of n images spread evenly over s: number i·Len/n for i below
// n. Of a set that is sorted by class it keeps the proportions of the classes.
// If n is 0 or at least s.Len(), it is s itself. The error wraps ErrSpec.
func Sample(s Set, n int) (Set, error) {
	if n < 0 {
		return nil, fmt.Errorf("%w: a limit of %d images", ErrSpec, n)
	}
	size := s.Len()
	if n == 0 || n >= size {
		return s, nil
	}
	if e, ok := s.(exchangeable); ok {
		return e.first(n), nil
	}
	indices := make([]int, n)
	for i := range indices {
		indices[i] = int(int64(i) * int64(size) / int64(n))
	}
	return Subset(s, indices)
}

// exchangeable is implemented by sets whose first n images are as good a sample
// as any n others.
type exchangeable interface {
	first(n int) Set
}

// HoldOut divides s at random into two sets, each in the order of s: held has
// the given fraction of every class, rounded to the nearest number of images,
// and rest has the others. The same seed divides a set in the same way. The
// error wraps ErrSpec if fraction isn't within [0, 1].
func HoldOut(s Set, fraction float64, seed uint64) (rest, held Set, err error) {
	if !(fraction >= 0 && fraction <= 1) {
		return nil, nil, fmt.Errorf("%w: a fraction of %v to hold out; want 0 to 1", ErrSpec, fraction)
	}
	labels, err := Labels(s)
	if err != nil {
		return nil, nil, err
	}
	byClass := make(map[int][]int)
	for i, label := range labels {
		byClass[label] = append(byClass[label], i)
	}
	r := rand.New(rand.NewPCG(seed, 0))
	out := make([]bool, len(labels))
	for label := range s.Classes() {
		members := byClass[label]
		n := int(math.Round(fraction * float64(len(members))))
		for _, j := range r.Perm(len(members))[:n] {
			out[members[j]] = true
		}
	}
	var in [2][]int
	for i, o := range out {
		k := 0
		if o {
			k = 1
		}
		in[k] = append(in[k], i)
	}
	return newSubset(s, in[0]), newSubset(s, in[1]), nil
}

type subset struct {
	Set
	indices []int
}

func (s *subset) Len() int { return len(s.indices) }

func (s *subset) At(i int) (Image, int, error) {
	if err := checkIndex(s, i); err != nil {
		return Image{}, 0, err
	}
	return s.Set.At(s.indices[i])
}

func (s *subset) label(i int) (int, error) {
	if err := checkIndex(s, i); err != nil {
		return 0, err
	}
	return labelAt(s.Set, s.indices[i])
}

func (s *subset) Close() error { return Close(s.Set) }

func checkIndex(s Set, i int) error {
	if i < 0 || i >= s.Len() {
		return fmt.Errorf("%w: image %d of %s, which has %d", ErrIndex, i, s.Name(), s.Len())
	}
	return nil
}
