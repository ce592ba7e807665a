package nn

import "math"

// The functions of this file are exact in float32, and several times as fast as those of
// package math, which are exact in float64. math.Exp is fast as it is.

// small is where functions are their Taylor polynomials of degree 1 or 2: float64's
// rounding of eˣ − 1 is below 2 parts in 10¹¹ beyond.
const small = 1e-5

// expm1 is eˣ − 1.
func expm1(x float64) float64 {
	if math.Abs(x) < small {
		return x + x*x/2
	}
	return math.Exp(x) - 1
}

// sigmoid is 1/(1 + e⁻ˣ).
func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// tanh is (e²ˣ − 1)/(e²ˣ + 1).
func tanh(x float64) float64 {
	switch {
	case math.Abs(x) < small:
		return x
	case x > 20:
		return 1
	}
	e := math.Exp(2 * x)
	return (e - 1) / (e + 1)
}

// erf is 2/√π·∫₀ˣ exp(−t²) dt to 2 parts in 10⁸: the Maclaurin series below 1, and
// 1 − erfc beyond.
func erf(x float64) float64 {
	if a := math.Abs(x); !(a < 1) {
		return math.Copysign(1-tail(a), x)
	}
	q := x * x
	return 2 / math.SqrtPi * x * (1 - q*(1./3-q*(1./10-q*(1./42-q*(1./216-q*(1./1320-q*(1./9360-q*(1./75600-q*(1./685440-q*(1./6894720-q*(1./76204800)))))))))))
}

// erfc is 1 − erf(x), without cancellation where x is large.
func erfc(x float64) float64 {
	if x < 1 {
		return 1 - erf(x)
	}
	return tail(x)
}

// tail is erfc(x) for x from 1 to about 11, beyond which float32 has only 0, to 2 parts
// in 10⁸: t·exp(−x² + P(t)) with t = 1/(1 + x/2), where P fits the logarithm at
// Chebyshev's nodes (the form is that of Press et al., Numerical Recipes, section 6.2).
func tail(x float64) float64 {
	t := 1 / (1 + x/2)
	p := -1.2654995669325388 + t*(0.9996997697154352+t*(0.37783156854043015+t*(0.07070223818346415+t*(-0.06669308848353665+
		t*(-0.08472731282742454+t*(-0.4189810313752226+t*(0.6175598493960194+t*-0.23094745148001933)))))))
	return t * math.Exp(p-x*x)
}
