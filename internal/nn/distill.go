package nn

import (
	"math"

	"github.com/lowrank-go/lowrank/internal/parallel"
)

// Distill is T² times the mean over samples of the Kullback-Leibler divergence of
// softmax(logits/T) from softmax(teacher/T), T being the temperature (Hinton et al.
// 2015); teacher and logits have a row of classes for each sample. gradient gets its
// gradient in the logits.
func Distill(gradient, logits, teacher []float32, classes int, temperature float64, workers int) float64 {
	const rows = 64
	n := len(logits) / classes
	losses := make([]float64, (n+rows-1)/rows)
	parallel.For(min(workers, 1+n*classes/pieceValues), len(losses), func(p int) {
		own, taught := make([]float64, classes), make([]float64, classes)
		for i := p * rows; i < min((p+1)*rows, n); i++ {
			logSoftmax(own, logits[i*classes:(i+1)*classes], temperature)
			logSoftmax(taught, teacher[i*classes:(i+1)*classes], temperature)
			g := gradient[i*classes : (i+1)*classes]
			for c, t := range taught {
				want := math.Exp(t)
				if want > 0 {
					losses[p] += temperature * temperature * want * (t - own[c])
				}
				g[c] = float32(temperature * (math.Exp(own[c]) - want) / float64(n))
			}
		}
	})
	var loss float64
	for _, l := range losses {
		loss += l
	}
	return loss / float64(n)
}

// logSoftmax writes log softmax(x/temperature) to dst.
func logSoftmax(dst []float64, x []float32, temperature float64) {
	most, sum := math.Inf(-1), 0.
	for _, v := range x {
		most = math.Max(most, float64(v)) // NaN if v is
	}
	for c, v := range x {
		dst[c] = (float64(v) - most) / temperature
		sum += math.Exp(dst[c])
	}
	for c := range dst {
		dst[c] -= math.Log(sum)
	}
}
