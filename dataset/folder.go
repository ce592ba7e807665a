package dataset

import (
	"archive/zip"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// maxLabel bounds the labels that decimal folder names stand for.
const maxLabel = 1<<20 - 1

// splitNames has the folder names that stand for a split, in order of
// preference.
var splitNames = map[Split][]string{
	Train: {"train", "training"},
	Test:  {"test", "testing", "val", "valid", "validation"},
}

func openFolder(name string, split Split) (Set, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("dataset: %w", err)
	}
	if info.IsDir() {
		return newFolder(os.DirFS(name), name, split)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is neither a directory nor a regular file", ErrSpec, name)
	}
	z, err := zip.OpenReader(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is no readable zip archive: %w", ErrFormat, name, err)
	}
	s, err := newFolder(z, name, split)
	if err != nil {
		z.Close()
		return nil, err
	}
	s.close = sync.OnceValue(z.Close)
	return s, nil
}

// folderSet is the images of a tree of files, one folder a class.
type folderSet struct {
	fsys fs.FS
	root string
	name string
	// files has the images' paths in fsys, sorted by label and path.
	files   []string
	labels  []int32
	classes int
	names   map[int]string
	close   func() error
}

// newFolder finds the images and classes of fsys; root names it in errors.
func newFolder(fsys fs.FS, root string, split Split) (*folderSet, error) {
	folders, err := scan(fsys, root)
	if err != nil {
		return nil, err
	}
	classes, divided, err := classFolders(folders, root, split)
	if err != nil {
		return nil, err
	}
	s := &folderSet{fsys: fsys, root: root, name: "folder:" + root, names: make(map[int]string)}
	if divided {
		s.name = fmt.Sprintf("folder:%s (%s)", root, split)
	}
	for i, class := range slices.Sorted(maps.Keys(classes)) {
		s.names[i] = class
	}
	s.classes = len(s.names)
	if err := s.useNumbers(); err != nil {
		return nil, err
	}
	for _, label := range slices.Sorted(maps.Keys(s.names)) {
		folder := classes[s.names[label]]
		files := folders[folder]
		if len(files) == 0 {
			return nil, fmt.Errorf("%w: folder %s of %s holds no .jpg, .jpeg or .png file", ErrEmpty, folder, root)
		}
		for _, file := range files {
			s.files = append(s.files, path.Join(folder, file))
			s.labels = append(s.labels, int32(label))
		}
	}
	return s, nil
}

// scan maps the folders of fsys that hold images to the sorted names of those,
// and folders that hold nothing of interest to nil.
func scan(fsys fs.FS, root string) (map[string][]string, error) {
	folders := make(map[string][]string)
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
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
		return nil, err
	}
	return folders, nil
}

func isImageName(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".jpg", ".jpeg", ".png":
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
		return nil, false, fmt.Errorf("%w: %s holds no folder of .jpg, .jpeg or .png files", ErrEmpty, root)
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

func (s *folderSet) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
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
	m, err := s.read(s.files[i])
	if err != nil {
		_, system := errors.AsType[*fs.PathError](err)
		switch {
		case errors.Is(err, ErrFormat), errors.Is(err, ErrLimit):
		case system:
			err = fmt.Errorf("dataset: %w", err)
		default:
			// What is neither the image's fault nor the system's is the
			// archive's: a wrong checksum, damaged compression, an entry
			// shorter than declared.
			err = fmt.Errorf("%w: damaged archive: %w", ErrFormat, err)
		}
		return Image{}, 0, fmt.Errorf("%w (%s of %s)", err, s.files[i], s.root)
	}
	return m, int(s.labels[i]), nil
}

func (s *folderSet) read(file string) (Image, error) {
	f, err := s.fsys.Open(file)
	if err != nil {
		return Image{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Image{}, err
	}
	// A size that an archive declares can be any number, even a negative one
	// here; Decode holds the content itself to the limit.
	if size := uint64(info.Size()); size > maxImageFile {
		return Image{}, fmt.Errorf("%w: an image file of %d bytes; at most %d are accepted", ErrLimit, size, maxImageFile)
	}
	if h, ok := info.Sys().(*zip.FileHeader); ok && h.Flags&1 != 0 {
		return Image{}, fmt.Errorf("%w: the entry is encrypted", ErrFormat)
	}
	return Decode(f)
}

var _ io.Closer = (*folderSet)(nil)
