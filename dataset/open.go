package dataset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/lowrank-go/lowrank/internal/infile"
)

// Split is one of the parts that a data set is published in.
type Split string

// The splits. The zero value of Split means Test, so that nothing trains on a
// test set, or is measured on a training set, by leaving an option out.
const (
	Train Split = "train"
	Test  Split = "test"
)

// Options are the choices of Open; the zero value is the whole test split.
type Options struct {
	// Split chooses a part where the data come in parts: files of CIFAR and
	// IDX, folders called train and test, drawn images, and what holdout
	// divides. Other folders have no parts, and all of their images are given
	// for either split.
	Split Split
	// Limit is the greatest number of images, 0 for all. They are taken
	// evenly from the whole set, as by [Sample].
	Limit int
}

// kind is a format that Open knows.
type kind struct {
	name string
	// holds tells whether the directory or file looks like this kind.
	holds func(path string, dir bool) bool
	open  func(path string, split Split) (Set, error)
}

// kinds is in the order in which a bare path is tried.
var kinds = []kind{
	{"cifar10", func(path string, dir bool) bool {
		return dir && (matches(path, "test_batch.bin") || matches(path, "data_batch_*.bin"))
	}, openCIFAR10},
	{"cifar100", func(path string, dir bool) bool {
		return dir && (matches(path, "test.bin") || matches(path, "train.bin"))
	}, openCIFAR100},
	{"idx", func(path string, dir bool) bool {
		return dir && (matches(path, "*idx3-ubyte") || matches(path, "*idx3-ubyte.gz"))
	}, openIDX},
	{"folder", func(path string, dir bool) bool {
		return dir || strings.EqualFold(filepath.Ext(path), ".zip")
	}, openFolder},
	{"pairs", never, openPairs},
	{"glyphs", never, openGlyphs},
}

// never is for kinds that a path does not show.
func never(string, bool) bool { return false }

// Open opens the data that spec names: KIND:PATH with a kind of cifar10,
// cifar100, idx, folder or pairs, a bare PATH, or glyphs:TASK for images that are
// drawn; the package comment says what lies where and what options there are. Call [Close] when done: archives stay open. Errors wrap ErrSpec,
// ErrFormat, ErrEmpty, ErrLimit or those of the file system.
func Open(spec string, opt Options) (Set, error) {
	switch opt.Split {
	case "":
		opt.Split = Test
	case Train, Test:
	default:
		return nil, fmt.Errorf("%w: split %q; want %q or %q", ErrSpec, opt.Split, Train, Test)
	}
	if opt.Limit < 0 {
		return nil, fmt.Errorf("%w: a limit of %d images", ErrSpec, opt.Limit)
	}
	k, path, err := find(spec)
	if err != nil {
		return nil, err
	}
	s, err := k.open(path, opt.Split)
	if err != nil {
		return nil, err
	}
	return Sample(s, opt.Limit)
}

// find parses a specification.
func find(spec string) (k kind, path string, err error) {
	name, path, ok := strings.Cut(spec, ":")
	if ok {
		if i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name }); i >= 0 {
			if path == "" {
				return k, "", fmt.Errorf("%w: %q names no path", ErrSpec, spec)
			}
			return kinds[i], path, nil
		}
	}
	const usage = "want cifar10:DIR, cifar100:DIR, idx:DIR, folder:DIR, folder:FILE.zip, pairs:DIR, glyphs:TASK or a path"
	if spec == "" {
		return k, "", fmt.Errorf("%w: it is empty; %s", ErrSpec, usage)
	}
	info, err := os.Stat(spec)
	switch {
	case errors.Is(err, fs.ErrNotExist) && ok:
		return k, "", fmt.Errorf("%w: %q is neither of a known kind nor an existing path (%w); %s", ErrSpec, spec, fs.ErrNotExist, usage)
	case err != nil:
		return k, "", fmt.Errorf("dataset: %w", err)
	}
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.holds(spec, info.IsDir()) })
	if i < 0 {
		return k, "", fmt.Errorf("%w: %q is neither a directory nor a .zip file; %s", ErrSpec, spec, usage)
	}
	return kinds[i], spec, nil
}

// matches tells whether dir holds a file whose name matches pattern. Unlike
// filepath.Glob it takes dir as it is.
func matches(dir, pattern string) bool {
	names, err := list(dir, pattern)
	return err == nil && len(names) > 0
}

// list gives the sorted names of the files in dir that match pattern.
func list(dir, pattern string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("dataset: %w", err)
	}
	var names []string
	for _, e := range entries {
		if ok, err := filepath.Match(pattern, e.Name()); err != nil {
			return nil, err
		} else if ok && (e.Type().IsRegular() || e.Type()&fs.ModeSymlink != 0) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// maxArray is the greatest size of a file that is held in memory, in bytes
// after decompression.
const maxArray = 1 << 30

// readArray reads a whole file of at most maxArray bytes.
func readArray(path string) ([]byte, error) {
	data, err := infile.Read(context.Background(), path, maxArray)
	switch {
	case errors.Is(err, infile.ErrNotRegular), errors.Is(err, syscall.EISDIR):
		return nil, fmt.Errorf("%w: %s: not a regular file", ErrFormat, path)
	case errors.Is(err, infile.ErrTooLarge):
		return nil, fmt.Errorf("%w: %w", ErrLimit, err)
	case err != nil:
		return nil, fmt.Errorf("dataset: %w", err)
	}
	return data, nil
}
