package gemm

import (
	"time"

	"github.com/lowrank-go/lowrank/internal/parallel"
)

// Peak32 measures how many float32 operations a second, in units of 10⁹, the
// processor's fused multiply-add units deliver on the given number of workers
// when nothing has to come from memory: the bound that no product can pass. The
// kernels in use do the work, for about the given time in all, and the best of
// ten rounds counts.
func Peak32(workers int, d time.Duration) float64 {
	return peak(workers, set32.kernel.peak, set32.kernel.flops, d)
}

// Peak64 is Peak32 for float64.
func Peak64(workers int, d time.Duration) float64 {
	return peak(workers, set64.kernel.peak, set64.kernel.flops, d)
}

func peak(workers int, loop func(n int), flops int, d time.Duration) float64 {
	workers = max(workers, 1)
	const rounds = 10
	n := 1000
	measure := func() time.Duration {
		start := time.Now()
		parallel.For(workers, workers, func(int) { loop(n) })
		return max(time.Since(start), 1)
	}
	for n < 1<<30 {
		if measure() >= d/rounds/2 {
			break
		}
		n *= 2
	}
	best := measure()
	for range rounds - 1 {
		best = min(best, measure())
	}
	return float64(n) * float64(flops) * float64(workers) / float64(best.Nanoseconds())
}
