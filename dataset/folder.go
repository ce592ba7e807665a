package dataset

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// maxLabel bounds the labels that decimal folder names stand for.
const maxLabel = 1<<20 - 1

// splitNames has the folder names that stand for a split, in order of
// preference.
var splitNames = map[Split][]string{
	Train: {"train", "training"},
	Test:  {"test", "testing", "val", "valid", "validation"},
}

// openFolder opens PATH[,holdout=F][,seed=N].
func openFolder(spec string, split Split) (Set, error) {
	return openDivided(spec, nil, func(t tree, d division) (Set, error) { return newFolder(t, split, d) })
}

// folderSet is the images of a tree of files, one folder a class.
type folderSet struct {
	tree
	name string
	// files has the images' paths in the tree, sorted by label and path.
	files   []string
	labels  []int32
	classes int
	names   map[int]string
}

// newFolder finds the images and classes of a tree.
func newFolder(t tree, split Split, d division) (Set, error) {
	root := t.root
	folders, left, err := scan(t.fsys, root)
	if err != nil {
		return nil, err
	}
	paths, divided, err := classFolders(folders, root, split)
	if err != nil {
		return nil, err
	}
	classes := grouped(paths)
	s := &folderSet{tree: t, names: make(map[int]string)}
	if s.name, err = d.name("folder", root, divided, split); err != nil {
		return nil, err
	}
	s.name += left.String()
	for i, class := range slices.Sorted(maps.Keys(classes)) {
		s.names[i] = class
	}
	s.classes = len(s.names)
	if err := s.useNumbers(); err != nil {
		return nil, err
	}
	for _, label := range slices.Sorted(maps.Keys(s.names)) {
		of := classes[s.names[label]]
		var files []string
		for _, folder := range of {
			for _, file := range folders[folder] {
				files = append(files, path.Join(folder, file))
			}
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("%w: folder %s of %s holds no image file (%s)%s", ErrEmpty, of[0], root, imageEndings, left)
		}
		slices.Sort(files)
		for _, file := range files {
			s.files = append(s.files, file)
			s.labels = append(s.labels, int32(label))
		}
	}
	return d.apply(s, split)
}

// grouped maps classes to their folders. Where a folder of the first level has images of
// its own, each such folder is a class with all that lies in it, as torchvision's
// ImageFolder has it; where all images lie deeper, each folder is a class.
func grouped(paths map[string]string) map[string][]string {
	nested, flat := false, false
	for class := range paths {
		deeper := strings.Contains(class, "/")
		nested, flat = nested || deeper, flat || !deeper
	}
	classes := make(map[string][]string, len(paths))
	for class, folder := range paths {
		if nested && flat {
			class, _, _ = strings.Cut(class, "/")
		}
		classes[class] = append(classes[class], folder)
	}
	for _, folders := range classes {
		slices.Sort(folders)
	}
	return classes
}

// leftOut counts image files of formats that are not read, by their endings.
type leftOut map[string]int

func (l leftOut) String() string {
	if len(l) == 0 {
		return ""
	}
	var parts []string
	for _, ending := range slices.Sorted(maps.Keys(l)) {
		parts = append(parts, fmt.Sprintf("%d %s files", l[ending], ending))
	}
	return "; not read: " + strings.Join(parts, ", ")
}

// imageEndings are those of the files that are read.
const imageEndings = ".jpg, .png, .gif, .bmp, .tif, .webp"

// scan maps the folders of fsys that hold images to the sorted names of those,
// and folders that hold nothing of interest to nil. left counts images that are not read.
func scan(fsys fs.FS, root string) (folders map[string][]string, left leftOut, err error) {
	folders, left = make(map[string][]string), leftOut{}
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("dataset: %s: %w", root, err)
		}
		if name == "." {
			return nil
		}
		base, parent := path.Base(name), path.Dir(name)
		hidden := strings.HasPrefix(base, ".") || base == "__MACOSX"
		if d.IsDir() {
			if hidden {
				return fs.SkipDir
			}
			// A folder that holds folders is a class only if it also holds
			// images.
			if folders[parent] == nil {
				delete(folders, parent)
			}
			folders[name] = nil
			return nil
		}
		if !hidden && isForeignImage(base) {
			left[strings.ToLower(path.Ext(base))]++
		}
		if hidden || !isImageName(base) {
			return nil
		}
		if d.Type()&fs.ModeSymlink != 0 {
			info, err := fs.Stat(fsys, name)
			if err != nil {
				return fmt.Errorf("dataset: %s: %w", root, err)
			}
			if info.IsDir() {
				return nil
			}
			d = fs.FileInfoToDirEntry(info)
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%w: %s: %s is not a regular file", ErrFormat, root, name)
		}
		folders[parent] = append(folders[parent], base)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return folders, left, nil
}

func isImageName(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp":
		return true
	}
	return false
}

// isForeignImage reports a name of an image that is not read.
func isForeignImage(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".heic", ".heif", ".avif", ".jp2", ".jxl", ".ppm", ".pgm", ".psd", ".svg", ".dng", ".cr2", ".nef", ".arw", ".tga", ".ico", ".exr", ".npy":
		return true
	}
	return false
}

// classFolders maps the classes' names to their folders: it takes the folders
// of the split if all lie in folders called after splits, and leaves off the
// folders that all others lie in.
func classFolders(folders map[string][]string, root string, split Split) (classes map[string]string, divided bool, err error) {
	if files := folders["."]; len(files) > 0 {
		return nil, false, fmt.Errorf("%w: %s: %s lies in no folder, so it has no class; put every image into the folder of its class", ErrFormat, root, files[0])
	}
	if len(folders) == 0 {
		return nil, false, fmt.Errorf("%w: %s holds no folder of image files (%s)", ErrEmpty, root, imageEndings)
	}
	classes = make(map[string]string, len(folders))
	for f := range folders {
		classes[f] = f
	}
	for {
		heads := make(map[string]bool)
		for class := range classes {
			head, _, nested := strings.Cut(class, "/")
			if !nested {
				return classes, divided, nil
			}
			heads[head] = true
		}
		var keep string
		switch {
		case !divided && allSplits(heads):
			if keep = splitFolder(heads, split); keep == "" {
				return nil, false, fmt.Errorf("%w: %s has no %s split; it holds the folders %s",
					ErrEmpty, root, split, strings.Join(slices.Sorted(maps.Keys(heads)), ", "))
			}
			divided = true
		case len(heads) == 1:
			for head := range heads {
				keep = head
			}
		default:
			return classes, divided, nil
		}
		shorter := make(map[string]string, len(classes))
		for class, folder := range classes {
			if rest, ok := strings.CutPrefix(class, keep+"/"); ok {
				shorter[rest] = folder
			}
		}
		classes = shorter
	}
}

func allSplits(heads map[string]bool) bool {
	for head := range heads {
		if !slices.Contains(splitNames[Train], head) && !slices.Contains(splitNames[Test], head) {
			return false
		}
	}
	return true
}

func splitFolder(heads map[string]bool, split Split) string {
	for _, name := range splitNames[split] {
		if heads[name] {
			return name
		}
	}
	return ""
}

// useNumbers makes the names the labels if all are decimal numbers.
func (s *folderSet) useNumbers() error {
	numbered := make(map[int]string, len(s.names))
	top := 0
	for i := range len(s.names) {
		name := s.names[i]
		if strings.Trim(name, "0123456789") != "" {
			return nil
		}
		label, err := strconv.ParseUint(name, 10, 64)
		if err != nil || label > maxLabel {
			return fmt.Errorf("%w: %s: all folders are named by numbers, which makes them labels, but %s is beyond %d; add a letter to a name to have the folders counted",
				ErrLimit, s.root, name, maxLabel)
		}
		if other, ok := numbered[int(label)]; ok {
			return fmt.Errorf("%w: %s: folders %s and %s both stand for label %d", ErrFormat, s.root, other, name, label)
		}
		numbered[int(label)] = name
		top = max(top, int(label))
	}
	s.names, s.classes = numbered, top+1
	return nil
}

func (s *folderSet) Len() int     { return len(s.files) }
func (s *folderSet) Classes() int { return s.classes }
func (s *folderSet) Name() string { return s.name }

func (s *folderSet) ClassName(i int) string {
	return cmp.Or(s.names[i], strconv.Itoa(i))
}

func (s *folderSet) label(i int) (int, error) {
	if err := checkIndex(s, i); err != nil {
		return 0, err
	}
	return int(s.labels[i]), nil
}

func (s *folderSet) At(i int) (Image, int, error) {
	if err := checkIndex(s, i); err != nil {
		return Image{}, 0, err
	}
	m, err := s.image(s.files[i])
	if err != nil {
		return Image{}, 0, err
	}
	return m, int(s.labels[i]), nil
}
