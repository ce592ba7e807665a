//go:build unix

package infile

import "syscall"

// nonBlocking keeps opening a pipe from waiting for its writer.
const nonBlocking = syscall.O_NONBLOCK
