package linalg

import (
	"fmt"
	"math"

	"github.com/lowrank-go/lowrank/internal/parallel"
)

// secular is the eigenvalue problem of D + rho·z·zᵀ, D diagonal with rising
// poles, ‖z‖ = 1, no element of z and no gap between poles negligible. The
// eigenvalues are the roots of
//
//	f(λ) = 1/rho + Σ_j z_j²/(d_j − λ)
//
// one behind each pole.
type secular struct {
	workers  int
	poles, z []float64
	rho      float64
	vectors  []float64 // k×k, row i belongs to root i
}

// solve writes the eigenvalues to values and the eigenvectors to the rows of
// s.vectors, element j at place[j]. The vectors are those of a matrix with
// slightly other z, for which the computed roots are exact, and so orthogonal to
// working precision.
//
// Gu and Eisenstat, SIAM J. Matrix Anal. Appl. 15 (1994).
func (s *secular) solve(values []float64, place []int) error {
	k := len(s.poles)
	if k == 1 {
		values[0] = s.poles[0] + s.rho*s.z[0]*s.z[0]
		s.vectors[0] = 1
		return nil
	}
	workers := s.workers
	if k < 64 {
		workers = 1
	}
	// Row i becomes d_j − λ_i, without the cancellation of that difference.
	const chunk = 16
	chunks := (k + chunk - 1) / chunk
	failed := make([]bool, chunks)
	parallel.For(workers, chunks, func(c int) {
		for i := c * chunk; i < min(k, (c+1)*chunk); i++ {
			var ok bool
			if values[i], ok = s.root(i, s.vectors[i*k:(i+1)*k]); !ok {
				failed[c] = true
			}
		}
	})
	for _, f := range failed {
		if f {
			return fmt.Errorf("linalg: a secular equation of order %d did not converge", k)
		}
	}
	// Löwner's formula: ẑ_j² = Π_i (λ_i − d_j) / Π_{i≠j} (d_i − d_j) / rho.
	zhat := make([]float64, k)
	parallel.For(workers, chunks, func(c int) {
		lo, hi := c*chunk, min(k, (c+1)*chunk)
		p := zhat[lo:hi]
		for j := range p {
			p[j] = 1
		}
		d := s.poles[lo:hi]
		for i := range k {
			delta := s.vectors[i*k+lo : i*k+hi]
			di := s.poles[i]
			if i >= lo && i < hi {
				for j, v := range delta {
					if lo+j == i {
						p[j] *= v
					} else {
						p[j] *= v / (d[j] - di)
					}
				}
				continue
			}
			for j, v := range delta {
				p[j] *= v / (d[j] - di)
			}
		}
		for j := range p {
			p[j] = math.Copysign(math.Sqrt(math.Abs(p[j])), s.z[lo+j])
		}
	})
	parallel.For(workers, chunks, func(c int) {
		buf := make([]float64, k)
		for i := c * chunk; i < min(k, (c+1)*chunk); i++ {
			row := s.vectors[i*k : (i+1)*k]
			var square float64
			for j, v := range row {
				v = zhat[j] / v
				buf[j] = v
				square += v * v
			}
			scale := 1 / math.Sqrt(square)
			for j, v := range buf {
				row[place[j]] = v * scale
			}
		}
	})
	return nil
}

// root finds root i, and writes the poles less it to delta. It iterates on the
// root's distance from the nearer pole, by rational functions with the two poles
// around it that agree with f and f′, within a bracket.
//
// Li, LAPACK Working Note 89 (1994); Golub and Van Loan, 4th ed., section 8.4.
func (s *secular) root(i int, delta []float64) (lambda float64, ok bool) {
	d, z, k := s.poles, s.z, len(s.poles)
	last := i == k-1
	// a and b are the poles around the root; behind the last there is none, and
	// the last two serve.
	a, b := i, i+1
	if last {
		a, b = k-2, k-1
	}
	gap := d[b] - d[a]
	za, zb := z[a]*z[a], z[b]*z[b]
	invRho := 1 / s.rho

	// The sign in the middle tells which pole is nearer. rest is f without the
	// poles a and b there.
	middle := gap / 2
	from := d[a]
	if last {
		middle, from = s.rho/2, d[b]
	}
	rest := invRho
	for j, v := range z {
		if j != a && j != b {
			rest += v * v / ((d[j] - from) - middle)
		}
	}
	var origin int
	var lo, hi, tau float64
	if last {
		f := rest + za/((d[a]-d[b])-middle) - zb/middle
		origin = b
		// The poles are at −gap and 0.
		pa, pb := -rest*gap+za+zb, zb*gap
		root := math.Sqrt(math.Max(pa*pa+4*pb*rest, 0))
		if pa < 0 {
			tau = 2 * pb / (root - pa)
		} else {
			tau = (pa + root) / (2 * rest)
		}
		if f <= 0 {
			lo, hi = middle, s.rho
		} else {
			lo, hi = 0, middle
		}
	} else if f := rest + za/-middle + zb/middle; f > 0 {
		origin = a
		lo, hi = 0, middle
		pa, pb := rest*gap+za+zb, za*gap
		root := math.Sqrt(math.Abs(pa*pa - 4*pb*rest))
		if pa > 0 {
			tau = 2 * pb / (pa + root)
		} else {
			tau = (pa - root) / (2 * rest)
		}
	} else {
		origin = b
		lo, hi = -middle, 0
		pa, pb := rest*gap-za-zb, zb*gap
		root := math.Sqrt(math.Abs(pa*pa + 4*pb*rest))
		if pa < 0 {
			tau = 2 * pb / (pa - root)
		} else {
			tau = -(pa + root) / (2 * rest)
		}
	}
	if !(tau > lo && tau < hi) {
		tau = lo + (hi-lo)/2
	}

	shift := d[origin]
	middleWay, previous := false, math.Inf(1)
	for iteration := range 100 {
		// f = invRho + psi + phi, psi from the poles up to a, phi from those
		// behind; sum bounds the rounding of their parts.
		var psi, dpsi, phi, dphi, sum float64
		for j, v := range z[:a+1] {
			dj := (d[j] - shift) - tau
			delta[j] = dj
			t := v / dj
			psi += v * t
			dpsi += t * t
			sum += psi
		}
		up := sum
		sum = 0
		for j := k - 1; j > a; j-- {
			dj := (d[j] - shift) - tau
			delta[j] = dj
			t := z[j] / dj
			phi += z[j] * t
			dphi += t * t
			sum += phi
		}
		f, slope := invRho+psi+phi, dpsi+dphi
		bound := math.Abs(up) + math.Abs(sum) + 8*(math.Abs(phi)+math.Abs(psi)) + 2*invRho + math.Abs(tau)*slope
		if math.Abs(f) <= epsilon*bound {
			return shift + tau, true
		}
		if f < 0 {
			lo = max(lo, tau)
		} else {
			hi = min(hi, tau)
		}
		if math.Abs(f) > math.Abs(previous)/10 {
			middleWay = !middleWay
		}
		previous = f

		da, db := delta[a], delta[b]
		var c float64
		switch {
		case last || middleWay:
			c = f - da*dpsi - db*dphi
			if last && c < 0 {
				c = -c
			}
		case origin == a:
			c = f - db*slope + gap*(z[a]/da)*(z[a]/da)
		default:
			c = f - da*slope - gap*(z[b]/db)*(z[b]/db)
		}
		pa := (da+db)*f - da*db*slope
		pb := da * db * f
		root := math.Sqrt(math.Abs(pa*pa - 4*pb*c))
		var step float64
		switch {
		case last && c == 0:
			step = hi - tau
		case c == 0:
			step = pb / pa
		case last && pa >= 0:
			step = (pa + root) / (2 * c)
		case last:
			step = 2 * pb / (pa - root)
		case pa <= 0:
			step = (pa - root) / (2 * c)
		default:
			step = 2 * pb / (pa + root)
		}
		if !(f*step < 0) {
			step = -f / slope
		}
		next := tau + step
		if !(next > lo && next < hi) || iteration > 30 {
			// Halve the bracket, by its logarithm where it spans magnitudes.
			switch {
			case lo > 0 && hi > 4*lo:
				next = math.Sqrt(lo) * math.Sqrt(hi)
			case hi < 0 && lo < 4*hi:
				next = -math.Sqrt(-lo) * math.Sqrt(-hi)
			default:
				next = lo + (hi-lo)/2
			}
			if !(next > lo && next < hi) {
				// Neighbours: no better number exists.
				return shift + tau, tau != 0
			}
		}
		tau = next
	}
	return 0, false
}
