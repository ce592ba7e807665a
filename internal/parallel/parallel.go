// Package parallel spreads independent pieces of work over goroutines. What the
// pieces are never depends on the number of goroutines, so that results do not
// either.
package parallel

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// Workers is n, or GOMAXPROCS where n is not positive.
func Workers(n int) int {
	if n <= 0 {
		return runtime.GOMAXPROCS(0)
	}
	return n
}

// For calls f(i) once for each i in [0,n), on at most workers goroutines of
// which the caller's is one, and returns when all calls have returned. Pieces
// are handed out in order, one at a time. A panic in f ends the process, as in
// any goroutine, unless it happens on the caller's.
func For(workers, n int, f func(i int)) {
	workers = min(Workers(workers), n)
	if workers <= 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var next atomic.Int64
	run := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= n {
				return
			}
			f(i)
		}
	}
	var wg sync.WaitGroup
	for range workers - 1 {
		wg.Go(run)
	}
	run()
	wg.Wait()
}
