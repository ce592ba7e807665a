package nn

import (
	"fmt"
	"math"

	"github.com/lowrank-go/lowrank/conv"
)

// LRN is local response normalisation over neighbouring channels (Krizhevsky et al. 2012;
// ONNX's convention):
//
//	y[c] = x[c] / (Bias + Alpha/Size · Σ x[i]²)^Beta
//
// over the channels from c − ⌊(Size−1)/2⌋ to c + ⌈(Size−1)/2⌉ that there are.
type LRN struct {
	Size              int
	Alpha, Beta, Bias float64
}

// Validate reports a size that is none. The error wraps conv.ErrShape.
func (l *LRN) Validate() error {
	if l.Size < 1 {
		return fmt.Errorf("%w: local response normalisation over %d channels", conv.ErrShape, l.Size)
	}
	return nil
}

// bases writes what the inputs x are divided by, before the power Beta.
func (l *LRN) bases(dst []float64, x []float32) {
	below, above := (l.Size-1)/2, l.Size/2
	scale := l.Alpha / float64(l.Size)
	for c := range dst {
		sum := 0.
		for _, v := range x[max(c-below, 0):min(c+above+1, len(x))] {
			sum += float64(v) * float64(v)
		}
		dst[c] = l.Bias + scale*sum
	}
}

// power is d^−Beta.
func (l *LRN) power(d float64) float64 {
	if l.Beta == .75 {
		r := math.Sqrt(d)
		return 1 / (r * math.Sqrt(r))
	}
	return math.Pow(d, -l.Beta)
}

// Forward writes the normalised x to dst (resized; it may be x).
func (l *LRN) Forward(dst, x *conv.Map, workers int) *conv.Map {
	return eachPixel(dst, x, workers, func(out, in []float32, row []float64) {
		l.bases(row, in)
		for c, v := range in {
			out[c] = float32(float64(v) * l.power(row[c]))
		}
	})
}

// Backward writes to dx (resized; it may be dy) the gradient of Forward's input x from
// that of its output, dy, or adds it to dx if add is set.
func (l *LRN) Backward(dx, dy, x *conv.Map, add bool, workers int) *conv.Map {
	dx = dx.Resize(x.N, x.H, x.W, x.C)
	c := x.C
	below, above := (l.Size-1)/2, l.Size/2
	scale := 2 * l.Alpha * l.Beta / float64(l.Size)
	spread(workers, x.N*x.H*x.W, 4*c, func(from, to int) {
		rows := make([]float64, 2*c)
		own, shared := rows[:c], rows[c:]
		for i := from; i < to; i++ {
			in, g, out := x.Data[i*c:(i+1)*c], dy.Data[i*c:(i+1)*c], dx.Data[i*c:(i+1)*c]
			// With d the base: ∂y[c]/∂x[i] = d[c]^−Beta where i is c, less
			// 2·Alpha·Beta/Size·x[i]·x[c]·d[c]^(−Beta−1) where c sees i.
			l.bases(own, in)
			for j, v := range g {
				p := l.power(own[j])
				shared[j] = float64(v) * float64(in[j]) * p / own[j]
				own[j] = float64(v) * p
			}
			for j, v := range in {
				sum := 0.
				for _, s := range shared[max(j-above, 0):min(j+below+1, c)] {
					sum += s
				}
				d := float32(own[j] - scale*float64(v)*sum)
				if add {
					d += out[j]
				}
				out[j] = d
			}
		}
	})
	return dx
}
