//go:build !amd64 || noasm || purego || !gc

package linalg

// candidates lists the kernels that this machine can run, best first.
func candidates() []kernels { return []kernels{portable()} }
