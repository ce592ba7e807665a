package model

import (
	"archive/zip"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"sort"
	"strings"

	"github.com/lowrank-go/lowrank/internal/infile"
)

func (o ReadOptions) readFile(ctx context.Context, path string) (*StateDict, error) {
	f, info, err := infile.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info.IsDir() {
		return o.readDir(ctx, path)
	}
	return o.Read(ctx, f, info.Size(), stem(path))
}

func stem(path string) string {
	base := filepath.Base(path)
	return strings.TrimSuffix(base, filepath.Ext(base))
}

// Read is ReadOptions{}.Read.
func Read(r io.ReaderAt, size int64, name string) (*StateDict, error) {
	return ReadOptions{}.Read(context.Background(), r, size, name)
}

// Read is ReadFile for content of size bytes that has been opened already. The
// tensor of a .npy file is called name.
func (o ReadOptions) Read(ctx context.Context, r io.ReaderAt, size int64, name string) (*StateDict, error) {
	r = patient{ctx, r}
	head := make([]byte, min(size, 512))
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	head = head[:n]
	sd, torch, err := o.sniff(r, size, name, head)
	if err != nil {
		return nil, err
	}
	if o.Key != "" && !torch {
		return nil, fmt.Errorf("%w %s: only PyTorch checkpoints have keys", ErrKey, quoted(o.Key))
	}
	return o.cut(sd)
}

// sniff reads content by what its first bytes say, and tells checkpoints from others.
func (o ReadOptions) sniff(r io.ReaderAt, size int64, name string, head []byte) (sd *StateDict, torch bool, err error) {
	is := func(magic string) bool { return strings.HasPrefix(string(head), magic) }
	switch {
	case len(head) == 0:
		return nil, false, fmt.Errorf("%w: the file is empty", ErrFormat)
	case is(npyMagic):
		t, err := ReadNPY(io.NewSectionReader(r, 0, size), size)
		if err != nil {
			return nil, false, err
		}
		sd := NewStateDict()
		sd.Set(name, t)
		return sd, false, nil
	case is("PK"):
		if isNPZ(r, size) {
			sd, err := ReadNPZ(r, size)
			return sd, false, err
		}
		sd, err := o.readTorch(r, size)
		return sd, true, err
	case len(head) > 8 && head[8] == '{' || len(head) == 8 && string(head) == "\x00\x00\x00\x00\x00\x00\x00\x00":
		sd, err := ReadSafetensors(r, size)
		return sd, false, err
	case len(head) > 262 && string(head[257:262]) == "ustar":
		return nil, false, fmt.Errorf("%w: a tar archive; unpack it and give the checkpoint in it", ErrFormat)
	case is("\x1f\x8b"):
		return nil, false, fmt.Errorf("%w: compressed by gzip; unpack it first", ErrFormat)
	case is("BZh"), is("\xfd7zXZ"), is("\x28\xb5\x2f\xfd"):
		return nil, false, fmt.Errorf("%w: a compressed file; unpack it first", ErrFormat)
	case is("\x89HDF\r\n"):
		return nil, false, fmt.Errorf("%w: an HDF5 file, as Keras writes", ErrFormat)
	case is("version https://git-lfs"):
		return nil, false, fmt.Errorf("%w: a pointer of Git LFS, not the file itself; git lfs pull fetches it", ErrFormat)
	case head[0] == 0x80, strings.IndexByte("(}]c", head[0]) >= 0 && !isONNX(head):
		sd, err := o.readTorch(r, size)
		return sd, true, err
	case isONNX(head):
		sd, err := ReadONNX(r, size)
		return sd, false, err
	}
	return nil, false, fmt.Errorf("%w: it begins with %q; want safetensors, a PyTorch checkpoint, an ONNX model, .npy or .npz", ErrFormat, head[:min(len(head), 16)])
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
func (o ReadOptions) readDir(ctx context.Context, dir string) (*StateDict, error) {
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
		one, err := ReadOptions{}.readFile(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(p), err)
		}
		t, ok := one.Get(stem(p))
		if !ok {
			return nil, fmt.Errorf("%w: %s is no .npy file", ErrFormat, filepath.Base(p))
		}
		sd.Set(stem(p), t)
	}
	if o.Key != "" {
		return nil, fmt.Errorf("%w %s: only PyTorch checkpoints have keys", ErrKey, quoted(o.Key))
	}
	return o.cut(sd)
}
