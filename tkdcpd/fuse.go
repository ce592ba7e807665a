package tkdcpd

// Fuse says which modes' two factors will be multiplied together.
type Fuse string

// The ways.
const (
	// Apart leaves all as they are.
	Apart Fuse = ""
	// Cheaper fuses where the product has no more values; see Tensor.Merged.
	Cheaper Fuse = "cheaper"
	// All makes a CPD of the whole; see Tensor.Kruskal.
	All Fuse = "all"
)

// merges tells whether an I×dim and a dim×rank factor are fused.
func (f Fuse) merges(size, dim, rank int) bool {
	return f == All || f == Cheaper && size*rank <= dim*(size+rank)
}

// Params is the number of values of the factors of a tensor of the given shape, for a
// core of dims and a CPD of the given rank: Σ_n R_n·(I_n + R), and I_n·R for a mode
// that is fused, or that is left alone, R_n being I_n.
func Params(shape, dims []int, rank int, fuse Fuse) int {
	total := 0
	for n, size := range shape {
		if d := dims[n]; d == size || fuse.merges(size, d, rank) {
			total += size * rank
		} else {
			total += d * (size + rank)
		}
	}
	return total
}
