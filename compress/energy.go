package compress

import (
	"context"

	"github.com/lowrank-go/lowrank/conv"
)

// Energies are what each further rank of a chain of one rank adds to its squared norm,
// falling, for methods SVD, SVDIn and Spatial: the squared singular values of the
// method's matrix, summed over the groups. What is left of their sum is the squared error.
func Energies(k *conv.Kernel, m Method, workers int) ([]float64, error) {
	all, err := spectra(context.Background(), k, conv.Kind(m), workers, 0)
	if err != nil {
		return nil, err
	}
	out := make([]float64, len(all[0].values))
	for _, sp := range all {
		for i, v := range sp.values {
			out[i] += v * v
		}
	}
	return out, nil
}

// TuckerEnergies are the squared norms that a Tucker-2 decomposition of ranks i+1, j+1
// keeps at least, at [i][j]: those of the truncated HOSVD.
func TuckerEnergies(ctx context.Context, k *conv.Kernel, workers int) ([][]float64, error) {
	t, s := k.Shape[0]/max(k.Groups, 1), k.Shape[1]
	energy, err := coreEnergy(ctx, groups(k), t, s, k.Taps(), workers)
	if err != nil {
		return nil, err
	}
	out := make([][]float64, t)
	for i := range out {
		out[i] = energy[i*s : (i+1)*s]
		var row float64
		for j, v := range out[i] {
			row += v
			if out[i][j] = row; i > 0 {
				out[i][j] += out[i-1][j]
			}
		}
	}
	return out, nil
}
