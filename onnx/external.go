package onnx

import (
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"github.com/lowrank-go/lowrank/internal/onnxpb"
)

// external are values that lie in another file.
type external struct {
	dir, location string
	off, n        int64
}

// external finds a tensor's values. Neither the path nor a symbolic link on it may
// leave the model's folder, which is ONNX Runtime's rule too.
func (m *Model) external(p *onnxpb.TensorProto) (*external, error) {
	e := &external{dir: m.dir, n: -1}
	for _, kv := range p.ExternalData {
		var err error
		switch kv.GetKey() {
		case "location":
			e.location = kv.GetValue()
		case "offset":
			e.off, err = strconv.ParseInt(kv.GetValue(), 10, 64)
		case "length":
			e.n, err = strconv.ParseInt(kv.GetValue(), 10, 64)
			if e.n < 0 {
				err = strconv.ErrRange
			}
		}
		if err != nil || e.off < 0 {
			return nil, fmt.Errorf("%w: external data with %s %q", ErrCorrupt, kv.GetKey(), kv.GetValue())
		}
	}
	if m.dir == "" {
		return nil, fmt.Errorf("%w: its values lie in another file, %q; save the model in one", ErrUnsupported, e.location)
	}
	f, err := e.file()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if e.n < 0 {
		e.n = max(info.Size()-e.off, 0)
	}
	if e.off > math.MaxInt64-e.n || e.off+e.n > info.Size() {
		return nil, fmt.Errorf("%w: bytes %d to %d of the external file %q, which has %d", ErrCorrupt, e.off, uint64(e.off)+uint64(e.n), e.location, info.Size())
	}
	return e, nil
}

func (e *external) file() (*os.File, error) {
	if !filepath.IsLocal(filepath.FromSlash(e.location)) {
		return nil, fmt.Errorf("%w: the external file %q is outside the model's folder", ErrCorrupt, e.location)
	}
	root, err := os.OpenRoot(e.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	info, err := root.Stat(filepath.FromSlash(e.location))
	if err != nil {
		return nil, fmt.Errorf("the external file %q: %w", e.location, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: the external file %q is not a regular file", ErrUnsupported, e.location)
	}
	f, err := root.Open(filepath.FromSlash(e.location))
	if err != nil {
		return nil, fmt.Errorf("the external file %q: %w", e.location, err)
	}
	return f, nil
}

func (e *external) open() (io.ReadCloser, error) {
	f, err := e.file()
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, e.off, e.n), f}, nil
}
