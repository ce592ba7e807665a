package cpd

import "slices"

func (a *als) nonNegative(n int) bool { return slices.Contains(a.set.NonNegative, n) }

// passes is how often the columns of a factor are gone through in a sweep: the
// MTTKRP, which a pass does not change, costs much more.
const passes = 5

// hierarchical improves factor n, whose scale is in the weights.
func (a *als) hierarchical(n int, g, m []float64) {
	u := a.u[n]
	for i := range u {
		u[i] *= a.w[i%a.rank]
	}
	descend(u, g, m, a.rank)
}

// descend improves the rows of u, of r elements, for the normal equations u·Γ = m, a
// column at a time: for the others fixed the best non-negative column c is
// max(0, u_c + (m_c − U·Γ_c)/Γ_cc).
func descend(u, g, m []float64, r int) {
	for range passes {
		var change, size float64
		for c := range r {
			d := g[c*r+c]
			if d == 0 {
				continue // another factor's column is zero
			}
			for i := 0; i < len(u); i += r {
				row := u[i : i+r]
				v := m[i+c]
				for k, x := range row {
					v -= x * g[k*r+c]
				}
				v = max(row[c]+v/d, 0)
				change += (v - row[c]) * (v - row[c])
				size += v * v
				row[c] = v
			}
		}
		if change <= 1e-6*size {
			break
		}
	}
}
