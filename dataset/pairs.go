package dataset

import (
	"errors"
	"fmt"
	"image"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// maxMaskClasses is how many classes a mask of 8 bits can tell apart, 255 being
// Ignore.
const maxMaskClasses = Ignore

// openPairs opens images and masks: PATH[,classes=N][,holdout=F][,seed=N].
func openPairs(spec string, split Split) (Set, error) {
	classes := 0
	return openDivided(spec, options{"classes": number(&classes, 1, maxMaskClasses)}, func(t tree, d division) (Set, error) {
		return newPairs(t, split, classes, d)
	})
}

// pairSet is images and masks of the same stems. Its images have no classes of
// their own: their label is 0.
type pairSet struct {
	tree
	name    string
	classes int
	names   []string
	// images and masks are paths in the tree.
	images, masks []string
}

func newPairs(t tree, split Split, classes int, d division) (Set, error) {
	folders, left, err := scan(t.fsys, t.root)
	if err != nil {
		return nil, err
	}
	paths, divided, err := classFolders(folders, t.root, split)
	if err != nil {
		return nil, err
	}
	s := &pairSet{tree: t, classes: classes}
	if s.name, err = d.name("pairs", t.root, divided, split); err != nil {
		return nil, err
	}
	s.name += left.String()
	if err := s.match(folders, paths); err != nil {
		return nil, err
	}
	if err := s.nameClasses(); err != nil {
		return nil, err
	}
	return d.apply(s, split)
}

// match finds the mask of every image. paths maps what is left of the folders'
// names to the folders.
func (s *pairSet) match(folders map[string][]string, paths map[string]string) error {
	var found [2]map[string]string
	for k, kind := range []string{"images", "masks"} {
		found[k] = make(map[string]string)
		for name, folder := range paths {
			rest, ok := strings.CutPrefix(name+"/", kind+"/")
			if !ok {
				continue
			}
			for _, file := range folders[folder] {
				stem := rest + strings.TrimSuffix(file, path.Ext(file))
				full := path.Join(folder, file)
				if other, ok := found[k][stem]; ok {
					return fmt.Errorf("%w: %s: %s and %s differ in their endings alone", ErrFormat, s.root, min(other, full), max(other, full))
				}
				found[k][stem] = full
			}
		}
		if len(found[k]) == 0 {
			return fmt.Errorf("%w: %s holds no folder %s with image files; pairs are images/NAME.jpg or .png with masks/NAME.png", ErrEmpty, s.root, kind)
		}
	}
	for _, stem := range slices.Sorted(maps.Keys(found[0])) {
		mask, ok := found[1][stem]
		if !ok {
			return fmt.Errorf("%w: %s: %s has no mask masks/%s.png: %w", ErrFormat, s.root, found[0][stem], stem, fs.ErrNotExist)
		}
		if strings.ToLower(path.Ext(mask)) != ".png" {
			return fmt.Errorf("%w: %s: %s is a mask but no .png file, and JPEG does not keep classes", ErrFormat, s.root, mask)
		}
		s.images = append(s.images, found[0][stem])
		s.masks = append(s.masks, mask)
		delete(found[1], stem)
	}
	for _, stem := range slices.Sorted(maps.Keys(found[1])) {
		return fmt.Errorf("%w: %s: %s has no image images/%s.jpg or .png: %w", ErrFormat, s.root, found[1][stem], stem, fs.ErrNotExist)
	}
	return nil
}

// nameClasses reads classes.txt, which lies beside the folder of images or
// above it.
func (s *pairSet) nameClasses() error {
	const list = "classes.txt"
	for dir := path.Dir(s.images[0]); ; dir = path.Dir(dir) {
		text, err := s.content(path.Join(dir, list))
		switch {
		case err == nil:
			return s.setNames(path.Join(dir, list), string(text))
		case !errors.Is(err, fs.ErrNotExist):
			return s.errorf(path.Join(dir, list), fmt.Errorf("%w: %w", ErrFormat, err))
		}
		if dir == "." {
			break
		}
	}
	if s.classes == 0 {
		return fmt.Errorf("%w: %s does not say how many classes there are: write their names, a line each, to %s beside images, or open pairs:%s,classes=N", ErrSpec, s.root, list, s.root)
	}
	return nil
}

func (s *pairSet) setNames(file, text string) error {
	for line := range strings.Lines(text) {
		s.names = append(s.names, strings.TrimSpace(line))
	}
	for len(s.names) > 0 && s.names[len(s.names)-1] == "" {
		s.names = s.names[:len(s.names)-1]
	}
	switch n := len(s.names); {
	case n == 0 || n > maxMaskClasses:
		return fmt.Errorf("%w: %s of %s has %d names; want 1 to %d", ErrFormat, file, s.root, n, maxMaskClasses)
	case s.classes != 0 && s.classes != n:
		return fmt.Errorf("%w: %d classes asked for, but %s of %s names %d", ErrSpec, s.classes, file, s.root, n)
	default:
		s.classes = n
	}
	return nil
}

func (s *pairSet) Len() int     { return len(s.images) }
func (s *pairSet) Classes() int { return s.classes }
func (s *pairSet) Name() string { return s.name }

func (s *pairSet) ClassName(i int) string { return nameOf(s.names, i) }

// nameOf is a class's name, or its number if it has none.
func nameOf(names []string, i int) string {
	if i < 0 || i >= len(names) || names[i] == "" {
		return strconv.Itoa(i)
	}
	return names[i]
}

func (s *pairSet) label(i int) (int, error) { return 0, checkIndex(s, i) }

func (s *pairSet) At(i int) (Image, int, error) {
	if err := checkIndex(s, i); err != nil {
		return Image{}, 0, err
	}
	m, err := s.image(s.images[i])
	return m, 0, err
}

func (s *pairSet) MaskAt(i int) (Mask, error) {
	if err := checkIndex(s, i); err != nil {
		return Mask{}, err
	}
	data, err := s.read(s.masks[i])
	if err != nil {
		return Mask{}, err
	}
	m, err := decodeMask(data)
	if err == nil {
		err = m.validate(s.classes)
	}
	if err != nil {
		return Mask{}, s.errorf(s.masks[i], err)
	}
	if data, err = s.read(s.images[i]); err != nil {
		return Mask{}, err
	}
	c, _, err := header(data)
	if err != nil {
		return Mask{}, s.errorf(s.images[i], err)
	}
	if c.Width != m.W || c.Height != m.H {
		return Mask{}, s.errorf(s.masks[i], fmt.Errorf("%w: a mask of %d×%d pixels (width×height) for an image of %d×%d, %s", ErrSize, m.W, m.H, c.Width, c.Height, s.images[i]))
	}
	return m, nil
}

// validate reports the first class that there is not.
func (m Mask) validate(classes int) error {
	for i, c := range m.Class {
		if int(c) >= classes && c != Ignore {
			return fmt.Errorf("%w: class %d at pixel %d, %d; the set has classes 0 to %d, and %d for pixels to ignore", ErrFormat, c, i%m.W, i/m.W, classes-1, Ignore)
		}
	}
	return nil
}

// decodeMask reads a PNG file of grey levels or of a palette; either number is
// the class.
func decodeMask(data []byte) (Mask, error) {
	m, err := decodeStandard(data)
	if err != nil {
		return Mask{}, err
	}
	b := m.Bounds()
	out := Mask{W: b.Dx(), H: b.Dy(), Class: make([]uint8, 0, b.Dx()*b.Dy())}
	add := func(pix []uint8, stride int) {
		for y := range out.H {
			out.Class = append(out.Class, pix[y*stride:][:out.W]...)
		}
	}
	switch m := m.(type) {
	case *image.Paletted:
		add(m.Pix, m.Stride)
	case *image.Gray:
		add(m.Pix, m.Stride)
		// The decoder brings levels of 1, 2 and 4 bits to the range of 8;
		// the number of bits stands at a fixed place of a PNG file.
		if bits := data[24]; bits < 8 {
			for i := range out.Class {
				out.Class[i] /= 255 / (1<<bits - 1)
			}
		}
	default:
		what := "a JPEG image"
		if data[0] != 0xff {
			what = fmt.Sprintf("PNG's colour type %d with %d bits", data[25], data[24])
		}
		return Mask{}, fmt.Errorf("%w: a mask is a PNG file of grey levels of at most 8 bits, or of a palette, whose numbers are the classes; this is %s", ErrFormat, what)
	}
	return out, nil
}
