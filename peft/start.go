package peft

import (
	"math"
	"math/rand/v2"
	"strings"

	"gonum.org/v1/gonum/floats"
)

// DefaultGain is the norm of a basis row of LoRA's own initialiser, a uniform
// distribution of variance 1/(3·C·k²) (He initialisation with a = √5): √(1/3).
const DefaultGain = 0.5773502691896258

// Init draws the factors so that ΔW is exactly zero and its first step as large as
// gain says, whatever the kind: ΔW is Z·D of the factor Z of the output channels,
// which is zero, and D of all others, random with orthonormal rows or columns, scaled so
// that every row of D has the norm gain. The first step of plain gradient descent is then as LoRA's with that
// gain, ‖ΔW‖ ≈ η·λ²·gain²·√(r/K)·‖∂L/∂W‖ for r rows of K = C/g·k² values. A gain of 0 or less
// means DefaultGain. Of the kinds without other factors the gain is fixed, 1 or W₀'s
// norm; LoHa and LoKr keep the rule for their second product, the first being of
// unit size.
//
// base is the frozen kernel, which only DoRA needs: its norms start as W₀'s. The
// error wraps ErrSpec.
func (c *Change[T]) Init(rng *rand.Rand, gain float64, base []T) error {
	if c.spec.DoRA {
		if err := c.checkBase(base); err != nil {
			return err
		}
	}
	if gain <= 0 {
		gain = DefaultGain
	}
	c.net.root.walk(func(v *node[T]) {
		if v.zero {
			clear(v.value)
		}
		if v.factor == nil || v.zero {
			return
		}
		rows := v.factor.Shape[0]
		if strings.Contains(v.axes(), "g") {
			rows /= c.spec.groups()
		}
		width := len(v.value) / v.factor.Shape[0]
		for at := 0; at < len(v.value); at += rows * width {
			orthonormal(v.value[at:at+rows*width], rows, width, rng)
		}
	})
	c.net.root.normalise(gain)
	if c.lambda != nil {
		c.lambda.Value[0] = T(c.spec.scale())
	}
	if c.magnitude != nil {
		c.setMagnitude(base)
	}
	c.spec.Anchored, c.anchor, c.start = false, nil, nil
	return nil
}

func (c *Change[T]) setMagnitude(base []T) {
	row := len(base) / c.spec.Shape[0]
	for o := range c.magnitude.Value {
		c.magnitude.Value[o] = norm(0, base[o*row:(o+1)*row], nil)
	}
}

// normalise scales the factors that are multiplied with the output factor below v,
// and reports whether there is one.
func (v *node[T]) normalise(gain float64) bool {
	if v.x == nil {
		return v.zero
	}
	left, right := v.x.normalise(gain), v.y.normalise(gain)
	if v.sum || left == right {
		return left || right
	}
	z, d := v.x, v.y
	if right {
		z, d = d, z
	}
	if !d.learned {
		return true
	}
	d.compute()
	// z's labels that d sums over are the rows of the basis; those that the product
	// keeps are of an elementwise product.
	contracted, elementwise := "", false
	for _, l := range z.axes() {
		switch {
		case !strings.ContainsRune(d.axes(), l):
		case strings.ContainsRune(v.axes(), l):
			elementwise = elementwise || l != 'g'
		default:
			contracted += string(l)
		}
	}
	if !z.zero {
		// Beside a product that holds the output factor: of unit size, entry by
		// entry (LoHa) or as a whole (LoKr).
		gain = 1
		if elementwise {
			gain = math.Sqrt(float64(len(d.value)))
		}
	}
	d.scaleRows(contracted, gain)
	return true
}

// scaleRows scales a factor below d so that each of d's leading rows, one for each
// value of the label (and group), has the given norm; without a label, d as a whole.
func (d *node[T]) scaleRows(label string, to float64) {
	var gauge *Factor[T]
	d.walk(func(v *node[T]) {
		if gauge == nil && v.factor != nil && strings.Contains(v.axes(), label) {
			gauge = v.factor
		}
	})
	n := 1
	if label != "" {
		n = gauge.Shape[0] // the label, with the groups, is the first axis of d and of the factor
	}
	row, width := len(d.value)/n, len(gauge.Value)/n
	for i := range n {
		if size := norm(0, d.value[i*row:(i+1)*row], nil); size > 0 {
			for j := range width {
				gauge.Value[i*width+j] *= T(to) / size
			}
		}
	}
}

// orthonormal fills a rows×cols matrix with random orthonormal rows, or columns where
// there are more rows: Gaussian ones after Gram-Schmidt, twice, which is as exact as
// rounding lets it be.
func orthonormal[T Float](m []T, rows, cols int, rng *rand.Rand) {
	n, width, step, next := rows, cols, 1, cols
	if rows > cols {
		n, width, step, next = cols, rows, cols, 1
	}
	v := make([][]float64, n)
	for i := range v {
		v[i] = make([]float64, width)
		for j := range v[i] {
			v[i][j] = rng.NormFloat64()
		}
		for range 2 {
			for _, u := range v[:i] {
				p := floats.Dot(u, v[i])
				floats.AddScaled(v[i], -p, u)
			}
		}
		floats.Scale(1/floats.Norm(v[i], 2), v[i])
		for j, x := range v[i] {
			m[i*next+j*step] = T(x)
		}
	}
}
