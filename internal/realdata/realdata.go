// Package realdata finds the real checkpoints and images that tests compare
// with. They are not part of the project: they lie in the folder that the
// environment variable LOWRANK_DATA names, or in ../shared/data beside the
// repository.
package realdata

import (
	"os"
	"path/filepath"
	"testing"
)

// Path returns the path of a file or folder of the real data, and skips the
// test where it is absent.
func Path(t testing.TB, elem ...string) string {
	t.Helper()
	dir := os.Getenv("LOWRANK_DATA")
	if dir == "" {
		root, err := repository()
		if err != nil {
			t.Skipf("no real data: %v", err)
		}
		dir = filepath.Join(root, "..", "shared", "data")
	}
	path := filepath.Join(append([]string{dir}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no real data (set LOWRANK_DATA to its folder): %v", err)
	}
	return path
}

// repository is the folder of go.mod above the working directory, which for a
// test is its package's folder.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", os.ErrNotExist
		}
		dir = up
	}
}
