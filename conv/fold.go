package conv

import "fmt"

// Fold is a way to see the weights of one group, (T/g)×(S/g)×kh×kw, as a matrix; a
// product of two thin matrices in its place is a chain of two stages.
type Fold struct {
	Rows, Cols int
	// at is where the weight of output t, input s and tap (y, x) is in the matrix,
	// row-major.
	at func(t, s, y, x int) int
	k  *Kernel
}

// NewFold is the matrix whose product is a chain of a kind: T×(S·kh·kw) for SVD,
// S×(T·kh·kw) for SVDIn, (S·kh)×(T·kw) for Spatial, T and S being those of one group.
func NewFold(k *Kernel, kind Kind) (*Fold, error) {
	if err := k.Validate(); err != nil {
		return nil, err
	}
	t, s, h, w := k.Shape[0]/max(k.Groups, 1), k.Shape[1], k.Shape[2], k.Shape[3]
	f := &Fold{k: k}
	switch kind {
	case SVD:
		f.Rows, f.Cols = t, s*h*w
		f.at = func(t, s, y, x int) int { return t*f.Cols + (s*h+y)*w + x }
	case SVDIn:
		f.Rows, f.Cols = s, t*h*w
		f.at = func(t, s, y, x int) int { return s*f.Cols + (t*h+y)*w + x }
	case Spatial:
		f.Rows, f.Cols = s*h, t*w
		f.at = func(t, s, y, x int) int { return (s*h+y)*f.Cols + t*w + x }
	default:
		return nil, fmt.Errorf("%w: chains of kind %q are no product of two matrices", ErrShape, kind)
	}
	return f, nil
}

// Group is the matrix of group g, newly allocated.
func (f *Fold) Group(g int) []float64 {
	out := make([]float64, f.Rows*f.Cols)
	t, s, h, w := f.k.Shape[0]/max(f.k.Groups, 1), f.k.Shape[1], f.k.Shape[2], f.k.Shape[3]
	weights := f.k.Weight[g*len(out):]
	for i := range t {
		for j := range s {
			for y := range h {
				for x := range w {
					out[f.at(i, j, y, x)] = float64(weights[((i*s+j)*h+y)*w+x])
				}
			}
		}
	}
	return out
}
