package compress

import (
	"context"

	"github.com/lowrank-go/lowrank/internal/gemm"
)

// gramDepth is the number of products that are summed up between looks at the context:
// for a linear layer of 4096×25088 they take a fraction of a second.
const gramDepth = 2048

// gram is the smaller of A·Aᵀ and Aᵀ·A of a rows×cols matrix A, and its order. No more
// than a strip of A is copied at a time, so that it takes the memory of the result.
func gram[T float32 | float64](ctx context.Context, workers, rows, cols int, a []T) (g []float64, n int, err error) {
	n = min(rows, cols)
	g = make([]float64, n*n)
	depth, wide := max(rows, cols), rows <= cols
	var strip []float64
	for from := 0; from < depth; from += gramDepth {
		if ctx.Err() != nil {
			return nil, 0, context.Cause(ctx)
		}
		k := min(gramDepth, depth-from)
		// A strip of k columns of a wide matrix, or of k rows.
		top, left, height, width := 0, from, rows, k
		if !wide {
			top, left, height, width = from, 0, k, cols
		}
		strip = strip[:0]
		for i := range height {
			for _, v := range a[(top+i)*cols+left:][:width] {
				strip = append(strip, float64(v))
			}
		}
		gemm.Gram64(workers, !wide, n, k, 1, strip, width, float64(min(from, 1)), g, n)
	}
	return g, n, nil
}
