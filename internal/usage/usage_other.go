//go:build !linux

package usage

import "time"

// Peak runs f and returns 0: this system does not tell what it took.
func Peak(f func()) float64 { f(); return 0 }

var start = time.Now()

// CPU is the time since the program began, in seconds, in place of the processor's.
func CPU() float64 { return time.Since(start).Seconds() }
