package cpd

import (
	"context"
	"math"
	"slices"
)

// The extrapolation of Ang, Cohen, Hien and Gillis, "Extrapolated alternating
// algorithms for approximate canonical polyadic decomposition", ICASSP 2020: a
// momentum that grows while the error falls and shrinks where it does not. Unlike
// theirs a sweep that fails is taken back, so that the error never rises.
const (
	firstMomentum = .5
	growth        = 1.05 // of the momentum, up to
	ceiling       = 1.01 // times as much as failed last, a sweep
	retreat       = 1.5
)

// Products in float32 leave the error uncertain by some 1e-7 of 1 in its square:
// they end where it, or what a sweep gains, nears that.
const (
	singleSize  = 1 << 15 // values of a tensor that is worth a copy
	singleError = .03
	singleGain  = 1e-6
)

// iterate sweeps until one of the reasons to stop, and adds what happens to res.
func (a *als) iterate(ctx context.Context, res *Result, most int) error {
	calm, last, patience := 0, math.Inf(1), a.set.Patience
	fast := !a.set.Plain && a.set.Ridge == 0
	d, _ := a.x.(*dense)
	narrow := fast && d != nil && len(d.data) >= singleSize
	if n := len(res.Errors); n > 0 {
		// The projection has been fitted: what is left to gain is little, and
		// either comes at once or not.
		last, patience, narrow = res.Errors[n-1], min(patience, 2), false
	}
	if narrow {
		d.narrow()
		defer d.widen()
	}
	before, weights := clones(a.u), slices.Clone(a.w)
	back := func() {
		for n := range a.u {
			copy(a.u[n], before[n])
			a.normalise(n)
		}
		copy(a.w, weights)
	}
	var v [][]float64
	if fast {
		v = clones(a.u)
	}
	beta, top := firstMomentum, 1.
	plain := 2 // sweeps to come without momentum
	res.Status = SweepLimit
	for res.Sweeps < most {
		if a.ends(ctx, res) {
			return nil
		}
		for n := range a.u {
			copy(before[n], a.u[n])
		}
		copy(weights, a.w)
		momentum := 0.
		if fast && plain == 0 {
			momentum = beta
		}
		e, err := a.sweep(momentum, v)
		if err != nil {
			return err
		}
		e = math.Hypot(a.lost, a.share*e)
		switch {
		case momentum > 0 && !(e < last):
			back()
			top = beta
			beta /= retreat
			plain, e = 1, last
		case momentum > 0:
			beta, top = min(top, beta*growth), min(1, top*ceiling)
		case plain > 0:
			plain--
		}
		if momentum == 0 && a.set.Ridge == 0 && e > last && (narrow || e > last+1e-13) {
			// A least-squares update cannot raise the error. Where it does, what is
			// left is below the rounding of the products or of ill-conditioned
			// normal equations, and the sweep is undone.
			back()
			if !narrow {
				res.Status = Converged
				return nil
			}
			e = last
		}
		res.Sweeps++
		res.Errors = append(res.Errors, e)
		if narrow && (e < singleError || momentum == 0 && last-e < singleGain || momentum > 0 && e < last && last-e < singleGain) {
			d.widen()
			narrow = false
			e = math.Hypot(a.lost, a.share*a.distance())
			// What was less was not so.
			for i := len(res.Errors) - 1; i >= 0 && res.Errors[i] <= e; i-- {
				res.Errors[i] = e
			}
			res.Errors[len(res.Errors)-1] = e
			plain, last, calm = 1, e, 0
		}
		if a.set.Progress != nil {
			a.set.Progress(res.Start, res.Sweeps, e)
		}
		if e <= exact {
			res.Status = Exact
			return nil
		}
		switch {
		case last == e && (momentum > 0 || plain > 0): // taken back, or counted anew
		case last-e < a.set.Tol:
			if calm++; calm >= patience {
				res.Status = Converged
				return nil
			}
		default:
			calm = 0
		}
		last = e
	}
	a.ends(ctx, res)
	return nil
}
