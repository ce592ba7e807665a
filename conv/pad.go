package conv

// vector is the number of channels that the inner loops take at once.
const vector = 8

// padded is the stages of c with the channels between them filled up with zeros
// to whole vectors: ranks are odd numbers, and the inner loops are several times
// slower on what is left over. The chain's outputs stay the same sums with zeros
// added.
func (c *Chain) padded() []*Kernel {
	stages := append([]*Kernel(nil), c.Stages...)
	if max(c.Groups, 1) > 1 {
		return stages
	}
	for i := range len(stages) - 1 {
		a, b := stages[i], stages[i+1]
		more := (a.Out() + vector - 1) / vector * vector
		if a.Groups > 1 && !alone(a) || b.Groups > 1 && !alone(b) {
			continue
		}
		// A stage whose channels are alone is filled up with its inputs.
		if a.Out() < more {
			stages[i] = a.fillOutputs(more)
		}
		if b.In() < more {
			stages[i+1] = b.fillInputs(more)
		}
	}
	return stages
}

// alone reports whether every channel has a kernel of its own.
func alone(k *Kernel) bool { return k.Groups > 1 && k.Shape[0] == k.Groups && k.Shape[1] == 1 }

// fillOutputs is k with zero outputs up to n.
func (k *Kernel) fillOutputs(n int) *Kernel {
	p := *k
	p.Shape[0] = n
	p.Weight = make([]float32, n*k.Shape[1]*k.Taps())
	copy(p.Weight, k.Weight)
	if k.Bias != nil {
		p.Bias = append(append([]float32(nil), k.Bias...), make([]float32, n-k.Shape[0])...)
	}
	return &p
}

// fillInputs is k with inputs up to n that count nothing; where every channel has
// a kernel of its own, their outputs are zeros.
func (k *Kernel) fillInputs(n int) *Kernel {
	if alone(k) {
		p := k.fillOutputs(n)
		p.Groups = n
		return p
	}
	p := *k
	p.Shape[1] = n
	size := k.Shape[1] * k.Taps()
	p.Weight = make([]float32, k.Shape[0]*n*k.Taps())
	for t := range k.Shape[0] {
		copy(p.Weight[t*n*k.Taps():], k.Weight[t*size:(t+1)*size])
	}
	return &p
}
