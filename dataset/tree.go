package dataset

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/lowrank-go/lowrank/internal/infile"
)

// tree is a directory, or an archive read in place.
type tree struct {
	fsys fs.FS
	// root names the tree in errors.
	root  string
	close func() error
}

func openTree(name string) (tree, error) {
	info, err := os.Stat(name)
	if err != nil {
		return tree{}, fmt.Errorf("dataset: %w", err)
	}
	if info.IsDir() {
		return tree{fsys: directory{os.DirFS(name), name}, root: name}, nil
	}
	if !info.Mode().IsRegular() {
		return tree{}, fmt.Errorf("%w: %s is neither a directory nor a regular file", ErrSpec, name)
	}
	z, err := zip.OpenReader(name)
	if err != nil {
		return tree{}, fmt.Errorf("%w: %s is no readable zip archive: %w", ErrFormat, name, err)
	}
	// Reading an archive as a file system keeps every folder of every name.
	for _, f := range z.File {
		if strings.Count(f.Name, "/") > maxDepth {
			_ = z.Close()
			return tree{}, fmt.Errorf("%w: %s: an entry in more than %d folders: %.80q…", ErrLimit, name, maxDepth, f.Name)
		}
	}
	return tree{fsys: z, root: name, close: sync.OnceValue(z.Close)}, nil
}

// maxDepth is the greatest number of folders that an entry of an archive lies in.
const maxDepth = 64

// directory is a folder whose files are opened without waiting for what is none.
type directory struct {
	fs.FS
	root string
}

func (d directory) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	f, _, err := infile.Open(filepath.Join(d.root, filepath.FromSlash(name)))
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d directory) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(d.FS, name) }
func (d directory) Stat(name string) (fs.FileInfo, error)      { return fs.Stat(d.FS, name) }

func (t *tree) Close() error {
	if t.close == nil {
		return nil
	}
	return t.close()
}

// image decodes a file.
func (t *tree) image(file string) (Image, error) {
	data, err := t.read(file)
	if err != nil {
		return Image{}, err
	}
	m, err := decode(data)
	if err != nil {
		return Image{}, t.errorf(file, err)
	}
	return m, nil
}

// read reads an image file.
func (t *tree) read(file string) ([]byte, error) {
	data, err := t.content(file)
	if err == nil {
		return data, nil
	}
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
	return nil, t.errorf(file, err)
}

func (t *tree) errorf(file string, err error) error {
	return fmt.Errorf("%w (%s of %s)", err, file, t.root)
}

func (t *tree) content(file string) ([]byte, error) {
	f, err := t.fsys.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// A size that an archive declares can be any number, even a negative one
	// here; readImageFile holds the content itself to the limit.
	if size := uint64(info.Size()); size > maxImageFile {
		return nil, fmt.Errorf("%w: an image file of %d bytes; at most %d are accepted", ErrLimit, size, maxImageFile)
	}
	if h, ok := info.Sys().(*zip.FileHeader); ok {
		if h.Flags&1 != 0 {
			return nil, fmt.Errorf("%w: the entry is encrypted", ErrFormat)
		}
		// Images are compressed already.
		if most := 8<<20 + 64*h.CompressedSize64; h.UncompressedSize64 > most {
			return nil, fmt.Errorf("%w: an entry of %d bytes that declares %d", ErrLimit, h.CompressedSize64, h.UncompressedSize64)
		}
	}
	return readImageFile(f)
}

var _ io.Closer = (*tree)(nil)
