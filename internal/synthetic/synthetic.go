// Package synthetic makes tensors and starting factors that a program in any
// language can make again, digit for digit but for the last ones of sin, cos and
// log: a counter-based generator, SplitMix64 (Steele, Lea and Flood 2014), and the
// transform of Box and Muller. Errors and timings of other libraries, measured on
// the same input, can so be compared with ours.
package synthetic

import (
	"math"

	"github.com/lowrank-go/lowrank/internal/gemm"
)

// Uniform is n numbers in (0,1): number i is the mix of seed + (i+1)·φ, with φ the
// golden ratio's 64 bits, of which the upper 53 count.
func Uniform(seed uint64, n int) []float64 {
	u := make([]float64, n)
	for i := range u {
		z := seed + uint64(i+1)*0x9E3779B97F4A7C15
		z ^= z >> 30
		z *= 0xBF58476D1CE4E5B9
		z ^= z >> 27
		z *= 0x94D049BB133111EB
		z ^= z >> 31
		u[i] = (float64(z>>11) + .5) / (1 << 53)
	}
	return u
}

// Normal is n normal numbers, from pairs of uniform ones: the cosine first.
func Normal(seed uint64, n int) []float64 {
	u := Uniform(seed, n+n&1)
	for i := 0; i < len(u); i += 2 {
		r, t := math.Sqrt(-2*math.Log(u[i])), 2*math.Pi*u[i+1]
		u[i], u[i+1] = r*math.Cos(t), r*math.Sin(t)
	}
	return u[:n]
}

// Tensor is a tensor of three modes, row-major: a sum of rank components with
// normal factors, of norm 1, and normal noise of the given norm. Mode n's factor
// has seed+n, the noise seed+10.
func Tensor(shape [3]int, rank int, noise float64, seed uint64) []float64 {
	var f [3][]float64
	for n, d := range shape {
		f[n] = Normal(seed+uint64(n), d*rank)
	}
	right := shape[1] * shape[2]
	kr := make([]float64, right*rank)
	for j := range shape[1] {
		for k := range shape[2] {
			for r := range rank {
				kr[(j*shape[2]+k)*rank+r] = f[1][j*rank+r] * f[2][k*rank+r]
			}
		}
	}
	x := make([]float64, shape[0]*right)
	gemm.Float64(0, false, true, shape[0], right, rank, 1, f[0], rank, kr, rank, 0, x, right)
	add(x, x, 1/norm(x)-1)
	if noise > 0 {
		e := Normal(seed+10, len(x))
		add(x, e, noise/norm(e))
	}
	return x
}

// Start is factor n of a start of the given rank, size×rank: its seed is seed+100+n.
func Start(n, size, rank int, seed uint64) []float64 {
	return Normal(seed+100+uint64(n), size*rank)
}

func add(x, y []float64, s float64) {
	for i, v := range y {
		x[i] += s * v
	}
}

func norm(x []float64) float64 {
	var s float64
	for _, v := range x {
		s += v * v
	}
	return math.Sqrt(s)
}
