// Package infile opens files that come from others. What a path leads to may be anything:
// a pipe that blocks for ever, a device without an end, a file larger than memory.
package infile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// ErrNotRegular is wrapped by the error of a path that is neither a file nor a directory.
var ErrNotRegular = errors.New("not a regular file")

// ErrTooLarge is wrapped by the error of a file beyond its bound.
var ErrTooLarge = errors.New("file too large")

// Open opens a regular file or a directory, and refuses anything else without waiting for
// it. Errors are *fs.PathErrors.
func Open(path string) (*os.File, fs.FileInfo, error) {
	refuse := func() (*os.File, fs.FileInfo, error) {
		return nil, nil, &fs.PathError{Op: "open", Path: path, Err: ErrNotRegular}
	}
	// Looking comes first, as opening a device may act on it.
	info, err := os.Stat(path)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			pe.Op = "open"
		}
		return nil, nil, err
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		return refuse()
	}
	// Between the two the path may have become a pipe: opening must not wait for it.
	f, err := os.OpenFile(path, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		_ = f.Close()
		return refuse()
	}
	return f, info, nil
}

// OpenFile is Open for files only.
func OpenFile(path string) (*os.File, int64, error) {
	f, info, err := Open(path)
	if err != nil {
		return nil, 0, err
	}
	if info.IsDir() {
		_ = f.Close()
		return nil, 0, &fs.PathError{Op: "open", Path: path, Err: syscall.EISDIR}
	}
	return f, info.Size(), nil
}

// Read returns the content of a file of at most most bytes. It ends where ctx does.
func Read(ctx context.Context, path string, most int64) ([]byte, error) {
	f, size, err := OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > most {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%w: %d bytes, at most %d are read", ErrTooLarge, size, most)}
	}
	// The size is a hint only: files of /proc say 0.
	b := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	n, err := io.Copy(b, io.LimitReader(Context(ctx, f), most+1))
	if err == nil && n > most {
		err = fmt.Errorf("%w: at most %d bytes are read", ErrTooLarge, most)
	}
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) || ctx.Err() != nil {
			return nil, err
		}
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return b.Bytes(), nil
}

// Context is r, which ends with the error of ctx where that does.
func Context(ctx context.Context, r io.Reader) io.Reader { return reader{ctx, r} }

type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b[:min(len(b), 4<<20)])
}
