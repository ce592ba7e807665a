package model

import (
	"io"

	"github.com/lowrank-go/lowrank/internal/atomicfile"
)

// WriteAtomic writes a file through write: into a temporary file in the same directory,
// which is synced and then renamed to path. On any error nothing is left behind and a file
// that was at path stays as it was. A new file has the permissions that the umask leaves;
// one that replaces another has the other's. A symbolic link at path is replaced, not
// followed.
func WriteAtomic(path string, write func(io.Writer) error) error {
	return atomicfile.Write(path, write)
}

// TryAtomic reports what would keep WriteAtomic from writing path, as far as that can be
// known before: a missing folder, one that cannot be written to, a name too long.
func TryAtomic(path string) error { return atomicfile.Try(path) }

// RemoveTemporary removes the temporary files for path of processes that have ended, as a
// killed one leaves them. Those of running ones stay.
func RemoveTemporary(path string) error { return atomicfile.RemoveTemporary(path) }
