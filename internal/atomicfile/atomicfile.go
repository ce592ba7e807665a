// Package atomicfile writes files that are there completely or not at all.
package atomicfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Write writes a file through write: into a temporary file in the same
// directory, which is synced and then renamed to path. On any error nothing is
// left behind and a file that was at path stays as it was. A new file has the
// permissions that the umask leaves; one that replaces another has the other's. A
// symbolic link at path is replaced, not followed.
func Write(path string, write func(io.Writer) error) (err error) {
	f, err := createTemporary(path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("writing %s: %w", path, err)
		}
	}()
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
		if err := f.Chmod(info.Mode().Perm()); err != nil {
			return err
		}
	}
	w := bufio.NewWriterSize(f, 1<<20)
	if err := write(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Try reports what would keep Write from writing path, as far as that can be
// known before: a missing folder, one that cannot be written to, a name too long.
func Try(path string) error {
	f, err := createTemporary(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// temporary are the parts of the name of a temporary file for path: .NAME. and, after the
// process's number and one at random, .tmp.
func temporary(path string) (dir, prefix, suffix string) {
	base := filepath.Base(path)
	const most = 200 // of the 255 bytes that file systems allow
	if len(base) > most {
		base = base[:most]
	}
	return filepath.Dir(path), "." + base + ".", ".tmp"
}

func createTemporary(path string) (*os.File, error) {
	if len(filepath.Base(path)) > 255 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.ENAMETOOLONG}
	}
	dir, prefix, suffix := temporary(path)
	for range 100 {
		name := filepath.Join(dir, fmt.Sprintf("%s%d.%d%s", prefix, os.Getpid(), rand.Uint32(), suffix))
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, fs.ErrExist) {
			var pe *fs.PathError
			if errors.As(err, &pe) {
				return nil, &fs.PathError{Op: "write to", Path: dir, Err: pe.Err}
			}
			return f, err
		}
	}
	return nil, fmt.Errorf("%s: no name for a temporary file is free", path)
}

// RemoveTemporary removes the temporary files for path of processes that have ended, as a
// killed one leaves them. Those of running ones stay.
func RemoveTemporary(path string) error {
	dir, prefix, suffix := temporary(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), prefix)
		numbers, ok2 := strings.CutSuffix(rest, suffix)
		pid, random, ok3 := strings.Cut(numbers, ".")
		if !ok || !ok2 || !ok3 || !e.Type().IsRegular() {
			continue
		}
		n, err := strconv.Atoi(pid)
		if _, err2 := strconv.ParseUint(random, 10, 32); err != nil || err2 != nil || running(n) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// running reports whether there is a process of the number.
func running(pid int) bool {
	if pid == os.Getpid() {
		return true
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	err = p.Signal(syscall.Signal(0))
	return err == nil || errors.Is(err, syscall.EPERM)
}
