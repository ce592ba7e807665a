package parallel

import (
	"sync/atomic"
	"testing"
)

func TestForCallsEveryIndexOnce(t *testing.T) {
	for _, workers := range []int{-1, 0, 1, 2, 7, 100} {
		for _, n := range []int{0, 1, 2, 50} {
			calls := make([]atomic.Int32, n)
			var running, most atomic.Int32
			For(workers, n, func(i int) {
				for r := running.Add(1); ; {
					m := most.Load()
					if r <= m || most.CompareAndSwap(m, r) {
						break
					}
				}
				calls[i].Add(1)
				// Nested calls must not wait for a free goroutine.
				For(workers, 3, func(int) {})
				running.Add(-1)
			})
			for i := range calls {
				if c := calls[i].Load(); c != 1 {
					t.Errorf("%d workers, %d pieces: piece %d was done %d times", workers, n, i, c)
				}
			}
			if m := int(most.Load()); m > Workers(workers) {
				t.Errorf("%d workers ran %d pieces at a time", workers, m)
			}
		}
	}
}
