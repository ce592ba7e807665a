package nn

import (
	"math"

	"github.com/lowrank-go/lowrank/internal/parallel"
)

// CrossEntropy is the mean over samples of −log softmax(logits)[label], with the
// share smoothing of each label spread over all classes (Szegedy et al. 2016;
// PyTorch's convention). logits has a row of classes for each label, which must
// be below classes. Unless gradient is nil, it gets the loss's gradient in the
// logits.
func CrossEntropy(gradient, logits []float32, labels []int, classes int, smoothing float64, workers int) float64 {
	return crossEntropy(gradient, logits, labels, -1, len(labels), classes, smoothing, workers)
}

// PixelCrossEntropy is the mean of CrossEntropy over the pixels whose label is not
// ignore, and how many those are; of none it is 0. The other pixels' gradient is 0.
func PixelCrossEntropy(gradient, logits []float32, labels []uint8, ignore uint8, classes int, smoothing float64, workers int) (loss float64, counted int) {
	for _, l := range labels {
		if l != ignore {
			counted++
		}
	}
	if counted == 0 {
		clear(gradient)
		return 0, 0
	}
	return crossEntropy(gradient, logits, labels, int(ignore), counted, classes, smoothing, workers), counted
}

// crossEntropy is the sum over the rows whose label is not ignore, over n.
func crossEntropy[L int | uint8](gradient, logits []float32, labels []L, ignore, n, classes int, smoothing float64, workers int) float64 {
	const rows = 64
	losses := make([]float64, (len(labels)+rows-1)/rows)
	parallel.For(min(workers, 1+len(labels)*classes/pieceValues), len(losses), func(p int) {
		exp := make([]float64, classes)
		for i := p * rows; i < min((p+1)*rows, len(labels)); i++ {
			label := int(labels[i])
			if label == ignore {
				if gradient != nil {
					clear(gradient[i*classes : (i+1)*classes])
				}
				continue
			}
			row := logits[i*classes : (i+1)*classes]
			most := math.Inf(-1)
			for _, v := range row {
				if !(float64(v) <= most) {
					most = float64(v) // a NaN stays
				}
				if v != v {
					break
				}
			}
			var sum, total float64
			for c, v := range row {
				d := float64(v) - most
				exp[c] = math.Exp(d)
				sum += exp[c]
				total += d
			}
			// −Σ target·log softmax, with targets smoothing/classes and 1−smoothing
			// more for the label.
			losses[p] += math.Log(sum) - (1-smoothing)*(float64(row[label])-most) - smoothing*total/float64(classes)
			if gradient == nil {
				continue
			}
			g := gradient[i*classes : (i+1)*classes]
			for c, e := range exp {
				g[c] = float32((e/sum - smoothing/float64(classes)) / float64(n))
			}
			g[label] -= float32((1 - smoothing) / float64(n))
		}
	})
	var loss float64
	for _, l := range losses {
		loss += l
	}
	return loss / float64(n)
}
