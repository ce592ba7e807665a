// Package usage measures what a process takes: its memory and its processor time.
package usage
