package dataset

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lowrank-go/lowrank/internal/glyphs"
)

// Default numbers of drawn images in a split.
const (
	glyphsTrain = 20000
	glyphsTest  = 2000
)

// maxGlyphs bounds the numbers of drawn images; they cost nothing until drawn.
const maxGlyphs = 1_000_000_000

// openGlyphs makes the set of a specification TASK[,train=N][,test=N][,seed=N].
func openGlyphs(spec string, split Split) (Set, error) {
	name, rest, more := strings.Cut(spec, ",")
	task := glyphs.Task(name)
	if !slices.Contains(glyphs.Tasks(), task) {
		var names []string
		for _, t := range glyphs.Tasks() {
			names = append(names, string(t))
		}
		return nil, fmt.Errorf("%w: glyphs have no task %q; want one of %s", ErrSpec, name, strings.Join(names, ", "))
	}
	train, test, start := glyphsTrain, glyphsTest, uint64(0)
	if more {
		o := options{"train": number(&train, 1, maxGlyphs), "test": number(&test, 1, maxGlyphs), "seed": seed(&start)}
		if err := o.parse(rest); err != nil {
			return nil, fmt.Errorf("%w (in glyphs:%s)", err, spec)
		}
	}
	s := &glyphSet{
		Generator: glyphs.New(task, start, string(split)),
		names:     task.ClassNames(),
		n:         test,
		name:      fmt.Sprintf("glyphs:%s (%s, seed %d)", task, split, start),
	}
	if split == Train {
		s.n = train
	}
	if task == glyphs.Segments {
		return &glyphMasks{s}, nil
	}
	return s, nil
}

// glyphSet is the first images of a generator.
type glyphSet struct {
	glyphs.Generator
	names []string
	n     int
	name  string
}

func (s *glyphSet) Len() int     { return s.n }
func (s *glyphSet) Classes() int { return len(s.names) }
func (s *glyphSet) Name() string { return s.name }

func (s *glyphSet) ClassName(i int) string { return nameOf(s.names, i) }

func (s *glyphSet) label(i int) (int, error) {
	if err := checkIndex(s, i); err != nil {
		return 0, err
	}
	return s.Label(i), nil
}

func (s *glyphSet) At(i int) (Image, int, error) {
	if err := checkIndex(s, i); err != nil {
		return Image{}, 0, err
	}
	return Image{W: glyphs.Size, H: glyphs.Size, C: 3, Pix: s.Image(i)}, s.Label(i), nil
}

// first implements exchangeable: classes take turns and images are independent.
func (s *glyphSet) first(n int) Set {
	short := *s
	short.n = n
	return &short
}

// glyphMasks is a glyphSet whose pixels have classes.
type glyphMasks struct{ *glyphSet }

func (s *glyphMasks) first(n int) Set { return &glyphMasks{s.glyphSet.first(n).(*glyphSet)} }

func (s *glyphMasks) MaskAt(i int) (Mask, error) {
	if err := checkIndex(s, i); err != nil {
		return Mask{}, err
	}
	return Mask{W: glyphs.Size, H: glyphs.Size, Class: s.Mask(i)}, nil
}
