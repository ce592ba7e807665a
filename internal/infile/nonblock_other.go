//go:build !unix

package infile

// nonBlocking: there are no pipes among files.
const nonBlocking = 0
