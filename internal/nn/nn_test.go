package nn

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"pgregory.net/rapid"
)

func normal(rng *rand.Rand, n, h, w, c int) *conv.Map {
	m := conv.NewMap(n, h, w, c)
	for i := range m.Data {
		m.Data[i] = float32(rng.NormFloat64())
	}
	return m
}

func drawMap(t *rapid.T, rng *rand.Rand) *conv.Map {
	return normal(rng, rapid.IntRange(1, 4).Draw(t, "n"), rapid.IntRange(1, 9).Draw(t, "h"), rapid.IntRange(1, 9).Draw(t, "w"), rapid.IntRange(1, 40).Draw(t, "c"))
}

func newNorm(rng *rand.Rand, c int) *BatchNorm {
	b := &BatchNorm{Momentum: .1, Eps: 1e-5}
	for _, s := range []*[]float32{&b.Weight, &b.Bias, &b.Mean, &b.Var} {
		*s = normal(rng, 1, 1, 1, c).Data
	}
	return b
}

// normalised is BatchNorm's output by the definition, in float64.
func normalised(b *BatchNorm, x, residual *conv.Map, relu bool) (y, mean, variance []float64) {
	c, n := x.C, float64(x.N*x.H*x.W)
	mean, variance, y = make([]float64, c), make([]float64, c), make([]float64, len(x.Data))
	for i, v := range x.Data {
		mean[i%c] += float64(v) / n
	}
	for i, v := range x.Data {
		d := float64(v) - mean[i%c]
		variance[i%c] += d * d / n
	}
	for i, v := range x.Data {
		y[i] = float64(b.Weight[i%c])*(float64(v)-mean[i%c])/math.Sqrt(variance[i%c]+b.Eps) + float64(b.Bias[i%c])
		if residual != nil {
			y[i] += float64(residual.Data[i])
		}
		if relu {
			y[i] = max(y[i], 0)
		}
	}
	return y, mean, variance
}

func near(t interface{ Fatalf(string, ...any) }, name string, got []float32, want []float64, tol float64) {
	for i, w := range want {
		if !(math.Abs(float64(got[i])-w) <= tol*(1+math.Abs(w))) {
			t.Fatalf("%s %d is %g, want %g", name, i, got[i], w)
		}
	}
}

func TestBatchNormEqualsTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		x := drawMap(t, rng)
		for i := range x.Data { // far from zero
			x.Data[i] += 100
		}
		b := newNorm(rng, x.C)
		var residual *conv.Map
		if rapid.Bool().Draw(t, "residual") {
			residual = normal(rng, x.N, x.H, x.W, x.C)
		}
		relu := rapid.Bool().Draw(t, "relu")
		want, mean, variance := normalised(b, x, residual, relu)
		n := float64(x.N * x.H * x.W)
		running, spread := make([]float64, x.C), make([]float64, x.C)
		for c := range x.C {
			running[c] = .9*float64(b.Mean[c]) + .1*mean[c]
			spread[c] = float64(b.Var[c])
			if n > 1 {
				spread[c] = .9*spread[c] + .1*variance[c]*n/(n-1)
			}
		}
		// Inputs near 100 are known to 8e-6, which small deviations magnify.
		tol := 2e-4
		for _, v := range variance {
			tol = max(tol, 1e-4/math.Sqrt(v+b.Eps))
		}
		near(t, "output", b.Forward(nil, x, residual, relu, 2).Data, want, tol)
		near(t, "running mean", b.Mean, running, 1e-5)
		near(t, "running variance", b.Var, spread, 1e-4)
	})
}

func TestBatchNormBackwardIsTheGradient(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))
		x := normal(rng, rapid.IntRange(1, 3).Draw(t, "n"), rapid.IntRange(2, 5).Draw(t, "h"), rapid.IntRange(2, 5).Draw(t, "w"), rapid.IntRange(1, 20).Draw(t, "c"))
		b := newNorm(rng, x.C)
		relu := rapid.Bool().Draw(t, "relu")
		residual := normal(rng, x.N, x.H, x.W, x.C)
		dy := normal(rng, x.N, x.H, x.W, x.C)
		out := b.Forward(nil, x, residual, relu, 1)
		mask := out
		if !relu {
			mask = nil
		}
		given := slices.Clone(dy.Data)
		dw, db := make([]float32, x.C), make([]float32, x.C)
		dx := b.Backward(nil, dy, x, mask, dw, db, 2)
		loss := func() float64 {
			y, _, _ := normalised(b, x, residual, relu)
			sum := 0.
			for i, v := range y {
				sum += v * float64(given[i])
			}
			return sum
		}
		// Central differences of the definition in float64; a kink of ReLU near
		// the point spoils a few, which are left out.
		slope := func(p *float32) (float64, bool) {
			const h = 1. / 512
			v := *p
			f := func(d float64) float64 {
				*p = v + float32(d)
				defer func() { *p = v }()
				return loss()
			}
			up, down, here := f(h), f(-h), f(0)
			wide, narrow := (up-down)/(2*h), (f(h/2)-f(-h/2))/h
			// A kink at the point itself leaves both alike, but not the two sides.
			bend := math.Abs(up-2*here+down) / h
			return (4*narrow - wide) / 3, math.Abs(wide-narrow) < 1e-3*(1+math.Abs(wide)) && bend < 4e-3*(1+math.Abs(wide))
		}
		check := func(name string, p *float32, got float32) {
			if want, ok := slope(p); ok && math.Abs(want-float64(got)) > 5e-3*(1+math.Abs(want)) {
				t.Fatalf("gradient of %s is %g, want %g", name, got, want)
			}
		}
		i := rapid.IntRange(0, len(x.Data)-1).Draw(t, "value")
		check("input", &x.Data[i], dx.Data[i])
		check("residual", &residual.Data[i], dy.Data[i])
		check("weight", &b.Weight[i%x.C], dw[i%x.C])
		check("bias", &b.Bias[i%x.C], db[i%x.C])
	})
}

func TestMaxPoolEqualsTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 3))
		x := drawMap(t, rng)
		var p MaxPool
		y := p.Forward(nil, x, 2)
		dy := normal(rng, y.N, y.H, y.W, y.C)
		dx := p.Backward(nil, dy, x.H, x.W, false, 2)
		want := make([]float64, len(x.Data))
		for n := range x.N {
			for oy := range (x.H + 1) / 2 {
				for ox := range (x.W + 1) / 2 {
					for c := range x.C {
						best, at := math.Inf(-1), 0
						for yy := max(2*oy-1, 0); yy <= min(2*oy+1, x.H-1); yy++ {
							for xx := max(2*ox-1, 0); xx <= min(2*ox+1, x.W-1); xx++ {
								i := ((n*x.H+yy)*x.W+xx)*x.C + c
								if v := float64(x.Data[i]); v > best {
									best, at = v, i
								}
							}
						}
						o := ((n*y.H+oy)*y.W+ox)*y.C + c
						if float64(y.Data[o]) != best {
							t.Fatalf("output %d is %g, want %g", o, y.Data[o], best)
						}
						want[at] += float64(dy.Data[o])
					}
				}
			}
		}
		near(t, "gradient", dx.Data, want, 1e-6)
	})
}

func TestAveragePoolAndItsGradientEqualTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 4))
		x := drawMap(t, rng)
		y := AveragePool(nil, x, 2)
		area := float64(x.H * x.W)
		want, grad := make([]float64, len(y.Data)), make([]float64, len(x.Data))
		for i, v := range x.Data {
			o := i/(x.H*x.W*x.C)*x.C + i%x.C
			want[o] += float64(v) / area
			grad[i] = float64(y.Data[o]) / area
		}
		near(t, "mean", y.Data, want, 1e-5)
		near(t, "gradient", AveragePoolBackward(nil, y, x.H, x.W, false, 2).Data, grad, 1e-6)
	})
}

func TestCrossEntropyAndItsGradientEqualTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 5))
		n, classes := rapid.IntRange(1, 150).Draw(t, "n"), rapid.IntRange(1, 12).Draw(t, "classes")
		smoothing := rapid.SampledFrom([]float64{0, .1}).Draw(t, "smoothing")
		logits := normal(rng, n, 1, 1, classes).Data
		for i := range logits {
			logits[i] *= 50
		}
		labels := make([]int, n)
		want, grad := 0., make([]float64, len(logits))
		for i := range labels {
			labels[i] = rng.IntN(classes)
			row := logits[i*classes : (i+1)*classes]
			most, sum := float64(slices.Max(row)), 0.
			for _, v := range row {
				sum += math.Exp(float64(v) - most)
			}
			for c, v := range row {
				target := smoothing / float64(classes)
				if c == labels[i] {
					target += 1 - smoothing
				}
				logP := float64(v) - most - math.Log(sum)
				want -= target * logP / float64(n)
				grad[i*classes+c] = (math.Exp(logP) - target) / float64(n)
			}
		}
		got := make([]float32, len(logits))
		loss := CrossEntropy(got, logits, labels, classes, smoothing, 2)
		if math.Abs(loss-want) > 1e-9*(1+want) {
			t.Fatalf("loss %g, want %g", loss, want)
		}
		near(t, "gradient", got, grad, 1e-6)
	})
	if l := CrossEntropy(nil, []float32{1, float32(math.NaN())}, []int{0}, 2, 0, 1); l == l {
		t.Errorf("the loss of NaN is %g", l)
	}
}

// The figures are those of the update rules in float64 on one weight.
func TestOptimisersFollowTheirRules(t *testing.T) {
	for _, o := range []SGD{{Rate: .1}, {Rate: .1, Momentum: .9, Decay: .01}, {Rate: .1, Momentum: .9, Nesterov: true}} {
		w, v := []float32{1}, []float32{0}
		x, u := 1., 0.
		for range 5 {
			g := 2 * x
			o.Step(w, v, []float32{2 * w[0]}, 1)
			g += o.Decay * x
			u = o.Momentum*u + g
			if o.Nesterov {
				x -= o.Rate * (g + o.Momentum*u)
			} else {
				x -= o.Rate * u
			}
		}
		if math.Abs(float64(w[0])-x) > 1e-6 {
			t.Errorf("%+v: %g, want %g", o, w[0], x)
		}
	}
	for _, decoupled := range []bool{false, true} {
		o := Adam{Rate: .1, Beta1: .9, Beta2: .999, Eps: 1e-3, Decay: .1, Decoupled: decoupled}
		w, m, s := []float32{1}, []float32{0}, []float32{0}
		x, a, b := 1., 0., 0.
		for i := range 5 {
			g := 2 * x
			o.Step(i+1, w, m, s, []float32{2 * w[0]}, 1)
			if decoupled {
				x -= o.Rate * o.Decay * x
			} else {
				g += o.Decay * x
			}
			a, b = o.Beta1*a+(1-o.Beta1)*g, o.Beta2*b+(1-o.Beta2)*g*g
			t := float64(i + 1)
			x -= o.Rate * (a / (1 - math.Pow(o.Beta1, t))) / (math.Sqrt(b/(1-math.Pow(o.Beta2, t))) + o.Eps)
		}
		if math.Abs(float64(w[0])-x) > 1e-6 {
			t.Errorf("Adam, decoupled %v: %g, want %g", decoupled, w[0], x)
		}
	}
}

func TestResultsDoNotDependOnWorkers(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	x, dy := normal(rng, 8, 32, 31, 24), normal(rng, 8, 32, 31, 24)
	var first [][]float32
	for _, workers := range []int{1, 2, 5} {
		b := newNorm(rand.New(rand.NewPCG(7, 7)), 24)
		g := &conv.Map{N: 8, H: 32, W: 31, C: 24, Data: slices.Clone(dy.Data)}
		y := b.Forward(nil, x, nil, true, workers)
		dw, db := make([]float32, 24), make([]float32, 24)
		dx := b.Backward(nil, g, x, y, dw, db, workers)
		var p MaxPool
		pooled := p.Forward(nil, x, workers)
		back := p.Backward(nil, pooled, 32, 31, false, workers)
		all := [][]float32{y.Data, dx.Data, dw, db, b.Mean, b.Var, pooled.Data, back.Data}
		if first == nil {
			first = all
		}
		for i := range all {
			if !slices.Equal(all[i], first[i]) {
				t.Errorf("result %d of %d workers differs", i, workers)
			}
		}
	}
}

func TestDistillationAndItsGradientEqualTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 9))
		n, classes := rapid.IntRange(1, 130).Draw(t, "n"), rapid.IntRange(1, 9).Draw(t, "classes")
		temperature := rapid.Float64Range(.5, 8).Draw(t, "temperature")
		logits, teacher := normal(rng, n, 1, 1, classes).Data, normal(rng, n, 1, 1, classes).Data
		value := func(x []float64) float64 {
			var loss float64
			for i := range n {
				var zs, zt float64
				for c := range classes {
					zs += math.Exp(x[i*classes+c] / temperature)
					zt += math.Exp(float64(teacher[i*classes+c]) / temperature)
				}
				for c := range classes {
					p := math.Exp(float64(teacher[i*classes+c])/temperature) / zt
					loss += temperature * temperature * p * (math.Log(p) - x[i*classes+c]/temperature + math.Log(zs)) / float64(n)
				}
			}
			return loss
		}
		x := make([]float64, len(logits))
		for i, v := range logits {
			x[i] = float64(v)
		}
		got := make([]float32, len(logits))
		if loss, want := Distill(got, logits, teacher, classes, temperature, 2), value(x); math.Abs(loss-want) > 1e-9*(1+want) {
			t.Fatalf("loss %g, want %g", loss, want)
		}
		const h = 1e-4
		for range 5 {
			i := rng.IntN(len(x))
			x[i] += h
			up := value(x)
			x[i] -= 2 * h
			down := value(x)
			x[i] += h
			if d := (up - down) / (2 * h); math.Abs(d-float64(got[i])) > 1e-6 {
				t.Errorf("gradient %g, by differences %g", got[i], d)
			}
		}
	})
}
