package model

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/lowrank-go/lowrank/internal/atomicfile"
)

// ReadFile reads any file that this package knows, recognised by its content: a
// safetensors file, a PyTorch checkpoint (zip or legacy stream), an ONNX model, a .npz archive,
// a .npy file (one tensor, called as the file without its ending), or a
// directory of .npy files. Errors name the file.
func ReadFile(path string) (*StateDict, error) {
	sd, err := readFile(path)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			return nil, err // names the file already
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return sd, nil
}

func readFile(path string) (*StateDict, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case info.IsDir():
		return readDir(path)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: not a regular file", ErrFormat)
	}
	return Read(f, info.Size(), stem(path))
}

func stem(path string) string {
	base := filepath.Base(path)
	return strings.TrimSuffix(base, filepath.Ext(base))
}

// Read is ReadFile for content of size bytes that has been opened already. The
// tensor of a .npy file is called name.
func Read(r io.ReaderAt, size int64, name string) (*StateDict, error) {
	head := make([]byte, 16)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	head = head[:n]
	switch {
	case n == 0:
		return nil, fmt.Errorf("%w: the file is empty", ErrFormat)
	case strings.HasPrefix(string(head), npyMagic):
		t, err := ReadNPY(io.NewSectionReader(r, 0, size), size)
		if err != nil {
			return nil, err
		}
		sd := NewStateDict()
		sd.Set(name, t)
		return sd, nil
	case strings.HasPrefix(string(head), "PK"):
		if isNPZ(r, size) {
			return ReadNPZ(r, size)
		}
		return ReadTorch(r, size)
	case len(head) > 8 && head[8] == '{' || len(head) == 8:
		return ReadSafetensors(r, size)
	case head[0] == 0x80 || head[0] == '(' || head[0] == '}' || head[0] == 'c':
		return ReadTorch(r, size)
	case isONNX(head):
		return ReadONNX(r, size)
	}
	return nil, fmt.Errorf("%w: it begins with %q; want safetensors, a PyTorch checkpoint, an ONNX model, .npy or .npz", ErrFormat, head)
}

// isNPZ tells an archive of arrays from a PyTorch archive.
func isNPZ(r io.ReaderAt, size int64) bool {
	z, err := zip.NewReader(r, size)
	if err != nil || len(z.File) == 0 {
		return false
	}
	for _, f := range z.File {
		if !strings.HasSuffix(f.Name, ".npy") {
			return false
		}
	}
	return true
}

// readDir reads every .npy file of a directory, a tensor each, by name.
func readDir(dir string) (*StateDict, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.npy"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("%w: a directory without .npy files", ErrFormat)
	}
	sort.Strings(paths)
	sd := NewStateDict()
	for _, p := range paths {
		one, err := readFile(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(p), err)
		}
		t, ok := one.Get(stem(p))
		if !ok {
			return nil, fmt.Errorf("%w: %s is no .npy file", ErrFormat, filepath.Base(p))
		}
		sd.Set(stem(p), t)
	}
	return sd, nil
}

// WriteAtomic writes a file through write: into a temporary file in the same
// directory, which is synced and then renamed to path. On any error nothing is
// left behind and a file that was at path stays as it was.
func WriteAtomic(path string, write func(io.Writer) error) error {
	return atomicfile.Write(path, write)
}
