package ranks

import "github.com/lowrank-go/lowrank/vbmf"

// Spectra are the singular values of the matrices of a layer's groups, which all get one
// rank.
type Spectra struct {
	Rows, Cols int
	Values     [][]float64 // falling, of each group
}

// Keeping is the least rank, at least 1, that leaves out at most a share of each group's
// squared norm. Shares below the rounding of the norm count as none.
func (s Spectra) Keeping(out float64) int {
	rank := 1
	for _, v := range s.Values {
		rank = max(rank, Keeping(v, out))
	}
	return rank
}

// Signal is the rank that variational Bayes tells from noise, the largest of the groups;
// 0 is noise alone.
func (s Spectra) Signal(set *vbmf.Settings) (int, error) {
	rank := 0
	for _, v := range s.Values {
		r, err := vbmf.Singular(v, s.Rows, s.Cols, set)
		if err != nil {
			return 0, err
		}
		rank = max(rank, r.Rank)
	}
	return rank, nil
}

// Keeping is the number of the leading values that leave out at most a share of the sum of
// all squares.
func Keeping(values []float64, out float64) int {
	total, tail, n := 0.0, 0.0, len(values)
	for _, v := range values {
		total += v * v
	}
	most := (out + float64(n)*0x1p-52) * total
	for n > 0 && tail+values[n-1]*values[n-1] <= most {
		n--
		tail += values[n] * values[n]
	}
	return n
}

// OfProduct is the largest rank of a product of a rows×rank and a rank×cols matrix with
// at most a share of the entries of the rows×cols matrix that it stands for; 0 where none
// has so few.
func OfProduct(rows, cols int, share float64) int {
	return OfSum(rows*cols, rows+cols, share)
}

// OfSum is the largest number of terms of a size each that together have at most a share
// of the entries of what they stand for.
func OfSum(entries, each int, share float64) int {
	return int(share * float64(entries) / float64(each))
}
