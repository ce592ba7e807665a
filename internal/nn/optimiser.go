package nn

import (
	"math"

	"github.com/lowrank-go/lowrank/internal/nhwc"
)

// SGD is stochastic gradient descent with momentum, to PyTorch's conventions: the
// velocity begins as the first gradient and is not damped.
type SGD struct {
	Rate, Momentum, Decay float64
	Nesterov              bool
}

// Step changes the weights w by their gradient g; v is their velocity, zeros at
// first.
func (o *SGD) Step(w, v, g []float32, workers int) {
	share, gradient, velocity := 1., 0., o.Rate
	if o.Nesterov {
		gradient, velocity = o.Rate, o.Rate*o.Momentum
	}
	spread(workers, len(w), 1, func(from, to int) {
		nhwc.SGD(w[from:to], v[from:to], g[from:to], float32(o.Decay), float32(o.Momentum), float32(share), float32(gradient), float32(velocity))
	})
}

// Adam is Adam (Kingma and Ba 2015, algorithm 1) with decay of the weights added
// to the gradient, or, if Decoupled, to the weights themselves (Loshchilov and
// Hutter 2019, AdamW).
type Adam struct {
	Rate, Beta1, Beta2, Eps, Decay float64
	Decoupled                      bool
}

// Step is step t, counted from 1. m and s are the averages of the gradient and of
// its square, zeros at first.
func (o *Adam) Step(t int, w, m, s, g []float32, workers int) {
	// ŝ = s/(1−β2ᵗ): √ŝ + ε = (√s + ε·c)/c with c = √(1−β2ᵗ), and m̂ = m/(1−β1ᵗ).
	c := math.Sqrt(1 - math.Pow(o.Beta2, float64(t)))
	rate := o.Rate * c / (1 - math.Pow(o.Beta1, float64(t)))
	decay, keep := o.Decay, 1.
	if o.Decoupled {
		decay, keep = 0, 1-o.Rate*o.Decay
	}
	// 1−β is rounded once: float32(β) is too far from β for 1−float32(β).
	shares := nhwc.AdamShares{
		Decay: float32(decay), Rate: float32(rate), Eps: float32(o.Eps * c), Keep: float32(keep),
		Beta1: float32(o.Beta1), Share1: float32(1 - o.Beta1), Beta2: float32(o.Beta2), Share2: float32(1 - o.Beta2),
	}
	spread(workers, len(w), 1, func(from, to int) {
		nhwc.Adam(w[from:to], m[from:to], s[from:to], g[from:to], &shares)
	})
}
