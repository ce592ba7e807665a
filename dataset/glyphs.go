package dataset

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
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
	name, options, more := strings.Cut(spec, ",")
	task := glyphs.Task(name)
	if !slices.Contains(glyphs.Tasks(), task) {
		var names []string
		for _, t := range glyphs.Tasks() {
			names = append(names, string(t))
		}
		return nil, fmt.Errorf("%w: glyphs have no task %q; want one of %s", ErrSpec, name, strings.Join(names, ", "))
	}
	size := map[Split]uint64{Train: glyphsTrain, Test: glyphsTest}
	var seed uint64
	err := parseOptions(options, more, map[string]func(string) error{
		string(Train): func(s string) (err error) { size[Train], err = parseNumber(s, 1, maxGlyphs); return },
		string(Test):  func(s string) (err error) { size[Test], err = parseNumber(s, 1, maxGlyphs); return },
		"seed":        func(s string) (err error) { seed, err = parseSeed(s); return },
	})
	if err != nil {
		return nil, fmt.Errorf("%w (in glyphs:%s)", err, spec)
	}
	s := &glyphSet{
		Generator: glyphs.New(task, seed, string(split)),
		names:     task.ClassNames(),
		n:         int(size[split]),
		name:      fmt.Sprintf("glyphs:%s (%s, seed %d)", task, split, seed),
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

func (s *glyphSet) ClassName(i int) string {
	if i < 0 || i >= len(s.names) {
		return strconv.Itoa(i)
	}
	return s.names[i]
}

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

// parseOptions hands the values of KEY=VALUE,… to the functions of their keys,
// if there are any.
func parseOptions(options string, any bool, keys map[string]func(value string) error) error {
	if !any {
		return nil
	}
	seen := make(map[string]bool)
	for option := range strings.SplitSeq(options, ",") {
		key, value, ok := strings.Cut(option, "=")
		set := keys[key]
		switch {
		case !ok || set == nil:
			var known []string
			for k := range keys {
				known = append(known, k+"=…")
			}
			slices.SortFunc(known, cmp.Compare[string])
			return fmt.Errorf("%w: option %q; want %s", ErrSpec, option, strings.Join(known, ", "))
		case seen[key]:
			return fmt.Errorf("%w: option %s is given twice", ErrSpec, key)
		}
		seen[key] = true
		if err := set(value); err != nil {
			return fmt.Errorf("%w: option %q: %w", ErrSpec, option, err)
		}
	}
	return nil
}

// parseNumber reads a decimal number within [lo, hi].
func parseNumber(s string, lo, hi uint64) (uint64, error) {
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil || v < lo || v > hi {
		return 0, fmt.Errorf("want a whole number from %d to %d", lo, hi)
	}
	return v, nil
}

// parseSeed reads a seed, any number of 64 bits.
func parseSeed(s string) (uint64, error) { return parseNumber(s, 0, 1<<64-1) }
