package stability

import (
	"fmt"
	"math"

	"github.com/lowrank-go/lowrank/internal/gemm"
	"github.com/lowrank-go/lowrank/internal/hadamard"
	"github.com/lowrank-go/lowrank/internal/linalg"
)

// memory of an update
type memory struct {
	gamma, chol, w, across, half []float64
}

func sized(buf []float64, n int) []float64 {
	if cap(buf) < n {
		return make([]float64, n)
	}
	return buf[:n]
}

func (e *epc) gram(n int) {
	gemm.Gram64(e.set.Workers, true, e.rank, e.shape[n], 1, e.u[n], e.rank, 0, e.g[n], e.rank)
}

// square is ‖u_{n,r}‖².
func (e *epc) square(n, r int) float64 { return e.g[n][r*e.rank+r] }

// objective is that of balanced factors, for a tensor of unit norm.
func (e *epc) objective() float64 {
	var f float64
	for r := range e.rank {
		f += e.component(r)
	}
	return f
}

// component is the objective's share of a component.
func (e *epc) component(r int) float64 {
	all := 1.
	for n := range e.u {
		all *= e.square(n, r)
	}
	if e.set.Objective == Intensity {
		return all
	}
	if all == 0 {
		return 0
	}
	var f float64
	for n, size := range e.sizes {
		f += float64(size) * (all / e.square(n, r))
	}
	return f
}

// weights of the squared norms of factor n's columns in the objective: Π_{m≠n}
// ‖u_m‖² for the intensity, Σ_{j≠n} I_j Π_{m≠n,j} ‖u_m‖² for the sensitivity.
func (e *epc) weights(n int) []float64 {
	e.w = sized(e.w, e.rank)
	for r := range e.w {
		product, sum := 1., 0.
		for m, size := range e.sizes {
			if m == n {
				continue
			}
			s := e.square(m, r)
			// Of sums of products with one factor left out, one mode more.
			sum = sum*s + product*float64(size)
			product *= s
		}
		e.w[r] = sum
		if e.set.Objective == Intensity {
			e.w[r] = product
		}
	}
	return e.w
}

// sweep updates every factor.
func (e *epc) sweep() error {
	err := e.tree.Each(e.data, e.u, func(n int, m []float64) error {
		if e.scale != 1 {
			for i := range m {
				m[i] *= e.scale
			}
		}
		return e.update(n, m)
	})
	e.balance()
	return err
}

// balance scales the columns of each component for the least sensitivity, ‖u_n‖² in
// the ratio of the sizes, which changes neither the tensor nor the intensity.
func (e *epc) balance() {
	order := float64(len(e.u))
	for r := range e.rank {
		logs := 0.
		for n, size := range e.sizes {
			logs += math.Log(e.square(n, r) / float64(size))
		}
		if math.IsInf(logs, 0) || math.IsNaN(logs) {
			for n, u := range e.u { // zero, or as good as
				for i := r; i < len(u); i += e.rank {
					u[i] = 0
				}
				e.gramScale(n, r, 0)
			}
			continue
		}
		for n, size := range e.sizes {
			s := math.Exp((logs/order - math.Log(e.square(n, r)/float64(size))) / 2)
			for i := r; i < len(e.u[n]); i += e.rank {
				e.u[n][i] *= s
			}
			e.gramScale(n, r, s)
		}
	}
}

// gramScale scales row and column r of a Gram matrix.
func (e *epc) gramScale(n, r int, s float64) {
	g := e.g[n]
	for c := range e.rank {
		g[r*e.rank+c] *= s
		g[c*e.rank+r] *= s
	}
}

// update makes factor n the one of least objective within the bound, for the others
// fixed: U = M·(Γ + μ·W)⁻¹, where ‖X − X̂‖² = 1 − ⟨M,U⟩ − μ·⟨U,U·W⟩ is the bound's.
func (e *epc) update(n int, m []float64) error {
	r := e.rank
	e.gamma = sized(e.gamma, r*r)
	hadamard.All(e.gamma, e.g, n)
	w := e.weights(n)
	if e.bound >= 1 {
		clear(e.u[n])
		e.gram(n)
		e.error2 = 1
		return nil
	}
	var err error
	if e.penalty > 0 {
		e.mu[n] = e.penalty
		e.error2, _, err = e.try(n, m, w, e.penalty)
	} else {
		err = e.search(n, m, w)
	}
	if err != nil {
		return fmt.Errorf("stability: mode %d: %w", n, err)
	}
	e.gram(n)
	return nil
}

const (
	// A search ends when the squared error is below the bound by less than this
	// share of it, and not above, where Settings.Slack is 0.
	precise = 1e-10
	trials  = 100
)

// search finds the multiplier of mode n by Newton's method on the logarithm of the
// error as a function of the multiplier's, which is all but straight, between
// brackets. The error rises with the multiplier.
func (e *epc) search(n int, m, w []float64) error {
	var trace, weight float64
	for r, v := range w {
		trace += e.gamma[r*e.rank+r]
		weight += v
	}
	if trace == 0 || weight == 0 {
		clear(e.u[n])
		e.error2 = 1
		return nil
	}
	unit := trace / weight
	mu := e.mu[n]
	if mu == 0 {
		mu = 1e-3 * unit
	}
	low, high := 0., math.Inf(1) // multipliers of errors within the bound, and above
	floor := 1e-15 * unit * float64(e.rank)
	target := e.bound * (1 - e.set.Slack/2)
	for range trials {
		mu = max(mu, floor)
		error2, slope, err := e.try(n, m, w, mu)
		if err != nil {
			// Not positive definite to rounding: the multiplier is too small.
			floor = 10 * mu
			mu = floor
			continue
		}
		if error2 <= e.bound {
			low = max(low, mu)
			if e.reached(error2) {
				e.mu[n], e.error2 = mu, error2
				return nil
			}
		} else {
			high = min(high, mu)
			if mu <= floor*(1+1e-9) {
				// Even least squares are outside; they are the best there is.
				e.mu[n], e.error2 = mu, error2
				return nil
			}
		}
		if high <= low*(1+1e-14) {
			break
		}
		// slope is that of the error over the logarithm of the multiplier.
		step := math.Inf(1)
		if slope > 0 && error2 > 0 {
			step = math.Log(target/error2) * error2 / slope
		}
		next := mu * math.Exp(max(-8, min(step, 8)))
		switch {
		case !(next > low) && low > 0, !(next < high), next == mu:
			if math.IsInf(high, 1) {
				next = mu * 100
			} else if low == 0 {
				next = max(floor, high/100)
			} else {
				next = math.Sqrt(low * high)
			}
		}
		mu = next
	}
	// Rounding hides the root: what is within the bound for sure.
	if low == 0 {
		low = floor
	}
	error2, _, err := e.try(n, m, w, low)
	e.mu[n], e.error2 = low, error2
	return err
}

// reached tells whether a squared error is the bound's.
func (e *epc) reached(error2 float64) bool {
	return error2 <= e.bound && error2 >= e.bound*(1-e.set.Slack)
}

// try sets factor n to M·(Γ + μ·W)⁻¹ and returns the squared error and its derivative
// in log μ, 2μ²·⟨U·W, U·W·(Γ + μ·W)⁻¹⟩, which is left at 0 where the search has ended.
func (e *epc) try(n int, m, w []float64, mu float64) (error2, slope float64, err error) {
	r, rows := e.rank, e.shape[n]
	e.chol = sized(e.chol, r*r)
	copy(e.chol, e.gamma)
	for c, v := range w {
		e.chol[c*r+c] += mu * v
		if v == 0 { // a component that another mode has at zero
			e.chol[c*r+c]++
		}
	}
	if err := linalg.Cholesky(e.set.Workers, r, e.chol, r); err != nil {
		return 0, 0, err
	}
	e.across, e.half = sized(e.across, r*rows), sized(e.half, r*rows)
	linalg.Transpose(e.set.Workers, rows, r, m, r, e.across, rows)
	linalg.SolveCholesky(e.set.Workers, r, rows, e.chol, r, e.across, rows)
	linalg.Transpose(e.set.Workers, r, rows, e.across, rows, e.u[n], r)
	var inner, penalty float64
	for i := range r {
		row := e.across[i*rows : (i+1)*rows]
		half := e.half[i*rows : (i+1)*rows]
		var sum float64
		for k, v := range row {
			sum += v * v
			half[k] = w[i] * v
		}
		penalty += w[i] * sum
	}
	u := e.u[n]
	for i, v := range m {
		inner += v * u[i]
	}
	error2 = 1 - inner - mu*penalty
	if e.reached(error2) {
		return error2, 0, nil
	}
	linalg.SolveUpper(e.set.Workers, true, r, rows, e.chol, r, e.half, rows)
	for _, v := range e.half {
		slope += v * v
	}
	return error2, 2 * mu * mu * slope, nil
}
