package model

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrLocked is wrapped by the error of a file that another process writes.
var ErrLocked = errors.New("another process writes it")

// Lock makes this process the only one that may write path again and again, until unlock is
// called or it ends, however it does. Where another has it, the error wraps ErrLocked.
func Lock(path string) (unlock func(), err error) {
	name := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".lock")
	for range 10 {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			return nil, err
		}
		ok, err := tryLock(f)
		if err != nil || !ok {
			_ = f.Close()
			if err == nil {
				err = fmt.Errorf("%s: %w", path, ErrLocked)
			}
			return nil, err
		}
		// The one that had it may have removed the file between opening and locking.
		at, err := os.Stat(name)
		if info, err2 := f.Stat(); err == nil && err2 == nil && os.SameFile(at, info) {
			return func() {
				_ = os.Remove(name) // still locked: nobody else can have it
				_ = f.Close()
			}, nil
		}
		_ = f.Close()
	}
	return nil, fmt.Errorf("%s: %w", path, ErrLocked)
}
