package linalg

// descents is how often NonNegative goes through the columns: what comes before it,
// such as products with a tensor, costs much more.
const descents = 5

// NonNegative improves the rows of the matrix u, of r elements none negative, for
// the least-squares problems with the normal equations U·Γ = M, Γ being r×r, a
// column at a time: for the others fixed the best non-negative column c is
// max(0, u_c + (m_c − U·Γ_c)/Γ_cc). The squared error never rises.
//
// Cichocki and Phan, "Fast local algorithms for large scale nonnegative matrix and
// tensor factorizations", IEICE Trans. Fundamentals E92-A (2009).
func NonNegative(u, gamma, m []float64, r int) {
	for range descents {
		var change, size float64
		for c := range r {
			d := gamma[c*r+c]
			if d == 0 {
				continue // another factor's column is zero
			}
			for i := 0; i < len(u); i += r {
				row := u[i : i+r]
				v := m[i+c]
				for k, x := range row {
					v -= x * gamma[k*r+c]
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
