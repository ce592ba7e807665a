package graph

import (
	"math/rand/v2"

	"github.com/lowrank-go/lowrank/conv"
)

func (d *Dropout) kernel(mode) (kernel, error) { return &dropping{rate: d.Rate}, nil }

// dropping is dropout in training. Each call draws anew.
type dropping struct {
	rate float64
	src  *rand.PCG
	keep []float32 // 0 or 1/(1−rate) for each value of the last forward pass
}

func (k *dropping) seed(seed uint64) { k.src = rand.NewPCG(seed, 0x64726f70) }

func (*dropping) needs(int) bool { return false }

func (k *dropping) forward(c *call) error {
	x := c.in[0]
	c.out = c.out.Resize(x.N, x.H, x.W, x.C)
	if len(k.keep) < len(x.Data) {
		k.keep = make([]float32, len(x.Data))
	}
	rng := rand.New(k.src)
	up := float32(1 / (1 - k.rate))
	for i, v := range x.Data {
		k.keep[i] = 0
		if rng.Float64() >= k.rate {
			k.keep[i] = up
		}
		c.out.Data[i] = v * k.keep[i]
	}
	return nil
}

func (k *dropping) backward(c *call) error {
	c.contribute(0, func(dst *conv.Map) *conv.Map {
		dst = dst.Resize(c.dy.N, c.dy.H, c.dy.W, c.dy.C)
		for i, v := range c.dy.Data {
			dst.Data[i] = v * k.keep[i]
		}
		return dst
	})
	return nil
}
