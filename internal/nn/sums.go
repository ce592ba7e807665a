package nn

import "github.com/lowrank-go/lowrank/internal/parallel"

// Sizes of the sums. They change results, so they depend on nothing else.
const (
	chunkPixels = 256 // summed in float32
	mostParts   = 64
	partPixels  = 1024
)

// channelSums is sums of each channel over pixels, of so many kinds: f adds, for a range
// of pixels, kinds·channels values to sums, kind after kind. Ranges are short enough for
// float32, and their sums are added in float64 in an order of their own. The result may be
// in the memory of dst.
func channelSums(dst []float64, workers, pixels, channels, kinds int, f func(from, to int, sums []float32)) []float64 {
	parts := max(min(mostParts, pixels/partPixels), 1)
	n := kinds * channels
	all := dst[:cap(dst)]
	if len(all) < parts*n {
		all = make([]float64, parts*n)
	}
	all = all[:parts*n]
	clear(all)
	parallel.For(workers, parts, func(p int) {
		small := make([]float32, n)
		own := all[p*n : (p+1)*n]
		from, end := p*pixels/parts, (p+1)*pixels/parts
		for ; from < end; from += chunkPixels {
			clear(small)
			f(from, min(from+chunkPixels, end), small)
			for i, v := range small {
				own[i] += float64(v)
			}
		}
	})
	total := all[:n]
	for p := 1; p < parts; p++ {
		for i := range total {
			total[i] += all[p*n+i]
		}
	}
	return total
}
