// Package glyphs draws labelled images: letters, digits, figures and textures
// of 32×32 pixels, each a pure function of a task, a seed, the name of a stream
// and the image's number. Use it where training images are needed and no data
// can be fetched. An image takes some tens of microseconds of one core, and
// nothing is stored but the outlines of the Go fonts (about 0.3 MB, made on
// first use).
//
// # Equal on every machine
//
// Everything that decides a sample is integer arithmetic: points have 8
// fractional bits, colours 8, coverage is summed in whole numbers, sines come
// from a table of 14 bits, and random numbers are this package's own. A
// compiler that fuses a product with a sum, as Go's may on arm64 and others, has
// nothing to fuse here; the only floating-point results are the table's sines
// and exact square roots, whose last bits are rounded away.
package glyphs

import "slices"

// Size is the width and height of an image in pixels.
const Size = 32

// Task is what there is to tell apart.
type Task string

// The tasks.
const (
	// Letters are upper-case letters in 12 fonts.
	Letters Task = "letters"
	// Lowercase are lower-case letters.
	Lowercase Task = "lowercase"
	// Digits are 0 to 9.
	Digits Task = "digits"
	// Shapes are filled geometric figures at any angle.
	Shapes Task = "shapes"
	// Textures are patterns that fill the image.
	Textures Task = "textures"
	// Inverted are upper-case letters in another style: outlined, cut out of
	// a plate, or embossed.
	Inverted Task = "inverted"
	// Segments are several letters, digits and figures on one image, with the
	// kind of every pixel.
	Segments Task = "segments"
)

// Tasks lists all tasks.
func Tasks() []Task {
	return []Task{Letters, Lowercase, Digits, Shapes, Textures, Inverted, Segments}
}

const (
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	lower  = "abcdefghijklmnopqrstuvwxyz"
	digits = "0123456789"
)

// The kinds of Segments.
const (
	background = iota
	letter
	digit
	figure
)

var segmentNames = []string{background: "background", letter: "letter", digit: "digit", figure: "shape"}

// ClassNames lists the names of t's classes, and is nil if there is no such
// task.
func (t Task) ClassNames() []string {
	switch t {
	case Letters, Inverted:
		return runes(upper)
	case Lowercase:
		return runes(lower)
	case Digits:
		return runes(digits)
	case Shapes:
		return slices.Clone(figureNames[:])
	case Textures:
		return slices.Clone(patternNames[:])
	case Segments:
		return slices.Clone(segmentNames)
	}
	return nil
}

func runes(s string) []string {
	var names []string
	for _, r := range s {
		names = append(names, string(r))
	}
	return names
}

// Generator draws the images of one stream of a task.
type Generator struct {
	task    Task
	classes int
	key     uint64
}

// New returns the generator of a task of [Tasks]; generators of different seeds
// or streams share no image.
func New(task Task, seed uint64, stream string) Generator {
	return Generator{task: task, classes: len(task.ClassNames()), key: key(seed, string(task), stream)}
}

// Label is the class of image i ≥ 0. Classes take turns, so any run of
// consecutive images is balanced to within one. Of Segments it is the kind of
// what lies in front, which is never the background.
func (g Generator) Label(i int) int {
	if g.task == Segments {
		return 1 + i%(g.classes-1)
	}
	return i % g.classes
}

// Image draws image i: Size rows of Size pixels of red, green and blue.
func (g Generator) Image(i int) []uint8 {
	return g.draw(i).pixels()
}

// Mask has the kind of every pixel of image i of Segments: what covers at least
// half of it, before blur. Of other tasks it is all zeros.
func (g Generator) Mask(i int) []uint8 {
	m := g.draw(i).mask
	return m[:]
}

func (g Generator) draw(i int) *scene {
	s := &scene{stream: newStream(g.key, uint64(i))}
	label := g.Label(i)
	switch g.task {
	case Letters:
		s.symbol(rune(upper[label]), plain)
	case Inverted:
		s.symbol(rune(upper[label]), style(outlined+style(s.below(3))))
	case Lowercase:
		s.symbol(rune(lower[label]), plain)
	case Digits:
		s.symbol(rune(digits[label]), plain)
	case Shapes:
		s.single(figures()[label], figurePose, plain)
	case Textures:
		s.texture(pattern(label))
	case Segments:
		s.segments(label)
	}
	return s
}
